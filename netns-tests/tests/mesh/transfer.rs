//! A TCP transfer from one runner to another that runs until its test ends it: whether it stands, how long it stood still, and that what came is
//! what was sent. Not here: what happens to it meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use netns_tests::lab::{Runner, wait_until};
use sha2::{Digest, Sha256};
use socket2::SockRef;

/// 800 kB/s: enough to fill the queues on the way, and little for a machine that runs several labs.
const BLOCK: usize = 8_000;
const PACE: Duration = Duration::from_millis(10);

/// How TCP finds its pace, the same on every machine. Every kernel has this one, and it slows down where packets are lost.
const CONTROL: &[u8] = b"reno";

/// A transfer that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Transfer {
    more: mpsc::Sender<()>,
    ends: Ends,
    arrived: Arc<AtomicU64>,
    sent: JoinHandle<Option<Whole>>,
    received: JoinHandle<(Whole, Duration)>,
}

/// Both ends, which are let go with it: nothing reads or writes any more.
#[derive(Debug)]
struct Ends([TcpStream; 2]);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }
}

/// What one end has seen.
#[derive(Debug, PartialEq, Eq)]
struct Whole {
    bytes: u64,
    sha256: [u8; 32],
}

impl Transfer {
    /// Connects to an address of `to`, and begins.
    pub(crate) fn start(from: &Runner, to: &Runner, addr: Ipv4Addr) -> Self {
        let listener = to.enter(|| TcpListener::bind((addr, 0))).unwrap().unwrap();
        let there = listener.local_addr().unwrap();
        let sender = from.enter(|| TcpStream::connect_timeout(&there, crate::common::SOON)).unwrap().unwrap();
        let (receiver, _) = listener.accept().unwrap();
        SockRef::from(&sender).set_tcp_congestion(CONTROL).unwrap();
        let ends = Ends([&sender, &receiver].map(|end| end.try_clone().unwrap()));
        let (more, until) = mpsc::channel();
        let arrived = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&arrived);
        let sent = thread::spawn(move || send(sender, &until));
        let received = thread::spawn(move || receive(receiver, &counter));
        Self { more, ends, arrived, sent, received }
    }

    /// Whether it has neither ended nor been reset.
    pub(crate) fn stands(&self) -> bool {
        !self.sent.is_finished() && !self.received.is_finished()
    }

    /// Waits for so many bytes more.
    #[track_caller]
    pub(crate) fn assert_brings(&self, bytes: u64, within: Duration) {
        let arrived = || self.arrived.load(Ordering::Relaxed);
        let enough = arrived() + bytes;
        if let Err(error) = wait_until(within, "the transfer", || (arrived() >= enough).then_some(())) {
            panic!("{error:#}: {} of {enough} bytes, it stands: {}", arrived(), self.stands());
        }
    }

    /// Ends it, when the last byte has come; all must be as it was sent. The longest time for which nothing came.
    #[track_caller]
    pub(crate) fn assert_ends_whole(self, within: Duration) -> Duration {
        let Self { more, ends, sent, received, .. } = self;
        drop(more);
        let ended = || (sent.is_finished() && received.is_finished()).then_some(());
        let in_time = wait_until(within, "the end of the transfer", ended);
        drop(ends);
        let (sent, (received, pause)) = (sent.join().unwrap(), received.join().unwrap());
        in_time.unwrap();
        assert_eq!(Some(received), sent);
        pause
    }
}

/// Numbers, one block after the other, until nobody wants more; `None` when it was reset.
fn send(mut stream: TcpStream, until: &mpsc::Receiver<()>) -> Option<Whole> {
    let mut digest = Sha256::new();
    let mut bytes = 0;
    while until.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
        let block: Vec<u8> = (bytes..).step_by(8).take(BLOCK / 8).flat_map(u64::to_be_bytes).collect();
        stream.write_all(&block).ok()?;
        digest.update(&block);
        bytes += BLOCK as u64;
    }
    stream.shutdown(Shutdown::Write).ok()?;
    Some(Whole { bytes, sha256: digest.finalize().into() })
}

/// Everything up to the end, and the longest time for which nothing came.
fn receive(mut stream: TcpStream, arrived: &AtomicU64) -> (Whole, Duration) {
    let mut digest = Sha256::new();
    let mut buffer = [0; 1 << 16];
    let (mut last, mut pause) = (Instant::now(), Duration::ZERO);
    loop {
        match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(length) => {
                digest.update(&buffer[..length]);
                arrived.fetch_add(length as u64, Ordering::Relaxed);
                let now = Instant::now();
                pause = pause.max(now - last);
                last = now;
            }
        }
    }
    (Whole { bytes: arrived.load(Ordering::Relaxed), sha256: digest.finalize().into() }, pause)
}
