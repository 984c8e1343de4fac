//! For tests: a NAT that draws mappings, so that what is read from its answers can be held against what it does. What it lets in is
//! not here.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::ports::LOWEST;
use super::{Mapping, Sample};

/// How the model draws the port of a new mapping.
#[derive(Debug, Clone, Copy)]
pub enum Draw {
    /// The inside port.
    Preserving,
    /// The next of a walk; every fourth time other hosts have taken some.
    Stride { next: u16, step: i16 },
    /// One of a range that is not taken.
    Block { first: u16, len: u16 },
    /// One of all that is not taken.
    Random,
}

/// The inside port, and what of the destination the mapping depends on.
type Key = (u16, Option<u16>, Option<u16>);

/// A NAT with several sockets behind it.
#[derive(Debug)]
pub struct Model {
    mapping: Mapping,
    draw: Draw,
    mappings: BTreeMap<Key, SocketAddr>,
    newest: u16,
    /// How many addresses it has; each new mapping takes the next.
    pub egress: u8,
    rng: ChaCha20Rng,
}

impl Model {
    pub fn new(mapping: Mapping, draw: Draw, seed: u64) -> Self {
        let rng = ChaCha20Rng::seed_from_u64(seed);
        Self { mapping, draw, mappings: BTreeMap::new(), newest: 0, egress: 1, rng }
    }

    /// What two servers with two ports each see of `sockets` sockets.
    pub fn asked(&mut self, sockets: usize) -> Vec<Sample> {
        let locals: Vec<u16> = (0..sockets).map(|_| self.rng.random_range(32_768..61_000)).collect();
        let servers = [(1, 3478), (1, 3479), (2, 3478), (2, 3479)];
        let asked = locals.iter().flat_map(|local| servers.map(|(host, port)| (*local, host, port)));
        asked.map(|(local, host, port)| self.answer(local, host, port)).collect()
    }

    /// The port of the mapping that was made last.
    pub fn newest(&self) -> u16 {
        self.newest
    }

    fn answer(&mut self, local: u16, host: u16, port: u16) -> Sample {
        let key = match self.mapping {
            Mapping::EndpointIndependent | Mapping::Unknown => (local, None, None),
            Mapping::AddressDependent => (local, Some(host), None),
            Mapping::AddressAndPortDependent => (local, Some(host), Some(port)),
        };
        let known = self.mappings.get(&key).copied();
        let mapped = known.unwrap_or_else(|| self.make(key));
        Sample { mapped, ..sample(local, host, port, 0) }
    }

    fn make(&mut self, key: Key) -> SocketAddr {
        let host = (self.mappings.len() % usize::from(self.egress)) as u8;
        self.newest = self.drawn(key.0);
        let mapped = SocketAddr::from((Ipv4Addr::new(198, 51, 100, host), self.newest));
        self.mappings.insert(key, mapped);
        mapped
    }

    fn drawn(&mut self, local: u16) -> u16 {
        match self.draw {
            Draw::Preserving => local,
            Draw::Stride { next, step } => {
                self.draw = Draw::Stride { next: self.step_on(next, step), step };
                next
            }
            Draw::Block { first, len } => self.free(first, first + (len - 1)),
            Draw::Random => self.free(LOWEST, u16::MAX),
        }
    }

    /// Starts over beyond the end of the pool, as NATs do.
    fn step_on(&mut self, port: u16, step: i16) -> u16 {
        let others = if self.mappings.len() % 4 == 3 { self.rng.random_range(1..=16) } else { 0 };
        let next = i32::from(port) + i32::from(step) * (1 + others);
        u16::try_from(next).ok().filter(|port| *port >= LOWEST).unwrap_or(if step > 0 { LOWEST } else { u16::MAX })
    }

    fn free(&mut self, first: u16, last: u16) -> u16 {
        loop {
            let port = self.rng.random_range(first..=last);
            if self.mappings.values().all(|mapped| mapped.port() != port) {
                return port;
            }
        }
    }
}

/// What the server at `192.0.2.host:port` saw of the socket `local`.
pub fn sample(local: u16, host: u16, port: u16, mapped: u16) -> Sample {
    let server = SocketAddr::from((Ipv4Addr::new(192, 0, 2, host as u8), port));
    Sample { server, mapped: SocketAddr::from((Ipv4Addr::new(198, 51, 100, 0), mapped)), local }
}

/// Every mapping that can be told.
pub fn mappings() -> impl Strategy<Value = Mapping> {
    use Mapping::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
    prop::sample::select(vec![EndpointIndependent, AddressDependent, AddressAndPortDependent])
}

/// Every step that can be told.
pub fn steps() -> impl Strategy<Value = i16> {
    prop_oneof![1..=16_i16, -16..=-1_i16]
}
