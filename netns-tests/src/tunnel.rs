//! What the tunnel carries, beside boringtun, gotatun and wireguard-go: each joins the same namespaces over the same veth pair, and they take turns.
//! Figures as tables ([`table`]) and as a plot ([`plot`]); no verdict. Not here: how a mesh forms, and what it costs while it idles.

mod contender;
mod figures;
mod ground;
mod iperf;
mod machine;
mod measure;
mod others;
mod ours;
mod ping;
mod plot;
mod progress;
mod table;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

pub use self::contender::Contender;
use self::contender::Present;
use self::figures::Reading;
pub use self::figures::{Figures, Section};
use self::ground::{Arena, Shape};
use self::machine::Machine;
use self::measure::Step;
pub use self::plot::svg;
use self::progress::Progress;
pub use self::table::markdown;
use crate::interrupt::Interrupt;

/// What is measured, and of whom.
#[derive(Debug, Clone, Args)]
pub struct Plan {
    /// Who takes part; the veth is what there is without a tunnel
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Contender::ALL)]
    pub peers: Vec<Contender>,
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    pub only: Vec<Kind>,
    /// How often each has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// How long each stream runs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub seconds: u16,
    /// The grid's delays, one way, in ms
    #[arg(long, value_name = "MS", value_delimiter = ',', default_value = "0,10,40", value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub delay: Vec<u16>,
    /// The grid's losses, each way, in per cent of the packets
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_value = "0,0.1,1", value_parser = percent)]
    pub loss: Vec<f32>,
    /// TCP's congestion control, such as cubic [default: the machine's]
    #[arg(long, value_name = "NAME")]
    pub congestion: Option<String>,
    /// Which wireguard-go: Debian 12's is of 2022, without any offload
    #[arg(long, value_name = "PATH", env = "WIREGUARD_GO", default_value = "wireguard-go")]
    pub wireguard_go: PathBuf,
}

/// A group of measurements over one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// 1 and 8 TCP streams, each way and both
    Streams,
    /// Round trips, idle and beside a stream
    Rtt,
    /// One stream over delay and loss
    Grid,
    /// A hub with 8 spokes, to the hub and from it
    Star,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Streams, Self::Rtt, Self::Grid, Self::Star];

    fn shape(self) -> Shape {
        match self {
            Self::Streams | Self::Rtt => Shape::Pair,
            Self::Grid => Shape::Cable,
            Self::Star => Shape::Star,
        }
    }

    /// How many streams are run, one after the other.
    fn runs(self, plan: &Plan) -> usize {
        match self {
            Self::Streams => 6,
            Self::Rtt => 1,
            Self::Grid => plan.delay.len() * plan.loss.len(),
            Self::Star => 2,
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// All that was measured.
    pub figures: Figures,
    /// The conditions, as Markdown.
    pub conditions: String,
    /// Measurements that came to nothing; stderr said why.
    pub failures: usize,
    /// Whether the user ended it early.
    pub interrupted: bool,
}

/// Measures all of it, and says on stderr where it is. Who is not installed is left out.
///
/// # Errors
/// If nobody can be measured.
pub fn run(plan: &Plan, interrupt: &Interrupt) -> Result<Outcome> {
    let (progress, mut outcome) = (Progress::default(), Outcome::default());
    let present = contender::present(plan, &progress)?;
    let machine = Machine::now()?;
    progress.note(&format!(
        "about {} minutes, with the machine as busy as {}",
        minutes(plan, present.len()),
        machine.load
    ));
    for turn in turns(plan, interrupt, &present) {
        turn.take(&mut outcome, &progress);
        if interrupt.came() {
            outcome.interrupted = true;
            break;
        }
    }
    outcome.conditions = machine.conditions(plan, &present)?;
    Ok(outcome)
}

/// At least. Making and ending namespaces and tunnels takes about 4 s, and a stream a second more than it runs.
fn minutes(plan: &Plan, contenders: usize) -> usize {
    let turn: usize = plan.only.iter().map(|kind| 4 + kind.runs(plan) * (usize::from(plan.seconds) + 1)).sum();
    (turn * contenders * usize::from(plan.rounds)).div_ceil(60)
}

/// Within a round, all contenders have a kind of measurement before the next kind: what is compared lies close in time.
fn turns<'a>(plan: &'a Plan, interrupt: &'a Interrupt, present: &[Present]) -> Vec<Turn<'a>> {
    let mut turns = vec![];
    for round in 1..=plan.rounds {
        for kind in &plan.only {
            let turn = |one: &Present| Turn { plan, interrupt, contender: one.contender, kind: *kind, round };
            turns.extend(present.iter().map(turn));
        }
    }
    turns
}

/// One contender's turn at one kind of measurement.
struct Turn<'a> {
    plan: &'a Plan,
    interrupt: &'a Interrupt,
    contender: Contender,
    kind: Kind,
    round: u16,
}

impl Turn<'_> {
    /// What fails is said and counted; the other measurements go on.
    fn take(&self, outcome: &mut Outcome, progress: &Progress) {
        let Self { plan, interrupt, contender, kind, round } = self;
        let whose = format!("round {round} of {}, {}", plan.rounds, contender.name());
        progress.begin(&whose, "set the tunnel up");
        let arena = progress.end(Arena::new(kind.shape(), *contender, plan, interrupt), |_| "done".into());
        let Some(arena) = arena else { return outcome.failures += 1 };
        for Step { what, run } in measure::steps(*kind, plan, interrupt, &arena) {
            if interrupt.came() {
                return;
            }
            progress.begin(&whose, &what);
            match progress.end(run(), |readings| shown(readings)) {
                Some(readings) => outcome.figures.add(*contender, *round, readings),
                None => outcome.failures += 1,
            }
        }
    }
}

fn shown(readings: &[Reading]) -> String {
    readings.first().map_or_else(|| "done".into(), |reading| reading.section.show(reading.value))
}

fn percent(text: &str) -> Result<f32, String> {
    let share = text.parse().ok().filter(|share| (0.0..=100.0).contains(share));
    share.ok_or_else(|| "not within 0 to 100".into())
}
