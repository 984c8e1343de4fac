//! What is sent: bytes that a seed and a position determine, so that whoever receives knows every one of them. Not here: sizes.

/// SplitMix64's increment and mixer (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn word(seed: u64, at: u64) -> u64 {
    let mut z = seed.wrapping_add(at.wrapping_add(1).wrapping_mul(GAMMA));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Writes the bytes from `offset` on into `scratch`, of which the result is a part.
pub(super) fn bytes(seed: u64, offset: u64, len: usize, scratch: &mut Vec<u8>) -> &[u8] {
    let skipped = (offset % 8) as usize;
    scratch.clear();
    let words = (skipped + len).div_ceil(8) as u64;
    (offset / 8..offset / 8 + words).for_each(|at| scratch.extend_from_slice(&word(seed, at).to_le_bytes()));
    &scratch[skipped..skipped + len]
}

/// A message that says which one it is; `len` is at least 8.
pub(super) fn message(number: u64, len: usize) -> Vec<u8> {
    let mut scratch = vec![];
    let rest = bytes(number, 0, len.saturating_sub(8), &mut scratch);
    [&number.to_be_bytes()[..], rest].concat()
}

/// Its number, or `None` where any bit is not as it was sent.
pub(super) fn number(message: &[u8]) -> Option<u64> {
    let (number, rest) = message.split_first_chunk()?;
    let number = u64::from_be_bytes(*number);
    (bytes(number, 0, rest.len(), &mut vec![]) == rest).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_is_the_same_wherever_a_reader_begins() {
        let whole = bytes(7, 0, 100, &mut vec![]).to_vec();

        for (from, to) in [(0, 100), (3, 50), (8, 9), (99, 100)] {
            assert_eq!(bytes(7, from as u64, to - from, &mut vec![]), &whole[from..to]);
        }
    }

    #[test]
    fn a_message_of_which_a_bit_has_changed_is_known() {
        let message = message(42, 200);

        assert_eq!((message.len(), number(&message)), (200, Some(42)));
        for at in [0, 7, 8, 199] {
            let mut changed = message.clone();
            changed[at] ^= 4;
            assert_eq!(number(&changed), None, "byte {at}");
        }
    }
}
