//! Every request by route, status and sender, so that tests can count them.
//!
//! Not here: headers, queries and bodies, which hold tokens and signatures.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::route::Route;
use super::service::lock;

/// One request. Blob requests carry no token: their run and job are those that created the artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The route by name.
    pub route: Route,
    /// The HTTP method.
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The answer's status; `None` when the connection was dropped instead.
    pub status: Option<u16>,
    /// The run that the request is about, when it says so.
    pub run: Option<String>,
    /// The job that asks, when it says so.
    pub job: Option<String>,
    /// Whether an `Authorization` header came along; to a blob, none should.
    pub authorization: bool,
}

#[derive(Debug, Default)]
pub(super) struct Log(Mutex<Vec<LogEntry>>);

impl Log {
    pub(super) fn push(&self, entry: LogEntry) {
        tracing::debug!(route = ?entry.route, status = entry.status, job = entry.job, "served");
        lock(&self.0).push(entry);
    }

    pub(super) fn entries(&self) -> Vec<LogEntry> {
        lock(&self.0).clone()
    }
}
