//! Hosts that a cable joins: delay and loss are those that were asked for, both ways. Not here: the wire of a NAT ([`crate::path`]).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use netns_tests::lab::{Cable, Lab, Link, Netns};

use crate::common::{SOON, receive, send};

const ONE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PORT: u16 = 41_000;

#[test]
fn a_cable_delays_there_and_back() {
    let (_lab, [one, two], cable) = hosts("cable-delay");
    let delay = Duration::from_millis(20);

    let plain = shortest_round_trip(&one, &two);
    cable.set_link(Link { delay, ..Link::default() }).expect("a link can be changed");
    let delayed = shortest_round_trip(&one, &two);

    assert!(plain < Duration::from_millis(5), "{plain:?} without a delay");
    assert!((2 * delay..2 * delay + Duration::from_millis(5)).contains(&delayed), "{delayed:?} with {delay:?} one way");
}

#[test]
fn a_stream_over_a_cable_that_loses_packets_of_super_packets_arrives_unharmed() {
    let (_lab, [one, two], cable) = hosts("cable-loss");
    cable
        .set_link(Link { delay: Duration::from_millis(1), loss_percent: 1.0, ..Link::default() })
        .expect("a link can be changed");
    let sent: Vec<u8> = (0..16 << 20).map(|n: u32| (n / 251) as u8).collect();
    let listener = two.enter(|| TcpListener::bind((TWO, PORT))).expect("the host is there").expect("the port is free");

    let received = thread::scope(|scope| {
        let receiving = scope.spawn(|| receive_all(&listener));
        one.enter(|| send_all(&sent)).expect("the host is there");
        receiving.join().expect("the receiver does not panic")
    });

    assert!(received == sent, "{} of {} bytes arrive, or other ones", received.len(), sent.len());
}

fn hosts(name: &str) -> (Lab, [Netns; 2], Cable) {
    let lab = Lab::new(name).expect("the lab comes up");
    let hosts = ["one", "two"].map(|name| lab.host(name).expect("a host is added"));
    let cable = lab.cable((&hosts[0], ONE), (&hosts[1], TWO)).expect("they are joined");
    (lab, hosts, cable)
}

/// Of ten; the shortest leaves out what a loaded machine adds.
fn shortest_round_trip(one: &Netns, two: &Netns) -> Duration {
    let [here, there] = [one, two].map(|host| {
        let socket = host.udp_socket(PORT).expect("the port is free");
        socket.set_read_timeout(Some(SOON)).expect("a timeout can be set");
        socket
    });
    let round_trip = || {
        let started = Instant::now();
        send(&here, (TWO, PORT).into(), "ping", 64);
        let (text, from) = receive(&there);
        send(&there, from, &text, 64);
        receive(&here);
        started.elapsed()
    };
    (0..10).map(|_| round_trip()).min().expect("ten round trips")
}

fn send_all(bytes: &[u8]) {
    let mut stream = TcpStream::connect((TWO, PORT)).expect("the other host listens");
    stream.write_all(bytes).expect("the other host receives");
    stream.shutdown(Shutdown::Write).expect("the stream is open");
}

fn receive_all(listener: &TcpListener) -> Vec<u8> {
    let (mut stream, _) = listener.accept().expect("the other host connects");
    stream.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    let mut received = vec![];
    stream.read_to_end(&mut received).expect("the other host sends");
    received
}
