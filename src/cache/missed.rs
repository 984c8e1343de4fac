//! When names were looked up in vain: what is stored under one of them later took so long to make. Two generations of bounded size. Pure: time comes in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::store::Key;

/// Names of a generation: more than all tools of a machine have under way.
const GENERATION: usize = 8192;

/// What takes longer was not made for that look-up.
const LONGEST: Duration = Duration::from_secs(3600);

/// The latest look-ups in vain.
#[derive(Debug, Default)]
pub(super) struct Missed {
    young: HashMap<Key, Instant>,
    old: HashMap<Key, Instant>,
}

impl Missed {
    /// The name of this key was looked up in vain.
    pub(super) fn note(&mut self, key: Key, now: Instant) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, now);
    }

    /// It is stored: how long ago it was looked up in vain, for the last time; nothing where it was not.
    pub(super) fn took(&mut self, key: Key, now: Instant) -> Duration {
        let since = self.young.remove(&key).or_else(|| self.old.remove(&key));
        let took = since.map(|since| now.saturating_duration_since(since));
        took.filter(|took| *took < LONGEST).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_after_a_look_up_in_vain_took_that_long_once() {
        let (mut missed, now) = (Missed::default(), Instant::now());
        missed.note(1, now);

        assert_eq!(missed.took(1, now + Duration::from_secs(7)), Duration::from_secs(7));
        assert_eq!(missed.took(1, now + Duration::from_secs(8)), Duration::ZERO);
        missed.note(2, now);
        assert_eq!(missed.took(2, now + LONGEST), Duration::ZERO);
    }

    #[test]
    fn a_flood_of_names_takes_bounded_memory() {
        let (mut missed, now) = (Missed::default(), Instant::now());
        (0..5 * GENERATION as u64).for_each(|key| missed.note(key, now));

        assert!(missed.young.len() + missed.old.len() <= 2 * GENERATION);
    }
}
