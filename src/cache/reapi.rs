//! The Remote Execution API's cache (bazelbuild/remote-apis, remote_execution.proto 2.3, and google.bytestream), for Bazel, moon, Buck2 and whoever else speaks
//! it: a file for each service. It holds what Bazel's HTTP cache holds, under the same names. Nothing is executed. Not here: connections
//! ([`super::front`]), and what is found ([`super::Cache`]).

mod action_cache;
mod bytestream;
mod capabilities;
mod cas;
mod digests;
mod download;
mod patience;
mod references;
mod resource;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::bytestream::byte_stream_server::{self, ByteStreamServer};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service as _, StdError, http};

use self::api::action_cache_server::{self, ActionCacheServer};
use self::api::capabilities_server::{self, CapabilitiesServer};
use self::api::content_addressable_storage_server::{self, ContentAddressableStorageServer};
use self::patience::Patient;
use super::Cache;
use super::store::{Blob, Error, Name, ReadError};
use super::token::Grant;
use crate::proto::digest::Digest;

/// Bytes of blobs in one call: what clients take by default (gRPC's limit of a message).
const LARGEST_BATCH: u64 = 4 << 20;

/// Of a message: a batch of small blobs has as much again in names.
const LONGEST_MESSAGE: usize = 8 << 20;

/// A call waits so long for others to end.
const BUSY: Duration = Duration::from_secs(5);

/// Blobs that are looked for at once for one call.
const TOGETHER: usize = 16;

/// The services over one cache.
#[derive(Debug, Clone)]
pub struct Reapi {
    cache: Arc<Cache>,
    patience: Duration,
    places: Arc<Semaphore>,
}

/// As an answer goes out.
pub type Answer = http::Response<Body>;

/// One call, by the bearer of a grant.
#[derive(Debug, Clone)]
struct Desk {
    cache: Arc<Cache>,
    grant: Grant,
    patience: Duration,
    /// Until the last byte of the answer is read from the disk.
    _place: Arc<OwnedSemaphorePermit>,
}

impl Reapi {
    /// Takes `calls` at once, whose next bytes it waits for as long as `patience`.
    pub fn new(cache: Arc<Cache>, calls: usize, patience: Duration) -> Self {
        Self { cache, patience, places: Arc::new(Semaphore::new(calls)) }
    }

    /// Whether a request is one of gRPC (its "gRPC over HTTP2", "Requests").
    pub fn is_call<B>(request: &http::Request<B>) -> bool {
        let kind = request.headers().get(http::header::CONTENT_TYPE);
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    }

    /// What somebody without a token is told.
    pub fn stranger() -> Answer {
        Status::unauthenticated("the token of this run is missing; hint: `mesh cache env` prints it").into_http()
    }

    /// Answers a call.
    pub async fn answer<B>(&self, grant: Grant, request: http::Request<B>) -> Answer
    where
        B: HttpBody + Send + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        let patience = self.patience;
        match self.desk(grant).await {
            Some(desk) => desk.serve(request.map(|body| Patient::new(body, patience))).await,
            None => Status::unavailable("too many calls at once; hint: try again").into_http(),
        }
    }

    /// Where a call is answered, as soon as there is a place.
    async fn desk(&self, grant: Grant) -> Option<Desk> {
        let place = tokio::time::timeout(BUSY, Arc::clone(&self.places).acquire_owned()).await.ok()?.ok()?;
        Some(Desk { cache: Arc::clone(&self.cache), grant, patience: self.patience, _place: place.into() })
    }
}

impl Desk {
    async fn serve<B>(self, request: http::Request<Patient<B>>) -> Answer
    where
        B: HttpBody + Send + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        let Ok(answer) = match service {
            capabilities_server::SERVICE_NAME => CapabilitiesServer::new(self).call(request).await,
            action_cache_server::SERVICE_NAME => {
                ActionCacheServer::new(self).max_decoding_message_size(LONGEST_MESSAGE).call(request).await
            }
            content_addressable_storage_server::SERVICE_NAME => {
                let server = ContentAddressableStorageServer::new(self);
                server.max_decoding_message_size(LONGEST_MESSAGE).call(request).await
            }
            byte_stream_server::SERVICE_NAME => {
                ByteStreamServer::new(self).max_decoding_message_size(LONGEST_MESSAGE).call(request).await
            }
            _ => Ok(Status::unimplemented("this is a cache: there is no such service").into_http()),
        };
        answer
    }

    fn may_write(&self) -> Result<(), Status> {
        self.grant.writes().then_some(()).ok_or_else(|| Status::permission_denied("this token may only read"))
    }

    fn name(&self, digest: &Digest) -> Name {
        digests::content(self.grant.namespace(), digest)
    }

    /// Which of these blobs are there.
    async fn present(&self, digests: &[Digest]) -> Vec<bool> {
        let names: Vec<Name> = digests.iter().map(|digest| self.name(digest)).collect();
        let found = self.cache.peek(&names).await.into_iter();
        let known = found.zip(digests).map(|(found, digest)| found == Some(*digest));
        known.zip(digests).map(|(known, digest)| known || *digest == Digest::EMPTY).collect()
    }

    async fn find(&self, digest: &Digest) -> Option<Blob> {
        let found = self.cache.find(&self.name(digest)).await;
        found.filter(|(record, _)| record.digest == *digest).map(|(_, blob)| blob)
    }

    /// All bytes of a blob.
    async fn content(&self, digest: &Digest) -> Option<Bytes> {
        match *digest {
            Digest::EMPTY => Some(Bytes::new()),
            _ => read_all(&self.cache, &self.find(digest).await?),
        }
    }

    /// Of each all bytes; some are looked for at once.
    async fn contents(&self, digests: &[Digest]) -> Vec<Option<Bytes>> {
        let mut found = vec![None; digests.len()];
        for (at, digests) in digests.chunks(TOGETHER).enumerate() {
            let mut under_way = JoinSet::new();
            for (index, digest) in digests.iter().copied().enumerate() {
                let desk = self.clone();
                under_way.spawn(async move { (at * TOGETHER + index, desk.content(&digest).await) });
            }
            while let Some(done) = under_way.join_next().await {
                if let Ok((index, bytes)) = done {
                    found[index] = bytes;
                }
            }
        }
        found
    }
}

/// The bytes from `at`, as many as are read at once. What is damaged is forgotten.
fn read(cache: &Cache, blob: &Blob, at: u64) -> Result<Bytes, Status> {
    blob.read(at).map_err(|error| match error {
        ReadError::Damaged => {
            cache.forget(blob);
            Status::data_loss("the blob was damaged, and is forgotten")
        }
        ReadError::Io(error) => {
            tracing::warn!(%error, "the cache cannot read a blob");
            Status::internal("the blob cannot be read")
        }
    })
}

/// All bytes of a blob, that should not be large.
fn read_all(cache: &Cache, blob: &Blob) -> Option<Bytes> {
    if let Some(bytes) = blob.whole() {
        return Some(bytes.clone());
    }
    let mut all = Vec::with_capacity(blob.digest().size as usize);
    while (all.len() as u64) < blob.digest().size {
        let piece = read(cache, blob, all.len() as u64).ok()?;
        all.extend_from_slice(&piece);
    }
    Some(all.into())
}

/// Why something is not stored.
fn refuse(error: &Error) -> Status {
    tracing::debug!(%error, "the cache refused a write");
    let text = error.to_string();
    match error {
        Error::Mismatch { .. } | Error::TooLarge { .. } => Status::invalid_argument(text),
        Error::Full { .. } => Status::resource_exhausted(text),
        Error::Metadata | Error::InUse(_) | Error::Io { .. } => Status::internal(text),
    }
}
