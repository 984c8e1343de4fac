//! Two runners who try to reach each other with bare sockets. Not here: what comes of it.

use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;

use netns_tests::lab::{Access, Lab, Nat, Runner, wait_until};

use crate::common::{FULL_TTL, LOW_TTL, SOON, drain, lab_with_server, mapped_socket, recv_from, runner_with, send};

const ROUNDS: usize = 5;
const UNUSED_PORT: u16 = 60_000;
const FROM_A: &str = "from a";
const FROM_B: &str = "from b";

/// Two runners who know each other's mapped address and have not spoken yet.
pub(crate) struct Pair {
    pub(crate) a: UdpSocket,
    pub(crate) b: UdpSocket,
    pub(crate) a_addr: SocketAddr,
    pub(crate) b_addr: SocketAddr,
    pub(crate) runner_a: Runner,
    pub(crate) runner_b: Runner,
    pub(crate) lab: Rc<Lab>,
}

impl Pair {
    /// Each behind a NAT of its own.
    pub(crate) fn new(name: &str, nat_a: Nat, nat_b: Nat) -> Self {
        Self::with(name, Access::behind(nat_a), Access::behind(nat_b))
    }

    pub(crate) fn with(name: &str, access_a: Access, access_b: Access) -> Self {
        let lab = Rc::new(lab_with_server(name).0);
        let (runner_a, runner_b) = (runner_with(&lab, "a", access_a), runner_with(&lab, "b", access_b));
        Self::between(&lab, &runner_a, &runner_b, 50_000)
    }

    /// Every one of these with every one of those, in one lab. No two pairs have a port in common.
    pub(crate) fn all(name: &str, accesses_a: &[Access], accesses_b: &[Access]) -> Vec<Self> {
        let lab = Rc::new(lab_with_server(name).0);
        let add = |side: &str, accesses: &[Access]| -> Vec<_> {
            let named =
                accesses.iter().enumerate().map(|(n, access)| runner_with(&lab, &format!("{side}{n}"), *access));
            named.collect()
        };
        let (these, those) = (add("a", accesses_a), add("b", accesses_b));
        let each = these.iter().flat_map(|a| those.iter().map(move |b| (a, b)));
        each.zip((50_000..).step_by(2)).map(|((a, b), port)| Self::between(&lab, a, b, port)).collect()
    }

    fn between(lab: &Rc<Lab>, runner_a: &Runner, runner_b: &Runner, port: u16) -> Self {
        let (a, a_addr) = mapped_socket(lab, runner_a, port);
        let (b, b_addr) = mapped_socket(lab, runner_b, port + 1);
        let (runner_a, runner_b) = (runner_a.clone(), runner_b.clone());
        Self { a, b, a_addr, b_addr, runner_a, runner_b, lab: Rc::clone(lab) }
    }

    /// Which kinds of NAT these are, for messages.
    pub(crate) fn kinds(&self) -> String {
        format!("{:?} to {:?}", self.runner_a.nat(), self.runner_b.nat())
    }

    pub(crate) fn open_a(&self) {
        send(&self.a, self.b_addr, "opens", LOW_TTL);
        wait_for_flow(&self.runner_a, self.a_addr.port(), self.b_addr);
    }

    pub(crate) fn open_b(&self) {
        send(&self.b, self.a_addr, "opens", LOW_TTL);
        wait_for_flow(&self.runner_b, self.b_addr.port(), self.a_addr);
    }

    /// A sends at full TTL before B has opened; returns when B's NAT has kept the null binding.
    pub(crate) fn clash(&self) {
        send(&self.a, self.b_addr, "too early", FULL_TTL);
        wait_for_flow(&self.runner_b, self.b_addr.port(), self.a_addr);
    }

    /// Waits for all that A has sent to reach B's NAT. A last packet to an unused port takes the same way and does leave a trace there.
    pub(crate) fn wait_until_arrived(&self) {
        send(&self.a, SocketAddr::new(self.b_addr.ip(), UNUSED_PORT), "last", FULL_TTL);
        wait_for_flow(&self.runner_b, UNUSED_PORT, self.a_addr);
    }

    /// Both send in turn at full TTL, B first.
    fn exchange(&self) {
        for _ in 0..ROUNDS {
            send(&self.b, self.a_addr, FROM_B, FULL_TTL);
            send(&self.a, self.b_addr, FROM_A, FULL_TTL);
        }
    }

    /// Fails unless every packet of an exchange arrives.
    pub(crate) fn is_connected(&self) {
        self.exchange();
        (0..ROUNDS).for_each(|_| self.await_text(&self.a, FROM_B));
        (0..ROUNDS).for_each(|_| self.await_text(&self.b, FROM_A));
    }

    /// Fails if any packet of an exchange arrives.
    pub(crate) fn is_dead(&self) {
        self.exchange();
        assert_eq!((drain(&self.a), drain(&self.b)), (Vec::new(), Vec::new()));
    }

    /// Takes packets up to the next one with this text.
    fn await_text(&self, socket: &UdpSocket, text: &str) {
        let mut buffer = [0; 1500];
        let mut next = || recv_from(socket, &mut buffer).map(|(len, _)| buffer[..len] == *text.as_bytes());
        while !next().unwrap_or_else(|error| panic!("{}: no packet {text}: {error}", self.kinds())) {}
    }
}

/// Waits until the runner's outermost NAT knows a flow between this outside port of its own and this peer.
pub(crate) fn wait_for_flow(runner: &Runner, port: u16, peer: SocketAddr) {
    let parts = [format!("={} ", peer.ip()), format!("={} ", peer.port()), format!("={port} ")];
    let known = |flows: String| flows.lines().any(|flow| parts.iter().all(|part| flow.contains(part)));
    wait_until(SOON, "the flow at the NAT", || {
        known(runner.outermost_flows().expect("conntrack lists flows")).then_some(())
    })
    .expect("the packet reached the NAT");
}
