//! A NAT with two public addresses, of which each destination sees one. Not here: kinds that have one ([`crate::mapping`]).

use std::collections::BTreeSet;
use std::net::IpAddr;

use netns_tests::lab::Nat;

use crate::common::{FULL_TTL, lab_with_server, mappings, receive, runner, send, server_socket, socket};
use crate::punch::{End, outcomes};

const PORT: u16 = 40_000;

#[test]
fn one_socket_leaves_by_two_addresses_depending_on_address_and_port_spoken_to() {
    let (lab, _server) = lab_with_server("egress");
    let runner = runner(&lab, "runner", Nat::TwoEgress);
    let [one, two] = runner.public_addrs()[..] else { panic!("two public addresses") };
    let socket = socket(&runner, PORT);

    let seen = mappings(&lab, &socket);

    // The server's addresses end in 10 and 11, its ports in 8 and 9.
    assert_eq!(seen.map(|addr| addr.ip()), [one, two, two, one].map(IpAddr::from));
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), 2, "one port for each: {seen:?}");
    assert!(seen.iter().all(|addr| (1024..=1999).contains(&addr.port())), "{seen:?}");
    assert_eq!(mappings(&lab, &socket), seen, "asked again");
}

#[test]
fn answers_come_in_by_both_addresses() {
    let (lab, server) = lab_with_server("egress-answers");
    let runner = runner(&lab, "runner", Nat::TwoEgress);
    let inside = socket(&runner, PORT);
    let mut used = BTreeSet::new();
    for port in [7000, 7001] {
        let there = server_socket(&server, (server.addr(), port).into());

        send(&inside, (server.addr(), port).into(), "hello", FULL_TTL);
        let (_, mapped) = receive(&there);
        send(&there, mapped, "answer", FULL_TTL);

        assert_eq!(receive(&inside), ("answer".to_owned(), (server.addr(), port).into()));
        used.insert(mapped.ip());
    }
    assert_eq!(used, runner.public_addrs().into_iter().map(IpAddr::from).collect());
}

/// STUN has told the first address. What comes from the second is let in by those alone who let in everybody.
#[test]
fn a_pair_comes_together_where_the_address_that_was_told_is_the_one_that_speaks() {
    let (lab, _server) = lab_with_server("egress-pairs");
    let [stun, _] = lab.stun_servers().expect("coturn answers");
    let two = runner(&lab, "two", Nat::TwoEgress);
    let peers = [Nat::EimEif, Nat::EimAdf, Nat::EimApdf].map(|nat| runner(&lab, &nat.name().replace('_', "-"), nat));
    let mut ports = PORT..;
    let mut pair = |peer, port| {
        let own_port = ports.next().expect("ports enough");
        (End::new(&two, own_port, Some(stun)), End::new(peer, port, Some(stun)))
    };

    // The peers' addresses are even, and their NATs keep the port.
    let told: Vec<_> = peers.iter().map(|peer| pair(peer, 41_000)).collect();
    let other: Vec<_> = peers.iter().map(|peer| pair(peer, 41_001)).collect();
    let of = |pairs: &[(End, End)]| outcomes(&pairs.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());

    assert_eq!(of(&told), ["both", "both", "both"]);
    assert_eq!(of(&other), ["both", "none", "none"]);
}
