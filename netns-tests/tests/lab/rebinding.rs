//! A NAT that is restarted moves its mappings. Not here: what `mesh` does then.

use std::net::SocketAddr;

use netns_tests::lab::{Nat, mapped_addr};

use crate::common::{FULL_TTL, lab_with_server, mapped_socket, mappings, receive, runner, send, server_socket};

const PORT: u16 = 40_000;

#[test]
fn a_rebound_nat_gives_an_old_flow_a_new_port() {
    let (lab, _server) = lab_with_server("rebind");
    let [stun, _] = lab.stun_servers().expect("coturn answers");
    let kinds = Nat::MATRIX.into_iter().filter(|nat| !matches!(nat, Nat::Masq | Nat::Block)).chain([Nat::TwoEgress]);
    for nat in kinds {
        let runner = runner(&lab, &nat.name().replace('_', "-"), nat);
        let (socket, before) = mapped_socket(&lab, &runner, PORT);

        runner.rebind().expect("this kind can be rebound");

        let after = mapped_addr(&socket, stun).expect("coturn answers");
        assert_ne!(after.port(), before.port(), "{nat:?}");
        assert_eq!(after.ip(), before.ip(), "{nat:?}");
    }
}

#[test]
fn azure_hands_out_ports_of_another_block_after_rebinding_and_of_the_first_after_another() {
    let (lab, _server) = lab_with_server("rebind-azure");
    let runner = runner(&lab, "runner", Nat::Azure);
    let (socket, _) = mapped_socket(&lab, &runner, PORT);
    let [stun, _] = lab.stun_servers().expect("coturn answers");

    for block in [3000..=3999, 1024..=1999] {
        runner.rebind().expect("an azure NAT can be rebound");

        let after = mapped_addr(&socket, stun).expect("coturn answers");
        assert!(block.contains(&after.port()), "{after} is within {block:?}");
    }
}

#[test]
fn a_rebound_cone_still_has_one_port_for_all_and_lets_strangers_in_there_alone() {
    let (lab, server) = lab_with_server("rebind-cone");
    let runner = runner(&lab, "runner", Nat::EimEif);
    let (inside, before) = mapped_socket(&lab, &runner, PORT);
    let stranger = server_socket(&server, (server.addr(), 7000).into());

    runner.rebind().expect("a cone can be rebound");

    let seen = mappings(&lab, &inside);
    let after = seen[0];
    assert_eq!(seen, [after; 4]);
    send(&stranger, before, "to where it was", FULL_TTL);
    send(&stranger, after, "to where it is", FULL_TTL);
    assert_eq!(receive(&inside), ("to where it is".to_owned(), SocketAddr::from((server.addr(), 7000))));
}

#[test]
fn a_nat_that_keeps_the_port_or_maps_nothing_cannot_be_rebound() {
    let (lab, _server) = lab_with_server("no-rebind");
    for (nat, reason) in [(Nat::Masq, "keeps the port"), (Nat::Block, "maps no UDP"), (Nat::None, "has no NAT")] {
        let error = runner(&lab, nat.name(), nat).rebind().expect_err("nothing would move");

        assert!(format!("{error:#}").contains(reason), "{error:#}");
    }
}
