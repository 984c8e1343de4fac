//! What an answer carries: a blob, read while it is sent, or a few words. A blob that turns out damaged breaks the connection off: better no answer than a
//! wrong one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::cache::Cache;
use crate::cache::store::{Blob, Damaged};

/// An answer's bytes.
#[derive(Debug)]
pub(super) struct Body {
    size: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Nothing more.
    None,
    Bytes(Bytes),
    Blob {
        cache: Arc<Cache>,
        blob: Blob,
        at: u64,
    },
}

impl Default for Body {
    fn default() -> Self {
        Self::of_size(0)
    }
}

impl Body {
    /// What would be so large, for an answer without a body.
    pub(super) fn of_size(size: u64) -> Self {
        Self { size, source: Source::None }
    }

    pub(super) fn text(text: String) -> Self {
        Self { size: text.len() as u64, source: Source::Bytes(text.into()) }
    }

    pub(super) fn blob(cache: Arc<Cache>, blob: Blob) -> Self {
        let size = blob.digest().size;
        let source = match blob.whole() {
            Some(bytes) => Source::Bytes(bytes.clone()),
            None => Source::Blob { cache, blob, at: 0 },
        };
        Self { size, source }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Damaged;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Damaged>>> {
        let next = match &mut self.source {
            Source::None => None,
            Source::Bytes(bytes) => Some(Ok(std::mem::take(bytes))),
            Source::Blob { cache, blob, at } => {
                let read = blob.read(*at).inspect_err(|_| cache.forget(blob));
                *at += read.as_ref().map_or(0, |bytes| bytes.len() as u64);
                Some(read)
            }
        };
        let next = next.filter(|next| !next.as_ref().is_ok_and(Bytes::is_empty));
        if next.is_none() {
            self.source = Source::None;
        }
        Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::None => true,
            Source::Bytes(bytes) => bytes.is_empty(),
            Source::Blob { blob, at, .. } => *at >= blob.digest().size,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size)
    }
}
