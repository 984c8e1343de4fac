//! Datagrams to one place in one buffer, all of one length but for the last: what one system call sends (UDP generic segmentation offload,
//! `UDP_SEGMENT` of Linux). Bulk travels like this, and nothing is allocated for a datagram; all else is a [`super::transmit::Transmit`].

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::relay::OVERHEAD as RELAY_OVERHEAD;
use super::role::Role;
use super::route::{Route, SocketId};

/// The longest that all datagrams of a batch may be together: what one UDP datagram over IPv4 may hold, as the kernel counts before it cuts.
const LONGEST: usize = 65_507;

/// The most datagrams in a batch (`UDP_MAX_SEGMENTS` before Linux 6.9).
const MOST: usize = 64;

/// Buffers that are kept for later.
const MOST_SPARE: usize = 32;

/// The datagrams.
///
/// INVARIANT: `begin` is at most `used`, which is at most the buffer's length, and all datagrams between but the last have `segment_size` bytes.
#[derive(Debug)]
pub struct Batch {
    /// For whom.
    pub to: Role,
    /// By which route. A relayed one leaves room for the relay's frame before each datagram.
    pub route: Route,
    buffer: Vec<u8>,
    begin: usize,
    used: usize,
    segment_size: usize,
    count: usize,
    /// The last one is shorter, so none may follow.
    closed: bool,
}

impl Batch {
    fn new(to: Role, route: Route, mut buffer: Vec<u8>) -> Self {
        buffer.resize(LONGEST, 0);
        Self { to, route, buffer, begin: 0, used: 0, segment_size: 0, count: 0, closed: false }
    }

    /// All datagrams, one behind the other.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.begin..self.used]
    }

    /// The length of each but the last.
    pub fn segment_size(&self) -> usize {
        self.segment_size
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One by one.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes().chunks(self.segment_size.max(1))
    }

    /// One by one, to be changed.
    pub fn datagrams_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.buffer[self.begin..self.used].chunks_mut(self.segment_size.max(1))
    }

    /// Forgets so many at its front, which have left.
    pub fn skip(&mut self, datagrams: usize) {
        let datagrams = datagrams.min(self.count);
        self.begin = (self.begin + datagrams * self.segment_size).min(self.used);
        self.count -= datagrams;
    }

    fn has_room(&self, len: usize) -> bool {
        !self.closed && self.count < MOST && self.used + len <= LONGEST
    }

    /// Takes the `len` bytes behind the others for a datagram; false where they are longer than those before.
    fn keep(&mut self, len: usize) -> bool {
        if self.count == 0 {
            self.segment_size = len;
        }
        if len > self.segment_size {
            return false;
        }
        self.closed = len < self.segment_size;
        self.used += len;
        self.count += 1;
        true
    }
}

/// A batch that has found its way.
#[derive(Debug)]
pub struct Bulk {
    /// From which of our sockets.
    pub socket: SocketId,
    /// Where to.
    pub to: SocketAddr,
    /// The datagrams.
    pub batch: Batch,
}

/// What waits to be sent.
#[derive(Debug, Default)]
pub struct Batches {
    queue: VecDeque<Batch>,
    spare: Vec<Vec<u8>>,
}

impl Batches {
    /// Adds a datagram of at most `most` bytes, which `write` writes and whose length it returns; `None` from it adds nothing. Those to one
    /// place stay in their order.
    pub fn add(&mut self, to: Role, route: Route, most: usize, write: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let headroom = if route.is_direct() { 0 } else { RELAY_OVERHEAD };
        let most = (most + headroom).min(LONGEST);
        let at = self.open(to, route, most);
        let batch = &mut self.queue[at];
        let begin = batch.used;
        let Some(len) = write(&mut batch.buffer[begin + headroom..begin + most]) else { return };
        let len = (len + headroom).min(most);
        if !batch.keep(len) {
            self.begin_with(at, begin..begin + len);
        }
    }

    /// The next one; in the order in which they were begun, be it by a datagram that was then not written.
    pub fn pop(&mut self) -> Option<Batch> {
        while let Some(batch) = self.queue.pop_front() {
            if !batch.is_empty() {
                return Some(batch);
            }
            self.recycle(batch);
        }
        None
    }

    /// Takes back what was sent, for its buffer.
    pub fn recycle(&mut self, batch: Batch) {
        if self.spare.len() < MOST_SPARE {
            self.spare.push(batch.buffer);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        while let Some(batch) = self.queue.pop_front() {
            self.recycle(batch);
        }
    }

    /// The last batch for this place, or a new one where that has no room.
    fn open(&mut self, to: Role, route: Route, most: usize) -> usize {
        let last = self.queue.iter().rposition(|batch| batch.route == route && batch.to == to);
        match last.filter(|at| self.queue[*at].has_room(most)) {
            Some(at) => at,
            None => self.begin(to, route),
        }
    }

    fn begin(&mut self, to: Role, route: Route) -> usize {
        let buffer = self.spare.pop().unwrap_or_default();
        self.queue.push_back(Batch::new(to, route, buffer));
        self.queue.len() - 1
    }

    /// A longer one cannot stay behind shorter ones.
    fn begin_with(&mut self, from: usize, range: std::ops::Range<usize>) {
        let (to, route) = (self.queue[from].to, self.queue[from].route);
        let fresh = self.begin(to, route);
        let mut buffer = std::mem::take(&mut self.queue[fresh].buffer);
        buffer[..range.len()].copy_from_slice(&self.queue[from].buffer[range.clone()]);
        let fresh = &mut self.queue[fresh];
        fresh.buffer = buffer;
        fresh.keep(range.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::route::Relay;
    use super::*;

    fn direct(port: u16) -> Route {
        Route::to(SocketAddr::from(([192, 0, 2, 1], port)))
    }

    fn add(batches: &mut Batches, route: Route, datagram: &[u8]) {
        batches.add(Role::Primary, route, datagram.len(), |buffer| {
            buffer[..datagram.len()].copy_from_slice(datagram);
            Some(datagram.len())
        });
    }

    fn all(batches: &mut Batches) -> Vec<Vec<Vec<u8>>> {
        std::iter::from_fn(|| batches.pop()).map(|batch| batch.datagrams().map(<[u8]>::to_vec).collect()).collect()
    }

    #[test]
    fn what_has_left_is_skipped() {
        let mut batches = Batches::default();
        for datagram in [b"one", b"two", b"six"] {
            add(&mut batches, direct(1), datagram);
        }
        let mut batch = batches.pop().expect("one");
        batch.skip(2);
        assert_eq!((batch.bytes(), batch.len(), batch.datagrams().count()), (&b"six"[..], 1, 1));
        batch.skip(7);
        assert!(batch.is_empty() && batch.bytes().is_empty());
    }

    #[test]
    fn datagrams_of_one_length_and_a_shorter_one_after_them_are_a_batch() {
        let mut batches = Batches::default();
        [&b"aaa"[..], b"bbb", b"c", b"ddd"].into_iter().for_each(|bytes| add(&mut batches, direct(1), bytes));
        assert_eq!(all(&mut batches), [vec![b"aaa".to_vec(), b"bbb".to_vec(), b"c".to_vec()], vec![b"ddd".to_vec()]]);
    }

    #[test]
    fn a_longer_one_begins_a_batch_of_its_own() {
        let mut batches = Batches::default();
        [&b"a"[..], b"b", b"longer", b"longed"].into_iter().for_each(|bytes| add(&mut batches, direct(1), bytes));
        assert_eq!(
            all(&mut batches),
            [vec![b"a".to_vec(), b"b".to_vec()], vec![b"longer".to_vec(), b"longed".to_vec()]]
        );
    }

    #[test]
    fn places_do_not_mix() {
        let mut batches = Batches::default();
        for (port, bytes) in [(1, b"a"), (2, b"b"), (1, b"c")] {
            add(&mut batches, direct(port), bytes);
        }
        assert_eq!(all(&mut batches), [vec![b"a".to_vec(), b"c".to_vec()], vec![b"b".to_vec()]]);
    }

    #[test]
    fn a_relayed_one_has_room_for_its_frame() {
        let mut batches = Batches::default();
        add(&mut batches, Route::Relayed(Relay::Server(0)), b"inside");
        let batch = batches.pop().expect("one");
        assert_eq!((batch.segment_size(), &batch.bytes()[RELAY_OVERHEAD..]), (RELAY_OVERHEAD + 6, &b"inside"[..]));
    }

    #[test]
    fn nothing_written_is_nothing_sent() {
        let mut batches = Batches::default();
        batches.add(Role::Primary, direct(1), 100, |_| None);
        assert!(batches.pop().is_none());
    }

    proptest! {
        #[test]
        fn datagrams_to_one_place_stay_in_their_order_and_within_the_limits(lens in prop::collection::vec(1usize..2000, 1..200)) {
            let mut batches = Batches::default();
            let sent: Vec<Vec<u8>> = lens.iter().enumerate().map(|(at, len)| vec![at as u8; *len]).collect();
            sent.iter().for_each(|bytes| add(&mut batches, direct(1), bytes));
            let mut got = vec![];
            while let Some(batch) = batches.pop() {
                prop_assert!(batch.len() <= MOST && batch.bytes().len() <= LONGEST);
                prop_assert_eq!(batch.datagrams().count(), batch.len());
                got.extend(batch.datagrams().map(<[u8]>::to_vec));
                batches.recycle(batch);
            }
            prop_assert_eq!(got, sent);
        }
    }
}
