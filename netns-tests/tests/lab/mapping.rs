//! Each kind of NAT maps as its name says (RFC 4787, section 4.1). Not here: whom it lets in ([`crate::filtering`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use netns_tests::lab::{Nat, Runner, mapped_addr, wait_until};

use crate::common::{FULL_TTL, SOON, lab_with_server, mappings, receive, runner, send, server_socket, socket};

const PORT: u16 = 40_000;
const KEPT: RangeInclusive<u16> = PORT..=PORT;
const ANY: RangeInclusive<u16> = 1024..=u16::MAX;
const AZURE: RangeInclusive<u16> = 1024..=1999;

/// What other port a socket gets outside when it speaks to another port or another address.
#[derive(Debug, PartialEq)]
enum Mapping {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
    Other,
}

use Mapping::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

#[test]
fn each_kind_maps_as_its_name_says() {
    let (lab, _server) = lab_with_server("mapping");
    let kinds = [
        (Nat::Masq, EndpointIndependent, KEPT),
        (Nat::Azure, EndpointIndependent, AZURE),
        (Nat::EimEif, EndpointIndependent, KEPT),
        (Nat::EimAdf, EndpointIndependent, KEPT),
        (Nat::EimApdf, EndpointIndependent, KEPT),
        (Nat::AzureAdm, AddressDependent, ANY),
        (Nat::MasqRand, AddressAndPortDependent, ANY),
        (Nat::MasqFrand, AddressAndPortDependent, ANY),
    ];
    for (nat, mapping, ports) in kinds {
        let runner = runner(&lab, &nat.name().replace('_', "-"), nat);
        let seen = mappings(&lab, &socket(&runner, PORT));

        assert_eq!(classify(seen), mapping, "{nat:?}: {seen:?}");
        assert_eq!(mapping == EndpointIndependent, nat.is_endpoint_independent(), "{nat:?}");
        assert_eq!(ports == KEPT, nat.keeps_the_port(), "{nat:?}");
        assert!(seen.iter().all(|addr| ports.contains(&addr.port())), "{nat:?}: {seen:?} are within {ports:?}");
        assert!(seen.iter().all(|addr| addr.ip() == runner.public_addr()), "{nat:?}: {seen:?}");
    }
}

#[test]
fn a_plain_server_sees_what_stun_has_told() {
    let (lab, server) = lab_with_server("mapping-plain");
    let there = server_socket(&server, (server.addr(), 7000).into());
    for nat in [Nat::Masq, Nat::Azure, Nat::EimEif, Nat::EimAdf, Nat::EimApdf] {
        let runner = runner(&lab, &nat.name().replace('_', "-"), nat);
        let socket = socket(&runner, PORT);
        let [told, ..] = mappings(&lab, &socket);

        send(&socket, (server.addr(), 7000).into(), "hello", FULL_TTL);

        assert_eq!(receive(&there), ("hello".to_owned(), told), "{nat:?}");
    }
}

#[test]
fn a_blocking_nat_lets_no_udp_out() {
    let (lab, server) = lab_with_server("block");
    let blocked = socket(&runner(&lab, "blocked", Nat::Block), PORT);
    let free = socket(&runner(&lab, "free", Nat::Masq), PORT);
    let [stun, _] = lab.stun_servers().expect("coturn answers");
    let there = server_socket(&server, (server.addr(), 7000).into());

    send(&blocked, (server.addr(), 7000).into(), "blocked", FULL_TTL);
    mapped_addr(&blocked, stun).expect_err("no answer comes");
    send(&free, (server.addr(), 7000).into(), "free", FULL_TTL);

    assert_eq!(receive(&there).0, "free");
}

/// Also where no host has the address: the NAT cannot know.
#[test]
fn azure_adm_has_another_block_of_ports_for_every_address() {
    let (lab, _server) = lab_with_server("adm");
    let runner = runner(&lab, "runner", Nat::AzureAdm);
    let socket = socket(&runner, PORT);
    let sites = (1..16).map(|index| IpAddr::from([198, 18, index, 2]));
    let servers = (0..16).flat_map(|index| [10, 11].map(|host| IpAddr::from([198, 19, index, host])));
    let asked: Vec<_> =
        sites.chain(servers).flat_map(|ip| [7000, 7001].map(|port| SocketAddr::new(ip, port))).collect();

    for addr in &asked {
        send(&socket, *addr, "hello", FULL_TTL);
    }
    let flows = || outside_ports(&runner);
    let flows = wait_until(SOON, "all flows", || Some(flows()).filter(|flows| flows.len() == asked.len()));
    let flows = flows.expect("the NAT has a flow for each");

    let mut ports = BTreeMap::<_, BTreeSet<_>>::new();
    for (addr, port) in flows {
        ports.entry(addr.ip()).or_default().insert(port);
    }
    assert!(ports.values().all(|ports| ports.len() == 1), "one port for each address: {ports:?}");
    let blocks: BTreeSet<_> = ports.values().flatten().map(|port| (port - 1024) / 1000).collect();
    assert_eq!(blocks.len(), ports.len(), "{ports:?}");
}

fn classify([first, port, addr, both]: [SocketAddr; 4]) -> Mapping {
    match (first == port && addr == both, first == addr) {
        (true, true) => EndpointIndependent,
        (true, false) => AddressDependent,
        (false, false) if port != both => AddressAndPortDependent,
        _ => Mapping::Other,
    }
}

/// Whom the runner speaks to, and the outside port it does that from. The first half of a flow is as sent, the second as an answer
/// comes.
fn outside_ports(runner: &Runner) -> Vec<(SocketAddr, u16)> {
    let flows = runner.nat_flows().expect("conntrack lists flows");
    let values = |flow: &str, key: &str| -> Vec<String> {
        flow.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key)).map(str::to_owned).collect()
    };
    let parse = |flow: &str| {
        let (dst, dport) = (values(flow, "dst="), values(flow, "dport="));
        let to = SocketAddr::new(dst.first()?.parse().ok()?, dport.first()?.parse().ok()?);
        Some((to, dport.last()?.parse().ok()?))
    };
    flows.lines().filter_map(parse).collect()
}
