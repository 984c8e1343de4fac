//! The services as clients see them: over loopback, through the port that the HTTP fronts have too.

mod blobs;
mod calls;
mod results;
mod uploads;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::bytestream::byte_stream_client::ByteStreamClient;
use bazel_remote_apis::google::bytestream::{ReadRequest, WriteRequest};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codegen::InterceptedService;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::api::action_cache_client::ActionCacheClient;
use super::api::capabilities_client::CapabilitiesClient;
use super::api::content_addressable_storage_client::ContentAddressableStorageClient;
use super::digests;
use super::resource::{Form, Resource};
use crate::cache::front::{Fronts, Limits};
use crate::cache::store::Store;
use crate::cache::token::{Grant, Tokens};
use crate::cache::{Cache, sha256};
use crate::proto::digest::Digest;

const BUDGET: u64 = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

/// Of nothing, of a few bytes, of the largest that is in a segment and of the next, and of some files.
const SIZES: [usize; 7] = [0, 1, 100, 128 << 10, (128 << 10) + 1, 1 << 20, 5_000_001];

/// A cache with its fronts, for as long as a test needs it.
struct Stage {
    folder: tempfile::TempDir,
    addr: SocketAddr,
    tokens: Tokens,
    cache: Arc<Cache>,
    channel: Channel,
    task: JoinHandle<()>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Puts a token on every call.
#[derive(Clone)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

type Bearing = InterceptedService<Channel, Bearer>;

/// Clients of all services, with one token.
#[derive(Clone)]
struct Client {
    capabilities: CapabilitiesClient<Bearing>,
    cas: ContentAddressableStorageClient<Bearing>,
    actions: ActionCacheClient<Bearing>,
    bytes: ByteStreamClient<Bearing>,
}

impl Stage {
    async fn start() -> Self {
        Self::with(Limits { connections: 64, patience: PATIENCE }).await
    }

    async fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Arc::new(Cache::new(Store::open(folder.path(), BUDGET).expect("a store").into(), None));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let tokens = Tokens::new([[7; 32]]);
        let task = tokio::spawn(Fronts::new(Arc::clone(&cache), tokens.clone(), limits).serve(listener));
        let channel = Endpoint::from_shared(format!("http://{addr}")).expect("a URL").connect_lazy();
        Self { folder, addr, tokens, cache, channel, task }
    }

    fn grant(namespace: &str, writes: bool) -> Grant {
        Grant::new(namespace, writes).expect("a grant")
    }

    fn token(&self, namespace: &str, writes: bool) -> String {
        self.tokens.issue(&Self::grant(namespace, writes))
    }

    fn client(&self) -> Client {
        self.bearer(Some(&format!("Bearer {}", self.token("main", true))))
    }

    /// With the token of somebody else.
    fn other(&self, namespace: &str, writes: bool) -> Client {
        self.bearer(Some(&format!("Bearer {}", self.token(namespace, writes))))
    }

    fn bearer(&self, header: Option<&str>) -> Client {
        let bearer = Bearer(header.map(|header| header.parse().expect("a header")));
        let channel = InterceptedService::new(self.channel.clone(), bearer);
        let most = 16 << 20;
        Client {
            capabilities: CapabilitiesClient::new(channel.clone()),
            cas: ContentAddressableStorageClient::new(channel.clone()).max_decoding_message_size(most),
            actions: ActionCacheClient::new(channel.clone()).max_decoding_message_size(most),
            bytes: ByteStreamClient::new(channel).max_decoding_message_size(most),
        }
    }
}

impl Client {
    /// What is told of an upload of `sent` as the blob, in messages of so many bytes.
    async fn write(&mut self, digest: Digest, form: Form, sent: &[u8], step: usize) -> Result<i64, Code> {
        let named = Resource { instance: "of/us".into(), upload: Some("u".into()), form, digest };
        let messages = messages(&named.to_string(), sent, step);
        let told = self.bytes.write(tokio_stream::iter(messages)).await;
        told.map(|told| told.into_inner().committed_size).map_err(|status| status.code())
    }

    async fn put(&mut self, bytes: &[u8]) -> Digest {
        let digest = sha256::digest(bytes);
        self.write(digest, Form::Plain, bytes, 1 << 20).await.expect("stored");
        digest
    }

    async fn read(&mut self, request: ReadRequest) -> Result<Vec<u8>, Code> {
        let mut pieces = self.bytes.read(request).await.map_err(|status| status.code())?.into_inner();
        let mut all = vec![];
        while let Some(piece) = pieces.message().await.map_err(|status| status.code())? {
            all.extend(piece.data);
        }
        Ok(all)
    }

    async fn get(&mut self, digest: Digest, form: Form) -> Result<Vec<u8>, Code> {
        let named = Resource { instance: "others".into(), upload: None, form, digest };
        self.read(ReadRequest { resource_name: named.to_string(), ..Default::default() }).await
    }

    async fn missing(&mut self, digests: &[Digest]) -> Vec<Digest> {
        let blob_digests = digests.iter().map(digests::write).collect();
        let asked = api::FindMissingBlobsRequest { blob_digests, ..Default::default() };
        let told = self.cas.find_missing_blobs(asked).await.expect("an answer").into_inner();
        told.missing_blob_digests.iter().map(|digest| digests::read(digest).expect("a digest")).collect()
    }
}

/// An upload: the name on the first, the mark on the last.
fn messages(name: &str, sent: &[u8], step: usize) -> Vec<WriteRequest> {
    let pieces: Vec<&[u8]> = if sent.is_empty() { vec![&[]] } else { sent.chunks(step).collect() };
    let last = pieces.len() - 1;
    let message = |(index, piece): (usize, &&[u8])| WriteRequest {
        resource_name: if index == 0 { name.into() } else { String::new() },
        write_offset: (index * step) as i64,
        finish_write: index == last,
        data: piece.to_vec(),
    };
    pieces.iter().enumerate().map(message).collect()
}

fn content(size: usize) -> Vec<u8> {
    (0..size as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 27) as u8).collect()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).expect("compressed")
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::decode_all(bytes).expect("expanded")
}
