//! What the store holds in memory, behind one lock: where every entry lies and which segment takes the next. Not here: when something has to go
//! ([`super::reclaim`]), and reading, which needs no lock ([`super::Store`]).

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{Head, Kind};
use super::file;
use super::index::{Index, Key, LONGEST_SEGMENT, Place, key};
use super::queue::{self, Queues};
use super::segment::{Name, Queue, Segment};
use crate::proto::digest::{Digest, Hash};

/// A segment is full when it weighs this part of the budget, within these bounds.
const PARTS: u64 = 64;
const SEGMENT: (u64, u64) = (1 << 20, LONGEST_SEGMENT);

#[derive(Debug)]
pub(super) struct State {
    pub(super) folder: PathBuf,
    pub(super) budget: u64,
    pub(super) index: Index,
    pub(super) queues: Queues,
    /// How often each is held.
    pub(super) pins: HashMap<Key, u32>,
    /// Bytes of blobs on their way in.
    pub(super) incoming: u64,
    /// Of the next entry.
    pub(super) sequence: u64,
    /// Of the next segment, here and in its name.
    number: u32,
    order: u64,
}

impl State {
    pub(super) fn new(folder: &Path, budget: u64) -> Self {
        Self {
            folder: folder.into(),
            budget,
            index: Index::default(),
            queues: Queues::default(),
            pins: HashMap::new(),
            incoming: 0,
            sequence: 0,
            number: 0,
            order: 0,
        }
    }

    /// Bytes on the disk.
    pub(super) fn weight(&self) -> u64 {
        self.queues.weight() + self.incoming
    }

    /// Takes in what an earlier process has left in a segment. Of two entries of one name, the later counts. A blob whose file is not whole is void.
    /// The names of files that belong to blobs go into `files`.
    ///
    /// # Errors
    /// If it cannot be read: then nothing of it is taken in, and nothing on the disk has changed.
    pub(super) fn adopt(&mut self, name: Name, files: &mut HashSet<Hash>) -> io::Result<()> {
        self.order = self.order.max(name.order.saturating_add(1));
        let segment = Arc::new(Segment::open(&self.folder.join(SEGMENTS), name)?);
        let mut found = vec![];
        let scan = segment.scan(|at, head| found.push((at, head)))?;
        let weight = segment.len()?;
        let number = self.push(segment, name.queue, weight, None);
        if let Some(place) = self.queues.get_mut(number) {
            place.found_end = scan.end;
        }
        for (at, head) in found {
            self.sequence = self.sequence.max(head.sequence.saturating_add(1));
            if head.void || !self.is_whole(&head) || !self.is_newest(&head) {
                self.lose(number, at, &head);
                continue;
            }
            if head.kind == Kind::File {
                files.insert(head.hash);
            }
            self.weigh(number, extra(&head));
            self.note(number, at, &head);
        }
        Ok(())
    }

    /// The last segment of each queue takes more, so that many short lives do not make many segments. Called when all are adopted.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let most = self.most();
        for queue in [Queue::Small, Queue::Main] {
            let Some(place) = self.queues.last(queue).filter(|place| place.weight < most) else { continue };
            // What a crash has torn goes: its head may be sound, and would hide what is written over the rest of it.
            let torn = place.segment.len()?.saturating_sub(place.found_end);
            place.segment.cut(place.found_end)?;
            place.weight = place.weight.saturating_sub(torn);
            place.end = Some(place.found_end);
        }
        Ok(())
    }

    /// A segment of this weight is full.
    pub(super) fn most(&self) -> u64 {
        (self.budget / PARTS).clamp(SEGMENT.0, SEGMENT.1)
    }

    fn is_whole(&self, head: &Head) -> bool {
        let path = || file::path(&self.folder.join(FILES), &digest(head));
        head.kind != Kind::File || path().metadata().is_ok_and(|found| found.len() == head.size)
    }

    fn is_newest(&self, head: &Head) -> bool {
        let Some(known) = self.index.get(key(&head.hash)) else { return true };
        let Some(place) = self.queues.get(known.segment()) else { return true };
        // What cannot be read any more is worth less than this one.
        let known = place.segment.head(known.at()).ok().flatten();
        known.is_none_or(|known| known.sequence <= head.sequence)
    }

    fn push(&mut self, segment: Arc<Segment>, queue: Queue, weight: u64, end: Option<u64>) -> u32 {
        let number = self.number;
        self.number += 1;
        self.queues.push(queue::Place { number, segment, queue, weight, dead: 0, end, found_end: 0 });
        number
    }

    /// Appends an entry to a segment of `queue`. What it replaces is void from then on.
    pub(super) fn append(&mut self, queue: Queue, head: &Head, body: &[u8]) -> io::Result<Place> {
        let (number, at, segment) = self.room(queue, head.stride())?;
        segment.write(at, &head.write(segment.seed, body))?;
        let weight = head.stride() + extra(head);
        let most = self.most();
        if let Some(place) = self.queues.get_mut(number) {
            place.weight += weight;
            let end = at + head.stride();
            place.end = (place.weight < most).then_some(end);
        }
        Ok(self.note(number, at, head))
    }

    /// The entry of this name is there from now on.
    fn note(&mut self, number: u32, at: u64, head: &Head) -> Place {
        let place = Place::new(number, at, head.stride() as usize);
        if let Some(old) = self.index.insert(key(&head.hash), place) {
            self.kill(old);
        }
        place
    }

    /// Appends a new entry to where its name begins.
    pub(super) fn enter(&mut self, kind: Kind, digest: &Digest, body: &[u8]) -> io::Result<()> {
        let head = Head::of(kind, digest.hash, digest.size, self.sequence, body);
        self.sequence = self.sequence.saturating_add(1);
        let queue = self.queues.entrance(key(&digest.hash));
        self.append(queue, &head, body).map(drop)
    }

    /// Where an entry of `len` bytes goes.
    fn room(&mut self, queue: Queue, len: u64) -> io::Result<(u32, u64, Arc<Segment>)> {
        if let Some(place) = self.queues.open(queue) {
            match place.end {
                Some(end) if end + len <= LONGEST_SEGMENT => {
                    return Ok((place.number, end, Arc::clone(&place.segment)));
                }
                _ => place.end = None,
            }
        }
        let name = Name { order: self.order, seed: rand::random(), queue };
        let segments = self.folder.join(SEGMENTS);
        let created = Segment::create(&segments, name)
            .or_else(|error| again(error, &segments, || Segment::create(&segments, name)));
        let segment = Arc::new(created?);
        self.order += 1;
        let number = self.push(Arc::clone(&segment), queue, 0, Some(0));
        Ok((number, 0, segment))
    }

    fn weigh(&mut self, number: u32, more: u64) {
        if let Some(place) = self.queues.get_mut(number) {
            place.weight += more;
        }
    }

    /// The entry at `place` counts no longer, here and for every process to come.
    pub(super) fn kill(&mut self, place: Place) {
        let Some(found) = self.queues.get(place.segment()) else { return };
        if let Ok(Some(head)) = found.segment.head(place.at()) {
            self.lose(place.segment(), place.at(), &head);
            if let Some(place) = self.queues.get_mut(place.segment()) {
                place.weight = place.weight.saturating_sub(extra(&head));
            }
        }
    }

    fn lose(&mut self, number: u32, at: u64, head: &Head) {
        let Some(place) = self.queues.get_mut(number) else { return };
        place.dead += head.stride();
        if !head.void
            && let Err(error) = place.segment.void(at)
        {
            tracing::warn!(%error, segment = %place.segment.path().display(), "cannot void an entry");
        }
    }

    /// Forgets the entry of this key if it lies at `place`, and its file.
    pub(super) fn forget(&mut self, key: Key, place: Place) -> bool {
        let is_it = self.index.get(key).is_some_and(|known| known.is_of(place.segment(), place.at()));
        if is_it {
            self.index.remove(key);
            let files = self.folder.join(FILES);
            match self.queues.get(place.segment()).map(|found| found.segment.head(place.at())) {
                Some(Ok(Some(head))) if head.kind == Kind::File => file::remove(&file::path(&files, &digest(&head))),
                Some(Ok(Some(_))) => {}
                _ => file::remove_by_key(&files, key),
            }
            self.kill(place);
        }
        is_it
    }

    /// Forgets what is left in a segment whose heads are not all sound, and the files of it.
    pub(super) fn forget_rest(&mut self, segment: u32) {
        let files = self.folder.join(FILES);
        self.index.remove_all_of(segment).into_iter().for_each(|key| file::remove_by_key(&files, key));
    }

    pub(super) fn is_pinned(&self, key: Key) -> bool {
        self.pins.contains_key(&key)
    }
}

/// Below the store's folder: segments, blobs as files, and those that are still coming.
pub(super) const SEGMENTS: &str = "segments";
pub(super) const FILES: &str = "files";
pub(super) const INCOMING: &str = "incoming";

/// What an entry weighs beside itself.
pub(super) fn extra(head: &Head) -> u64 {
    if head.kind == Kind::File { head.size } else { 0 }
}

/// Of the blob.
pub(super) fn digest(head: &Head) -> Digest {
    Digest { hash: head.hash, size: head.size }
}

/// Once more, where `folder` was taken away under us; else as before.
pub(super) fn again<T>(error: io::Error, folder: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if error.kind() != io::ErrorKind::NotFound {
        return Err(error);
    }
    std::fs::create_dir_all(folder)?;
    work()
}
