//! ccache's HTTP storage (its manual, "HTTP storage backend"): `/ccache/KEY`, in each of its three layouts. Versions differ in how they write a key: 4.7 writes
//! 32 letters of base 32, later ones 40 hex digits.

use super::{Front, Target};

pub(super) const FRONT: Front = Front { name: "ccache", target, is_work };

/// Letters of a key.
const KEY: std::ops::RangeInclusive<usize> = 16..=128;

/// Hex digits of what the layout `bazel` makes of a key.
const BAZEL: usize = 64;

/// `subdirs`: the first two letters are a folder. `flat`: all are the name. `bazel`: below `ac`, filled up to 64 digits. As the first two layouts are of one
/// key, a cache filled with one is found with the other.
fn target(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.split('/').collect();
    let key = match parts[..] {
        ["ac", digits] if digits.len() == BAZEL => format!("ac/{digits}"),
        [first, rest] if first.len() == 2 => format!("{first}{rest}"),
        [key] => key.into(),
        _ => return None,
    };
    let letters = key.strip_prefix("ac/").unwrap_or(&key);
    let good =
        KEY.contains(&letters.len()) && letters.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    good.then_some(Target::Entry(key))
}

/// What a manifest begins with: it says which result a compile has, and is looked up just before that ("cache entry header": magic, version of the format, type).
const MANIFEST: ([u8; 2], u8) = ([0xcc, 0xac], 1);

fn is_work(bytes: &[u8]) -> bool {
    !(bytes.starts_with(&MANIFEST.0) && bytes.get(3) == Some(&MANIFEST.1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "5a69gth13egv6ac9oei8trdnd47sfft9o";

    fn entry(name: &str) -> Option<Target> {
        Some(Target::Entry(name.into()))
    }

    #[test]
    fn flat_and_subdirs_name_the_same() {
        assert_eq!(target(KEY), entry(KEY));
        assert_eq!(target(&format!("{}/{}", &KEY[..2], &KEY[2..])), entry(KEY));
    }

    #[test]
    fn the_layout_bazel_is_told_from_a_key_that_begins_with_ac() {
        let (digits, rest) = ("0".repeat(64), "1".repeat(38));

        assert_eq!(target(&format!("ac/{digits}")), entry(&format!("ac/{digits}")));
        assert_eq!(target(&format!("ac/{rest}")), entry(&format!("ac{rest}")));
    }

    #[test]
    fn a_manifest_is_no_work_and_a_result_is() {
        assert!(!is_work(&[0xcc, 0xac, 1, 1, 0]) && is_work(&[0xcc, 0xac, 1, 0, 0]) && is_work(b"anything"));
    }

    #[test]
    fn what_is_no_key_names_nothing() {
        for path in [
            "",
            "a",
            "ab/",
            "../../etc/passwd",
            "ab/../0123456789abcdef",
            "0123456789ABCDEF",
            "%2e%2e/0123456789abcdef",
        ] {
            assert_eq!(target(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path: String) {
            let named = target(&path);

            prop_assert!(named.is_none() || path.bytes().all(|byte| byte == b'/' || byte.is_ascii_alphanumeric()));
        }
    }
}
