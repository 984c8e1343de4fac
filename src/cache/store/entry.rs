//! An entry of a segment: a head of 80 bytes, then its body, up to the next multiple of 8. Pure: bytes in, bytes out. Not here: where it lies
//! ([`super::segment`]).
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 4 | [`MAGIC`] |
//! | 4 | 1 | kind: 1 a blob, 2 a blob whose bytes are a file of its own, 3 a record |
//! | 5 | 1 | 0, or [`VOID`] when it is void; in no sum, so that a single write voids it |
//! | 6 | 2 | 0 |
//! | 8 | 4 | length of the body |
//! | 12 | 4 | 0 |
//! | 16 | 8 | sequence number: of two entries of one name the higher counts |
//! | 24 | 8 | size of the blob; of kind 1 the length of the body |
//! | 32 | 32 | SHA-256 of the blob, or of the record's name |
//! | 64 | 8 | XXH3-64 of the body |
//! | 72 | 8 | XXH3-64 of the head so far, the void flag as 0, under the segment's seed |
//!
//! All numbers little-endian. Sums find what a disk or a crash has damaged; that the bytes are those of their name is checked before they get here.
//! The seed is drawn for each segment, so that no blob can hold what would pass for an entry once the head before it is damaged.

use twox_hash::XxHash3_64;

use crate::proto::digest::Hash;

/// Of each entry.
const MAGIC: [u8; 4] = *b"mBlb";

/// Bytes of a head.
pub(super) const HEAD: usize = 80;

/// Where the flag is that voids an entry.
pub(super) const VOID_AT: u64 = 5;

/// What voids it: anything but 0 does, so no single flipped bit brings back what was void.
pub(super) const VOID: u8 = 0xff;

/// Entries begin at its multiples.
pub(super) const ALIGNMENT: usize = 8;

/// The longest body.
pub(super) const LONGEST_BODY: usize = 1 << 20;

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The body is the blob.
    Blob = 1,
    /// The blob is a file, the body its sums ([`super::file`]).
    File = 2,
    /// The body is a record ([`super::record`]).
    Record = 3,
}

/// What is known of an entry without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) void: bool,
    pub(super) body: u32,
    pub(super) sequence: u64,
    pub(super) size: u64,
    pub(super) hash: Hash,
    pub(super) sum: u64,
}

/// What finds damage.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

impl Head {
    /// Of an entry with this body, of at most [`LONGEST_BODY`].
    pub(super) fn of(kind: Kind, hash: Hash, size: u64, sequence: u64, body: &[u8]) -> Self {
        Self { kind, void: false, body: body.len() as u32, sequence, size, hash, sum: sum(body) }
    }

    /// Bytes from this entry to the next.
    pub(super) fn stride(&self) -> u64 {
        (HEAD + self.body as usize).next_multiple_of(ALIGNMENT) as u64
    }

    fn encode(&self, seed: u64) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&MAGIC);
        head[4] = self.kind as u8;
        head[8..12].copy_from_slice(&self.body.to_le_bytes());
        head[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        head[24..32].copy_from_slice(&self.size.to_le_bytes());
        head[32..64].copy_from_slice(&self.hash);
        head[64..72].copy_from_slice(&self.sum.to_le_bytes());
        let own = XxHash3_64::oneshot_with_seed(seed, &head[..72]);
        head[72..].copy_from_slice(&own.to_le_bytes());
        head[VOID_AT as usize] = if self.void { VOID } else { 0 };
        head
    }

    /// The whole entry with `body`, as it is written into a segment of this seed.
    pub(super) fn write(&self, seed: u64, body: &[u8]) -> Vec<u8> {
        let mut entry = Vec::with_capacity(self.stride() as usize);
        entry.extend_from_slice(&self.encode(seed));
        entry.extend_from_slice(body);
        entry.resize(self.stride() as usize, 0);
        entry
    }

    /// The head at the start of `bytes`; `None` where none is, a damaged one, or one of another segment.
    pub(super) fn read(seed: u64, bytes: &[u8]) -> Option<Self> {
        let mut head: [u8; HEAD] = *bytes.first_chunk()?;
        let void = std::mem::take(&mut head[VOID_AT as usize]) != 0;
        let number = |at: usize| u64::from_le_bytes(*head[at..].first_chunk().unwrap_or(&[0; 8]));
        let kind = match head[4] {
            1 => Kind::Blob,
            2 => Kind::File,
            3 => Kind::Record,
            _ => return None,
        };
        let body = u32::from_le_bytes(*head[8..].first_chunk()?);
        let sound = head[..4] == MAGIC
            && number(72) == XxHash3_64::oneshot_with_seed(seed, &head[..72])
            && body as usize <= LONGEST_BODY
            && (kind != Kind::Blob || number(24) == u64::from(body));
        let hash = *head[32..].first_chunk()?;
        sound.then(|| Self { kind, void, body, sequence: number(16), size: number(24), hash, sum: number(64) })
    }

    /// Whether `body` is undamaged.
    pub(super) fn fits(&self, body: &[u8]) -> bool {
        body.len() == self.body as usize && sum(body) == self.sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEED: u64 = 0x5eed;

    fn head(body: &[u8]) -> Head {
        Head::of(Kind::Record, [7; 32], 9, 11, body)
    }

    #[test]
    fn a_void_entry_stays_readable() {
        let mut bytes = head(b"body").write(SEED, b"body");
        bytes[VOID_AT as usize] = 1;

        assert_eq!(Head::read(SEED, &bytes), Some(Head { void: true, ..head(b"body") }));
    }

    #[test]
    fn a_blob_of_another_size_than_its_body_is_no_entry() {
        let other = Head::of(Kind::Blob, [7; 32], 5, 11, b"body");

        assert_eq!(Head::read(SEED, &other.write(SEED, b"body")), None);
        assert!(Head::read(SEED, &Head { size: 4, ..other }.write(SEED, b"body")).is_some());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(kind in 0..3, hash: Hash, size: u64, sequence: u64, body: Vec<u8>) {
            let kind = [Kind::Blob, Kind::File, Kind::Record][kind as usize];
            let size = if kind == Kind::Blob { body.len() as u64 } else { size };
            let head = Head::of(kind, hash, size, sequence, &body);
            let bytes = head.write(SEED, &body);

            prop_assert_eq!(Head::read(SEED, &bytes), Some(head));
            prop_assert!(head.fits(&bytes[HEAD..HEAD + body.len()]));
            prop_assert_eq!(bytes.len() as u64, head.stride());
            prop_assert_eq!(Head::read(SEED + 1, &bytes), None, "of another segment");
        }

        #[test]
        fn a_flipped_bit_is_found(body in proptest::collection::vec(any::<u8>(), 0..200), bit in 0..8 * HEAD) {
            let mut bytes = head(&body).write(SEED, &body);
            bytes[bit / 8] ^= 1 << (bit % 8);

            let read = Head::read(SEED, &bytes);
            let expected = (bit as u64 / 8 == VOID_AT).then_some(Head { void: true, ..head(&body) });
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            prop_assert_eq!(Head::read(SEED, &bytes), None);
        }
    }
}
