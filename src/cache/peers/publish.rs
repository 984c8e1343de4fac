//! How records get to their homes: each when it is set, and where the members have changed those that have a new home. Not here: what a home does with them
//! ([`super::home`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::peer::Peer;
use super::wire::{Content, Parcel};
use super::{INLINE, Inner, count};
use crate::cache::store::{Name, Record, key};
use crate::proto::digest::Hash;
use crate::proto::placement::{HOMES, homes};
use crate::proto::role::Role;

/// Records on their way at once.
const AT_ONCE: usize = 16;

/// Names that a new home is asked for at once.
const BATCH: usize = 512;

/// Members come together: their changes are waited for.
const CALM: Duration = Duration::from_millis(500);

/// Between two batches, so that a build notices nothing.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a new home may take to say what it has.
const LOOK: Duration = Duration::from_secs(5);

/// Who does not answer a runner that leaves for so long takes nothing over.
const PING: Duration = Duration::from_millis(700);

/// Handing on what a leaving runner has takes no longer.
const HAND_OVER: Duration = Duration::from_secs(60);

impl Inner {
    /// The record's homes will be told, soon.
    pub(super) fn announce(&self, name: &Name) {
        if self.publications.try_send(name.clone()).is_err() {
            tracing::debug!("too many records at once: one is not told to its home");
        }
    }

    /// What its homes are told of a record.
    fn parcel(&self, record: &Record, with_bytes: bool) -> Option<Parcel> {
        let mut holders: Vec<Role> =
            record.holders.of(self.run).iter().filter_map(|number| Role::from_number(*number)).collect();
        if self.store.has(&record.digest) && !holders.contains(&self.own) {
            holders.push(self.own);
        }
        let is_short = with_bytes && record.digest.size <= INLINE;
        let blob = is_short.then(|| self.store.blob(&record.digest)).flatten();
        let bytes = blob.and_then(|blob| blob.whole().cloned());
        let is_there = bytes.is_some() || !holders.is_empty();
        let content = Content { digest: record.digest, bytes, metadata: record.metadata.clone() };
        is_there.then(|| Parcel { version: record.version, cost_ms: record.cost_ms, holders, content: Some(content) })
    }

    async fn tell(&self, peer: &Peer, name: &Name, parcel: Parcel) {
        match peer.put(name, parcel).await {
            Ok(()) => count(&self.counts.told, 1),
            Err(why) => tracing::debug!(peer = %peer.role, %why, "a record's home does not take it"),
        }
    }

    /// Tells the homes of what the name is of here.
    pub(super) async fn deliver(&self, name: &Name) {
        let Some(record) = self.store.record(name) else { return };
        self.tell_homes(name, record.version, || self.parcel(&record, true)).await;
    }

    /// Its homes are told that the name is of nothing.
    pub(super) async fn retract(&self, name: &Name, version: u64) {
        self.tell_homes(name, version, || Some(Parcel { version, cost_ms: 0, holders: vec![], content: None })).await;
    }

    /// All at once: one that does not answer keeps none of the others waiting.
    async fn tell_homes(&self, name: &Name, version: u64, parcel: impl Fn() -> Option<Parcel>) {
        let hash = name.hash();
        let tell = async |home: Option<&Role>| {
            let Some(role) = home else { return };
            if *role == self.own {
                self.is_news(key(&hash), version);
            } else if let Some(peer) = self.peer(*role).filter(|peer| peer.is_trusted() && !peer.is_silent())
                && let Some(parcel) = parcel()
            {
                self.tell(&peer, name, parcel).await;
            }
        };
        let homes = self.homes(&hash);
        const { assert!(HOMES == 2, "each home is told") };
        tokio::join!(tell(homes.first()), tell(homes.get(1)));
    }

    /// Its homes are told who does not have the blob of a name.
    pub(super) async fn tell_lost(&self, name: &Name, roles: &[Role]) {
        let hash = name.hash();
        for role in self.homes(&hash) {
            if role == self.own {
                self.lose(&hash, roles);
            } else if let Some(peer) = self.peer(role).filter(|peer| peer.is_good()) {
                let _ = peer.lose(&hash, roles).await;
            }
        }
    }

    /// Tells new homes of what they have not heard of.
    async fn move_home(self: &Arc<Self>, before: &[Role], now: &[Role]) {
        let mut batches: BTreeMap<Role, Vec<(Name, Record)>> = BTreeMap::new();
        for key in self.store.keys() {
            let Some((name, record)) = self.store.record_of(key) else { continue };
            let hash = name.hash();
            let old = homes(&hash, before.iter().copied());
            for role in homes(&hash, now.iter().copied()) {
                if role != self.own && !old.contains(&role) {
                    let batch = batches.entry(role).or_default();
                    batch.push((name.clone(), record.clone()));
                    if batch.len() >= BATCH {
                        let full = std::mem::take(batch);
                        self.move_batch(role, full).await;
                    }
                }
            }
        }
        for (role, batch) in batches {
            self.move_batch(role, batch).await;
        }
    }

    /// A home that was away is told of what it has missed.
    pub(super) async fn catch_up(&self, peer: &Peer) {
        let members = self.member_roles();
        for (at, key) in self.store.keys().into_iter().enumerate().filter(|(_, key)| !peer.may_have(*key)) {
            let Some((name, record)) = self.store.record_of(key) else { continue };
            if homes(&name.hash(), members.iter().copied()).contains(&peer.role)
                && let Some(parcel) = self.parcel(&record, false)
            {
                self.tell(peer, &name, parcel).await;
            }
            if at % BATCH == 0 {
                tokio::time::sleep(PAUSE).await;
            }
            // One that has failed just now is left alone for a while; one that is away again will be told again.
            while !peer.is_trusted() && peer.is_there() {
                tokio::time::sleep(CALM).await;
            }
            if !peer.is_there() {
                return;
            }
        }
    }

    async fn move_batch(self: &Arc<Self>, role: Role, batch: Vec<(Name, Record)>) {
        let Some(peer) = self.peer(role).filter(|_| !batch.is_empty()) else { return };
        let hashes: Vec<Hash> = batch.iter().map(|(name, _)| name.hash()).collect();
        let Ok(known) = peer.look(&hashes, LOOK).await else { return };
        let unknown = batch.into_iter().zip(known).filter(|((_, record), known)| *known != Some(record.digest));
        for ((name, record), _) in unknown {
            if !peer.is_trusted() {
                return;
            }
            if let Some(parcel) = self.parcel(&record, false) {
                self.tell(&peer, &name, parcel).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// Who answers now: somebody who has just gone is a member for a while.
    async fn answering(self: &Arc<Self>) -> Vec<Role> {
        let mut asked = JoinSet::new();
        for peer in self.member_roles().into_iter().filter_map(|role| self.peer(role)) {
            asked.spawn(async move { peer.look(&[], PING).await.is_ok().then_some(peer.role) });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    /// Homes take over what only we have; how many blobs they have then.
    pub(super) async fn hand_over(self: &Arc<Self>) -> u64 {
        let others = self.answering().await;
        let mut batches: BTreeMap<Role, Vec<(Name, Record)>> = BTreeMap::new();
        for key in self.store.keys() {
            let Some((name, record)) = self.store.record_of(key) else { continue };
            if record.digest.size > INLINE && self.store.has(&record.digest) {
                let home = homes(&name.hash(), others.iter().copied());
                home.first().into_iter().for_each(|role| {
                    batches.entry(*role).or_default().push((name.clone(), record.clone()));
                });
            }
        }
        let mut taken = 0;
        let all = async {
            for (role, records) in batches {
                let Some(peer) = self.peer(role) else { continue };
                for records in records.chunks(BATCH) {
                    // It may be a home only because another has gone.
                    self.move_batch(role, records.to_vec()).await;
                    let names: Vec<Hash> = records.iter().map(|(name, _)| name.hash()).collect();
                    taken += u64::from(peer.take_over(self.own, &names).await.unwrap_or_default());
                }
            }
        };
        if tokio::time::timeout(HAND_OVER, all).await.is_err() {
            tracing::warn!("leaving: not all that only this runner has could be handed on in time");
        }
        // The primary tells who is there, and so nobody asks us any more.
        if let Some(primary) = self.peer(Role::Primary) {
            let _ = tokio::time::timeout(PING, primary.take_over(self.own, &[])).await;
        }
        taken
    }
}

/// Tells homes of what was set, for ever.
pub(super) async fn publish(inner: Arc<Inner>, mut names: mpsc::Receiver<Name>) {
    let mut under_way = JoinSet::new();
    while let Some(name) = names.recv().await {
        if under_way.len() >= AT_ONCE {
            let _ = under_way.join_next().await;
        }
        while under_way.try_join_next().is_some() {}
        let inner = Arc::clone(&inner);
        under_way.spawn(async move { inner.deliver(&name).await });
    }
}

/// Moves records to their new homes whenever the members have changed, for ever.
pub(super) async fn rehome(inner: Arc<Inner>) {
    let mut members = inner.members.subscribe();
    let mut before = vec![inner.own];
    while members.changed().await.is_ok() {
        tokio::time::sleep(CALM).await;
        members.borrow_and_update();
        let now = inner.member_roles();
        inner.move_home(&before, &now).await;
        before = now;
    }
}
