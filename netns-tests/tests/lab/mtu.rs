//! A path that is narrower than its ends, with and without a word about it. Not here: delay and loss ([`crate::path`]).

use std::net::UdpSocket;

use netns_tests::lab::{Lab, Nat, Runner, Server, wait_until};

use crate::common::{FULL_TTL, SOON, lab_with_server, receive, recv_from, runner, send, server_socket, socket};

const PORT: u16 = 46_000;
const NARROW: u16 = 1300;

/// IP and UDP headers.
const HEADERS: usize = 28;

#[test]
fn a_packet_that_fits_the_path_passes_and_a_larger_one_does_not() {
    let path = Path::new("mtu-fits");
    path.runner.set_path_mtu(NARROW, false).expect("a path can be narrowed");

    assert_eq!(path.arriving(&[NARROW + 1, NARROW]), [NARROW]);
    assert_eq!(path.returning(&[NARROW + 1, NARROW]), [NARROW]);
}

#[test]
fn a_black_hole_is_never_told_of() {
    let path = Path::new("mtu-hole");
    path.runner.set_path_mtu(NARROW, false).expect("a path can be narrowed");

    assert_eq!(path.arriving(&[1500, 1500, 1500, 500]), [500]);
    assert_eq!(path.returning(&[1500, 1500, 1500, 500]), [500]);
    assert_eq!((unreachable(path.runner.netns()), unreachable(path.server.netns())), (0, 0));
}

/// As soon as the kernel of the sender knows, it fragments; conntrack puts together what it has to look at.
#[test]
fn with_icmp_the_sender_learns_what_fits_behind_its_nat_too() {
    let path = Path::new("mtu-icmp");
    path.runner.set_path_mtu(NARROW, true).expect("a path can be narrowed");

    path.here.send_to(&payload(1500), path.there.local_addr().expect("bound")).expect("it fits the first link");
    wait_until(SOON, "the message", || (unreachable(path.runner.netns()) == 1).then_some(())).expect("it is told");
    assert_eq!(path.arriving(&[1500]), [1500]);

    path.there.send_to(&payload(1500), path.mapped()).expect("it fits the first link");
    wait_until(SOON, "the message", || (unreachable(path.server.netns()) == 1).then_some(())).expect("it is told");
    assert_eq!(path.returning(&[1500]), [1500]);
}

#[test]
fn a_host_without_a_nat_meets_the_narrow_path_beyond_its_own_link() {
    let (lab, server) = lab_with_server("mtu-public");
    let path = Path::between(lab, server, Nat::None);
    path.runner.set_path_mtu(NARROW, false).expect("a path can be narrowed");

    assert_eq!(path.arriving(&[NARROW + 1, NARROW]), [NARROW]);
    assert_eq!(path.returning(&[NARROW + 1, NARROW]), [NARROW]);
}

#[test]
fn a_path_that_is_wide_again_carries_all() {
    let path = Path::new("mtu-wide");
    path.runner.set_path_mtu(NARROW, false).expect("a path can be narrowed");
    path.runner.set_path_mtu(1500, true).expect("a path can be widened");

    assert_eq!(path.arriving(&[1500]), [1500]);
    assert_eq!(path.returning(&[1500]), [1500]);
}

#[test]
fn blocked_udp_and_a_narrow_path_do_not_undo_each_other() {
    let path = Path::new("mtu-block");
    path.runner.block_udp(true).expect("UDP can be blocked");
    path.runner.set_path_mtu(NARROW, false).expect("a path can be narrowed");
    path.runner.block_udp(false).expect("UDP can be allowed");

    assert_eq!(path.arriving(&[NARROW + 1, NARROW]), [NARROW]);
    assert_eq!(unreachable(path.runner.netns()), 0);
}

#[test]
fn a_path_mtu_that_no_link_has_is_refused() {
    let (lab, _server) = lab_with_server("mtu-bad");

    let error = runner(&lab, "runner", Nat::Masq).set_path_mtu(9000, true).expect_err("too wide");

    assert!(error.to_string().contains("not within 68..=1500"), "{error:#}");
}

/// A runner and a server that have spoken.
struct Path {
    here: UdpSocket,
    there: UdpSocket,
    mapped: std::net::SocketAddr,
    runner: Runner,
    server: Server,
    _lab: Lab,
}

impl Path {
    fn new(name: &str) -> Self {
        let (lab, server) = lab_with_server(name);
        Self::between(lab, server, Nat::Azure)
    }

    fn between(lab: Lab, server: Server, nat: Nat) -> Self {
        let runner = runner(&lab, "runner", nat);
        let here = socket(&runner, PORT);
        let there = server_socket(&server, (server.addr(), 7000).into());
        send(&here, (server.addr(), 7000).into(), "hello", FULL_TTL);
        let (_, mapped) = receive(&there);
        Self { here, there, mapped, runner, server, _lab: lab }
    }

    fn mapped(&self) -> std::net::SocketAddr {
        self.mapped
    }

    /// Sends packets of these sizes to the server, the last of which must arrive; gives those that do.
    fn arriving(&self, sizes: &[u16]) -> Vec<u16> {
        let to = self.there.local_addr().expect("a bound socket");
        send_and_receive(&self.here, to, &self.there, sizes)
    }

    /// Likewise, from the server.
    fn returning(&self, sizes: &[u16]) -> Vec<u16> {
        send_and_receive(&self.there, self.mapped, &self.here, sizes)
    }
}

fn send_and_receive(from: &UdpSocket, to: std::net::SocketAddr, there: &UdpSocket, sizes: &[u16]) -> Vec<u16> {
    for size in sizes {
        from.send_to(&payload(*size), to).expect("it fits the first link");
    }
    let mut buffer = [0; 2000];
    let mut next = || (recv_from(there, &mut buffer).expect("the last one arrives").0 + HEADERS) as u16;
    let mut arrived = vec![next()];
    while arrived.last() != sizes.last() {
        arrived.push(next());
    }
    arrived
}

/// What makes an IPv4 packet of this size.
fn payload(size: u16) -> Vec<u8> {
    vec![7; usize::from(size) - HEADERS]
}

/// `InDestUnreachs` of `/proc/net/snmp`, which counts "fragmentation needed".
fn unreachable(netns: &netns_tests::lab::Netns) -> u64 {
    crate::common::icmp_counter(netns, "InDestUnreachs")
}
