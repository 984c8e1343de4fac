//! The internet checksum (RFC 1071). Which bytes it covers is not here but with each protocol.
//!
//! Sums are kept in the machine's own byte order: the checksum of swapped words is the swapped checksum (RFC 1071 section 2 B), so nothing
//! need be swapped on the way.

/// A one's complement sum that is not folded yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Of the 16-bit words of `bytes`; an odd one at the end counts with a zero after it.
    pub fn of(bytes: &[u8]) -> Self {
        // Four rows of 64 bits at a time, each with room for its carries: nothing waits for the one before.
        let (blocks, rest) = bytes.as_chunks::<32>();
        let mut rows = [0u128; 4];
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for (row, word) in rows.iter_mut().zip(words) {
                *row += u128::from(u64::from_ne_bytes(*word));
            }
        }
        let (words, rest) = rest.as_chunks::<4>();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        let few: u64 = words.iter().chain([&last]).map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        Self(rows.into_iter().map(fold_to_half).sum::<u64>() + few)
    }

    /// With what follows at an even distance.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The folded sum, as it is left in a checksum field for somebody else to complete.
    pub fn partial(self) -> [u8; 2] {
        self.fold().to_ne_bytes()
    }

    /// The checksum, as it goes into a header.
    pub fn checksum(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }

    /// Whether data that includes its checksum is intact.
    pub fn is_intact(self) -> bool {
        self.fold() == u16::MAX
    }

    fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}

/// To 35 bits, with which the sum of several cannot overflow.
fn fold_to_half(row: u128) -> u64 {
    let halves = [row as u32, (row >> 32) as u32, (row >> 64) as u32, (row >> 96) as u32];
    halves.map(u64::from).iter().sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.partial(), [0xdd, 0xf2]);
        assert_eq!(sum.checksum(), [0x22, 0x0d]);
    }

    proptest! {
        #[test]
        fn it_is_what_adding_word_by_word_gives(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let words = bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)])));
            let slow = words.fold(0, |sum, word| (sum + word) % 0x10000 + (sum + word) / 0x10000);
            prop_assert_eq!(Sum::of(&bytes).partial(), (slow as u16).to_be_bytes());
        }

        #[test]
        fn data_with_its_checksum_is_intact_and_altered_is_not(mut words in prop::collection::vec(any::<[u8; 2]>(), 2..40), at: prop::sample::Index, bit in 0u8..8) {
            words[0] = [0; 2];
            words[0] = Sum::of(words.as_flattened()).checksum();
            prop_assert!(Sum::of(words.as_flattened()).is_intact());
            let at = at.index(words.len());
            words[at][0] ^= 1 << bit;
            prop_assert!(!Sum::of(words.as_flattened()).is_intact());
        }
    }
}
