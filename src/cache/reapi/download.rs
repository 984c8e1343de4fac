//! A blob on its way out by way of `ByteStream.Read`. What is small goes at once; a file is read by a task that gives it up where nobody takes the next piece.
//! Not here: what was asked for.

use std::pin::Pin;
use std::task::{Context, Poll};

use bazel_remote_apis::google::bytestream::ReadResponse;
use bytes::Bytes;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_stream::Stream;
use tonic::Status;

use super::resource::Form;
use super::{Desk, read};
use crate::cache::compression::{Compressor, compress};
use crate::cache::store::Blob;

/// Read ahead of whoever takes it.
const AHEAD: usize = 2;

/// A piece, of which an empty one ends it all.
type Piece = Result<Vec<u8>, Status>;

/// The messages of an answer.
#[derive(Debug)]
pub(super) enum Feed {
    /// These bytes, if any.
    Once(Option<Vec<u8>>),
    /// What a task reads.
    Pieces(Receiver<Piece>),
}

impl Feed {
    /// All at once.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn once(bytes: Bytes, form: Form) -> Result<Self, Status> {
        Ok(Self::Once(Some(match form {
            Form::Plain => bytes.into(),
            Form::Zstd => compress(&bytes).map_err(internal)?,
        })))
    }

    /// These bytes of a blob.
    ///
    /// # Errors
    /// If the first of them cannot be read.
    pub(super) fn start(desk: &Desk, blob: Blob, (at, end): (u64, u64), form: Form) -> Result<Self, Status> {
        if at == end {
            return Self::once(Bytes::new(), form);
        }
        if let Some(whole) = blob.whole() {
            return Self::once(whole.slice(at as usize..end as usize), form);
        }
        // Before anything is promised: a blob that is damaged here is one that was not found.
        let first = read(&desk.cache, &blob, at).map_err(|why| Status::not_found(why.message()))?;
        let compressor = (form == Form::Zstd).then(|| Compressor::new(end - at)).transpose().map_err(internal)?;
        let (out, pieces) = mpsc::channel(AHEAD);
        tokio::spawn(Feeder { desk: desk.clone(), blob, at, end, compressor, out }.run(first));
        Ok(Self::Pieces(pieces))
    }
}

fn internal(error: std::io::Error) -> Status {
    Status::internal(error.to_string())
}

impl Stream for Feed {
    type Item = Result<ReadResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = match &mut *self {
            Self::Once(bytes) => bytes.take().filter(|bytes| !bytes.is_empty()).map(Ok),
            Self::Pieces(pieces) => match std::task::ready!(pieces.poll_recv(context)) {
                Some(Ok(bytes)) if bytes.is_empty() => None,
                Some(piece) => Some(piece),
                None => Some(Err(Status::deadline_exceeded("nobody took the next piece for too long"))),
            },
        };
        if !matches!(next, Some(Ok(_))) {
            *self = Self::Once(None);
        }
        Poll::Ready(next.map(|piece| piece.map(|data| ReadResponse { data })))
    }
}

/// Reads a file for a [`Feed`].
struct Feeder {
    desk: Desk,
    blob: Blob,
    at: u64,
    end: u64,
    compressor: Option<Compressor>,
    out: Sender<Piece>,
}

impl Feeder {
    async fn run(mut self, first: Bytes) {
        if let Some(last) = self.feed(first).await.transpose() {
            self.send(last).await;
        }
    }

    /// Sends all. The mark of the end, or nothing where nobody takes it.
    async fn feed(&mut self, mut bytes: Bytes) -> Result<Option<Vec<u8>>, Status> {
        loop {
            let piece = self.encode(bytes)?;
            if !piece.is_empty() && !self.send(Ok(piece)).await {
                return Ok(None);
            }
            if self.at == self.end {
                return Ok(Some(vec![]));
            }
            bytes = read(&self.desk.cache, &self.blob, self.at)?;
        }
    }

    fn encode(&mut self, mut bytes: Bytes) -> Piece {
        bytes.truncate(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        self.at += bytes.len() as u64;
        match &mut self.compressor {
            Some(compressor) => compressor.write(&bytes, self.at == self.end).map_err(internal),
            None => Ok(bytes.into()),
        }
    }

    /// Whether somebody takes it.
    async fn send(&self, piece: Piece) -> bool {
        matches!(tokio::time::timeout(self.desk.patience, self.out.send(piece)).await, Ok(Ok(())))
    }
}
