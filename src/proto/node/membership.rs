//! Who becomes a peer, and what we tell of ourselves.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng;

use super::super::announcement::{Ack, Announcement, Boot, PROTOCOL, Standing};
use super::super::candidate::{Candidate, MAX_CANDIDATES};
use super::super::crossing::Side;
use super::super::filtering::Filtering;
use super::super::key::RunKeys;
use super::super::nat::{Behaviour, Sample};
use super::super::peer::{Absence, PairKeys, Peer, State, Telling};
use super::super::probe::Farewell;
use super::super::relay_client::RelayClient;
use super::super::role::Role;
use super::super::super_packet::SuperPacket;
use super::super::transmit::Event;
use super::super::tunnel::Tunnel;
use super::Node;

/// How long an aux that was asked for may take to be introduced; then its packets are refused.
const INTRODUCTION: Duration = Duration::from_secs(8);

/// When it may be asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// How many aux may be asked for at once, and what may wait for each.
const MOST_WANTED: usize = 64;
const MOST_WAITING: usize = 8;

/// An aux that something is to be sent to.
#[derive(Debug)]
pub(super) struct Wanted {
    since: Instant,
    packets: Vec<Vec<u8>>,
}

impl Node {
    /// Takes an authentic announcement; `born` orders the processes of one role, later ones are greater.
    pub fn handle_announcement(&mut self, now: Instant, announcement: Announcement, born: u64) {
        let role = announcement.role;
        let between_aux = self.config.role != Role::Primary && role != Role::Primary;
        if role == self.config.role || between_aux && !self.stranded && !self.peers.contains_key(&role) {
            return;
        }
        let early = self.early.get(&role).map(|(known, born)| (known, *born));
        let known = self.peers.get(&role).map(|peer| (&peer.announcement, peer.born)).or(early);
        if known.is_some_and(|known| !is_newer((&announcement, born), known)) {
            return;
        }
        if !self.settled {
            self.early.insert(role, (announcement, born));
            return;
        }
        if announcement.standing == Standing::Closed {
            return self.handle_closed(role, announcement.boot);
        }
        if let Err(why) = self.check(&announcement) {
            return self.out.events.push_back(Event::Unusable { role, why });
        }
        self.admit(now, announcement, born);
        self.handle_timeout(now);
        if self.config.role != Role::Primary && !self.is_acked(role) {
            self.publish(now);
        }
    }

    /// From the primary: somebody who may be reached directly.
    pub(super) fn handle_card(&mut self, now: Instant, by: Role, announcement: Announcement, born: u64) {
        let role = announcement.role;
        let known = self.peers.get(&role).map(|peer| (&peer.announcement, peer.born));
        let news = known.is_none_or(|(known, known_born)| {
            is_newer((&announcement, born), (known, known_born))
                || known.boot == announcement.boot && known.epoch < announcement.epoch
        });
        let stranger = role != Role::Primary && role != self.config.role;
        if by == Role::Primary && self.settled && stranger && news && self.check(&announcement).is_ok() {
            self.admit(now, announcement, born);
        }
    }

    /// As primary: `one` has something for `other`.
    pub(super) fn introduce(&mut self, now: Instant, one: Role, other: Role) {
        if self.config.role == Role::Primary && one != other {
            self.hand_card(now, other, one);
            self.hand_card(now, one, other);
        }
    }

    /// Something is to be sent to an aux that we have no session with. False when it is not to be had.
    pub(super) fn want(&mut self, now: Instant, role: Role, packet: &[u8]) -> bool {
        let between_aux = self.config.role != Role::Primary && role != Role::Primary && role != self.config.role;
        let primary = self.peers.get_mut(&Role::Primary).filter(|primary| primary.state == State::Up);
        let Some(primary) = primary.filter(|_| between_aux) else { return false };
        self.wanted.retain(|_, wanted| now - wanted.since < ASK_AGAIN);
        if !self.wanted.contains_key(&role) {
            if self.wanted.len() >= MOST_WANTED {
                return false;
            }
            primary.tell(now, Telling::Introduce(role));
            self.wanted.insert(role, Wanted { since: now, packets: vec![] });
        }
        let Some(wanted) = self.wanted.get_mut(&role).filter(|wanted| now - wanted.since < INTRODUCTION) else {
            return false;
        };
        if wanted.packets.len() < MOST_WAITING {
            wanted.packets.push(packet.to_vec());
        }
        true
    }

    /// STUN has answered, or nobody does.
    pub(super) fn settle(&mut self, now: Instant) {
        let samples = self.samples();
        if samples.is_empty() && self.renewal.has_happened() {
            return self.stun = self.fresh_stun(now);
        }
        let nat = Behaviour::classify(&samples);
        if nat.is_dependent() && !self.stun.is_surveyed() {
            return self.stun.survey(now, &mut self.rng);
        }
        self.settled = true;
        self.renewal.handle_settled(now);
        self.reflexive = self.stun.reflexive();
        let seen = self.relays.iter().filter_map(RelayClient::observed);
        let news: Vec<SocketAddr> = seen.filter(|addr| !self.reflexive.contains(addr)).collect();
        self.reflexive.extend(news);
        self.own.nat = nat;
        self.own.side = self.side(samples.is_empty());
        self.own.candidates = self.gather();
        let (answers, reflexive) = (samples.len(), self.reflexive.clone());
        self.out.events.push_back(Event::Settled { answers, nat, reflexive });
        let roles: Vec<Role> = self.peers.keys().copied().collect();
        for role in roles {
            if let Some((peer, mut around)) = self.peer(role) {
                peer.handle_settled(now, &mut around);
            }
        }
        if self.config.role == Role::Primary || !self.peers.is_empty() {
            self.publish(now);
        }
        for (announcement, born) in std::mem::take(&mut self.early).into_values() {
            self.handle_announcement(now, announcement, born);
        }
    }

    /// What STUN servers see of our sockets, and relays, which answer as well as they do.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let local = self.config.hosts.first().map_or(0, SocketAddr::port);
        let of_relay = |relay: &RelayClient| Some(Sample { server: relay.server(), mapped: relay.observed()?, local });
        self.stun.samples().into_iter().chain(self.relays.iter().filter_map(of_relay)).collect()
    }

    /// Asks for an announcement of where we are and whom we have opened towards.
    pub(super) fn publish(&mut self, now: Instant) {
        self.seq += 1;
        self.published_at = Some(now);
        let ack = |(role, peer): (&Role, &Peer)| {
            let Announcement { boot, epoch, .. } = peer.announcement;
            Ack { role: *role, boot, epoch }
        };
        self.acked = self.peers.iter().map(ack).collect();
        self.out.events.push_back(Event::Publish(Box::new(self.announcement())));
    }

    /// Whether our newest announcement acknowledges the peer's newest addresses.
    pub(super) fn is_acked(&self, role: Role) -> bool {
        let known = self.peers.get(&role).map(|peer| (peer.boot(), peer.announcement.epoch));
        known.is_some_and(|(boot, epoch)| {
            let at = self.acked.binary_search_by_key(&role, |ack| ack.role);
            at.is_ok_and(|at| self.acked[at] == Ack { role, boot, epoch })
        })
    }

    fn handle_closed(&mut self, role: Role, boot: Boot) {
        let known = self.peers.get(&role);
        if role == Role::Primary && known.is_none_or(|peer| peer.boot() == boot || peer.state != State::Up) {
            self.out.events.push_back(Event::Released);
        }
    }

    fn check(&self, announcement: &Announcement) -> Result<(), String> {
        let overlay = self.config.overlay;
        if announcement.overlay != overlay.to_string() {
            return Err(format!("its overlay is {}, ours is {overlay}", announcement.overlay));
        }
        if overlay.address(announcement.role).is_none() {
            return Err(format!("the overlay {overlay} has no address for {}", announcement.role));
        }
        if self.shared_keys(announcement).is_none() {
            return Err("it has none of our keys".into());
        }
        Ok(())
    }

    fn shared_keys(&self, announcement: &Announcement) -> Option<&RunKeys> {
        self.config.keys.shared_with(&announcement.keys, self.config.role < announcement.role)
    }

    /// INVARIANT: `check` has passed.
    fn admit(&mut self, now: Instant, announcement: Announcement, born: u64) {
        let role = announcement.role;
        let acknowledged = announcement.acknowledges(self.config.role, self.boot, self.own.epoch);
        self.pass_on_acks(now, &announcement, born);
        match self.peer(role) {
            Some((peer, mut around)) if peer.boot() == announcement.boot => {
                return peer.handle_announcement(now, announcement, acknowledged, &mut around);
            }
            Some((peer, mut around)) => {
                tracing::info!(peer = %role, "a newer process takes over");
                peer.say_goodbye(now, Farewell::Replaced);
                peer.handle_timeout(now, false, &mut around);
                self.reset_connections(role, Absence::Forsaken);
            }
            None => {}
        }
        self.add(now, announcement, born, acknowledged);
    }

    fn add(&mut self, now: Instant, announcement: Announcement, born: u64, acknowledged: bool) {
        let role = announcement.role;
        let Some(overlay) = self.config.overlay.address(role) else { return };
        let Some(shared) = self.shared_keys(&announcement) else { return };
        let secret = self.config.secret.to_static();
        let preshared = shared.preshared(&self.public, &announcement.public_key);
        let keys = PairKeys {
            probes: shared.probes(&secret, &announcement.public_key),
            hops: shared.hops(&secret, &announcement.public_key),
        };
        let tunnel = Tunnel::new(&secret, &announcement.public_key, preshared, self.fresh_index(), &self.limit);
        let waiting = self.wanted.remove(&role);
        self.peers.insert(role, Peer::new(now, announcement, born, overlay, keys, tunnel, acknowledged));
        self.offer_relays(now, role);
        let Some((peer, mut around)) = self.peer(role) else { return };
        peer.handle_settled(now, &mut around);
        for mut packet in waiting.into_iter().flat_map(|wanted| wanted.packets) {
            peer.send(now, SuperPacket::plain(&mut packet), around.out);
        }
    }

    /// As primary: an aux that has opened towards others and cannot reach us is made known to those of them that can.
    fn pass_on_acks(&mut self, now: Instant, announcement: &Announcement, born: u64) {
        if self.config.role != Role::Primary {
            return;
        }
        for ack in announcement.acks.iter().filter(|ack| ack.role != Role::Primary && ack.role != announcement.role) {
            let helper = self.peers.get_mut(&ack.role).filter(|peer| peer.boot() == ack.boot && peer.can_relay());
            if let Some(helper) = helper {
                helper.tell(now, card(announcement, ack.role, born));
            }
        }
    }

    /// As primary: an aux that is lost, and those towards whom it has opened.
    pub(super) fn find_helpers(&mut self, now: Instant, lost: Role) {
        let lost = self.peers.get(&lost).filter(|peer| peer.state == State::Gone);
        if let Some((announcement, born)) = lost.map(|peer| (peer.announcement.clone(), peer.born)) {
            self.pass_on_acks(now, &announcement, born);
        }
    }

    /// As primary: an aux that can relay now, and those that have opened towards it.
    pub(super) fn recruit(&mut self, now: Instant, helper: Role) {
        let lost = |peer: &&Peer| {
            matches!(peer.state, State::Joining | State::Gone)
                && peer.announcement.acks.iter().any(|ack| ack.role == helper)
        };
        let lost: Vec<_> =
            self.peers.values().filter(lost).map(|peer| (peer.announcement.clone(), peer.born)).collect();
        lost.iter().for_each(|(announcement, born)| self.pass_on_acks(now, announcement, *born));
    }

    /// Tells `to` where `about` is.
    fn hand_card(&mut self, now: Instant, about: Role, to: Role) {
        let known = self.peers.get(&about).filter(|peer| peer.state == State::Up);
        let Some(told) = known.map(|peer| card(&peer.announcement, to, peer.born)) else { return };
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.tell(now, told);
        }
    }

    fn fresh_index(&mut self) -> u32 {
        loop {
            let index = self.rng.random_range(1..1 << 24);
            if self.peers.values().all(|peer| peer.index() != index) {
                return index;
            }
        }
    }

    fn side(&self, unanswered: bool) -> Side {
        if unanswered {
            return Side::Blocked;
        }
        let public = self.reflexive.iter().any(|addr| self.config.hosts.contains(addr));
        if public { Side::Public } else { Side::Nat(self.own.nat, Filtering::Unknown) }
    }

    /// Own interfaces first where they are public, then what STUN saw, then the rest.
    fn gather(&self) -> Vec<Candidate> {
        let hosts = &self.config.hosts;
        let mapped =
            self.reflexive.iter().filter(|addr| !hosts.contains(addr)).copied().map(Candidate::server_reflexive);
        let all = mapped.chain(hosts.iter().copied().map(Candidate::host));
        all.filter(Candidate::is_usable).take(MAX_CANDIDATES).collect()
    }

    fn announcement(&self) -> Announcement {
        Announcement {
            protocol: (PROTOCOL, PROTOCOL),
            role: self.config.role,
            boot: self.boot,
            seq: self.seq,
            epoch: self.own.epoch,
            issued_at: 0,
            expires_at: 0,
            keys: self.config.keys.ids(),
            public_key: self.public,
            overlay: self.config.overlay.to_string(),
            slots: self.config.slots,
            offload: self.config.offload.clone(),
            standing: if self.closing { Standing::Closed } else { Standing::Open },
            nat: self.own.nat,
            candidates: self.own.candidates.clone(),
            acks: self.acked.clone(),
        }
    }
}

/// An announcement as it is handed on: without what concerns others.
fn card(announcement: &Announcement, to: Role, born: u64) -> Telling {
    let mut card = announcement.clone();
    card.acks.retain(|ack| ack.role == to);
    Telling::Card(Box::new(card), born)
}

/// By sequence number within one process, else by the birth of the process.
fn is_newer((this, born): (&Announcement, u64), (known, known_born): (&Announcement, u64)) -> bool {
    if this.boot == known.boot { this.seq > known.seq } else { born > known_born }
}
