//! What the routes share: the options, what is stored, the faults and the log.
//!
//! Not here: any rule of a protocol, each of which lives beside its routes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::HOST;

use super::Options;
use super::artifacts::{Artifact, Artifacts};
use super::blobs::Blobs;
use super::faults::Faults;
use super::log::Log;
use super::rate::Rate;
use super::signing::{Grant, Grants};
use super::token;

/// GitHub's own lifetimes: an upload link about an hour, a download link 10 minutes, one through REST a minute.
pub(super) const UPLOAD_LIFETIME: Duration = Duration::from_secs(3600);
pub(super) const DOWNLOAD_LIFETIME: Duration = Duration::from_secs(600);
pub(super) const REST_LIFETIME: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Service {
    pub(super) options: Options,
    pub(super) faults: Faults,
    pub(super) log: Log,
    artifacts: Mutex<Artifacts>,
    blobs: Mutex<Blobs>,
    grants: Mutex<Grants>,
    rate: Mutex<Rate>,
}

impl Service {
    pub(super) fn new(options: Options) -> Self {
        Self {
            rate: Mutex::new(Rate::new(options.rest_limit)),
            options,
            faults: Faults::default(),
            log: Log::default(),
            artifacts: Mutex::default(),
            blobs: Mutex::default(),
            grants: Mutex::default(),
        }
    }

    pub(super) fn artifacts(&self) -> MutexGuard<'_, Artifacts> {
        lock(&self.artifacts)
    }

    pub(super) fn blobs(&self) -> MutexGuard<'_, Blobs> {
        lock(&self.blobs)
    }

    pub(super) fn grants(&self) -> MutexGuard<'_, Grants> {
        lock(&self.grants)
    }

    pub(super) fn rate(&self) -> MutexGuard<'_, Rate> {
        lock(&self.rate)
    }

    pub(super) fn runtime_token(&self, run: &str, job: &str) -> String {
        self.artifacts().learn(run);
        token::mint(run, job)
    }

    /// Whether `run` exists; unless strict, asking makes it so.
    pub(super) fn knows(&self, run: &str) -> bool {
        let mut artifacts = self.artifacts();
        if !self.options.strict {
            artifacts.learn(run);
        }
        artifacts.knows(run)
    }

    /// The base of URLs for the sender of a request: clients in other namespaces reach this server under other names.
    pub(super) fn base(&self, headers: &HeaderMap) -> String {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        self.options.public_url.clone().unwrap_or_else(|| format!("http://{host}"))
    }

    pub(super) fn upload_url(&self, base: &str, blob: &str) -> String {
        let lifetime = self.options.link_lifetime.unwrap_or(UPLOAD_LIFETIME);
        self.grants().sign(base, Grant::write(blob), lifetime)
    }

    pub(super) fn download_url(&self, base: &str, artifact: &Artifact, lifetime: Duration) -> String {
        let lifetime = self.options.link_lifetime.unwrap_or(lifetime);
        self.grants().sign(base, Grant::read(artifact), lifetime)
    }
}

/// A lock that outlives the panic of another holder: every change made under these locks is whole or not begun.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
