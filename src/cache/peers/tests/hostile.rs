//! Peers that give wrong bytes, break off, or never answer: a primary that serves what a test tells it to, in place of a real one.

use std::pin::Pin;

use bazel_remote_apis::build::bazel::remote::execution::v2::action_cache_server::{ActionCache, ActionCacheServer};
use bazel_remote_apis::build::bazel::remote::execution::v2::{
    ActionResult, GetActionResultRequest, UpdateActionResultRequest,
};
use bazel_remote_apis::google::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use bazel_remote_apis::google::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Streaming};
use tower_service::Service;

use super::super::wire::service::peers_server::{Peers as PeersService, PeersServer};
use super::super::wire::{
    Content, LeaseEvent, LookRequest, LookResponse, LostRequest, LostResponse, TakeOverRequest, TakeOverResponse,
    WatchEvent, WatchRequest,
};
use super::*;
use crate::cache::sha256;

type Events<T> = Pin<Box<ReceiverStream<Result<T, Status>>>>;

/// What it does when it is asked for a record, or for a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vice {
    /// It gives other bytes with the record.
    WrongRecord,
    /// It gives other bytes as the blob.
    WrongBlob,
    /// It gives more than there is.
    Endless,
    /// It ends in the middle.
    Short,
    /// It says nothing more.
    Silent,
    /// It gives what is no record.
    Garbage,
}

#[derive(Debug, Clone)]
struct Liar {
    vice: Vice,
    content: Vec<u8>,
    asked: Arc<AtomicU64>,
}

impl Liar {
    /// Listens as the primary of the run.
    fn start(overlay: Prefix, vice: Vice, content: &[u8]) -> (Arc<AtomicU64>, Runtime) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
        let asked = Arc::new(AtomicU64::new(0));
        let liar = Self { vice, content: content.to_vec(), asked: Arc::clone(&asked) };
        let mut listener = {
            let _inside = runtime.enter();
            dialer(overlay, Role::Primary).ports.listen(PORT).expect("a port")
        };
        runtime.spawn(async move {
            while let Ok(connection) = listener.accept().await {
                let liar = liar.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                        let liar = liar.clone();
                        async move {
                            match request.uri().path().split('/').nth(1) {
                                Some("mesh.cache.v1.Peers") => PeersServer::new(liar).call(request).await,
                                Some("google.bytestream.ByteStream") => ByteStreamServer::new(liar).call(request).await,
                                _ => ActionCacheServer::new(liar).call(request).await,
                            }
                        }
                    });
                    let _ = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(connection), answer)
                        .await;
                });
            }
        });
        (asked, runtime)
    }

    fn stream<T: Send + 'static>(events: Vec<T>, goes_on: bool) -> Response<Events<T>> {
        let (out, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            for event in events {
                let _ = out.send(Ok(event)).await;
            }
            if goes_on {
                out.closed().await;
            }
        });
        Response::new(Box::pin(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl ActionCache for Liar {
    async fn get_action_result(
        &self,
        request: Request<GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let request = request.into_inner();
        let name = Name::new(request.instance_name, request.inline_output_files[0].clone()).expect("a name");
        let content = |bytes| Content { digest: sha256::digest(&self.content), bytes, metadata: Bytes::new() };
        let (holders, content) = match self.vice {
            Vice::Silent => std::future::pending().await,
            Vice::Garbage => return Ok(Response::new(ActionResult::default())),
            Vice::WrongRecord => (vec![], content(Some(vec![0; self.content.len()].into()))),
            Vice::WrongBlob | Vice::Endless | Vice::Short => (vec![Role::Primary], content(None)),
        };
        Ok(Response::new(Parcel { version: 1, cost_ms: 0, holders, content: Some(content) }.write(&name)))
    }

    async fn update_action_result(
        &self,
        _: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        Ok(Response::new(ActionResult::default()))
    }
}

#[tonic::async_trait]
impl ByteStream for Liar {
    type ReadStream = Events<ReadResponse>;

    async fn read(&self, _: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let bytes = match self.vice {
            Vice::WrongBlob => vec![0; self.content.len()],
            Vice::Endless => [&self.content[..], &self.content[..]].concat(),
            _ => self.content[..self.content.len() / 2].to_vec(),
        };
        let pieces = bytes.chunks(64 << 10).map(|data| ReadResponse { data: data.to_vec() }).collect();
        Ok(Self::stream(pieces, false))
    }

    async fn write(&self, _: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn query_write_status(
        &self,
        _: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl PeersService for Liar {
    type WatchStream = Events<WatchEvent>;

    /// It is there all the time, and says that it may have everything.
    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (out, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let all = WatchEvent { filter: vec![0xff; 64], members: vec![0, 1], ..WatchEvent::default() };
            let garbage = WatchEvent {
                filter: vec![1; 63],
                keys: vec![1, 2],
                versions: vec![u64::MAX],
                members: vec![u32::MAX, 0, 1],
            };
            let _ = out.send(Ok(garbage)).await;
            while out.send(Ok(all.clone())).await.is_ok() {
                tokio::time::sleep(health::BEAT).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    /// Its answers are as many as it likes.
    async fn look(&self, _: Request<LookRequest>) -> Result<Response<LookResponse>, Status> {
        Ok(Response::new(LookResponse { digests: vec!["no digest".into()] }))
    }

    type LeaseStream = Events<LeaseEvent>;

    async fn lease(&self, _: Request<Streaming<LeaseRequest>>) -> Result<Response<Self::LeaseStream>, Status> {
        Ok(Self::stream(vec![LeaseEvent { lease: 99 }], false))
    }

    async fn take_over(&self, _: Request<TakeOverRequest>) -> Result<Response<TakeOverResponse>, Status> {
        Ok(Response::new(TakeOverResponse { taken: u32::MAX }))
    }

    async fn lost(&self, _: Request<LostRequest>) -> Result<Response<LostResponse>, Status> {
        Ok(Response::new(LostResponse {}))
    }
}

/// An aux that has met a liar.
async fn met(vice: Vice, content: &[u8]) -> (Runner, Arc<AtomicU64>, Runtime) {
    let overlay = overlay();
    let (asked, liar) = Liar::start(overlay, vice, content);
    let aux = Runner::start(overlay, Role::Aux(0));
    {
        let _inside = aux.runtime.as_ref().expect("it runs").enter();
        aux.peers.warm_up();
    }
    eventually("they have met", async || aux.peers.0.good_homes(&[0; 32]).len() == 1).await;
    (aux, asked, liar)
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_never_used_and_their_giver_left_out() {
    for (vice, content) in [
        (Vice::WrongRecord, bytes(5_000)),
        (Vice::WrongBlob, bytes(500_000)),
        (Vice::Endless, bytes(500_000)),
        (Vice::Short, bytes(500_000)),
        (Vice::Garbage, bytes(10)),
    ] {
        let (aux, asked, liar) = met(vice, &content).await;

        assert_eq!(aux.get(&name("wanted")).await, None, "{vice:?}");

        assert_eq!(asked.load(Ordering::Relaxed), 1, "{vice:?}");
        assert!(aux.peers.0.good_homes(&[0; 32]).is_empty(), "{vice:?}: it is asked no more");
        assert!(!aux.store.has(&sha256::digest(&content)) && aux.store.record(&name("wanted")).is_none(), "{vice:?}");
        liar.shutdown_background();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_is_waited_for_once() {
    let (aux, asked, liar) = met(Vice::Silent, b"").await;

    for at in 0..20 {
        assert_eq!(aux.get(&name(&format!("wanted {at}"))).await, None);
    }

    let stats = aux.peers.stats();
    assert!(stats.late <= 2 && asked.load(Ordering::Relaxed) <= 2, "{stats:?}");
    liar.shutdown_background();
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_answers_are_none() {
    let (aux, _, liar) = met(Vice::Garbage, b"").await;

    assert_eq!(aux.peers.look(&[name("a"), name("b")]).await, [None, None]);
    let (peers, wanted) = (aux.peers.clone(), name("c"));
    let turn = aux.runtime.as_ref().expect("it runs").spawn(async move { peers.turn(&wanted).await });
    let turn = tokio::time::timeout(DEADLINE, turn).await.expect("in time").expect("no panic");
    assert!(matches!(turn, Turn::Alone | Turn::Ours(_)), "{turn:?}");
    liar.shutdown_background();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_brought_with_wrong_bytes_is_refused() {
    let overlay = overlay();
    let primary = Runner::start(overlay, Role::Primary);
    let header = tokens().peer_header();
    let peer = Peer::new(Role::Primary, Role::Aux(0), &dialer(overlay, Role::Aux(0)), &header).expect("an address");
    let content =
        Content { digest: sha256::digest(b"right"), bytes: Some(Bytes::from_static(b"wrong")), metadata: Bytes::new() };
    let parcel = Parcel { version: 1, cost_ms: 0, holders: vec![], content: Some(content) };

    let refused = peer.put(&name("a"), parcel).await.expect_err("these are not the bytes");

    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(primary.store.record(&name("a")).is_none());
    assert_eq!(primary.peers.stats().wrong, 1);
}
