//! The STUN server answers runners on two addresses. Not here: what NATs make of it ([`crate::nat`]).

use std::net::SocketAddr;

use netns_tests::lab::{Nat, binding};

use crate::common::{lab_with_server, recv_from, runner, socket};

#[test]
fn both_addresses_answer() {
    let (lab, _server) = lab_with_server("stun");
    let host = runner(&lab, "host", Nat::None);
    let socket = socket(&host, 42_000);

    let servers = lab.stun_servers().expect("coturn answers");

    for server in servers {
        let reply = binding(&socket, server).expect("this address answers");
        assert_eq!(reply.mapped, SocketAddr::from((host.public_addr(), 42_000)), "asked {server}");
    }
    assert_ne!(servers[0].ip(), servers[1].ip());
}

/// What a filtering test needs (RFC 5780, section 4.4).
#[test]
fn a_change_request_to_the_first_address_is_answered_by_the_second_and_its_other_port() {
    let (lab, _server) = lab_with_server("stun-change");
    let socket = socket(&runner(&lab, "host", Nat::None), 42_000);
    let [first, second] = lab.stun_servers().expect("coturn answers");
    let other = SocketAddr::new(second.ip(), 3479);
    assert_eq!(binding(&socket, first).expect("coturn answers").other, Some(other));

    socket.send_to(&CHANGE_REQUEST, first).expect("a packet can be sent");

    let (_, from) = recv_from(&socket, &mut [0; 1500]).expect("coturn answers");
    assert_eq!(from, other);
}

#[test]
fn asking_twice_gives_the_same_servers() {
    let (lab, _server) = lab_with_server("stun-twice");

    let first = lab.stun_servers().expect("coturn answers");

    assert_eq!(lab.stun_servers().expect("coturn answers"), first);
}

/// A Binding request with CHANGE-REQUEST, both "change IP" and "change port" (RFC 5780, section 7.2).
#[rustfmt::skip]
const CHANGE_REQUEST: [u8; 28] = [
    0x00, 0x01, 0x00, 0x08, 0x21, 0x12, 0xA4, 0x42, // Binding request, 8 bytes of attributes, magic cookie
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,          // transaction id
    0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x00, 0x06, // CHANGE-REQUEST
];
