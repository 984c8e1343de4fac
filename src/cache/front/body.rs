//! What an answer carries: a blob, read while it is sent, or a few words. A blob that turns out damaged breaks the connection off: better no answer than a
//! wrong one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::holding::Holding;
use crate::cache::Cache;
use crate::cache::store::{Blob, ReadError};

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
    /// Signs of life, without end.
    Holding(Box<Holding>),
    /// The next bytes are read already, so that damage shows before anything is sent.
    Blob {
        cache: Arc<Cache>,
        blob: Blob,
        next: Bytes,
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

    /// Until nobody takes it any more.
    pub(super) fn holding(holding: Holding) -> Self {
        Self { size: 0, source: Source::Holding(Box::new(holding)) }
    }

    pub(super) fn text(text: String) -> Self {
        Self { size: text.len() as u64, source: Source::Bytes(text.into()) }
    }

    /// `None` where its first bytes cannot be read.
    pub(super) fn blob(cache: Arc<Cache>, blob: Blob) -> Option<Self> {
        let size = blob.digest().size;
        let source = match blob.whole() {
            Some(bytes) => Source::Bytes(bytes.clone()),
            None => Source::Blob { next: read(&cache, &blob, 0).ok()?, cache, blob, at: 0 },
        };
        Some(Self { size, source })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

fn read(cache: &Cache, blob: &Blob, at: u64) -> Result<Bytes, ReadError> {
    blob.read(at).inspect_err(|error| match error {
        ReadError::Damaged => cache.forget(blob),
        ReadError::Io(error) => tracing::warn!(%error, "the cache cannot read a blob"),
    })
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = ReadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        let next = match &mut self.source {
            Source::None => None,
            Source::Bytes(bytes) => Some(Ok(std::mem::take(bytes))),
            Source::Holding(holding) => Some(Ok(std::task::ready!(holding.poll(context)))),
            Source::Blob { next, at, .. } if !next.is_empty() => {
                *at += next.len() as u64;
                Some(Ok(std::mem::take(next)))
            }
            Source::Blob { cache, blob, at, .. } => {
                let read = read(cache, blob, *at);
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
            Source::Holding(_) => false,
            Source::Blob { blob, at, .. } => *at >= blob.digest().size,
        }
    }

    fn size_hint(&self) -> SizeHint {
        if matches!(self.source, Source::Holding(_)) { SizeHint::default() } else { SizeHint::with_exact(self.size) }
    }
}
