//! Datagrams on their way to the sockets: whatever is added, in which order and for whom, comes out as it went in, in batches that one system
//! call can send.
//!
//! Input: steps, each of one byte and what it asks for.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use mesh::proto::batch::{Batch, Batches};
use mesh::proto::relay;
use mesh::proto::role::Role;
use mesh::proto::route::{Relay, Route};

use super::input::Input;

/// What one call takes (`UDP_MAX_SEGMENTS`, and the longest datagram over IPv4).
const MOST: usize = 64;
const LONGEST: usize = 65_507;

/// Longer stories show nothing new.
const MOST_STEPS: usize = 128;

pub fn run(data: &[u8]) {
    let (mut input, mut world) = (Input::new(data), World::default());
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    while world.pop() {}
    assert!(world.waiting.values().all(VecDeque::is_empty), "a datagram was lost");
}

type Place = (Role, Route);

#[derive(Default)]
struct World {
    batches: Batches,
    /// What was added and has not come out, by its place.
    waiting: BTreeMap<Place, VecDeque<Vec<u8>>>,
    count: u8,
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.byte();
        let place = place(step);
        match step >> 3 {
            0..=11 => self.add(place, [1452, 1452, 160, 20][usize::from(step >> 3) % 4], 0),
            12..=23 => {
                let [high, low, spare] = input.array();
                self.add(place, usize::from(u16::from_be_bytes([high, low])).max(1), spare.into());
            }
            24 | 25 => (0..MOST).for_each(|_| self.add(place, 1452, 0)),
            26 | 27 => self.batches.add(place.0, place.1, input.byte().into(), |_| None),
            28..=30 => {
                self.pop();
            }
            _ => {
                self.batches.clear();
                self.waiting.clear();
            }
        }
    }

    /// One of `len` bytes, for which `spare` bytes more were asked for.
    fn add(&mut self, place: Place, len: usize, spare: usize) {
        let len = len.min(LONGEST - headroom(place.1));
        self.count = self.count.wrapping_add(1);
        let datagram = vec![self.count; len];
        self.batches.add(place.0, place.1, len + spare, |buffer| {
            assert!((len..=len + spare).contains(&buffer.len()));
            buffer[..len].copy_from_slice(&datagram);
            Some(len)
        });
        self.waiting.entry(place).or_default().push_back(datagram);
    }

    /// The next batch, which must hold what was added first for its place.
    fn pop(&mut self) -> bool {
        let Some(batch) = self.batches.pop() else { return false };
        let waiting = self.waiting.get_mut(&(batch.to, batch.route)).expect("something was added for it");
        assert_well_formed(&batch);
        for datagram in batch.datagrams() {
            assert_eq!(Some(&datagram[headroom(batch.route)..]), waiting.pop_front().as_deref());
        }
        self.batches.recycle(batch);
        true
    }
}

/// All of one length, but for the last.
fn assert_well_formed(batch: &Batch) {
    let (count, size) = (batch.len(), batch.segment_size());
    assert!(!batch.is_empty() && count <= MOST && batch.bytes().len() <= LONGEST);
    assert_eq!(batch.datagrams().count(), count);
    assert_eq!(batch.datagrams().map(<[u8]>::len).sum::<usize>(), batch.bytes().len());
    assert!(batch.datagrams().take(count - 1).all(|datagram| datagram.len() == size));
    assert!(batch.datagrams().all(|datagram| datagram.len() <= size));
}

fn headroom(route: Route) -> usize {
    if route.is_direct() { 0 } else { relay::OVERHEAD }
}

fn place(step: u8) -> Place {
    let role = [Role::Primary, Role::Aux(0)][usize::from(step & 1)];
    let route = match step >> 1 & 3 {
        0 => Route::to(SocketAddr::from(([192, 0, 2, 1], 1))),
        1 => Route::to(SocketAddr::from(([192, 0, 2, 1], 2))),
        2 => Route::Relayed(Relay::Server(0)),
        _ => Route::Relayed(Relay::Peer(Role::Aux(1))),
    };
    (role, route)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let (none, pop, many, clear) = (26 << 3, 28 << 3, 24 << 3, 31 << 3);
    let exactly = |place: u8, len: u16, spare: u8| {
        let [high, low] = len.to_be_bytes();
        vec![12 << 3 | place, high, low, spare]
    };
    vec![
        vec![0, 0, 0x10, 0, 0, 0x18, pop],
        vec![4, 5, 0x14, 6, 7, 4, pop, pop, 4],
        vec![many, 0, many, pop, many | 4, many | 4, pop, pop],
        vec![0x10, 0, 0x10, none, 9, none | 2, 9, 2, 2, pop, clear, 0],
        [exactly(0, 1000, 0), exactly(0, 1000, 200), exactly(0, 999, 9), exactly(0, 999, 0)].concat(),
        [exactly(4, u16::MAX, 255), exactly(4, 100, 0), exactly(0, u16::MAX, 0), exactly(0, 65_506, 1)].concat(),
        [exactly(0, 30_000, 0), exactly(0, 30_000, 0), exactly(0, 30_000, 0), vec![pop, 0]].concat(),
    ]
}
