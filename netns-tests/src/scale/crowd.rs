//! Many simulated aux in one thread: each a node of the library with sockets of its own, all on one event loop. They have no TUN device, and
//! one of them reads the rendezvous for all. What they cost is not measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use mesh::link::clock;
use mesh::link::sockets::Sockets;
use mesh::proto::announcement::{Announcement, Boot};
use mesh::proto::key::{self, Secret};
use mesh::proto::keyring::KeyRing;
use mesh::proto::node::{Config, Node};
use mesh::proto::overlay::Prefix;
use mesh::proto::packets::Packets;
use mesh::proto::role::Role;
use mesh::proto::transmit::Event;
use mesh::rendezvous::board::Board;
use mesh::rendezvous::directory::Directory;
use tokio::sync::{oneshot, watch};

use super::{DEADLINE, KEY, RUN};
use crate::lab::Runner;

/// How often the rendezvous is looked at: a directory costs nothing.
const LOOK: Duration = Duration::from_millis(50);

/// Datagrams taken from one socket before others have their turn.
const BATCH: usize = 16;

/// The largest datagram that a path may carry.
const BUFFER: usize = 2048;

/// A crowd that runs.
#[derive(Debug)]
pub(super) struct Crowd {
    announced: Receiver<Instant>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Crowd {
    /// Starts `count` aux on `runner`, that find the primary in the folder `meeting`.
    pub(super) fn start(runner: Runner, count: u16, meeting: PathBuf, stun: Vec<SocketAddr>) -> Self {
        let (tell, announced) = channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runner.enter(move || runtime.block_on(live(count, &meeting, &stun, &tell, stopped)))?
        });
        Self { announced, stop, thread }
    }

    /// When the last of `count` had published its first announcement.
    ///
    /// # Errors
    /// If that does not come.
    pub(super) fn last_announced(&self, count: u16) -> Result<Instant> {
        let each = (0..count).map(|_| self.announced.recv_timeout(DEADLINE).context("an aux does not announce itself"));
        each.collect::<Result<Vec<_>>>()?.into_iter().max().context("a crowd has members")
    }

    /// Ends it without a word.
    ///
    /// # Errors
    /// If it has failed meanwhile.
    pub(super) fn end(self) -> Result<()> {
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| anyhow!("the crowd panicked"))?
    }
}

async fn live(
    count: u16,
    meeting: &Path,
    stun: &[SocketAddr],
    tell: &Sender<Instant>,
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let context = key::Context { repository: "local".into(), run: RUN.into(), attempt: 1 };
    let keys = KeyRing::parse(KEY, &context)?;
    let place = Arc::new(Directory::open(meeting)?);
    let (news, newest) = watch::channel(None);
    for index in 0..count {
        let sockets = Sockets::bind(0).map_err(|failure| anyhow!("{}", failure.what))?;
        let node = Node::new(clock::now(), config(Role::Aux(index), &keys, &sockets, stun));
        let board = Arc::new(Board::new(place.clone(), keys.clone(), 1, Role::Aux(index), node.boot()));
        tokio::spawn(
            Simulated { node, sockets, inner: Packets::default(), board, tell: Some(tell.clone()) }.run(newest.clone()),
        );
    }
    // As an aux that there is not: an aux reads the primary's announcements and its own.
    let reader = Board::new(place, keys, 1, Role::Aux(Role::MAX_INDEX), Boot::draw(&mut rand::rng()));
    tokio::select! {
        read = read(&reader, &news) => read,
        _ = stopped => Ok(()),
    }
}

fn config(role: Role, keys: &KeyRing, sockets: &Sockets, stun: &[SocketAddr]) -> Config {
    Config {
        role,
        keys: keys.clone(),
        secret: Secret(rand::random()),
        seed: Secret(rand::random()),
        overlay: Prefix::new(Ipv4Addr::new(10, 77, 0, 0), 16),
        slots: 4,
        offload: None,
        job_port: 3632,
        hosts: sockets.host_addresses(),
        stun: stun.to_vec(),
        relays: vec![],
    }
}

/// The primary's newest announcement, and when its process was born.
type News = Option<(Announcement, u64)>;

async fn read(reader: &Board, news: &watch::Sender<News>) -> Result<()> {
    loop {
        if let Some(collected) = reader.look().await?.collected.pop() {
            news.send_replace(Some((collected.announcement, collected.born)));
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Simulated {
    node: Node,
    sockets: Sockets,
    /// What nobody takes.
    inner: Packets,
    board: Arc<Board>,
    /// Who is to know of the first announcement; nobody any more after that.
    tell: Option<Sender<Instant>>,
}

impl Simulated {
    async fn run(mut self, mut newest: watch::Receiver<News>) {
        let mut buffer = vec![0; BUFFER];
        self.node.handle_timeout(clock::now());
        loop {
            self.drain();
            let wake = self.node.poll_timeout().unwrap_or_else(|| clock::now() + DEADLINE);
            tokio::select! {
                biased;
                changed = newest.changed() => {
                    let news = newest.borrow_and_update().clone();
                    let (Ok(()), Some((announcement, born))) = (changed, news) else { return };
                    self.node.handle_announcement(clock::now(), announcement, born);
                }
                () = tokio::time::sleep_until(wake.into()) => self.node.handle_timeout(clock::now()),
                Ok(id) = self.sockets.readable() => {
                    for _ in 0..BATCH {
                        let Ok(Some(received)) = self.sockets.try_receive(id, &mut buffer) else { break };
                        for datagram in received.datagrams(&buffer) {
                            self.node.handle_datagram(clock::now(), id, received.from, datagram);
                        }
                    }
                }
            }
        }
    }

    /// In the order that [`Node`] asks for. Inner packets have nowhere to go.
    fn drain(&mut self) {
        while let Some(transmit) = self.node.poll_transmit() {
            let _ = self.sockets.send(&transmit);
        }
        while let Some(mut bulk) = self.node.poll_batch() {
            self.sockets.send_bulk(&mut bulk);
            self.node.recycle(bulk);
        }
        self.node.swap_inner(&mut self.inner);
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::Publish(announcement) => self.publish(*announcement),
                Event::Rebind(_) if self.sockets.rebind().is_ok() => {
                    self.node.handle_rebound(clock::now(), self.sockets.host_addresses());
                    return self.drain();
                }
                other => tracing::debug!(?other, "an aux of the crowd notices"),
            }
        }
    }

    fn publish(&mut self, announcement: Announcement) {
        let (board, tell) = (Arc::clone(&self.board), self.tell.take());
        tokio::spawn(async move {
            let published = board.publish(announcement).await;
            if let (Ok(()), Some(tell)) = (published, tell) {
                let _ = tell.send(clock::now());
            }
        });
    }
}
