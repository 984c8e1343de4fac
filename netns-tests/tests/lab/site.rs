//! Several runners on one LAN behind one NAT. Not here: how they reach each other from outside ([`crate::hairpin`]).

use netns_tests::lab::{Access, Link, Nat};

use crate::common::{FULL_TTL, drain_all, lab_with_server, mappings, receive, send, server_socket, site, socket};

const PORT: u16 = 43_000;

#[test]
fn runners_of_a_site_reach_each_other_by_their_lan_addresses() {
    let (lab, _server) = lab_with_server("lan");
    let site = site(&lab, Access::behind(Nat::Azure));
    let [a, b] = ["a", "b"].map(|name| site.runner(name).expect("a runner is added"));
    let (here, there) = (socket(&a, PORT), socket(&b, PORT));

    send(&here, (b.lan_addr(), PORT).into(), "hello", FULL_TTL);

    assert_eq!(receive(&there), ("hello".to_owned(), (a.lan_addr(), PORT).into()));
    assert_ne!(a.lan_addr(), b.lan_addr());
    assert_eq!(a.public_addr(), b.public_addr());
}

#[test]
fn runners_of_an_isolated_lan_reach_the_internet_and_not_each_other() {
    let (lab, server) = lab_with_server("isolated");
    let site = site(&lab, Access::behind(Nat::Azure).isolated());
    let [a, b] = ["a", "b"].map(|name| site.runner(name).expect("a runner is added"));
    let (here, there) = (socket(&a, PORT), socket(&b, PORT));
    let world = server_socket(&server, (server.addr(), 7000).into());

    send(&here, (b.lan_addr(), PORT).into(), "lost", FULL_TTL);
    send(&there, (a.lan_addr(), PORT).into(), "lost", FULL_TTL);
    for socket in [&here, &there] {
        send(socket, (server.addr(), 7000).into(), "hello", FULL_TTL);
        assert_eq!(receive(&world).0, "hello");
    }

    assert_eq!(drain_all([&here, &there].into_iter()), Vec::<String>::new());
}

/// Each keeps its own for every destination, though conntrack alone would let both have the same one for different destinations.
#[test]
fn two_runners_with_the_same_port_inside_have_different_ones_outside() {
    let (lab, _server) = lab_with_server("same-port");
    for nat in [Nat::Azure, Nat::EimEif, Nat::EimAdf, Nat::EimApdf] {
        let name = nat.name().replace('_', "-");
        let site = lab.site(&name, nat, Link::default()).expect("a site is added");
        let both = ["a", "b"].map(|host| site.runner(&format!("{name}-{host}")).expect("a runner is added"));
        let sockets = both.each_ref().map(|runner| socket(runner, PORT));
        let [stun, other_stun] = lab.stun_servers().expect("coturn answers");

        let ask = |host: usize, server| netns_tests::lab::mapped_addr(&sockets[host], server).expect("coturn answers");
        let first = (ask(0, stun), ask(1, other_stun));
        let second = (ask(0, other_stun), ask(1, stun));

        assert_eq!(first, second, "{nat:?}: each has one for both servers");
        assert_ne!(first.0, first.1, "{nat:?}");
        for (socket, mapped) in sockets.iter().zip([first.0, first.1]) {
            assert_eq!(mappings(&lab, socket), [mapped; 4], "{nat:?}");
        }
    }
}

#[test]
fn a_site_has_room_for_eight() {
    let (lab, _server) = lab_with_server("full");
    let site = site(&lab, Access::behind(Nat::Masq));
    for index in 0..8 {
        site.runner(&format!("runner{index}")).expect("there is room");
    }

    let error = site.runner("ninth").expect_err("the site is full");

    assert!(error.to_string().contains("full at 8"), "{error:#}");
}

#[test]
fn a_site_that_cannot_be_is_refused() {
    let (lab, _server) = lab_with_server("refused");
    let refused = [
        (Access::behind(Nat::None), "needs a NAT"),
        (Access::behind(Nat::None).carrier(Nat::Azure), "no carrier"),
        (Access::behind(Nat::Masq).carrier(Nat::None), "without a NAT"),
        (Access::behind(Nat::AzureAdm).hairpin(), "cannot hairpin"),
        (Access::behind(Nat::MasqRand).hairpin(), "cannot hairpin"),
        (Access::behind(Nat::Azure).carrier(Nat::Azure).hairpin(), "cannot hairpin"),
    ];
    for (access, reason) in refused {
        let error = lab.site_with("site", access).expect_err("no such site");

        assert!(format!("{error:#}").contains(reason), "{error:#}");
    }
}
