//! The driver: one task owns the node, the socket and the TUN device, and tells the node the time. What to do is not decided here but
//! in `proto`.
//!
//! A packet that cannot be sent or delivered is counted, never an error: the network loses packets, and everything above expects it.

pub mod clock;
pub mod device;
pub mod forward;
pub mod hops;
pub mod interfaces;
pub mod ports;
pub mod routes;
pub mod socket;
pub mod sockets;
pub mod stack;
pub mod tun;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::link::device::Device;
use crate::link::sockets::Sockets;
use crate::proto::announcement::Announcement;
use crate::proto::nat::Behaviour;
use crate::proto::node::Node;
use crate::proto::peer::PeerView;
use crate::proto::probe::Farewell;
use crate::proto::route::SocketId;
use crate::proto::transmit::Event;

/// Datagrams or packets taken from one side before the other has its turn: enough to amortise a wake-up, few enough to stay fair.
const BATCH: usize = 64;

/// The largest datagram read; more than any MTU in use.
const BUFFER: usize = 64 * 1024;

/// What the rest of the process asks of the driver.
#[derive(Debug)]
enum Command {
    Announcement(Box<Announcement>, u64),
    Hops(Option<u8>),
    Close(Farewell),
    Snapshot(oneshot::Sender<Snapshot>),
}

/// The mesh as it is now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Every peer that announced itself.
    pub peers: Vec<PeerView>,
    /// What is known of our NAT.
    pub nat: Behaviour,
    /// The relays of the user's own, and whether we are registered with each.
    pub relays: Vec<(SocketAddr, bool)>,
    /// Datagrams that were passed on for others, and the bytes in them.
    pub relayed: (u64, u64),
    /// How often our NAT's mapping has moved.
    pub moves: u32,
    /// What was dropped, by cause.
    pub dropped: BTreeMap<&'static str, u64>,
}

/// Speaks to a running driver. Calls after its end do nothing.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

impl Handle {
    /// An announcement was read; `born` orders the processes of one role.
    pub fn announce(&self, announcement: Announcement, born: u64) {
        let _ = self.commands.send(Command::Announcement(Box::new(announcement), born));
    }

    /// The TTL that opens our NATs was found.
    pub fn tell_hops(&self, ttl: Option<u8>) {
        let _ = self.commands.send(Command::Hops(ttl));
    }

    /// Say goodbye; the driver ends when everyone has heard it or had time to.
    pub fn close(&self, farewell: Farewell) {
        let _ = self.commands.send(Command::Close(farewell));
    }

    /// The mesh as it is now; `None` when the driver has ended.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Snapshot(reply)).ok()?;
        answer.await.ok()
    }
}

/// The driver, not yet running.
#[derive(Debug)]
pub struct Link {
    node: Node,
    sockets: Sockets,
    tun: Device,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<Event>,
    lost: BTreeMap<&'static str, u64>,
}

impl Link {
    /// A driver and the handle to it; notices go to `events`.
    pub fn new(node: Node, sockets: Sockets, tun: Device, events: mpsc::UnboundedSender<Event>) -> (Self, Handle) {
        let (sender, commands) = mpsc::unbounded_channel();
        (Self { node, sockets, tun, commands, events, lost: BTreeMap::new() }, Handle { commands: sender })
    }

    /// Runs until the node has said goodbye, or nobody holds a handle any more.
    pub async fn run(mut self) {
        let mut buffer = vec![0; BUFFER];
        self.node.handle_timeout(clock::now());
        loop {
            self.drain();
            if self.node.is_closed() {
                return;
            }
            let wake = self.node.poll_timeout();
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => return,
                },
                () = sleep_until(wake) => self.node.handle_timeout(clock::now()),
                ready = self.sockets.readable() => self.receive(ready, &mut buffer),
                ready = self.tun.readable() => self.read_tun(ready, &mut buffer),
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        let now = clock::now();
        match command {
            Command::Announcement(announcement, born) => self.node.handle_announcement(now, *announcement, born),
            Command::Hops(ttl) => self.node.handle_hops(clock::now(), ttl),
            Command::Close(farewell) => self.node.close(now, farewell),
            Command::Snapshot(reply) => {
                let _ = reply.send(self.snapshot(now));
            }
        }
    }

    fn snapshot(&self, now: Instant) -> Snapshot {
        let mut dropped = self.node.dropped().clone();
        dropped.extend(self.lost.iter().map(|(cause, count)| (*cause, *count)));
        Snapshot {
            peers: self.node.peers(now),
            nat: self.node.nat(),
            relays: self.node.relays().collect(),
            relayed: self.node.relayed(),
            moves: self.node.moves(),
            dropped,
        }
    }

    fn receive(&mut self, ready: std::io::Result<SocketId>, buffer: &mut [u8]) {
        let Ok(id) = ready else { return self.lose("socket not readable") };
        let now = clock::now();
        for _ in 0..BATCH {
            match self.sockets.try_receive(id, buffer) {
                Ok(Some((len, from))) => self.node.handle_datagram(now, id, from, &buffer[..len]),
                Ok(None) => break,
                Err(_) => self.lose("socket read error"),
            }
        }
    }

    fn read_tun(&mut self, ready: std::io::Result<()>, buffer: &mut [u8]) {
        if ready.is_err() {
            return self.lose("TUN device not readable");
        }
        let now = clock::now();
        for _ in 0..BATCH {
            match self.tun.try_read(buffer) {
                Ok(Some(len)) => self.node.handle_inner(now, &buffer[..len]),
                Ok(None) => break,
                Err(_) => self.lose("TUN device read error"),
            }
        }
    }

    /// Puts out what the node has, datagrams first: an announcement promises that its opening datagrams have left.
    fn drain(&mut self) {
        while let Some(transmit) = self.node.poll_transmit() {
            if self.sockets.send(&transmit).is_err() {
                self.lose("datagram the system would not send");
            }
        }
        while let Some(packet) = self.node.poll_inner() {
            if self.tun.write(&packet).is_err() {
                self.lose("packet the TUN device would not take");
            }
        }
        let mut rebind = false;
        while let Some(event) = self.node.poll_event() {
            rebind |= matches!(event, Event::Rebind(_));
            if matches!(event, Event::Up { .. } | Event::Rerouted { .. }) {
                self.sockets.keep(|id| self.node.uses(id));
            }
            let _ = self.events.send(event);
        }
        if rebind {
            self.rebind();
            self.drain();
        }
    }

    /// Any port: that of the old socket is what the NATs on the way have wrong ideas of. Without a fresh one the old one goes on.
    fn rebind(&mut self) {
        if let Err(error) = self.sockets.rebind() {
            tracing::warn!(%error, "no fresh socket, going on with the old one");
        }
        self.node.handle_rebound(clock::now(), self.sockets.host_addresses());
    }

    fn lose(&mut self, cause: &'static str) {
        *self.lost.entry(cause).or_default() += 1;
        tracing::trace!(cause, "lost");
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
