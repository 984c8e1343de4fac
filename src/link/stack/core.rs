//! The stack without clock and tasks: connections, the ports of ours that take some, and the packets between them and the overlay.
//! [`super::Stack`] drives it for the link, [`super::stream`] uses it.
//!
//! Whatever comes for a port that takes none is reset, an echo request is answered, and UDP is told that there is none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Instant as Moment;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::connection::{Connection, User};
use super::wire::{Flow, QUEUE, Wire, is_for, segment};
use crate::proto::overlay::Prefix;

/// Connections at once; more than a build has jobs. A SYN beyond is dropped, as by a kernel whose queue is full: it comes again.
pub(super) const MOST_CONNECTIONS: usize = 512;

/// Connections of one port that nobody has accepted yet, those in the middle of their handshake included.
pub(super) const BACKLOG: usize = 64;

/// Connections that are over on both sides and only wait for stray packets, for 10 s; the oldest is forgotten. Each job of distcc leaves one.
const MOST_RESTING: usize = 32;

/// Ports for calls of our own (RFC 6335 section 6).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49152..=65535;

/// A connection that wants a turn and does nothing with it gets the next no sooner, so that no fault can take a core.
const PAUSE: Duration = Duration::from_millis(5);

/// Names a connection for as long as anybody may ask for it.
pub(super) type Id = u64;

/// A port of ours that takes connections.
#[derive(Debug, Default)]
struct Port {
    arriving: BTreeSet<Id>,
    ready: VecDeque<Id>,
    waker: Option<Waker>,
}

/// See the module.
pub(super) struct Core {
    address: Ipv4Addr,
    epoch: Instant,
    interface: Interface,
    outgoing: VecDeque<Vec<u8>>,
    connections: BTreeMap<Id, Connection>,
    flows: BTreeMap<Flow, Id>,
    ports: BTreeMap<u16, Port>,
    queue: VecDeque<Id>,
    timers: BTreeSet<(Instant, Id)>,
    resting: VecDeque<Id>,
    last_id: Id,
    last_port: u16,
}

impl Core {
    /// A stack with our address in the overlay. `seed` decides sequence numbers and the first port.
    pub(super) fn new(now: Instant, address: Ipv4Addr, overlay: Prefix, seed: u64) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut outgoing = VecDeque::new();
        let mut wire = Wire { incoming: None, outgoing: &mut outgoing };
        let mut interface = Interface::new(config, &mut wire, Moment::ZERO);
        interface.update_ip_addrs(|own| {
            // INVARIANT: there is room for one.
            let _ = own.push(IpCidr::new(IpAddress::Ipv4(address), overlay.len()));
        });
        let count = EPHEMERAL.len() as u64;
        Self {
            address,
            epoch: now,
            interface,
            outgoing,
            connections: BTreeMap::new(),
            flows: BTreeMap::new(),
            ports: BTreeMap::new(),
            queue: VecDeque::new(),
            timers: BTreeSet::new(),
            resting: VecDeque::new(),
            last_id: 0,
            last_port: EPHEMERAL.start() + (seed % count) as u16,
        }
    }

    // --- packets

    /// Takes a packet out of the tunnel.
    pub(super) fn input(&mut self, now: Instant, packet: &[u8]) {
        if !is_for(self.address, packet) {
            return;
        }
        let at = self.moment(now);
        let Some((flow, opens)) = segment(packet) else { return self.answer(at, packet) };
        let id = match self.flows.get(&flow).copied().filter(|id| !opens || !self.may_be_renewed(*id)) {
            Some(id) => id,
            None if !opens || !self.ports.contains_key(&flow.port) => return self.answer(at, packet),
            None => match self.welcome(flow) {
                Some(id) => id,
                None => return tracing::debug!(port = flow.port, "no room for a connection"),
            },
        };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.take(&mut self.interface, at, packet, &mut self.outgoing);
            self.serve(now, id);
        }
    }

    /// A packet for the tunnel.
    pub(super) fn output(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    /// Whether there is one.
    pub(super) fn has_output(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Gives a turn to every connection that wants one.
    pub(super) fn poll(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.timers.first().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, id));
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.due = None;
            }
            self.enqueue(id);
        }
        for _ in 0..self.queue.len() {
            if self.outgoing.len() >= QUEUE {
                return;
            }
            let Some(id) = self.queue.pop_front() else { return };
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.queued = false;
                self.serve(now, id);
            }
        }
    }

    /// When [`Self::poll`] has something to do, if nobody comes before.
    pub(super) fn poll_at(&self, now: Instant) -> Option<Instant> {
        if self.queue.is_empty() { self.timers.first().map(|(due, _)| *due) } else { Some(now) }
    }

    /// A packet that is of no connection: an echo, a reset, or nothing.
    fn answer(&mut self, at: Moment, packet: &[u8]) {
        let mut nobody = SocketSet::new(vec![]);
        let mut wire = Wire { incoming: Some(packet), outgoing: &mut self.outgoing };
        self.interface.poll_ingress_single(at, &mut wire, &mut nobody);
    }

    /// One turn of one connection, and what follows from it.
    fn serve(&mut self, now: Instant, id: Id) {
        let at = self.moment(now);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (more, wants) = connection.give(&mut self.interface, at, &mut self.outgoing);
        let opened = connection.has_opened();
        let rests = connection.begins_to_rest();
        let (flow, user, over) = (connection.flow, connection.user, connection.is_over());
        if over {
            return self.end(id);
        }
        if opened && user == User::Port {
            self.hand_over(flow.port, id);
        }
        if rests {
            self.rest(id);
        }
        if more {
            return self.enqueue(id);
        }
        let wants = wants.map(|wants| self.epoch + Duration::from_micros(wants.total_micros().unsigned_abs()));
        self.set_timer(id, wants.map(|wants| if wants <= now { now + PAUSE } else { wants }));
    }

    // --- ports and connections

    /// Takes connections to `port` from now on.
    pub(super) fn listen(&mut self, port: u16) -> io::Result<()> {
        if port == 0 || self.ports.contains_key(&port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.ports.insert(port, Port::default());
        Ok(())
    }

    /// Takes none any more, and resets those that nobody has accepted.
    pub(super) fn deafen(&mut self, port: u16) {
        let Some(port) = self.ports.remove(&port) else { return };
        port.arriving.into_iter().chain(port.ready).for_each(|id| self.release(id));
    }

    /// The next connection to `port`.
    pub(super) fn poll_accept(&mut self, port: u16, context: &mut Context<'_>) -> Poll<io::Result<Id>> {
        let Some(port) = self.ports.get_mut(&port) else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        if let Some(id) = port.ready.pop_front() {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.user = User::Stream;
            }
            return Poll::Ready(Ok(id));
        }
        port.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Calls a peer's port. Whether it answers is seen by the connection's state.
    pub(super) fn connect(&mut self, peer: SocketAddrV4) -> io::Result<Id> {
        if self.connections.len() >= MOST_CONNECTIONS {
            return Err(io::Error::other(format!("there are {MOST_CONNECTIONS} connections already")));
        }
        let port = self.free_port(peer).ok_or(io::ErrorKind::AddrInUse)?;
        let flow = Flow { peer, port };
        let connection = Connection::connecting(flow, self.connections.len(), &mut self.interface)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        Ok(self.add(connection))
    }

    /// The socket of a connection whose user has not released it.
    pub(super) fn socket(&mut self, id: Id) -> Option<&mut Socket<'static>> {
        self.connections.get_mut(&id).map(Connection::socket)
    }

    /// Gives a connection a turn at the next [`Self::poll`].
    pub(super) fn enqueue(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.queued) {
            connection.queued = true;
            self.queue.push_back(id);
        }
    }

    /// The user of a connection has gone.
    pub(super) fn release(&mut self, id: Id) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.release();
        if connection.is_over() {
            return self.end(id);
        }
        self.enqueue(id);
    }

    /// How many connections there are, goodbyes included.
    pub(super) fn count(&self) -> usize {
        self.connections.len()
    }

    /// A SYN may take the place of a connection that has ended here and only waits for stray packets (RFC 9293 section 3.6.1).
    fn may_be_renewed(&mut self, id: Id) -> bool {
        let ended = self.connections.get(&id).is_some_and(|connection| connection.state() == State::TimeWait);
        if ended {
            self.end(id);
        }
        ended
    }

    /// A place for a connection that comes to a port of ours.
    fn welcome(&mut self, flow: Flow) -> Option<Id> {
        let others = self.connections.len();
        let port = self.ports.get(&flow.port)?;
        if others >= MOST_CONNECTIONS || port.arriving.len() + port.ready.len() >= BACKLOG {
            return None;
        }
        let id = self.add(Connection::accepting(flow, others));
        self.ports.get_mut(&flow.port)?.arriving.insert(id);
        Some(id)
    }

    fn hand_over(&mut self, port: u16, id: Id) {
        let Some(port) = self.ports.get_mut(&port) else { return };
        port.arriving.remove(&id);
        port.ready.push_back(id);
        if let Some(waker) = port.waker.take() {
            waker.wake();
        }
    }

    fn add(&mut self, connection: Connection) -> Id {
        self.last_id += 1;
        self.flows.insert(connection.flow, self.last_id);
        self.connections.insert(self.last_id, connection);
        self.enqueue(self.last_id);
        self.last_id
    }

    /// Nothing more comes of a connection: its flow is free for another. A stream that still holds it sees why.
    fn end(&mut self, id: Id) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (flow, user) = (connection.flow, connection.user);
        if self.flows.get(&flow) == Some(&id) {
            self.flows.remove(&flow);
        }
        self.set_timer(id, None);
        if user == User::Stream {
            return;
        }
        self.connections.remove(&id);
        if let Some(port) = self.ports.get_mut(&flow.port) {
            port.arriving.remove(&id);
            port.ready.retain(|ready| *ready != id);
        }
        self.resting.retain(|resting| *resting != id);
    }

    /// Nothing more is to come of a connection but packets that were sent twice.
    fn rest(&mut self, id: Id) {
        self.resting.push_back(id);
        if self.resting.len() > MOST_RESTING
            && let Some(oldest) = self.resting.pop_front()
        {
            self.end(oldest);
        }
    }

    fn free_port(&mut self, peer: SocketAddrV4) -> Option<u16> {
        for _ in EPHEMERAL {
            self.last_port = self.last_port.checked_add(1).unwrap_or(*EPHEMERAL.start());
            let port = self.last_port;
            if !self.ports.contains_key(&port) && !self.flows.contains_key(&Flow { peer, port }) {
                return Some(port);
            }
        }
        None
    }

    fn set_timer(&mut self, id: Id, due: Option<Instant>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Some(before) = std::mem::replace(&mut connection.due, due) {
            self.timers.remove(&(before, id));
        }
        if let Some(due) = due {
            self.timers.insert((due, id));
        }
    }

    fn moment(&self, now: Instant) -> Moment {
        Moment::from_micros(now.saturating_duration_since(self.epoch).as_micros() as i64)
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<_> = self.ports.keys().collect();
        f.debug_struct("Core")
            .field("connections", &self.connections.len())
            .field("ports", &ports)
            .finish_non_exhaustive()
    }
}
