//! Finds the largest inner packet that a route takes, by pings padded to the length that such a packet has in the tunnel (RFC 8899 in
//! spirit: probes of known size, a verdict only from the absence of several answers, and no trust in ICMP).

use std::time::{Duration, Instant};

use super::super::overlay::MTU;
use super::super::schedule::{Ladder, Schedule};

/// WireGuard's header and tag: what a packet in the tunnel is longer by (WireGuard paper 5.4.6).
const OVERHEAD: u16 = 32;

/// Inner lengths that are tried, the largest first. The last fits into the least MTU of IPv6, 1280, with every header and that of a relay.
const SIZES: [u16; 7] = [MTU, 1380, 1340, 1300, 1260, 1220, 1180];

/// When they are tried: the largest alone, as most paths take it; then all that are larger than what has been answered. Three in a row are rarely
/// lost on a path that answers small pings. The last is when the verdict falls.
const TRIES: Ladder = Ladder { front_ms: &[0, 150, 450, 1050, 2100], every: None };

/// How long what was found is trusted while data flows: a path that becomes narrow far away tells nobody (RFC 8899 section 5.3.3). And how often it
/// is tried then, before the search begins anew.
const CONFIRM: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_secs(1);
const MOST_MISSED: u32 = 3;

/// The search on one route.
#[derive(Debug, Clone)]
pub(super) struct MtuSearch {
    /// Which of the sizes is the largest that was answered.
    best: Option<usize>,
    tries: Schedule,
    /// When what was found is confirmed; while the search goes on, nothing is.
    found: Option<Instant>,
    /// Confirmations in a row without an answer.
    missed: u32,
}

impl MtuSearch {
    pub(super) fn new(now: Instant) -> Self {
        Self { best: None, tries: Schedule::new(TRIES, now), found: None, missed: 0 }
    }

    /// The lengths of datagrams to be probed now. `healthy`: small pings are answered; where they are not, nothing can be told. `lively`: data flows.
    pub(super) fn take(&mut self, now: Instant, healthy: bool, lively: bool) -> Vec<usize> {
        if self.found.is_some() {
            return self.confirm(now, healthy, lively);
        }
        if !self.tries.take(now) {
            return vec![];
        }
        if !healthy {
            self.tries = Schedule::new(TRIES, now + Duration::from_secs(1));
            return vec![];
        }
        if self.tries.next().is_none() {
            // Smaller packets are what every path takes.
            self.best.get_or_insert(SIZES.len() - 1);
            self.found = Some(now + CONFIRM);
            return vec![];
        }
        let until = if self.tries.steps() == 1 { 1 } else { self.best.unwrap_or(SIZES.len()) };
        SIZES[..until].iter().map(|size| datagram(*size)).collect()
    }

    fn confirm(&mut self, now: Instant, healthy: bool, lively: bool) -> Vec<usize> {
        if self.found.is_none_or(|at| at > now) {
            return vec![];
        }
        if !healthy || !lively {
            (self.missed, self.found) = (0, Some(now + CONFIRM));
            return vec![];
        }
        if self.missed >= MOST_MISSED {
            *self = Self::new(now);
            return self.take(now, healthy, lively);
        }
        self.missed += 1;
        self.found = Some(now + AGAIN);
        vec![datagram(self.mtu())]
    }

    /// A padded ping was answered.
    pub(super) fn handle_answer(&mut self, now: Instant, length: usize) {
        let Some(size) = SIZES.iter().position(|size| datagram(*size) == length) else { return };
        self.best = Some(self.best.map_or(size, |best| best.min(size)));
        if size == 0 || self.found.is_some() && length == datagram(self.mtu()) {
            (self.missed, self.found) = (0, Some(now + CONFIRM));
        }
    }

    /// What was found does not pass any more: the search begins anew, unless it goes on.
    pub(super) fn handle_too_long(&mut self, now: Instant) {
        if self.found.is_some() {
            *self = Self::new(now);
        }
    }

    /// The largest inner packet, as far as is known.
    pub(super) fn mtu(&self) -> u16 {
        // INVARIANT: `best` is the place of one of them.
        SIZES[self.best.unwrap_or(0)]
    }

    /// Whether the search has ended.
    pub(super) fn is_found(&self) -> bool {
        self.found.is_some()
    }

    /// When [`Self::take`] has something to say.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.found.or_else(|| self.tries.next())
    }
}

/// Of a transport message around an inner packet of this length.
fn datagram(size: u16) -> usize {
    usize::from(size + OVERHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Duration = Duration::from_secs(1);

    /// Follows the search on a path that takes inner packets of this length, for so long: what was probed.
    fn follow(search: &mut MtuSearch, from: Instant, time: Duration, largest: u16) -> usize {
        let mut sent = 0;
        while let Some(at) = search.poll_timeout().filter(|at| *at <= from + time) {
            for length in search.take(at, true, true) {
                sent += 1;
                if length <= datagram(largest) {
                    search.handle_answer(at, length);
                }
            }
        }
        sent
    }

    fn search(largest: u16) -> (u16, usize) {
        let now = Instant::now();
        let mut search = MtuSearch::new(now);
        let sent = follow(&mut search, now, 3 * ONE, largest);
        assert!(search.is_found());
        (search.mtu(), sent)
    }

    #[test]
    fn a_path_of_full_size_costs_one_ping() {
        assert_eq!(search(1500), (MTU, 1));
    }

    #[test]
    fn a_narrow_path_is_found_by_its_silence() {
        assert_eq!(search(1345).0, 1340);
        assert_eq!(search(1200).0, 1180);
        assert_eq!(search(100).0, 1180, "less is not tried");
    }

    #[test]
    fn what_is_answered_counts_before_the_search_has_ended() {
        let now = Instant::now();
        let mut search = MtuSearch::new(now);
        follow(&mut search, now, Duration::from_millis(150), 1345);
        assert_eq!((search.mtu(), search.is_found()), (1340, false));
    }

    #[test]
    fn a_path_that_becomes_narrow_is_searched_anew_but_not_again_and_again() {
        let now = Instant::now();
        let mut search = MtuSearch::new(now);
        follow(&mut search, now, ONE, 1500);
        search.handle_too_long(now);
        assert!(!search.take(now, true, true).is_empty());
        search.handle_too_long(now);
        assert!(search.take(now, true, true).is_empty(), "the search goes on");
    }

    #[test]
    fn a_path_that_becomes_narrow_far_away_is_noticed_while_data_flows() {
        let now = Instant::now();
        let mut search = MtuSearch::new(now);
        follow(&mut search, now, ONE, 1500);
        follow(&mut search, now, CONFIRM + 7 * ONE, 1345);
        assert_eq!((search.mtu(), search.is_found()), (1340, true));
    }

    #[test]
    fn a_path_that_carries_nothing_is_left_alone_and_one_that_answers_stays() {
        let now = Instant::now();
        let mut search = MtuSearch::new(now);
        follow(&mut search, now, 600 * ONE, 1500);
        assert_eq!((search.mtu(), search.is_found()), (MTU, true));
        while let Some(at) = search.poll_timeout().filter(|at| *at < now + 1200 * ONE) {
            assert!(search.take(at, true, false).is_empty());
        }
    }

    #[test]
    fn a_path_that_answers_nothing_says_nothing_of_its_mtu() {
        let now = Instant::now();
        let mut search = MtuSearch::new(now);
        for second in 0..60 {
            assert!(search.take(now + second * ONE, false, true).is_empty());
        }
        assert_eq!(search.mtu(), MTU);
    }
}
