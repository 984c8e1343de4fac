//! Makes room: takes the segment whose turn it is, carries over what is worth it, and removes the rest with the file. Not here: whose turn it is
//! ([`super::queue`]).

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::entry::Head;
use super::index::{Key, Place, key};
use super::queue;
use super::segment::Queue;
use super::state::State;

/// How often all segments may be gone through in vain: an entry that was read three times stays for as many rounds.
const ROUNDS: usize = 4;

/// Makes room until everything weighs no more than `most` bytes. `false` if what is pinned leaves too little.
pub(super) fn down_to(state: &Mutex<State>, most: u64) -> bool {
    let passes = lock(state).queues.len().saturating_add(1) * ROUNDS;
    for _ in 0..passes {
        let victim = {
            let mut state = lock(state);
            if state.weight() <= most {
                return true;
            }
            let Some((victim, packed)) = state.queues.victim(state.budget) else { return false };
            if let Some(place) = state.queues.get_mut(victim.number) {
                place.end = None;
            }
            (victim, packed)
        };
        empty(state, &victim.0, victim.1);
    }
    lock(state).weight() <= most
}

/// Carries over what stays, forgets what does not, and removes the segment.
fn empty(state: &Mutex<State>, victim: &queue::Place, packed: bool) {
    let mut heads = vec![];
    let scanned = victim.segment.scan(|at, head| heads.push((at, head)));
    for (at, head) in heads.into_iter().filter(|(_, head)| !head.void) {
        while !settle(state, victim, packed, at, &head) {}
    }
    let mut state = lock(state);
    if !scanned.is_ok_and(|scan| scan.is_sound) {
        tracing::warn!(segment = %victim.segment.path().display(), "a part of a segment is damaged and lost");
        state.forget_rest(victim.number);
    }
    state.queues.remove(victim.number);
    if let Err(error) = victim.segment.remove() {
        tracing::warn!(%error, segment = %victim.segment.path().display(), "cannot remove a segment");
    }
}

/// One entry's fate. `false` if it was read meanwhile, so that another one is due: at most once, as it is worth keeping then.
fn settle(state: &Mutex<State>, victim: &queue::Place, packed: bool, at: u64, head: &Head) -> bool {
    let key = key(&head.hash);
    let Some((place, pinned)) = current(state, key, victim.number, at) else { return true };
    let stays = packed || pinned || place.reads() > 0;
    let body = if stays { victim.segment.read(at, place.most()) } else { Ok(None) };
    let mut state = lock(state);
    let Some(place) = state.index.get(key).filter(|place| place.is_of(victim.number, at)) else { return true };
    if !stays && (place.reads() > 0 || state.is_pinned(key)) {
        return false;
    }
    let (queue, reads) = match (packed, victim.queue) {
        (true, queue) => (queue, place.reads()),
        (false, Queue::Small) => (Queue::Main, 0),
        (false, Queue::Main) => (Queue::Main, place.reads().saturating_sub(1)),
    };
    if let Ok(Some((head, body))) = body
        && let Ok(moved) = state.append(queue, &head, &body)
    {
        state.index.move_to(key, moved, reads);
        return true;
    }
    state.forget(key, place);
    if victim.queue == Queue::Small {
        state.queues.note_ghost(key);
    }
    true
}

/// Where the entry is, if it still counts there.
fn current(state: &Mutex<State>, key: Key, segment: u32, at: u64) -> Option<(Place, bool)> {
    let state = lock(state);
    let place = state.index.get(key).filter(|place| place.is_of(segment, at))?;
    Some((place, state.is_pinned(key)))
}

/// Every change of the state is whole before anything in it can panic.
pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
