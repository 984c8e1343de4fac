//! The right to make what a name is of, as a body that is sent for as long as the right is wanted: when nobody takes it any more, it is given back. Not here: who
//! gets it ([`super::turn`]).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Interval, interval};

use crate::cache::Cache;
use crate::cache::peers::Lease;
use crate::cache::store::Name;

/// So often something is sent, so that it shows when the caller has gone.
const BEAT: Duration = Duration::from_secs(1);

/// The right to make something, while a body is sent.
#[derive(Debug)]
pub(super) struct Holding {
    cache: Arc<Cache>,
    name: Name,
    lease: Option<Lease>,
    beat: Interval,
}

impl Holding {
    pub(super) fn new(cache: Arc<Cache>, name: Name, lease: Lease) -> Self {
        Self { cache, name, lease: Some(lease), beat: interval(BEAT) }
    }

    /// The next sign of life.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Bytes> {
        ready!(Pin::new(&mut self.beat).poll_tick(context));
        Poll::Ready(Bytes::from_static(b"."))
    }
}

impl Drop for Holding {
    /// What was made is at its homes before the next one's turn.
    fn drop(&mut self) {
        let (cache, name, lease) = (Arc::clone(&self.cache), self.name.clone(), self.lease.take());
        tokio::spawn(async move {
            cache.settle(&name).await;
            drop(lease);
        });
    }
}
