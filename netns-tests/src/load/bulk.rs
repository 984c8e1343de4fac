//! Transfers back to back, one way: each a connection of its own, of a random size, as fast as it goes or may. Whoever receives compares every byte with
//! what was to come, and says how many there were. Not here: between whom.

use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::book::{Book, Kind, Pulse};
use super::content;
use super::patient::{self, Patient};
use super::silence;
use crate::lab::Runner;

/// As many small ones as large ones, on a logarithmic scale.
const SIZES: (f64, f64) = (10e3, 50e6);

const BLOCK: usize = 1 << 16;

/// After a transfer that broke.
const REST: Duration = Duration::from_secs(1);

/// Whether all was as it should, and how many bytes there were.
const ANSWER: usize = 9;

/// From whom to whom.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) from: Runner,
    pub(super) to: Runner,
    pub(super) addr: Ipv4Addr,
    pub(super) seed: u64,
    /// Bytes a second at most; none, where it is 0.
    pub(super) rate: f64,
}

/// Both ends begin, each on a thread.
pub(super) fn start<'scope>(lane: &'scope Lane, book: &'scope Book, scope: &'scope Scope<'scope, '_>) -> Result<()> {
    let listener = patient::listen(&lane.to, lane.addr)?;
    let there = listener.local_addr()?;
    scope.spawn(move || {
        let (pulse, port) = (Pulse::new(book, Kind::Bulk, &lane.name), AtomicU16::default());
        std::thread::scope(|both| {
            both.spawn(|| silence::watch(&lane.from, &lane.name, &port, &pulse, book));
            both.spawn(|| {
                while let Some(stream) = patient::accept(&listener, book) {
                    // Why it broke is what the sender tells.
                    let _ = receive(stream, lane, book, &pulse);
                }
            });
            book.busily(|| send(lane, there, book, &pulse, &port));
        });
    });
    Ok(())
}

fn send(lane: &Lane, there: SocketAddr, book: &Book, pulse: &Pulse<'_>, port: &AtomicU16) {
    let mut chance = StdRng::seed_from_u64(lane.seed);
    while !book.is_closing() {
        let (least, most) = SIZES;
        let size = chance.random_range(least.ln()..most.ln()).exp() as u64;
        let connected = patient::connect(&lane.from, there, book, &lane.name);
        let outcome = connected.and_then(|stream| {
            port.store(stream.stream.local_addr()?.port(), Ordering::Relaxed);
            transfer(stream, lane, size, chance.random(), pulse)
        });
        pulse.stop();
        match outcome {
            Ok(()) => drop(book.whole.fetch_add(1, Ordering::Relaxed)),
            Err(error) => {
                book.note_broken(format!("{}: {error:#}, of {size} bytes", lane.name));
                std::thread::sleep(REST);
            }
        }
    }
}

/// One that is under way when the load closes ends early, and is judged by what was sent.
fn transfer(mut stream: Patient<'_>, lane: &Lane, size: u64, seed: u64, pulse: &Pulse<'_>) -> Result<()> {
    let book = stream.book;
    pulse.beat();
    stream.write_all(&seed.to_be_bytes())?;
    let (mut sent, mut scratch, started) = (0, vec![], Instant::now());
    while sent < size && !book.is_closing() {
        let due = started + pace(sent, lane.rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let len = (size - sent).min(BLOCK as u64) as usize;
        stream.write_all(content::bytes(seed, sent, len, &mut scratch))?;
        sent += len as u64;
    }
    stream.stream.shutdown(Shutdown::Write)?;
    let mut answer = [0; ANSWER];
    ensure!(stream.read_all(&mut answer)?, "no answer");
    pulse.beat();
    let counted = u64::from_be_bytes(answer[1..].try_into()?);
    if answer[0] == 0 || counted != sent {
        book.note_corrupt(format!("{}: a transfer of {sent} bytes, of which {counted} came", lane.name));
    }
    Ok(())
}

/// How long so many bytes take at this rate.
fn pace(bytes: u64, rate: f64) -> Duration {
    if rate > 0.0 { Duration::from_secs_f64(bytes as f64 / rate) } else { Duration::ZERO }
}

fn receive(mut stream: Patient<'_>, lane: &Lane, book: &Book, pulse: &Pulse<'_>) -> Result<()> {
    let mut seed = [0; 8];
    ensure!(stream.read_all(&mut seed)?, "no seed");
    let seed = u64::from_be_bytes(seed);
    let (mut count, mut good) = (0_u64, true);
    let (mut buffer, mut scratch) = (vec![0; 4 * BLOCK], vec![]);
    loop {
        let len = stream.read(&mut buffer)?;
        pulse.beat();
        if len == 0 {
            break;
        }
        if good && buffer[..len] != *content::bytes(seed, count, len, &mut scratch) {
            good = false;
            book.note_corrupt(format!("{}: bytes of a transfer between {count} and {}", lane.name, count + len as u64));
        }
        count += len as u64;
        book.bytes.fetch_add(len as u64, Ordering::Relaxed);
    }
    stream.write_all(&[&[u8::from(good)][..], &count.to_be_bytes()].concat())
}
