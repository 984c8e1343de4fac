//! The load itself: starts all that passes between the runners, rebinds their NATs, samples, and ends it in time. Not here: what is written down
//! ([`super::book`]).

#![expect(clippy::print_stderr, reason = "says where the run is")]

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Plan;
use super::book::{Book, Kind};
use super::bulk::{self, Lane};
use super::cast::{Cast, Member};
use super::echo::{self, Pair};
use super::watch::Usage;
use crate::interrupt::Interrupt;

const SAMPLE_EVERY: Duration = Duration::from_secs(5);
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What is under way may end within it.
const GRACE: Duration = Duration::from_secs(20);

const STEP: Duration = Duration::from_millis(50);

/// Loads it for as long as planned.
///
/// # Errors
/// If a process ends, or the user ends it.
pub(super) fn take(plan: &Plan, cast: &mut Cast, book: &Book, usage: &mut Usage, interrupt: &Interrupt) -> Result<()> {
    let pairs = pairs(&cast.members);
    let lanes = lanes(&pairs, plan);
    thread::scope(|scope| {
        let started = pairs.iter().try_for_each(|pair| echo::start(pair, book, scope));
        let started = started.and_then(|()| lanes.iter().try_for_each(|lane| bulk::start(lane, book, scope)));
        let outcome = started.and_then(|()| conduct(plan, cast, book, usage, interrupt));
        book.closing.store(true, Ordering::Relaxed);
        let graced = outcome.and_then(|()| grace(cast, book, interrupt));
        book.over.store(true, Ordering::Relaxed);
        graced
    })
}

/// The primary and each aux, and each aux and the next.
fn pairs(members: &[Member]) -> Vec<Pair> {
    let (home, aux) = (&members[0], &members[1..]);
    let mut pairs: Vec<Pair> = aux.iter().map(|other| pair(home, other)).collect();
    let around = aux.iter().zip(aux.iter().cycle().skip(1)).map(|(one, next)| pair(one, next));
    // Of two, both pairs are the same, and one alone has no next.
    pairs.extend(around.take(if aux.len() > 2 { aux.len() } else { aux.len() - 1 }));
    pairs
}

fn pair(one: &Member, other: &Member) -> Pair {
    Pair {
        name: format!("{} - {}", one.name, other.name),
        from: one.runner.clone(),
        to: other.runner.clone(),
        here: one.addr,
        there: other.addr,
    }
}

/// Both ways of each pair.
fn lanes(pairs: &[Pair], plan: &Plan) -> Vec<Lane> {
    let both = pairs.iter().flat_map(|pair| {
        [(&pair.from, &pair.to, pair.there), (&pair.to, &pair.from, pair.here)]
            .map(|(from, to, addr)| (format!("{} > {}", from.name(), to.name()), from.clone(), to.clone(), addr))
    });
    let lane = |(at, (name, from, to, addr))| Lane {
        name,
        from,
        to,
        addr,
        seed: plan.seed.wrapping_add(at),
        rate: plan.rate * 1e6,
    };
    (0..).zip(both).map(lane).collect()
}

fn conduct(plan: &Plan, cast: &mut Cast, book: &Book, usage: &mut Usage, interrupt: &Interrupt) -> Result<()> {
    let end = Instant::now() + plan.time();
    let every = Duration::from_secs(plan.rebind_every.into());
    let mut rebind = Clock::new(every);
    let (mut sample, mut tell) = (Clock::new(SAMPLE_EVERY), Clock::new(TELL_EVERY.min(plan.time() / 4)));
    let mut turn = 0;
    while Instant::now() < end {
        interrupt.pass(STEP)?;
        if !every.is_zero() && rebind.is_due() {
            let member = &cast.members[turn % cast.members.len()];
            book.note_rebinding(&member.name);
            member.runner.rebind()?;
            turn += 1;
        }
        if sample.is_due() {
            cast.nobody_ended()?;
            usage.sample(cast).context("look at the processes")?;
        }
        if tell.is_due() {
            eprintln!("bench load: {}", progress(book, usage));
        }
    }
    Ok(())
}

fn progress(book: &Book, usage: &Usage) -> String {
    let pause = |kind, aftermath| {
        book.pauses(kind, aftermath, |all| all.longest.first().map_or(0.0, |pause| pause.took.as_secs_f64()))
    };
    let pauses = Kind::ALL.map(|kind| format!("{:.1}/{:.1}", pause(kind, true), pause(kind, false)));
    format!(
        "{:>4} s, {} MB in {} transfers, {} corrupt, {} broken; longest pauses after rebindings / else: {} s; {}",
        book.elapsed().as_secs(),
        book.bytes.load(Ordering::Relaxed) / 1_000_000,
        book.whole.load(Ordering::Relaxed),
        book.corrupt().count,
        book.broken().count,
        pauses.join(", "),
        usage.line(),
    )
}

/// Nothing new begins; what is under way has this long.
fn grace(cast: &mut Cast, book: &Book, interrupt: &Interrupt) -> Result<()> {
    let end = Instant::now() + GRACE;
    while Instant::now() < end && book.busy.load(Ordering::Relaxed) > 0 {
        interrupt.pass(STEP)?;
    }
    cast.nobody_ended()
}

/// Is due every so often.
struct Clock {
    every: Duration,
    next: Instant,
}

impl Clock {
    fn new(every: Duration) -> Self {
        Self { every, next: Instant::now() + every }
    }

    fn is_due(&mut self) -> bool {
        let due = Instant::now() >= self.next;
        if due {
            self.next += self.every;
        }
        due
    }
}
