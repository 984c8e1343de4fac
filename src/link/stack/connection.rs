//! One connection: a socket of smoltcp, alone in a set of its own, so that a packet costs the same however many connections there are.
//! Who uses it and where it is found is not here but in [`super::core`].

use std::collections::VecDeque;

use smoltcp::iface::{Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, ConnectError, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};

use super::wire::{Flow, Wire};

/// What a handshake may take, either way.
const OPENING: Duration = Duration::from_secs(10);

/// What a goodbye may take that nobody here waits for any more.
const CLOSING: Duration = Duration::from_secs(30);

/// A quiet connection speaks so often: where its peer is gone, the node answers with a reset.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// After its end on both sides a connection still owes an acknowledgement, at once or after the usual delay.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Packets of one connection before others have their turn.
const TURN: usize = 32;

/// Each way, by how many connections there are: what one may have in flight bounds its speed, so a few may have much of it. All together
/// take 117 MiB at most, and only what was used of them.
const BUFFERS: [(usize, usize); 3] = [(8, 2 << 20), (64, 256 << 10), (usize::MAX, 64 << 10)];

/// Who has a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum User {
    /// It came to a port of ours and waits to be accepted.
    Port,
    /// A stream.
    Stream,
    /// Nobody any more: only its goodbye is left.
    Nobody,
}

/// A socket and who has it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) flow: Flow,
    pub(super) user: User,
    /// Whether it waits for its turn to send.
    pub(super) queued: bool,
    /// When it wants a turn by itself.
    pub(super) due: Option<std::time::Instant>,
    established: bool,
    resting: bool,
    /// When it was first seen at its end on both sides while somebody still had it.
    ended: Option<Instant>,
    socket: SocketHandle,
    sockets: SocketSet<'static>,
}

impl Connection {
    /// One that takes a SYN of `flow`, which has to be given to it next.
    pub(super) fn accepting(flow: Flow, others: usize) -> Self {
        let mut socket = socket(others);
        // INVARIANT: a flow that comes in a packet to a port of ours has that port, which is not 0, and the socket is new.
        let _ = socket.listen(flow.port);
        Self::with(socket, flow, User::Port)
    }

    /// One that calls the peer.
    pub(super) fn connecting(flow: Flow, others: usize, interface: &mut Interface) -> Result<Self, ConnectError> {
        let mut socket = socket(others);
        socket.connect(interface.context(), (*flow.peer.ip(), flow.peer.port()), flow.port)?;
        Ok(Self::with(socket, flow, User::Stream))
    }

    fn with(socket: Socket<'static>, flow: Flow, user: User) -> Self {
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        Self { flow, user, queued: false, due: None, established: false, resting: false, ended: None, socket, sockets }
    }

    pub(super) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    pub(super) fn state(&self) -> State {
        self.sockets.get::<Socket<'_>>(self.socket).state()
    }

    /// Whether nothing more will come of it.
    pub(super) fn is_over(&self) -> bool {
        let socket = self.sockets.get::<Socket<'_>>(self.socket);
        // An aborted one has a reset to send, for which it keeps the peer's address. One that was reset in the middle of a handshake
        // listens again.
        socket.state() == State::Listen || socket.state() == State::Closed && socket.remote_endpoint().is_none()
    }

    /// Whether it has just come to stand. True once.
    pub(super) fn has_opened(&mut self) -> bool {
        let opening = matches!(self.state(), State::Listen | State::SynSent | State::SynReceived | State::Closed);
        if opening || self.established {
            return false;
        }
        self.established = true;
        self.socket().set_timeout(None);
        self.socket().set_keep_alive(Some(KEEP_ALIVE));
        true
    }

    /// Whether its user has gone and it has just come to its end on both sides. True once.
    pub(super) fn begins_to_rest(&mut self) -> bool {
        let resting = self.user == User::Nobody && self.state() == State::TimeWait;
        resting && !std::mem::replace(&mut self.resting, true)
    }

    /// Its user has gone. Where both sides had said all, the goodbye is waited for; else the peer must not take it for whole.
    pub(super) fn release(&mut self) {
        self.user = User::Nobody;
        let done = matches!(self.state(), State::Closing | State::LastAck | State::TimeWait);
        let socket = self.socket();
        if done && socket.recv_queue() == 0 {
            socket.set_timeout(Some(CLOSING));
        } else {
            socket.abort();
        }
    }

    /// Takes a packet of its flow.
    pub(super) fn take(
        &mut self,
        interface: &mut Interface,
        at: Instant,
        packet: &[u8],
        outgoing: &mut VecDeque<Vec<u8>>,
    ) {
        let mut wire = Wire { incoming: Some(packet), outgoing };
        let taken = interface.poll_ingress_single(at, &mut wire, &mut self.sockets);
        debug_assert_ne!(taken, PollIngressSingleResult::None, "there was a packet");
    }

    /// Gives what it has to send, as far as there is room and for one turn. Whether more waits, and when it wants a turn by itself.
    pub(super) fn give(
        &mut self,
        interface: &mut Interface,
        at: Instant,
        outgoing: &mut VecDeque<Vec<u8>>,
    ) -> (bool, Option<Instant>) {
        if self.is_to_be_read(at) {
            return (false, None);
        }
        let mut wire = Wire { incoming: None, outgoing };
        for _ in 0..TURN {
            if !wire.has_room() {
                break;
            }
            if interface.poll_egress(at, &mut wire, &mut self.sockets) == PollResult::None {
                return (false, interface.poll_at(at, &self.sockets));
            }
        }
        (true, None)
    }

    /// Whether it is at its end on both sides, and somebody may still read what came before: smoltcp would throw it away after 10 s.
    fn is_to_be_read(&mut self, at: Instant) -> bool {
        let ended = self.user == User::Stream && self.state() == State::TimeWait;
        ended && *self.ended.get_or_insert(at) + LAST_WORD < at
    }
}

fn socket(others: usize) -> Socket<'static> {
    let size = BUFFERS.iter().find(|(most, _)| others < *most).map_or(64 << 10, |(_, size)| *size);
    let buffer = || SocketBuffer::new(vec![0; size]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_congestion_control(CongestionControl::Cubic);
    // What is written at once is sent at once: whoever is at the other end of the forward has gathered it already.
    socket.set_nagle_enabled(false);
    socket.set_timeout(Some(OPENING));
    socket
}
