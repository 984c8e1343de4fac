//! A ping as a path wants it sent, and those that are on their way. How one looks on the wire is in [`super::super::probe`].

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::probe::Transaction;
use super::super::route::Route;

/// Pings whose answers are still waited for; older ones are forgotten.
const MOST: usize = 64;

/// How a datagram may travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Far enough to open our own NATs, not as far as the peer's.
    Opening,
    /// All the way.
    Full,
}

/// A ping to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// Which way.
    pub route: Route,
    /// How far.
    pub reach: Reach,
    /// The length of the datagram; the least possible where 0.
    pub length: usize,
    /// Whether its answer is waited for. That of a spray's probe says no more than that it was heard.
    tracked: bool,
}

impl Ping {
    pub(super) fn new(route: Route, reach: Reach) -> Self {
        Self { route, reach, length: 0, tracked: true }
    }

    pub(super) fn padded(route: Route, length: usize) -> Self {
        Self { length, ..Self::new(route, Reach::Full) }
    }

    pub(super) fn untracked(route: Route, reach: Reach) -> Self {
        Self { tracked: false, ..Self::new(route, reach) }
    }
}

/// Pings that wait for their answers.
#[derive(Debug, Default)]
pub(super) struct Flight(BTreeMap<Transaction, (Ping, Instant)>);

impl Flight {
    /// One leaves.
    pub(super) fn insert(&mut self, now: Instant, transaction: Transaction, ping: Ping) {
        if !ping.tracked {
            return;
        }
        if self.0.len() >= MOST {
            let oldest = self.0.iter().min_by_key(|(_, (_, at))| *at).map(|(id, _)| *id);
            oldest.and_then(|id| self.0.remove(&id));
        }
        self.0.insert(transaction, (ping, now));
    }

    /// The one that is answered, and when it left.
    pub(super) fn take(&mut self, transaction: Transaction) -> Option<(Ping, Instant)> {
        self.0.remove(&transaction)
    }

    /// A number that none has.
    #[cfg(test)]
    pub(super) fn next(&self) -> Transaction {
        self.0.keys().next_back().map_or(1, |last| last + 1)
    }
}
