//! A request's body that fails where nothing comes for too long. Not here: how long that is.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Frame;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::codegen::{Body, StdError};

/// A body, and how long its next piece may take.
pub(super) struct Patient<B> {
    body: B,
    patience: Duration,
    /// Until when, while something is waited for.
    until: Option<Pin<Box<Sleep>>>,
    waits: bool,
}

impl<B> std::fmt::Debug for Patient<B> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Patient for {:?}", self.patience)
    }
}

impl<B> Patient<B> {
    pub(super) fn new(body: B, patience: Duration) -> Self {
        Self { body, patience, until: None, waits: false }
    }

    /// Whether it has been waited for too long.
    fn poll_too_long(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience)));
        if !self.waits {
            until.as_mut().reset(Instant::now() + self.patience);
            self.waits = true;
        }
        until.as_mut().poll(context)
    }
}

impl<B> Body for Patient<B>
where
    B: Body + Unpin,
    B::Error: Into<StdError>,
{
    type Data = B::Data;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, StdError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.waits = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        std::task::ready!(self.poll_too_long(context));
        Poll::Ready(Some(Err(Status::deadline_exceeded("nothing came for too long").into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
