//! CPU and latency of each operation against the number of runners, all in this process and on loopback, each with its own store. Not here: the runners
//! ([`crowd`]), and the plot ([`plot`]).

mod crowd;
mod plot;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh::cache::store::Name;
use nix::time::{ClockId, clock_gettime};

use self::crowd::{Act, Crowd, Deed, Share};
pub(super) use self::plot::svg;
use super::statistics::{median, micros, rank};
use super::{Plan, begin};
use crate::interrupt::Interrupt;

/// Before the first round, so that connections and memory are there.
const WARM_UP: usize = 50;

/// The operations, in the order of a round.
pub(super) const WHAT: [&str; 4] = ["put", "hit on a peer", "hit here", "known miss"];

/// Of one operation: microseconds of CPU of all runners, and until it was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) cpu: f64,
    pub(super) half: f64,
    pub(super) most: f64,
    /// How many went another way than they should.
    astray: usize,
}

/// With so many runners.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) runners: u16,
    /// By [`WHAT`]; `None` where there is nobody to do it.
    pub(super) readings: [Option<Reading>; 4],
    /// Of one runner, in milliseconds of CPU a second.
    pub(super) idle: f64,
}

/// # Errors
/// If the runners cannot start, or do not find each other.
pub(super) fn measure(plan: &Plan, interrupt: &Interrupt) -> Result<Vec<Figures>> {
    plan.runners().into_iter().map(|count| of_so_many(plan, interrupt, count)).collect()
}

fn of_so_many(plan: &Plan, interrupt: &Interrupt, runners: u16) -> Result<Figures> {
    begin(interrupt, &format!("cost, {runners} runners"))?;
    let crowd = Crowd::start(runners)?;
    Round { crowd: &crowd, idle: 0.0, number: 0 }.run(WARM_UP)?;
    let idle = idle(interrupt, plan.idle())?;
    let mut all: [Vec<Reading>; 4] = Default::default();
    for number in 1..=plan.rounds() {
        begin(interrupt, &format!("cost, {runners} runners, round {number} of {}", plan.rounds()))?;
        let readings = Round { crowd: &crowd, idle, number }.run(plan.count())?;
        all.iter_mut().zip(readings).for_each(|(all, one)| all.extend(one));
    }
    let readings = all.map(|readings| (!readings.is_empty()).then(|| middle(&readings)));
    Ok(Figures { runners, readings, idle: idle * 1000.0 / f64::from(runners) })
}

fn middle(readings: &[Reading]) -> Reading {
    let of = |part: fn(&Reading) -> f64| median(readings.iter().map(part));
    Reading {
        cpu: of(|one| one.cpu),
        half: of(|one| one.half),
        most: of(|one| one.most),
        astray: readings.iter().map(|one| one.astray).sum(),
    }
}

/// Of this process, all of its threads.
fn cpu() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).context("read the process's CPU clock")?.into())
}

/// Seconds of CPU a second while nobody asks.
fn idle(interrupt: &Interrupt, time: Duration) -> Result<f64> {
    let (began, before) = (Instant::now(), cpu()?);
    interrupt.pass(time)?;
    Ok((cpu()? - before).as_secs_f64() / began.elapsed().as_secs_f64())
}

/// Each operation so many times.
struct Round<'a> {
    crowd: &'a Crowd,
    /// Seconds of CPU a second that are nobody's.
    idle: f64,
    number: u16,
}

impl Round<'_> {
    fn run(&self, count: usize) -> Result<[Option<Reading>; 4]> {
        let names = |what: &str| -> Result<Vec<Name>> {
            (0..count).map(|at| Ok(Name::new("bench", format!("{what} {}/{at}", self.number))?)).collect()
        };
        let (there, absent) = (names("there")?, names("absent")?);
        let writers = self.crowd.writers(&there);
        let told = self.crowd.told() + self.crowd.to_tell(&writers);
        let put = self.measure(&writers, Act::Put, || self.crowd.wait_for_told(told))?;
        let readers = self.crowd.readers(&there);
        self.crowd.wait_for_news(&readers)?;
        let find = |shares: &[Share]| self.measure(shares, Act::Find, || Ok(()));
        let strangers = readers.iter().any(|share| !share.names.is_empty());
        let far = strangers.then(|| find(&readers)).transpose()?;
        let near = find(if strangers { &readers } else { &writers })?;
        let before = self.crowd.known_misses();
        let mut miss = self.measure(&self.crowd.writers(&absent), Act::Find, || Ok(()))?;
        miss.astray = count - (self.crowd.known_misses() - before) as usize;
        Ok([Some(put), far, Some(near), Some(miss)])
    }

    /// What all do costs until `end` has returned too; what idling takes meanwhile is nobody's.
    fn measure(&self, shares: &[Share], act: Act, end: impl FnOnce() -> Result<()>) -> Result<Reading> {
        let (began, before) = (Instant::now(), cpu()?);
        let deeds = self.crowd.act(shares, act)?;
        end()?;
        let spent = (cpu()? - before).as_secs_f64() - self.idle * began.elapsed().as_secs_f64();
        let times = || deeds.iter().map(|Deed { took, .. }| micros(*took));
        Ok(Reading {
            cpu: spent * 1e6 / deeds.len() as f64,
            half: median(times()),
            most: rank(times(), 0.99),
            astray: deeds.iter().filter(|deed| !deed.done).count(),
        })
    }
}

/// A line for each number of runners.
pub(super) fn markdown(plan: &Plan, all: &[Figures]) -> String {
    let mut text = format!(
        "\nCost: runners in one process on loopback, all of which listen to all. Of one operation with 4 KB, one after the other: µs of CPU of all runners together without what \
         idling takes, and µs until it is answered (p50 / p99); {} operations a round, median of {} rounds. *Put*: CPU until the homes have it. *Astray*: look-ups that were not \
         what their column says. *Idle*: ms of CPU a second, of each runner.\n\n| runners |",
        plan.count(),
        plan.rounds()
    );
    // Writing to a string cannot fail.
    for what in WHAT {
        let _ = write!(text, " {what}: CPU | p50 / p99 |");
    }
    text += " idle | astray |\n|---|---|---|---|---|---|---|---|---|---|---|\n";
    for Figures { runners, readings, idle } in all {
        let _ = write!(text, "| {runners} |");
        for reading in readings {
            let _ = match reading {
                Some(Reading { cpu, half, most, .. }) => write!(text, " {cpu:.0} | {half:.0} / {most:.0} |"),
                None => write!(text, " - | - |"),
            };
        }
        let astray: usize = readings.iter().flatten().map(|reading| reading.astray).sum();
        let _ = writeln!(text, " {idle:.2} | {astray} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runners_are_both_home_so_neither_hits_on_the_other() {
        let reading = Reading { cpu: 10.2, half: 5.0, most: 7.6, astray: 1 };
        let plan = Plan { parts: vec![], rounds: 3, count: 500, runners: vec![2], megabytes: 1, mbit: 1, quick: false };
        let readings = [Some(reading), None, Some(reading), Some(reading)];

        let text = markdown(&plan, &[Figures { runners: 2, readings, idle: 0.123 }]);

        assert!(text.ends_with("| 2 | 10 | 5 / 8 | - | - | 10 | 5 / 8 | 10 | 5 / 8 | 0.12 | 3 |\n"), "{text}");
    }
}
