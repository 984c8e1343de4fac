//! Where each entry lies, in 16 bytes of memory: a million entries in 17 to 34 MB. Not here: what it says; the whole name is in the entry, so that two names
//! which begin alike cost one of them its place and nothing else.

use std::collections::HashMap;

use super::entry::{ALIGNMENT, HEAD, LONGEST_BODY};
use crate::proto::digest::Hash;

/// Bytes of an entry are kept in such units.
const UNIT: usize = 64;

/// Bits of each part of a [`Place`], from the lowest: [`HEAD`] and [`LONGEST_BODY`] in units, the offset in [`ALIGNMENT`]s, the segment, how often it was read.
const BITS: [u32; 4] = [15, 23, 24, 2];

/// The longest segment, so that every offset in it has a place.
pub(super) const LONGEST_SEGMENT: u64 = (ALIGNMENT as u64) << BITS[1];

const _: () = assert!((HEAD + LONGEST_BODY).div_ceil(UNIT) < 1 << BITS[0]);

/// How often an entry was read counts up to this (S3-FIFO, SOSP 2023, section 4.1).
const MOST_READS: u64 = 3;

/// What an entry is looked up by.
pub type Key = u64;

/// The first bytes of its hash.
pub fn key(hash: &Hash) -> Key {
    u64::from_le_bytes(*hash.first_chunk().unwrap_or(&[0; 8]))
}

/// Where an entry lies and how often it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    /// In `segment` at `at`, where it takes `len` bytes. Read never.
    pub(super) fn new(segment: u32, at: u64, len: usize) -> Self {
        let [units, offset, ..] = BITS;
        Self(len.div_ceil(UNIT) as u64 | (at / ALIGNMENT as u64) << units | u64::from(segment) << (units + offset))
    }

    fn part(self, at: usize) -> u64 {
        let below: u32 = BITS[..at].iter().sum();
        self.0 >> below & ((1 << BITS[at]) - 1)
    }

    pub(super) fn segment(self) -> u32 {
        self.part(2) as u32
    }

    pub(super) fn at(self) -> u64 {
        self.part(1) * ALIGNMENT as u64
    }

    /// It takes no more bytes.
    pub(super) fn most(self) -> usize {
        self.part(0) as usize * UNIT
    }

    /// How often it was read, up to three times.
    pub(super) fn reads(self) -> u64 {
        self.part(3)
    }

    fn with_reads(self, reads: u64) -> Self {
        let below: u32 = BITS[..3].iter().sum();
        Self(self.0 & ((1 << below) - 1) | reads << below)
    }

    /// Whether both are the same entry.
    pub(super) fn is_of(self, segment: u32, at: u64) -> bool {
        self.segment() == segment && self.at() == at
    }
}

/// All entries that count.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The standard hasher is seeded: whoever chooses hashes cannot make them collide.
    places: HashMap<Key, Place>,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.places.keys().copied()
    }

    pub(super) fn get(&self, key: Key) -> Option<Place> {
        self.places.get(&key).copied()
    }

    /// The same, for somebody who reads it.
    pub(super) fn read(&mut self, key: Key) -> Option<Place> {
        let place = self.places.get_mut(&key)?;
        *place = place.with_reads((place.reads() + 1).min(MOST_READS));
        Some(*place)
    }

    /// The entry now lies there; where it lay before.
    pub(super) fn insert(&mut self, key: Key, place: Place) -> Option<Place> {
        self.places.insert(key, place)
    }

    /// The same entry now lies elsewhere, with so many reads.
    pub(super) fn move_to(&mut self, key: Key, place: Place, reads: u64) {
        self.places.insert(key, place.with_reads(reads));
    }

    /// Forgets all that lies in `segment`: their keys. Looks at every entry there is.
    pub(super) fn remove_all_of(&mut self, segment: u32) -> Vec<Key> {
        let lost: Vec<Key> =
            self.places.iter().filter(|(_, place)| place.segment() == segment).map(|(key, _)| *key).collect();
        self.places.retain(|_, place| place.segment() != segment);
        lost
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Place> {
        self.places.remove(&key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_are_counted_up_to_three() {
        let mut index = Index::default();
        index.insert(1, Place::new(2, 8, HEAD));

        let reads: Vec<u64> = (0..5).filter_map(|_| index.read(1)).map(Place::reads).collect();

        assert_eq!(reads, [1, 2, 3, 3, 3]);
        assert!(index.get(1).is_some_and(|place| place.is_of(2, 8)));
    }

    proptest! {
        #[test]
        fn a_place_holds_what_it_was_made_of(
            segment in 0_u32..1 << 24,
            at in 0..LONGEST_SEGMENT / ALIGNMENT as u64,
            len in HEAD..=HEAD + LONGEST_BODY,
            reads in 0..=MOST_READS,
        ) {
            let at = at * ALIGNMENT as u64;
            let place = Place::new(segment, at, len).with_reads(reads);

            prop_assert_eq!((place.segment(), place.at(), place.reads()), (segment, at, reads));
            prop_assert!((len..len + UNIT).contains(&place.most()));
        }
    }
}
