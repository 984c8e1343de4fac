//! What it costs that runners share their caches: CPU and latency against their number ([`cost`]), latency over the real overlay ([`latency`]), a large blob
//! that many want at once ([`spread`]), and a build whose peers freeze ([`frozen`]). Figures, no verdict.

#![expect(clippy::print_stderr, reason = "says where it is")]

mod cost;
mod frozen;
mod latency;
mod spread;
mod statistics;

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use mesh::link::clock;

use crate::interrupt::{Interrupt, Interrupted};

/// How much, and how often.
#[derive(Debug, Clone, Args)]
pub struct Plan {
    /// Which parts; all if none is named
    pub parts: Vec<Part>,
    /// How often each is measured; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Operations of each kind in a round, in `cost` and `latency`
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(10..=2000))]
    pub count: u16,
    /// How many runners, in `cost`
    #[arg(long, value_delimiter = ',', default_value = "2,4,8,16,32,64", value_parser = clap::value_parser!(u16).range(2..=128))]
    pub runners: Vec<u16>,
    /// How large the blob is, in `spread`
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub megabytes: u16,
    /// Each runner's link, each way, in `spread`, in Mbit/s
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub mbit: u16,
    /// One short round of each, to see that it works
    #[arg(long)]
    pub quick: bool,
}

/// A part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// CPU and latency of each operation against the number of runners, on loopback
    Cost,
    /// Hits and misses over the real overlay beside a round trip
    Latency,
    /// A large blob to eight runners beside one
    Spread,
    /// A build without the cache, with it, and with all peers frozen
    Frozen,
}

impl Plan {
    fn parts(&self) -> &[Part] {
        if self.parts.is_empty() { Part::value_variants() } else { &self.parts }
    }

    fn rounds(&self) -> u16 {
        if self.quick { 1 } else { self.rounds }
    }

    fn count(&self) -> usize {
        usize::from(if self.quick { self.count.min(100) } else { self.count })
    }

    fn runners(&self) -> Vec<u16> {
        self.runners.iter().copied().filter(|count| !self.quick || *count <= 8).collect()
    }

    fn megabytes(&self) -> u16 {
        if self.quick { self.megabytes.min(50) } else { self.megabytes }
    }

    fn idle(&self) -> Duration {
        Duration::from_secs(if self.quick { 2 } else { 10 })
    }
}

/// Measures the parts in turn, and tells each one's table as soon as there is one. The plot of [`Part::Cost`], as SVG.
///
/// # Errors
/// If something cannot start, or does not do what it should.
pub fn run(plan: &Plan, interrupt: &Interrupt, mut tell: impl FnMut(&str)) -> Result<Option<String>> {
    let (mut plot, day) = (None, clock::rfc3339_now());
    tell(&format!("{}\n", &day[..day.len().min(10)]));
    for part in plan.parts() {
        tell(&match part {
            Part::Cost => {
                let figures = cost::measure(plan, interrupt)?;
                plot = Some(cost::svg(&figures));
                cost::markdown(plan, &figures)
            }
            Part::Latency => latency::measure(plan, interrupt)?,
            Part::Spread => spread::measure(plan, interrupt)?,
            Part::Frozen => frozen::measure(plan, interrupt)?,
        });
    }
    Ok(plot)
}

fn begin(interrupt: &Interrupt, what: &str) -> Result<()> {
    if interrupt.came() {
        bail!(Interrupted);
    }
    eprintln!("bench sharing: {what}");
    Ok(())
}
