//! `POST /mesh/NAME`: who makes what is not there. The answer comes when that is known, and the right to make it lasts as long as the caller takes the answer's body:
//! a connection that ends, however it does, gives it back. Not here: how runners agree ([`crate::cache::peers`]).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::time::{Interval, interval};

use super::body::Body;
use super::{Answer, status};
use crate::cache::Cache;
use crate::cache::peers::{Lease, Turn};
use crate::cache::store::Name;

/// The caller makes it, alone.
pub(super) const OURS: StatusCode = StatusCode::OK;

/// The caller makes it, and others may as well: nobody could be asked.
pub(super) const ALONE: StatusCode = StatusCode::ACCEPTED;

/// Somebody else has made it meanwhile.
pub(super) const MADE: StatusCode = StatusCode::NO_CONTENT;

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

/// Waits for the caller's turn.
pub(super) async fn answer(cache: &Arc<Cache>, name: Name) -> Answer {
    match cache.turn(&name).await {
        Turn::Made => status(MADE),
        Turn::Alone => status(ALONE),
        Turn::Ours(lease) => {
            let holding = Holding { cache: Arc::clone(cache), name, lease: Some(lease), beat: interval(BEAT) };
            let mut answer = Answer::new(Body::holding(holding));
            *answer.status_mut() = OURS;
            answer
        }
    }
}

impl Holding {
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
