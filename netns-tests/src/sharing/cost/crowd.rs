//! Runners of one run, all in this process: each with its own threads, its own store and an address of loopback. Not here: what they cost.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh::cache::Cache;
use mesh::cache::peers::{Config, Dialer, Peers};
use mesh::cache::store::{LEAST_BUDGET, Name, Store};
use mesh::cache::token::Tokens;
use mesh::link::ports::Ports;
use mesh::proto::overlay::Prefix;
use mesh::proto::placement::homes;
use mesh::proto::role::Role;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::lab::wait_until;

const PORT: u16 = 7077;

/// Bytes of a record.
const SIZE: usize = 4 << 10;

const SOON: Duration = Duration::from_secs(30);

/// What is done with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Put,
    Find,
}

/// It was done, or found, within this time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deed {
    pub(super) took: Duration,
    pub(super) done: bool,
}

/// What one runner does.
#[derive(Debug, Default, Clone)]
pub(super) struct Share {
    pub(super) names: Vec<Name>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Crowd {
    runners: Vec<Runner>,
}

#[derive(Debug)]
struct Runner {
    runtime: Option<Runtime>,
    peers: Peers,
    cache: Arc<Cache>,
    store: Arc<Store>,
    role: Role,
    _folder: TempDir,
}

/// A network of loopback addresses that no other crowd has.
fn overlay() -> Prefix {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let process = (std::process::id() % 100) as u8;
    Prefix::new(Ipv4Addr::new(127, 120 + process, NEXT.fetch_add(1, Ordering::Relaxed), 0), 24)
}

impl Crowd {
    /// Starts them, and waits until all listen to all.
    pub(super) fn start(count: u16) -> Result<Self> {
        let overlay = overlay();
        let roles = std::iter::once(Role::Primary).chain((0..count - 1).map(Role::Aux));
        let crowd = Self { runners: roles.map(|role| Runner::start(overlay, role)).collect::<Result<_>>()? };
        let all = u64::from(count);
        let known = || crowd.runners.iter().all(|runner| runner.peers.stats().members == all).then_some(());
        wait_until(SOON, "all runners to know of all", known)?;
        crowd.runners.iter().for_each(Runner::warm_up);
        crowd.wait_for_words()?;
        Ok(crowd)
    }

    /// A name of which nothing is known is surely nowhere only once its homes' words have come: until then somebody is asked, or nobody can be.
    fn wait_for_words(&self) -> Result<()> {
        let names: Vec<Name> =
            (0..16 * self.runners.len()).map(|at| Ok(Name::new("words", at.to_string())?)).collect::<Result<_>>()?;
        self.act(&self.writers(&names), Act::Put)?;
        let all: Vec<Share> = self.runners.iter().map(|_| Share { names: names.clone() }).collect();
        self.wait_for_news(&all)
    }

    /// Each runner takes its turn.
    pub(super) fn writers(&self, names: &[Name]) -> Vec<Share> {
        let mut shares = vec![Share::default(); self.runners.len()];
        names.iter().enumerate().for_each(|(at, name)| shares[at % self.runners.len()].names.push(name.clone()));
        shares
    }

    /// The next runner after each one's writer at which it is not at home; with two there is none.
    pub(super) fn readers(&self, names: &[Name]) -> Vec<Share> {
        let mut shares = vec![Share::default(); self.runners.len()];
        for (at, name) in names.iter().enumerate() {
            let homes = self.homes(name);
            let others = (1..self.runners.len()).map(|further| (at + further) % self.runners.len());
            if let Some(reader) = others.into_iter().find(|reader| !homes.contains(&self.runners[*reader].role)) {
                shares[reader].names.push(name.clone());
            }
        }
        shares
    }

    fn homes(&self, name: &Name) -> Vec<Role> {
        homes(&name.hash(), self.runners.iter().map(|runner| runner.role))
    }

    /// One runner after the other.
    pub(super) fn act(&self, shares: &[Share], act: Act) -> Result<Vec<Deed>> {
        let deeds = self.runners.iter().zip(shares).map(|(runner, share)| runner.act(share, act));
        Ok(deeds.collect::<Result<Vec<_>>>()?.concat())
    }

    /// How many homes have to be told of names, each by its writer.
    pub(super) fn to_tell(&self, writers: &[Share]) -> u64 {
        let others = |(runner, share): (&Runner, &Share)| {
            share.names.iter().flat_map(|name| self.homes(name)).filter(|home| *home != runner.role).count()
        };
        self.runners.iter().zip(writers).map(others).sum::<usize>() as u64
    }

    /// How many were told, ever.
    pub(super) fn told(&self) -> u64 {
        self.runners.iter().map(|runner| runner.peers.stats().told).sum()
    }

    /// Waits until so many were.
    pub(super) fn wait_for_told(&self, count: u64) -> Result<()> {
        let told = wait_until(SOON, "all homes to have their records", || (self.told() >= count).then_some(()));
        told.with_context(|| format!("{} of {count} were told", self.told()))
    }

    /// Each runner knows that its names are somewhere. Nothing is fetched.
    pub(super) fn wait_for_news(&self, shares: &[Share]) -> Result<()> {
        for (runner, share) in self.runners.iter().zip(shares) {
            wait_until(SOON, "the news of names", || runner.knows(&share.names).then_some(()))?;
        }
        Ok(())
    }

    pub(super) fn known_misses(&self) -> u64 {
        self.runners.iter().map(|runner| runner.peers.stats().known_misses).sum()
    }
}

impl Runner {
    fn start(overlay: Prefix, role: Role) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let store = Arc::new(Store::open(folder.path(), LEAST_BUDGET)?);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let peers = {
            let _inside = runtime.enter();
            let own = overlay.address(role).context("the overlay has an address for each")?;
            let dialer = Dialer { ports: Ports::Kernel(own), overlay, port: PORT };
            let listener = dialer.ports.listen(PORT)?;
            let config = Config { own: role, run: 1, tokens: Tokens::new([[7; 32]]), dialer };
            Peers::start(config, Arc::clone(&store), listener)
        };
        let cache = Arc::new(Cache::new(Arc::clone(&store), Some(peers.clone())));
        Ok(Self { runtime: Some(runtime), peers, cache, store, role, _folder: folder })
    }

    fn runtime(&self) -> Result<&Runtime> {
        self.runtime.as_ref().context("it runs until it is dropped")
    }

    fn warm_up(&self) {
        if let Some(runtime) = &self.runtime {
            let _inside = runtime.enter();
            self.peers.warm_up();
        }
    }

    fn knows(&self, names: &[Name]) -> bool {
        let (peers, store, names) = (self.peers.clone(), Arc::clone(&self.store), names.to_vec());
        let all = async move {
            let found = peers.look(&names).await;
            names.iter().zip(found).all(|(name, found)| found.is_some() || store.record(name).is_some())
        };
        self.runtime().is_ok_and(|runtime| runtime.block_on(runtime.spawn(all)).unwrap_or(false))
    }

    /// One thing after the other, on its own threads.
    fn act(&self, share: &Share, act: Act) -> Result<Vec<Deed>> {
        let (cache, store, names) = (Arc::clone(&self.cache), Arc::clone(&self.store), share.names.clone());
        let all = async move {
            let mut deeds = Vec::with_capacity(names.len());
            for name in &names {
                let content = content(name);
                let began = Instant::now();
                let done = match act {
                    Act::Put => {
                        store.put(&content).and_then(|digest| cache.set(name, digest, Default::default(), true)).is_ok()
                    }
                    Act::Find => match cache.find(name).await {
                        Some((_, blob)) => blob.read(0).is_ok_and(|bytes| bytes[..] == content[..]),
                        None => false,
                    },
                };
                deeds.push(Deed { took: began.elapsed(), done });
            }
            deeds
        };
        let runtime = self.runtime()?;
        runtime.block_on(runtime.spawn(all)).context("a runner's work ended early")
    }
}

impl Drop for Runner {
    /// Not all at once from within: its peers still listen.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Other bytes for each name.
fn content(name: &Name) -> Vec<u8> {
    let mut bytes = name.name().as_bytes().to_vec();
    bytes.resize(SIZE, b'.');
    bytes
}
