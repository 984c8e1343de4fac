//! The path to one peer: which of the routes that answer carries data, and whether it still does. Looking for a direct route is in
//! [`approach`]; sealing pings is not here but in [`super::probe`].
//!
//! A life: *searching* (opening and punching towards every candidate; pings through every relay), *selected* (the best route that has
//! answered, pinged to keep the mapping and to measure), and searching again as soon as that is in doubt or leads through a relay.

mod approach;
mod mtu;
mod pair;
mod ping;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use self::approach::Approach;
use self::mtu::MtuSearch;
use self::pair::Pair;
use self::ping::Flight;
pub use self::ping::{Ping, Reach};
use super::probe::Transaction;
use super::route::{Relay, Route, SocketId, Tier};
use super::schedule::{Ladder, Schedule};
use super::spray::Spray;

/// How often the selected route is pinged while data flows, so that silence is noticed.
const LIVELY: Duration = Duration::from_secs(2);

/// How often otherwise: below every mapping's lifetime.
const QUIET: Duration = Duration::from_secs(5);

/// How long after the last data a path counts as lively.
const LIVELY_FOR: Duration = Duration::from_secs(45);

/// How long other routes are measured beside a direct one that has just been selected.
const COMPARING: Duration = Duration::from_secs(5);

/// How often they are.
const COMPARE: Duration = Duration::from_secs(1);

/// A direct route that has been left for a relay `n` times, each within [`FORGIVEN`] of the one before, comes back after this times `2^n - 2`, and
/// after no more than the other: at once after the first time.
const HOLD: Duration = Duration::from_millis(500);
const LONGEST_HOLD: Duration = Duration::from_secs(30);
const FORGIVEN: Duration = Duration::from_secs(60);

/// While searching: pings through each relay.
const RELAYING: Ladder = Ladder { front_ms: &[0, 100, 200, 500, 1000], every: Some(Duration::from_secs(2)) };

/// The path to one peer.
#[derive(Debug)]
pub struct PathAgent {
    approach: Approach,
    /// Who is asked to pass our datagrams on.
    relays: BTreeSet<Relay>,
    /// Those among them through whom the peer was heard.
    heard_through: BTreeSet<Relay>,
    relaying: Schedule,
    /// Whether relays are asked.
    asking: bool,
    searching: bool,
    pairs: BTreeMap<Route, Pair>,
    selected: Option<Route>,
    /// When the selected route was, if it is direct and others are still measured beside it.
    comparing_since: Option<Instant>,
    /// How often a direct route has been left for a relay lately, and when that was last.
    left: (u32, Option<Instant>),
    mtu: MtuSearch,
    due: Vec<Ping>,
    in_flight: Flight,
    last_data: Option<Instant>,
}

impl PathAgent {
    /// Begins to open towards `candidates`, and to punch when the peer has `acknowledged` our current addresses.
    pub fn new(now: Instant, candidates: impl IntoIterator<Item = SocketAddr>, acknowledged: bool) -> Self {
        Self {
            approach: Approach::new(now, candidates.into_iter().collect(), acknowledged),
            relays: BTreeSet::new(),
            heard_through: BTreeSet::new(),
            relaying: Schedule::new(RELAYING, now),
            asking: true,
            searching: true,
            pairs: BTreeMap::new(),
            selected: None,
            comparing_since: None,
            left: (0, None),
            mtu: MtuSearch::new(now),
            due: vec![],
            in_flight: Flight::default(),
            last_data: None,
        }
    }

    /// The route that carries data.
    pub fn selected(&self) -> Option<Route> {
        self.selected
    }

    /// The average round trip on it.
    pub fn rtt(&self) -> Option<Duration> {
        self.selected.and_then(|route| self.pairs.get(&route)).and_then(Pair::rtt)
    }

    /// The largest inner packet that it takes, as far as is known.
    pub fn mtu(&self) -> u16 {
        self.mtu.mtu()
    }

    /// Likewise, once the search for it has ended.
    pub fn found_mtu(&self) -> Option<u16> {
        self.mtu.is_found().then(|| self.mtu.mtu())
    }

    /// Whether a direct route carries data and answers.
    pub fn is_direct(&self) -> bool {
        self.selected.is_some_and(|route| route.is_direct()) && !self.is_doubtful()
    }

    /// Whether there is a direct route that may come back, though a relay may carry the data for now.
    pub fn holds_direct(&self) -> bool {
        self.pairs.iter().any(|(route, pair)| route.is_direct() && !pair.is_suspect())
    }

    /// Whether the selected route has left a ping unanswered until the next one.
    pub fn is_uneasy(&self) -> bool {
        self.current().is_some_and(Pair::is_uneasy)
    }

    /// Whether that lasts.
    pub fn is_doubtful(&self) -> bool {
        self.current().is_some_and(Pair::is_doubtful)
    }

    /// Whether the selected route has left several pings unanswered, and there is no other.
    pub fn is_suspect(&self) -> bool {
        self.current().is_some_and(Pair::is_suspect)
    }

    /// Whether anything of the peer may come to one of the sockets of a spray.
    pub fn uses(&self, socket: SocketId) -> bool {
        let used =
            self.selected.is_some_and(|route| matches!(route, Route::Direct { socket: used, .. } if used == socket));
        used || self.searching && self.approach.sprays()
    }

    /// Whether it is about to probe many ports of the peer's NAT.
    pub fn is_probing(&self) -> bool {
        self.searching && self.approach.is_probing()
    }

    /// Both NATs are known, and one of them needs this to be crossed.
    pub fn set_spray(&mut self, spray: Option<Spray>) {
        self.approach.set_spray(spray);
    }

    /// Who is `able` to pass datagrams on as of now, and who of them is worth `asking`. Through others the peer may still be heard.
    pub fn set_relays(&mut self, now: Instant, able: &BTreeSet<Relay>, asking: BTreeSet<Relay>) {
        self.heard_through.retain(|relay| able.contains(relay));
        let relays = asking.into_iter().chain(self.heard_through.iter().copied()).collect();
        if self.relays == relays {
            return;
        }
        self.relays = relays;
        let lost = |route: &Route| matches!(route, Route::Relayed(relay) if !self.relays.contains(relay));
        self.pairs.retain(|route, _| !lost(route));
        self.selected = self.selected.filter(|route| !lost(route));
        self.relaying = Schedule::new(RELAYING, now);
        self.choose(now);
    }

    /// The peer has opened towards our current addresses.
    pub fn handle_acknowledged(&mut self, now: Instant) {
        self.approach.handle_acknowledged(now);
    }

    /// The peer's addresses have changed. Its old ones lead nowhere any more; relays do.
    pub fn handle_moved(&mut self, now: Instant, candidates: impl IntoIterator<Item = SocketAddr>, acknowledged: bool) {
        self.approach = Approach::new(now, candidates.into_iter().collect(), acknowledged);
        self.forget_direct(now);
    }

    /// Our own addresses have changed: everything begins anew, and nobody has let the new ones in.
    pub fn reopen(&mut self, now: Instant) {
        self.approach.reopen(now);
        self.forget_direct(now);
    }

    /// An authentic datagram came over `route`: the peer lets us in there.
    pub fn handle_heard(&mut self, now: Instant, route: Route) {
        match route {
            Route::Direct { .. } => {
                self.approach.handle_heard(now, route);
            }
            Route::Relayed(relay) => {
                self.heard_through.insert(relay);
                if self.relays.insert(relay) {
                    self.relaying = Schedule::new(RELAYING, now);
                }
            }
        }
    }

    /// An answer to one of our pings.
    pub fn handle_pong(&mut self, now: Instant, transaction: Transaction, route: Route) {
        self.handle_heard(now, route);
        let Some((ping, at)) = self.in_flight.take(transaction) else { return };
        if ping.route != route {
            return;
        }
        let pause = self.pace(now);
        let pair = self.pairs.entry(route).or_insert_with(|| Pair::new(now, COMPARE));
        pair.handle_answer(now, Some(now - at), pause);
        if self.selected == Some(route) {
            self.mtu.handle_answer(now, ping.length);
        }
        self.choose(now);
    }

    /// A transport message decrypted: where nothing is selected, its route is as good as one with a pong.
    /// It was `lively` if there was more in it than a keepalive: one comes every 25 s, and the path would never be quiet.
    pub fn handle_tunnelled(&mut self, now: Instant, route: Route, lively: bool) {
        self.last_data = if lively { Some(now) } else { self.last_data };
        self.handle_heard(now, route);
        let pause = self.pace(now);
        if let Some(pair) = self.pairs.get_mut(&route) {
            pair.handle_answer(now, None, pause);
        } else if self.selected.is_none() {
            self.pairs.insert(route, Pair::new(now, COMPARE));
        }
        if self.pairs.len() > 1 || self.selected != Some(route) {
            self.choose(now);
        }
    }

    /// The system finds what we send too long.
    pub fn handle_too_long(&mut self, now: Instant) {
        self.mtu.handle_too_long(now);
    }

    /// Data was sent: the path is lively.
    pub fn handle_sent(&mut self, now: Instant) {
        let quiet = self.last_data.is_none_or(|at| now - at > LIVELY_FOR);
        self.last_data = Some(now);
        if let Some(pair) = self.selected.and_then(|route| self.pairs.get_mut(&route)) {
            pair.handle_sent(now);
            if quiet {
                pair.hasten(now, LIVELY);
            }
        }
    }

    /// Takes what has come due. `may_probe`: whether a spray's probes may leave.
    pub fn handle_timeout(&mut self, now: Instant, may_probe: bool) {
        for (route, pair) in &mut self.pairs {
            if pair.take(now) {
                self.due.push(Ping::new(*route, Reach::Full));
            }
        }
        self.choose(now);
        self.search(now, may_probe);
        self.ask_relays(now);
        if let Some(route) = self.selected {
            let lively = self.last_data.is_some_and(|at| now - at <= LIVELY_FOR);
            let lengths = self.mtu.take(now, !self.is_uneasy(), lively);
            self.due.extend(lengths.into_iter().map(|length| Ping::padded(route, length)));
        }
    }

    /// A ping to be sent now, under a transaction of the caller's choice.
    pub fn poll_ping(&mut self, now: Instant, transaction: Transaction) -> Option<Ping> {
        let ping = self.due.pop()?;
        self.in_flight.insert(now, transaction, ping);
        Some(ping)
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let pairs = self.pairs.values().map(Pair::next);
        let search = self.searching.then(|| self.approach.poll_timeout()).flatten();
        let relaying = (self.asking && !self.relays.is_empty()).then(|| self.relaying.next()).flatten();
        let mtu = self.selected.and_then(|_| self.mtu.poll_timeout());
        let compared = self.comparing_since.map(|at| at + COMPARING);
        pairs.chain(search).chain(relaying).chain(mtu).chain(compared).min()
    }

    fn current(&self) -> Option<&Pair> {
        self.selected.and_then(|route| self.pairs.get(&route))
    }

    fn forget_direct(&mut self, now: Instant) {
        self.pairs.retain(|route, _| !route.is_direct());
        self.selected = self.selected.filter(|route| !route.is_direct());
        self.comparing_since = None;
        self.due.retain(|ping| !ping.route.is_direct());
        self.searching = true;
        self.relaying = Schedule::new(RELAYING, now);
        self.choose(now);
    }

    /// Opens and punches, unless a direct route has nothing to be desired.
    fn search(&mut self, now: Instant, may_probe: bool) {
        if self.comparing_since.is_some_and(|since| since + COMPARING <= now) {
            self.comparing_since = None;
            self.pairs.retain(|route, _| Some(*route) == self.selected);
        }
        let wanted = !self.is_direct();
        if wanted && !std::mem::replace(&mut self.searching, wanted) {
            self.approach.restart(now);
        }
        self.searching = wanted;
        if wanted {
            self.due.extend(self.approach.take(now, may_probe));
        }
    }

    /// So that one is ready to carry the data if the route that does stays silent.
    fn ask_relays(&mut self, now: Instant) {
        let wanted = !self.is_direct() || self.is_uneasy();
        if wanted && !std::mem::replace(&mut self.asking, wanted) {
            self.relaying = Schedule::new(RELAYING, now);
        }
        self.asking = wanted;
        if wanted && !self.relays.is_empty() && self.relaying.take(now) {
            let others =
                self.relays.iter().map(|relay| Route::Relayed(*relay)).filter(|route| !self.pairs.contains_key(route));
            self.due.extend(others.map(|route| Ping::new(route, Reach::Full)));
        }
    }

    /// The best tier that answers; within a tier the one that is there, unless another is much faster. What is selected stays as long as
    /// nothing better answers.
    fn choose(&mut self, now: Instant) {
        let answering = self.pairs.iter().filter(|(_, pair)| !pair.is_suspect());
        let rank =
            |(route, pair): &(&Route, &Pair)| (pair.is_silent(), route.tier(), pair.rtt().unwrap_or(Duration::MAX));
        let Some((best, pair)) = answering.min_by_key(rank).map(|(route, pair)| (*route, pair)) else { return };
        let better = match self.selected.and_then(|route| Some((route, self.pairs.get(&route)?))) {
            None => true,
            Some((_, current)) if current.is_suspect() => true,
            Some(_) if pair.is_silent() => false,
            Some((_, current)) if current.is_silent() => true,
            Some((route, _)) if !route.is_direct() && best.is_direct() => {
                self.held_until().is_none_or(|until| until <= now)
            }
            Some((route, current)) => {
                best.tier() < route.tier() || best.tier() == route.tier() && pair.is_much_faster_than(current)
            }
        };
        if better && self.selected != Some(best) {
            self.select(now, best);
        }
        let selected = self.selected;
        self.pairs.retain(|route, pair| !pair.is_suspect() || Some(*route) == selected);
    }

    fn select(&mut self, now: Instant, route: Route) {
        if self.selected.is_none_or(|before| before.tier() != route.tier()) {
            self.mtu = MtuSearch::new(now);
        }
        if !route.is_direct() && self.selected.is_some_and(|before| before.is_direct()) {
            let (times, last) = self.left;
            let lately = last.is_some_and(|last| now - last < FORGIVEN);
            self.left = (if lately { times.saturating_add(1) } else { 1 }, Some(now));
        }
        self.selected = Some(route);
        self.comparing_since = (route.tier() != Tier::Relayed).then_some(now);
        let pause = self.pace(now);
        if let Some(pair) = self.pairs.get_mut(&route).filter(|pair| !pair.is_silent()) {
            pair.handle_answer(now, None, pause);
        }
    }

    /// Until when a direct route has to wait though it answers.
    fn held_until(&self) -> Option<Instant> {
        let (times, last) = self.left;
        let hold = HOLD * 2_u32.saturating_pow(times).saturating_sub(2).min(1000);
        last.map(|last| last + hold.min(LONGEST_HOLD))
    }

    fn pace(&self, now: Instant) -> Duration {
        if self.comparing_since.is_some() {
            return COMPARE;
        }
        if self.last_data.is_some_and(|at| now - at <= LIVELY_FOR) { LIVELY } else { QUIET }
    }
}
