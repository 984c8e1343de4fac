//! What is the same behind every kind of NAT, and behind none. Not here: how each maps ([`crate::mapping`]) and filters ([`crate::filtering`]).

use std::collections::BTreeSet;
use std::time::Duration;

use netns_tests::lab::{Nat, Runner, wait_until};

use crate::common::{
    FULL_TTL, SOON, drain, lab_with_server, mapped_socket, receive, runner, send, server_socket, socket,
};

const PORT: u16 = 40_000;

#[test]
fn a_host_without_a_nat_is_reached_by_strangers() {
    let (lab, server) = lab_with_server("public");
    let host = runner(&lab, "host", Nat::None);
    let socket = socket(&host, PORT);
    let stranger = server.udp_socket(7000).expect("the port is free");

    send(&stranger, (host.public_addr(), PORT).into(), "hello", FULL_TTL);

    assert_eq!(receive(&socket), ("hello".to_owned(), (server.addr(), 7000).into()));
    assert_eq!(host.lan_addr(), host.public_addr());
}

#[test]
fn a_mapping_is_forgotten_after_the_timeout_that_was_set() {
    let (lab, server) = lab_with_server("timeout");
    let runner = runner(&lab, "runner", Nat::Azure);
    runner.set_udp_timeouts(Duration::from_secs(1), Duration::from_secs(2)).expect("there is a NAT");
    let socket = socket(&runner, PORT);

    send(&socket, (server.addr(), 7000).into(), "once", FULL_TTL);

    let mapped = || has_flow(&runner, "dport=7000");
    wait_until(SOON, "the flow to be known", || mapped().then_some(())).expect("the NAT made a mapping");
    wait_until(SOON, "the flow to be forgotten", || (!mapped()).then_some(())).expect("the mapping expired");
}

/// Each stranger is a new one, so that none comes in by a flow of its own.
#[test]
fn an_open_nat_lets_nobody_in_after_the_timeout_that_was_set() {
    let (lab, server) = lab_with_server("timeout-open");
    let runner = runner(&lab, "runner", Nat::EimEif);
    runner.set_udp_timeouts(Duration::from_secs(1), Duration::from_secs(2)).expect("there is a NAT");
    let (inside, mapped) = mapped_socket(&lab, &runner, PORT);
    let mut strangers = (7000..).map(|port| server_socket(&server, (server.addr(), port).into()));
    let mut stranger_is_let_in = || {
        send(&strangers.next().expect("ports enough"), mapped, "stranger", FULL_TTL);
        !drain(&inside).is_empty()
    };

    assert!(stranger_is_let_in());
    wait_until(SOON, "the mapping to be forgotten", || (!stranger_is_let_in()).then_some(())).expect("it expired");
}

#[test]
fn blocked_udp_passes_neither_way_until_it_is_allowed_again() {
    let (lab, server) = lab_with_server("blocked");
    let host = runner(&lab, "host", Nat::None);
    let (inside, outside) = (socket(&host, PORT), server_socket(&server, (server.addr(), 7000).into()));
    let (to_inside, to_outside) = ((host.public_addr(), PORT).into(), (server.addr(), 7000).into());

    host.block_udp(true).expect("UDP can be blocked");
    send(&inside, to_outside, "lost", FULL_TTL);
    send(&outside, to_inside, "lost", FULL_TTL);
    assert_eq!((drain(&inside), drain(&outside)), (vec![], vec![]), "nothing passes");

    host.block_udp(false).expect("UDP can be allowed");
    send(&inside, to_outside, "out", FULL_TTL);
    send(&outside, to_inside, "in", FULL_TTL);
    assert_eq!((receive(&inside).0, receive(&outside).0), ("in".to_owned(), "out".to_owned()));
}

#[test]
fn a_host_that_is_cut_from_another_reaches_everybody_else_until_it_is_let_through_again() {
    let (lab, server) = lab_with_server("cut");
    let hosts = ["one", "two", "three"].map(|name| runner(&lab, name, Nat::None));
    let [one, two, three] = hosts.each_ref().map(|host| socket(host, PORT));
    let addrs = hosts.each_ref().map(|host| (host.public_addr(), PORT).into());
    let world = server_socket(&server, (server.addr(), 7000).into());

    hosts[0].cut_from(&hosts[1], true).expect("a way can be cut");
    hosts[0].cut_from(&hosts[2], true).expect("and another");
    hosts[0].cut_from(&hosts[2], false).expect("and opened again");
    send(&one, addrs[1], "lost", FULL_TTL);
    send(&two, addrs[0], "lost", FULL_TTL);
    send(&one, (server.addr(), 7000).into(), "to the world", FULL_TTL);
    send(&one, addrs[2], "to three", FULL_TTL);
    send(&two, addrs[2], "from two", FULL_TTL);
    assert_eq!((drain(&one), drain(&two), receive(&world).0), (vec![], vec![], "to the world".to_owned()));
    assert_eq!(
        BTreeSet::from([receive(&three).0, receive(&three).0]),
        ["to three", "from two"].map(String::from).into()
    );

    hosts[0].cut_from(&hosts[1], false).expect("a way can be opened again");
    send(&one, addrs[1], "there", FULL_TTL);
    send(&two, addrs[0], "back", FULL_TTL);
    assert_eq!((receive(&one).0, receive(&two).0), ("back".to_owned(), "there".to_owned()));
    hosts[0].cut_from(&hosts[0], true).expect_err("nothing lies between");
}

#[test]
fn the_kinds_of_the_matrix_have_names_of_their_own() {
    let names: BTreeSet<_> = Nat::MATRIX.iter().map(|nat| nat.name()).collect();

    assert_eq!(names.len(), Nat::MATRIX.len());
    assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')), "{names:?}");
}

fn has_flow(runner: &Runner, what: &str) -> bool {
    runner.nat_flows().expect("conntrack lists flows").contains(what)
}
