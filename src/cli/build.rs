//! The build's side on the primary: its folder, its environment, the hosts file that follows the mesh, and the count of jobs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::actions::warn;
use super::env;
use crate::exit::{Exit, Failure};
use crate::link::Handle;
use crate::link::forward::Forwards;
use crate::link::ports::Ports;
use crate::offload::environment::{Environment, Layout};
use crate::offload::hosts::{Aux, Hosts};
use crate::offload::stats::{self, JobCounter};
use crate::offload::{distccd, hosts_file, links, search, tally};
use crate::privilege::Caller;
use crate::proto::peer::{PeerView, State};
use crate::proto::role::Role;

/// How often the aux are asked how many jobs they ran.
const COUNT_EVERY: Duration = Duration::from_secs(2);

type Counters = Arc<Mutex<BTreeMap<Role, JobCounter>>>;

/// What a build with distcc needs on the primary, in a folder beside the control socket. The compiler links stay when it ends, at a place
/// that does not change: CMake keeps their absolute paths, and without a hosts file they are the plain compilers.
#[derive(Debug)]
pub(super) struct Build {
    layout: Layout,
    cores: u16,
    path: Option<OsString>,
    hosts: Hosts,
    /// Ports of this machine that lead to the distccd of an aux, where distcc cannot reach the overlay.
    doors: BTreeMap<Role, SocketAddrV4>,
    counters: Counters,
    counting: JoinSet<()>,
}

impl Build {
    /// Makes the folder of a run: compiler links, hosts file, and distcc's own folder, which belongs to the `caller`.
    pub(super) fn prepare(control: PathBuf, caller: Option<&Caller>) -> Result<Self, Failure> {
        let path = env()("PATH").map(OsString::from);
        check_distcc("distcc")?;
        let folder = control.with_extension("build");
        let layout = Layout {
            links: folder.join("bin"),
            hosts_file: folder.join("hosts"),
            distcc_dir: folder.join("distcc"),
            control,
        };
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u16);
        let hosts = Hosts::new(cores, []);
        let make = || -> std::io::Result<()> {
            let _ = std::fs::remove_dir_all(&layout.distcc_dir);
            std::fs::create_dir_all(&layout.distcc_dir)?;
            std::fs::create_dir_all(&layout.links)?;
            refuse_foreign(&folder)?;
            refuse_foreign(&layout.links)?;
            if let Some(caller) = caller {
                caller.own(&layout.distcc_dir)?;
            }
            links::create(&layout.links, &std::env::current_exe()?, path.as_deref().unwrap_or_default())?;
            hosts_file::write(&layout.hosts_file, &hosts)
        };
        make().map_err(|error| {
            let what = format!("cannot make the build's folder {}: {error}", folder.display());
            Failure::new(Exit::Failure, "M704", what, "check the rights and the free space there, or choose another --control (MESH_CONTROL): it stands beside the socket")
        })?;
        Ok(Self {
            layout,
            cores,
            path,
            hosts,
            doors: BTreeMap::new(),
            counters: Counters::default(),
            counting: JoinSet::new(),
        })
    }

    /// Begins to ask the aux for their counts.
    pub(super) fn count(&mut self, handle: Handle, ports: Ports) {
        let counters = Arc::clone(&self.counters);
        self.counting.spawn(async move {
            loop {
                tokio::time::sleep(COUNT_EVERY).await;
                count_once(&handle, &ports, &counters).await;
            }
        });
    }

    /// Asks them now.
    pub(super) async fn count_now(&self, handle: &Handle, ports: &Ports) {
        count_once(handle, ports, &self.counters).await;
    }

    /// Gives the hosts file the aux that are up now.
    pub(super) fn follow(&mut self, peers: &[PeerView], forwards: &mut Forwards) {
        let up = peers.iter().filter(|peer| peer.state == State::Up);
        let up = up.filter_map(|peer| Some(Aux { address: self.reach(peer, forwards)?, slots: peer.slots }));
        let up: Vec<_> = up.collect();
        self.hosts = Hosts::new(self.cores, up);
        if let Err(error) = hosts_file::write(&self.layout.hosts_file, &self.hosts) {
            tracing::warn!(%error, "the hosts file could not be written; jobs go to the aux it names");
        }
    }

    /// Where distcc reaches the distccd of an aux.
    fn reach(&mut self, peer: &PeerView, forwards: &mut Forwards) -> Option<SocketAddrV4> {
        let there = SocketAddrV4::new(peer.overlay, distccd::PORT);
        if !forwards.ports().are_ours_alone() {
            return Some(there);
        }
        if let Some(door) = self.doors.get(&peer.role) {
            return Some(*door);
        }
        match forwards.forward(0, there) {
            Ok(port) => {
                let door = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
                self.doors.insert(peer.role, door);
                Some(door)
            }
            Err(error) => {
                warn(&format!(
                    "M605 no port of 127.0.0.1 for {}: {error}; hint: check the limits on open files (ulimit -n)",
                    peer.role
                ));
                None
            }
        }
    }

    /// Jobs at once, here and on the aux: a good `-j`.
    pub(super) fn slots(&self) -> u32 {
        self.hosts.total()
    }

    /// What COMMAND gets.
    pub(super) fn environment(&self) -> Environment {
        Environment::new(&self.layout, &self.hosts, self.path.as_deref())
    }

    /// Why compiler calls ran on this machine, with counts, when the aux ran `remote` jobs of those that distcc did.
    pub(super) fn local_reasons(&self, remote: u64) -> BTreeMap<String, u64> {
        let mut outcomes = tally::read(&self.layout.distcc_dir);
        let own_slots = outcomes.remove(tally::TRIED).unwrap_or_default().saturating_sub(remote);
        outcomes.extend((own_slots > 0).then(|| ("a slot of this machine".to_string(), own_slots)));
        outcomes
    }

    /// How many jobs `role` ran.
    pub(super) fn jobs(&self, role: Role) -> u64 {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).get(&role).map_or(0, JobCounter::total)
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.layout.hosts_file);
        let _ = std::fs::remove_dir_all(&self.layout.distcc_dir);
    }
}

/// Whoever owns the folder of links decides what `cc` is.
fn refuse_foreign(folder: &Path) -> std::io::Result<()> {
    let owner = std::fs::symlink_metadata(folder)?.uid();
    if owner == nix::unistd::Uid::effective().as_raw() {
        return Ok(());
    }
    Err(std::io::Error::other(format!("it belongs to user {owner}")))
}

/// Whether a program of the package distcc is there.
pub(super) fn check_distcc(program: &str) -> Result<(), Failure> {
    let folders = distccd::search_path(env()("PATH").as_deref().map(AsRef::as_ref));
    search::find(program.as_ref(), search::folders(&folders)).map(drop).ok_or_else(|| {
        let hint = "install the package distcc (apt-get install distcc), or choose --offload none";
        Failure::new(Exit::NoTool, "M701", format!("{program} is not installed on this machine"), hint)
    })
}

async fn count_once(handle: &Handle, ports: &Ports, counters: &Counters) {
    let Some(snapshot) = handle.snapshot().await else { return };
    let mut fetches = JoinSet::new();
    for peer in snapshot.peers.into_iter().filter(|peer| peer.state == State::Up) {
        let (at, ports) = (SocketAddrV4::new(peer.overlay, distccd::STATS_PORT), ports.clone());
        fetches.spawn(async move { (peer.role, fetch(&ports, at).await) });
    }
    while let Some(fetched) = fetches.join_next().await {
        if let Ok((role, Some(stats))) = fetched {
            counters.lock().unwrap_or_else(PoisonError::into_inner).entry(role).or_default().observe(stats.jobs);
        }
    }
}

async fn fetch(ports: &Ports, at: SocketAddrV4) -> Option<stats::Stats> {
    let connected = tokio::time::timeout(stats::TIMEOUT, ports.connect(at)).await;
    let mut connection = connected.ok()?.ok()?;
    let stats = stats::read(&mut connection).await.ok();
    let _ = connection.shutdown().await;
    stats
}
