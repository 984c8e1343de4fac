//! Two stacks wired to each other in memory and in virtual time: what arrives, what ends how, and that nothing is left behind.

mod hostile;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use smoltcp::socket::tcp::{RecvError, State};

use super::core::{BACKLOG, Core, Id, MOST_CONNECTIONS};
use crate::proto::reset;

const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const PORT: u16 = 3632;
const DELAY: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(120);

/// The side that calls, and the side that is called.
const A: usize = 0;
const B: usize = 1;

struct Net {
    now: Instant,
    cores: [Core; 2],
    transit: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sent: u64,
    /// Of 1000 packets, so many are lost.
    loss: u32,
    rng: ChaCha20Rng,
}

impl Net {
    fn new() -> Self {
        let (now, overlay) = (Instant::now(), "10.77.0.0/16".parse().expect("a prefix"));
        let mut cores = [Core::new(now, HERE, overlay, 7), Core::new(now, THERE, overlay, 8)];
        cores[B].listen(PORT).expect("it is free");
        Self { now, cores, transit: BTreeMap::new(), sent: 0, loss: 0, rng: ChaCha20Rng::seed_from_u64(1) }
    }

    /// Moves packets and time until `done`, or says that it never was.
    fn until(&mut self, within: Duration, mut done: impl FnMut(&mut [Core; 2]) -> bool) -> bool {
        let deadline = self.now + within;
        loop {
            let is_done = done(&mut self.cores);
            self.cores.iter_mut().for_each(|core| core.poll(self.now));
            self.pick_up();
            if is_done {
                return true;
            }
            let arrival = self.transit.first_key_value().map(|((at, _), _)| *at);
            let wakes = self.cores.iter().filter_map(|core| core.poll_at(self.now));
            match wakes.chain(arrival).min() {
                Some(next) if next <= deadline => self.now = next.max(self.now),
                _ => {
                    self.now = deadline;
                    return done(&mut self.cores);
                }
            }
            self.deliver();
        }
    }

    fn pick_up(&mut self) {
        for side in [A, B] {
            while let Some(packet) = self.cores[side].output() {
                self.sent += 1;
                if self.rng.random_range(0..1000) >= self.loss {
                    self.transit.insert((self.now + DELAY, self.sent), (1 - side, packet));
                }
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.transit.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to, packet) = entry.remove();
            self.cores[to].input(self.now, &packet);
        }
    }

    /// A connection from A to B, both ends of it.
    fn connect(&mut self) -> (Id, Id) {
        let here = self.cores[A].connect(SocketAddrV4::new(THERE, PORT)).expect("a free port");
        let mut there = None;
        assert!(self.until(LONG, |cores| {
            there = there.or(accept(&mut cores[B]));
            there.is_some()
        }));
        (here, there.expect("accepted"))
    }

    fn state(&mut self, side: usize, id: Id) -> Option<State> {
        self.cores[side].socket(id).map(|socket| socket.state())
    }

    #[track_caller]
    fn assert_nothing_is_left(&mut self) {
        self.until(LONG, |_| false);
        assert_eq!([self.cores[A].count(), self.cores[B].count()], [0, 0]);
        assert_eq!(self.cores.each_ref().map(|core| core.poll_at(self.now)), [None, None], "no timer is left");
    }
}

fn accept(core: &mut Core) -> Option<Id> {
    match core.poll_accept(PORT, &mut Context::from_waker(Waker::noop())) {
        Poll::Ready(id) => Some(id.expect("it listens")),
        Poll::Pending => None,
    }
}

/// One end of a transfer, each way.
struct End {
    side: usize,
    id: Id,
    to_send: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    finished: bool,
}

impl End {
    fn new(side: usize, id: Id, len: usize, seed: u64) -> Self {
        let mut to_send = vec![0; len];
        ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut to_send);
        Self { side, id, to_send, sent: 0, received: vec![], finished: false }
    }

    /// Sends and takes what it can; closes when it has sent all. True when both ways are at their end.
    fn step(&mut self, cores: &mut [Core; 2]) -> bool {
        let core = &mut cores[self.side];
        let socket = core.socket(self.id).expect("it is held");
        let (before, was_open) = (self.sent + self.received.len(), socket.may_send());
        if was_open {
            self.sent += socket.send_slice(&self.to_send[self.sent..]).expect("it may send");
            if self.sent == self.to_send.len() {
                socket.close();
            }
        }
        let mut buffer = [0; 4096];
        loop {
            match socket.recv_slice(&mut buffer) {
                Ok(0) => break,
                Ok(len) => self.received.extend(&buffer[..len]),
                Err(error) => {
                    self.finished |= error == RecvError::Finished;
                    break;
                }
            }
        }
        if before != self.sent + self.received.len() || was_open {
            core.enqueue(self.id);
        }
        self.finished && self.sent == self.to_send.len()
    }
}

/// Sends `len` bytes each way over each connection, and looks at every one.
fn transfer(net: &mut Net, connections: &[(Id, Id)], len: usize) {
    let ends = |(here, there): &(Id, Id)| [End::new(A, *here, len, *here), End::new(B, *there, len / 2, *there + 1000)];
    let mut ends: Vec<[End; 2]> = connections.iter().map(ends).collect();
    let done = net.until(LONG * 10, |cores| {
        let steps = ends.iter_mut().flatten().map(|end| end.step(cores));
        steps.fold(true, |all, done| all & done)
    });
    assert!(done, "it comes to its end");
    for [here, there] in &ends {
        assert!(here.received == there.to_send && there.received == here.to_send, "every byte, in its order");
    }
    for (here, there) in connections {
        net.cores[A].release(*here);
        net.cores[B].release(*there);
    }
}

#[test]
fn what_is_sent_arrives_both_ways_and_then_nothing_is_left() {
    let mut net = Net::new();
    let pair = net.connect();
    let started = net.now;
    transfer(&mut net, &[pair], 8_000_000);
    assert!(net.now - started < Duration::from_secs(4), "a window of 2 MB in 40 ms: {:?}", net.now - started);
    net.assert_nothing_is_left();
}

#[test]
fn lost_packets_are_sent_again() {
    let mut net = Net::new();
    let pair = net.connect();
    net.loss = 20;
    transfer(&mut net, &[pair], 600_000);
    net.loss = 0;
    net.assert_nothing_is_left();
}

#[test]
fn many_connections_go_on_at_once() {
    let mut net = Net::new();
    let pairs: Vec<_> = (0..150).map(|_| net.connect()).collect();
    transfer(&mut net, &pairs, 100_000);
    net.assert_nothing_is_left();
}

/// A service that answers and closes has its answers delivered, however many of them wait.
#[test]
fn what_was_said_before_a_close_arrives_after_it() {
    let mut net = Net::new();
    let pairs: Vec<_> = (0..100).map(|_| net.connect()).collect();
    for (here, there) in &pairs {
        net.cores[A].socket(*here).expect("held").close();
        net.cores[A].enqueue(*here);
        let socket = net.cores[B].socket(*there).expect("held");
        assert_eq!(socket.send_slice(&[7; 30_000]), Ok(30_000));
        socket.close();
        net.cores[B].enqueue(*there);
    }
    let ended = |cores: &mut [Core; 2], id| cores[B].socket(id).expect("held").state() != State::FinWait1;
    assert!(net.until(LONG, |cores| pairs.iter().all(|(_, there)| ended(cores, *there))));
    pairs.iter().for_each(|(_, there)| net.cores[B].release(*there));
    // All of it is there before anybody reads.
    net.until(LONG, |_| false);
    for (here, _) in pairs {
        let (mut buffer, socket) = (vec![0; 64_000], net.cores[A].socket(here).expect("held"));
        assert_eq!(socket.recv_slice(&mut buffer), Ok(30_000));
        assert_eq!(socket.recv_slice(&mut buffer), Err(RecvError::Finished));
        net.cores[A].release(here);
    }
    net.assert_nothing_is_left();
}

#[test]
fn a_side_that_has_said_all_still_hears_the_answer() {
    let mut net = Net::new();
    let (here, there) = net.connect();
    net.cores[A].socket(here).expect("held").send_slice(b"question").expect("open");
    net.cores[A].socket(here).expect("held").close();
    net.cores[A].enqueue(here);
    let mut question = vec![0; 100];
    assert!(net.until(LONG, |cores| cores[B].socket(there).expect("held").recv_queue() == 8));
    assert_eq!(net.cores[B].socket(there).expect("held").recv_slice(&mut question), Ok(8));
    assert!(net.until(LONG, |cores| {
        let end = cores[B].socket(there).expect("held").recv_slice(&mut [0; 1]);
        end == Err(RecvError::Finished)
    }));
    // Longer than any patience of the stack.
    net.until(LONG, |_| false);
    transfer_back(&mut net, here, there);
    net.assert_nothing_is_left();
}

fn transfer_back(net: &mut Net, here: Id, there: Id) {
    let mut answer = End::new(B, there, 500_000, 3);
    let mut received: Vec<u8> = vec![];
    assert!(net.until(LONG, |cores| {
        answer.step(cores);
        let socket = cores[A].socket(here).expect("held");
        let mut buffer = [0; 4096];
        let outcome = loop {
            match socket.recv_slice(&mut buffer) {
                Ok(0) => break None,
                Ok(len) => received.extend(&buffer[..len]),
                Err(error) => break Some(error),
            }
        };
        cores[A].enqueue(here);
        outcome == Some(RecvError::Finished)
    }));
    assert!(received == answer.to_send);
    net.cores[A].release(here);
    net.cores[B].release(there);
}

#[test]
fn who_reads_slowly_misses_nothing_and_sees_the_end() {
    let mut net = Net::new();
    let (here, there) = net.connect();
    net.cores[A].socket(here).expect("held").close();
    net.cores[A].enqueue(here);
    assert!(net.until(LONG, |cores| cores[B].socket(there).expect("held").state() == State::CloseWait));
    let mut answer = End::new(B, there, 50_000, 3);
    assert!(net.until(LONG, |cores| answer.step(cores)));
    net.cores[B].release(there);
    let mut received: Vec<u8> = vec![];
    let mut buffer = [0; 10_000];
    let end = loop {
        // Longer than smoltcp keeps a connection that is over on both sides.
        net.until(Duration::from_secs(20), |_| false);
        match net.cores[A].socket(here).expect("held").recv_slice(&mut buffer) {
            Ok(len) => received.extend(&buffer[..len]),
            Err(error) => break error,
        }
        net.cores[A].enqueue(here);
    };
    assert!(end == RecvError::Finished && received == answer.to_send, "{end:?} after {} bytes", received.len());
    net.cores[A].release(here);
    net.assert_nothing_is_left();
}

#[test]
fn a_port_that_takes_none_refuses_at_once() {
    let mut net = Net::new();
    let id = net.cores[A].connect(SocketAddrV4::new(THERE, 22)).expect("a free port");
    let started = net.now;
    assert!(net.until(LONG, |cores| cores[A].socket(id).expect("held").state() == State::Closed));
    assert!(net.now - started <= 2 * DELAY, "{:?}", net.now - started);
    net.cores[A].release(id);
    net.assert_nothing_is_left();
}

#[test]
fn a_call_that_nobody_answers_is_given_up() {
    let mut net = Net::new();
    net.loss = 1000;
    let id = net.cores[A].connect(SocketAddrV4::new(THERE, PORT)).expect("a free port");
    assert!(net.until(Duration::from_secs(11), |cores| cores[A].socket(id).expect("held").state() == State::Closed));
    net.cores[A].release(id);
    net.assert_nothing_is_left();
}

#[test]
fn a_stream_dropped_in_the_middle_resets_the_peer_and_never_looks_like_its_end() {
    let mut net = Net::new();
    let (here, there) = net.connect();
    net.cores[A].socket(here).expect("held").send_slice(&[1; 100_000]).expect("open");
    net.cores[A].enqueue(here);
    net.until(3 * DELAY, |_| false);
    net.cores[A].release(here);
    assert!(net.until(LONG, |cores| cores[B].socket(there).expect("held").state() == State::Closed));
    let mut buffer = vec![0; 1 << 20];
    let socket = net.cores[B].socket(there).expect("held");
    while socket.recv_slice(&mut buffer).is_ok_and(|len| len > 0) {}
    assert_eq!(socket.recv_slice(&mut buffer), Err(RecvError::InvalidState));
    net.cores[B].release(there);
    net.assert_nothing_is_left();
}

/// As the node does it: it notes what goes into the tunnel, and speaks for the peer when that is gone.
#[test]
fn a_reset_in_place_of_a_peer_that_is_gone_is_believed() {
    let mut net = Net::new();
    let (here, there) = net.connect();
    let mut connections = reset::Connections::new(PORT);
    net.cores[B].socket(there).expect("held").send_slice(&[1; 50_000]).expect("open");
    net.cores[B].enqueue(there);
    let deadline = net.now + Duration::from_secs(1);
    while net.now < deadline {
        net.until(Duration::from_millis(1), |_| false);
        net.transit.values().filter(|(to, _)| *to == B).for_each(|(_, packet)| connections.note(packet));
    }
    net.loss = 1000;
    for packet in connections.reset_all(THERE) {
        net.cores[A].input(net.now, &packet);
    }
    assert_eq!(net.state(A, here), Some(State::Closed));
}

#[test]
fn calls_beyond_the_backlog_are_dropped_and_half_open_ones_forgotten() {
    let mut net = Net::new();
    let calls: Vec<_> = (0..MOST_CONNECTIONS)
        .map(|_| net.cores[A].connect(SocketAddrV4::new(THERE, PORT)).expect("a free port"))
        .collect();
    assert!(net.cores[A].connect(SocketAddrV4::new(THERE, PORT)).is_err(), "there is a bound");
    net.until(Duration::from_millis(100), |_| false);
    assert_eq!(net.cores[B].count(), BACKLOG);
    calls.into_iter().for_each(|id| net.cores[A].release(id));
    net.loss = 1000;
    net.until(LONG, |_| false);
    net.cores[B].deafen(PORT);
    net.assert_nothing_is_left();
}

#[test]
fn a_port_that_is_closed_resets_whom_nobody_accepted() {
    let mut net = Net::new();
    let id = net.cores[A].connect(SocketAddrV4::new(THERE, PORT)).expect("a free port");
    assert!(net.until(LONG, |cores| cores[A].socket(id).expect("held").state() == State::Established));
    net.cores[B].deafen(PORT);
    assert!(net.until(LONG, |cores| cores[A].socket(id).expect("held").state() == State::Closed));
    net.cores[A].release(id);
    net.assert_nothing_is_left();
}

#[test]
fn a_quiet_connection_costs_a_few_packets_and_no_more_turns() {
    let mut net = Net::new();
    let _pair = net.connect();
    let (before, mut turns) = (net.sent, 0);
    net.until(Duration::from_secs(60), |_| {
        turns += 1;
        false
    });
    assert!(net.sent - before <= 60, "{} packets", net.sent - before);
    assert!(turns <= 200, "{turns} turns");
}
