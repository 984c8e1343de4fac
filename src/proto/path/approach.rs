//! Looks for a direct route to one peer: opens our NAT towards it, punches, and sprays where one of the two NATs has another port for
//! everyone. Which of the routes that answer is taken is not here but in [`super`].
//!
//! **A full-TTL datagram never leaves for a peer that is not known to have opened towards our current address, and has not been
//! heard.** Decided here and nowhere else. If it reached a Linux NAT first, that NAT would bind a flow of its own and give the peer's
//! datagrams another port; no retry heals that.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::route::Route;
use super::super::schedule::{Ladder, Schedule};
use super::super::spray::Spray;
use super::{Ping, Reach};

/// Opening: five quick ones, since a pair whose openings are all lost clashes and never heals; all have left before any rendezvous shows our
/// announcement. Then within the 5 s after which the most forgetful NATs drop an unanswered mapping.
const OPENING: Ladder = Ladder { front_ms: &[0, 50, 150, 400, 800], every: Some(Duration::from_secs(4)) };

/// Punching: dense at the front, as nearly all punches succeed with the first packets or never. It goes on below the 5 s, as it also keeps
/// our own NAT open.
const PUNCHING: Ladder = Ladder { front_ms: &[0, 50, 100, 200, 400, 800, 1600], every: Some(Duration::from_secs(2)) };

/// The most addresses a peer is known by to have let us in. More come from somebody who plays with our datagrams.
const MOST_HEARD: usize = 32;

/// What is known of where the peer may be, and what it has let us do.
#[derive(Debug)]
pub(super) struct Approach {
    candidates: BTreeSet<SocketAddr>,
    /// It has opened towards our current addresses.
    acknowledged: bool,
    /// Routes on which it was heard: it lets us in there.
    heard: BTreeSet<Route>,
    opening: Schedule,
    punching: Option<Schedule>,
    spray: Option<Spray>,
    /// Whether the spray's probes may leave, as was last said.
    may_probe: bool,
}

impl Approach {
    pub(super) fn new(now: Instant, candidates: BTreeSet<SocketAddr>, acknowledged: bool) -> Self {
        Self {
            candidates,
            acknowledged,
            heard: BTreeSet::new(),
            opening: Schedule::new(OPENING, now),
            punching: acknowledged.then(|| Schedule::new(PUNCHING, now)),
            spray: None,
            may_probe: true,
        }
    }

    /// Both NATs are known, and one of them needs this.
    pub(super) fn set_spray(&mut self, spray: Option<Spray>) {
        self.spray = spray;
    }

    /// Whether it opens from many sockets.
    pub(super) fn sprays(&self) -> bool {
        self.spray.as_ref().is_some_and(Spray::is_opening)
    }

    /// Whether it is about to probe many ports.
    pub(super) fn is_probing(&self) -> bool {
        self.acknowledged && self.spray.as_ref().is_some_and(Spray::is_probing)
    }

    /// The peer says that it has opened towards our current addresses.
    pub(super) fn handle_acknowledged(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.acknowledged, true) {
            self.punching = Some(Schedule::new(PUNCHING, now));
        }
    }

    /// The search begins anew with what is known.
    pub(super) fn restart(&mut self, now: Instant) {
        self.opening = Schedule::new(OPENING, now);
        self.punching = (self.acknowledged || !self.heard.is_empty()).then(|| Schedule::new(PUNCHING, now));
    }

    /// Our own addresses have changed: nobody has let the new ones in.
    pub(super) fn reopen(&mut self, now: Instant) {
        *self = Self::new(now, std::mem::take(&mut self.candidates), false);
    }

    /// The peer was heard on a direct `route`; true when that is news.
    pub(super) fn handle_heard(&mut self, now: Instant, route: Route) -> bool {
        let news = self.heard.len() < MOST_HEARD && self.heard.insert(route);
        if news {
            self.punching = Some(Schedule::new(PUNCHING, now));
        }
        news
    }

    /// The pings that have come due. `may_probe`: whether a spray's probes are among them.
    pub(super) fn take(&mut self, now: Instant, may_probe: bool) -> Vec<Ping> {
        self.may_probe = may_probe;
        let mut pings = vec![];
        if self.punching.as_mut().is_some_and(|punching| punching.take(now)) {
            pings.extend(self.admitting().into_iter().map(|route| Ping::new(route, Reach::Full)));
        }
        if self.opening.take(now) {
            let candidates = self.candidates.iter().copied().map(Route::to);
            let admitting = self.admitting();
            let closed = candidates.filter(|route| !admitting.contains(route));
            pings.extend(closed.map(|route| Ping::new(route, Reach::Opening)));
        }
        if let Some(spray) = &mut self.spray {
            let reach = if spray.is_probing() { Reach::Full } else { Reach::Opening };
            if reach == Reach::Opening || self.acknowledged && may_probe {
                pings.extend(spray.take(now).into_iter().map(|route| Ping::untracked(route, reach)));
            }
        }
        pings
    }

    /// When [`Self::take`] has something to say.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let probing = self.acknowledged && self.may_probe;
        let spray = self.spray.as_ref().filter(|spray| probing || !spray.is_probing());
        let punching = self.punching.as_ref().and_then(Schedule::next);
        self.opening.next().into_iter().chain(punching).chain(spray.and_then(Spray::poll_timeout)).min()
    }

    /// Where full TTL is allowed.
    fn admitting(&self) -> BTreeSet<Route> {
        let acknowledged = self.candidates.iter().filter(|_| self.acknowledged).copied().map(Route::to);
        self.heard.iter().copied().chain(acknowledged).collect()
    }
}
