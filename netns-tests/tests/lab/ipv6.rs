//! Global IPv6 addresses beside IPv4, routed, behind firewalls that know state. Not here: anything that translates.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use netns_tests::lab::{Access, Lab, Nat, Runner, Server};
use socket2::SockRef;

use crate::common::{FULL_TTL, LOW_TTL, SOON, drain, lab_with_server, mapped_socket, receive, runner_with};

const PORT: u16 = 47_000;

#[test]
fn a_runner_speaks_from_its_own_address() {
    for access in [Access::behind(Nat::Azure), Access::behind(Nat::Masq).carrier(Nat::Azure), Access::behind(Nat::None)]
    {
        let (_lab, server, runner) = lab("ipv6", access);
        let (here, there) = (socket(&runner), server_socket(&server, 7000));

        send(&here, addr_of(&there), "hello", FULL_TTL);
        assert_eq!(receive(&there), ("hello".to_owned(), addr_of(&here)), "{access:?}");
        send(&there, addr_of(&here), "hello to you", FULL_TTL);
        assert_eq!(receive(&here), ("hello to you".to_owned(), addr_of(&there)), "{access:?}");
    }
}

#[test]
fn a_nat_s_router_lets_in_only_what_answers() {
    let (_lab, server, runner) = lab("ipv6-wall", Access::behind(Nat::EimEif));
    let (here, there, stranger) = (socket(&runner), server_socket(&server, 7000), server_socket(&server, 7001));
    send(&here, addr_of(&there), "hello", FULL_TTL);
    receive(&there);

    send(&stranger, addr_of(&here), "stranger", FULL_TTL);
    send(&there, addr_of(&here), "answer", FULL_TTL);

    assert_eq!(receive(&here), ("answer".to_owned(), addr_of(&there)));
}

#[test]
fn a_blocking_nat_lets_no_udp_out_here_either() {
    let (lab, server, blocked) = lab("ipv6-block", Access::behind(Nat::Block));
    let free = runner_with(&lab, "free", Access::behind(Nat::Masq).ipv6());
    let there = server_socket(&server, 7000);

    send(&socket(&blocked), addr_of(&there), "blocked", FULL_TTL);
    send(&socket(&free), addr_of(&there), "free", FULL_TTL);

    assert_eq!((receive(&there).0, drain(&there)), ("free".to_owned(), vec![]));
}

#[test]
fn a_host_without_a_nat_has_no_firewall_either() {
    let (_lab, server, host) = lab("ipv6-open", Access::behind(Nat::None));
    let (here, stranger) = (socket(&host), server_socket(&server, 7000));

    send(&stranger, addr_of(&here), "hello", FULL_TTL);

    assert_eq!(receive(&here).0, "hello");
}

#[test]
fn two_firewalls_are_opened_from_inside() {
    let (lab, _server, a) = lab("ipv6-pair", Access::behind(Nat::Azure));
    let b = runner_with(&lab, "b", Access::behind(Nat::Masq).ipv6());
    let (here, there) = (socket(&a), socket(&b));
    send(&here, addr_of(&there), "too early", FULL_TTL);
    assert_eq!(drain(&there), Vec::<String>::new());

    send(&there, addr_of(&here), "opens", LOW_TTL);
    send(&here, addr_of(&there), "first", FULL_TTL);

    assert_eq!(receive(&there), ("first".to_owned(), addr_of(&here)));
    send(&there, addr_of(&here), "second", FULL_TTL);
    assert_eq!(receive(&here).0, "second");
}

#[test]
fn ipv4_goes_on_beside_it() {
    let (lab, _server, runner) = lab("ipv6-dual", Access::behind(Nat::Azure));

    let (_, mapped) = mapped_socket(&lab, &runner, PORT);

    assert_eq!(mapped.ip(), IpAddr::from(runner.public_addr()));
}

#[test]
fn a_runner_that_was_not_given_an_address_has_none() {
    let (lab, server, _runner) = lab("ipv6-none", Access::behind(Nat::Azure));
    let plain = runner_with(&lab, "plain", Access::behind(Nat::Azure));
    let [there, _] = server.ipv6_addrs().expect("the server has addresses");

    assert_eq!(plain.ipv6_addr(), None);
    let socket = plain.enter(|| UdpSocket::bind("[::]:0")).expect("the runner is there");
    assert!(socket.and_then(|socket| socket.send_to(b"hello", (there, 7000))).is_err(), "no route leads there");
}

/// 16 MiB cross in super packets, which the wire has to carry whole.
#[test]
fn a_large_tcp_transfer_crosses_the_link_unharmed() {
    let (_lab, server, runner) = lab("ipv6-tcp", Access::behind(Nat::Azure));
    let [addr, _] = server.ipv6_addrs().expect("the server has addresses");
    let listener = server.enter(|| TcpListener::bind((addr, 7000))).expect("the server is there").expect("a free port");
    let sent: Vec<u8> = (0..16 << 20).map(|n: u32| (n / 251) as u8).collect();

    let received = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut bytes = vec![];
            listener.accept().and_then(|(mut stream, _)| stream.read_to_end(&mut bytes)).expect("the runner sends");
            bytes
        });
        let write = || -> std::io::Result<()> {
            let mut stream = TcpStream::connect((addr, 7000))?;
            stream.set_write_timeout(Some(SOON))?;
            stream.write_all(&sent)?;
            stream.shutdown(Shutdown::Write)
        };
        runner.enter(write).expect("the runner is there").expect("the server receives");
        reader.join().expect("the server does not panic")
    });

    assert!(received == sent, "{} of {} bytes arrive, or other ones", received.len(), sent.len());
}

#[test]
fn a_narrow_path_drops_what_is_too_large_for_it() {
    let (_lab, server, runner) = lab("ipv6-mtu", Access::behind(Nat::Azure));
    let (here, there) = (socket(&runner), server_socket(&server, 7000));
    send(&here, addr_of(&there), "hello", FULL_TTL);
    receive(&there);

    runner.set_path_mtu(1300, false).expect("a path can be narrowed");

    // IPv6 and UDP headers are 48 bytes.
    for (from, to) in [(&here, &there), (&there, &here)] {
        for size in [1301, 1300] {
            from.send_to(&vec![7; size - 48], addr_of(to)).expect("it fits the first link");
        }
        assert_eq!(receive(to).0.len(), 1300 - 48);
    }
}

/// With a server, and one runner that has IPv6.
fn lab(name: &str, access: Access) -> (Lab, Server, Runner) {
    let (lab, server) = lab_with_server(name);
    let runner = runner_with(&lab, "a", access.ipv6());
    (lab, server, runner)
}

fn socket(runner: &Runner) -> UdpSocket {
    let addr = runner.ipv6_addr().expect("the runner has one");
    bound(runner.enter(|| UdpSocket::bind((addr, PORT))).expect("the runner is there"))
}

fn server_socket(server: &Server, port: u16) -> UdpSocket {
    let [addr, _] = server.ipv6_addrs().expect("the server has addresses");
    bound(server.enter(|| UdpSocket::bind((addr, port))).expect("the server is there"))
}

fn bound(socket: std::io::Result<UdpSocket>) -> UdpSocket {
    let socket = socket.expect("the port is free");
    socket.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    socket
}

fn addr_of(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("a bound socket")
}

fn send(socket: &UdpSocket, to: SocketAddr, text: &str, hops: u32) {
    SockRef::from(socket).set_unicast_hops_v6(hops).expect("a hop limit can be set");
    socket.send_to(text.as_bytes(), to).expect("a packet can be sent");
}
