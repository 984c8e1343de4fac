//! Blobs and records that the runners of a run share: what a front asks, the store answers. Not here: how tools ask ([`front`]), where bytes lie ([`store`]).

pub mod front;
pub mod reapi;
pub mod sha256;
pub mod store;
pub mod token;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use self::store::{Blob, Error, Incoming, Name, Record, Store, Usage};
use crate::link::clock;
use crate::proto::digest::Digest;

/// What was asked and answered since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Look-ups that were answered.
    pub hits: u64,
    /// Look-ups that were not.
    pub misses: u64,
    /// Names that were set.
    pub puts: u64,
    /// Bytes of blobs that were given out.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    puts: AtomicU64,
    bytes: AtomicU64,
}

/// The cache as one runner sees it.
#[derive(Debug)]
pub struct Cache {
    store: Arc<Store>,
    counts: Counts,
}

impl Cache {
    /// Over this store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, counts: Counts::default() }
    }

    /// What the name is of. A record whose blob is gone is no record.
    #[expect(clippy::unused_async, reason = "peers are asked next")]
    pub async fn find(&self, name: &Name) -> Option<(Record, Blob)> {
        let found = self.find_here(name);
        let count = if let Some((record, _)) = &found {
            self.counts.bytes.fetch_add(record.digest.size, Ordering::Relaxed);
            &self.counts.hits
        } else {
            &self.counts.misses
        };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn find_here(&self, name: &Name) -> Option<(Record, Blob)> {
        let record = self.store.record(name)?;
        let blob = self.store.blob(&record.digest)?;
        Some((record, blob))
    }

    /// Of each name the record that [`Cache::find`] would find; counts as nothing, and fetches nothing.
    #[expect(clippy::unused_async, reason = "peers are asked next")]
    pub async fn peek(&self, names: &[Name]) -> Vec<Option<Record>> {
        names.iter().map(|name| self.peek_here(name)).collect()
    }

    fn peek_here(&self, name: &Name) -> Option<Record> {
        self.store.record(name).filter(|record| self.store.has(&record.digest))
    }

    /// A blob on its way in.
    pub fn incoming(&self) -> Incoming {
        self.store.incoming()
    }

    /// From now on the name is of this blob. Whether it was of none that is here.
    ///
    /// # Errors
    /// As [`Store::set_record`].
    pub fn set(&self, name: &Name, digest: Digest, metadata: Bytes) -> Result<bool, Error> {
        let known = self.store.record(name);
        let version = clock::unix_micros().max(known.as_ref().map_or(0, |known| known.version + 1));
        self.store.set_record(name, &Record { digest, version, metadata })?;
        self.counts.puts.fetch_add(1, Ordering::Relaxed);
        Ok(known.is_none_or(|known| !self.store.has(&known.digest)))
    }

    /// The name is of nothing any more. Whether it was.
    pub fn remove(&self, name: &Name) -> bool {
        self.store.remove_record(name)
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
        let [hits, misses, puts, bytes] =
            [&self.counts.hits, &self.counts.misses, &self.counts.puts, &self.counts.bytes]
                .map(|count| count.load(Ordering::Relaxed));
        Stats { hits, misses, puts, bytes }
    }

    /// What the store holds.
    pub fn usage(&self) -> Usage {
        self.store.usage()
    }
}
