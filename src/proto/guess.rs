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

/// One of so many guesses is of the block: where it is the right one, a few of its ports are enough; where it is not, the others must do.
const OF_BLOCK: usize = 5;

/// How many ports there are from 1024 to 65535.
pub const SPACE: usize = 65536 - LOWEST as usize;

/// Ports from 1024 to 65535, none twice: first those that a stride predicts; then those of a block in random order among four times as many
/// others, since a NAT may have another block for each peer; then all others in random order. Ends after its budget. The same for the same ports,
/// budget and seed.
#[derive(Debug)]
pub struct Guesses {
    predicted: std::vec::IntoIter<u16>,
    block: Vec<u16>,
    /// How many come before the next one of the block, as long as there is one.
    far: usize,
    given: BTreeSet<u16>,
    left: usize,
    rng: ChaCha20Rng,
}

impl Guesses {
    /// At most `budget` guesses at a NAT that draws its ports as `ports` says.
    pub fn new(ports: Ports, budget: usize, rng: ChaCha20Rng) -> Self {
        let (predicted, block) = match ports {
            Ports::Stride { last, step } => (predict(last, step), vec![]),
            Ports::Block { first, last } => (vec![], (first.max(LOWEST)..=last).collect()),
            Ports::Unknown | Ports::Preserving | Ports::Random => (vec![], vec![]),
        };
        let predicted = predicted.into_iter();
        Self { predicted, block, far: 0, given: BTreeSet::new(), left: budget, rng }
    }

    fn predicted(&mut self) -> Option<u16> {
        self.predicted.by_ref().find(|port| self.given.insert(*port))
    }

    fn of_block(&mut self) -> Option<u16> {
        if let Some(far) = self.far.checked_sub(1) {
            self.far = far;
            return None;
        }
        self.far = OF_BLOCK - 1;
        while !self.block.is_empty() {
            let port = self.block.swap_remove(self.rng.random_range(..self.block.len()));
            if self.given.insert(port) {
                return Some(port);
            }
        }
        None
    }

    /// Few are given of many, so a port that is not is found at once.
    fn anywhere(&mut self) -> Option<u16> {
        while self.given.len() < SPACE {
            let port = self.rng.random_range(LOWEST..=u16::MAX);
            if self.given.insert(port) {
                return Some(port);
            }
        }
        None
    }
}

impl Iterator for Guesses {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.left = self.left.checked_sub(1)?;
        self.predicted().or_else(|| self.of_block()).or_else(|| self.anywhere())
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    fn guesses(ports: Ports, budget: usize, seed: u64) -> Vec<u16> {
        Guesses::new(ports, budget, ChaCha20Rng::seed_from_u64(seed)).collect()
    }

    /// Also what no NAT does, since it comes from another machine.
    fn any_ports() -> impl Strategy<Value = Ports> {
        prop_oneof![
            Just(Ports::Unknown),
            Just(Ports::Preserving),
            Just(Ports::Random),
            any::<(u16, i16)>().prop_map(|(last, step)| Ports::Stride { last, step }),
            (any::<u16>(), -16..=16_i16).prop_map(|(last, step)| Ports::Stride { last, step }),
            any::<(u16, u16)>().prop_map(|(first, last)| Ports::Block { first, last }),
        ]
    }

    #[test]
    fn steps_alternate_with_the_ports_between_them_once_the_likely_ones_are_given() {
        let first = guesses(Ports::Stride { last: 5000, step: 3 }, 10, 1);
        assert_eq!(first, [5003, 5006, 5009, 5012, 5015, 5001, 5018, 5002, 5021, 5004]);
        let down = guesses(Ports::Stride { last: 5000, step: -2 }, 8, 1);
        assert_eq!(down, [4998, 4996, 4994, 4992, 4990, 4999, 4988, 4997]);
    }

    #[test]
    fn a_stride_goes_on_at_the_other_end_of_the_ports() {
        assert_eq!(guesses(Ports::Stride { last: 65_534, step: 1 }, 3, 1), [65_535, 1024, 1025]);
        assert_eq!(guesses(Ports::Stride { last: 1025, step: -1 }, 3, 1), [1024, 65_535, 65_534]);
    }

    #[test]
    fn steps_that_no_nat_takes_do_no_harm() {
        for step in [0, i16::MIN, i16::MAX] {
            assert_eq!(guesses(Ports::Stride { last: 0, step }, 500, 1).len(), 500, "{step}");
        }
    }

    #[test]
    fn without_a_budget_every_port_comes_once() {
        for ports in [Ports::Random, Ports::Stride { last: 9, step: 2 }, Ports::Block { first: 2000, last: 3000 }] {
            let mut all = guesses(ports, usize::MAX, 1);
            all.sort_unstable();
            assert!(all.into_iter().eq(LOWEST..=u16::MAX), "{ports}");
        }
    }

    #[test]
    fn the_chances_are_those_of_the_books() {
        let near = |chance: f64, expected: f64| (chance - expected).abs() < 0.005;
        assert!(near(hit_chance(256, 174, SPACE), 0.50));
        assert!(near(hit_chance(256, 256, SPACE), 0.64));
        assert!(near(hit_chance(256, 1024, SPACE), 0.983));
        assert!(near(hit_chance(64, 64, 1024), 0.985));
        assert_eq!((hit_chance(0, 9, 10), hit_chance(9, 0, 10), hit_chance(5, 6, 10)), (0.0, 0.0, 1.0));
    }

    #[test]
    fn searches_succeed_as_often_as_the_chance_says() {
        let block = Ports::Block { first: 2048, last: 3071 };
        let near = |seed| guesses(block, 32 * OF_BLOCK, seed).into_iter().step_by(OF_BLOCK).collect::<Vec<u16>>();
        let found = |seed: &u64| near(*seed).iter().any(|guess| near(seed + 1_000_000).contains(guess));
        let rate = (0..2000).filter(found).count() as f64 / 2000.0;
        let chance = hit_chance(32, 32, 1024);
        assert!((rate - chance).abs() < 0.04, "{rate} for {chance}");
    }

    proptest! {
        #[test]
        fn guesses_stay_in_range_and_budget_and_never_repeat(ports in any_ports(), budget in 0..3000_usize, seed: u64) {
            let given = guesses(ports, budget, seed);
            prop_assert_eq!(given.len(), budget);
            prop_assert!(given.iter().all(|port| *port >= LOWEST));
            prop_assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), budget);
            prop_assert_eq!(guesses(ports, budget, seed), given);
        }

        #[test]
        fn the_next_port_of_a_stride_is_among_the_first(
            last in 2100..64_000_u16, step in prop_oneof![1..=16_i16, -16..=-1_i16], taken in 0..64_i32, seed: u64,
        ) {
            let next = u16::try_from(i32::from(last) + i32::from(step) * (1 + taken)).expect("in range");
            let at = guesses(Ports::Stride { last, step }, 2 * AHEAD as usize, seed).iter().position(|port| *port == next);
            let taken = taken as usize;
            prop_assert!(at.is_some_and(|at| at <= 2 * taken), "{:?} after {}", at, taken);
            prop_assert!(taken >= SURE || at == Some(taken));
        }

        #[test]
        fn one_guess_in_five_is_of_the_block_and_not_in_order(first in 1024..60_000_u16, len in 64..2048_u16, seed: u64) {
            let block = first..first + len;
            let given = guesses(Ports::Block { first, last: first + len - 1 }, usize::from(len), seed);
            prop_assert!(!given.is_sorted());
            prop_assert!(given.iter().step_by(OF_BLOCK).all(|port| block.contains(port)));
            prop_assert!(given.iter().filter(|port| !block.contains(port)).count() > given.len() / 2);
        }
    }
}
