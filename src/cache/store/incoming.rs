//! A blob on its way in, piece by piece: digested as it comes, in memory while it is small, then in a file that becomes the blob's own. Dropped, it leaves
//! nothing. Not here: where its name comes from.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use super::entry::Kind;
use super::file::{CHUNK, Sums};
use super::index::key;
use super::reclaim::lock;
use super::state::{INCOMING, again};
use super::{Error, INLINE, Store, at, is_full};
use crate::cache::sha256::Hasher;
use crate::proto::digest::{Digest, Hash};

/// What has come so far.
#[derive(Debug)]
pub struct Incoming {
    store: Arc<Store>,
    hasher: Hasher,
    /// Not yet in the file: all of it while it is small, then less than a chunk.
    buffer: Vec<u8>,
    spill: Option<Spill>,
    size: u64,
}

#[derive(Debug)]
struct Spill {
    path: PathBuf,
    file: Arc<File>,
    sums: Sums,
    written: u64,
}

impl Incoming {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, hasher: Hasher::default(), buffer: vec![], spill: None, size: 0 }
    }

    /// These bytes follow. Writes to the disk now and then.
    ///
    /// # Errors
    /// If it becomes too large, or there is no room.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.size += bytes.len() as u64;
        let most = self.store.largest();
        if self.size > most {
            return Err(Error::TooLarge { most });
        }
        self.hasher.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() > INLINE.max(CHUNK) {
            self.spill()?;
        }
        Ok(())
    }

    /// How many bytes have come.
    pub fn len(&self) -> u64 {
        self.size
    }

    /// The file that it comes into, and how many bytes are there; once it is too large for memory. The file stays what it is when all has come.
    pub fn file(&self) -> Option<(&Arc<File>, u64)> {
        self.spill.as_ref().map(|spill| (&spill.file, spill.written))
    }

    /// Whether none have.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Writes what is there in whole chunks.
    fn spill(&mut self) -> Result<(), Error> {
        let whole = self.buffer.len() / CHUNK * CHUNK;
        self.flush(whole)
    }

    fn flush(&mut self, len: usize) -> Result<(), Error> {
        if self.spill.is_none() {
            self.spill = Some(Spill::create(&self.store)?);
        }
        let Some(spill) = &mut self.spill else { return Ok(()) };
        spill.write(&self.store, &self.buffer[..len])?;
        self.buffer.drain(..len);
        Ok(())
    }

    /// All has come. Where it is not `expected`, nothing stays.
    ///
    /// # Errors
    /// If it is not what was expected, or there is no room.
    pub fn finish(self, expected: Option<&Digest>) -> Result<Digest, Error> {
        if let Some(expected) = expected.filter(|expected| expected.size != self.size) {
            return Err(Error::Mismatch { expected: *expected, found: self.hasher.clone().finish() });
        }
        self.finish_as(expected.map(|expected| expected.hash))
    }

    /// The same, for who knows the hash alone.
    ///
    /// # Errors
    /// As [`Incoming::finish`].
    pub fn finish_as(mut self, expected: Option<Hash>) -> Result<Digest, Error> {
        let found = std::mem::take(&mut self.hasher).finish();
        if let Some(hash) = expected.filter(|hash| *hash != found.hash) {
            return Err(Error::Mismatch { expected: Digest { hash, size: found.size }, found });
        }
        if self.spill.is_none() && self.buffer.len() <= INLINE {
            self.store.put_small(&found, &self.buffer)?;
        } else {
            // Also where it is there already: only its size is known to be right, and these bytes are on the disk anyway.
            self.flush(self.buffer.len())?;
            if let Some(spill) = self.spill.take() {
                spill.settle(&self.store, &found)?;
            }
        }
        Ok(found)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(spill) = self.spill.take() {
            spill.abandon(&self.store);
        }
    }
}

impl Spill {
    fn create(store: &Store) -> Result<Self, Error> {
        let folder = store.folder.join(INCOMING);
        let path = folder.join(format!("{:016x}", rand::random::<u64>()));
        let open = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let mut file = open().or_else(|error| again(error, &folder, open));
        if file.as_ref().is_err_and(is_full) {
            store.give_back(0);
            file = open();
        }
        Ok(Self { file: at("make", &path, file)?.into(), path, sums: Sums::default(), written: 0 })
    }

    /// The next chunks: only the last may be short.
    fn write(&mut self, store: &Store, bytes: &[u8]) -> Result<(), Error> {
        let len = bytes.len() as u64;
        if lock(&store.state).incoming + len > store.budget / 2 {
            // Unfinished uploads must not push out all that is stored.
            return Err(store.full(len));
        }
        store.make_room(len)?;
        lock(&store.state).incoming += len;
        let start = self.written;
        self.written += len;
        bytes.chunks(CHUNK).for_each(|chunk| self.sums.push(chunk));
        let mut written = self.file.write_all_at(bytes, start);
        if written.as_ref().is_err_and(is_full) {
            store.give_back(len);
            written = self.file.write_all_at(bytes, start);
        }
        if written.as_ref().is_err_and(is_full) { Err(store.full(len)) } else { at("write", &self.path, written) }
    }

    /// It becomes the blob of this digest.
    fn settle(self, store: &Store, digest: &Digest) -> Result<(), Error> {
        let path = store.file(digest);
        let settled = store.with_room(0, |state| {
            // Under the lock: whoever forgets a damaged one of this name must not take this one with it.
            match fs::rename(&self.path, &path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.path.exists() && path.exists() => {}
                Err(error) => again(error, path.parent().unwrap_or(&path), || fs::rename(&self.path, &path))?,
                Ok(()) => {}
            }
            state.enter(Kind::File, digest, self.sums.as_bytes())
        });
        if settled.is_err() {
            let state = lock(&store.state);
            if state.index.get(key(&digest.hash)).is_none() {
                let _ = fs::remove_file(&path);
            }
        }
        self.abandon(store);
        settled
    }

    /// What is left of it goes.
    fn abandon(self, store: &Store) {
        // It is gone where it became a blob.
        let _ = fs::remove_file(&self.path);
        let mut state = lock(&store.state);
        state.incoming = state.incoming.saturating_sub(self.written);
    }
}
