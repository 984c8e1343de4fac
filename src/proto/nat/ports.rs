//! How does this NAT draw the port of a new mapping? Read from the ports of those it made one after another (RFC 4787 section 4.2). To
//! guess with it is not here but in [`super::super::guess`].

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Sample;

/// The least number of mappings that show a rule; two are close to each other by chance too often.
const ENOUGH: usize = 3;

/// The longest step that counts as one.
const LONGEST_STEP: i32 = 16;

/// How many steps other hosts behind the NAT may take between two of ours.
const GAP: i32 = 16;

/// From how many steps on one of them may be anything: the end of the pool, from which the NAT starts over.
const WITH_A_WRAP: usize = 5;

/// The widest block: shared NATs hand out blocks of 64 to 1024 ports.
const WIDEST_BLOCK: u16 = 2048;

/// Blocks begin and end at multiples of this.
const GRAIN: u16 = 64;

/// The first port that NATs draw for what came from a port above it (RFC 4787 section 4.2.2).
pub const LOWEST: u16 = 1024;

/// How the external ports of new mappings are chosen, whichever socket or destination made them new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Ports {
    /// The port of the socket itself.
    Preserving,
    /// One after another.
    Stride {
        /// The newest that was seen.
        last: u16,
        /// From each to the next, 1 to 16 up or down.
        step: i16,
    },
    /// Somewhere in a small range.
    Block {
        /// The least port of the range, which is a little wider than what was seen.
        first: u16,
        /// The greatest.
        last: u16,
    },
    /// Anywhere.
    Random,
    /// Too few mappings were seen.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Ports {
    /// From `samples` in the order in which they were asked.
    pub fn classify(samples: &[Sample]) -> Self {
        if preserves(samples) {
            return Self::Preserving;
        }
        let drawn = drawn(samples);
        if drawn.len() < ENOUGH {
            return Self::Unknown;
        }
        stride(&drawn).or_else(|| block(&drawn)).unwrap_or(Self::Random)
    }

    /// Whether the next port can be told, or is one of few.
    pub fn is_predictable(&self) -> bool {
        matches!(self, Self::Preserving | Self::Stride { .. } | Self::Block { .. })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("ports drawn in an unknown way"),
            Self::Preserving => f.write_str("ports preserved"),
            Self::Stride { step, .. } => write!(f, "ports in steps of {step}"),
            Self::Block { first, last } => write!(f, "ports from {first} to {last}"),
            Self::Random => f.write_str("ports at random"),
        }
    }
}

fn preserves(samples: &[Sample]) -> bool {
    let mut known = samples.iter().filter(|sample| sample.local != 0).peekable();
    known.peek().is_some() && known.all(|sample| sample.mapped.port() == sample.local)
}

/// The ports of the mappings, each mapping once, in the order in which they were made.
fn drawn(samples: &[Sample]) -> Vec<u16> {
    let mut seen = BTreeSet::new();
    let new = samples.iter().filter(|sample| seen.insert((sample.local, sample.mapped)));
    new.map(|sample| sample.mapped.port()).collect()
}

/// The step that at least half of the mappings keep to. The others lie whole steps further, where other hosts took those between.
fn stride(drawn: &[u16]) -> Option<Ports> {
    let steps: Vec<i32> = drawn.windows(2).map(|pair| i32::from(pair[1]) - i32::from(pair[0])).collect();
    let step = most_common(steps.iter().copied().filter(|step| (1..=LONGEST_STEP).contains(&step.abs())))?;
    let kept = steps.iter().filter(|one| **one == step).count();
    let strange = steps.iter().filter(|one| *one % step != 0 || !(1..=GAP + 1).contains(&(*one / step))).count();
    let tolerated = usize::from(steps.len() >= WITH_A_WRAP);
    let holds = kept >= 2 && kept * 2 >= steps.len() && strange <= tolerated;
    holds.then_some(Ports::Stride { last: *drawn.last()?, step: i16::try_from(step).ok()? })
}

/// The shortest among the most common.
fn most_common(steps: impl Iterator<Item = i32> + Clone) -> Option<i32> {
    let count = |step: i32| steps.clone().filter(|other| *other == step).count();
    steps.clone().max_by_key(|step| (count(*step), -step.abs()))
}

/// Widened by the mean distance of the ports, which is about what lies beyond the outermost, and to the grain that blocks have.
fn block(drawn: &[u16]) -> Option<Ports> {
    let (least, greatest) = (*drawn.iter().min()?, *drawn.iter().max()?);
    let span = greatest - least;
    if span >= WIDEST_BLOCK {
        return None;
    }
    let margin = span / u16::try_from(drawn.len() - 1).unwrap_or(u16::MAX);
    let floor = if least < LOWEST { 1 } else { LOWEST };
    let first = (least.saturating_sub(margin) / GRAIN * GRAIN).max(floor);
    let last = greatest.saturating_add(margin) | (GRAIN - 1);
    Some(Ports::Block { first, last })
}
