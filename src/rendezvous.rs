//! Where peers find each other: publish an announcement, collect those of others. Sealing and opening is not here but in
//! `proto::announcement`; a rendezvous carries opaque bytes under names that are never reused.

pub mod board;
pub mod directory;
pub mod github;

use std::time::Duration;

use async_trait::async_trait;

/// The largest thing a rendezvous takes or gives, in bytes. An announcement of 8 candidates needs about 2 KiB; what is larger
/// is foreign and is not fetched.
pub const MAX_LEN: usize = 64 * 1024;

/// The longest name, in bytes: a file name may have 255, and a rendezvous may add to it.
const MAX_NAME: usize = 200;

/// How long one call may take, whatever it does inside.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// One published thing, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name it was published under.
    pub name: String,
    /// Grows with the time of publication, as the rendezvous itself sees it (never a runner's clock).
    pub order: u64,
    /// Length in bytes as listed; `None` where the listing does not tell.
    pub len: Option<u64>,
    /// What `fetch` needs to find it again; only the rendezvous that made it reads it.
    pub locator: String,
}

/// Why a rendezvous did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Worth another try, after `after` where the service said so (`Retry-After`), else after the caller's own backoff.
    /// A publication is tried again under a fresh name.
    #[error("{what}")]
    Again { what: String, after: Option<Duration> },
    /// Will not succeed however often it is tried: no permission, quota, malformed configuration.
    #[error("{what}")]
    Refused { what: String, hint: String },
}

/// A place all runners of a run can reach. Calls are bounded in time by the implementation (20 s at most each).
#[async_trait]
pub trait Rendezvous: Send + Sync + std::fmt::Debug {
    /// Makes `bytes` visible to everyone under `name` (letters, digits, `-`, `_` and `.` only), whole or not at all.
    /// One attempt: the caller retries, under another name, since a failed attempt may have burnt this one.
    async fn publish(&self, name: &str, bytes: &[u8]) -> Result<(), Error>;

    /// Everything published by anyone, in no particular order. Two entries may carry one name: the greater `order` counts.
    async fn list(&self) -> Result<Vec<Entry>, Error>;

    /// The bytes of an entry, at most [`MAX_LEN`].
    async fn fetch(&self, entry: &Entry) -> Result<Vec<u8>, Error>;

    /// Takes back what this process published under `name`; what is not there any more is no error. Best effort: a leaving
    /// process tries once and ignores the error, since everything published is forgotten by itself within a day or with its folder.
    async fn remove(&self, name: &str) -> Result<(), Error>;

    /// For messages: `dir:/tmp/x`, `github artifacts`.
    fn describe(&self) -> String;
}

impl Error {
    fn again(what: impl Into<String>) -> Self {
        Self::Again { what: what.into(), after: None }
    }

    fn refused(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), hint: hint.into() }
    }
}

/// Whether every rendezvous takes `name`. A leading dot is not legal: it hides a file, and `..` is a way out of a folder.
fn is_legal(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('.') && name.bytes().all(legal)
}

fn check(name: &str, bytes: &[u8]) -> Result<(), Error> {
    if !is_legal(name) {
        let hint = "letters, digits, `-`, `_` and `.` only, at most 200, not beginning with a dot";
        return Err(Error::refused(format!("publish under the name {name:?}"), hint));
    }
    if bytes.len() > MAX_LEN {
        let hint = format!("a rendezvous takes at most {MAX_LEN} bytes");
        return Err(Error::refused(format!("publish {name} of {} bytes", bytes.len()), hint));
    }
    Ok(())
}

async fn bounded<T>(what: &str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |_| Error::again(format!("{what}: no answer within {} s", CALL_TIMEOUT.as_secs()));
    tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_lead_nowhere() {
        for legal in ["mesh-1.2_x", "a", &"x".repeat(200)] {
            assert!(is_legal(legal), "{legal}");
        }
        for illegal in ["", ".", "..", ".x", "a/b", "a\\b", "a b", "a\n", "ä", "a\0", &"x".repeat(201)] {
            assert!(!is_legal(illegal), "{illegal:?}");
        }
    }
}
