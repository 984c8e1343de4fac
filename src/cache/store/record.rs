//! A record: a name in a namespace, what blob it is of, and what its writer says about it. Pure. Not here: where it is kept.

use bytes::Bytes;

use crate::cache::sha256;
use crate::proto::digest::{Digest, Hash};

/// Bytes of a namespace, of a name within it, and of what is said about it, at most.
const LONGEST: [usize; 3] = [255, 4096, 64 << 10];

/// What is found by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The blob.
    pub digest: Digest,
    /// Of two records of one name the one with the higher counts: microseconds since 1970 where and when it was set, and more than the one before had.
    pub version: u64,
    /// What the front that wrote it wants to know; the store does not look into it.
    pub metadata: Bytes,
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

/// A record with its name, as bytes: lengths of both names, the names, hash and size of the blob, version, metadata. `None` where that is too much.
pub(super) fn write(name: &Name, record: &Record) -> Option<Vec<u8>> {
    if record.metadata.len() > LONGEST[2] {
        return None;
    }
    let parts = [
        &[name.namespace.len() as u8][..],
        &(name.name.len() as u16).to_le_bytes(),
        name.namespace.as_bytes(),
        name.name.as_bytes(),
        &record.digest.hash,
        &record.digest.size.to_le_bytes(),
        &record.version.to_le_bytes(),
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
    let (size, rest) = rest.split_first_chunk::<8>()?;
    let (version, metadata) = rest.split_first_chunk::<8>()?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let digest = Digest { hash: *hash, size: u64::from_le_bytes(*size) };
    let record = Record { digest, version: u64::from_le_bytes(*version), metadata: body.slice_ref(metadata) };
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
        assert_eq!(write(&name, &Record { digest: Digest::EMPTY, version: 0, metadata }), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(namespace in ".{1,30}", name in ".{1,60}", hash: Hash, numbers: [u64; 2], metadata: Vec<u8>) {
            let name = Name::new(namespace, name).expect("a name");
            let [size, version] = numbers;
            let record = Record { digest: Digest { hash, size }, version, metadata: metadata.into() };

            let body = Bytes::from(write(&name, &record).expect("short enough"));

            prop_assert_eq!(read(&body), Some((name, record)));
            for len in 0..body.len().min(51) {
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
