//! When to send again: a dense front, then a steady pace.

use std::time::{Duration, Instant};

/// Moments after a start, then one every `every`. Dense at the front, because one lost packet must not cost seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder {
    /// Offsets from the start, in milliseconds, ascending, at least one.
    pub front_ms: &'static [u64],
    /// The pace after the last of them; `None` ends there.
    pub every: Option<Duration>,
}

impl Ladder {
    /// The moment of step `step`, counted from 0; `None` past the end.
    fn at(&self, start: Instant, step: usize) -> Option<Instant> {
        if let Some(ms) = self.front_ms.get(step) {
            return Some(start + Duration::from_millis(*ms));
        }
        let beyond = (step + 1 - self.front_ms.len()) as u32;
        let last = self.front_ms.last().copied().unwrap_or_default();
        Some(start + Duration::from_millis(last) + self.every? * beyond)
    }
}

/// A ladder under way.
#[derive(Debug, Clone)]
pub struct Schedule {
    ladder: Ladder,
    start: Instant,
    step: usize,
}

impl Schedule {
    /// Begins now.
    pub fn new(ladder: Ladder, start: Instant) -> Self {
        Self { ladder, start, step: 0 }
    }

    /// When the next step is due; `None` when the ladder has ended.
    pub fn next(&self) -> Option<Instant> {
        self.ladder.at(self.start, self.step)
    }

    /// Whether a step is due; takes it, and skips those that were missed, so that a late caller does not burst.
    pub fn take(&mut self, now: Instant) -> bool {
        let due = self.next().is_some_and(|at| at <= now);
        while self.next().is_some_and(|at| at <= now) {
            self.step += 1;
        }
        due
    }

    /// How many steps were taken or missed.
    pub fn steps(&self) -> usize {
        self.step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LADDER: Ladder = Ladder { front_ms: &[0, 50, 150], every: Some(Duration::from_secs(5)) };

    #[test]
    fn steps_come_at_their_offsets_and_then_at_the_pace() {
        let start = Instant::now();
        let mut schedule = Schedule::new(LADDER, start);
        let mut offsets = vec![];
        for _ in 0..5 {
            let next = schedule.next().expect("it goes on for ever");
            assert!(schedule.take(next));
            offsets.push((next - start).as_millis());
        }
        assert_eq!(offsets, [0, 50, 150, 5150, 10150]);
    }

    #[test]
    fn a_late_caller_does_not_burst() {
        let start = Instant::now();
        let mut schedule = Schedule::new(LADDER, start);
        let late = start + Duration::from_secs(60);
        assert!(schedule.take(late));
        assert!(!schedule.take(late));
    }

    #[test]
    fn a_ladder_without_a_pace_ends() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Ladder { front_ms: &[0], every: None }, start);
        assert!(schedule.take(start));
        assert_eq!(schedule.next(), None);
    }
}
