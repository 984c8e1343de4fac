//! Each kind of NAT lets in whom its name says (RFC 4787, section 5). Not here: how it maps ([`crate::mapping`]).

use netns_tests::lab::Nat;

use crate::common::{FULL_TTL, lab_with_server, receive, runner, send, server_socket, socket};

const PORT: u16 = 40_000;
const OTHER_PORT: &str = "another port of the same address";
const OTHER_ADDR: &str = "another address";
const ANSWER: &str = "the address and port that was spoken to";

/// What comes from the same server takes the same way, so if the last packet that was sent has arrived, those missing were filtered.
#[test]
fn each_kind_lets_in_whom_its_name_says() {
    let (lab, server) = lab_with_server("filtering");
    let [addr, other_addr] = server.addrs();
    let known = server_socket(&server, (addr, 7000).into());
    let other_port = server_socket(&server, (addr, 7001).into());
    let other_addr = server_socket(&server, (other_addr, 7000).into());
    for nat in Nat::MATRIX.into_iter().filter(|nat| *nat != Nat::Block) {
        let runner = runner(&lab, &nat.name().replace('_', "-"), nat);
        let inside = socket(&runner, PORT);
        send(&inside, (addr, 7000).into(), "hello", FULL_TTL);
        let (_, mapped) = receive(&known);

        send(&other_port, mapped, OTHER_PORT, FULL_TTL);
        send(&other_addr, mapped, OTHER_ADDR, FULL_TTL);
        send(&known, mapped, ANSWER, FULL_TTL);

        let heard: Vec<_> = allowed(nat).iter().map(|_| receive(&inside).0).collect();
        assert_eq!(heard, allowed(nat), "{nat:?}");
    }
}

/// In the order in which they speak.
fn allowed(nat: Nat) -> &'static [&'static str] {
    match nat {
        Nat::EimEif => &[OTHER_PORT, OTHER_ADDR, ANSWER],
        Nat::EimAdf => &[OTHER_PORT, ANSWER],
        _ => &[ANSWER],
    }
}

#[test]
fn a_strangers_packet_binds_no_port_of_a_nat_with_a_table_of_its_own() {
    let (lab, server) = lab_with_server("no-trace");
    let stranger = server_socket(&server, (server.addr(), 7000).into());
    for nat in [Nat::Masq, Nat::EimEif, Nat::EimAdf, Nat::EimApdf] {
        let runner = runner(&lab, &nat.name().replace('_', "-"), nat);
        let (inside, mapped) = crate::common::mapped_socket(&lab, &runner, PORT);
        let last = std::net::SocketAddr::new(mapped.ip(), 60_000);
        send(&stranger, mapped, "too early", FULL_TTL);
        send(&stranger, last, "leaves a trace anywhere", FULL_TTL);
        crate::pair::wait_for_flow(&runner, last.port(), (server.addr(), 7000).into());

        send(&inside, (server.addr(), 7000).into(), "hello", FULL_TTL);

        assert_eq!(receive(&stranger).1 == mapped, nat.keeps_a_table(), "{nat:?} keeps {mapped}");
    }
}
