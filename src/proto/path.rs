//! The path to one peer: opens our NAT towards it, punches, holds what works, and notices silence. Sealing probes is not here but in
//! [`super::probe`]; who may be sent to at full TTL is decided here and nowhere else.
//!
//! A life: *opening* (low-TTL pings to every candidate, for ever), *punching* (full-TTL pings, once the peer has acknowledged our
//! announcement or has been heard), *selected* (the first pair that answered; pinged to keep the mapping and to measure).
//!
//! **A full-TTL datagram never leaves for a peer that is not known to have opened towards our current announcement.** If it reached a
//! Linux NAT first, that NAT would bind a flow of its own and give the peer's datagrams another port; no retry heals that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::probe::Transaction;
use super::schedule::{Ladder, Schedule};

/// Opening: five quick ones, since a pair whose openings are all lost clashes and never heals; all have left before any rendezvous shows our
/// announcement. Then well below the 30 s after which Linux forgets an unanswered mapping.
const OPENING: Ladder = Ladder { front_ms: &[0, 50, 150, 400, 800], every: Some(Duration::from_secs(5)) };

/// Punching: dense at the front, as nearly all punches succeed with the first packets or never.
const PUNCHING: Ladder = Ladder { front_ms: &[0, 50, 100, 200, 400, 800, 1600], every: Some(Duration::from_secs(1)) };

/// How often the selected pair is pinged while data flows, so that silence is noticed.
const LIVELY: Duration = Duration::from_secs(2);

/// How often otherwise: below every mapping's lifetime.
const QUIET: Duration = Duration::from_secs(5);

/// How often while the selected pair does not answer.
const ANXIOUS: Duration = Duration::from_secs(1);

/// A peer that has left so many pings unanswered is suspected to be out of reach.
const SUSPICION: u32 = 3;

/// How long after the last data a path counts as lively.
const LIVELY_FOR: Duration = Duration::from_secs(45);

/// Pings whose answers are still waited for; older ones are forgotten.
const IN_FLIGHT: usize = 64;

/// Weight of a new round-trip time against the average, as in RFC 6298 section 2.
const RTT_WEIGHT: u32 = 8;

/// How a datagram may travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Far enough to open our own NATs, not as far as the peer's.
    Opening,
    /// All the way.
    Full,
}

/// The path to one peer.
#[derive(Debug)]
pub struct PathAgent {
    candidates: BTreeSet<SocketAddr>,
    /// Where the peer is known to let us in: addresses it was heard from, or its candidates once it acknowledged us.
    acknowledged: bool,
    heard: BTreeSet<SocketAddr>,
    opening: Schedule,
    punching: Option<Schedule>,
    due: Vec<(SocketAddr, Reach)>,
    in_flight: BTreeMap<Transaction, (SocketAddr, Instant)>,
    selected: Option<SocketAddr>,
    next_ping: Option<Instant>,
    last_data: Option<Instant>,
    rtt: Option<Duration>,
    /// Pings on the selected pair since anything was heard.
    unanswered: u32,
}

impl PathAgent {
    /// Begins to open towards `candidates`, and to punch when the peer has `acknowledged` our current announcement.
    pub fn new(now: Instant, candidates: impl IntoIterator<Item = SocketAddr>, acknowledged: bool) -> Self {
        Self {
            candidates: candidates.into_iter().collect(),
            acknowledged,
            heard: BTreeSet::new(),
            opening: Schedule::new(OPENING, now),
            punching: acknowledged.then(|| Schedule::new(PUNCHING, now)),
            due: vec![],
            in_flight: BTreeMap::new(),
            selected: None,
            next_ping: None,
            last_data: None,
            rtt: None,
            unanswered: 0,
        }
    }

    /// The pair that carries data, by the peer's address.
    pub fn selected(&self) -> Option<SocketAddr> {
        self.selected
    }

    /// The average round trip on it.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Whether the selected pair has left a ping unanswered until the next one.
    pub fn is_doubtful(&self) -> bool {
        self.unanswered > 1
    }

    /// Whether the selected pair has left several pings unanswered.
    pub fn is_suspect(&self) -> bool {
        self.unanswered > SUSPICION
    }

    /// Our announcement has changed: nobody has opened towards the new one yet.
    pub fn forget_acknowledgement(&mut self) {
        self.acknowledged = false;
        if self.heard.is_empty() {
            self.punching = None;
        }
    }

    /// Our own address has changed: everything begins anew, and nobody has let the new address in.
    pub fn reopen(&mut self, now: Instant) {
        *self = Self::new(now, std::mem::take(&mut self.candidates), false);
    }

    /// An authentic datagram came from `from`: it lets us in there.
    pub fn handle_heard(&mut self, now: Instant, from: SocketAddr) {
        self.unanswered = 0;
        if self.heard.len() < IN_FLIGHT && self.heard.insert(from) && self.selected.is_none() {
            self.punching = Some(Schedule::new(PUNCHING, now));
        }
    }

    /// An answer to one of our pings. The first address to answer is selected; true when this one was.
    pub fn handle_pong(&mut self, now: Instant, transaction: Transaction, from: SocketAddr) -> bool {
        let Some((asked, sent)) = self.in_flight.remove(&transaction) else { return false };
        self.handle_heard(now, from);
        if self.selected.is_none() && asked == from {
            self.select(now, from);
            self.measure(now - sent);
            return true;
        }
        if self.selected == Some(from) {
            self.measure(now - sent);
        }
        false
    }

    /// A transport message decrypted: where nothing is selected, its source is as good as a pong.
    pub fn handle_tunnelled(&mut self, now: Instant, from: SocketAddr) {
        self.last_data = Some(now);
        self.handle_heard(now, from);
        if self.selected.is_none() {
            self.select(now, from);
        }
    }

    /// Data was sent: the path is lively.
    pub fn handle_sent(&mut self, now: Instant) {
        let quiet = self.last_data.is_none_or(|at| now - at > LIVELY_FOR);
        self.last_data = Some(now);
        if quiet {
            self.next_ping = self.next_ping.map(|at| at.min(now + LIVELY));
        }
    }

    /// Takes what has come due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(selected) = self.selected {
            if self.next_ping.is_some_and(|at| at <= now) {
                self.unanswered += 1;
                self.next_ping = Some(now + self.pace(now));
                self.due.push((selected, Reach::Full));
            }
            return;
        }
        if self.punching.as_mut().is_some_and(|punching| punching.take(now)) {
            self.due.extend(self.admitting().into_iter().map(|to| (to, Reach::Full)));
        }
        if self.opening.take(now) {
            let closed =
                self.candidates.difference(&self.admitting()).map(|to| (*to, Reach::Opening)).collect::<Vec<_>>();
            self.due.extend(closed);
        }
    }

    /// A ping to be sent now, under a transaction of the caller's choice.
    pub fn poll_ping(&mut self, now: Instant, transaction: Transaction) -> Option<(SocketAddr, Reach)> {
        let (to, reach) = self.due.pop()?;
        if self.in_flight.len() >= IN_FLIGHT {
            let oldest = self.in_flight.iter().min_by_key(|(_, (_, sent))| *sent).map(|(id, _)| *id);
            oldest.and_then(|id| self.in_flight.remove(&id));
        }
        self.in_flight.insert(transaction, (to, now));
        Some((to, reach))
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.selected.is_some() {
            return self.next_ping;
        }
        self.opening.next().into_iter().chain(self.punching.as_ref().and_then(Schedule::next)).min()
    }

    /// Where full TTL is allowed.
    fn admitting(&self) -> BTreeSet<SocketAddr> {
        let acknowledged = self.candidates.iter().filter(|_| self.acknowledged);
        self.heard.iter().chain(acknowledged).copied().collect()
    }

    fn select(&mut self, now: Instant, addr: SocketAddr) {
        self.selected = Some(addr);
        self.next_ping = Some(now + LIVELY);
        self.due.clear();
    }

    fn measure(&mut self, sample: Duration) {
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * (RTT_WEIGHT - 1) + sample) / RTT_WEIGHT));
    }

    fn pace(&self, now: Instant) -> Duration {
        if self.is_doubtful() {
            return ANXIOUS;
        }
        if self.last_data.is_some_and(|at| now - at <= LIVELY_FOR) { LIVELY } else { QUIET }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "192.168.1.2:7";
    const MAPPED: &str = "198.51.100.1:1024";

    #[test]
    fn a_peer_that_has_not_acknowledged_us_gets_only_low_ttl() {
        let now = Instant::now();
        let mut path = agent(now, false);
        for ms in (0..60_000).step_by(25) {
            assert!(
                pings(&mut path, now + Duration::from_millis(ms)).iter().all(|(_, reach)| *reach == Reach::Opening)
            );
        }
    }

    #[test]
    fn opening_reaches_every_candidate_at_once_and_again_every_five_seconds() {
        let now = Instant::now();
        let mut path = agent(now, false);
        assert_eq!(pings(&mut path, now).len(), 2);
        pings(&mut path, now + Duration::from_millis(800));
        assert_eq!(pings(&mut path, now + Duration::from_millis(5799)), []);
        assert_eq!(pings(&mut path, now + Duration::from_millis(5800)).len(), 2);
    }

    #[test]
    fn an_acknowledgement_allows_full_ttl_to_every_candidate() {
        let now = Instant::now();
        let sent = pings(&mut agent(now, true), now);
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|(_, reach)| *reach == Reach::Full));
    }

    #[test]
    fn being_heard_allows_full_ttl_to_that_address_alone() {
        let now = Instant::now();
        let mut path = agent(now, false);
        path.handle_heard(now, addr(MAPPED));
        let sent: BTreeMap<_, _> = pings(&mut path, now).into_iter().collect();
        assert_eq!(sent[&addr(MAPPED)], Reach::Full);
        assert_eq!(sent[&addr(HOST)], Reach::Opening);
    }

    #[test]
    fn a_new_announcement_of_ours_takes_full_ttl_away_again() {
        let now = Instant::now();
        let mut path = agent(now, true);
        path.forget_acknowledgement();
        assert!(pings(&mut path, now).iter().all(|(_, reach)| *reach == Reach::Opening));
    }

    #[test]
    fn a_new_address_of_ours_is_opened_from_at_once_and_at_low_ttl() {
        let now = Instant::now();
        let mut path = agent(now, true);
        path.handle_heard(now, addr(MAPPED));
        pings(&mut path, now);
        path.reopen(now + Duration::from_secs(3));
        let sent = pings(&mut path, now + Duration::from_secs(3));
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|(_, reach)| *reach == Reach::Opening));
    }

    #[test]
    fn the_first_address_to_answer_is_selected_and_measured() {
        let now = Instant::now();
        let mut path = agent(now, true);
        path.handle_timeout(now);
        let (to, _) = path.poll_ping(now, 1).expect("a ping is due");
        assert!(path.handle_pong(now + Duration::from_millis(30), 1, to));
        assert_eq!(path.selected(), Some(to));
        assert_eq!(path.rtt(), Some(Duration::from_millis(30)));
        assert_eq!(path.poll_timeout(), Some(now + Duration::from_millis(30) + LIVELY));
    }

    #[test]
    fn an_answer_to_nothing_or_from_elsewhere_selects_nothing() {
        let now = Instant::now();
        let mut path = agent(now, true);
        path.handle_timeout(now);
        path.poll_ping(now, 1);
        assert!(!path.handle_pong(now, 2, addr(MAPPED)));
        assert!(!path.handle_pong(now, 1, addr("203.0.113.9:9")));
        assert_eq!(path.selected(), None);
    }

    #[test]
    fn a_quiet_path_is_pinged_less_often() {
        let now = Instant::now();
        let mut path = agent(now, true);
        path.handle_tunnelled(now, addr(MAPPED));
        let mut times = vec![];
        for second in 0..120 {
            let at = now + Duration::from_secs(second);
            if !pings(&mut path, at).is_empty() {
                times.push(second);
                path.handle_heard(at, addr(MAPPED));
            }
        }
        assert_eq!(times[..3], [2, 4, 6]);
        assert!(times.windows(2).last().is_some_and(|last| last[1] - last[0] == 5));
    }

    #[test]
    fn a_pair_that_does_not_answer_is_pinged_every_second_and_suspected_after_three_pings() {
        let now = Instant::now();
        let mut path = agent(now, true);
        path.handle_tunnelled(now, addr(MAPPED));
        let mut suspected = vec![];
        for second in 0..9 {
            pings(&mut path, now + Duration::from_secs(second));
            suspected.extend(path.is_suspect().then_some(second));
        }
        assert_eq!(suspected, [6, 7, 8]);
        path.handle_heard(now, addr(MAPPED));
        assert!(!path.is_suspect());
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn agent(now: Instant, acknowledged: bool) -> PathAgent {
        PathAgent::new(now, [addr(HOST), addr(MAPPED)], acknowledged)
    }

    fn pings(path: &mut PathAgent, now: Instant) -> Vec<(SocketAddr, Reach)> {
        path.handle_timeout(now);
        let mut transaction = 1000;
        std::iter::from_fn(|| {
            transaction += 1;
            path.poll_ping(now, transaction)
        })
        .collect()
    }
}
