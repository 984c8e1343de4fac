//! Listings of artifacts as entries, and which side makes them: the artifact service, or REST while that does not answer. No
//! requests are made here.

use std::fmt;
use std::time::{Duration, Instant};

use crate::github::error::{Error as Failure, Kind};
use crate::github::token::BackendIds;
use crate::github::{artifacts, rest};
use crate::rendezvous::{Entry, is_legal};

/// Artifacts of the user's own workflow stand in the same listing.
const PREFIX: &str = "mesh-";

/// A single failure is common and a caller tries again by itself; REST costs a budget that the whole repository shares.
const FAILURES: u32 = 3;

/// How long REST lists before the service is tried again.
const PAUSE: Duration = Duration::from_secs(60);

/// Who lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Service,
    Rest,
}

/// When to list by REST: after some failures of the service in a row, for a while.
#[derive(Debug, Default)]
pub(super) struct Fallback {
    failures: u32,
    last: Option<Failure>,
    until: Option<Instant>,
    told: bool,
}

/// Where an entry's bytes are: what its listing said beyond name, order and length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Locator {
    Service { owner: BackendIds, digest: Option<String> },
    Rest { id: u64, digest: Option<String> },
}

impl Fallback {
    /// Who is to list now.
    pub(super) fn side(&self, now: Instant) -> Side {
        if self.until.is_some_and(|until| now < until) { Side::Rest } else { Side::Service }
    }

    /// The service listed.
    pub(super) fn worked(&mut self) {
        if self.until.take().is_some() {
            tracing::debug!("the artifact service lists again");
        }
        self.failures = 0;
    }

    /// The service did not list; whether REST is to do it now. A refusal by the service will not go away by itself.
    pub(super) fn failed(&mut self, failure: &Failure, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.last = Some(failure.clone());
        let falls_back = self.failures >= FAILURES || failure.kind != Kind::Passing;
        if falls_back {
            self.until = Some(now + PAUSE);
            self.tell(failure);
        }
        falls_back
    }

    /// The service's last failure.
    pub(super) fn last(&self) -> Option<Failure> {
        self.last.clone()
    }

    fn tell(&mut self, failure: &Failure) {
        if self.told {
            tracing::debug!(%failure, "artifacts are still listed by REST");
        } else {
            tracing::warn!(%failure, "artifacts are listed by REST, which costs the repository's hourly budget");
        }
        self.told = true;
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.digest().unwrap_or("-");
        match self {
            Self::Service { owner, .. } => write!(f, "service {} {} {digest}", owner.run, owner.job),
            Self::Rest { id, .. } => write!(f, "rest {id} {digest}"),
        }
    }
}

impl Locator {
    /// Reads what `Display` wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digest = |digest: &str| (digest != "-").then(|| digest.to_owned());
        match text.split(' ').collect::<Vec<_>>().as_slice() {
            ["service", run, job, hash] => {
                let owner = BackendIds { run: (*run).to_owned(), job: (*job).to_owned() };
                Some(Self::Service { owner, digest: digest(hash) })
            }
            ["rest", id, hash] => Some(Self::Rest { id: id.parse().ok()?, digest: digest(hash) }),
            _ => None,
        }
    }

    /// `sha256:` and hex of the bytes as uploaded, where the listing told.
    pub(super) fn digest(&self) -> Option<&str> {
        match self {
            Self::Service { digest, .. } | Self::Rest { digest, .. } => digest.as_deref(),
        }
    }
}

/// An artifact of the service's listing as an entry.
pub(super) fn of_service(artifact: artifacts::Artifact) -> Entry {
    let owner = BackendIds { run: artifact.workflow_run_backend_id, job: artifact.workflow_job_run_backend_id };
    let locator = Locator::Service { owner, digest: known(artifact.digest) };
    Entry { name: artifact.name, order: artifact.database_id, len: Some(artifact.size), locator: locator.to_string() }
}

/// An artifact of a REST listing as an entry.
pub(super) fn of_rest(artifact: rest::Artifact) -> Entry {
    let locator = Locator::Rest { id: artifact.id, digest: known(artifact.digest) };
    Entry { name: artifact.name, order: artifact.id, len: Some(artifact.size_in_bytes), locator: locator.to_string() }
}

/// The entries that a mesh may have published; others are counted.
pub(super) fn ours(entries: impl Iterator<Item = Entry>) -> Vec<Entry> {
    let (ours, foreign): (Vec<_>, Vec<_>) =
        entries.partition(|entry| entry.name.starts_with(PREFIX) && is_legal(&entry.name));
    tracing::trace!(listed = ours.len(), foreign = foreign.len(), "listed artifacts");
    ours
}

/// A digest that we can check: `sha256:` and 64 hex digits.
fn known(digest: Option<String>) -> Option<String> {
    let is_hex = |hex: &str| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    digest.map(|digest| digest.to_ascii_lowercase()).filter(|digest| digest.strip_prefix("sha256:").is_some_and(is_hex))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rest_lists_after_three_failures_in_a_row_and_for_a_minute() {
        let (mut fallback, start) = (Fallback::default(), Instant::now());
        let busy = Failure::passing("503");
        assert!(!fallback.failed(&busy, start));
        assert!(!fallback.failed(&busy, start));
        fallback.worked();
        assert!(!fallback.failed(&busy, start));
        assert!(!fallback.failed(&busy, start));
        assert_eq!(fallback.side(start), Side::Service);
        assert!(fallback.failed(&busy, start), "the third in a row");
        assert_eq!(fallback.side(start + PAUSE - Duration::from_millis(1)), Side::Rest);
        assert_eq!(fallback.side(start + PAUSE), Side::Service, "the service is tried again");
        assert!(fallback.failed(&busy, start + PAUSE), "and is still failing");
        assert_eq!(fallback.side(start + PAUSE * 2 - Duration::from_millis(1)), Side::Rest);
        fallback.worked();
        assert_eq!(fallback.side(start + PAUSE), Side::Service);
    }

    #[test]
    fn a_refusal_by_the_service_is_not_waited_for() {
        let mut fallback = Fallback::default();
        assert!(fallback.failed(&Failure::new(Kind::Unauthenticated, "401"), Instant::now()));
    }

    #[test]
    fn only_names_of_a_mesh_are_ours() {
        let entries = ["mesh-a", "build-logs", "meshwork", "mesh-b c", "mesh-é"].map(|name| Entry {
            name: name.to_owned(),
            order: 1,
            len: None,
            locator: String::new(),
        });
        let names: Vec<_> = ours(entries.into_iter()).into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["mesh-a"]);
    }

    #[test]
    fn a_digest_that_is_no_sha256_is_not_checked() {
        let hex = "0a".repeat(32);
        assert_eq!(known(Some(format!("sha256:{}", hex.to_uppercase()))), Some(format!("sha256:{hex}")));
        assert_eq!(known(Some(format!("sha256:{hex}"))), Some(format!("sha256:{hex}")));
        for odd in ["sha256:", "sha256:xyz", "md5:0a", ""] {
            assert_eq!(known(Some(odd.to_owned())), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn a_locator_is_read_back(run in "[!-~]{1,40}", job in "[!-~]{1,40}", id: u64, digest in "(sha256:[0-9a-f]{64})?") {
            let digest = Some(digest).filter(|digest| !digest.is_empty());
            let service = Locator::Service { owner: BackendIds { run, job }, digest: digest.clone() };
            let rest = Locator::Rest { id, digest };
            for locator in [service, rest] {
                prop_assert_eq!(Locator::parse(&locator.to_string()), Some(locator));
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,60}") {
            let _ = Locator::parse(&text);
        }
    }
}
