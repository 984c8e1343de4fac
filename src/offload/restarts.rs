//! When a daemon that died is started again: a decision over times that the caller passes in. Nothing here waits or starts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Short first, so that a single death costs the build nothing; long enough later that a daemon which cannot run costs no CPU.
const DELAYS: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(5)];

/// Deaths within this time count together.
const WINDOW: Duration = Duration::from_secs(60);

/// The deaths of the last minute.
#[derive(Debug, Default)]
pub struct Restarts {
    deaths: VecDeque<Instant>,
}

impl Restarts {
    /// How long to wait after a death at `now` before the next start; `None` at the fifth death in a minute: give up.
    pub fn after_death(&mut self, now: Instant) -> Option<Duration> {
        while self.deaths.front().is_some_and(|&death| now.duration_since(death) > WINDOW) {
            self.deaths.pop_front();
        }
        self.deaths.push_back(now);
        DELAYS.get(self.deaths.len() - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_after_each_death_and_gives_up_at_the_fifth_within_a_minute() {
        let now = Instant::now();
        let mut restarts = Restarts::default();
        let waits: Vec<_> = (0..5).map(|second| restarts.after_death(now + Duration::from_secs(second))).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(waits, [ms(200), ms(1000), ms(5000), ms(5000), None]);
    }

    #[test]
    fn a_death_now_and_then_is_met_with_a_short_wait_for_ever() {
        let now = Instant::now();
        let mut restarts = Restarts::default();
        for minute in 0..100 {
            let wait = restarts.after_death(now + Duration::from_secs(61 * minute));
            assert_eq!(wait, Some(Duration::from_millis(200)));
        }
    }
}
