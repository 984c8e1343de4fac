//! A NAT that forgets its mappings in mid-flow: the path comes back, and a TCP transfer that runs over it ends whole.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use netns_tests::lab::{Nat, Runner, wait_until};
use netns_tests::stage::Stage;

use crate::common::{SOON, assert_ends, aux, primary};

const AUX: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const PORT: u16 = 5001;

/// The longest the transfer may stand still: the time to notice, and three times the way through the rendezvous, on a loaded machine.
const STALL: Duration = Duration::from_secs(60);

#[test]
fn a_transfer_survives_that_the_aux_s_nat_forgets_its_mappings() {
    survives("moved-aux", |_, aux| aux.rebind().unwrap());
}

#[test]
fn a_transfer_survives_that_the_primary_s_nat_forgets_its_mappings() {
    survives("moved-primary", |primary, _| primary.rebind().unwrap());
}

#[test]
fn a_transfer_survives_that_both_nats_forget_their_mappings() {
    survives("moved-both", |primary, aux| {
        primary.rebind().unwrap();
        aux.rebind().unwrap();
    });
}

/// The primary sends to the aux without end; after `disturb` the numbers must go on where they stopped.
fn survives(name: &str, disturb: impl Fn(&Runner, &Runner)) {
    let stage = Stage::new(name).unwrap();
    let (home, mut primary) = primary(&stage, Nat::Azure, &["--aux", "1", "--offload", "none"]);
    let (runner, mut aux) = aux(&stage, Nat::Azure, 0, &[]);
    wait_until(SOON, "the mesh", || primary.output().contains("mesh is up: 1 of 1").then_some(())).unwrap();
    let (received, stop) = stream(&home, &runner);
    let hundred = || (0..100).fold(0, |_, _| received.recv_timeout(STALL).expect("bytes go on"));
    let before = hundred();

    disturb(&home, &runner);
    let repaired = || [&primary, &aux].iter().all(|process| process.output().contains("M501"));
    wait_until(STALL, "the repair", || repaired().then_some(())).unwrap();
    // More than the queues between can have held.
    let after = (0..100).fold(0, |_, _| hundred());

    assert!(after > before, "{before} {after}");
    stop.shutdown(Shutdown::Both).unwrap();
    drop(received);
    primary.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_ends(&mut primary, 143);
    assert_ends(&mut aux, 0);
}

/// One number after the other, checked at the other end. Shutting down what it returns ends it.
fn stream(from: &Runner, to: &Runner) -> (mpsc::Receiver<u64>, TcpStream) {
    let listener = to.enter(|| TcpListener::bind(SocketAddr::from((AUX, PORT)))).unwrap().unwrap();
    let sender = from.enter(|| TcpStream::connect(SocketAddr::from((AUX, PORT)))).unwrap().unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    let mut writer = sender.try_clone().unwrap();
    thread::spawn(move || {
        let numbers = 0u64..;
        numbers.map(u64::to_be_bytes).all(|number| writer.write_all(&[number; 128].concat()).is_ok())
    });
    let (numbers, received) = mpsc::sync_channel(16);
    thread::spawn(move || {
        let mut block = [0; 1024];
        let mut expected = 0u64;
        while receiver.read_exact(&mut block).is_ok() {
            assert!(block.chunks(8).all(|number| number == expected.to_be_bytes()), "block {expected} is whole");
            if numbers.send(expected).is_err() {
                return;
            }
            expected += 1;
        }
    });
    (received, sender)
}
