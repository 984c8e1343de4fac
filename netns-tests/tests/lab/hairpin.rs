//! Two runners behind one NAT who know only each other's outside addresses (RFC 4787, section 6). Not here: their LAN ([`crate::site`]).

use std::net::{SocketAddr, UdpSocket};

use netns_tests::lab::{Access, Lab, Nat};

use crate::common::{FULL_TTL, LOW_TTL, drain_all, lab_with_server, mapped_socket, receive, send, server_socket};

const KINDS: [Nat; 5] = [Nat::Masq, Nat::Azure, Nat::EimEif, Nat::EimAdf, Nat::EimApdf];

/// Where the first packet to a host that has not spoken gets through.
const OPEN: [Nat; 1] = [Nat::EimEif];

#[test]
fn a_nat_that_hairpins_connects_its_hosts_by_their_outside_addresses() {
    let (lab, _server) = lab_with_server("hairpin");
    for nat in KINDS {
        let [(a, a_addr), (b, b_addr)] = hosts(&lab, Access::behind(nat).hairpin().isolated());

        send(&a, b_addr, "a opens", FULL_TTL);
        send(&b, a_addr, "b opens", FULL_TTL);
        send(&a, b_addr, "from a", FULL_TTL);

        let expected = if OPEN.contains(&nat) { vec!["a opens", "from a"] } else { vec!["from a"] };
        for text in expected {
            assert_eq!(receive(&b), (text.to_owned(), a_addr), "{nat:?}");
        }
        assert_eq!(receive(&a), ("b opens".to_owned(), b_addr), "{nat:?}");
    }
}

/// A host's own packet passes one router, so that low TTL is of no use and does no harm.
#[test]
fn an_opening_packet_with_a_low_ttl_arrives_through_a_hairpin() {
    let (lab, _server) = lab_with_server("hairpin-ttl");
    for nat in KINDS {
        let [(a, a_addr), (b, b_addr)] = hosts(&lab, Access::behind(nat).hairpin().isolated());

        send(&a, b_addr, "opens", LOW_TTL);
        send(&b, a_addr, "opens", LOW_TTL);

        assert_eq!(receive(&a), ("opens".to_owned(), b_addr), "{nat:?}");
    }
}

#[test]
fn a_nat_that_does_not_hairpin_connects_nobody() {
    let (lab, _server) = lab_with_server("no-hairpin");
    let pairs = KINDS.map(|nat| hosts(&lab, Access::behind(nat).isolated()));
    for [(a, a_addr), (b, b_addr)] in &pairs {
        for _ in 0..3 {
            send(a, *b_addr, "lost", FULL_TTL);
            send(b, *a_addr, "lost", FULL_TTL);
        }
    }

    assert_eq!(drain_all(pairs.iter().flatten().map(|(socket, _)| socket)), Vec::<String>::new());
}

#[test]
fn hosts_on_an_open_lan_see_each_other_s_outside_address_in_a_hairpin_too() {
    let (lab, _server) = lab_with_server("hairpin-lan");
    let [(a, a_addr), (b, b_addr)] = hosts(&lab, Access::behind(Nat::EimEif).hairpin());

    send(&a, b_addr, "hello", FULL_TTL);

    assert_eq!(receive(&b), ("hello".to_owned(), a_addr));
    send(&b, a_addr, "hello to you", FULL_TTL);
    assert_eq!(receive(&a), ("hello to you".to_owned(), b_addr));
}

#[test]
fn a_nat_that_hairpins_still_filters_what_comes_from_outside() {
    let (lab, server) = lab_with_server("hairpin-filter");
    let [known, stranger] = [7000, 7001].map(|port| server_socket(&server, (server.addr(), port).into()));
    for nat in KINDS.into_iter().filter(|nat| !OPEN.contains(nat)) {
        let (addr, name) = ((server.addr(), 7000).into(), format!("{nat:?}"));
        let [(a, a_addr), (b, b_addr)] = hosts(&lab, Access::behind(nat).hairpin().isolated());
        send(&a, b_addr, "opens", FULL_TTL);
        send(&b, a_addr, "from b", FULL_TTL);
        send(&a, addr, "hello", FULL_TTL);
        assert_eq!(receive(&known), ("hello".to_owned(), a_addr), "{name}");

        send(&stranger, a_addr, "stranger", FULL_TTL);
        send(&known, a_addr, "answer", FULL_TTL);

        let stranger_is_let_in = nat == Nat::EimAdf;
        assert_eq!(receive(&a), ("from b".to_owned(), b_addr), "{name}");
        assert_eq!(receive(&a).0, if stranger_is_let_in { "stranger" } else { "answer" }, "{name}");
    }
}

/// Two sockets behind one NAT, with their outside addresses.
fn hosts(lab: &Lab, access: Access) -> [(UdpSocket, SocketAddr); 2] {
    let name = access_name(access);
    let site = lab.site_with(&name, access).expect("a site is added");
    let runners = [0, 1].map(|host| site.runner(&format!("{name}-{host}")).expect("a runner is added"));
    let ports = [44_000, 44_001];
    [0, 1].map(|host| mapped_socket(lab, &runners[host], ports[host]))
}

fn access_name(access: Access) -> String {
    access.nat().name().replace('_', "-")
}
