//! What peers ask of this runner's cache, on its overlay address alone, and only who shows that it is of the run: the Remote Execution API's services, and our own.
//! Blobs are given to any peer; tools ask elsewhere ([`crate::cache::front`]).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2::action_cache_server::{ActionCache, ActionCacheServer};
use bazel_remote_apis::build::bazel::remote::execution::v2::{
    ActionResult, GetActionResultRequest, UpdateActionResultRequest,
};
use bazel_remote_apis::google::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use bazel_remote_apis::google::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

use super::dial::{KEEP_ALIVE, WINDOWS};
use super::health::BEAT;
use super::wire::service::peers_server::{Peers as PeersService, PeersServer};
use super::wire::{
    self, LeaseEvent, LeaseRequest, LookRequest, LookResponse, LostRequest, LostResponse, Parcel, TakeOverRequest,
    TakeOverResponse, WatchEvent, WatchRequest,
};
use super::{Inner, lease};
use crate::cache::compression::Compressor;
use crate::cache::store::Blob;
use crate::link::ports::{Connection, Listener};
use crate::proto::digest::{self, Digest, Hash};
use crate::proto::role::Role;

/// Connections of peers at once: two from each of the most that a run has.
const CONNECTIONS: usize = 512;

/// Calls at once on a connection.
const CALLS: u32 = 256;

/// A listener that cannot take a connection tries again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// Who reads a blob that is still coming here is told so often that this runner lives.
const ALIVE: Duration = Duration::from_millis(300);

/// News are gathered for so long, from the first.
const GATHERING: Duration = Duration::from_millis(5);

/// Messages that wait for a slow reader.
const QUEUE: usize = 8;

/// Names that are looked up at once, and taken over.
const MOST_NAMES: usize = 4096;

type Events<T> = Pin<Box<ReceiverStream<Result<T, Status>>>>;

/// Answers peers, for ever.
pub(super) async fn serve(inner: Arc<Inner>, mut listener: Listener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok(connection) => {
                let server = Server(Arc::clone(&inner));
                tokio::spawn(async move {
                    server.converse(connection).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no peer's connection can be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Server(Arc<Inner>);

impl Server {
    async fn converse(self, connection: Connection) {
        let answer = service_fn(|request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_concurrent_streams(CALLS)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        if let Err(error) = http.serve_connection(TokioIo::new(connection), answer).await {
            tracing::debug!(%error, "a peer's connection ended early");
        }
    }

    async fn answer(self, request: hyper::Request<Incoming>) -> hyper::Response<tonic::body::Body> {
        let header = request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        if !header.is_some_and(|header| self.0.tokens.is_peer(header)) {
            return Status::unauthenticated("only a runner of this run is answered").into_http();
        }
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        let answered = match service {
            "mesh.cache.v1.Peers" => PeersServer::new(self).call(request).await,
            "google.bytestream.ByteStream" => ByteStreamServer::new(self).call(request).await,
            "build.bazel.remote.execution.v2.ActionCache" => ActionCacheServer::new(self).call(request).await,
            _ => return Status::unimplemented("peers do not offer this service to each other").into_http(),
        };
        match answered {
            Ok(response) => response,
        }
    }
}

#[tonic::async_trait]
impl ActionCache for Server {
    async fn get_action_result(
        &self,
        request: Request<GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let path = request.inline_output_files.first().map_or("", String::as_str);
        let name = wire::name(&request.instance_name, request.action_digest.as_ref(), path).ok_or_else(no_name)?;
        let parcel = self.0.give(&name, caller).ok_or_else(|| Status::not_found("no such record"))?;
        Ok(Response::new(parcel.write(&name)))
    }

    async fn update_action_result(
        &self,
        request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let request = request.into_inner();
        let result = request.action_result.ok_or_else(|| Status::invalid_argument("no action result"))?;
        let path = result.output_files.first().map(|file| file.path.clone()).unwrap_or_default();
        let parcel = Parcel::read(result).ok_or_else(|| Status::invalid_argument("not a record"))?;
        if parcel.content.is_none() {
            let hash = request.action_digest.and_then(|action| digest::parse_hash(&action.hash).ok());
            self.0.drop_earlier(&hash.ok_or_else(no_name)?, parcel.version);
        } else {
            let name = wire::name(&request.instance_name, request.action_digest.as_ref(), &path).ok_or_else(no_name)?;
            self.0.receive(&name, parcel)?;
        }
        Ok(Response::new(ActionResult::default()))
    }
}

/// A peer that reads a blob.
struct Reader {
    inner: Arc<Inner>,
    events: mpsc::Sender<Result<ReadResponse, Status>>,
    compressor: Option<Compressor>,
    /// Bytes of the blob that it does not have yet.
    left: u64,
}

impl Reader {
    /// Sends what is here.
    async fn send(&mut self, blob: &Blob, mut at: u64) -> Result<(), Status> {
        while self.left > 0 {
            let bytes = blob.read(at).map_err(|error| {
                self.inner.store.forget(blob);
                Status::data_loss(error.to_string())
            })?;
            at += bytes.len() as u64;
            self.piece(bytes).await?;
        }
        Ok(())
    }

    /// Sends what comes here itself, as it comes.
    async fn forward(&mut self, digest: &Digest, mut at: u64) -> Result<(), Status> {
        // At once, that nobody takes us for silent.
        self.say(vec![]).await?;
        let following = self.inner.fetches.follow(digest).await;
        let mut following = following.ok_or_else(|| Status::not_found("no such blob"))?;
        while self.left > 0 {
            let bytes = following.read(at, ALIVE).await.ok_or_else(|| Status::unavailable("it did not come"))?;
            at += bytes.len() as u64;
            self.piece(bytes).await?;
        }
        Ok(())
    }

    async fn piece(&mut self, bytes: Bytes) -> Result<(), Status> {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        super::count(&self.inner.counts.sent_bytes, bytes.len() as u64);
        let data = match &mut self.compressor {
            Some(compressor) => compressor
                .write(&bytes, self.left == 0)
                .map_err(|error| Status::resource_exhausted(error.to_string()))?,
            None => bytes.into(),
        };
        self.say(data).await
    }

    async fn say(&self, data: Vec<u8>) -> Result<(), Status> {
        let said = self.events.send(Ok(ReadResponse { data })).await;
        said.map_err(|_| Status::cancelled("nobody reads it"))
    }
}

/// Who asks, as it says.
fn caller<T>(request: &Request<T>) -> Option<Role> {
    request.metadata().get(super::CALLER)?.to_str().ok().and_then(Role::from_slug)
}

fn no_name() -> Status {
    Status::invalid_argument("not the name of a record")
}

#[tonic::async_trait]
impl ByteStream for Server {
    type ReadStream = Events<ReadResponse>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let (digest, compressed) = wire::parse_resource(&request.resource_name)
            .ok_or_else(|| Status::invalid_argument("not the name of a blob"))?;
        let at = u64::try_from(request.read_offset).ok().filter(|at| *at <= digest.size);
        let at = at.ok_or_else(|| Status::out_of_range("beyond the end"))?;
        if request.read_limit != 0 {
            return Err(Status::unimplemented("peers read to the end"));
        }
        let compressor = compressed.then(|| Compressor::new(digest.size - at)).transpose();
        let compressor = compressor.map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let (events, stream) = mpsc::channel(QUEUE);
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut reader = Reader { inner, events, compressor, left: digest.size - at };
            let sent = match reader.inner.store.blob(&digest) {
                Some(blob) => reader.send(&blob, at).await,
                None => reader.forward(&digest, at).await,
            };
            if let Err(status) = sent {
                let _ = reader.events.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn write(&self, _: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        Err(Status::unimplemented("peers fetch, nobody brings"))
    }

    async fn query_write_status(
        &self,
        _: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented("peers fetch, nobody brings"))
    }
}

#[tonic::async_trait]
impl PeersService for Server {
    type WatchStream = Events<WatchEvent>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let role = role(request.get_ref().number)?;
        let (events, stream) = mpsc::channel(QUEUE);
        tokio::spawn(tell(Arc::clone(&self.0), role, events));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn look(&self, request: Request<LookRequest>) -> Result<Response<LookResponse>, Status> {
        let names = hashes(&request.get_ref().names)?;
        let digests = names.iter().map(|name| self.0.known(name).map_or_else(String::new, |found| found.to_string()));
        Ok(Response::new(LookResponse { digests: digests.collect() }))
    }

    type LeaseStream = Events<LeaseEvent>;

    async fn lease(&self, request: Request<Streaming<LeaseRequest>>) -> Result<Response<Self::LeaseStream>, Status> {
        let mut requests = request.into_inner();
        let first = super::peer::within(lease::TERM, requests.message()).await?;
        let name = first.and_then(|first| wire::hash(&first.name)).ok_or_else(no_name)?;
        let (events, stream) = mpsc::channel(QUEUE);
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            let is_done = || inner.known(&name).is_some();
            lease::serve(Arc::clone(&inner.leases), requests, name, events, is_done).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn take_over(&self, request: Request<TakeOverRequest>) -> Result<Response<TakeOverResponse>, Status> {
        let request = request.into_inner();
        let (from, names) = (role(request.number)?, hashes(&request.names)?);
        if names.is_empty() {
            self.0.note_left(from, true);
        }
        Ok(Response::new(TakeOverResponse { taken: self.0.take_over(from, &names).await }))
    }

    async fn lost(&self, request: Request<LostRequest>) -> Result<Response<LostResponse>, Status> {
        let request = request.into_inner();
        let name = wire::hash(&request.name).ok_or_else(no_name)?;
        let roles: Vec<Role> = request.numbers.into_iter().map(role).collect::<Result<_, _>>()?;
        self.0.lose(&name, &roles);
        Ok(Response::new(LostResponse {}))
    }
}

fn role(number: u32) -> Result<Role, Status> {
    let role = u16::try_from(number).ok().and_then(Role::from_number);
    role.ok_or_else(|| Status::invalid_argument("no such role"))
}

fn hashes(names: &[Vec<u8>]) -> Result<Vec<Hash>, Status> {
    if names.len() > MOST_NAMES {
        return Err(Status::invalid_argument("too many names at once"));
    }
    names.iter().map(|name| wire::hash(name).ok_or_else(no_name)).collect()
}

/// Tells a peer what is here and what is news, until it is gone.
async fn tell(inner: Arc<Inner>, peer: Role, events: mpsc::Sender<Result<WatchEvent, Status>>) {
    let mut news = inner.news.subscribe();
    let mut members = inner.listening(peer);
    let mut event = WatchEvent { members: members.borrow_and_update().clone(), ..inner.filter() };
    let mut said = 0;
    while events.send(Ok(std::mem::take(&mut event))).await.is_ok() {
        tokio::select! {
            one = news.recv() => {
                // More will follow: a message for each would cost every listener as much as the record itself.
                tokio::time::sleep(GATHERING).await;
                let mut next = Some(one);
                while let Some(one) = next {
                    match one {
                        Ok((key, version)) => {
                            event.keys.push(key);
                            event.versions.push(version);
                        }
                        Err(broadcast::error::RecvError::Lagged(_)) => {
                            event = inner.filter();
                            said = 0;
                        }
                        Err(broadcast::error::RecvError::Closed) => return,
                    }
                    next = news.try_recv().ok().map(Ok);
                }
                said += event.keys.len();
                // The peer's filter is made for twice as many names as there were.
                if said > inner.store.usage().entries.max(super::LEAST_NAMES) {
                    event = inner.filter();
                    said = 0;
                }
            }
            changed = members.changed() => {
                if changed.is_err() {
                    return;
                }
                event.members = members.borrow_and_update().clone();
            }
            () = tokio::time::sleep(BEAT) => {}
        }
    }
}
