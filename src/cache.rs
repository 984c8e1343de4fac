//! Blobs and records that the runners of a run share: what a front asks, the store answers. Not here: how tools ask ([`front`]), where bytes lie ([`store`]).

pub mod front;
pub mod sha256;
pub mod store;
pub mod token;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::store::{Blob, Error, Incoming, Name, Record, Store, Usage};

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
    pub fn find(&self, name: &Name) -> Option<(Record, Blob)> {
        let found = self.store.record(name).and_then(|record| {
            let blob = self.store.blob(&record.digest)?;
            Some((record, blob))
        });
        let count = if let Some((record, _)) = &found {
            self.counts.bytes.fetch_add(record.digest.size, Ordering::Relaxed);
            &self.counts.hits
        } else {
            &self.counts.misses
        };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Whether [`Cache::find`] would find it; counts as nothing.
    pub fn peek(&self, name: &Name) -> Option<Record> {
        self.store.record(name).filter(|record| self.store.has(&record.digest))
    }

    /// A blob on its way in.
    pub fn incoming(&self) -> Incoming {
        self.store.incoming()
    }

    /// From now on the name is of this record.
    ///
    /// # Errors
    /// As [`Store::set_record`].
    pub fn set(&self, name: &Name, record: &Record) -> Result<(), Error> {
        self.store.set_record(name, record)?;
        self.counts.puts.fetch_add(1, Ordering::Relaxed);
        Ok(())
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
