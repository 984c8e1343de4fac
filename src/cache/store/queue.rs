//! Which segment goes next: S3-FIFO (Yang et al., SOSP 2023) with a segment in place of an object. What is new comes into the small queue; what was read
//! there moves on into the main one, and what was not, goes. So a scan passes through a tenth of the space and leaves the rest alone. Not here: what is in
//! the segments ([`super::state`]).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::index::Key;
use super::segment::{Queue, Segment};

/// The small queue's share of the budget.
const SMALL: f64 = 0.1;

/// As many names of what went unread are remembered.
const GHOSTS: usize = 1 << 16;

/// A segment in a queue.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) number: u32,
    pub(super) segment: Arc<Segment>,
    pub(super) queue: Queue,
    /// Bytes on the disk: its own, and those of the files that its entries are of.
    pub(super) weight: u64,
    /// Of these, of entries that no longer count.
    pub(super) dead: u64,
    /// Where the next entry goes; `None` when it takes no more.
    pub(super) end: Option<u64>,
    /// Where the last whole entry ended when it was found.
    pub(super) found_end: u64,
}

/// All segments, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Queues {
    places: VecDeque<Place>,
    ghosts: Ghosts,
}

impl Queues {
    pub(super) fn push(&mut self, place: Place) {
        self.places.push_back(place);
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// All of it, in bytes on the disk.
    pub(super) fn weight(&self) -> u64 {
        self.places.iter().map(|place| place.weight).sum()
    }

    pub(super) fn get(&self, number: u32) -> Option<&Place> {
        self.at(number).map(|at| &self.places[at])
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Place> {
        self.at(number).map(|at| &mut self.places[at])
    }

    /// Numbers rise, so it is found by halving.
    fn at(&self, number: u32) -> Option<usize> {
        self.places.binary_search_by_key(&number, |place| place.number).ok()
    }

    /// The segment that takes entries of this queue, if there is one.
    pub(super) fn open(&mut self, queue: Queue) -> Option<&mut Place> {
        self.places.iter_mut().rev().find(|place| place.queue == queue && place.end.is_some())
    }

    /// The youngest segment of this queue.
    pub(super) fn last(&mut self, queue: Queue) -> Option<&mut Place> {
        self.places.iter_mut().rev().find(|place| place.queue == queue)
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Place> {
        self.at(number).and_then(|at| self.places.remove(at))
    }

    /// The segment to go next when there is no room in `budget` bytes, and whether its entries that count all stay: one that is mostly dead is only packed.
    pub(super) fn victim(&self, budget: u64) -> Option<(Place, bool)> {
        let full = |place: &&Place| place.end.is_none();
        let rotten = self
            .places
            .iter()
            .filter(full)
            .filter(|place| place.dead * 2 > place.weight)
            .max_by_key(|place| place.dead);
        if let Some(place) = rotten {
            return Some((place.clone(), true));
        }
        let of = |queue: Queue| self.places.iter().filter(move |place| place.queue == queue);
        let small: u64 = of(Queue::Small).map(|place| place.weight).sum();
        let is_large = small as f64 > budget as f64 * SMALL;
        let mut order = [Queue::Small, Queue::Main];
        if !is_large {
            order.reverse();
        }
        order.into_iter().find_map(|queue| of(queue).next()).map(|place| (place.clone(), false))
    }

    /// Where an entry of this name begins: what is asked for again soon after it went unread was thrown away too early.
    pub(super) fn entrance(&mut self, key: Key) -> Queue {
        if self.ghosts.take(key) { Queue::Main } else { Queue::Small }
    }

    /// It went unread.
    pub(super) fn note_ghost(&mut self, key: Key) {
        self.ghosts.push(key);
    }
}

#[derive(Debug, Default)]
struct Ghosts {
    order: VecDeque<Key>,
    known: HashSet<Key>,
}

impl Ghosts {
    fn push(&mut self, key: Key) {
        if self.known.insert(key) {
            self.order.push_back(key);
        }
        while self.order.len() > GHOSTS {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    fn take(&mut self, key: Key) -> bool {
        // Its place in the order stays, and is forgotten in its turn.
        self.known.remove(&key)
    }
}
