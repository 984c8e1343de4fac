//! Blobs by digest, and records that name them, in a folder: verified when they come and checked when they go, within a byte budget, and all there for
//! the next process however this one ended. Small blobs and records are entries of segments, large blobs files of their own; the segments are the index too.
//! What was acknowledged outlives the process, not the machine: nothing waits for the disk. Not here: other runners.

mod blob;
mod entry;
mod file;
mod incoming;
mod index;
mod queue;
mod reclaim;
mod record;
mod segment;
mod state;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use self::blob::Content;
pub use self::blob::{Blob, ReadError};
use self::entry::{Head, Kind};
use self::file::Chunks;
pub use self::file::LARGEST;
pub use self::incoming::Incoming;
use self::index::Place;
pub use self::index::{Key, key};
use self::reclaim::lock;
pub use self::record::{BadName, Holders, Name, Record};
use self::segment::Segment;
use self::state::{FILES, INCOMING, SEGMENTS, State};
use super::sha256;
use crate::link::clock;
use crate::proto::digest::{Digest, Hash};

/// A larger blob is a file of its own: one read gives a smaller one whole.
const INLINE: usize = 128 << 10;

/// The least budget with which the queues make sense.
pub const LEAST_BUDGET: u64 = 16 << 20;

/// No single blob may take more than this part of the budget.
const MOST_OF_BUDGET: u64 = 4;

/// More segments than this are never made between two that are there.
const MOST_SKIPPED: u64 = 1 << 40;

/// Taken for as long as a process has the folder.
const LOCK: &str = "lock";

/// A process that is about to end, or that has a child about to become another program, gives the folder up within this time.
const PREDECESSOR: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);

/// Why something was not stored, or the store not opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("the cache in {} belongs to another process", .0.display())]
    InUse(PathBuf),
    /// The bytes are not those of their name.
    #[error("{found} came for {expected}")]
    Mismatch {
        /// What was said to come.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// More than the store takes.
    #[error("a blob of more than {most} bytes is not stored")]
    TooLarge {
        /// The largest it takes.
        most: u64,
    },
    /// A record says more about its blob than a record may.
    #[error("a record's metadata is too long")]
    Metadata,
    /// There is no room, neither on the disk nor by removing what is not pinned.
    #[error("there is no room for {bytes} bytes in {}", .folder.display())]
    Full {
        /// Which were to be written.
        bytes: u64,
        /// Of the store.
        folder: PathBuf,
    },
    /// The system refused.
    #[error("{what} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Names what was attempted where the system refuses.
fn at<T>(what: &'static str, path: &Path, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::Io { what, path: path.into(), source })
}

/// What happened so far.
#[derive(Debug, Default)]
struct Counts {
    damaged: AtomicU64,
}

/// What the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Blobs and records.
    pub entries: usize,
    /// On the disk.
    pub bytes: u64,
    /// Of what was found damaged, and forgotten, since it was opened.
    pub damaged: u64,
}

/// The store of one process.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    budget: u64,
    state: Mutex<State>,
    /// One makes room at a time; others wait for it where they have to.
    reclaiming: Mutex<()>,
    /// One compares versions at a time.
    settling: Mutex<()>,
    counts: Counts,
    _lock: File,
}

impl Store {
    /// Opens the store in `folder`, or makes one. It may take `budget` bytes of the disk, at least [`LEAST_BUDGET`]. Takes a while where much is stored:
    /// every entry's head is read.
    ///
    /// # Errors
    /// If another process has it, or the system refuses.
    pub fn open(folder: &Path, budget: u64) -> Result<Self, Error> {
        let inner = [SEGMENTS, FILES, INCOMING].map(|name| folder.join(name));
        for path in [folder].into_iter().chain(inner.iter().map(PathBuf::as_path)) {
            at("make the folder", path, DirBuilder::new().mode(0o700).recursive(true).create(path))?;
        }
        let locked = take(folder)?;
        let [_, files, incoming] = &inner;
        at("make folders in", files, file::prepare(files))?;
        file::listed(incoming).iter().for_each(|path| file::remove(path));
        let budget = budget.max(LEAST_BUDGET);
        let (mut state, mut known, mut all_read) = (State::new(folder, budget), HashSet::new(), true);
        for name in segments(folder)? {
            let path = folder.join(SEGMENTS).join(name.to_string());
            if let Err(error) = state.adopt(name, &mut known) {
                tracing::warn!(%error, segment = %path.display(), "a segment cannot be read, and is left alone");
                all_read = false;
            }
        }
        at("open the last segment in", folder, state.reopen())?;
        // A file that nobody knows may belong to what could not be read.
        if all_read {
            file::sweep(files, |path| is_known(&known, path));
        }
        let (state, counts) = (Mutex::new(state), Counts::default());
        let (reclaiming, settling) = (Mutex::new(()), Mutex::new(()));
        let store = Self { folder: folder.into(), budget, state, reclaiming, settling, counts, _lock: locked };
        store.make_room(0)?;
        Ok(store)
    }

    /// Whether the blob is here, as far as can be told without reading it.
    pub fn has(&self, digest: &Digest) -> bool {
        *digest == Digest::EMPTY || self.head(digest).is_some()
    }

    fn head(&self, digest: &Digest) -> Option<(Key, Place)> {
        let key = key(&digest.hash);
        let (place, segment) = self.place(key, false)?;
        match segment.head(place.at()) {
            Ok(Some(head)) if head.kind == Kind::Record || state::digest(&head) != *digest => None,
            Ok(Some(head)) if head.kind == Kind::Blob => Some((key, place)),
            Ok(Some(_)) => match self.file(digest).metadata() {
                Ok(found) if found.len() == digest.size => Some((key, place)),
                Err(error) if error.kind() != io::ErrorKind::NotFound => unreadable(&error),
                _ => self.note_damage(key, place),
            },
            Ok(None) => self.note_damage(key, place),
            Err(error) => unreadable(&error),
        }
    }

    fn place(&self, key: Key, reads: bool) -> Option<(Place, Arc<Segment>)> {
        let mut state = lock(&self.state);
        let place = if reads { state.index.read(key) } else { state.index.get(key) }?;
        state.queues.get(place.segment()).map(|found| (place, Arc::clone(&found.segment)))
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        file::path(&self.folder.join(FILES), digest)
    }

    /// The blob, if it is here and undamaged as far as it was looked at.
    pub fn blob(&self, digest: &Digest) -> Option<Blob> {
        if *digest == Digest::EMPTY {
            return Some(Blob { digest: *digest, bytes: Content::Whole(Bytes::new()) });
        }
        let (place, head, body) = self.entry(&digest.hash)?;
        let bytes = match head.kind {
            Kind::Blob if state::digest(&head) == *digest => Content::Whole(body),
            Kind::File if state::digest(&head) == *digest => {
                match Chunks::open(&self.file(digest), digest.size, body) {
                    Ok(Some(chunks)) => Content::Chunks(chunks, place),
                    Ok(None) => return self.note_damage(key(&digest.hash), place),
                    Err(error) => return unreadable(&error),
                }
            }
            _ => return None,
        };
        Some(Blob { digest: *digest, bytes })
    }

    /// What is found by `hash`, whole and undamaged.
    fn entry(&self, hash: &Hash) -> Option<(Place, Head, Bytes)> {
        let key = key(hash);
        let (place, segment) = self.place(key, true)?;
        match segment.read(place.at(), place.most()) {
            Ok(Some((head, body))) => (head.hash == *hash).then_some((place, head, body)),
            Ok(None) => self.note_damage(key, place),
            Err(error) => unreadable(&error),
        }
    }

    /// The blob turned out damaged while it was read: it is forgotten, unless another has taken its place.
    pub fn forget(&self, blob: &Blob) {
        if let Content::Chunks(_, place) = &blob.bytes {
            self.note_damage::<()>(key(&blob.digest.hash), *place);
        }
    }

    fn note_damage<T>(&self, key: Key, place: Place) -> Option<T> {
        if lock(&self.state).forget(key, place) {
            self.counts.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(folder = %self.folder.display(), "what the cache holds is damaged on the disk, and forgotten");
        }
        None
    }

    /// Stores these bytes.
    ///
    /// # Errors
    /// If there is no room.
    pub fn put(self: &Arc<Self>, bytes: &[u8]) -> Result<Digest, Error> {
        if bytes.len() > INLINE {
            let mut incoming = self.incoming();
            incoming.write(bytes)?;
            return incoming.finish(None);
        }
        let digest = sha256::digest(bytes);
        self.put_small(&digest, bytes)?;
        Ok(digest)
    }

    fn put_small(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        if *digest == Digest::EMPTY || self.is_sound(digest) {
            return Ok(());
        }
        self.append(Kind::Blob, digest, bytes)
    }

    /// Whether the blob is here and, if it is small, undamaged.
    fn is_sound(&self, digest: &Digest) -> bool {
        let Some((key, place)) = self.head(digest) else { return false };
        let Some((_, segment)) = self.place(key, true) else { return false };
        matches!(segment.read(place.at(), place.most()), Ok(Some(_)))
    }

    /// A blob that comes piece by piece.
    pub fn incoming(self: &Arc<Self>) -> Incoming {
        Incoming::new(Arc::clone(self))
    }

    /// The record of this name.
    pub fn record(&self, name: &Name) -> Option<Record> {
        let (_, head, body) = self.entry(&name.hash())?;
        let (found, record) = Some(body).filter(|_| head.kind == Kind::Record).and_then(|body| record::read(&body))?;
        (found == *name).then_some(record)
    }

    /// The keys of all that is here, blobs and records.
    pub fn keys(&self) -> Vec<Key> {
        lock(&self.state).index.keys().collect()
    }

    /// The record of this key, if it is of one. Counts as no look-up.
    pub fn record_of(&self, key: Key) -> Option<(Name, Record)> {
        let (place, segment) = self.place(key, false)?;
        let is_record = matches!(segment.head(place.at()), Ok(Some(head)) if head.kind == Kind::Record);
        let (_, body) = is_record.then(|| segment.read(place.at(), place.most()).ok().flatten()).flatten()?;
        record::read(&body)
    }

    /// From now on the name is of this record.
    ///
    /// # Errors
    /// If there is no room, or it says too much.
    pub fn set_record(&self, name: &Name, record: &Record) -> Result<(), Error> {
        let body = record::write(name, record).ok_or(Error::Metadata)?;
        self.append(Kind::Record, &Digest { hash: name.hash(), size: 0 }, &body)
    }

    /// From now on the name is of this record, unless it is of a later one. Whether it is.
    ///
    /// # Errors
    /// As [`Store::set_record`].
    pub fn set_later(&self, name: &Name, record: &Record) -> Result<bool, Error> {
        let _one = self.settling.lock();
        let order = |record: &Record| (record.version, record.digest.hash);
        let is_later = self.record(name).is_none_or(|known| order(&known) <= order(record));
        if is_later {
            self.set_record(name, record)?;
        }
        Ok(is_later)
    }

    /// The name is of nothing any more, unless it is of a record of this version or a later one. Whether it was of an earlier one.
    pub fn remove_earlier(&self, key: Key, version: u64) -> bool {
        let _one = self.settling.lock();
        let Some((name, _)) = self.record_of(key).filter(|(_, record)| record.version < version) else { return false };
        self.remove_record(&name)
    }

    /// The name is of nothing any more. Whether it was.
    pub fn remove_record(&self, name: &Name) -> bool {
        let Some(_) = self.record(name) else { return false };
        let (key, mut state) = (key(&name.hash()), lock(&self.state));
        state.index.get(key).is_some_and(|place| state.forget(key, place))
    }

    fn append(&self, kind: Kind, digest: &Digest, body: &[u8]) -> Result<(), Error> {
        self.with_room(body.len() as u64, |state| state.enter(kind, digest, body))
    }

    /// Does `write`, which takes `bytes` bytes. Where the disk turns out to be full, once more after something has gone.
    fn with_room(&self, bytes: u64, write: impl Fn(&mut State) -> io::Result<()>) -> Result<(), Error> {
        self.make_room(bytes)?;
        let first = write(&mut lock(&self.state));
        let written = match first {
            Err(error) if is_full(&error) => {
                self.give_back(bytes);
                write(&mut lock(&self.state))
            }
            written => written,
        };
        match written {
            Err(error) if is_full(&error) => Err(self.full(bytes)),
            written => at("write into", &self.folder, written),
        }
    }

    /// Makes room for so many bytes within the budget.
    fn make_room(&self, bytes: u64) -> Result<(), Error> {
        let most = {
            let state = lock(&self.state);
            // What is carried over is written before the segment that it comes from goes.
            let most = self.budget.saturating_sub(bytes + state.most());
            if state.weight() <= most {
                return Ok(());
            }
            most
        };
        let _one = self.reclaiming.lock();
        if reclaim::down_to(&self.state, most) { Ok(()) } else { Err(self.full(bytes)) }
    }

    /// The disk is smaller than the budget: makes do with less.
    fn give_back(&self, bytes: u64) {
        let _one = self.reclaiming.lock();
        let weight = lock(&self.state).weight();
        reclaim::down_to(&self.state, weight.saturating_sub(bytes.max(LEAST_BUDGET)));
    }

    fn full(&self, bytes: u64) -> Error {
        Error::Full { bytes, folder: self.folder.clone() }
    }

    /// Holds a blob until it is released as often: it is not thrown out for want of room.
    pub fn pin(&self, digest: &Digest) {
        *lock(&self.state).pins.entry(key(&digest.hash)).or_default() += 1;
    }

    /// The opposite of [`Store::pin`].
    pub fn unpin(&self, digest: &Digest) {
        let (key, mut state) = (key(&digest.hash), lock(&self.state));
        let left = state.pins.get_mut(&key).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            state.pins.remove(&key);
        }
    }

    /// The largest blob that it takes.
    pub fn largest(&self) -> u64 {
        LARGEST.min(self.budget / MOST_OF_BUDGET)
    }

    /// What it holds.
    pub fn usage(&self) -> Usage {
        let state = lock(&self.state);
        Usage {
            entries: state.index.len(),
            bytes: state.weight(),
            damaged: self.counts.damaged.load(Ordering::Relaxed),
        }
    }
}

/// It may be there and sound, and is as good as not there: too few descriptors are no damage.
fn unreadable<T>(error: &io::Error) -> Option<T> {
    tracing::warn!(%error, "the cache cannot read what it holds");
    None
}

/// Whether there is no room, be it on the disk or for this user.
fn is_full(error: &io::Error) -> bool {
    [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&error.kind())
}

/// Takes the folder for this process.
fn take(folder: &Path) -> Result<File, Error> {
    let path = folder.join(LOCK);
    let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = at("open", &path, open)?;
    let until = clock::now() + PREDECESSOR;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if clock::now() < until => std::thread::sleep(LOOK),
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(folder.into())),
            Err(TryLockError::Error(error)) => return at("lock", &path, Err(error)),
        }
    }
}

/// Of all segments the names, oldest first.
fn segments(folder: &Path) -> Result<Vec<segment::Name>, Error> {
    let folder = folder.join(SEGMENTS);
    let mut names = vec![];
    for found in at("list", &folder, fs::read_dir(&folder))? {
        let found = at("list", &folder, found)?;
        match found.file_name().to_str().and_then(segment::Name::parse) {
            Some(name) => names.push(name),
            None => tracing::debug!(path = %found.path().display(), "not a segment"),
        }
    }
    names.sort_by_key(|name| name.order);
    Ok(counted(names))
}

/// Those to which somebody can have counted from the one before: so there is always a later one.
fn counted(mut names: Vec<segment::Name>) -> Vec<segment::Name> {
    let mut last = 0;
    names.retain(|name| {
        let counted = name.order - last < MOST_SKIPPED;
        last = if counted { name.order } else { last };
        counted
    });
    names
}

fn is_known(known: &HashSet<Hash>, path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| crate::proto::digest::parse_hash(name).ok()).is_some_and(|hash| known.contains(&hash))
}
