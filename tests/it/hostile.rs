//! Whatever comes to a node from outside or from inside, it neither panics nor believes it. Networks that merely lose things are not here
//! but in [`super::punch`].

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh::proto::role::Role;
use mesh::proto::route::SocketId;
use proptest::prelude::*;

use crate::packet::segment;
use crate::sim::nat::{AZURE, MASQ};
use crate::sim::{HostId, Internet, Weather};

proptest! {
    #![proptest_config(crate::cases::of_stories())]

    #[test]
    fn datagrams_of_strangers_bring_no_inner_packet_and_do_no_harm(
        datagrams in prop::collection::vec((datagrams(), addresses()), 1..50),
        early: bool,
    ) {
        let (mut net, hosts) = pair(early);
        for (datagram, from) in datagrams {
            net.input(hosts[0], |node, now| node.handle_datagram(now, SocketId::MAIN, from, &datagram));
        }
        prop_assert_eq!(net.hosts[hosts[0]].inner.len(), 0);
        prop_assert!(net.run_until(Duration::from_secs(10), Internet::all_up));
        prop_assert_eq!(&net.violations, &[""; 0]);
    }

    #[test]
    fn inner_packets_of_any_shape_do_no_harm(
        packets in prop::collection::vec(packets(), 1..50),
        early: bool,
    ) {
        let (mut net, hosts) = pair(early);
        for packet in packets {
            for host in &hosts {
                net.send_inner(*host, &packet);
            }
        }
        prop_assert!(net.run_until(Duration::from_secs(10), Internet::all_up));
        prop_assert_eq!(&net.violations, &[""; 0]);
    }

    #[test]
    fn a_peer_sends_only_from_its_own_address_and_to_ours(from: u32, to: u32) {
        let (mut net, hosts) = pair(false);
        let to = Ipv4Addr::from_bits(to);
        let forged = segment(Ipv4Addr::from_bits(from), Ipv4Addr::new(10, 77, 0, 1), 1);
        net.send_inner(hosts[1], &forged);
        net.send_inner(hosts[1], &segment(Ipv4Addr::new(10, 77, 0, 2), to, 1));
        net.run_for(Duration::from_secs(1));
        let honest = |packet: &Vec<u8>| packet[12..20] == [10, 77, 0, 2, 10, 77, 0, 1];
        prop_assert!(net.hosts[hosts[0]].inner.iter().all(honest));
    }
}

#[test]
fn every_datagram_between_two_peers_may_be_altered_and_sent_again_by_anybody() {
    let (mut net, hosts) = pair(false);
    net.overheard.clear();
    let packet = segment(Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 1), 1);
    net.send_inner(hosts[1], &packet);
    net.run_for(Duration::from_secs(5));
    assert_eq!(net.hosts[hosts[0]].inner.len(), 1);
    for (from, datagram) in net.overheard.clone() {
        let last = datagram.len() - 1;
        for altered in [datagram.clone(), [&datagram[..last], &[datagram[last] ^ 1]].concat()] {
            net.input(hosts[0], |node, now| node.handle_datagram(now, SocketId::MAIN, from, &altered));
        }
    }
    assert_eq!(net.hosts[hosts[0]].inner.len(), 1, "a replay brings nothing");
    assert!(net.all_up());
}

/// A primary and an aux; `early`: neither knows the other yet.
fn pair(early: bool) -> (Internet, Vec<HostId>) {
    let mut net = Internet::new(1, Weather::default());
    let hosts = vec![net.host(Role::Primary, MASQ), net.host(Role::Aux(0), AZURE)];
    let ready = early || net.run_until(Duration::from_secs(5), Internet::all_up);
    assert!(ready, "an undisturbed pair comes up");
    (net, hosts)
}

/// Garbage, and garbage that begins like a probe between the two, like WireGuard, and like STUN.
fn datagrams() -> impl Strategy<Value = Vec<u8>> {
    let garbage = || prop::collection::vec(any::<u8>(), 0..200);
    let begun = |start: Vec<u8>| {
        prop::collection::vec(any::<u8>(), 0..200).prop_map(move |rest| [start.clone(), rest].concat())
    };
    let probe = prop::array::uniform32(any::<u8>())
        .prop_map(|body| [b"MSH1\0\x01\0\0".as_slice(), &body, &body, &body[..8]].concat());
    prop_oneof![
        garbage(),
        begun(b"MSH1\0\x01\0\0".to_vec()),
        probe,
        (1u8..=4).prop_flat_map(move |kind| begun(vec![kind, 0, 0, 0])),
        begun([&[1, 1, 0, 12], &[0x21, 0x12, 0xa4, 0x42][..]].concat()),
    ]
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![any::<(Ipv4Addr, u16)>().prop_map(SocketAddr::from), Just(SocketAddr::from(([192, 0, 2, 1], 3478)))]
}

/// Garbage, and TCP from here to there and elsewhere that is whole, cut short or altered.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let garbage = prop::collection::vec(any::<u8>(), 0..100);
    let tcp = (any::<(bool, u8, u32)>(), 0..=40usize, 0..40usize, any::<u8>()).prop_map(
        |((known, last, ack), len, at, byte)| {
            let to = if known { Ipv4Addr::new(10, 77, 0, 2) } else { Ipv4Addr::new(10, 77, 0, last) };
            let mut packet = segment(Ipv4Addr::new(10, 77, 0, 1), to, ack);
            packet[at] = byte;
            packet.truncate(len);
            packet
        },
    );
    prop_oneof![garbage, tcp]
}

proptest! {
    #![proptest_config(crate::cases::of_stories())]

    /// Of every protocol, from strangers and from addresses of peers and servers alike: nobody is answered, nothing is decided anew.
    #[test]
    fn what_is_not_authentic_changes_no_state_and_gets_no_answer(
        datagrams in prop::collection::vec((0..6usize, prop::collection::vec(any::<u8>(), 0..200), 0..4usize), 1..20),
    ) {
        let mut net = Internet::new(31, Weather::default());
        net.add_relay();
        let hosts = [net.host(Role::Primary, AZURE), net.host(Role::Aux(0), MASQ)];
        prop_assert!(net.run_until(Duration::from_secs(8), Internet::all_up));
        net.run_for(Duration::from_millis(6100));
        let peer = net.route(hosts[0], Role::Aux(0)).and_then(|route| route.addr()).expect("a direct route");
        let sources = [peer, addr("203.0.113.66:6666"), addr("192.0.2.1:3478"), addr("192.0.2.9:3479")];
        let node = |net: &Internet| {
            let node = &net.hosts[hosts[0]].node;
            (node.peers(net.now), node.poll_timeout(), node.candidates().collect::<Vec<_>>(), node.epoch(), node.relayed())
        };
        let (before, sent, noticed) = (node(&net), net.hosts[hosts[0]].sent, net.hosts[hosts[0]].events.len());
        for (kind, body, source) in datagrams {
            let datagram = [MAGICS[kind], &body].concat();
            let from = sources[source];
            net.input(hosts[0], |node, now| node.handle_datagram(now, SocketId::MAIN, from, &datagram));
        }
        prop_assert_eq!(node(&net), before);
        prop_assert_eq!((net.hosts[hosts[0]].sent, net.hosts[hosts[0]].events.len()), (sent, noticed));
    }
}

/// How datagrams of each protocol begin: none, a STUN response, a probe from aux 0 to the primary, a relay frame between them, a registration,
/// a WireGuard transport message.
const MAGICS: [&[u8]; 6] = [
    &[],
    &[1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42],
    b"MSH1\x00\x01\x00\x00",
    b"MSR1\x00\x01\x00\x00\x00\x01\x00\x00",
    b"MSQ1",
    &[4, 0, 0, 0],
];

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
