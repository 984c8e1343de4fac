//! The peers, and which of them need a look: those that were given out to be changed since the last one, and those that have come due. All
//! are never walked for one datagram, as there may be hundreds of both. What is done with a peer is not here but in [`super::upkeep`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::time::Instant;

use super::super::output::Output;
use super::super::peer::{Peer, State};
use super::super::role::Role;

/// The peers by their roles; read as a map of them.
///
/// INVARIANT: what is kept of a peer beside itself is as [`Self::refresh`] last saw it, or the peer is among the `touched`.
#[derive(Debug, Default)]
pub(super) struct Peers {
    all: BTreeMap<Role, Peer>,
    /// Given out to be changed since they were last refreshed.
    touched: BTreeSet<Role>,
    sessions: BTreeMap<u32, Role>,
    due: BTreeSet<(Instant, Role)>,
    due_at: BTreeMap<Role, Instant>,
    probing: BTreeSet<Role>,
    uneasy: BTreeSet<Role>,
    unreached: BTreeSet<Role>,
}

impl Deref for Peers {
    type Target = BTreeMap<Role, Peer>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Peers {
    /// In the place of whoever had this role.
    pub(super) fn insert(&mut self, role: Role, peer: Peer) {
        self.touched.insert(role);
        self.sessions.insert(peer.index(), role);
        if let Some(before) = self.all.insert(role, peer) {
            self.sessions.remove(&before.index());
        }
    }

    /// One of them, to be changed.
    pub(super) fn get_mut(&mut self, role: &Role) -> Option<&mut Peer> {
        let peer = self.all.get_mut(role)?;
        self.touched.insert(*role);
        Some(peer)
    }

    /// All of them, to be changed.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.touched.extend(self.all.keys());
        self.all.values_mut()
    }

    /// WireGuard's own timers. They change nothing that is kept here.
    pub(super) fn tick(&mut self, out: &mut Output) {
        self.all.values_mut().for_each(|peer| peer.tick(out));
    }

    /// Whose session gave out this index.
    pub(super) fn by_session(&self, index: u32) -> Option<Role> {
        self.sessions.get(&index).copied()
    }

    /// Those that may be other than they were when last refreshed.
    pub(super) fn touched(&self) -> Vec<Role> {
        self.touched.iter().copied().collect()
    }

    /// Those that need a look, in the order of their roles: touched, come due, or probing, as probing is a matter of turns.
    pub(super) fn in_need(&self, now: Instant) -> BTreeSet<Role> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, role)| *role);
        due.chain(self.touched.iter().copied()).chain(self.probing.iter().copied()).collect()
    }

    /// When one of them has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let touched = self.look_up(&self.touched).filter_map(Peer::poll_timeout);
        touched.chain(self.due.first().map(|(at, _)| *at)).min()
    }

    /// Whether one counts as up and has left a ping unanswered.
    pub(super) fn is_any_uneasy(&self) -> bool {
        self.look_up(&self.uneasy).chain(self.look_up(&self.touched)).any(Peer::is_uneasy)
    }

    /// Whether for one of them that lasts.
    pub(super) fn is_any_doubtful(&self) -> bool {
        self.look_up(&self.uneasy).chain(self.look_up(&self.touched)).any(Peer::is_doubtful)
    }

    /// Those that no route leads to and that have not left, some of them twice.
    pub(super) fn unreached(&self) -> impl Iterator<Item = &Peer> {
        self.look_up(&self.unreached).chain(self.look_up(&self.touched)).filter(|peer| is_unreached(peer))
    }

    /// Notes what has become of those that were touched.
    pub(super) fn refresh(&mut self) {
        for role in std::mem::take(&mut self.touched) {
            let Some(peer) = self.all.get(&role) else { continue };
            keep(&mut self.probing, role, peer.is_probing());
            keep(&mut self.uneasy, role, peer.is_uneasy());
            keep(&mut self.unreached, role, is_unreached(peer));
            let at = peer.poll_timeout();
            let before = match at {
                Some(at) => self.due_at.insert(role, at),
                None => self.due_at.remove(&role),
            };
            if at != before {
                before.map(|before| self.due.remove(&(before, role)));
                self.due.extend(at.map(|at| (at, role)));
            }
        }
    }

    fn look_up<'a>(&'a self, roles: &'a BTreeSet<Role>) -> impl Iterator<Item = &'a Peer> {
        roles.iter().filter_map(|role| self.all.get(role))
    }
}

fn is_unreached(peer: &Peer) -> bool {
    peer.route().is_none() && peer.state != State::Left
}

fn keep(set: &mut BTreeSet<Role>, role: Role, whether: bool) {
    if whether {
        set.insert(role)
    } else {
        set.remove(&role)
    };
}
