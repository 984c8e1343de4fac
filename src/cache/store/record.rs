//! A record: a name in a namespace, what blob it is of, and what its writer says about it. Pure. Not here: where it is kept.

use bytes::Bytes;

use crate::cache::sha256;
use crate::proto::digest::{Digest, Hash};

/// Bytes of a namespace, of a name within it, and of what is said about it, at most.
const LONGEST: [usize; 3] = [255, 4096, 64 << 10];

/// Holders of one blob that are kept: enough to find one that answers.
pub const MOST_HOLDERS: usize = 32;

/// What is found by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The blob.
    pub digest: Digest,
    /// Of two records of one name the one with the higher counts: microseconds since 1970 where and when it was set, and more than the one before had.
    pub version: u64,
    /// What it took to make it, in milliseconds, as far as that was seen.
    pub cost_ms: u32,
    /// Who else has the blob, where this store is asked for that.
    pub holders: Holders,
    /// What the front that wrote it wants to know; the store does not look into it.
    pub metadata: Bytes,
}

/// Runners that have a record's blob. Only within one run does a number mean the same runner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    /// Which run it is.
    pub run: u64,
    /// Numbers of roles, the latest to have said so last; at most [`MOST_HOLDERS`].
    pub numbers: Vec<u16>,
}

impl Holders {
    /// This runner of `run` has it too. Whether that is news.
    pub fn add(&mut self, run: u64, number: u16) -> bool {
        if self.run != run {
            *self = Self { run, numbers: vec![] };
        }
        let is_new = !self.numbers.contains(&number);
        if is_new {
            self.numbers.push(number);
            let excess = self.numbers.len().saturating_sub(MOST_HOLDERS);
            self.numbers.drain(..excess);
        }
        is_new
    }

    /// This one does not have it. Whether it was among them.
    pub fn remove(&mut self, run: u64, number: u16) -> bool {
        let before = self.numbers.len();
        self.numbers.retain(|known| self.run != run || *known != number);
        self.numbers.len() < before
    }

    /// Those of `run`.
    pub fn of(&self, run: u64) -> &[u16] {
        if self.run == run { &self.numbers } else { &[] }
    }
}

/// A record's name: readers of one namespace cannot name what is in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    namespace: String,
    name: String,
}

/// A name that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a namespace has 1 to {} bytes, a name 1 to {}", LONGEST[0], LONGEST[1])]
pub struct BadName;

impl Name {
    /// # Errors
    /// If either is empty or too long.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Result<Self, BadName> {
        let (namespace, name) = (namespace.into(), name.into());
        let fits = |text: &str, longest: usize| (1..=longest).contains(&text.len());
        let good = fits(&namespace, LONGEST[0]) && fits(&name, LONGEST[1]);
        good.then_some(Self { namespace, name }).ok_or(BadName)
    }

    /// What it is found by: no two names have the same.
    pub fn hash(&self) -> Hash {
        let mut hasher = sha256::Hasher::default();
        // The length ends the namespace: no name can reach into it.
        hasher.update(&[self.namespace.len() as u8]);
        hasher.update(self.namespace.as_bytes());
        hasher.update(self.name.as_bytes());
        hasher.finish().hash
    }

    /// Of whom it is.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Within its namespace.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A record with its name, as bytes: lengths of both names, the names, hash and size of the blob, version, cost,
/// run and numbers of its holders, metadata. `None` where that is too much.
pub(super) fn write(name: &Name, record: &Record) -> Option<Vec<u8>> {
    if record.metadata.len() > LONGEST[2] || record.holders.numbers.len() > MOST_HOLDERS {
        return None;
    }
    let holders = &record.holders;
    let numbers: Vec<u8> = holders.numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let parts = [
        &[name.namespace.len() as u8][..],
        &(name.name.len() as u16).to_le_bytes(),
        name.namespace.as_bytes(),
        name.name.as_bytes(),
        &record.digest.hash,
        &record.digest.size.to_le_bytes(),
        &record.version.to_le_bytes(),
        &record.cost_ms.to_le_bytes(),
        &holders.run.to_le_bytes(),
        &[holders.numbers.len() as u8],
        &numbers,
        &record.metadata,
    ];
    Some(parts.concat())
}

/// The opposite.
pub(super) fn read(body: &Bytes) -> Option<(Name, Record)> {
    let (lens, rest) = body.split_first_chunk::<3>()?;
    let (namespace, rest) = rest.split_at_checked(lens[0].into())?;
    let (name, rest) = rest.split_at_checked(u16::from_le_bytes([lens[1], lens[2]]).into())?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let (numbers, rest) = rest.split_first_chunk::<16>()?;
    let (cost, rest) = rest.split_first_chunk::<4>()?;
    let (run, rest) = rest.split_first_chunk::<8>()?;
    let (numbers, _) = numbers.as_chunks::<8>();
    let [size, version, run] = [&numbers[0], &numbers[1], run].map(|number| u64::from_le_bytes(*number));
    let (count, rest) = rest.split_first()?;
    let (holders, metadata) = rest.split_at_checked(2 * usize::from(*count))?;
    let (holders, _) = holders.as_chunks::<2>();
    let holders = Holders { run, numbers: holders.iter().map(|number| u16::from_le_bytes(*number)).collect() };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let digest = Digest { hash: *hash, size };
    let cost_ms = u32::from_le_bytes(*cost);
    let record = Record { digest, version, cost_ms, holders, metadata: body.slice_ref(metadata) };
    let fits = record.holders.numbers.len() <= MOST_HOLDERS && record.metadata.len() <= LONGEST[2];
    if !fits {
        return None;
    }
    Name::new(text(namespace)?, text(name)?).ok().map(|name| (name, record))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_name_reaches_into_another_namespace() {
        let name = |namespace: &str, name: &str| Name::new(namespace, name).expect("a name");

        assert_ne!(name("a", "bc").hash(), name("ab", "c").hash());
    }

    #[test]
    fn what_is_empty_or_too_long_is_refused() {
        assert_eq!(Name::new("", "a"), Err(BadName));
        assert_eq!(Name::new("a", ""), Err(BadName));
        assert_eq!(Name::new("a".repeat(256), "a"), Err(BadName));
        assert_eq!(Name::new("a", "a".repeat(4097)), Err(BadName));
        let (name, metadata) = (Name::new("a", "b").expect("a name"), Bytes::from(vec![0; (64 << 10) + 1]));
        assert_eq!(
            write(
                &name,
                &Record { digest: Digest::EMPTY, version: 0, cost_ms: 0, holders: Holders::default(), metadata }
            ),
            None
        );
    }

    #[test]
    fn the_latest_holders_are_kept_and_those_of_another_run_are_not() {
        let mut holders = Holders::default();
        assert!(holders.add(1, 7) && !holders.add(1, 7));
        assert!((0..MOST_HOLDERS as u16).all(|number| holders.add(1, 100 + number)));

        assert!(!holders.of(1).contains(&7) && holders.of(1).len() == MOST_HOLDERS);
        assert!(holders.of(2).is_empty());
        assert!(holders.add(2, 7));
        assert!(!holders.remove(1, 7) && !holders.remove(2, 8));
        assert_eq!((holders.of(2), holders.of(1)), (&[7][..], &[][..]));
        assert!(holders.remove(2, 7) && holders.of(2).is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(namespace in ".{1,30}", name in ".{1,60}", hash: Hash, numbers: [u64; 3], cost_ms: u32, roles in proptest::collection::vec(any::<u16>(), 0..=MOST_HOLDERS), metadata: Vec<u8>) {
            let name = Name::new(namespace, name).expect("a name");
            let [size, version, run] = numbers;
            let holders = Holders { run, numbers: roles };
            let record = Record { digest: Digest { hash, size }, version, cost_ms, holders, metadata: metadata.into() };

            let body = Bytes::from(write(&name, &record).expect("short enough"));

            prop_assert_eq!(read(&body), Some((name, record)));
            for len in 0..body.len().min(64) {
                prop_assert_eq!(read(&body.slice(..len)), None);
            }
        }

        #[test]
        fn no_bytes_panic(body: Vec<u8>) {
            let body = Bytes::from(body);
            if let Some((name, record)) = read(&body) {
                prop_assert_eq!(write(&name, &record), Some(body.to_vec()));
            }
        }
    }
}
