//! Single flight: of many runners that want what is not there, one makes it and the others wait. The record's home lets one after another through a gate; who is
//! through works for as long as it says so, and when it has gone, finished or not, the next one is through. Not here: what is made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Gate, OwnedMutexGuard, mpsc, oneshot};
use tonic::{Status, Streaming};

use super::wire::{Lease as Stand, LeaseEvent, LeaseRequest};
use crate::proto::digest::Hash;

/// Who holds a lease, or waits for one, says so this often.
pub(super) const BEAT: Duration = Duration::from_secs(1);

/// A lease whose holder has said nothing for so long is the next one's.
pub(super) const TERM: Duration = Duration::from_secs(5);

/// The gates of a home.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<HashMap<Hash, Arc<Gate<()>>>>);

impl Leases {
    fn gate(&self, name: &Hash) -> Arc<Gate<()>> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        Arc::clone(gates.entry(*name).or_default())
    }

    /// Waits for the gate: one after another passes, in the order they came.
    pub(super) async fn pass(&self, name: &Hash) -> OwnedMutexGuard<()> {
        self.gate(name).lock_owned().await
    }
}

/// The right to make what a name is of, for as long as it is kept.
#[derive(Debug)]
pub struct Lease(#[expect(dead_code, reason = "dropped, it is given back")] Kind);

#[derive(Debug)]
#[expect(dead_code, reason = "dropped, it is given back")]
enum Kind {
    /// This runner is the home.
    Here(OwnedMutexGuard<()>),
    /// Ends the beats.
    There(oneshot::Sender<()>),
}

impl Lease {
    /// Of this runner's own gate.
    pub(super) fn here(guard: OwnedMutexGuard<()>) -> Self {
        Self(Kind::Here(guard))
    }

    /// Of another home, as long as somebody listens to `beats`.
    pub(super) fn there(ends: oneshot::Sender<()>) -> Self {
        Self(Kind::There(ends))
    }
}

/// What a home says to a caller who asks for a lease: it waits, leads, or finds the record there. `is_done` is asked when its turn has come.
pub(super) async fn serve(
    leases: Arc<Leases>,
    mut requests: Streaming<LeaseRequest>,
    name: Hash,
    events: mpsc::Sender<Result<LeaseEvent, Status>>,
    is_done: impl Fn() -> bool,
) {
    let say = |stand: Stand| events.send(Ok(LeaseEvent { lease: stand.into() }));
    let turn = leases.pass(&name);
    tokio::pin!(turn);
    let guard = loop {
        tokio::select! {
            biased;
            guard = &mut turn => break guard,
            alive = speaks(&mut requests) => if !alive || say(Stand::Waiting).await.is_err() { return },
        }
    };
    if is_done() {
        let _ = say(Stand::Done).await;
        return;
    }
    while say(Stand::Leading).await.is_ok() && speaks(&mut requests).await {}
    drop(guard);
}

/// Whether the caller still wants it.
async fn speaks(requests: &mut Streaming<LeaseRequest>) -> bool {
    matches!(tokio::time::timeout(TERM, requests.message()).await, Ok(Ok(Some(_))))
}
