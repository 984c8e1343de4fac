//! What a call to GitHub can answer, as a kind. Whether to try again is not decided here but by the caller, who knows what the
//! call was for.

use std::time::Duration;

/// A call that did not succeed: what was attempted, and why it failed as far as GitHub told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    /// A phrase that names the attempt and the answer. Holds no secrets.
    pub what: String,
    /// What sort of failure it is.
    pub kind: Kind,
    /// How long GitHub asked us to wait.
    pub after: Option<Duration>,
}

/// Sorts of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Busy, failing or out of reach: 408, 429, 5xx, the network, a time-out, an answer that cannot be read.
    Passing,
    /// 401: the token is not valid, or no longer.
    Unauthenticated,
    /// 403 without the mark of a quota or a rate limit.
    Forbidden,
    /// The storage quota of the account is used up.
    Quota,
    /// 404 or 410: not there, or not there any more.
    Missing,
    /// 409: the name is taken.
    Taken,
    /// What was asked or answered makes no sense: other 4xx, a body beyond its bound, a redirect where none belongs.
    Unusable,
}

impl Error {
    /// A failure without a wait.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { what: what.into(), kind, after: None }
    }

    /// A failure worth another try at once.
    pub fn passing(what: impl Into<String>) -> Self {
        Self::new(Kind::Passing, what)
    }
}

impl Kind {
    /// The kind of an HTTP status that is no success.
    pub fn of_status(status: u16) -> Self {
        match status {
            408 | 429 | 500..=599 => Self::Passing,
            401 => Self::Unauthenticated,
            403 => Self::Forbidden,
            404 | 410 => Self::Missing,
            409 => Self::Taken,
            _ => Self::Unusable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_one_kind() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(Kind::of_status(status), Kind::Passing, "{status}");
        }
        assert_eq!(Kind::of_status(401), Kind::Unauthenticated);
        assert_eq!(Kind::of_status(403), Kind::Forbidden);
        assert_eq!(Kind::of_status(404), Kind::Missing);
        assert_eq!(Kind::of_status(409), Kind::Taken);
        assert_eq!(Kind::of_status(302), Kind::Unusable);
        assert_eq!(Kind::of_status(418), Kind::Unusable);
    }
}
