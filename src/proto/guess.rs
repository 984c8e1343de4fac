//! Which external ports of a peer's NAT to probe, the likely first: the search that finds one of many sockets behind a NAT whose mapping
//! depends on the destination (the birthday paradox). Whom to search for, when, and at which pace are not here.

use std::collections::BTreeSet;

use rand::Rng;
use rand_chacha::ChaCha20Rng;

use super::nat::ports::{LOWEST, Ports};

/// How many steps ahead a stride is followed: one for each socket that the peer opens, and those that other hosts take between.
const AHEAD: i32 = 64;

/// The steps that come before any port between two steps.
const SURE: usize = 4;

/// How many ports there are from 1024 to 65535.
pub const SPACE: usize = 65536 - LOWEST as usize;

/// Ports from 1024 to 65535, none twice: first those that a stride predicts, then those of a block in random order, then all others in
/// random order. Ends after its budget. The same for the same ports, budget and seed.
#[derive(Debug)]
pub struct Guesses {
    predicted: std::vec::IntoIter<u16>,
    block: Option<(u16, u16)>,
    /// What to draw from; one bag after another: the block, then everything.
    bag: Vec<u16>,
    whole: bool,
    given: BTreeSet<u16>,
    left: usize,
    rng: ChaCha20Rng,
}

impl Guesses {
    /// At most `budget` guesses at a NAT that draws its ports as `ports` says.
    pub fn new(ports: Ports, budget: usize, rng: ChaCha20Rng) -> Self {
        let (predicted, block) = match ports {
            Ports::Stride { last, step } => (predict(last, step), None),
            Ports::Block { first, last } => (vec![], Some((first, last))),
            Ports::Unknown | Ports::Preserving | Ports::Random => (vec![], None),
        };
        let predicted = predicted.into_iter();
        Self { predicted, block, bag: vec![], whole: false, given: BTreeSet::new(), left: budget, rng }
    }

    fn predicted(&mut self) -> Option<u16> {
        self.predicted.by_ref().find(|port| self.given.insert(*port))
    }

    fn drawn(&mut self) -> Option<u16> {
        while self.bag.is_empty() {
            let (first, last) = self.next_range()?;
            self.bag = (first.max(LOWEST)..=last).filter(|port| !self.given.contains(port)).collect();
        }
        let port = self.bag.swap_remove(self.rng.random_range(..self.bag.len()));
        self.given.insert(port);
        Some(port)
    }

    fn next_range(&mut self) -> Option<(u16, u16)> {
        let block = self.block.take();
        if block.is_none() && std::mem::replace(&mut self.whole, true) {
            return None;
        }
        block.or(Some((LOWEST, u16::MAX)))
    }
}

impl Iterator for Guesses {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.left = self.left.checked_sub(1)?;
        self.predicted().or_else(|| self.drawn())
    }
}

/// The steps after `last`. Behind the first few, each alternates with a port between the steps: another host may have moved the grid.
fn predict(last: u16, step: i16) -> Vec<u16> {
    let (last, step) = (i32::from(last), i32::from(step));
    let grid = (1..=AHEAD).map(|k| last + step * k);
    let between =
        (1..=AHEAD * step.abs()).filter(|away| away % step.abs() != 0).map(|away| last + step.signum() * away);
    let mut between = between.fuse();
    let alternate = |(at, port)| [Some(port), if at < SURE { None } else { between.next() }];
    grid.enumerate().flat_map(alternate).flatten().map(wrapped).collect()
}

/// Beyond the last port a NAT starts over at the first.
fn wrapped(port: i32) -> u16 {
    let lowest = i32::from(LOWEST);
    let within = (port - lowest).rem_euclid(SPACE as i32);
    u16::try_from(lowest + within).expect("1024 plus less than 64512 fits")
}

/// How likely `probes` ports, all different, are to meet one of `sockets` others, when all are drawn from `space` ports. About
/// 1 - exp(-sockets * probes / space): 98 % for 256 and 1024 of all ports, and for 64 and 64 of a block of 1024.
pub fn hit_chance(sockets: usize, probes: usize, space: usize) -> f64 {
    if sockets == 0 || probes == 0 {
        return 0.0;
    }
    if sockets.saturating_add(probes) > space {
        return 1.0;
    }
    let missed = |at: usize| 1.0 - sockets as f64 / (space - at) as f64;
    1.0 - (0..probes).map(missed).product::<f64>()
}
