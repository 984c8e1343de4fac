//! Bazel's HTTP cache (its documentation, "Remote Caching", "HTTP Caching Protocol"): `/bazel/ac/HASH` and `/bazel/cas/HASH`, where what is put below `cas` has
//! to have that SHA-256. An instance name may come before either.

use super::{Front, Target};
use crate::proto::digest;

pub(super) const FRONT: Front = Front { name: "bazel", target, is_work: |_| true };

fn target(path: &str) -> Option<Target> {
    let mut parts = path.rsplitn(3, '/');
    let (hash, kind, instance) = (parts.next()?, parts.next()?, parts.next());
    if instance
        .is_some_and(|instance| instance.is_empty() || instance.split('/').any(|part| ["", ".", ".."].contains(&part)))
    {
        return None;
    }
    let parsed = digest::parse_hash(hash).ok()?;
    match kind {
        "ac" => Some(Target::Entry(path.into())),
        // What is stored under its own hash is the same in every instance.
        "cas" => Some(Target::Content(parsed, format!("cas/{hash}"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::digest::Digest;

    #[test]
    fn results_are_of_an_instance_and_contents_of_all() {
        let hash = Digest::EMPTY.hex();
        let content = Some(Target::Content(Digest::EMPTY.hash, format!("cas/{hash}")));

        assert_eq!(target(&format!("ac/{hash}")), Some(Target::Entry(format!("ac/{hash}"))));
        assert_eq!(target(&format!("of/us/ac/{hash}")), Some(Target::Entry(format!("of/us/ac/{hash}"))));
        assert_eq!(target(&format!("cas/{hash}")), content);
        assert_eq!(target(&format!("of/us/cas/{hash}")), content);
    }

    #[test]
    fn what_is_no_hash_names_nothing() {
        let hash = Digest::EMPTY.hex();

        for path in [
            "",
            "ac/",
            "ac",
            "ac/../cas",
            &hash,
            &format!("/ac/{hash}"),
            &format!("../ac/{hash}"),
            &format!("x/{hash}"),
        ] {
            assert_eq!(target(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "[a-z0-9/.%]{0,100}") {
            let named = target(&path);

            prop_assert!(named.is_none() || path.rsplit('/').next().is_some_and(|hash| hash.len() == 64));
        }
    }
}
