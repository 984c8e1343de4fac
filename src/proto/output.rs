//! What peers put out, and what they need to know of ourselves.

use std::collections::VecDeque;

use rand_chacha::ChaCha20Rng;

use super::batch::Batches;
use super::call::Call;
use super::candidate::Candidate;
use super::crossing::Side;
use super::nat::Behaviour;
use super::packets::Packets;
use super::role::Role;
use super::route::{Relay, Route};
use super::transmit::{Event, Transmit};

/// A datagram that somebody else is to pass on.
#[derive(Debug)]
pub struct Relayed {
    /// Who.
    pub by: Relay,
    /// To whom.
    pub to: Role,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// What peers put out, in the order in which it must leave.
#[derive(Debug, Default)]
pub struct Output {
    /// Datagrams for the sockets.
    pub transmits: VecDeque<Transmit>,
    /// Datagrams for relays, to be framed; they leave after those before them.
    pub relayed: VecDeque<Relayed>,
    /// Bulk, which may wait for those before it.
    pub batches: Batches,
    /// Inner packets for the TUN device.
    pub inner: Packets,
    /// Notices.
    pub events: VecDeque<Event>,
}

impl Output {
    /// A datagram for peer `to`. A relay is reached at full TTL whatever `ttl` says.
    pub fn send(&mut self, to: Role, route: Route, ttl: Option<u8>, bytes: Vec<u8>) {
        match route {
            Route::Direct { socket, addr } => self.transmits.push_back(Transmit { socket, to: addr, ttl, bytes }),
            Route::Relayed(by) => self.relayed.push_back(Relayed { by, to, bytes }),
        }
    }
}

/// What every peer needs to know of ourselves.
#[derive(Debug, Clone)]
pub struct Own {
    /// Who we are.
    pub role: Role,
    /// Which set of our addresses is the current one.
    pub epoch: u32,
    /// The TTL that opens our NATs.
    pub opening_ttl: u8,
    /// Our NAT.
    pub nat: Behaviour,
    /// Between us and the internet.
    pub side: Side,
    /// Our candidates; none while they are being gathered.
    pub candidates: Vec<Candidate>,
}

impl Own {
    /// Tells a peer where we are, and which epoch of it we have opened towards.
    pub fn call(&self, opened: u32) -> Call {
        Call { epoch: self.epoch, opened, nat: self.nat, candidates: self.candidates.clone() }
    }
}

/// What every input of a peer takes along.
#[derive(Debug)]
pub struct Around<'a> {
    /// Ourselves.
    pub own: &'a Own,
    /// The process's randomness.
    pub rng: &'a mut ChaCha20Rng,
    /// Where everything goes.
    pub out: &'a mut Output,
}
