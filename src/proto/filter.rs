//! What a peer surely does not have: a Bloom filter (Bloom, 1970) of its names, whose bits for one name all lie in one line of the processor's cache (Putze, Sanders
//! and Singler, 2007). Ten bits a name: 1 or 2 of 100 absent names pass. Names are added, never taken away. Not here: how filters travel.

/// Words of a block: a line of the cache.
const BLOCK: usize = 8;

/// Bits of a filter for each name it is made for.
const BITS_PER_NAME: usize = 10;

/// Bits that are set for a name.
const BITS_SET: u32 = 6;

/// The largest filter that is taken from somebody else, in bytes: of 100 million names.
pub const LARGEST: usize = 128 << 20;

/// Of the names of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    blocks: Vec<[u64; BLOCK]>,
}

impl Filter {
    /// Empty, for so many names.
    pub fn for_names(count: usize) -> Self {
        let blocks = (count * BITS_PER_NAME).div_ceil(BLOCK * 64).max(1);
        Self { blocks: vec![[0; BLOCK]; blocks] }
    }

    /// The name whose hash begins with `key` is there.
    pub fn insert(&mut self, key: u64) {
        let (block, bits) = self.place(key);
        for bit in bits {
            self.blocks[block][bit / 64] |= 1 << (bit % 64);
        }
    }

    /// Whether the name may be there. `false` is certain.
    pub fn may_have(&self, key: u64) -> bool {
        let (block, mut bits) = self.place(key);
        bits.all(|bit| self.blocks[block][bit / 64] >> (bit % 64) & 1 == 1)
    }

    /// Of a key the block, by its high bits, and the bits in it, by nine bits each of what mixing makes of it.
    fn place(&self, key: u64) -> (usize, impl Iterator<Item = usize> + use<>) {
        let block = (u128::from(key) * self.blocks.len() as u128) >> 64;
        // Murmur's finaliser (Appleby): neighbours in one block get unrelated bits.
        let mut mixed = (key ^ key >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        mixed ^= mixed >> 33;
        (block as usize, (0..BITS_SET).map(move |at| (mixed >> (9 * at) & 511) as usize))
    }

    /// As it travels: its words, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.blocks.as_flattened().iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The opposite; `None` for what is no whole number of blocks, none at all, or more than [`LARGEST`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let good = rest.is_empty() && !words.is_empty() && words.len().is_multiple_of(BLOCK) && bytes.len() <= LARGEST;
        let block = |chunk: &[[u8; 8]]| std::array::from_fn(|at| u64::from_le_bytes(chunk[at]));
        good.then(|| Self { blocks: words.chunks_exact(BLOCK).map(block).collect() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_absent_names_pass() {
        let spread = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut filter = Filter::for_names(100_000);
        (0..100_000).for_each(|number| filter.insert(spread(number)));

        let passed = (100_000..200_000).filter(|number| filter.may_have(spread(*number))).count();

        assert!(passed < 2_500, "{passed} of 100,000");
    }

    proptest! {
        #[test]
        fn what_is_inserted_is_there_and_stays_so_on_the_way(keys: Vec<u64>, room in 0_usize..2000) {
            let mut filter = Filter::for_names(room);
            keys.iter().for_each(|key| filter.insert(*key));

            prop_assert!(keys.iter().all(|key| filter.may_have(*key)));
            prop_assert_eq!(Filter::from_bytes(&filter.to_bytes()), Some(filter));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, key: u64) {
            if let Some(filter) = Filter::from_bytes(&bytes) {
                filter.may_have(key);
            }
            prop_assert_eq!(Filter::from_bytes(&bytes).is_some(), !bytes.is_empty() && bytes.len() % 64 == 0);
        }
    }
}
