//! Digests as the API writes them, and what they are called in the store: the same as in Bazel's HTTP cache, so that either finds what the other stored.

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use tonic::Status;

use super::resource::check_instance;
use crate::cache::store::Name;
use crate::proto::digest::{Digest, parse_hash};

/// What the HTTP cache's names begin with: `/bazel/...`.
const FRONT: &str = "bazel";

/// `build.bazel.remote.execution.v2.DigestFunction.Value`: not said, or SHA-256.
const DIGEST_FUNCTIONS: [i32; 2] = [0, api::digest_function::Value::Sha256 as i32];

/// # Errors
/// If it is none.
pub(super) fn read(digest: &api::Digest) -> Result<Digest, Status> {
    let size = u64::try_from(digest.size_bytes);
    match (parse_hash(&digest.hash), size) {
        (Ok(hash), Ok(size)) => Ok(Digest { hash, size }),
        _ => Err(Status::invalid_argument(format!(
            "`{:.80}` of {} bytes is no digest: a SHA-256 as 64 hex digits in lower case, and a size",
            digest.hash, digest.size_bytes
        ))),
    }
}

/// # Errors
/// If it is none, or there is none.
pub(super) fn required(digest: Option<&api::Digest>) -> Result<Digest, Status> {
    digest.ok_or_else(|| Status::invalid_argument("the digest is missing")).and_then(read)
}

/// As the API writes it.
#[cfg(test)]
pub(super) fn write(digest: &Digest) -> api::Digest {
    api::Digest { hash: digest.hex(), size_bytes: digest.size as i64 }
}

/// # Errors
/// If the instance cannot have this name, or blobs are not named by their SHA-256.
pub(super) fn check(instance: &str, function: i32) -> Result<(), Status> {
    check_instance(instance).map_err(|why| Status::invalid_argument(why.to_string()))?;
    let known = DIGEST_FUNCTIONS.contains(&function);
    known.then_some(()).ok_or_else(|| Status::invalid_argument("the only digest function here is SHA256"))
}

/// A blob: the same in every instance.
pub(super) fn content(namespace: &str, digest: &Digest) -> Name {
    // INVARIANT: a grant's namespace has at most 64 letters, and a hash has 64.
    Name::new(format!("{FRONT}.{namespace}"), format!("cas/{}", digest.hex())).expect("a short name")
}

/// An action's result in an instance.
///
/// # Errors
/// If the instance's name is too long.
pub(super) fn action(namespace: &str, instance: &str, action: &Digest) -> Result<Name, Status> {
    let slash = if instance.is_empty() { "" } else { "/" };
    Name::new(format!("{FRONT}.{namespace}"), format!("{instance}{slash}ac/{}", action.hex()))
        .map_err(|_| Status::invalid_argument("the instance's name is too long"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_those_of_the_http_cache() {
        let hash = Digest::EMPTY.hex();
        let name = |text: String| Name::new("bazel.main", text).expect("a name");

        assert_eq!(content("main", &Digest::EMPTY), name(format!("cas/{hash}")));
        assert_eq!(action("main", "", &Digest::EMPTY).expect("a name"), name(format!("ac/{hash}")));
        assert_eq!(action("main", "of/us", &Digest::EMPTY).expect("a name"), name(format!("of/us/ac/{hash}")));
        assert!(action("main", &"a".repeat(5000), &Digest::EMPTY).is_err());
    }

    #[test]
    fn only_sha256_is_known() {
        assert!(check("", 0).is_ok() && check("a/b", 1).is_ok());
        assert!([2, 9, -1, 100].into_iter().all(|function| check("", function).is_err()));
        assert!(["/", "a/", "blobs", "a/uploads/b", ".."].into_iter().all(|instance| check(instance, 0).is_err()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(hash: [u8; 32], size in 0..=i64::MAX as u64) {
            let digest = Digest { hash, size };

            prop_assert_eq!(read(&write(&digest)).ok(), Some(digest));
        }

        #[test]
        fn no_digest_panics(hash: String, size_bytes: i64) {
            let _ = read(&api::Digest { hash, size_bytes });
        }
    }
}
