//! The driver: one task owns the node, the socket and the TUN device, and tells the node the time. What to do is not decided here but
//! in `proto`.
//!
//! A packet that cannot be sent or delivered is counted, never an error: the network loses packets, and everything above expects it.

pub mod clock;
pub mod device;
pub mod engine;
pub mod forward;
pub mod hops;
pub mod interfaces;
pub mod ports;
pub mod routes;
pub mod socket;
pub mod sockets;
pub mod stack;
pub mod tun;

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::link::device::Device;
use crate::link::socket::{Room, made};
use crate::link::sockets::{Sent, Sockets};
use crate::link::tun::Read;
use crate::proto::announcement::Announcement;
use crate::proto::batch::Bulk;
use crate::proto::nat::Behaviour;
use crate::proto::node::Node;
use crate::proto::packets::Packets;
use crate::proto::peer::PeerView;
use crate::proto::probe::Farewell;
use crate::proto::route::SocketId;
use crate::proto::transmit::{Event, Transmit};

/// Reads from one side before the other has its turn, each of which may be 64 KiB: enough to amortise a wake-up, few enough to stay fair.
const TURN: usize = 8;

/// A packet of 64 KiB and the virtio header before it; more than any datagram.
const BUFFER: usize = 65 * 1024;

/// Inner packets that are put together before the device gets them: what one read of a socket may bring.
const MOST_INNER: usize = 32 * 1024;

/// Errors in a row after which a device is gone.
const MOST_ERRORS: u32 = 16;

/// Batches that wait for a socket to take more; beyond that they are lost, as in a full queue of a network.
const MOST_STALLED: usize = 64;

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
    /// How often the device has failed in a row.
    errors: u32,
    /// Whether it was told that batches are refused.
    one_by_one: bool,
    /// A datagram that a socket did not take yet.
    waiting: Option<Transmit>,
    /// Bulk that the sockets did not take yet, in its order.
    stalled: VecDeque<Bulk>,
    /// Tells when the socket that something waits for takes more.
    room: Option<(SocketId, Room)>,
    /// Filled by the node and emptied by the device, in turn.
    inner: Packets,
}

impl Link {
    /// A driver and the handle to it; notices go to `events`.
    pub fn new(node: Node, sockets: Sockets, tun: Device, events: mpsc::UnboundedSender<Event>) -> (Self, Handle) {
        let (sender, commands) = mpsc::unbounded_channel();
        let (lost, stalled, inner) = (BTreeMap::new(), VecDeque::new(), Packets::default());
        (
            Self {
                node,
                sockets,
                tun,
                commands,
                events,
                lost,
                errors: 0,
                one_by_one: false,
                waiting: None,
                stalled,
                room: None,
                inner,
            },
            Handle { commands: sender },
        )
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
            self.watch_for_room();
            let full = self.full().is_some();
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => return,
                },
                () = sleep_until(wake) => self.node.handle_timeout(clock::now()),
                ready = self.sockets.readable() => {
                    self.receive(ready, &mut buffer);
                    self.read_tun(Ok(()), &mut buffer);
                }
                () = made(self.room.as_ref().map(|(_, room)| room)) => {}
                ready = self.tun.readable(), if !full && self.errors < MOST_ERRORS => self.read_tun(ready, &mut buffer),
            }
        }
    }

    /// The socket that something waits for.
    fn full(&self) -> Option<SocketId> {
        let waiting = self.waiting.as_ref().map(|transmit| transmit.socket);
        waiting.or_else(|| self.stalled.front().map(|bulk| bulk.socket))
    }

    /// Where the system has no watch for us, it is tried again at the next turn.
    fn watch_for_room(&mut self) {
        let full = self.full();
        if self.room.as_ref().map(|(id, _)| *id) != full {
            self.room = full.and_then(|id| Some((id, self.sockets.room(id).ok()?)));
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
        let Ok(id) = ready else { return self.lose("socket not readable", 1) };
        let now = clock::now();
        for _ in 0..TURN {
            match self.sockets.try_receive(id, buffer) {
                Ok(Some(received)) => {
                    self.node.handle_datagrams(now, id, received.from, received.datagrams(buffer));
                }
                Ok(None) => break,
                Err(_) => self.lose("socket read error", 1),
            }
            if self.node.inner_bytes() >= MOST_INNER {
                self.deliver();
            }
        }
    }

    /// While something waits for a socket, what programs here send waits in the device.
    fn read_tun(&mut self, ready: std::io::Result<()>, buffer: &mut [u8]) {
        if ready.is_err() {
            return self.fail_device();
        }
        let now = clock::now();
        for _ in 0..TURN {
            if self.full().is_some() || self.errors >= MOST_ERRORS {
                return;
            }
            match self.tun.try_read(buffer) {
                Ok(Read::Packet(packet)) => self.node.handle_inner(now, packet),
                Ok(Read::Malformed(_)) => self.lose("packet of the TUN device that makes no sense", 1),
                Ok(Read::Nothing) => break,
                Err(_) => return self.fail_device(),
            }
            self.errors = 0;
        }
    }

    /// A device that fails again and again is not asked any more: somebody has removed it.
    fn fail_device(&mut self) {
        self.lose("TUN device read error", 1);
        self.errors += 1;
        if self.errors == MOST_ERRORS {
            let _ = self.events.send(Event::DeviceGone);
        }
    }

    /// Puts out what the node has, datagrams first: an announcement promises that its opening datagrams have left.
    fn drain(&mut self) {
        while let Some(transmit) = self.waiting.take().or_else(|| self.node.poll_transmit()) {
            match self.sockets.send(&transmit) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // The next in line when the socket takes more, before any bulk; those after it stay in the node.
                    self.waiting = Some(transmit);
                    break;
                }
                Err(_) => self.lose("datagram the system would not send", 1),
            }
        }
        self.send_bulk();
        self.deliver();
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

    /// In the order in which it was sealed. What a full socket does not take waits.
    fn send_bulk(&mut self) {
        while let Some(mut bulk) = self.stalled.pop_front().or_else(|| self.node.poll_batch()) {
            match self.sockets.send_bulk(&mut bulk) {
                Sent::All => {}
                Sent::Later(count) => {
                    self.lose("datagram the system would not send", count);
                    self.stalled.push_front(bulk);
                    break;
                }
                Sent::Lost(count) => self.lose("datagram the system would not send", count),
                Sent::TooLong(count) => {
                    self.lose("datagram too long for the interface", count);
                    self.node.handle_too_long(clock::now(), bulk.batch.to);
                }
            }
            self.node.recycle(bulk);
        }
        if !self.sockets.segments() && !std::mem::replace(&mut self.one_by_one, true) {
            let _ = self.events.send(Event::OneByOne);
        }
        if self.stalled.is_empty() {
            return;
        }
        while let Some(bulk) = self.node.poll_batch() {
            if self.stalled.len() < MOST_STALLED {
                self.stalled.push_back(bulk);
            } else {
                self.lose("datagram that a full socket had no room for", bulk.batch.len());
                self.node.recycle(bulk);
            }
        }
    }

    fn deliver(&mut self) {
        self.node.swap_inner(&mut self.inner);
        if !self.inner.is_empty() {
            let lost = self.tun.write(&mut self.inner);
            self.lose("packet the TUN device would not take", lost);
        }
    }

    /// Any port: that of the old socket is what the NATs on the way have wrong ideas of. Without a fresh one the old one goes on.
    fn rebind(&mut self) {
        // Nobody has let the fresh socket in.
        self.waiting = None;
        self.stalled.clear();
        self.room = None;
        if let Err(error) = self.sockets.rebind() {
            tracing::warn!(%error, "no fresh socket, going on with the old one");
        }
        self.node.handle_rebound(clock::now(), self.sockets.host_addresses());
    }

    fn lose(&mut self, cause: &'static str, count: usize) {
        if count > 0 {
            *self.lost.entry(cause).or_default() += count as u64;
            tracing::trace!(cause, count, "lost");
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
