//! One route that has answered: its round trip, and how many pings it owes us. Which of several is taken is decided in [`super`].

use std::time::{Duration, Instant};

/// A route that has left so many pings unanswered until the next one is silent, and suspected to lead nowhere when that lasts.
const SUSPICION: u32 = 3;

/// No way over the internet takes so long.
const LATE: Duration = Duration::from_secs(2);

/// How long an answer is waited for before the next ping, where a longer pause was meant: silence is noticed after
/// [`super::LIVELY`] and [`SUSPICION`] times this.
const ANXIOUS: Duration = Duration::from_secs(1);

/// How long nothing may come back for data that was sent, and then for a ping, before the next ping: at least, as processes wait for a core;
/// and in round trips, as networks queue.
const BRINK: (Duration, u32) = (Duration::from_millis(200), 4);
const HASTE: (Duration, u32) = (Duration::from_millis(100), 2);

/// Weight of a new round-trip time against the average, as in RFC 6298 section 2.
const RTT_WEIGHT: u32 = 8;

/// A route that has answered.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    rtt: Option<Duration>,
    unanswered: u32,
    /// When the first of those left, and for how long it had been unanswered when the last one did.
    asked: Option<Instant>,
    waited: Duration,
    /// When a ping left that none has followed: what answers it measures the way. Of several that wait, some have waited for a process that stood
    /// still.
    measuring: Option<Instant>,
    next_ping: Instant,
    /// When a ping asks why nothing comes back for the data that was sent.
    brink: Option<Instant>,
}

impl Pair {
    /// One that has just been heard; its next ping comes after `pause`.
    pub(super) fn new(now: Instant, pause: Duration) -> Self {
        Self {
            rtt: None,
            unanswered: 0,
            asked: None,
            waited: Duration::ZERO,
            measuring: None,
            next_ping: now + pause,
            brink: None,
        }
    }

    /// The average round trip.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Whether it has left a ping unanswered until the next one, which comes soon where data waits for an answer too.
    pub(super) fn is_uneasy(&self) -> bool {
        self.unanswered > 1
    }

    /// Whether that lasts, so that another way is worth a search.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_uneasy() && self.waited >= ANXIOUS
    }

    /// Whether it has left several: reason enough to carry the data elsewhere for as long as it is so, and not for more.
    pub(super) fn is_silent(&self) -> bool {
        self.unanswered > SUSPICION
    }

    /// Whether that lasts, so that it does not count any more.
    pub(super) fn is_suspect(&self) -> bool {
        self.is_silent() && self.waited >= ANXIOUS * SUSPICION
    }

    /// It carried something to us that says that it works both ways.
    pub(super) fn handle_answer(&mut self, now: Instant, sample: Option<Duration>, pause: Duration) {
        (self.asked, self.brink, self.waited) = (None, None, Duration::ZERO);
        if std::mem::take(&mut self.unanswered) > 0 {
            self.next_ping = now + pause;
        }
        let alone = |sample: Duration| self.measuring.is_some_and(|at| now - at == sample);
        let measures = |sample: &Duration| *sample < LATE && (self.rtt.is_none() || alone(*sample));
        if let Some(sample) = sample.filter(measures) {
            self.measuring = None;
            self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * (RTT_WEIGHT - 1) + sample) / RTT_WEIGHT));
        }
    }

    /// The next ping comes within `pause`.
    pub(super) fn hasten(&mut self, now: Instant, pause: Duration) {
        self.next_ping = self.next_ping.min(now + pause);
    }

    /// Data has left, to which something should come back.
    pub(super) fn handle_sent(&mut self, now: Instant) {
        if self.brink.is_none() && self.waited < ANXIOUS {
            self.brink = Some(now + self.patience(BRINK));
        }
    }

    /// Whether a ping is due; counts it.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let due = self.next() <= now;
        if due {
            self.unanswered = self.unanswered.saturating_add(1);
            self.waited = now - *self.asked.get_or_insert(now);
            self.measuring = (self.unanswered == 1).then_some(now);
            self.next_ping = now + ANXIOUS;
            let in_haste = self.brink.is_some() && self.waited < ANXIOUS;
            self.brink = in_haste.then(|| now + self.patience(HASTE));
        }
        due
    }

    /// When [`Self::take`] has something to say.
    pub(super) fn next(&self) -> Instant {
        self.brink.map_or(self.next_ping, |brink| brink.min(self.next_ping))
    }

    /// Where the way has not been measured, it may be a long one.
    fn patience(&self, (least, round_trips): (Duration, u32)) -> Duration {
        self.rtt.map_or(ANXIOUS, |rtt| (rtt * round_trips).clamp(least, ANXIOUS))
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

    /// Milliseconds after `start` at which it pings, while nobody answers.
    fn pings(pair: &mut Pair, start: Instant, until: u64) -> Vec<u64> {
        (0..until).filter(|at| pair.take(start + ms(*at))).collect()
    }

    #[test]
    fn data_without_an_answer_is_asked_about_soon_and_then_at_the_usual_pace() {
        let now = Instant::now();
        let mut pair = Pair::new(now, ms(2000));
        pair.handle_answer(now, Some(ms(20)), ms(2000));
        pair.handle_sent(now);
        assert_eq!(pings(&mut pair, now, 450), [200, 300, 400]);
        assert!(pair.is_uneasy() && !pair.is_silent());
        assert_eq!(pings(&mut pair, now, 1150), [500, 600, 700, 800, 900, 1000, 1100]);
        assert!(pair.is_silent() && !pair.is_doubtful());
        assert_eq!(pings(&mut pair, now, 3150), [1200, 2200]);
        assert!(pair.is_doubtful() && !pair.is_suspect());
        assert_eq!(pings(&mut pair, now, 4000), [3200]);
        assert!(pair.is_suspect(), "no sooner than without data");
    }

    #[test]
    fn a_long_way_has_more_patience() {
        let now = Instant::now();
        let mut pair = Pair::new(now, ms(9000));
        pair.handle_answer(now, Some(ms(200)), ms(9000));
        pair.handle_sent(now);
        assert_eq!(pings(&mut pair, now, 1500), [800, 1200]);
    }

    #[test]
    fn what_comes_back_leaves_the_usual_pings_where_they_are() {
        let now = Instant::now();
        let mut pair = Pair::new(now, ms(2000));
        pair.handle_answer(now, Some(ms(20)), ms(2000));
        for at in (0..2000).step_by(100) {
            pair.handle_sent(now + ms(at));
            assert!(!pair.take(now + ms(at)));
            pair.handle_answer(now + ms(at + 50), None, ms(2000));
        }
        assert_eq!(pair.next(), now + ms(2000));
    }

    #[test]
    fn an_answer_ends_the_doubt_and_the_haste() {
        let now = Instant::now();
        let mut pair = Pair::new(now, ms(0));
        pair.take(now);
        pair.take(now + ms(1000));
        pair.handle_answer(now + ms(1100), Some(ms(100)), ms(5000));
        assert!(!pair.is_uneasy());
        assert_eq!((pair.rtt(), pair.next()), (Some(ms(100)), now + ms(6100)));
    }

    #[test]
    fn an_answer_that_comes_after_a_standstill_is_no_measure_of_the_way() {
        let now = Instant::now();
        let mut pair = Pair::new(now, ms(0));
        pair.handle_answer(now, Some(ms(10)), ms(0));
        pair.handle_answer(now, Some(ms(20_000)), ms(0));
        assert_eq!(pair.rtt(), Some(ms(10)));
    }

    #[test]
    fn pings_that_waited_for_a_process_that_stood_still_are_no_measure_of_the_way() {
        let now = Instant::now();
        let mut pair = Pair::new(now, ms(9000));
        pair.handle_answer(now, Some(ms(1)), ms(9000));
        pair.handle_sent(now);
        let asked = pings(&mut pair, now, 1500);
        assert!(asked.len() > 3);
        for at in asked {
            pair.handle_answer(now + ms(1500), Some(ms(1500 - at)), ms(2000));
        }
        assert_eq!(pair.rtt(), Some(ms(1)));
        assert!(pair.take(now + ms(3500)));
        pair.handle_answer(now + ms(3517), None, ms(2000));
        pair.handle_answer(now + ms(3517), Some(ms(17)), ms(2000));
        assert_eq!(pair.rtt(), Some(ms(3)), "one that was sent alone is, whatever else came back first");
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
