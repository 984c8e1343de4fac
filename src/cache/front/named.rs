//! What `mesh cache get` and `put` name: `/mesh/NAME`. A name is whatever its user chose, and in a path each of its bytes that a URL would read otherwise is
//! written as `%` and two hex digits (RFC 3986, section 2.1). It is kept as it is written there, so nobody has to agree on how such text is compared.

use std::fmt::Write as _;

use super::{Front, Target};

pub(super) const FRONT: Front = Front { name: "mesh", target, is_work: |_| true };

/// Parts that others on the way may take out of a path (RFC 3986, section 5.2.4).
const TRICKS: [&str; 3] = ["", ".", ".."];

fn target(path: &str) -> Option<Target> {
    let good = path.split('/').all(|part| !TRICKS.contains(&part));
    good.then(|| Target::Entry(path.into()))
}

/// The path of a name; `None` for one that nothing can have.
pub(super) fn path(name: &str) -> Option<String> {
    let mut path = format!("/{}/", FRONT.name);
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            path.push(byte.into());
        } else {
            // INVARIANT: a String takes all that is written to it.
            write!(path, "%{byte:02X}").expect("a String takes all that is written to it");
        }
    }
    target(name).map(|_| path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::below;
    use super::*;

    #[test]
    fn a_name_is_seen_in_its_path() {
        assert_eq!(path("release/v1.2_a~b.tar.gz").as_deref(), Some("/mesh/release/v1.2_a~b.tar.gz"));
        assert_eq!(path("50 %?#ä").as_deref(), Some("/mesh/50%20%25%3F%23%C3%A4"));
    }

    #[test]
    fn what_a_path_would_lose_is_no_name() {
        for name in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a"] {
            assert_eq!((path(name), target(name)), (None, None), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics_and_no_two_names_have_the_same(one: String, other: String) {
            let (paths, named) = ([path(&one), path(&other)], target(&one));

            prop_assert!(paths[0].is_none() || paths[0] != paths[1] || one == other);
            prop_assert_eq!(paths[0].is_some(), named.is_some());
            if let Some(path) = &paths[0] {
                prop_assert!(path.parse::<hyper::Uri>().is_ok_and(|uri| uri.path() == path && uri.query().is_none()));
                prop_assert!(below(path, "mesh").and_then(target).is_some());
            }
        }
    }
}
