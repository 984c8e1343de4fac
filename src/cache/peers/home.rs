//! What this runner does for names that are at home here: it knows who has their blobs, tells who asks, and takes what it is told. Not here: how it is asked
//! ([`super::serve`]).

use std::sync::Arc;

use tonic::Status;

use super::wire::{Content, Parcel, WatchEvent};
use super::{INLINE, Inner, LEAST_NAMES, fetch, lock};
use crate::cache::store::{Error, Holders, Key, Name, Record, key};
use crate::link::clock;
use crate::proto::digest::{Digest, Hash};
use crate::proto::filter::Filter;
use crate::proto::role::Role;

/// Blobs that are taken over at once.
const AT_ONCE: usize = 4;

impl Inner {
    /// Of all names that are here.
    pub(super) fn filter(&self) -> WatchEvent {
        let keys = self.store.keys();
        let mut filter = Filter::for_names((2 * keys.len()).max(LEAST_NAMES));
        keys.iter().for_each(|key| filter.insert(*key));
        WatchEvent { filter: filter.to_bytes(), ..WatchEvent::default() }
    }

    /// What the name of this hash is of, if its blob can be had from here.
    pub(super) fn known(&self, name: &Hash) -> Option<Digest> {
        let (found, record) = self.store.record_of(key(name))?;
        let is_it = found.hash() == *name;
        (is_it && (self.store.has(&record.digest) || !self.holders(&record).is_empty())).then_some(record.digest)
    }

    /// Who else has a record's blob, of those who are there.
    fn holders(&self, record: &Record) -> Vec<Role> {
        let members = self.member_roles();
        let numbers = record.holders.of(self.run).iter().rev();
        numbers.filter_map(|number| Role::from_number(*number)).filter(|role| members.contains(role)).collect()
    }

    /// The record of a name for `caller`, who will fetch its blob unless it is short.
    pub(super) fn give(&self, name: &Name, caller: Option<Role>) -> Option<Parcel> {
        let record = self.store.record(name)?;
        let is_here = self.store.has(&record.digest);
        let content = |bytes| Content { digest: record.digest, bytes, metadata: record.metadata.clone() };
        if is_here && record.digest.size <= INLINE {
            let blob = self.store.blob(&record.digest)?;
            let bytes = blob.whole()?.clone();
            return Some(Parcel {
                version: record.version,
                cost_ms: record.cost_ms,
                holders: vec![],
                content: Some(content(Some(bytes))),
            });
        }
        let mut holders: Vec<Role> = self.holders(&record).into_iter().filter(|role| *role != self.own).collect();
        if is_here {
            holders.push(self.own);
        }
        if let Some(caller) = caller {
            holders = lock(&self.swarm).lead(clock::now(), &record.digest, caller, &holders);
        }
        let is_there = !holders.is_empty();
        is_there.then(|| Parcel {
            version: record.version,
            cost_ms: record.cost_ms,
            holders,
            content: Some(content(None)),
        })
    }

    /// Takes what a peer tells of a name.
    pub(super) fn receive(&self, name: &Name, parcel: Parcel) -> Result<(), Status> {
        if !parcel.is_timely(clock::unix_micros()) {
            return Err(Status::invalid_argument("the record is from far ahead: is a clock wrong?"));
        }
        let Some(content) = parcel.content else { return Ok(()) };
        if let Some(bytes) = &content.bytes {
            self.keep(bytes, &content.digest).map_err(|error| refused(&error))?;
        }
        let mut holders = Holders::default();
        let known = self.store.record(name);
        if let Some(known) = &known
            && (known.version, known.digest) == (parcel.version, content.digest)
        {
            holders = known.holders.clone();
        }
        let before = holders.clone();
        for role in &parcel.holders {
            holders.add(self.run, role.number());
            lock(&self.swarm).end(&content.digest, *role);
        }
        let is_new = known.is_none_or(|known| (known.version, known.digest) != (parcel.version, content.digest));
        if is_new || holders != before {
            let record = Record {
                digest: content.digest,
                version: parcel.version,
                cost_ms: parcel.cost_ms,
                holders,
                metadata: content.metadata,
            };
            let set = self.store.set_later(name, &record);
            if set.map_err(|error| refused(&error))? && is_new {
                self.is_news(key(&name.hash()), parcel.version);
            }
        }
        Ok(())
    }

    /// Whoever listens hears that a name was set here.
    pub(super) fn is_news(&self, key: Key, version: u64) {
        let _ = self.news.send((key, version));
    }

    /// The name is of nothing any more, unless it was set later.
    pub(super) fn drop_earlier(&self, name: &Hash, version: u64) {
        if self.store.remove_earlier(key(name), version) {
            self.is_news(key(name), version);
        }
    }

    /// These runners do not have the blob of a name, though they were said to.
    pub(super) fn lose(&self, name: &Hash, roles: &[Role]) {
        let Some((found, mut record)) = self.store.record_of(key(name)).filter(|(found, _)| found.hash() == *name)
        else {
            return;
        };
        let mut is_news = false;
        for role in roles {
            is_news |= record.holders.remove(self.run, role.number());
            lock(&self.swarm).end(&record.digest, *role);
        }
        if is_news && let Err(error) = self.store.set_later(&found, &record) {
            tracing::debug!(%error, "it is not kept that a runner has lost a blob");
        }
    }

    /// Fetches from a runner that leaves what nobody else has; how many blobs are here or elsewhere then.
    pub(super) async fn take_over(self: &Arc<Self>, from: Role, names: &[Hash]) -> u32 {
        let mut taken = 0;
        let mut fetching = tokio::task::JoinSet::new();
        for name in names {
            let Some((found, record)) = self.store.record_of(key(name)).filter(|(found, _)| found.hash() == *name)
            else {
                continue;
            };
            // Who has fallen silent is a member for a while, and may have gone for good.
            let is_there = |role: &Role| self.peer(*role).is_none_or(|peer| !peer.is_silent());
            let others = self.holders(&record).into_iter().filter(|role| *role != from).any(|role| is_there(&role));
            if others || self.store.has(&record.digest) {
                taken += 1;
                continue;
            }
            let Some(peer) = self.peer(from) else { break };
            if fetching.len() >= AT_ONCE {
                taken += u32::from(fetching.join_next().await.is_some_and(|done| done.unwrap_or(false)));
            }
            let inner = Arc::clone(self);
            fetching.spawn(async move {
                let is_here = fetch::fetch(&inner.fetches, &inner.store, record.digest, vec![peer]).await.is_ok();
                if is_here {
                    inner.announce(&found);
                }
                is_here
            });
        }
        while let Some(done) = fetching.join_next().await {
            taken += u32::from(done.unwrap_or(false));
        }
        taken
    }
}

fn refused(error: &Error) -> Status {
    match error {
        Error::Mismatch { .. } | Error::Metadata => Status::invalid_argument(error.to_string()),
        _ => Status::resource_exhausted(error.to_string()),
    }
}
