//! The cache beside a running mesh, on threads of its own, and `mesh cache`: how tools are pointed at it, and what it did. Not here: the cache
//! ([`crate::cache`]), and what its verbs move ([`transfer`]).

mod make;
mod sink;
mod transfer;
mod variables;

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use nix::sys::resource::{Resource, getrlimit};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use self::variables::{shell, variables};
use super::Outcome;
use super::actions::{put, say, warn};
use super::control::{done, path};
use crate::cache::front::{Fronts, Limits};
use crate::cache::peers::{self, Dialer, Peers};
use crate::cache::store::{Store, key};
use crate::cache::token::{Grant, Tokens};
use crate::cache::{Cache, sha256};
use crate::config::{CacheArgs, ControlArgs, Env};
use crate::control::{self, Request, Response};
use crate::exit::{Exit, Failure};
use crate::link::ports::Ports;
use crate::proto::key::RunKeys;
use crate::proto::keyring::KeyRing;
use crate::proto::overlay::Prefix;
use crate::proto::role::Role;
use crate::report;

/// A build's tools ask at once, and none of them should wait for another's large file.
const THREADS: usize = 2;

/// Tools that neither ask nor take their answer for so long lose their connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections of tools at once; more wait.
const MOST_CONNECTIONS: usize = 512;

/// Of the overlay, where peers' caches listen: many servers of the Remote Execution API do by it.
const PORT: u16 = 8980;

/// Where everything of a run is, unless the user says otherwise.
const NAMESPACE: &str = "main";

/// The cache of this process. Ends with it.
#[derive(Debug)]
pub(super) struct Service {
    cache: Arc<Cache>,
    peers: Option<Peers>,
    tokens: Tokens,
    addr: SocketAddr,
    runtime: Option<Runtime>,
}

impl Service {
    /// Opens the cache and answers on a port of 127.0.0.1, if the user wants one. Where that fails, the build goes on without.
    pub(super) fn start(args: &CacheArgs, run: &Run) -> Option<Self> {
        let folder = args.cache.as_deref()?;
        Self::try_start(folder, args.cache_size, run)
            .inspect_err(|why| {
                warn(&format!(
                    "M801 there is no cache: {why}; hint: check the rights and the free space in {}, or choose another --cache (MESH_CACHE)",
                    folder.display()
                ));
            })
            .ok()
    }

    fn try_start(folder: &Path, size: u64, run: &Run) -> Result<Self, String> {
        let store = Arc::new(Store::open(folder, size).map_err(|error| error.to_string())?);
        let (listener, addr) = listen().map_err(|error| error.to_string())?;
        let runtime = runtime().map_err(|error| error.to_string())?;
        let tokens = run.tokens();
        let served = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).map(|listener| {
                let peers = run.share(&store);
                let cache = Arc::new(Cache::new(store, peers.clone()));
                tokio::spawn(Fronts::new(Arc::clone(&cache), tokens.clone(), limits()).serve(listener));
                (cache, peers)
            })
        };
        match served {
            Ok((cache, peers)) => Ok(Self { cache, peers, tokens, addr, runtime: Some(runtime) }),
            Err(error) => {
                // Dropped within another runtime, it would panic.
                runtime.shutdown_background();
                Err(error.to_string())
            }
        }
    }

    /// What only this runner has is handed on, as far as `limit` allows: it leaves while others stay.
    pub(super) async fn hand_over(&self, limit: Duration) {
        let (Some(peers), Some(runtime)) = (self.peers.clone(), &self.runtime) else { return };
        if peers.stats().members < 2 {
            return;
        }
        let mut handing_over = runtime.spawn(async move { peers.hand_over().await });
        let done = tokio::select! {
            done = &mut handing_over => done,
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                say(&format!("handing on what only this runner's cache has, for at most {} s", limit.as_secs()));
                tokio::time::timeout(limit, handing_over).await.unwrap_or(Ok(0))
            }
        };
        if let Ok(taken @ 1..) = done {
            say(&format!("{taken} large blobs of the cache stay with the others"));
        }
    }

    /// What COMMAND is given to reach it. A tool for which the user has another cache keeps that.
    pub(super) fn variables(&self, env: Env<'_>) -> Vec<(&'static str, String)> {
        let Some(grant) = Grant::new(NAMESPACE, true) else { return vec![] };
        self.get_ready();
        variables::unclaimed(variables(self.addr, &self.tokens.issue(&grant)), env)
    }

    /// Tools will ask: peers are called.
    fn get_ready(&self) {
        if let (Some(peers), Some(runtime)) = (&self.peers, &self.runtime) {
            let _inside = runtime.enter();
            peers.warm_up();
        }
    }

    /// How tools of this machine reach it.
    pub(super) fn door(&self, namespace: Option<&str>, read_only: bool) -> Response {
        match Grant::new(namespace.unwrap_or(NAMESPACE), !read_only) {
            Some(grant) => {
                self.get_ready();
                Response::Door { addr: self.addr, token: self.tokens.issue(&grant) }
            }
            None => {
                let what = format!("`{}` is no namespace", namespace.unwrap_or_default());
                Response::failed(&Failure::new(Exit::Usage, "M803", what, "use 1 to 64 letters, digits, - and _"))
            }
        }
    }

    /// What it did, for the report.
    pub(super) fn report(&self) -> report::Cache {
        let (stats, usage) = (self.cache.stats(), self.cache.usage());
        let peers = self.cache.sharing();
        report::Cache {
            hits: stats.hits,
            peer_hits: stats.peer_hits,
            peers: peers.members.saturating_sub(1),
            fetched_bytes: peers.fetched_bytes,
            late: peers.late,
            wrong: peers.wrong,
            misses: stats.misses,
            puts: stats.puts,
            bytes: stats.bytes,
            saved_ms: stats.saved_ms,
            entries: usage.entries as u64,
            stored_bytes: usage.bytes,
            damaged: usage.damaged,
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Each connection may take two descriptors, and the mesh needs its own.
fn limits() -> Limits {
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    Limits { connections: (descriptors as usize / 4).clamp(8, MOST_CONNECTIONS), patience: PATIENCE }
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).thread_name("mesh-cache").enable_all().build()
}

fn listen() -> io::Result<(std::net::TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

/// Who this runner is in its run, and how it reaches the others.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) role: Role,
    pub(super) keys: KeyRing,
    pub(super) overlay: Prefix,
    pub(super) ports: Ports,
}

impl Run {
    fn tokens(&self) -> Tokens {
        Tokens::new(self.keys.iter().map(RunKeys::cache))
    }

    /// Joins the caches of the other runners. Where that fails, this one stays alone.
    fn share(&self, store: &Arc<Store>) -> Option<Peers> {
        let listener = self.ports.listen(PORT).inspect_err(|error| {
            warn(&format!(
                "M807 the cache is not shared: cannot listen on the overlay's port {PORT}: {error}; hint: end what listens there"
            ));
        });
        let dialer = Dialer { ports: self.ports.clone(), overlay: self.overlay, port: PORT };
        let config = peers::Config { own: self.role, run: self.number(), tokens: self.tokens(), dialer };
        Some(Peers::start(config, Arc::clone(store), listener.ok()?))
    }

    /// Tells this run from others.
    fn number(&self) -> u64 {
        let context = self.keys.iter().next().map(RunKeys::context).unwrap_or_default();
        key(&sha256::digest(context).hash)
    }
}

/// What a mesh without a cache answers to who asks for the door.
pub(super) fn no_door() -> Response {
    let hint = "give `mesh primary` or `mesh aux` a --cache PATH (MESH_CACHE)";
    Response::failed(&Failure::new(Exit::Usage, "M802", "the mesh on this machine has no cache", hint))
}

/// What `cache` takes.
#[derive(Debug, Args)]
pub(super) struct CacheVerb {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print what ccache, sccache and Bazel need, for `eval`
    Env {
        /// Keep apart from what other namespaces hold
        #[arg(long, value_name = "NAME")]
        namespace: Option<String>,
        /// Only look things up
        #[arg(long)]
        read_only: bool,
        #[command(flatten)]
        control: ControlArgs,
    },
    /// Keep a file, or what comes on stdin, under a name
    Put {
        #[command(flatten)]
        what: transfer::What,
        /// What to keep; stdin, unless it is given
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Write what is kept under a name to stdout; where nothing is, what COMMAND writes is kept first, and of many runners that ask at once one runs it
    Get {
        #[command(flatten)]
        what: transfer::What,
        /// Write it to this file instead, which is never there by half
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// What makes it, on its stdout
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Show what was asked and answered, and what is stored
    Stats {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        control: ControlArgs,
    },
}

/// Runs the verb.
pub(super) async fn run(verb: CacheVerb) -> Outcome {
    match verb.what {
        What::Env { namespace, read_only, control } => {
            let response = control::ask(&path(&control), &Request::Door { namespace, read_only }).await?;
            let Response::Door { addr, token } = response else { return done(response) };
            put(shell(&variables(addr, &token)).as_bytes()).map(|()| Exit::Ok.code())
        }
        What::Put { what, file } => transfer::put(what, file.as_deref()).await,
        What::Get { what, output, command } => make::get(what, output.as_deref(), &command).await,
        What::Stats { json, control } => {
            let response = control::ask(&path(&control), &Request::Status).await?;
            let Response::Status(report) = response else { return done(response) };
            let Some(cache) = report.cache else { return done(no_door()) };
            let text = if json { cache.to_json() } else { cache.line() + "\n" };
            put(text.as_bytes()).map(|()| Exit::Ok.code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::key::Context;

    #[test]
    fn a_folder_that_cannot_be_used_is_told_with_its_path() {
        let context = Context { repository: "1".into(), run: "2".into(), attempt: 1 };
        let run = Run {
            role: Role::Primary,
            keys: KeyRing::parse("a passphrase of the run", &context).expect("a key"),
            overlay: Prefix::new(Ipv4Addr::new(10, 77, 0, 0), 24),
            ports: Ports::Kernel(Ipv4Addr::LOCALHOST),
        };

        let why = Service::try_start(Path::new("/proc/none"), 0, &run).expect_err("no folder can be made there");

        assert!(why.contains("/proc/none"), "{why}");
    }
}
