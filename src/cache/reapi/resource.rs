//! Names of what is read and written piece by piece (remote_execution.proto, "ContentAddressableStorage"): a blob of an instance, as it is or compressed, and
//! where it goes to be written. Pure. Not here: who may ask for it.

use std::fmt;
use std::str::FromStr;

use crate::proto::digest::{Digest, parse_hash};

/// No part of an instance's name may be one of these.
const KEYWORDS: [&str; 7] =
    ["blobs", "uploads", "actions", "actionResults", "operations", "capabilities", "compressed-blobs"];

/// How the bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are.
    Plain,
    /// As Zstandard (RFC 8878).
    Zstd,
}

/// What is to be read, or written if `upload` tells of which attempt it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) instance: String,
    pub(super) upload: Option<String>,
    pub(super) form: Form,
    pub(super) digest: Digest,
}

/// What names nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("`blobs` or `compressed-blobs` is missing in the resource's name")]
    Kind,
    #[error("the only compressor here is `zstd`")]
    Compressor,
    #[error("a blob is named by its SHA-256 as 64 hex digits in lower case, a slash, and its size in bytes")]
    Digest,
    #[error("an instance's name has no empty parts, no dots alone, and none of the API's own words")]
    Instance,
}

/// What an instance may be called: nothing, or parts between slashes.
///
/// # Errors
/// If a part of it is one of the API's words, or would be something else in a path.
pub(super) fn check_instance(instance: &str) -> Result<(), Malformed> {
    let good = |part: &str| !["", ".", ".."].contains(&part) && !KEYWORDS.contains(&part);
    (instance.is_empty() || instance.split('/').all(good)).then_some(()).ok_or(Malformed::Instance)
}

impl FromStr for Resource {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let parts: Vec<&str> = text.split('/').collect();
        let first = parts.iter().position(|part| KEYWORDS.contains(part)).ok_or(Malformed::Kind)?;
        let (instance, rest) = parts.split_at(first);
        let (instance, empty) = (instance.join("/"), first == 0);
        if !empty && instance.is_empty() {
            return Err(Malformed::Instance);
        }
        check_instance(&instance)?;
        let (upload, rest) = match rest {
            ["uploads", attempt, rest @ ..] => (Some((*attempt).to_owned()), rest),
            _ => (None, rest),
        };
        let (form, rest) = match rest {
            ["blobs", rest @ ..] => (Form::Plain, rest),
            ["compressed-blobs", "zstd", rest @ ..] => (Form::Zstd, rest),
            ["compressed-blobs", ..] => return Err(Malformed::Compressor),
            _ => return Err(Malformed::Kind),
        };
        Ok(Self { instance, upload, form, digest: digest(rest)? })
    }
}

/// `[sha256/]HASH/SIZE`, and whatever the client adds for itself.
fn digest(parts: &[&str]) -> Result<Digest, Malformed> {
    let parts = parts.strip_prefix(&["sha256"]).unwrap_or(parts);
    let [hash, size, ..] = parts else { return Err(Malformed::Digest) };
    let hash = parse_hash(hash).map_err(|_| Malformed::Digest)?;
    // The API's sizes are signed.
    let size = size.parse::<i64>().ok().filter(|number| number.to_string() == *size);
    let size = size.and_then(|size| u64::try_from(size).ok()).ok_or(Malformed::Digest)?;
    Ok(Digest { hash, size })
}

impl fmt::Display for Resource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.instance.is_empty() {
            write!(out, "{}/", self.instance)?;
        }
        if let Some(attempt) = &self.upload {
            write!(out, "uploads/{attempt}/")?;
        }
        let kind = match self.form {
            Form::Plain => "blobs",
            Form::Zstd => "compressed-blobs/zstd",
        };
        write!(out, "{kind}/{}", self.digest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Resource, Malformed> {
        text.parse()
    }

    #[test]
    fn every_way_to_name_a_blob_is_read() {
        let digest = Digest { size: 3, ..Digest::EMPTY };
        let hash = digest.hex();
        let expected = |instance: &str, upload: Option<&str>, form| {
            Ok(Resource { instance: instance.into(), upload: upload.map(Into::into), form, digest })
        };

        assert_eq!(parse(&format!("blobs/{hash}/3")), expected("", None, Form::Plain));
        assert_eq!(parse(&format!("blobs/sha256/{hash}/3")), expected("", None, Form::Plain));
        assert_eq!(parse(&format!("my/inst/blobs/{hash}/3")), expected("my/inst", None, Form::Plain));
        assert_eq!(parse(&format!("i/compressed-blobs/zstd/{hash}/3")), expected("i", None, Form::Zstd));
        assert_eq!(parse(&format!("uploads/u/blobs/{hash}/3")), expected("", Some("u"), Form::Plain));
        assert_eq!(parse(&format!("i/uploads/u/blobs/{hash}/3/main.o")), expected("i", Some("u"), Form::Plain));
        assert_eq!(parse(&format!("uploads/u/compressed-blobs/zstd/{hash}/3")), expected("", Some("u"), Form::Zstd));
        assert_eq!(parse(&format!("uploads/blobs/blobs/{hash}/3")), expected("", Some("blobs"), Form::Plain));
    }

    #[test]
    fn what_names_nothing_is_refused_with_its_reason() {
        let hash = Digest::EMPTY.hex();
        for (text, reason) in [
            (String::new(), Malformed::Kind),
            (hash.clone(), Malformed::Kind),
            (format!("uploads/u/{hash}/0"), Malformed::Kind),
            (format!("actions/{hash}/0"), Malformed::Kind),
            ("uploads".into(), Malformed::Kind),
            (format!("compressed-blobs/brotli/{hash}/0"), Malformed::Compressor),
            (format!("compressed-blobs/{hash}/0"), Malformed::Compressor),
            ("blobs".into(), Malformed::Digest),
            (format!("blobs/{hash}"), Malformed::Digest),
            (format!("blobs/{hash}/"), Malformed::Digest),
            (format!("blobs/{hash}/-1"), Malformed::Digest),
            (format!("blobs/{hash}/+1"), Malformed::Digest),
            (format!("blobs/{hash}/01"), Malformed::Digest),
            (format!("blobs/{hash}/9223372036854775808"), Malformed::Digest),
            (format!("blobs/blake3/{hash}/0"), Malformed::Digest),
            (format!("blobs/{}/0", hash.to_uppercase()), Malformed::Digest),
            (format!("/blobs/{hash}/0"), Malformed::Instance),
            (format!("a//blobs/{hash}/0"), Malformed::Instance),
            (format!("a/../blobs/{hash}/0"), Malformed::Instance),
        ] {
            assert_eq!(parse(&text), Err(reason), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            instance in "([a-z]{1,4}(/[a-z]{1,3}){0,2})?", upload in proptest::option::of("[a-z0-9-]{0,8}"), zstd: bool, hash: [u8; 32], size in 0..=i64::MAX as u64
        ) {
            prop_assume!(check_instance(&instance).is_ok());
            let form = if zstd { Form::Zstd } else { Form::Plain };
            let resource = Resource { instance, upload, form, digest: Digest { hash, size } };

            prop_assert_eq!(parse(&resource.to_string()), Ok(resource));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_read_says_the_same_when_written(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "", "a", "..", "blobs", "uploads", "compressed-blobs", "zstd", "sha256", "0", "17", "-1",
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ]), 0..9)
        ) {
            if let Ok(resource) = parse(&parts.join("/")) {
                prop_assert!(check_instance(&resource.instance).is_ok());
                prop_assert_eq!(parse(&resource.to_string()), Ok(resource));
            }
        }
    }
}
