//! Which failure of GitHub is worth another try, and what a user can do about one that is not. What failed is not known here beyond
//! its kind.

use crate::github::archive;
use crate::github::error::{Error as Failure, Kind};
use crate::rendezvous::Error;

const QUOTA: &str = "the account's artifact storage is used up, or its billing declined; GitHub counts anew only every 6 to 12 hours: \
                     delete old artifacts, raise the limit, or use another rendezvous";
const TOKEN: &str = "the token ended with its job or is of another one: start mesh by its action in this very job";
const PERMISSION: &str =
    "give the job `permissions: actions: read`; if that is so already, a proxy or firewall may stand in between";
const UNUSABLE: &str = "check ACTIONS_RESULTS_URL and GITHUB_API_URL, and whether a proxy answers in GitHub's place";
const FOREIGN: &str = "it is damaged, or no mesh published it; it can be skipped";

/// Of a publication. A 403 or 409 is common at GitHub and has to do with the name: a fresh one works.
pub(super) fn publishing(failure: Failure) -> Error {
    match failure.kind {
        Kind::Forbidden | Kind::Taken | Kind::Missing | Kind::Passing => again(failure),
        kind => Error::refused(failure.what, hint(kind)),
    }
}

/// Of a listing or a download. What is missing may not be visible yet.
pub(super) fn reading(failure: Failure) -> Error {
    match failure.kind {
        Kind::Passing | Kind::Missing | Kind::Taken => again(failure),
        kind => Error::refused(failure.what, hint(kind)),
    }
}

/// Of a listing that REST did not make after the service had not: hopeless only if both are.
pub(super) fn both(service: Option<Failure>, rest: Failure) -> Error {
    let Some(service) = service else { return reading(rest) };
    let what = format!("{service}; {rest}");
    match (reading(service), reading(rest)) {
        (Error::Refused { hint, .. }, Error::Refused { .. }) => Error::Refused { what, hint },
        (Error::Again { after, .. }, _) | (_, Error::Again { after, .. }) => Error::Again { what, after },
    }
}

/// Of a removal: what is gone is as good as removed.
pub(super) fn removing(failure: Failure) -> Result<(), Error> {
    match failure.kind {
        Kind::Missing => Ok(()),
        _ => Err(reading(failure)),
    }
}

/// Of setting the client up.
pub(super) fn setting_up(failure: Failure) -> Error {
    Error::refused(failure.what, "install the package ca-certificates, and check the proxy variables")
}

/// Of an artifact whose content is not ours.
pub(super) fn foreign(name: &str, why: &archive::Error) -> Error {
    Error::refused(format!("fetch {name}: {why}"), FOREIGN)
}

fn again(failure: Failure) -> Error {
    Error::Again { what: failure.what, after: failure.after }
}

fn hint(kind: Kind) -> &'static str {
    match kind {
        Kind::Quota => QUOTA,
        Kind::Unauthenticated => TOKEN,
        Kind::Forbidden => PERMISSION,
        Kind::Passing | Kind::Missing | Kind::Taken | Kind::Unusable => UNUSABLE,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_403_or_409_while_publishing_asks_for_a_fresh_name_and_a_quota_does_not() {
        for kind in [Kind::Forbidden, Kind::Taken, Kind::Missing, Kind::Passing] {
            assert!(matches!(publishing(of(kind)), Error::Again { .. }), "{kind:?}");
        }
        for kind in [Kind::Quota, Kind::Unauthenticated, Kind::Unusable] {
            assert!(matches!(publishing(of(kind)), Error::Refused { .. }), "{kind:?}");
        }
    }

    #[test]
    fn a_403_while_reading_is_a_missing_permission() {
        let Error::Refused { hint, .. } = reading(of(Kind::Forbidden)) else { panic!("a 403 does not go away") };
        assert!(hint.contains("actions: read"), "{hint}");
        assert!(matches!(reading(of(Kind::Missing)), Error::Again { .. }));
    }

    #[test]
    fn both_sides_must_refuse_for_a_listing_to_be_hopeless() {
        assert!(matches!(both(Some(of(Kind::Passing)), of(Kind::Forbidden)), Error::Again { .. }));
        assert!(matches!(both(Some(of(Kind::Unauthenticated)), of(Kind::Passing)), Error::Again { .. }));
        assert!(matches!(both(Some(of(Kind::Unauthenticated)), of(Kind::Forbidden)), Error::Refused { .. }));
    }

    #[test]
    fn the_wait_that_github_asked_for_is_passed_on() {
        let wait = Some(Duration::from_secs(7));
        let failure = Failure { after: wait, ..of(Kind::Passing) };
        assert_eq!(publishing(failure), Error::Again { what: "x".into(), after: wait });
    }

    #[test]
    fn removing_what_is_gone_is_a_success() {
        assert_eq!(removing(of(Kind::Missing)), Ok(()));
        assert!(removing(of(Kind::Passing)).is_err());
    }

    fn of(kind: Kind) -> Failure {
        Failure::new(kind, "x")
    }
}
