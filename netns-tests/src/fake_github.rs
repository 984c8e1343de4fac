//! A small GitHub: the artifact service, its blobs, and the REST routes that `mesh` uses, with switches for faults.
//!
//! Everything is served on one port, in memory. A run has one name everywhere: the `<run>` of a runtime token's scope
//! `Actions.Results:<run>:<job>` is also the `{run_id}` of REST, so a run that REST shall know needs a number.
//!
//! Not here: the cache service, workflow jobs, TLS, and any check of a token's signature (no client checks it either).

mod artifacts;
mod blob;
mod blobs;
mod control;
mod faults;
mod log;
mod rate;
mod rest;
mod route;
mod server;
mod service;
mod signing;
mod token;
mod twirp;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;

pub use artifacts::Artifact;
pub use faults::{BadRule, Faults, Rule, Tamper};
pub use log::LogEntry;
pub use route::Route;
use service::Service;

/// What a fake GitHub believes, beyond its address.
#[derive(Clone, Debug)]
pub struct Options {
    /// Base of every URL that is handed out, without a slash at the end; by default the `Host` of each request.
    pub public_url: Option<String>,
    /// Know only the runs for which a token was asked of this server; otherwise a run exists from first sight.
    pub strict: bool,
    /// The one token that REST takes; by default every token that is not empty.
    pub rest_token: Option<String>,
    /// REST requests an hour; GitHub gives a repository's `GITHUB_TOKEN` 1000.
    pub rest_limit: u32,
    /// How long each signed URL works; by default an hour to upload, ten minutes to download, a minute through REST.
    pub link_lifetime: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self { public_url: None, strict: false, rest_token: None, rest_limit: 1000, link_lifetime: None }
    }
}

/// A running fake GitHub; it ends, with every connection, when it is dropped.
#[derive(Debug)]
pub struct FakeGithub {
    address: SocketAddr,
    service: Arc<Service>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl FakeGithub {
    /// Serves on `listen` (port 0: any free one) with the default options.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(listen: SocketAddr) -> io::Result<Self> {
        Self::start_with(listen, Options::default()).await
    }

    /// Serves on `listen` with these options.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start_with(listen: SocketAddr, options: Options) -> io::Result<Self> {
        Self::serve(TcpListener::bind(listen).await?, options)
    }

    /// Serves on a socket that may have been made in another network namespace. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When the socket has no local address.
    pub fn serve(listener: TcpListener, options: Options) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let service = Arc::new(Service::new(options));
        let task = tokio::spawn(server::accept_tcp(listener, server::router(Arc::clone(&service))));
        Ok(Self { address, service, tasks: Mutex::new(vec![task.abort_handle()]) })
    }

    /// Serves the same GitHub on a unix socket as well, which is how `gh` can be pointed at a plain-HTTP server.
    ///
    /// # Errors
    /// When the socket cannot be bound at `path`.
    pub fn listen_unix(&self, path: &Path) -> io::Result<()> {
        let listener = UnixListener::bind(path)?;
        let task = tokio::spawn(server::accept_unix(listener, server::router(Arc::clone(&self.service))));
        service::lock(&self.tasks).push(task.abort_handle());
        Ok(())
    }

    /// The base URL, without a slash at the end: `GITHUB_API_URL` as it is, `ACTIONS_RESULTS_URL` with a `/` added.
    pub fn url(&self) -> String {
        let address = match self.address {
            any if any.ip().is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, any.port())),
            one => one,
        };
        self.service.options.public_url.clone().unwrap_or_else(|| format!("http://{address}"))
    }

    /// A runtime token of `job` in `run`, as the runner would set in `ACTIONS_RUNTIME_TOKEN`; makes the run known.
    pub fn runtime_token(&self, run: &str, job: &str) -> String {
        self.service.runtime_token(run, job)
    }

    /// The switches for faults.
    pub fn faults(&self) -> &Faults {
        &self.service.faults
    }

    /// Every request answered or dropped so far, in the order of their ends.
    pub fn log(&self) -> Vec<LogEntry> {
        self.service.log.entries()
    }

    /// The finalized artifacts of `run`, oldest first.
    pub fn artifacts(&self, run: &str) -> Vec<Artifact> {
        self.service.artifacts().list(run)
    }

    /// Puts an artifact there as if `job` had uploaded and finalized it; under a name that is taken, nothing happens.
    pub fn plant(&self, run: &str, job: &str, name: &str, content: &[u8]) {
        twirp::plant(&self.service, run, job, name, content);
    }

    /// The bytes that were uploaded for `artifact`.
    pub fn content(&self, artifact: &Artifact) -> Option<Bytes> {
        self.service.blobs().content(&artifact.blob)
    }
}

impl Drop for FakeGithub {
    fn drop(&mut self) {
        service::lock(&self.tasks).iter().for_each(AbortHandle::abort);
    }
}
