//! A runner behind its own NAT and a carrier's. Not here: what `mesh` makes of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use netns_tests::lab::{Access, Lab, Link, Nat, Runner, mapped_addr};

use crate::common::{
    FULL_TTL, LOW_TTL, drain, lab_with_server, mapped_socket, mappings, receive, runner, send, server_socket, socket,
};
use crate::pair::{Pair, wait_for_flow};

const PORT: u16 = 45_000;
const AZURE: std::ops::RangeInclusive<u16> = 1024..=1999;
const HOMES: [Nat; 3] = [Nat::Masq, Nat::EimApdf, Nat::Azure];

#[test]
fn two_nats_map_independently_of_the_endpoint_from_end_to_end() {
    let (lab, _server) = lab_with_server("carrier");
    for home in HOMES {
        let runner = behind_carrier(&lab, &home.name().replace('_', "-"), home);
        let seen = mappings(&lab, &socket(&runner, PORT));

        let mapped = seen[0];
        assert_eq!(seen, [mapped; 4], "{home:?}");
        assert_eq!(mapped.ip(), runner.public_addr(), "{home:?}");
        assert!(AZURE.contains(&mapped.port()), "{mapped} is of the carrier's block");
    }
}

#[test]
fn the_home_nat_has_a_shared_address_outside() {
    let (lab, server) = lab_with_server("carrier-shared");
    let runner = behind_carrier(&lab, "runner", Nat::Masq);
    let there = server_socket(&server, (server.addr(), 7000).into());

    send(&socket(&runner, PORT), (server.addr(), 7000).into(), "hello", FULL_TTL);
    let (_, mapped) = receive(&there);

    let (home, carrier) = (runner.nat_flows().expect("flows"), runner.outermost_flows().expect("flows"));
    assert!(home.contains("dst=100.64.0.2"), "{home}");
    assert!(carrier.contains("src=100.64.0.2") && carrier.contains(&format!("dst={}", mapped.ip())), "{carrier}");
}

#[test]
fn the_filtering_of_both_nats_holds() {
    let (lab, server) = lab_with_server("carrier-filter");
    let there = server_socket(&server, (server.addr(), 7000).into());
    let stranger = server_socket(&server, (server.addr(), 7001).into());
    for (home, carrier) in [(Nat::EimEif, Nat::EimApdf), (Nat::EimApdf, Nat::EimEif), (Nat::EimEif, Nat::EimEif)] {
        let name = format!("{}-{}", home.name(), carrier.name()).replace('_', "-");
        let runner = lab.runner_behind_carrier(&name, home, carrier, Link::default()).expect("a runner is added");
        let inside = socket(&runner, PORT);
        send(&inside, (server.addr(), 7000).into(), "hello", FULL_TTL);
        let (_, mapped) = receive(&there);

        send(&stranger, mapped, "stranger", FULL_TTL);
        send(&there, mapped, "answer", FULL_TTL);

        let both_open = home == carrier;
        let expected = if both_open { "stranger" } else { "answer" };
        assert_eq!(receive(&inside).0, expected, "{home:?} and {carrier:?}");
    }
}

#[test]
fn either_nat_moves_the_mapping_when_it_is_rebound() {
    let (lab, _server) = lab_with_server("carrier-rebind");
    let runner = behind_carrier(&lab, "runner", Nat::EimApdf);
    let [stun, _] = lab.stun_servers().expect("coturn answers");
    let (socket, before) = mapped_socket(&lab, &runner, PORT);

    runner.rebind_carrier().expect("an azure NAT can be rebound");
    let after = mapped_addr(&socket, stun).expect("coturn answers");
    runner.rebind().expect("a cone can be rebound");
    let last = mapped_addr(&socket, stun).expect("coturn answers");

    assert_eq!([before, after, last].into_iter().collect::<BTreeSet<_>>().len(), 3, "{before} {after} {last}");
}

/// An opening packet must pass all NATs of its own and die before the other's. How many TTLs do that is the window.
#[test]
fn there_are_ttls_that_pass_both_own_nats_and_die_before_the_peer_s() {
    let plain = Access::behind(Nat::Masq);
    let carried = Access::behind(Nat::Masq).carrier(Nat::Azure);
    let windows = [
        ("plain to plain", plain, plain, vec![2, 3, 4]),
        ("plain to carrier", plain, carried, vec![2, 3, 4]),
        ("carrier to plain", carried, plain, vec![3, 4, 5]),
        ("carrier to carrier", carried, carried, vec![3, 4, 5]),
    ];
    for (what, from, to, expected) in windows {
        let pair = Pair::with("window", from, to);

        assert_eq!(window(&pair), expected, "{what}");
        assert!(expected.contains(&LOW_TTL), "{what}: the tests' own opening packets are within");
    }
}

#[test]
fn low_ttl_first_connects_a_runner_behind_a_carrier_both_ways() {
    let carried = Access::behind(Nat::EimApdf).carrier(Nat::Azure);
    let peers = [Access::behind(Nat::Masq), Access::behind(Nat::Azure), carried];
    let pairs = [Pair::all("carrier-to", &[carried], &peers), Pair::all("to-carrier", &peers, &[carried])];
    for pair in pairs.iter().flatten() {
        pair.open_a();
        pair.open_b();

        pair.is_connected();
    }
}

#[test]
fn full_ttl_first_kills_a_pair_of_which_one_is_behind_a_carrier() {
    let carried = Access::behind(Nat::EimApdf).carrier(Nat::Azure);
    for (from, to) in [(carried, Access::behind(Nat::Masq)), (Access::behind(Nat::Masq), carried)] {
        let pair = Pair::with("carrier-clash", from, to);

        pair.clash();

        pair.is_dead();
    }
}

#[test]
fn an_opening_packet_of_a_plain_nat_is_seen_by_no_host_behind_a_carrier() {
    let pair =
        Pair::with("carrier-silent", Access::behind(Nat::Masq), Access::behind(Nat::EimEif).carrier(Nat::EimEif));

    pair.open_a();

    assert_eq!(drain(&pair.b), Vec::<String>::new());
}

/// Each TTL goes to a port of its own, so that each leaves a flow of its own at every NAT that it reaches.
fn window(pair: &Pair) -> Vec<u32> {
    let target = |ttl: u32| SocketAddr::new(pair.b_addr.ip(), 60_000 + ttl as u16);
    for ttl in 1..=10 {
        send(&pair.a, target(ttl), "probe", ttl);
    }
    wait_for_flow(&pair.runner_b, target(10).port(), pair.a_addr);
    let flows = [&pair.runner_a, &pair.runner_b].map(|runner| runner.outermost_flows().expect("conntrack lists flows"));
    let known = |flows: &str, ttl| flows.contains(&format!("dport={} ", target(ttl).port()));
    (1..=10).filter(|ttl| known(&flows[0], *ttl) && !known(&flows[1], *ttl)).collect()
}

fn behind_carrier(lab: &Lab, name: &str, home: Nat) -> Runner {
    lab.runner_behind_carrier(name, home, Nat::Azure, Link::default()).expect("a runner is added")
}

#[test]
fn a_runner_without_a_carrier_has_none_to_rebind() {
    let (lab, _server) = lab_with_server("no-carrier");

    let error = runner(&lab, "runner", Nat::Azure).rebind_carrier().expect_err("there is no carrier");

    assert!(error.to_string().contains("behind no carrier"), "{error:#}");
}
