//! One machine's side of a mesh: brings the parts up, keeps announcements flowing both ways, and hands what happens to the verb that
//! started it. What the verb makes of it is not here but in `primary` and `aux`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::actions::{mask, say, warn};
use super::diagnosis::why;
use super::network::{A_RELAY, tell_fresh_socket};
use super::resolve::resolve;
use super::{cache, device, env, services};
use crate::config::{CommonArgs, RendezvousChoice, ServiceArgs};
use crate::control::{self, Asked, Response, Server};
use crate::exit::{Exit, Failure};
use crate::github::config::Config as GithubConfig;
use crate::link::engine::Engine;
use crate::link::forward::Forwards;
use crate::link::sockets::Sockets;
use crate::link::{Handle, Link, Snapshot, clock, hops};
use crate::offload::distccd;
use crate::offload::environment::Environment;
use crate::privilege::{self, Caller};
use crate::proto::announcement::{Announcement, Standing};
use crate::proto::hops::{opening_ttl, too_low};
use crate::proto::key::Secret;
use crate::proto::node::{Config, Node};
use crate::proto::probe::Farewell;
use crate::proto::renewal::Reason;
use crate::proto::role::Role;
use crate::proto::route::Route;
use crate::proto::transmit::Event;
use crate::rendezvous::board::{Board, Collected, Tally, jittered, patience};
use crate::rendezvous::directory::Directory;
use crate::rendezvous::github::Github;
use crate::rendezvous::{Error, Rendezvous};

/// How long a goodbye may take: its ladder of repetitions, and a round trip.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(1400);

/// How long taking back announcements may take, or publishing the last one.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(4);

/// How often the rendezvous is looked at: while somebody is waited for, with patience growing, and when nobody is.
#[derive(Debug, Clone, Copy)]
struct Pace {
    first: Duration,
    longest: Duration,
    idle: Duration,
}

/// A directory costs nothing to look at.
const DIRECTORY_PACE: Pace =
    Pace { first: Duration::from_millis(50), longest: Duration::from_millis(200), idle: Duration::from_secs(1) };

/// A listing of artifacts costs GitHub a query; the runners of a run ask 256 times as often as one.
const GITHUB_PACE: Pace =
    Pace { first: Duration::from_secs(1), longest: Duration::from_secs(5), idle: Duration::from_secs(10) };

/// Why the rendezvous is looked at more often.
#[derive(Debug, Clone, Copy)]
struct Awaiting {
    peers: bool,
    doubt: bool,
}

/// How much the pause grows from look to look.
const PATIENCE: f64 = 1.3;

/// Something the verb must deal with.
#[derive(Debug)]
pub(super) enum Happening {
    /// From the node.
    Node(Event),
    /// A new announcement of a peer; to be given to [`Session::admit`].
    Collected(Collected),
    /// A younger process has our index.
    Duplicate,
    /// The rendezvous refuses us for good.
    Refused(Failure),
    /// A verb asks over the control socket.
    Asked(Asked),
}

/// A running mesh on this machine.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) started: Instant,
    pub(super) started_at: String,
    pub(super) run: String,
    pub(super) place: String,
    pub(super) caller: Option<Caller>,
    pub(super) control: std::path::PathBuf,
    pub(super) handle: Handle,
    /// What is led between this machine and the overlay.
    pub(super) forwards: Forwards,
    cache: Option<cache::Service>,
    board: Arc<Board>,
    happenings: mpsc::UnboundedReceiver<Happening>,
    publications: watch::Sender<Option<Announcement>>,
    awaiting: watch::Sender<Awaiting>,
    keeps_runs_apart: bool,
    link: oneshot::Receiver<()>,
    publisher: JoinHandle<()>,
    tasks: JoinSet<()>,
}

impl Session {
    /// Brings everything up: key, rendezvous, socket, device, forwards, control socket, driver. Nothing is waited for but names of servers.
    pub(super) async fn start(
        common: &CommonArgs,
        services: &ServiceArgs,
        role: Role,
        slots: u16,
        offload: Option<String>,
    ) -> Result<Self, Failure> {
        let started = clock::now();
        let env = env();
        let caller = Caller::from_env(env);
        let keys = common.keys(env)?;
        for name in keys.passphrases() {
            warn(&format!("the {name} is a passphrase: `mesh keygen` prints a key that nobody can guess"));
        }
        if Caller::is_garbled(env) {
            warn("SUDO_UID or SUDO_GID is missing or no number: COMMAND runs as root");
        }
        let choice = common.rendezvous(env)?;
        let rendezvous = open(&choice)?;
        let place = rendezvous.describe();
        let address = common.overlay.address(role).ok_or_else(|| no_address(common, role))?;
        let path = common.control.control.clone().unwrap_or_else(|| control::default_path(env, caller.as_ref()));
        let path = std::path::absolute(&path).unwrap_or(path);
        let server = Server::bind(&path, caller.as_ref())?;
        let engine = Engine::new()?;
        let (sockets, device, ports) = {
            let _in_engine = engine.enter();
            let sockets = Sockets::bind(common.listen)?;
            let (device, ports) = device::open(common, address)?;
            (sockets, device, ports)
        };
        let mut forwards = Forwards::new(ports);
        services::start(services, role, common.overlay, &mut forwards)?;
        let run = cache::Run { role, keys: keys.clone(), overlay: common.overlay, ports: forwards.ports().clone() };
        let cache = cache::Service::start(&common.cache, &run);

        let stun = resolve(&common.stun_servers()).await;
        let config = Config {
            role,
            keys: keys.clone(),
            secret: Secret(rand::rng().random()),
            seed: Secret(rand::rng().random()),
            overlay: common.overlay,
            slots,
            offload,
            job_port: distccd::PORT,
            hosts: sockets.host_addresses(),
            stun: stun.clone(),
            relays: resolve(&common.relay).await,
        };
        let node = Node::new(clock::now(), config);
        let context = common.context(env);
        let board = Arc::new(Board::new(rendezvous, keys, context.attempt, role, node.boot()));
        let (events, from_node) = mpsc::unbounded_channel();
        let (link, handle) = Link::new(node, sockets, device, events);
        let (happen, happenings) = mpsc::unbounded_channel();
        let (publications, to_publish) = watch::channel(None);
        let (awaiting, awaited) = watch::channel(Awaiting { peers: true, doubt: false });
        let (asked, questions) = mpsc::unbounded_channel();

        let mut tasks = JoinSet::new();
        tasks.spawn(server.serve(asked));
        tasks.spawn(forward(from_node, happen.clone(), Happening::Node));
        tasks.spawn(forward(questions, happen.clone(), Happening::Asked));
        tasks.spawn(find_hops(stun.first().copied(), handle.clone()));
        let pace = if matches!(choice, RendezvousChoice::Directory(_)) { DIRECTORY_PACE } else { GITHUB_PACE };
        tasks.spawn(collect(Arc::clone(&board), pace, awaited, happen.clone()));
        let publisher = tokio::spawn(publish(Arc::clone(&board), to_publish, happen));
        let link = engine.run(link, privilege::keep_sockets_capability)?;
        Ok(Self {
            started,
            started_at: clock::rfc3339_now(),
            run: context.run,
            place,
            caller,
            control: path,
            handle,
            forwards,
            cache,
            board,
            happenings,
            publications,
            awaiting,
            keeps_runs_apart: matches!(choice, RendezvousChoice::Github),
            link,
            publisher,
            tasks,
        })
    }

    /// A fresh socket is taken: announcements will tell who has noticed.
    pub(super) fn rebind(&self, reason: Reason) {
        tell_fresh_socket(reason);
        self.await_peers(true);
    }

    /// A peer does not answer: it may have moved, and announce that.
    pub(super) fn suspect(&self, role: Role) {
        tracing::info!(peer = %role, "it does not answer");
        self.await_peers(true);
    }

    /// Nothing leads to the primary: other aux may relay, so their announcements are read too.
    pub(super) fn look_for_aux(&self) {
        say("the primary is out of reach: looking for another aux that may relay");
        self.board.read_aux();
        self.await_peers(true);
    }

    /// Why the path that `event` tells of is not direct; empty where it is, or no path is told of.
    pub(super) async fn why_indirect(&self, event: &Event) -> String {
        let role = match event {
            Event::Up { role, route, .. } if !route.is_direct() => *role,
            Event::Rerouted { role, to: route, .. } | Event::Back { role, route } if !route.is_direct() => *role,
            _ => return String::new(),
        };
        let peers = self.snapshot().await.peers;
        why(peers.iter().find(|peer| peer.role == role), &self.tally())
    }

    /// A peer's address is not for everyone's eyes.
    pub(super) fn hide(&self, route: Route) {
        if let Some(addr) = route.addr() {
            mask(addr.ip());
        }
    }

    /// What happens next; waits for it.
    pub(super) async fn next(&mut self) -> Happening {
        match self.happenings.recv().await {
            Some(happening) => happening,
            // INVARIANT: the senders live in tasks that end only with the session.
            None => std::future::pending().await,
        }
    }

    /// Lets a peer in.
    pub(super) fn admit(&self, collected: Collected) {
        self.handle.announce(collected.announcement, collected.born);
    }

    /// Publishes our own announcement in place of the one before.
    pub(super) fn publish(&self, announcement: Announcement) {
        if announcement.standing == Standing::Open || self.keeps_runs_apart {
            self.publications.send_replace(Some(announcement));
        }
    }

    /// Whether somebody is waited for, so that the rendezvous is looked at more often.
    pub(super) fn await_peers(&self, awaiting: bool) {
        self.awaiting.send_if_modified(|now| std::mem::replace(&mut now.peers, awaiting) != awaiting);
    }

    /// Whether a peer may have moved, which its announcement tells as soon as it is there.
    pub(super) fn doubt(&self, doubt: bool) {
        self.awaiting.send_if_modified(|now| !std::mem::replace(&mut now.doubt, doubt) && doubt);
    }

    /// What COMMAND is given where no engine runs.
    pub(super) fn environment(&self) -> Environment {
        Environment::bare(&self.control).with(self.cache_variables())
    }

    /// What tools need to reach the cache, if there is one.
    pub(super) fn cache_variables(&self) -> Vec<(&'static str, String)> {
        self.cache.as_ref().map(|cache| cache.variables(env())).unwrap_or_default()
    }

    /// How tools of this machine reach the cache.
    pub(super) fn door(&self, namespace: Option<&str>, read_only: bool) -> Response {
        self.cache.as_ref().map_or_else(cache::no_door, |cache| cache.door(namespace, read_only))
    }

    /// Others stay: what only this runner's cache has is handed on.
    pub(super) async fn hand_over(&self, limit: Duration) {
        if let Some(cache) = &self.cache {
            cache.hand_over(limit).await;
        }
    }

    /// What the cache did, if there is one.
    pub(super) fn cached(&self) -> Option<crate::report::Cache> {
        self.cache.as_ref().map(cache::Service::report)
    }

    /// The mesh as it is now.
    pub(super) async fn snapshot(&self) -> Snapshot {
        self.handle.snapshot().await.unwrap_or_default()
    }

    /// What was found at the rendezvous and not used.
    pub(super) fn tally(&self) -> Tally {
        self.board.tally()
    }

    /// Says goodbye and takes back what we published, within seconds. A primary of a run on GitHub leaves a closing announcement
    /// behind: who comes later is released at once.
    pub(super) async fn end(mut self, farewell: Farewell) {
        let closing = self.keeps_runs_apart && farewell == Farewell::Released;
        self.handle.close(farewell);
        let published = async {
            if closing && let Some(last) = closing_announcement(&mut self.happenings).await {
                let _ = self.board.publish(last).await;
            }
            self.board.retire(closing).await;
        };
        self.publisher.abort();
        let goodbye = tokio::time::timeout(GOODBYE_TIMEOUT, &mut self.link);
        let _ = tokio::join!(goodbye, tokio::time::timeout(RETIRE_TIMEOUT, published));
        self.tasks.shutdown().await;
    }
}

async fn closing_announcement(happenings: &mut mpsc::UnboundedReceiver<Happening>) -> Option<Announcement> {
    loop {
        match happenings.recv().await? {
            Happening::Node(Event::Publish(last)) if last.standing == Standing::Closed => return Some(*last),
            _ => {}
        }
    }
}

pub(super) fn open(choice: &RendezvousChoice) -> Result<Arc<dyn Rendezvous>, Failure> {
    let opened: Result<Arc<dyn Rendezvous>, Error> = match choice {
        RendezvousChoice::Directory(path) => Directory::open(path).map(|opened| Arc::new(opened) as _),
        RendezvousChoice::Github => {
            Github::member(GithubConfig::from_lookup(env())).map(|opened| Arc::new(opened) as _)
        }
    };
    opened.map_err(|error| refused(&error))
}

/// The rendezvous said no.
pub(super) fn refused(error: &Error) -> Failure {
    let hint = match error {
        Error::Refused { hint, .. } => hint.clone(),
        Error::Again { .. } => "try again, or choose another --rendezvous (MESH_RENDEZVOUS)".into(),
    };
    Failure::new(Exit::NoRendezvous, "M106", format!("the rendezvous cannot be used: {error}"), hint)
}

fn no_address(common: &CommonArgs, role: Role) -> Failure {
    let what = format!("the overlay {} has no address for {role}", common.overlay);
    Failure::new(
        Exit::Usage,
        "M604",
        what,
        "choose a larger prefix with --overlay (MESH_OVERLAY), the same on every runner",
    )
}

async fn find_hops(target: Option<SocketAddr>, handle: Handle) {
    let Some(IpAddr::V4(target)) = target.map(|target| target.ip()) else { return handle.tell_hops(None) };
    let routers = hops::routers(target).await;
    too_low(&routers).iter().for_each(|what| warn(&format!("{what}; hint: {A_RELAY}")));
    let ttl = (!routers.is_empty()).then(|| opening_ttl(&routers));
    tracing::debug!(ttl, "opening datagrams travel so far");
    handle.tell_hops(ttl);
}

async fn forward<T>(
    mut from: mpsc::UnboundedReceiver<T>,
    to: mpsc::UnboundedSender<Happening>,
    wrap: fn(T) -> Happening,
) {
    while let Some(item) = from.recv().await {
        if to.send(wrap(item)).is_err() {
            return;
        }
    }
}

/// Keeps the newest announcement of ours published. A newer one takes the place of one that is still being tried.
async fn publish(
    board: Arc<Board>,
    mut newest: watch::Receiver<Option<Announcement>>,
    to: mpsc::UnboundedSender<Happening>,
) {
    while newest.changed().await.is_ok() {
        let announcement = newest.borrow_and_update().clone();
        let Some(announcement) = announcement else { continue };
        let (role, seq) = (announcement.role, announcement.seq);
        tokio::select! {
            published = board.publish(announcement) => match published {
                Ok(()) => tracing::info!(%role, seq, "announced"),
                Err(error) => { let _ = to.send(Happening::Refused(refused(&error))); }
            },
            _ = newest.changed() => newest.mark_changed(),
        }
    }
}

async fn collect(
    board: Arc<Board>,
    pace: Pace,
    mut awaiting: watch::Receiver<Awaiting>,
    to: mpsc::UnboundedSender<Happening>,
) {
    let (mut wait, mut told) = (pace.first, Told::default());
    loop {
        let mut asked_to_wait = None;
        match board.look().await {
            Ok(look) => {
                if look.duplicate && !std::mem::replace(&mut told.duplicate, true) {
                    let _ = to.send(Happening::Duplicate);
                }
                if !look.collected.is_empty() {
                    wait = pace.first;
                }
                told.refused = false;
                look.collected.into_iter().for_each(|collected| drop(to.send(Happening::Collected(collected))));
            }
            Err(Error::Again { what, after }) => {
                tracing::warn!(%what, "the rendezvous cannot be read just now");
                asked_to_wait = after.map(patience);
            }
            Err(error @ Error::Refused { .. }) => {
                if !std::mem::replace(&mut told.refused, true) {
                    let _ = to.send(Happening::Refused(refused(&error)));
                }
                wait = pace.idle;
            }
        }
        if let Some(asked) = asked_to_wait {
            tokio::time::sleep(asked).await;
            continue;
        }
        let awaited = *awaiting.borrow_and_update();
        let pause = if awaited.peers || awaited.doubt { jittered(wait) } else { pace.idle };
        tokio::select! {
            () = tokio::time::sleep(pause) => wait = wait.mul_f64(PATIENCE).min(pace.longest),
            changed = awaiting.changed() => match changed {
                Ok(()) => wait = pace.first,
                Err(_) => return,
            },
        }
    }
}

/// What the verb knows already, so that it is not told at every look.
#[derive(Debug, Default)]
struct Told {
    duplicate: bool,
    refused: bool,
}

/// No STUN server answered.
pub(super) fn no_stun(common: &CommonArgs) -> Failure {
    let what = format!("no STUN server answered ({})", common.stun_servers().join(", "));
    Failure::new(
        Exit::NoStun,
        "M201",
        what,
        "UDP to the internet may be blocked here; name a server that can be reached with --stun (MESH_STUN)",
    )
}
