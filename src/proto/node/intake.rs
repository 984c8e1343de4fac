//! What comes in: whose a datagram is, and what follows from it. Whatever is not authentic is counted and dropped.

use std::iter;
use std::net::SocketAddr;
use std::time::Instant;

use super::super::ipv4;
use super::super::nat::{Behaviour, Mapping};
use super::super::peer::{Absence, Peer, Refused, State, Word};
use super::super::probe;
use super::super::registration;
use super::super::relay;
use super::super::relay_client::Answer as Registration;
use super::super::reset;
use super::super::role::Role;
use super::super::route::{Route, SocketId};
use super::super::stun::{Answer, StunClient};
use super::super::super_packet::SuperPacket;
use super::super::too_big;
use super::super::tunnel::{self, Addressee};
use super::Node;

impl Node {
    /// Takes a datagram that came to `socket`.
    pub fn handle_datagram(&mut self, now: Instant, socket: SocketId, from: SocketAddr, datagram: &[u8]) {
        if StunClient::is_stun(datagram) {
            self.handle_stun(now, socket, from, datagram);
        } else if relay::is_frame(datagram) {
            self.handle_frame(now, from, datagram);
        } else if registration::is_registration(datagram) {
            self.handle_registration(now, from, datagram);
        } else {
            self.handle_sealed(now, Route::Direct { socket, addr: from }, None, datagram);
        }
    }

    /// As [`Self::handle_datagram`], of several that came together: those of one session are taken together.
    pub fn handle_datagrams<'d>(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        datagrams: impl Iterator<Item = &'d [u8]>,
    ) {
        let mut datagrams = datagrams.peekable();
        while let Some(first) = datagrams.next() {
            let Some(index) = tunnel::session(first) else {
                self.handle_datagram(now, socket, from, first);
                continue;
            };
            let same = |next: &&[u8]| tunnel::session(next) == Some(index);
            let run = iter::once(first).chain(iter::from_fn(|| datagrams.next_if(same)));
            let role = self.peers.by_session(index);
            self.handle_messages(now, Route::Direct { socket, addr: from }, role, run);
        }
    }

    /// Takes an inner packet from the TUN device. What cannot be delivered is answered with a TCP reset, or dropped.
    pub fn handle_inner(&mut self, now: Instant, mut packet: SuperPacket<'_>) {
        let role = ipv4::destination(packet.bytes()).and_then(|to| self.config.overlay.role_at(to));
        let Some(role) = role else { return self.drop_one("inner packet for nobody") };
        if let Some(peer) = self.peers.get_mut(&role) {
            if !packet.fit(peer.mtu().into()) {
                return match too_big::answer(packet.bytes(), peer.mtu()) {
                    Some(answer) => self.out.inner.push(&answer),
                    None => self.drop_one("inner packet that is too long for the path"),
                };
            }
            if peer.takes_packets() {
                self.connections.note(packet.bytes());
                return peer.send(now, packet, &mut self.out);
            }
        }
        while let Some(segment) = packet.next_segment() {
            self.handle_undeliverable(now, role, segment);
        }
    }

    fn handle_undeliverable(&mut self, now: Instant, role: Role, packet: &[u8]) {
        if let Some(peer) = self.peers.get(&role) {
            let waits = peer.absence() == Some(Absence::Silent) && self.connections.outlives_silence(packet);
            if peer.state == State::Up || waits {
                return self.drop_one("inner packet while its path is repaired");
            }
        }
        if self.want(now, role, packet) {
            return;
        }
        match reset::answer(packet) {
            Some(reset) => self.out.inner.push(&reset),
            None => self.drop_one("inner packet for nobody"),
        }
    }

    /// A probe or a WireGuard message, over whichever route. `from`: who made it, as a relay says.
    pub(super) fn handle_sealed(&mut self, now: Instant, route: Route, from: Option<Role>, datagram: &[u8]) {
        if probe::is_probe(datagram) {
            self.handle_probe(now, route, from, datagram);
        } else if tunnel::is_wireguard(datagram) {
            self.handle_wireguard(now, route, from, datagram);
        } else {
            self.drop_one("unknown datagram");
        }
    }

    fn handle_stun(&mut self, now: Instant, socket: SocketId, from: SocketAddr, datagram: &[u8]) {
        match self.stun.handle_response(now, socket, from, datagram) {
            Answer::Foreign => self.drop_one("STUN that we did not ask for"),
            Answer::Same => self.learn_mapping(now),
            Answer::Moved if self.settled => self.renewal.handle_moved(now),
            Answer::Moved => {}
        }
        self.handle_timeout(now);
    }

    /// Too few servers answered at first to tell how our NAT maps. Where more of them see another port each, what was announced is of no use.
    fn learn_mapping(&mut self, now: Instant) {
        if !self.settled || self.own.nat.mapping != Mapping::Unknown {
            return;
        }
        let nat = Behaviour::classify(&self.samples());
        if nat.is_dependent() {
            self.renewal.handle_astray(now);
        } else {
            self.own.nat = nat;
        }
    }

    fn handle_registration(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let answer = match self.relays.iter_mut().find(|relay| relay.server() == from) {
            Some(relay) => relay.handle_answer(now, datagram),
            None => Registration::Foreign,
        };
        match answer {
            Registration::Foreign => return self.drop_one("registration that we did not ask for"),
            Registration::Registered(observed) => self.handle_observed(now, observed),
            Registration::Challenged => {}
        }
        self.handle_timeout(now);
    }

    /// Somebody sees us at another address than we have announced: STUN will tell whether we have moved.
    fn handle_observed(&mut self, now: Instant, observed: SocketAddr) {
        let known = self.reflexive.contains(&observed) || self.config.hosts.contains(&observed);
        if self.settled && !known && !self.own.nat.is_dependent() && !observed.ip().is_unspecified() {
            self.stun.hasten(now);
        }
    }

    fn handle_probe(&mut self, now: Instant, route: Route, from: Option<Role>, datagram: &[u8]) {
        let own = self.config.role;
        let parties = probe::parties(datagram).filter(|(by, to)| *to == own && from.is_none_or(|from| from == *by));
        let Some((peer, mut around)) = parties.and_then(|(role, _)| self.peer(role)) else {
            return self.drop_one("probe of nobody we know");
        };
        let role = peer.role();
        match peer.handle_probe(now, route, datagram, &mut around) {
            None => return self.drop_one("probe that is not authentic"),
            Some(Word::Pong { observed, .. }) => self.handle_observed(now, observed),
            Some(Word::Introduce(wanted)) => self.introduce(now, role, wanted),
            Some(Word::Card { announcement, born }) => self.handle_card(now, role, *announcement, born),
            Some(Word::Plain | Word::Call(_) | Word::Farewell(_)) => {}
        }
        self.handle_timeout(now);
    }

    fn handle_wireguard(&mut self, now: Instant, route: Route, from: Option<Role>, datagram: &[u8]) {
        let addressee = tunnel::addressee(datagram, || self.config.secret.to_static(), &self.public);
        let role = match addressee {
            Some(Addressee::Session(index)) => self.peers.by_session(index),
            Some(Addressee::Key(key)) => {
                self.peers.values().find(|peer| peer.announcement.public_key == key).map(Peer::role)
            }
            None => None,
        };
        let role = role.filter(|role| from.is_none_or(|from| from == *role));
        self.handle_messages(now, route, role, iter::once(datagram));
    }

    /// Of one peer.
    fn handle_messages<'d>(
        &mut self,
        now: Instant,
        route: Route,
        role: Option<Role>,
        datagrams: impl Iterator<Item = &'d [u8]>,
    ) {
        let here = self.config.overlay.address(self.config.role);
        let Some(peer) = role.and_then(|role| self.peers.get_mut(&role)) else {
            return self.drop_many("WireGuard message of nobody we know", datagrams.count() as u64);
        };
        let Refused { forged, foreign } = peer.handle_wireguard(now, route, datagrams, here, &mut self.out);
        self.drop_many("WireGuard message that is not authentic", forged);
        self.drop_many("inner packet with addresses that are not its peer's", foreign);
    }
}
