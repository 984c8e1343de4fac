//! `Digest`: the one name of a blob, its SHA-256 and its size, as in the Remote Execution API. Not here: how it is computed (`cache::sha256`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A SHA-256 (FIPS 180-4).
pub type Hash = [u8; 32];

/// The SHA-256 of nothing, which every store has.
const EMPTY: Hash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// Names a blob: `build.bazel.remote.execution.v2.Digest`. Written `<64 hex digits>/<size>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    /// Of the content.
    pub hash: Hash,
    /// Of the content, in bytes.
    pub size: u64,
}

impl Digest {
    /// Of no bytes.
    pub const EMPTY: Self = Self { hash: EMPTY, size: 0 };

    /// The hash as 64 hex digits, lower case.
    pub fn hex(&self) -> String {
        self.hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What is not 64 lower-case hex digits: the API knows no other way to write a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The hash.
    #[error("a hash is 64 hex digits in lower case")]
    Hash,
    /// The size, or that there is none.
    #[error("a digest is HASH/SIZE, with a size in bytes")]
    Size,
}

/// 64 hex digits.
///
/// # Errors
/// If they are not, or not in lower case.
pub fn parse_hash(text: &str) -> Result<Hash, Malformed> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut hash = Hash::default();
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != hash.len() || !rest.is_empty() {
        return Err(Malformed::Hash);
    }
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low).ok_or(Malformed::Hash)?;
    }
    Ok(hash)
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.hex(), self.size)
    }
}

impl FromStr for Digest {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (hash, size) = text.split_once('/').ok_or(Malformed::Size)?;
        let size = size.parse().ok().filter(|number: &u64| number.to_string() == size).ok_or(Malformed::Size)?;
        Ok(Self { hash: parse_hash(hash)?, size })
    }
}

impl TryFrom<String> for Digest {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn the_empty_digest_is_of_no_bytes() {
        assert_eq!(Digest::EMPTY.hash, <Hash>::from(Sha256::digest([])));
    }

    #[test]
    fn what_is_not_a_digest_is_refused() {
        let hash = Digest::EMPTY.hex();
        let upper = hash.to_uppercase();

        for text in ["", "/", "ab/1", &hash, &format!("{hash}/"), &format!("{hash}/-1"), &format!("{hash}/+1")] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        assert_eq!(format!("{upper}/0").parse::<Digest>(), Err(Malformed::Hash));
        assert_eq!(format!("{hash}0/0").parse::<Digest>(), Err(Malformed::Hash));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(hash: Hash, size: u64) {
            let digest = Digest { hash, size };

            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        }

        #[test]
        fn no_text_panics(text: String) {
            prop_assert_eq!(text.parse::<Digest>().is_ok_and(|digest| digest.to_string() != text), false);
        }
    }
}
