//! One body, a known number of times, for callgrind to count. The set-up is not counted: collection is toggled by [`counted`].

#![allow(clippy::print_stdout, reason = "scripts/micro reads it")]

use super::cases::{self, Case};

/// How often a body runs while it is counted.
const TIMES: usize = 64;

/// How often before that, so that every buffer has its size.
const BEFORE: usize = 8;

/// Every name, with how many packets are counted.
pub fn list() {
    for name in cases::names() {
        let packets = cases::find(name).map_or(0, |case| case.packets);
        println!("{name} {packets} {}", packets * TIMES);
    }
}

/// Runs the body of this name.
pub fn run(name: &str) {
    let mut case = cases::find(name).expect("a name of the list");
    let mut inputs: Vec<_> = (0..BEFORE + TIMES).map(|_| (case.fresh)()).collect();
    let (before, rest) = inputs.split_at_mut(BEFORE);
    before.iter_mut().for_each(|input| (case.body)(input));
    counted(&mut case, rest);
}

/// `scripts/micro` tells callgrind this function's name.
#[inline(never)]
fn counted(case: &mut Case, inputs: &mut [Vec<u8>]) {
    inputs.iter_mut().for_each(|input| (case.body)(input));
}
