//! Small messages to and fro, every so often: a request and its answer over TCP, and datagrams of many sizes. Not here: what their pauses mean.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::thread::{Scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::book::{Book, Kind, Pulse};
use super::content;
use super::patient::{self, Patient, STEP};
use crate::lab::Runner;

/// Between two requests, and between two datagrams.
const PACE: Duration = Duration::from_millis(50);

const REQUEST: usize = 200;

/// Of datagrams; the largest is what the overlay takes whole (1420 less 20 and 8).
const SIZES: std::ops::Range<u64> = 16..1393;

/// After a connection that broke.
const REST: Duration = Duration::from_secs(1);

/// Who asks whom.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) from: Runner,
    pub(super) to: Runner,
    pub(super) here: Ipv4Addr,
    pub(super) there: Ipv4Addr,
}

/// All four ends begin, each on a thread.
pub(super) fn start<'scope>(pair: &'scope Pair, book: &'scope Book, scope: &'scope Scope<'scope, '_>) -> Result<()> {
    let listener = patient::listen(&pair.to, pair.there)?;
    let server = listener.local_addr()?;
    let [near, far] = [socket(&pair.from, pair.here)?, socket(&pair.to, pair.there)?];
    let there = far.local_addr()?;
    scope.spawn(move || {
        while let Some(stream) = patient::accept(&listener, book) {
            // Why it broke is what the asking side tells.
            let _ = answer(stream);
        }
    });
    scope.spawn(move || book.busily(|| ask(pair, server, book)));
    scope.spawn(move || send_back(&far, pair, book));
    scope.spawn(move || book.busily(|| send_datagrams(&near, there, pair, book)));
    Ok(())
}

fn socket(runner: &Runner, addr: Ipv4Addr) -> Result<UdpSocket> {
    let socket = runner.enter(|| UdpSocket::bind((addr, 0)))?.with_context(|| format!("a UDP socket on {addr}"))?;
    socket.set_read_timeout(Some(STEP))?;
    Ok(socket)
}

fn answer(mut stream: Patient<'_>) -> Result<()> {
    let mut message = [0; REQUEST];
    while stream.read_all(&mut message)? {
        stream.write_all(&message)?;
    }
    Ok(())
}

fn ask(pair: &Pair, server: SocketAddr, book: &Book) {
    let pulse = Pulse::new(book, Kind::Request, &pair.name);
    while !book.is_closing() {
        let outcome = ask_on(pair, server, book, &pulse);
        pulse.stop();
        if let Err(error) = outcome {
            book.note_broken(format!("requests of {}: {error:#}", pair.name));
            sleep(REST);
        }
    }
}

/// On one connection, until the load closes.
fn ask_on(pair: &Pair, server: SocketAddr, book: &Book, pulse: &Pulse<'_>) -> Result<()> {
    let mut stream = patient::connect(&pair.from, server, book, &pair.name)?;
    let mut message = [0; REQUEST];
    pulse.beat();
    for number in 0.. {
        if book.is_closing() {
            break;
        }
        stream.write_all(&content::message(number, REQUEST))?;
        ensure!(stream.read_all(&mut message)?, "no answer");
        pulse.beat();
        if content::number(&message) != Some(number) {
            book.note_corrupt(format!("{}: answer {number}", pair.name));
        }
        book.answers.fetch_add(1, Ordering::Relaxed);
        sleep(PACE);
    }
    Ok(())
}

/// An error is an ICMP message, which datagrams outlive.
fn send_back(socket: &UdpSocket, pair: &Pair, book: &Book) {
    let mut buffer = [0; 2048];
    while !book.is_over() {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        check(&buffer[..len], pair, book);
        let _ = socket.send_to(&buffer[..len], from);
    }
}

fn send_datagrams(socket: &UdpSocket, there: SocketAddr, pair: &Pair, book: &Book) {
    let pulse = Pulse::new(book, Kind::Datagram, &pair.name);
    let mut next = Instant::now();
    for number in 0_u64.. {
        if book.is_closing() {
            break;
        }
        let size = SIZES.start + number.wrapping_mul(7919) % (SIZES.end - SIZES.start);
        let _ = socket.send_to(&content::message(number, size as usize), there);
        book.datagrams.fetch_add(1, Ordering::Relaxed);
        next = (next + PACE).max(Instant::now());
        hear(socket, next, pair, book, &pulse);
    }
    pulse.stop();
}

/// Until then.
fn hear(socket: &UdpSocket, until: Instant, pair: &Pair, book: &Book, pulse: &Pulse<'_>) {
    let mut buffer = [0; 2048];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // A timeout of zero would be none.
        if left < Duration::from_millis(1) || socket.set_read_timeout(Some(left)).is_err() {
            return;
        }
        if let Ok((len, _)) = socket.recv_from(&mut buffer)
            && check(&buffer[..len], pair, book)
        {
            book.echoes.fetch_add(1, Ordering::Relaxed);
            pulse.beat();
        }
    }
}

fn check(datagram: &[u8], pair: &Pair, book: &Book) -> bool {
    let good = content::number(datagram).is_some();
    if !good {
        book.note_corrupt(format!("{}: a datagram of {} bytes", pair.name, datagram.len()));
    }
    good
}
