//! Who has a cache. Each aux listens to the primary, which so knows of all and tells all; a runner whose tools ask listens to everyone. Not here: what is heard of records
//! ([`super::home`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::health::SILENCE;
use super::peer::{Peer, within};
use super::wire::WatchEvent;
use super::{Inner, lock, warms_until};
use crate::link::clock;
use crate::proto::role::Role;

/// How often the primary looks who is there.
const LOOK: Duration = Duration::from_millis(250);

/// A member that has been silent for so long is none any more: its names move.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who is no member and has been silent for so long is not called again.
const GONE: Duration = Duration::from_secs(30);

/// A peer that cannot be reached is called again after this, then after longer.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A peer that was heard of.
#[derive(Debug)]
pub(super) struct Acquaintance {
    peer: Arc<Peer>,
    is_watched: bool,
    /// When it was there for the last time.
    seen: Option<Instant>,
    /// It said that it is about to go.
    has_left: bool,
}

impl Inner {
    /// All that have a cache, as far as is known, this one among them.
    pub(super) fn member_roles(&self) -> Vec<Role> {
        let numbers = self.members.borrow();
        numbers.iter().filter_map(|number| u16::try_from(*number).ok().and_then(Role::from_number)).collect()
    }

    /// The peer with this role; `None` for ourselves, and where it can have no address.
    pub(super) fn peer(&self, role: Role) -> Option<Arc<Peer>> {
        if role == self.own {
            return None;
        }
        let mut peers = lock(&self.peers);
        if let Some(known) = peers.get(&role) {
            return Some(Arc::clone(&known.peer));
        }
        let peer = Arc::new(Peer::new(role, self.own, &self.dialer, &self.tokens.peer_header())?);
        peers.insert(role, Acquaintance { peer: Arc::clone(&peer), is_watched: false, seen: None, has_left: false });
        Some(peer)
    }

    /// From now on it is heard what the peer says, for as long as it is there or a member.
    pub(super) fn listen(self: &Arc<Self>, role: Role) {
        let Some(peer) = self.peer(role) else { return };
        let mut peers = lock(&self.peers);
        if let Some(known) = peers.get_mut(&role)
            && !std::mem::replace(&mut known.is_watched, true)
        {
            tokio::spawn(hear(Arc::clone(self), peer));
        }
    }

    /// A peer listens to us: so it has a cache, and the primary listens back.
    pub(super) fn listening(self: &Arc<Self>, peer: Role) -> watch::Receiver<Vec<u32>> {
        if self.own == Role::Primary {
            self.listen(peer);
            self.note_left(peer, false);
        }
        self.members.subscribe()
    }

    /// Whether a peer has said that it goes: then nobody waits until it has been missed.
    pub(super) fn note_left(&self, role: Role, has_left: bool) {
        if let Some(known) = lock(&self.peers).get_mut(&role) {
            known.has_left = has_left;
        }
    }

    /// Tools ask here: all members are listened to.
    pub(super) fn begin(self: &Arc<Self>) {
        self.asked_since.get_or_init(clock::now);
        self.member_roles().into_iter().for_each(|role| self.listen(role));
    }

    /// Waits for peers that have just been called, at most once in the life of this runner.
    pub(super) async fn get_ready(self: &Arc<Self>) {
        if self.asked_since.get().is_none() {
            self.begin();
        }
        let since = *self.asked_since.get_or_init(clock::now);
        if self.own == Role::Primary {
            return;
        }
        while let Some(left) = warms_until(since) {
            if self.all_are_there() {
                return;
            }
            tokio::time::sleep(left.min(LOOK / 10)).await;
        }
    }

    fn all_are_there(&self) -> bool {
        let members = self.member_roles();
        let is_there = |role: &Role| *role == self.own || self.peer(*role).is_some_and(|peer| peer.is_there());
        members.contains(&Role::Primary) && members.iter().all(is_there)
    }

    /// What a peer said changes what is known here.
    fn learn(self: &Arc<Self>, peer: &Peer, event: &WatchEvent) {
        peer.heard(event);
        for (key, version) in event.keys.iter().zip(&event.versions) {
            // A copy of what was set elsewhere since would be out of date.
            lock(&self.recent).note(*key, *version);
            self.store.remove_earlier(*key, *version);
        }
        if peer.role == Role::Primary && !event.members.is_empty() {
            let members = event.members.clone();
            self.members.send_if_modified(|known| std::mem::replace(known, members.clone()) != members);
            if self.asked_since.get().is_some() {
                self.member_roles().into_iter().for_each(|role| self.listen(role));
            }
        }
    }
}

/// Keeps the list of members: as the primary by who is there, as an aux by what the primary says.
pub(super) async fn keep(inner: Arc<Inner>) {
    if inner.own != Role::Primary {
        return inner.listen(Role::Primary);
    }
    loop {
        tokio::time::sleep(LOOK).await;
        let (now, mut members) = (clock::now(), vec![u32::from(inner.own.number())]);
        for (role, known) in lock(&inner.peers).iter_mut() {
            if known.has_left {
                known.seen = None;
            } else if known.peer.is_there() {
                known.seen = Some(now);
            }
            if known.seen.is_some_and(|seen| now.saturating_duration_since(seen) < PATIENCE) {
                members.push(role.number().into());
            }
        }
        inner.members.send_if_modified(|known| {
            let changed = *known != members;
            *known = members;
            changed
        });
    }
}

/// Listens to a peer, and calls it again whenever it falls silent; until it is no member and has been silent for [`GONE`].
async fn hear(inner: Arc<Inner>, peer: Arc<Peer>) {
    let (mut pause, mut last, mut was_there) = (AGAIN.0, clock::now(), false);
    loop {
        if let Ok(mut events) = peer.watch(inner.own).await {
            let mut is_back = was_there;
            while let Ok(Some(event)) = within(SILENCE, events.message()).await {
                inner.learn(&peer, &event);
                was_there = true;
                if std::mem::take(&mut is_back) {
                    let (inner, peer) = (Arc::clone(&inner), Arc::clone(&peer));
                    tokio::spawn(async move { inner.catch_up(&peer).await });
                }
                (pause, last) = (AGAIN.0, clock::now());
            }
        }
        peer.lost();
        if peer.role != Role::Primary && last.elapsed() > GONE && !inner.member_roles().contains(&peer.role) {
            // It is called anew when it listens to us, or is a member again.
            lock(&inner.peers).remove(&peer.role);
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(AGAIN.1);
    }
}
