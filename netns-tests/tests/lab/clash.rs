//! The null binding: a packet that reaches a NAT before its inside host has opened kills the pair, and low TTL first does not.
//! If these fail, the lab can no longer show that `mesh` opens in the right order. Not here: `mesh` doing so.

use std::net::{SocketAddr, UdpSocket};

use netns_tests::lab::{Lab, Nat, Runner, wait_until};

use crate::common::{FULL_TTL, LOW_TTL, SOON, drain, lab_with_server, mapped_socket, receive, runner, send};

const ROUNDS: usize = 5;
const UNUSED_PORT: u16 = 60_000;
const FROM_A: &str = "from a";
const FROM_B: &str = "from b";

#[test]
fn full_ttl_first_kills_azure_to_masq() {
    full_ttl_first_kills(Nat::Azure, Nat::Masq);
}

#[test]
fn full_ttl_first_kills_masq_to_azure() {
    full_ttl_first_kills(Nat::Masq, Nat::Azure);
}

#[test]
fn full_ttl_first_kills_azure_to_azure() {
    full_ttl_first_kills(Nat::Azure, Nat::Azure);
}

#[test]
fn full_ttl_first_kills_masq_to_masq() {
    full_ttl_first_kills(Nat::Masq, Nat::Masq);
}

#[test]
fn full_ttl_first_does_no_harm_to_eim_apdf() {
    for nat in [Nat::Azure, Nat::Masq, Nat::EimApdf] {
        let pair = Pair::new("harmless", nat, Nat::EimApdf);

        send(&pair.a, pair.b_addr, "too early", FULL_TTL);
        pair.wait_until_arrived();

        pair.is_connected();
    }
}

#[test]
fn low_ttl_first_connects_every_pair() {
    for (nat_a, nat_b) in pairs() {
        let pair = Pair::new("low-ttl", nat_a, nat_b);

        pair.open_a();
        pair.open_b();

        pair.is_connected();
    }
}

#[test]
fn the_very_first_full_ttl_packet_arrives_at_a_peer_that_has_opened() {
    for (nat_a, nat_b) in pairs() {
        let pair = Pair::new("ordered", nat_a, nat_b);

        pair.open_b();
        send(&pair.a, pair.b_addr, "first", FULL_TTL);

        assert_eq!(receive(&pair.b), ("first".to_owned(), pair.a_addr), "{nat_a:?} to {nat_b:?}");
    }
}

#[test]
fn a_fresh_port_and_low_ttl_first_heal_a_clashed_pair() {
    let mut pair = Pair::new("heal", Nat::Azure, Nat::Masq);
    pair.clash();
    pair.is_dead();

    (pair.b, pair.b_addr) = mapped_socket(&pair.lab, &pair.runner_b, 50_002);
    pair.open_a();
    pair.open_b();

    pair.is_connected();
}

fn full_ttl_first_kills(nat_a: Nat, nat_b: Nat) {
    let pair = Pair::new("clash", nat_a, nat_b);

    pair.clash();

    pair.is_dead();
}

fn pairs() -> impl Iterator<Item = (Nat, Nat)> {
    let kinds = [Nat::Masq, Nat::Azure, Nat::EimApdf];
    kinds.into_iter().flat_map(move |a| kinds.map(|b| (a, b)))
}

/// Two runners who know each other's mapped address and have not spoken yet.
struct Pair {
    a: UdpSocket,
    b: UdpSocket,
    a_addr: SocketAddr,
    b_addr: SocketAddr,
    runner_a: Runner,
    runner_b: Runner,
    lab: Lab,
}

impl Pair {
    fn new(name: &str, nat_a: Nat, nat_b: Nat) -> Self {
        let (lab, _server) = lab_with_server(name);
        let (runner_a, runner_b) = (runner(&lab, "a", nat_a), runner(&lab, "b", nat_b));
        let (a, a_addr) = mapped_socket(&lab, &runner_a, 50_000);
        let (b, b_addr) = mapped_socket(&lab, &runner_b, 50_001);
        Self { a, b, a_addr, b_addr, runner_a, runner_b, lab }
    }

    fn open_a(&self) {
        send(&self.a, self.b_addr, "opens", LOW_TTL);
        wait_for_flow(&self.runner_a, self.a_addr.port(), self.b_addr);
    }

    fn open_b(&self) {
        send(&self.b, self.a_addr, "opens", LOW_TTL);
        wait_for_flow(&self.runner_b, self.b_addr.port(), self.a_addr);
    }

    /// A sends at full TTL before B has opened; returns when B's NAT has kept the null binding.
    fn clash(&self) {
        send(&self.a, self.b_addr, "too early", FULL_TTL);
        wait_for_flow(&self.runner_b, self.b_addr.port(), self.a_addr);
    }

    /// Waits for all that A has sent to reach B's NAT. A last packet to an unused port takes the same way and does leave a trace there.
    fn wait_until_arrived(&self) {
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
    fn is_connected(&self) {
        self.exchange();
        (0..ROUNDS).for_each(|_| self.await_text(&self.a, FROM_B));
        (0..ROUNDS).for_each(|_| self.await_text(&self.b, FROM_A));
    }

    /// Fails if any packet of an exchange arrives.
    fn is_dead(&self) {
        self.exchange();
        assert_eq!((drain(&self.a), drain(&self.b)), (Vec::new(), Vec::new()));
    }

    /// Takes packets up to the next one with this text.
    fn await_text(&self, socket: &UdpSocket, text: &str) {
        let mut buffer = [0; 1500];
        let mut next = || socket.recv(&mut buffer).map(|len| buffer[..len] == *text.as_bytes());
        let (nat_a, nat_b) = (self.runner_a.nat(), self.runner_b.nat());
        while !next().unwrap_or_else(|error| panic!("{nat_a:?} and {nat_b:?}: no packet {text}: {error}")) {}
    }
}

/// Waits until the runner's NAT knows a flow between this outside port of its own and this peer.
fn wait_for_flow(runner: &Runner, port: u16, peer: SocketAddr) {
    let parts = [format!("={} ", peer.ip()), format!("={} ", peer.port()), format!("={port} ")];
    let known = |flows: String| flows.lines().any(|flow| parts.iter().all(|part| flow.contains(part)));
    wait_until(SOON, "the flow at the NAT", || known(runner.nat_flows().expect("conntrack lists flows")).then_some(()))
        .expect("the packet reached the NAT");
}
