//! What changes with one peer, and who is told: it comes up, moves, falls silent, is reached another way, leaves.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::super::call::Call;
use super::super::candidate::{Candidate, Kind};
use super::super::guess::Guesses;
use super::super::output::{Around, Output, Own};
use super::super::probe::Farewell;
use super::super::role::Role;
use super::super::schedule::Schedule;
use super::super::spray::{PROBES, Spray};
use super::super::super_packet::SuperPacket;
use super::super::transmit::Event;
use super::{FORSAKEN_AFTER, GONE_AFTER, HANDSHAKE, Peer, State};

impl Peer {
    pub(super) fn handle_call(&mut self, now: Instant, call: &Call, around: &mut Around<'_>) {
        let acknowledged = call.opened == around.own.epoch;
        if call.epoch > self.announcement.epoch {
            self.announcement.epoch = call.epoch;
            self.announcement.nat = call.nat;
            self.announcement.candidates.clone_from(&call.candidates);
            self.handle_moved(now, acknowledged, around);
        } else if acknowledged && call.epoch == self.announcement.epoch {
            self.path.handle_acknowledged(now);
        }
        if !acknowledged {
            self.talk.call_again(now);
        }
    }

    pub(super) fn handle_moved(&mut self, now: Instant, acknowledged: bool, around: &mut Around<'_>) {
        let candidates: Vec<SocketAddr> = self.announcement.addresses().collect();
        self.path.handle_moved(now, candidates, acknowledged);
        self.begin_anew(now, around);
    }

    pub(super) fn begin_anew(&mut self, now: Instant, around: &mut Around<'_>) {
        self.prepare_spray(now, around);
        self.talk.call_again(now);
        self.was_direct = false;
        self.handshake = None;
        if self.state == State::Up && self.path.selected().is_none() {
            self.suspected.get_or_insert(now);
        }
    }

    /// Our own addresses are known now, and how our NAT maps.
    pub fn handle_settled(&mut self, now: Instant, around: &mut Around<'_>) {
        self.prepare_spray(now, around);
        self.talk.call_again(now);
    }

    /// Where one NAT has another port for everyone and the other has not.
    fn prepare_spray(&mut self, now: Instant, around: &mut Around<'_>) {
        let theirs = &self.announcement.nat;
        let reflexive = |candidate: &&Candidate| candidate.kind == Kind::ServerReflexive && candidate.addr.is_ipv4();
        let mapped = self.announcement.candidates.iter().filter(reflexive).map(|candidate| candidate.addr);
        let spray = match (around.own.nat.is_dependent(), theirs.is_dependent()) {
            (true, false) => Some(Spray::hard(now, mapped.take(2).collect())),
            (false, true) => {
                let at: BTreeSet<_> = mapped.map(|addr| addr.ip()).collect();
                let guesses = Guesses::new(theirs.ports, PROBES, ChaCha20Rng::from_seed(around.rng.random()));
                Some(Spray::easy(now, at.into_iter().collect(), guesses))
            }
            _ => None,
        };
        self.path.set_spray(spray);
    }

    pub(super) fn come_up(&mut self, now: Instant, out: &mut Output) {
        let Some(route) = self.path.selected().filter(|_| self.state == State::Joining) else { return };
        self.state = State::Up;
        self.handshake = None;
        let connect = now - self.announced_at;
        self.connect = Some(connect);
        self.told = Some(route);
        out.events.push_back(Event::Up { role: self.announcement.role, connect, route });
        for mut packet in std::mem::take(&mut self.waiting) {
            self.send(now, SuperPacket::plain(&mut packet), out);
        }
    }

    /// The initiator's first message proves a session to us; an empty one back proves it to the initiator.
    pub(super) fn confirm(&mut self, now: Instant, out: &mut Output) {
        let due = self.confirming.as_mut().is_some_and(|schedule| schedule.take(now));
        if let (true, Some(route)) = (due, self.path.selected())
            && let Some(bytes) = self.tunnel.keepalive()
        {
            out.send(self.announcement.role, route, None, bytes);
        }
    }

    /// A peer that was silent or has moved is back once there is a path that answers.
    pub(super) fn hear(&mut self, now: Instant, out: &mut Output) {
        self.heard_at = now;
        self.notice_changes(out);
        let Some(route) = self.path.selected().filter(|_| !self.path.is_suspect()) else { return };
        let (role, suspected) = (self.announcement.role, self.suspected.take());
        match (self.state, suspected) {
            (State::Gone, _) => {
                self.state = State::Up;
                out.events.push_back(Event::Back { role, route });
            }
            (State::Up, Some(since)) => out.events.push_back(Event::Recovered { role, took: now - since }),
            _ => {}
        }
    }

    /// Tells of another kind of route, of silence, and of a narrow path.
    pub(super) fn notice_changes(&mut self, out: &mut Output) {
        let (role, selected) = (self.announcement.role, self.path.selected());
        self.was_direct |= self.path.is_direct();
        if self.state != State::Up {
            return;
        }
        if self.path.is_suspect() && self.suspected.is_none() {
            self.suspected = Some(self.heard_at);
            out.events.push_back(Event::Suspect { role });
        }
        if let (Some(to), Some(from)) = (selected, self.told)
            && to != from
        {
            self.told = Some(to);
            if to.is_direct() != from.is_direct() || !to.is_direct() {
                out.events.push_back(Event::Rerouted { role, from, to });
            }
        }
        if let Some(mtu) = self.path.found_mtu().filter(|_| selected.is_some()) {
            let before = std::mem::replace(&mut self.told_mtu, mtu);
            if before != mtu {
                out.events.push_back(Event::Mtu { role, mtu, narrower: mtu < before });
            }
        }
    }

    pub(super) fn notice_silence(&mut self, now: Instant, out: &mut Output) {
        let silent = self.silent(now);
        if self.state == State::Up && silent >= GONE_AFTER {
            self.state = State::Gone;
            out.events.push_back(Event::Gone { role: self.announcement.role, silent });
        }
        self.forsaken = self.state == State::Gone && silent >= FORSAKEN_AFTER;
    }

    pub(super) fn handle_goodbye(&mut self, farewell: Farewell, out: &mut Output) {
        if self.state == State::Left {
            return;
        }
        self.state = State::Left;
        out.events.push_back(match (farewell, self.announcement.role) {
            (Farewell::Released, Role::Primary) => Event::Released,
            (Farewell::Replaced, Role::Primary) => Event::Replaced,
            (Farewell::Released | Farewell::Replaced | Farewell::Leaving, role) => Event::Left { role },
        });
    }

    /// The lower number initiates, so that two initiations never cross.
    pub(super) fn drive_handshake(&mut self, now: Instant, own: &Own, out: &mut Output) {
        let Some(route) = self.path.selected() else { return };
        if self.state != State::Joining || own.role > self.announcement.role {
            return;
        }
        let schedule = self.handshake.get_or_insert_with(|| Schedule::new(HANDSHAKE, now));
        if schedule.take(now)
            && let Some(bytes) = self.tunnel.initiate()
        {
            out.send(self.announcement.role, route, None, bytes);
        }
    }
}
