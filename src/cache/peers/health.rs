//! Whether a peer is worth asking: it spoke lately, it answers in time, and it has not lied. A peer that failed is left out for a while, each time for longer (a circuit
//! breaker: Nygard, "Release It!", 2007). Pure: time comes in.

use std::time::{Duration, Instant};

/// A peer says something at least so often.
pub(super) const BEAT: Duration = Duration::from_millis(400);

/// A peer that has said nothing for so long is not asked: two beats may be late.
pub(super) const SILENCE: Duration = Duration::from_millis(1300);

/// For how long a peer is left out that did not answer in time: the first time, and at most.
const PENALTY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// For how long a peer is left out that gave wrong bytes.
const DISTRUST: Duration = Duration::from_secs(60);

/// A second peer is asked when the first has taken longer than nearly always, within these bounds.
const HEDGE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(75));

/// Of one peer.
#[derive(Debug, Default)]
pub(super) struct Health {
    heard: Option<Instant>,
    has_spoken: bool,
    out_until: Option<Instant>,
    failures: u32,
    /// Of answers: the mean time and the mean distance from it (RFC 6298, section 2), in seconds.
    latency: Option<(f64, f64)>,
}

impl Health {
    /// It spoke.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = Some(now);
        self.has_spoken = true;
    }

    /// Its words have ended.
    pub(super) fn lost(&mut self) {
        self.heard = None;
    }

    /// It answered after this time.
    pub(super) fn answered(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.latency = Some(match self.latency {
            None => (took, took / 2.0),
            Some((mean, deviation)) => {
                (mean + (took - mean) / 8.0, deviation + ((took - mean).abs() - deviation) / 4.0)
            }
        });
        self.failures = 0;
    }

    /// It did not answer, or not in time. Many that asked at once have seen one failure.
    pub(super) fn failed(&mut self, now: Instant) {
        if !self.is_trusted(now) {
            return;
        }
        let penalty = PENALTY.0.saturating_mul(1 << self.failures.min(8)).min(PENALTY.1);
        self.failures += 1;
        self.leave_out(now + penalty);
    }

    /// It gave wrong bytes.
    pub(super) fn lied(&mut self, now: Instant) {
        self.leave_out(now + DISTRUST);
    }

    fn leave_out(&mut self, until: Instant) {
        self.out_until = self.out_until.max(Some(until));
    }

    /// Whether it is there: it spoke lately.
    pub(super) fn is_there(&self, now: Instant) -> bool {
        self.heard.is_some_and(|heard| now.saturating_duration_since(heard) < SILENCE)
    }

    /// Whether it spoke once, and does not any more.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.has_spoken && !self.is_there(now)
    }

    /// Whether it has not failed lately.
    pub(super) fn is_trusted(&self, now: Instant) -> bool {
        self.out_until.is_none_or(|until| until <= now)
    }

    /// After which time somebody else is asked too.
    pub(super) fn hedge(&self) -> Duration {
        let (mean, deviation) = self.latency.unwrap_or((HEDGE.1.as_secs_f64(), 0.0));
        Duration::from_secs_f64(mean + 4.0 * deviation).clamp(HEDGE.0, HEDGE.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_not_there_until_it_speaks_again() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert!(!health.is_there(now) && !health.is_silent(now), "it may never have been called");
        health.heard(now);
        assert!(health.is_there(now + 2 * BEAT));
        assert!(!health.is_there(now + SILENCE) && health.is_silent(now + SILENCE));
        health.heard(now + SILENCE);
        assert!(health.is_there(now + SILENCE));
        health.lost();
        assert!(!health.is_there(now + SILENCE));
    }

    #[test]
    fn who_fails_is_left_out_longer_each_time_and_forgiven_at_the_first_answer() {
        let (mut health, now) = (Health::default(), Instant::now());
        for penalty in [500, 1000, 2000] {
            health.out_until = None;
            health.failed(now);
            assert!(!health.is_trusted(now + Duration::from_millis(penalty - 1)), "{penalty}");
            assert!(health.is_trusted(now + Duration::from_millis(penalty)), "{penalty}");
        }
        (0..100).for_each(|_| health.failed(now));
        assert!(health.is_trusted(now + PENALTY.1));
        health.answered(Duration::from_millis(1));
        health.out_until = None;
        health.failed(now);
        assert!(health.is_trusted(now + PENALTY.0));
    }

    #[test]
    fn what_many_see_at_once_is_one_failure() {
        let (mut health, now) = (Health::default(), Instant::now());
        (0..100).for_each(|call| health.failed(now + Duration::from_millis(call)));
        assert!(health.is_trusted(now + PENALTY.0));
    }

    #[test]
    fn a_failure_does_not_shorten_distrust() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.lied(now);
        health.failed(now);
        assert!(!health.is_trusted(now + DISTRUST / 2));
    }

    #[test]
    fn a_second_peer_is_asked_after_what_nearly_all_answers_take() {
        let mut health = Health::default();
        assert_eq!(health.hedge(), HEDGE.1, "nothing is known");
        (0..50).for_each(|_| health.answered(Duration::from_millis(1)));
        assert_eq!(health.hedge(), HEDGE.0);
        (0..50).for_each(|_| health.answered(Duration::from_millis(20)));
        assert!((20..30).contains(&health.hedge().as_millis()), "{:?}", health.hedge());
    }
}
