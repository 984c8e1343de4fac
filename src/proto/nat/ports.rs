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

#[cfg(test)]
mod tests {
    use super::super::model::{self, Draw, Model};
    use super::super::{Behaviour, Mapping};
    use super::*;
    use proptest::prelude::*;

    use Mapping::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

    fn ports(drawn: &[u16]) -> Ports {
        let sample = |(at, port): (usize, &u16)| model::sample(at as u16 + 1, 1, 3478, *port);
        Ports::classify(&drawn.iter().enumerate().map(sample).collect::<Vec<_>>())
    }

    #[test]
    fn two_mappings_do_not_show_a_rule() {
        assert_eq!(ports(&[]), Ports::Unknown);
        assert_eq!(ports(&[5000, 5001]), Ports::Unknown);
    }

    #[test]
    fn a_mapping_seen_twice_is_drawn_once() {
        let samples = [1, 2, 3, 4].map(|server| model::sample(40_000, server, 3478, 5000));
        assert_eq!(Ports::classify(&samples), Ports::Unknown);
    }

    #[test]
    fn steps_are_found_up_and_down_past_other_hosts_and_past_the_end_of_the_pool() {
        assert_eq!(ports(&[5000, 5001, 5002]), Ports::Stride { last: 5002, step: 1 });
        assert_eq!(ports(&[5000, 4996, 4992]), Ports::Stride { last: 4992, step: -4 });
        assert_eq!(ports(&[5000, 5002, 5008, 5010, 5012]), Ports::Stride { last: 5012, step: 2 });
        assert_eq!(ports(&[65532, 65534, 1024, 1026, 1028, 1030]), Ports::Stride { last: 1030, step: 2 });
    }

    #[test]
    fn near_and_far_ports_without_a_step_are_a_block_and_random() {
        assert_eq!(ports(&[5000, 5040, 5017]), Ports::Block { first: 4928, last: 5119 });
        assert_eq!(ports(&[5000, 8000, 60_000]), Ports::Random);
    }

    #[test]
    fn blocks_end_at_the_ends_of_the_port_space() {
        assert_eq!(ports(&[65_535, 65_500, 65_400]), Ports::Block { first: 65_280, last: 65_535 });
        assert_eq!(ports(&[1030, 1024, 1100]), Ports::Block { first: 1024, last: 1151 });
        assert_eq!(ports(&[5, 600, 90]), Ports::Block { first: 1, last: 959 });
    }

    #[test]
    fn one_socket_of_known_port_that_keeps_it_shows_preservation() {
        let mut samples = vec![model::sample(5000, 1, 3478, 5000), model::sample(0, 2, 3478, 7000)];
        assert_eq!(Ports::classify(&samples), Ports::Preserving);
        samples.push(model::sample(5001, 1, 3478, 5002));
        assert_ne!(Ports::classify(&samples), Ports::Preserving);
    }

    #[test]
    fn ports_of_a_kind_that_is_yet_to_come_read_as_unknown() {
        let read = |json: &str| serde_json::from_str::<Ports>(json).expect("readable");
        assert_eq!(read(r#"{"kind":"fibonacci","last":7}"#), Ports::Unknown);
        assert_eq!(read(r#"{"kind":"stride","last":7,"step":-2}"#), Ports::Stride { last: 7, step: -2 });
        assert_eq!(serde_json::to_string(&Ports::Random).expect("plain data"), r#"{"kind":"random"}"#);
    }

    proptest! {
        #[test]
        fn a_nat_that_preserves_ports_is_told(seed: u64, sockets in 1_usize..8) {
            let seen = Behaviour::classify(&Model::new(EndpointIndependent, Draw::Preserving, seed).asked(sockets));
            prop_assert_eq!(seen, Behaviour { mapping: EndpointIndependent, ports: Ports::Preserving, egress: 1 });
        }

        #[test]
        fn a_nat_that_takes_steps_is_told_with_its_mapping_and_its_next_port(
            mapping in model::mappings(), step in model::steps(), start in 1024_u16.., seed: u64,
        ) {
            let mut nat = Model::new(mapping, Draw::Stride { next: start, step }, seed);
            let seen = Behaviour::classify(&nat.asked(8));
            let last = nat.newest();
            prop_assert_eq!(seen, Behaviour { mapping, ports: Ports::Stride { last, step }, egress: 1 });
        }

        #[test]
        fn a_nat_that_keeps_to_a_block_is_told_with_its_mapping(
            mapping in model::mappings(), first in 1024_u16..64_000, len in 64_u16..=1024, seed: u64,
        ) {
            let mut nat = Model::new(mapping, Draw::Block { first, len }, seed);
            let samples = nat.asked(12);
            let seen = Behaviour::classify(&samples);
            prop_assert_eq!((seen.mapping, seen.egress), (mapping, 1));
            let Ports::Block { first: from, last: to } = seen.ports else { panic!("not a block: {seen:?}") };
            prop_assert!(samples.iter().all(|sample| (from..=to).contains(&sample.mapped.port())));
            prop_assert!(to - from < len + len / 5 + 2 * GRAIN, "{from} to {to} for {len} from {first}");
        }

        #[test]
        fn a_nat_that_draws_at_random_is_told_with_its_mapping(mapping in model::mappings(), seed: u64) {
            let seen = Behaviour::classify(&Model::new(mapping, Draw::Random, seed).asked(8));
            prop_assert_eq!(seen, Behaviour { mapping, ports: Ports::Random, egress: 1 });
        }

        #[test]
        fn egress_addresses_drawn_by_destination_are_a_dependent_mapping_even_if_ports_are_preserved(seed: u64) {
            for mapping in [EndpointIndependent, AddressDependent, AddressAndPortDependent] {
                let mut nat = Model::new(mapping, Draw::Preserving, seed);
                nat.egress = 2;
                let seen = Behaviour::classify(&nat.asked(4));
                prop_assert_eq!(seen, Behaviour { mapping, ports: Ports::Preserving, egress: 2 });
            }
        }
    }
}
