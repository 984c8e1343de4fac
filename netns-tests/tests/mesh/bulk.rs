//! Much at once, which travels in batches: it comes whole, whatever becomes of the devices. How fast it is, is for
//! `bench tunnel` to say.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use netns_tests::lab::{Nat, Runner, wait_until};
use netns_tests::stage::{Process, Stage, binary};
use serde_json::Value;

use crate::common::{SOON, assert_ends, transfer};

const PRIMARY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const AUX: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Several of the largest batches.
const MUCH: usize = 20_000_000;

struct Pair {
    primary: Process,
    aux: Process,
    home: Runner,
    away: Runner,
    stage: Stage,
}

/// Both are up.
fn pair(name: &str) -> Pair {
    let stage = Stage::new(name).unwrap();
    let [home, away] = ["home", "away"].map(|name| stage.runner(name, Nat::Masq).unwrap());
    let primary = stage.mesh(&home, &["primary", "--aux", "1", "--offload", "none"]).unwrap();
    let aux = stage.mesh(&away, &["aux", "--index", "0"]).unwrap();
    primary.wait_for("mesh is up: 1 of 1", SOON).unwrap();
    Pair { primary, aux, home, away, stage }
}

impl Pair {
    /// Each as it was sent, and in its order.
    #[track_caller]
    fn assert_datagrams_come(&self, sent: &[Vec<u8>]) {
        let receiver = self.away.enter(|| UdpSocket::bind((AUX, 0))).unwrap().unwrap();
        receiver.set_read_timeout(Some(SOON)).unwrap();
        let sender = self.home.enter(|| UdpSocket::bind((PRIMARY, 0))).unwrap().unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| sent.iter().for_each(|datagram| assert_eq!(sender.send(datagram).unwrap(), datagram.len())));
            let mut buffer = [0; 2000];
            for datagram in sent {
                let len = receiver.recv(&mut buffer).unwrap_or_else(|error| panic!("{error}: {}", self.dropped()));
                assert!(
                    buffer[..len] == datagram[..],
                    "{:?} and not {:?}: {}",
                    &buffer[..2],
                    &datagram[..2],
                    self.dropped()
                );
            }
        });
    }

    /// What the primary has dropped, by cause.
    fn dropped(&self) -> String {
        let mut status = self.home.command(binary().unwrap());
        let said =
            status.args(["status", "--json"]).env("MESH_CONTROL", self.stage.control(&self.home)).output().unwrap();
        let said: Value = serde_json::from_slice(&said.stdout).unwrap();
        said["dropped"].to_string()
    }

    #[track_caller]
    fn assert_comes_whole(&self, bytes: usize) {
        assert_eq!(transfer(&self.home, &self.away, &AUX.to_string(), bytes), bytes, "{}", self.primary.output());
    }
}

fn ip(runner: &Runner, args: &[&str]) {
    runner.netns().run("ip", args, "").unwrap();
}

#[test]
fn much_at_once_comes_whole_in_both_directions() {
    let pair = pair("bulk");
    thread::scope(|scope| {
        scope.spawn(|| pair.assert_comes_whole(MUCH));
        assert_eq!(transfer(&pair.away, &pair.home, &PRIMARY.to_string(), MUCH), MUCH);
    });
    for process in [&pair.primary, &pair.aux] {
        assert!(!process.output().contains("M602"), "{}", process.output());
    }
}

#[test]
fn datagrams_keep_their_bounds_and_their_order() {
    let pair = pair("datagrams");
    // Few enough for the buffer of the receiver's socket, and of every length that is treated in another way.
    let sent: Vec<Vec<u8>> = (0..60u8).map(|at| vec![at; [1392, 1392, 700, 1, 1392, 0][usize::from(at) % 6]]).collect();
    pair.assert_datagrams_come(&sent);
}

#[test]
fn a_slow_way_out_holds_packets_back_and_loses_none() {
    let pair = pair("slow");
    // More than the socket's buffer fits into its queue, so it is the socket that is full.
    let slow = ["qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "40mbit", "burst", "16kb", "latency", "4s"];
    pair.home.netns().run("tc", &slow, "").unwrap();
    // Three times what the socket's buffer takes, and less than the device's queue.
    let sent: Vec<Vec<u8>> = (0..900u16).map(|at| at.to_be_bytes().repeat(696)).collect();
    pair.assert_datagrams_come(&sent);
    let said = pair.primary.output();
    assert!(!said.contains("does not answer") && !said.contains("M50"), "{said}");
}

/// Likewise, with calls of the primary's that fail as strace's `inject=` has it.
fn faulty_pair(name: &str, faults: &[&str]) -> Pair {
    let stage = Stage::new(name).unwrap();
    let [home, away] = ["home", "away"].map(|name| stage.runner(name, Nat::Masq).unwrap());
    let mut strace = vec!["strace", "-f", "--quiet=all", "-o", "/dev/null", "-e", "trace=sendmsg,read"];
    strace.extend(faults.iter().flat_map(|fault| ["-e", fault]));
    let primary = stage.mesh_under(&home, &strace, &["primary", "--aux", "1", "--offload", "none"], &[]).unwrap();
    let aux = stage.mesh(&away, &["aux", "--index", "0"]).unwrap();
    primary.wait_for("mesh is up: 1 of 1", SOON).unwrap();
    Pair { primary, aux, home, away, stage }
}

#[test]
fn a_system_without_memory_and_a_device_that_fails_cost_packets_and_nothing_else() {
    let pair = faulty_pair("faults", &["inject=sendmsg:error=ENOBUFS:when=100+9", "inject=read:error=EIO:when=100+9"]);
    pair.assert_comes_whole(MUCH / 4);
    for cause in ["datagram the system would not send", "TUN device read error"] {
        assert!(pair.dropped().contains(cause), "{}", pair.dropped());
    }
    for process in [&pair.primary, &pair.aux] {
        assert!(!process.output().contains("M60"), "{}", process.output());
    }
}

#[test]
fn a_full_socket_loses_nothing_that_holds_the_mesh_together() {
    let pair = faulty_pair("full", &["inject=sendmsg:error=EAGAIN:when=2+3"]);
    pair.assert_comes_whole(MUCH / 4);
    assert!(!pair.dropped().contains("datagram"), "{}", pair.dropped());
}

#[test]
fn a_device_whose_queue_is_full_while_nobody_reads_it_carries_again() {
    let pair = pair("queue");
    pair.primary.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
    let sender = pair.home.enter(|| UdpSocket::bind((PRIMARY, 0))).unwrap().unwrap();
    for _ in 0..5000 {
        // The kernel tells nobody of what it drops, and a full queue may be told as ENOBUFS.
        let _ = sender.send_to(&[0; 1392], (AUX, 9));
    }
    let link = pair.home.netns().run("ip", &["-json", "-s", "link", "show", "dev", "mesh0"], "").unwrap();
    let link: Value = serde_json::from_str(&link).unwrap();
    assert!(link[0]["stats64"]["tx"]["dropped"].as_u64().unwrap() > 0, "it is full: {link}");
    pair.primary.signal(nix::sys::signal::Signal::SIGCONT).unwrap();
    pair.assert_comes_whole(MUCH);
}

#[test]
fn a_device_that_goes_down_carries_again_when_it_is_up() {
    let pair = pair("down");
    pair.assert_comes_whole(1000);
    for state in ["down", "up"] {
        ip(&pair.home, &["link", "set", "mesh0", state]);
    }
    pair.assert_comes_whole(MUCH);
}

#[test]
fn an_interface_that_becomes_narrow_is_noticed_and_a_connection_that_stands_goes_on() {
    let pair = pair("narrowed");
    let listener = pair.away.enter(|| TcpListener::bind((AUX, 0))).unwrap().unwrap();
    let there = listener.local_addr().unwrap();
    let mut sender = pair.home.enter(|| TcpStream::connect_timeout(&there, SOON)).unwrap().unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(SOON)).unwrap();
    ip(&pair.home, &["link", "set", "eth0", "mtu", "1300"]);
    let writer = thread::spawn(move || std::io::Write::write_all(&mut sender, &vec![7; MUCH]));
    let mut received = vec![];
    receiver
        .read_to_end(&mut received)
        .unwrap_or_else(|error| panic!("{error}: {} bytes\n{}", received.len(), pair.primary.output()));
    writer.join().unwrap().unwrap();
    assert_eq!(received.len(), MUCH);
    pair.primary.wait_for("M402", SOON).unwrap();
    assert!(!pair.primary.output().contains("M602"), "batches are not what is refused: {}", pair.primary.output());
}

#[test]
fn a_device_that_is_removed_ends_an_aux_and_not_a_build() {
    let mut pair = pair("removed");
    for runner in [&pair.home, &pair.away] {
        ip(runner, &["link", "del", "mesh0"]);
    }
    pair.primary.wait_for("M606", SOON).unwrap();
    assert_eq!(pair.aux.wait(SOON).unwrap(), 86, "{}", pair.aux.output());
    // Nothing spins where nothing can be read.
    let before = pair.primary.cpu().unwrap();
    let start = std::time::Instant::now();
    wait_until(SOON, "two seconds", || (start.elapsed() > Duration::from_secs(2)).then_some(())).unwrap();
    let spent = pair.primary.cpu().unwrap() - before;
    assert!(spent < Duration::from_millis(500), "{spent:?} of CPU in two seconds");
    pair.primary.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_ends(&mut pair.primary, 143);
}
