//! `POST /mesh/NAME`: who makes what is not there. The answer comes when that is known, and the right to make it lasts as long as the caller takes the answer's body:
//! a connection that ends, however it does, gives it back. Not here: how runners agree ([`crate::cache::peers`]).

use std::sync::Arc;

use hyper::StatusCode;

use super::body::Body;
use super::holding::Holding;
use super::{Answer, status};
use crate::cache::Cache;
use crate::cache::peers::Turn;
use crate::cache::store::Name;

/// The caller makes it, alone.
pub(super) const OURS: StatusCode = StatusCode::OK;

/// The caller makes it, and others may as well: nobody could be asked.
pub(super) const ALONE: StatusCode = StatusCode::ACCEPTED;

/// Somebody else has made it meanwhile.
pub(super) const MADE: StatusCode = StatusCode::NO_CONTENT;

/// Waits for the caller's turn.
pub(super) async fn answer(cache: &Arc<Cache>, name: Name) -> Answer {
    match cache.turn(&name).await {
        Turn::Made => status(MADE),
        Turn::Alone => status(ALONE),
        Turn::Ours(lease) => {
            let mut answer = Answer::new(Body::holding(Holding::new(Arc::clone(cache), name, lease)));
            *answer.status_mut() = OURS;
            answer
        }
    }
}
