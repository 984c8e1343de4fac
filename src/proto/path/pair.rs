//! One route that has answered: its round trip, and how many pings it owes us. Which of several is taken is decided in [`super`].

use std::time::{Duration, Instant};

/// A route that has left so many pings unanswered is suspected to lead nowhere.
const SUSPICION: u32 = 3;

/// No way over the internet takes so long.
const LATE: Duration = Duration::from_secs(2);

/// How long an answer is waited for before the next ping, where a longer pause was meant: silence is noticed after
/// [`super::LIVELY`] and [`SUSPICION`] times this.
const ANXIOUS: Duration = Duration::from_secs(1);

/// Weight of a new round-trip time against the average, as in RFC 6298 section 2.
const RTT_WEIGHT: u32 = 8;

/// A route that has answered.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    rtt: Option<Duration>,
    unanswered: u32,
    next_ping: Instant,
}

impl Pair {
    /// One that has just been heard; its next ping comes after `pause`.
    pub(super) fn new(now: Instant, pause: Duration) -> Self {
        Self { rtt: None, unanswered: 0, next_ping: now + pause }
    }

    /// The average round trip.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Whether it has left a ping unanswered until the next one.
    pub(super) fn is_doubtful(&self) -> bool {
        self.unanswered > 1
    }

    /// Whether it has left several.
    pub(super) fn is_suspect(&self) -> bool {
        self.unanswered > SUSPICION
    }

    /// It carried something to us that says that it works both ways.
    pub(super) fn handle_answer(&mut self, now: Instant, sample: Option<Duration>, pause: Duration) {
        if std::mem::take(&mut self.unanswered) > 0 {
            self.next_ping = now + pause;
        }
        // What is older was asked before one of the two, or the network, stood still.
        if let Some(sample) = sample.filter(|sample| *sample < LATE) {
            self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * (RTT_WEIGHT - 1) + sample) / RTT_WEIGHT));
        }
    }

    /// The next ping comes within `pause`.
    pub(super) fn hasten(&mut self, now: Instant, pause: Duration) {
        self.next_ping = self.next_ping.min(now + pause);
    }

    /// Whether a ping is due; counts it.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let due = self.next_ping <= now;
        if due {
            self.unanswered = self.unanswered.saturating_add(1);
            self.next_ping = now + ANXIOUS;
        }
        due
    }

    /// When [`Self::take`] has something to say.
    pub(super) fn next(&self) -> Instant {
        self.next_ping
    }

    /// Whether it is so much faster than `other` that a change is worth it: a fifth, and 5 ms.
    pub(super) fn is_much_faster_than(&self, other: &Self) -> bool {
        let (Some(this), Some(other)) = (self.rtt, other.rtt) else { return false };
        this * 5 <= other * 4 && other - this >= Duration::from_millis(5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn silence_is_doubted_after_a_second_and_suspected_after_three() {
        let now = Instant::now();
        let mut pair = Pair::new(now, ms(2000));
        let mut story = vec![];
        for second in 0..7 {
            pair.take(now + ms(second * 1000));
            story.push((pair.is_doubtful(), pair.is_suspect()));
        }
        let (calm, doubt, suspicion) = ((false, false), (true, false), (true, true));
        assert_eq!(story, [calm, calm, calm, doubt, doubt, suspicion, suspicion]);
    }

    #[test]
    fn an_answer_ends_the_doubt_and_the_haste() {
        let now = Instant::now();
        let mut pair = Pair::new(now, ms(0));
        pair.take(now);
        pair.take(now + ms(1000));
        pair.handle_answer(now + ms(1100), Some(ms(100)), ms(5000));
        assert!(!pair.is_doubtful());
        assert_eq!((pair.rtt(), pair.next()), (Some(ms(100)), now + ms(6100)));
    }

    #[test]
    fn an_answer_that_comes_after_a_standstill_is_no_measure_of_the_way() {
        let (now, mut pair) = (Instant::now(), Pair::new(Instant::now(), ms(0)));
        pair.handle_answer(now, Some(ms(10)), ms(0));
        pair.handle_answer(now, Some(ms(20_000)), ms(0));
        assert_eq!(pair.rtt(), Some(ms(10)));
    }

    #[test]
    fn a_little_faster_is_not_worth_a_change() {
        let now = Instant::now();
        let pair = |rtt: u64| {
            let mut pair = Pair::new(now, ms(0));
            pair.handle_answer(now, Some(ms(rtt)), ms(0));
            pair
        };
        assert!(pair(10).is_much_faster_than(&pair(20)));
        assert!(!pair(17).is_much_faster_than(&pair(20)), "by 15 %");
        assert!(!pair(1).is_much_faster_than(&pair(5)), "by 4 ms");
        assert!(!Pair::new(now, ms(0)).is_much_faster_than(&pair(20)), "not measured");
    }
}
