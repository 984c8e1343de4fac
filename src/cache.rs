//! Blobs and records that the runners of a run share: what a front asks, the store answers. Not here: how tools ask ([`front`]), where bytes lie ([`store`]).

mod compression;
pub mod front;
mod missed;
pub mod peers;
pub mod reapi;
pub mod sha256;
pub mod store;
pub mod token;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use self::missed::Missed;
use self::peers::{Peers, Turn};
use self::store::{Blob, Error, Holders, Incoming, Name, Record, Store, Usage, key};
use crate::link::clock;
use crate::proto::digest::Digest;

/// What was asked and answered since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Look-ups that were answered.
    pub hits: u64,
    /// Of these, the ones that a peer answered.
    pub peer_hits: u64,
    /// Look-ups that were not.
    pub misses: u64,
    /// Names that were set.
    pub puts: u64,
    /// Bytes of blobs that were given out.
    pub bytes: u64,
    /// What it took to make what was given out, in milliseconds, as far as that was seen.
    pub saved_ms: u64,
}

#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    peer_hits: AtomicU64,
    misses: AtomicU64,
    puts: AtomicU64,
    bytes: AtomicU64,
    saved_ms: AtomicU64,
}

/// The cache as one runner sees it.
#[derive(Debug)]
pub struct Cache {
    store: Arc<Store>,
    peers: Option<Peers>,
    missed: Mutex<Missed>,
    counts: Counts,
}

impl Cache {
    /// Over this store and, where there are any, those of peers.
    pub fn new(store: Arc<Store>, peers: Option<Peers>) -> Self {
        Self { store, peers, missed: Mutex::default(), counts: Counts::default() }
    }

    /// What the name is of, here or on a peer. A record whose blob is gone is no record.
    pub async fn find(&self, name: &Name) -> Option<(Record, Blob)> {
        let mut found = self.find_here(name);
        if found.is_none()
            && let Some(peers) = &self.peers
        {
            found = peers.find(name).await;
            self.counts.peer_hits.fetch_add(found.is_some().into(), Ordering::Relaxed);
        }
        let count = if let Some((record, _)) = &found {
            self.counts.bytes.fetch_add(record.digest.size, Ordering::Relaxed);
            self.counts.saved_ms.fetch_add(record.cost_ms.into(), Ordering::Relaxed);
            &self.counts.hits
        } else {
            self.missed().note(key(&name.hash()), clock::now());
            &self.counts.misses
        };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn missed(&self) -> MutexGuard<'_, Missed> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find_here(&self, name: &Name) -> Option<(Record, Blob)> {
        let record = self.store.record(name)?;
        let blob = self.store.blob(&record.digest)?;
        Some((record, blob))
    }

    /// Of each name the blob that [`Cache::find`] would find; counts as nothing, and fetches nothing.
    pub async fn peek(&self, names: &[Name]) -> Vec<Option<Digest>> {
        let mut found: Vec<_> = names.iter().map(|name| self.peek_here(name)).collect();
        if let Some(peers) = &self.peers
            && found.contains(&None)
        {
            let missing: Vec<usize> = (0..names.len()).filter(|at| found[*at].is_none()).collect();
            let asked: Vec<Name> = missing.iter().map(|at| names[*at].clone()).collect();
            for (at, answer) in missing.into_iter().zip(peers.look(&asked).await) {
                found[at] = answer;
            }
        }
        found
    }

    fn peek_here(&self, name: &Name) -> Option<Digest> {
        self.store.record(name).map(|record| record.digest).filter(|digest| self.store.has(digest))
    }

    /// A blob on its way in.
    pub fn incoming(&self) -> Incoming {
        self.store.incoming()
    }

    /// From now on the name is of this blob. Whether it was of none that is here. Where it `is_work`, the time since the name was looked up in vain is what it took
    /// to make it.
    ///
    /// # Errors
    /// As [`Store::set_record`].
    pub fn set(&self, name: &Name, digest: Digest, metadata: Bytes, is_work: bool) -> Result<bool, Error> {
        let known = self.store.record(name);
        let version = clock::unix_micros().max(known.as_ref().map_or(0, |known| known.version.saturating_add(1)));
        let took = self.missed().took(key(&name.hash()), clock::now());
        let cost_ms = if is_work { took.as_millis() as u32 } else { 0 };
        self.store.set_later(name, &Record { digest, version, cost_ms, holders: Holders::default(), metadata })?;
        self.counts.puts.fetch_add(1, Ordering::Relaxed);
        if let Some(peers) = &self.peers {
            peers.publish(name);
        }
        Ok(known.is_none_or(|known| !self.store.has(&known.digest)))
    }

    /// The name is of nothing any more, here and at its homes. Whether it was, here.
    pub async fn remove(&self, name: &Name) -> bool {
        let known = self.store.record(name).map_or(0, |known| known.version);
        let was_here = self.store.remove_record(name);
        if let Some(peers) = &self.peers {
            peers.remove(name, clock::unix_micros().max(known.saturating_add(1))).await;
        }
        was_here
    }

    /// Waits until the caller is the one to make what the name is of, or somebody else has.
    pub async fn turn(&self, name: &Name) -> Turn {
        match &self.peers {
            Some(peers) => peers.turn(name).await,
            None => Turn::Alone,
        }
    }

    /// Waits until the name's homes know what it is of.
    pub async fn settle(&self, name: &Name) {
        if let Some(peers) = &self.peers {
            peers.settle(name).await;
        }
    }

    /// The largest blob that it takes.
    pub fn largest(&self) -> u64 {
        self.store.largest()
    }

    /// The blob turned out damaged while it was given out.
    pub fn forget(&self, blob: &Blob) {
        self.store.forget(blob);
    }

    /// What was asked and answered.
    pub fn stats(&self) -> Stats {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { hits, peer_hits, misses, puts, bytes, saved_ms } = &self.counts;
        Stats {
            hits: of(hits),
            peer_hits: of(peer_hits),
            misses: of(misses),
            puts: of(puts),
            bytes: of(bytes),
            saved_ms: of(saved_ms),
        }
    }

    /// What was asked of peers, and said; nothing where there are none.
    pub fn sharing(&self) -> peers::Stats {
        self.peers.as_ref().map(Peers::stats).unwrap_or_default()
    }

    /// What the store holds.
    pub fn usage(&self) -> Usage {
        self.store.usage()
    }
}
