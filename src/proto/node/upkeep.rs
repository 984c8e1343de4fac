//! What must not go on as it is: peers that have come due, paths that are lost, a mapping that has moved, a primary out of reach.

use std::time::{Duration, Instant};

use super::super::crossing::Crossing;
use super::super::hops;
use super::super::output::Around;
use super::super::peer::{Absence, Peer, State};
use super::super::renewal::{self, Reason};
use super::super::role::Role;
use super::super::route::SocketId;
use super::super::stun::StunClient;
use super::super::transmit::{Event, Transmit};
use super::{Node, TICK};

/// How many NATs are probed at once for an open port: 2,000 datagrams a second.
const MOST_PROBED: usize = 8;

/// How long a peer may take to be reached before we announce that we have opened towards it; and one whose port we search for, which has
/// opened towards us already.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(1500);
const ACKNOWLEDGE_SEARCHED_AFTER: Duration = Duration::from_secs(8);

/// From one announcement to the next, but for those that tell of another address.
const APART: Duration = Duration::from_secs(2);

/// How long the primary may be out of reach before other aux are looked for: it must have had the time to read our announcement.
const STRANDED_AFTER: Duration = Duration::from_secs(20);

/// How often a socket is changed for a direct path while a relay carries the data.
const MOST_TRIES_WHILE_RELAYED: usize = 3;

/// How long a primary that reaches nobody directly leaves it to its aux to move, and how often it then moves itself.
const PATIENCE_OF_PRIMARY: Duration = Duration::from_secs(25);
const MOST_TRIES_OF_PRIMARY: usize = 3;

impl Node {
    /// Questions to STUN servers and relays that have come due.
    pub(super) fn ask(&mut self, now: Instant) {
        while let Some((socket, to, bytes)) = self.stun.poll_transmit(now) {
            self.out.transmits.push_back(Transmit { socket, to, ttl: None, bytes });
        }
        for relay in &mut self.relays {
            if let Some(takes_us) = relay.take_notice(now) {
                self.out.events.push_back(Event::Relay { server: relay.server(), takes_us });
            }
            if let Some(bytes) = relay.poll_transmit(now, &mut self.rng) {
                let (socket, to) = (SocketId::MAIN, relay.server());
                self.out.transmits.push_back(Transmit { socket, to, ttl: None, bytes });
            }
        }
    }

    /// Lets those peers act that need to, and tells which they are.
    pub(super) fn drive_peers(&mut self, now: Instant) -> Vec<Role> {
        if self.next_tick <= now {
            self.next_tick = now + TICK;
            self.peers.tick(&mut self.out);
        }
        let driven: Vec<Role> = self.peers.in_need(now).into_iter().collect();
        let mut probed = 0;
        for role in &driven {
            let Some((peer, mut around)) = self.peer(*role) else { continue };
            let may_probe = probed < MOST_PROBED;
            probed += usize::from(peer.is_probing());
            peer.handle_timeout(now, may_probe, &mut around);
            self.notice_loss(now, *role);
        }
        self.peers.refresh();
        driven
    }

    /// The connections of a peer that is away are reset, once: jobs first, which can run elsewhere.
    fn notice_loss(&mut self, now: Instant, role: Role) {
        let Some(absence) = self.peers.get(&role).and_then(Peer::absence) else {
            self.away.remove(&role);
            return;
        };
        if self.away.insert(role, absence) != Some(absence) {
            self.reset_connections(role, absence);
            self.find_helpers(now, role);
        }
    }

    /// Looks after paths and announcements.
    pub(super) fn watch(&mut self, now: Instant) {
        if self.peers.is_any_uneasy() {
            self.stun.hasten(now);
            self.relays.iter_mut().for_each(|relay| relay.hasten(now));
        }
        let doubtful = self.peers.is_any_doubtful();
        if std::mem::replace(&mut self.doubtful, doubtful) != doubtful {
            self.out.events.push_back(Event::Doubt(doubtful));
        }
        if !self.settled || self.closing {
            return;
        }
        match self.config.role {
            Role::Primary => self.watch_aux(now),
            Role::Aux(_) => self.watch_primary(now),
        }
        if let Some(reason) = self.renewal.take(now) {
            return self.rebind(now, reason);
        }
        if self.acknowledge_at().is_some_and(|at| at <= now) {
            self.publish(now);
        }
    }

    /// When [`Self::watch`] has something to do that no peer has.
    pub(super) fn watch_timeout(&self) -> Option<Instant> {
        if !self.settled || self.closing {
            return None;
        }
        let stranding = self.primary().filter(|_| !self.stranded).and_then(|primary| self.stranded_at(primary));
        [self.renewal.poll_timeout(), self.acknowledge_at(), stranding].into_iter().flatten().min()
    }

    pub(super) fn fresh_stun(&mut self, now: Instant) -> StunClient {
        let local = self.config.hosts.first().map_or(0, std::net::SocketAddr::port);
        StunClient::new(now, &self.config.stun, local, &mut self.rng)
    }

    pub(super) fn reset_connections(&mut self, role: Role, absence: Absence) {
        let Some(peer) = self.config.overlay.address(role) else { return };
        let resets = match absence {
            Absence::Silent => self.connections.reset_jobs(peer),
            Absence::Forsaken => self.connections.reset_all(peer),
        };
        resets.iter().for_each(|reset| self.out.inner.push(reset));
    }

    fn primary(&self) -> Option<&Peer> {
        self.peers.get(&Role::Primary).filter(|peer| peer.state != State::Left)
    }

    /// A primary moves only where it has nobody to lose: what came too early may have spoilt its port for everyone.
    fn watch_aux(&mut self, now: Instant) {
        let is_direct = |peer: &Peer| peer.route().is_some_and(|route| route.is_direct());
        let lacks = |peer: &Peer| peer.absence().is_none() && peer.lacks_direct(&self.own);
        if self.peers.unreached().any(lacks) && !self.peers.values().any(is_direct) {
            self.renewal.handle_lost(now, PATIENCE_OF_PRIMARY, Some(MOST_TRIES_OF_PRIMARY));
        } else {
            self.renewal.handle_found();
        }
    }

    fn watch_primary(&mut self, now: Instant) {
        let Some(primary) = self.primary() else { return self.renewal.handle_found() };
        let most = primary.route().filter(|route| !route.is_direct()).map(|_| MOST_TRIES_WHILE_RELAYED);
        let stranded = self.stranded_at(primary).is_some_and(|at| at <= now);
        if primary.has_lost_direct() {
            self.renewal.handle_lost(now, Duration::ZERO, most);
        } else if primary.lacks_direct(&self.own) {
            self.renewal.handle_lost(now, renewal::PATIENCE, most);
        } else {
            self.renewal.handle_found();
        }
        if stranded && !std::mem::replace(&mut self.stranded, stranded) {
            self.out.events.push_back(Event::Stranded);
            self.search_again(now);
        }
        self.stranded = stranded;
    }

    /// Searches for those that may relay and were not found when it did not matter.
    fn search_again(&mut self, now: Instant) {
        let Self { peers, own, rng, out, .. } = self;
        for peer in peers.values_mut().filter(|peer| peer.state == State::Joining) {
            peer.handle_settled(now, &mut Around { own, rng, out });
        }
    }

    /// When the primary counts as out of reach, while nothing leads there. At once where nothing direct ever will.
    fn stranded_at(&self, primary: &Peer) -> Option<Instant> {
        if primary.route().is_some() && primary.state != State::Gone {
            return None;
        }
        let hopeless = matches!(primary.crossing(&self.own), Crossing::Relay(_));
        let patience = if hopeless { Duration::ZERO } else { STRANDED_AFTER };
        Some(primary.announced_at() + patience)
    }

    /// When an announcement is due that says whom we have opened towards: for peers that cannot be reached before they know.
    fn acknowledge_at(&self) -> Option<Instant> {
        let unknown = |peer: &&Peer| !self.is_acked(peer.role());
        let at = |peer: &Peer| {
            // Where our own port is the one that must be searched for, the other side begins when it knows that we have opened.
            let patience = match (self.own.nat.is_dependent(), peer.announcement.nat.is_dependent()) {
                (true, _) => Duration::ZERO,
                (false, true) => ACKNOWLEDGE_SEARCHED_AFTER,
                (false, false) => ACKNOWLEDGE_AFTER,
            };
            peer.announced_at() + patience
        };
        let earliest = self.published_at.map(|at| at + APART);
        self.peers.unreached().filter(unknown).map(at).min().map(|at| at.max(earliest.unwrap_or(at)))
    }

    /// Nobody has let the fresh socket in: all paths begin anew, and so does STUN.
    fn rebind(&mut self, now: Instant, reason: Reason) {
        tracing::info!("the paths begin anew from a fresh socket");
        (self.rebinding, self.settled) = (true, false);
        // Acknowledgements on their way are of the old addresses.
        self.own.epoch += 1;
        self.own.candidates.clear();
        self.own.opening_ttl = self.measured_ttl.unwrap_or_else(|| hops::ladder(self.renewal.tries()));
        let Self { peers, own, rng, out, .. } = self;
        for peer in peers.values_mut() {
            peer.reopen(now, &mut Around { own, rng, out });
        }
        self.out.transmits.clear();
        self.out.batches.clear();
        self.out.events.push_back(Event::Rebind(reason));
    }
}
