//! Hops, delay and loss are what was asked for. Not here: NATs ([`crate::nat`]).

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use netns_tests::lab::{Link, Nat, Runner, wait_until};

use crate::common::{
    FULL_TTL, LOW_TTL, SOON, icmp_counter, lab_with_server, mapped_socket, receive, receive_all, runner, send,
    server_socket, socket,
};

const PORT: u16 = 41_000;

#[test]
fn three_routers_stand_between_two_runners_nats() {
    let (lab, _server) = lab_with_server("hops");
    let (one, two) = (runner(&lab, "one", Nat::Azure), runner(&lab, "two", Nat::EimApdf));
    let ((a, a_addr), (b, b_addr)) = (mapped_socket(&lab, &one, PORT), mapped_socket(&lab, &two, PORT));
    send(&b, a_addr, "opens", LOW_TTL);

    let enough = lowest_ttl_that_arrives(&a, b_addr, &b);

    // Each NAT is a hop too, and the last hop is the runner itself.
    assert_eq!(enough, 1 + 3 + 1 + 1);
}

#[test]
fn two_routers_stand_between_a_nat_and_a_server() {
    let (lab, server) = lab_with_server("server-hops");
    let runner = runner(&lab, "runner", Nat::Masq);
    let addr = (server.addr(), 7000).into();
    let (socket, there) = (socket(&runner, PORT), server_socket(&server, addr));

    assert_eq!(lowest_ttl_that_arrives(&socket, addr, &there), 1 + 2 + 1);
}

#[test]
fn a_router_tells_the_runner_of_every_packet_whose_ttl_ran_out() {
    let (lab, server) = lab_with_server("icmp");
    let runner = runner(&lab, "runner", Nat::Azure);
    let socket = socket(&runner, PORT);

    for _ in 0..50 {
        send(&socket, (server.addr(), 7000).into(), "dies", 2);
    }

    wait_until(SOON, "50 ICMP messages", || (icmp_counter(runner.netns(), "InTimeExcds") == 50).then_some(()))
        .expect("no router limits its ICMP");
}

#[test]
fn a_round_trip_takes_the_delay_of_the_link() {
    let delay = Duration::from_millis(20);
    let (lab, server) = lab_with_server("delay");
    let runner = runner(&lab, "runner", Nat::Azure);
    let echo = Echo::new(&runner, &server_socket(&server, (server.addr(), 7000).into()));

    let plain = echo.shortest_round_trip();
    runner.set_link(Link { delay, ..Link::default() }).expect("a link can be changed");
    let delayed = echo.shortest_round_trip();

    assert!(plain < Duration::from_millis(5), "{plain:?} without a delay");
    assert!((delay..delay + Duration::from_millis(5)).contains(&delayed), "{delayed:?} with {delay:?}");
}

#[test]
fn a_delayed_link_loses_nothing() {
    let (lab, server) = lab_with_server("delay-all");
    let link = Link { delay: Duration::from_millis(10), ..Link::default() };
    let runner = lab.runner("runner", Nat::Azure, link).expect("a runner is added");
    let addr = SocketAddr::from((server.addr(), 7000));
    let (socket, there) = (socket(&runner, PORT), server_socket(&server, addr));

    for _ in 0..200 {
        send(&socket, addr, "all", FULL_TTL);
    }

    (0..200).for_each(|_| assert_eq!(receive(&there).0, "all"));
}

#[test]
fn the_link_loses_as_many_packets_as_was_asked() {
    let (lab, server) = lab_with_server("loss");
    let link = Link { loss_percent: 30.0, ..Link::default() };
    let runner = lab.runner("runner", Nat::Azure, link).expect("a runner is added");
    let addr = SocketAddr::from((server.addr(), 7000));
    let (socket, there) = (socket(&runner, PORT), server_socket(&server, addr));

    // In bursts, because 500 packets do not fit the receiver's buffer.
    let burst = || {
        (0..100).for_each(|_| send(&socket, addr, "maybe", FULL_TTL));
        receive_all(&there).len()
    };
    let received: usize = (0..5).map(|_| burst()).sum();

    // 50 packets are five standard deviations.
    assert!((300..=400).contains(&received), "{received} of 500 arrive at 30 % loss");
}

#[test]
fn some_packets_overtake_others_that_wait_for_the_delay() {
    let (lab, server) = lab_with_server("reorder");
    let link = Link { delay: Duration::from_millis(10), reorder_percent: 20.0, ..Link::default() };
    let runner = lab.runner("runner", Nat::Azure, link).expect("a runner is added");
    let addr = SocketAddr::from((server.addr(), 7000));
    let (socket, there) = (socket(&runner, PORT), server_socket(&server, addr));

    (0..200).for_each(|number| send(&socket, addr, &number.to_string(), FULL_TTL));
    let came: Vec<u32> = (0..200).map(|_| receive(&there).0.parse().expect("a number")).collect();

    assert_eq!(came.iter().copied().collect::<BTreeSet<_>>(), (0..200).collect(), "all arrive");
    let late = (1..200).filter(|at| came[..*at].iter().max() > Some(&came[*at])).count();
    // Whoever waits is overtaken by some of the 200, but for the last.
    assert!(late > 100, "{late} were overtaken: {came:?}");
}

#[test]
fn a_large_tcp_transfer_crosses_the_link_unharmed() {
    let (lab, server) = lab_with_server("tcp");
    let link = Link { delay: Duration::from_millis(5), ..Link::default() };
    let runner = lab.runner("runner", Nat::Azure, link).expect("a runner is added");
    let sent: Vec<u8> = (0..16 << 20).map(|n: u32| (n / 251) as u8).collect();
    let listener = server
        .enter(|| TcpListener::bind((server.addr(), 7000)))
        .expect("the server is there")
        .expect("the port is free");

    let received = thread::scope(|scope| {
        let echo = scope.spawn(|| receive_and_send_back(&listener));
        let received = runner.enter(|| send_and_receive_back((server.addr(), 7000).into(), &sent));
        echo.join().expect("the server does not panic");
        received.expect("the runner is there")
    });

    assert!(received == sent, "{} of {} bytes come back, or other ones", received.len(), sent.len());
}

#[test]
fn a_loss_above_a_hundred_percent_is_refused() {
    let (lab, _server) = lab_with_server("bad-loss");

    let error = lab
        .runner("runner", Nat::Azure, Link { loss_percent: 101.0, ..Link::default() })
        .expect_err("nothing loses more than all");

    assert!(format!("{error:#}").contains("not within 0 to 100"), "{error:#}");
}

fn receive_and_send_back(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().expect("the runner connects");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the runner sends");
    stream.write_all(&bytes).expect("the runner receives");
}

fn send_and_receive_back(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).expect("the server listens");
    stream.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    stream.write_all(bytes).expect("the server receives");
    stream.shutdown(Shutdown::Write).expect("the stream is open");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("the server sends back");
    received
}

/// Sends with TTL 1, 2, 3 and so on, and looks which arrive.
fn lowest_ttl_that_arrives(from: &UdpSocket, to: SocketAddr, there: &UdpSocket) -> u32 {
    for ttl in 1..=10 {
        send(from, to, &ttl.to_string(), ttl);
    }
    let arrived = receive_all(there).into_iter().filter_map(|text| text.parse().ok());
    arrived.min().expect("a TTL of 10 is enough")
}

/// A socket of a runner and a server's socket that sends back.
struct Echo {
    socket: UdpSocket,
    there: UdpSocket,
}

impl Echo {
    fn new(runner: &Runner, there: &UdpSocket) -> Self {
        Self { socket: socket(runner, PORT), there: there.try_clone().expect("a socket can be cloned") }
    }

    /// Of ten; the shortest leaves out what a loaded machine adds.
    fn shortest_round_trip(&self) -> Duration {
        (0..10).map(|_| self.round_trip()).min().expect("ten round trips")
    }

    fn round_trip(&self) -> Duration {
        let started = Instant::now();
        let there = self.there.local_addr().expect("a bound socket");
        send(&self.socket, there, "ping", FULL_TTL);
        let (text, from) = receive(&self.there);
        send(&self.there, from, &text, FULL_TTL);
        assert_eq!(receive(&self.socket).1, there);
        started.elapsed()
    }
}
