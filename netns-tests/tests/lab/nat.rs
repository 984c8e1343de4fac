//! Each kind of NAT maps and filters as its name says (RFC 4787). Not here: what two of them do to each other ([`crate::clash`]).

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use netns_tests::lab::{Nat, Runner, mapped_addr, wait_until};

use crate::common::{
    FULL_TTL, SILENCE, SOON, lab_with_server, mapped_socket, receive, runner, send, server_socket, socket,
};

const PORT: u16 = 40_000;
const KEPT: RangeInclusive<u16> = PORT..=PORT;
const AZURE: RangeInclusive<u16> = 1024..=1999;

#[test]
fn masq_maps_independently_of_the_endpoint_and_keeps_the_port() {
    mapping_is_endpoint_independent(Nat::Masq, &KEPT);
}

#[test]
fn azure_maps_independently_of_the_endpoint_into_its_own_block_of_ports() {
    mapping_is_endpoint_independent(Nat::Azure, &AZURE);
}

#[test]
fn eim_apdf_maps_independently_of_the_endpoint_and_keeps_the_port() {
    mapping_is_endpoint_independent(Nat::EimApdf, &KEPT);
}

#[test]
fn masq_lets_in_only_the_address_and_port_that_was_spoken_to() {
    filtering_depends_on_address_and_port(Nat::Masq);
}

#[test]
fn azure_lets_in_only_the_address_and_port_that_was_spoken_to() {
    filtering_depends_on_address_and_port(Nat::Azure);
}

#[test]
fn eim_apdf_lets_in_only_the_address_and_port_that_was_spoken_to() {
    filtering_depends_on_address_and_port(Nat::EimApdf);
}

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
fn a_rebound_azure_nat_gives_an_old_flow_a_new_port() {
    let (lab, _server) = lab_with_server("rebind");
    let runner = runner(&lab, "runner", Nat::Azure);
    let (socket, before) = mapped_socket(&lab, &runner, PORT);
    let [stun, _] = lab.stun_servers().expect("coturn answers");

    runner.rebind().expect("an azure NAT can be rebound");

    let after = mapped_addr(&socket, stun).expect("coturn answers");
    assert!(AZURE.contains(&before.port()), "{before} is in the first block");
    assert!((3000..=3999).contains(&after.port()), "{after} is in the second block");
}

#[test]
fn only_an_azure_nat_can_be_rebound() {
    let (lab, _server) = lab_with_server("no-rebind");
    let runner = runner(&lab, "runner", Nat::Masq);

    let error = runner.rebind().expect_err("masquerade keeps the port");

    assert!(error.to_string().contains("cannot rebind"), "{error}");
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

#[test]
fn blocked_udp_passes_neither_way_until_it_is_allowed_again() {
    let (lab, server) = lab_with_server("blocked");
    let host = runner(&lab, "host", Nat::None);
    let (inside, outside) = (socket(&host, PORT), server_socket(&server, (server.addr(), 7000).into()));
    let (to_inside, to_outside) = ((host.public_addr(), PORT).into(), (server.addr(), 7000).into());

    host.block_udp(true).expect("UDP can be blocked");
    send(&inside, to_outside, "lost", FULL_TTL);
    send(&outside, to_inside, "lost", FULL_TTL);
    let refused = |socket: &std::net::UdpSocket| {
        socket.set_read_timeout(Some(SILENCE)).expect("a timeout can be set");
        socket.recv_from(&mut [0; 16]).is_err()
    };
    assert!(refused(&inside) && refused(&outside), "nothing passes");

    host.block_udp(false).expect("UDP can be allowed");
    send(&inside, to_outside, "out", FULL_TTL);
    send(&outside, to_inside, "in", FULL_TTL);
    assert_eq!((receive(&inside).0, receive(&outside).0), ("in".to_owned(), "out".to_owned()));
}

fn mapping_is_endpoint_independent(nat: Nat, ports: &RangeInclusive<u16>) {
    let (lab, server) = lab_with_server("mapping");
    let runner = runner(&lab, "runner", nat);
    let (socket, mapped) = mapped_socket(&lab, &runner, PORT);
    let [_, other_stun] = lab.stun_servers().expect("coturn answers");
    let other_port = SocketAddr::new(other_stun.ip(), 3479);
    let stranger = server_socket(&server, (server.addr(), 7000).into());

    send(&socket, (server.addr(), 7000).into(), "hello", FULL_TTL);

    assert_eq!(mapped_addr(&socket, other_stun).expect("coturn answers"), mapped);
    assert_eq!(mapped_addr(&socket, other_port).expect("coturn answers"), mapped);
    assert_eq!(receive(&stranger).1, mapped);
    assert_eq!(mapped.ip(), runner.public_addr());
    assert!(ports.contains(&mapped.port()), "{mapped} is within {ports:?}");
}

/// What comes from the same server takes the same way, so if the last packet that was sent is the first that arrives, the others were filtered.
fn filtering_depends_on_address_and_port(nat: Nat) {
    let (lab, server) = lab_with_server("filtering");
    let runner = runner(&lab, "runner", nat);
    let (inside, mapped) = mapped_socket(&lab, &runner, PORT);
    let [addr, other_addr] = server.addrs();
    let known = server_socket(&server, (addr, 7000).into());
    let other_port = server_socket(&server, (addr, 7001).into());
    let other_addr = server_socket(&server, (other_addr, 7000).into());
    send(&inside, (addr, 7000).into(), "hello", FULL_TTL);
    assert_eq!(receive(&known).1, mapped);

    send(&other_port, mapped, "other port", FULL_TTL);
    send(&other_addr, mapped, "other address", FULL_TTL);
    send(&known, mapped, "answer", FULL_TTL);

    assert_eq!(receive(&inside), ("answer".to_owned(), (addr, 7000).into()));
}

fn has_flow(runner: &Runner, what: &str) -> bool {
    runner.nat_flows().expect("conntrack lists flows").contains(what)
}
