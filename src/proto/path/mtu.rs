//! Finds the largest inner packet that a route takes, by pings padded to the length that such a packet has in the tunnel (RFC 8899 in
//! spirit: probes of known size, a verdict only from the absence of several answers, and no trust in ICMP).

use std::time::{Duration, Instant};

use super::super::overlay::MTU;
use super::super::schedule::{Ladder, Schedule};

/// WireGuard's header and tag: what a packet in the tunnel is longer by (WireGuard paper 5.4.6).
const OVERHEAD: u16 = 32;

/// Inner lengths that are tried, the largest first. The last fits into the least MTU of IPv6, 1280, with every header and that of a relay.
const SIZES: [u16; 7] = [MTU, 1380, 1340, 1300, 1260, 1220, 1180];

/// How often each is tried; three in a row are rarely lost on a path that answers small pings.
const TRIES: Ladder = Ladder { front_ms: &[0, 300, 900, 2100], every: None };

/// The search on one route.
#[derive(Debug, Clone)]
pub(super) struct MtuSearch {
    size: usize,
    tries: Schedule,
    found: bool,
}

impl MtuSearch {
    pub(super) fn new(now: Instant) -> Self {
        Self { size: 0, tries: Schedule::new(TRIES, now), found: false }
    }

    /// The length of a datagram to be probed, if one is due. `healthy`: small pings are answered; where they are not, nothing can be told.
    pub(super) fn take(&mut self, now: Instant, healthy: bool) -> Option<usize> {
        if self.found || !self.tries.take(now) {
            return None;
        }
        if !healthy {
            self.tries = Schedule::new(TRIES, now + Duration::from_secs(1));
            return None;
        }
        if self.tries.next().is_none() {
            self.size += 1;
            // Smaller packets are what every path takes.
            self.found = self.size + 1 == SIZES.len();
            self.tries = Schedule::new(TRIES, now);
            return if self.found { None } else { self.take(now, healthy) };
        }
        Some(usize::from(self.mtu() + OVERHEAD))
    }

    /// A padded ping was answered. True when that ends the search.
    pub(super) fn handle_answer(&mut self, datagram: usize) -> bool {
        let ends = !self.found && datagram == usize::from(self.mtu() + OVERHEAD);
        self.found |= ends;
        ends
    }

    /// What was found does not pass any more: the search begins anew, unless it goes on.
    pub(super) fn handle_too_long(&mut self, now: Instant) {
        if self.found {
            *self = Self::new(now);
        }
    }

    /// The largest inner packet, as far as is known.
    pub(super) fn mtu(&self) -> u16 {
        // INVARIANT: the search ends at the last of them.
        SIZES[self.size.min(SIZES.len() - 1)]
    }

    /// When [`Self::take`] has something to say.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.found { None } else { self.tries.next() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_becomes_narrow_is_searched_anew_but_not_again_and_again() {
        let now = Instant::now();
        let mut search = MtuSearch::new(now);
        let length = search.take(now, true).expect("due at once");
        assert!(search.handle_answer(length) && search.poll_timeout().is_none());
        search.handle_too_long(now);
        assert!(search.take(now, true).is_some());
        search.handle_too_long(now);
        assert_eq!(search.take(now, true), None, "the search goes on");
    }

    fn search(largest: u16) -> (u16, usize) {
        let now = Instant::now();
        let (mut search, mut sent) = (MtuSearch::new(now), 0);
        while let Some(at) = search.poll_timeout() {
            assert!(at - now < Duration::from_secs(30), "it ends");
            if let Some(length) = search.take(at, true) {
                sent += 1;
                if length <= usize::from(largest + OVERHEAD) {
                    search.handle_answer(length);
                }
            }
        }
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
    fn a_path_that_answers_nothing_says_nothing_of_its_mtu() {
        let now = Instant::now();
        let mut search = MtuSearch::new(now);
        for second in 0..60 {
            assert_eq!(search.take(now + Duration::from_secs(second), false), None);
        }
        assert_eq!(search.mtu(), MTU);
    }
}
