//! Bare sockets that open with a low TTL and then send at full TTL, to whom they know and to whom they hear. Not here: between which NATs.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use netns_tests::lab::{Runner, mapped_addr, wait_until};

use crate::common::{FULL_TTL, LOW_TTL, SOON, recv_from, send, socket};

const ROUNDS: usize = 4;
const HELLO: &[u8] = b"hello";

/// How long a side listens between two packets of its own.
const LISTEN: Duration = Duration::from_millis(100);

/// One socket of a runner, which one socket of another will speak to.
pub(crate) struct End {
    runner: Runner,
    socket: UdpSocket,
    /// What STUN told, or what it might have told.
    addr: SocketAddr,
    has_answer: bool,
}

impl End {
    /// Without an answer of `stun`, or without asking one, the address is guessed.
    pub(crate) fn new(runner: &Runner, port: u16, stun: Option<SocketAddr>) -> Self {
        let socket = socket(runner, port);
        let answer = stun.and_then(|stun| mapped_addr(&socket, stun).ok());
        socket.set_read_timeout(Some(LISTEN)).expect("a timeout can be set");
        let addr = answer.unwrap_or((runner.public_addr(), port).into());
        Self { runner: runner.clone(), socket, addr, has_answer: answer.is_some() }
    }

    pub(crate) fn has_answer(&self) -> bool {
        self.has_answer
    }

    fn open(&self, peer: &Self) {
        send(&self.socket, peer.addr, "opens", LOW_TTL);
        self.socket.set_ttl(FULL_TTL).expect("a TTL can be set");
    }

    fn wait_until_open(&self, peer: &Self) {
        let port = self.socket.local_addr().expect("a bound socket").port();
        let flow = format!("dst={} sport={port} dport={} ", peer.addr.ip(), peer.addr.port());
        let known = || self.runner.nat_flows().expect("conntrack lists flows").contains(&flow);
        let open = || (!self.has_answer || known()).then_some(());
        wait_until(SOON, "the flow at the NAT", open).expect("the packet reached the NAT");
    }

    fn send_to_all(&self, peers: &[SocketAddr]) {
        for peer in peers {
            self.socket.send_to(HELLO, peer).expect("a packet can be sent");
        }
    }

    /// Who says hello, which a STUN server that was asked twice does not, until nobody is heard for [`LISTEN`].
    fn listen(&self) -> Vec<SocketAddr> {
        let mut buffer = [0; 1500];
        let next = || {
            let (len, from) = recv_from(&self.socket, &mut buffer).ok()?;
            Some((from, buffer[..len] == *HELLO))
        };
        std::iter::from_fn(next).filter(|(_, is_hello)| *is_hello).map(|(from, _)| from).collect()
    }
}

/// What comes of all pairs at once. `both`: packets arrive both ways. `none`: neither. `A`, `B`: at that side alone. `blocked`: neither, and one
/// side has no answer of STUN.
pub(crate) fn outcomes(pairs: &[(&End, &End)]) -> Vec<&'static str> {
    for (a, b) in pairs {
        a.open(b);
        b.open(a);
    }
    for (a, b) in pairs {
        a.wait_until_open(b);
        b.wait_until_open(a);
    }
    thread::scope(|scope| {
        let tries: Vec<_> = pairs.iter().map(|(a, b)| scope.spawn(|| outcome(a, b))).collect();
        tries.into_iter().map(|one| one.join().expect("a pair does not panic")).collect()
    })
}

fn outcome(a: &End, b: &End) -> &'static str {
    let (mut known_to_a, mut known_to_b) = (vec![b.addr], vec![a.addr]);
    let (mut a_heard, mut b_heard) = (false, false);
    for _ in 0..ROUNDS {
        a.send_to_all(&known_to_a);
        b.send_to_all(&known_to_b);
        a_heard |= learn(&mut known_to_a, a.listen());
        b_heard |= learn(&mut known_to_b, b.listen());
    }
    match (a_heard, b_heard) {
        (false, false) if !a.has_answer || !b.has_answer => "blocked",
        (false, false) => "none",
        (true, false) => "A",
        (false, true) => "B",
        (true, true) => "both",
    }
}

/// Whether anybody was heard.
fn learn(known: &mut Vec<SocketAddr>, heard: Vec<SocketAddr>) -> bool {
    let any = !heard.is_empty();
    for addr in heard {
        if !known.contains(&addr) {
            known.push(addr);
        }
    }
    any
}
