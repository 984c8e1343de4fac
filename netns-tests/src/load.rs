//! Mixed load over a mesh whose network loses and reorders packets, and whose NATs are rebound in turn: nothing may be corrupt, leak, or stand still
//! for long. Figures, and a verdict ([`verdict`]). Not here: how fast the tunnel is at its best ([`crate::tunnel`]).

mod book;
mod bulk;
mod cast;
mod content;
mod echo;
mod patient;
mod silence;
mod table;
mod turn;
mod verdict;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use self::book::Book;
use self::cast::Cast;
use self::watch::Usage;
use crate::interrupt::{Interrupt, Interrupted};

/// How much, and of what.
#[derive(Debug, Clone, Args)]
pub struct Plan {
    /// How many aux
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=20))]
    pub aux: u16,
    /// How long
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u16).range(10..=3600))]
    pub seconds: u16,
    /// A NAT is rebound this often, in seconds, each runner's in turn; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub rebind_every: u16,
    /// Of each link, one way, in ms
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub delay: u16,
    /// Of each link, in per cent of the packets
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    pub loss: f32,
    /// Packets that overtake others, in per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    pub reorder: f32,
    /// Most of each lane of transfers, in MB/s, so that the machine has time for other work; 0: as fast as it goes
    #[arg(long, value_name = "MBPS", default_value_t = 0.0, value_parser = rate)]
    pub rate: f64,
    /// Nothing may stand still for longer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub stall: f32,
    /// With a `mesh relay` that all know
    #[arg(long)]
    pub relay: bool,
    /// Of sizes and contents
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How much every `mesh` says
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: String,
    /// Where to keep what every `mesh` said, and every sample of what it held
    #[arg(long, value_name = "FOLDER")]
    pub logs: Option<PathBuf>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.0..=10_000.0).contains(rate));
    rate.ok_or_else(|| format!("`{text}` is not within 0 to 10000"))
}

impl Plan {
    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    fn stall(&self) -> Duration {
        Duration::try_from_secs_f32(self.stall).unwrap_or(Duration::MAX)
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The figures, as Markdown.
    pub text: String,
    /// Which promises were broken, and how.
    pub complaints: Vec<String>,
    /// Whether the user ended it early.
    pub interrupted: bool,
}

/// Forms a mesh, loads it, and says on stderr where it is.
///
/// # Errors
/// If no mesh comes about.
pub fn run(plan: &Plan, interrupt: &Interrupt) -> Result<Outcome> {
    let mut cast = Cast::start(plan, interrupt)?;
    let (book, mut usage) = (Book::new(plan.stall()), Usage::new(&cast));
    let turn = turn::take(plan, &mut cast, &book, &mut usage, interrupt);
    usage.finish(&cast);
    let mut complaints = verdict::of(plan, &book, &usage);
    let interrupted = turn.as_ref().is_err_and(|error| error.is::<Interrupted>());
    complaints.extend(turn.err().filter(|_| !interrupted).map(|error| format!("{error:#}")));
    complaints.extend(cast.end());
    if let Some(folder) = &plan.logs {
        cast.keep_logs(folder)?;
        usage.keep(&folder.join("usage.csv"))?;
    }
    Ok(Outcome { text: table::markdown(plan, &book, &usage, &cast), complaints, interrupted })
}
