//! One peer's cache, as this runner knows it: what it surely does not have, whether it is worth asking, and the calls. Not here: who is asked what ([`super::Peers`]).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2::action_cache_client::ActionCacheClient;
use bazel_remote_apis::build::bazel::remote::execution::v2::{
    ActionResult, GetActionResultRequest, UpdateActionResultRequest,
};
use bazel_remote_apis::google::bytestream::byte_stream_client::ByteStreamClient;
use bazel_remote_apis::google::bytestream::{ReadRequest, ReadResponse};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::CALLER;
use super::dial::Dialer;
use super::health::{Health, SILENCE};
use super::rate::Rates;
use super::wire::service::peers_client::PeersClient;
use super::wire::{
    self, LeaseEvent, LeaseRequest, LookRequest, LostRequest, Parcel, TakeOverRequest, WatchEvent, WatchRequest,
};
use crate::cache::store::{Key, Name};
use crate::link::clock;
use crate::proto::digest::{Digest, Hash};
use crate::proto::filter::{Filter, LARGEST};
use crate::proto::role::Role;

/// A record with a blob of 64 KiB and all that may be said about it, and filters in one piece.
const LONGEST_MESSAGE: usize = LARGEST + (1 << 20);

/// A record on its way to its home may take so long.
const DELIVERY: Duration = Duration::from_secs(2);

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) role: Role,
    header: MetadataValue<Ascii>,
    caller: MetadataValue<Ascii>,
    /// For what is short, and has to be quick.
    channel: Channel,
    /// For blobs, which would be in the way of the rest.
    bulk: Channel,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    filter: Option<Filter>,
    health: Health,
    rates: Rates,
}

impl Peer {
    /// `None` where it has no address. `header` shows that we are a peer, `own` is which.
    pub(super) fn new(role: Role, own: Role, dialer: &Dialer, header: &str) -> Option<Self> {
        let (channel, bulk) = (dialer.channel(role)?, dialer.channel(role)?);
        let header = MetadataValue::try_from(header).ok()?;
        let caller = MetadataValue::try_from(own.slug()).ok()?;
        Some(Self { role, header, caller, channel, bulk, known: Mutex::default() })
    }

    fn known<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        work(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.header.clone());
        request.metadata_mut().insert(CALLER, self.caller.clone());
        request
    }

    /// Whether it spoke lately.
    pub(super) fn is_there(&self) -> bool {
        self.known(|known| known.health.is_there(clock::now()))
    }

    /// Whether it spoke once, and does not any more.
    pub(super) fn is_silent(&self) -> bool {
        self.known(|known| known.health.is_silent(clock::now()))
    }

    /// Whether it is worth asking for what may be had otherwise.
    pub(super) fn is_good(&self) -> bool {
        let now = clock::now();
        self.known(|known| known.health.is_there(now) && known.health.is_trusted(now))
    }

    /// Whether it has not failed lately; it may never have been asked.
    pub(super) fn is_trusted(&self) -> bool {
        self.known(|known| known.health.is_trusted(clock::now()))
    }

    /// Whether it may have a name. `false` is certain but for the last moments.
    pub(super) fn may_have(&self, key: Key) -> bool {
        self.known(|known| known.filter.as_ref().is_none_or(|filter| filter.may_have(key)))
    }

    /// After which time somebody else is asked too.
    pub(super) fn hedge(&self) -> Duration {
        self.known(|known| known.health.hedge())
    }

    /// It gave wrong bytes, or what is no answer.
    pub(super) fn distrust(&self) {
        tracing::warn!(peer = %self.role, "its cache gave wrong bytes, and is left out for a minute");
        self.known(|known| known.health.lied(clock::now()));
    }

    /// It did not answer in time.
    pub(super) fn fail(&self) {
        self.known(|known| known.health.failed(clock::now()));
    }

    /// Its words have ended.
    pub(super) fn lost(&self) {
        self.known(|known| {
            known.health.lost();
            known.filter = None;
        });
    }

    /// What it said.
    pub(super) fn heard(&self, event: &WatchEvent) {
        self.known(|known| {
            known.health.heard(clock::now());
            if let Some(filter) = Filter::from_bytes(&event.filter) {
                known.filter = Some(filter);
            }
            if let Some(filter) = &mut known.filter {
                event.keys.iter().for_each(|key| filter.insert(*key));
            }
        });
    }

    /// It sent so much of a blob within this time.
    pub(super) fn sent(&self, compressed: bool, bytes: u64, took: Duration) {
        self.known(|known| known.rates.note(compressed, bytes, took));
    }

    /// Whether it should send blobs compressed.
    pub(super) fn compress(&self) -> bool {
        self.known(|known| known.rates.compress())
    }

    /// Does what asks it, and remembers how that went.
    async fn measured<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let began = clock::now();
        let result = call.await;
        self.known(|known| match &result {
            Err(status) if !is_answer(status) => known.health.failed(clock::now()),
            _ => known.health.answered(clock::now().saturating_duration_since(began)),
        });
        result
    }

    /// Hears what it has and what is news.
    pub(super) async fn watch(&self, own: Role) -> Result<Streaming<WatchEvent>, Status> {
        let mut client = PeersClient::new(self.channel.clone()).max_decoding_message_size(LONGEST_MESSAGE);
        let asked = client.watch(self.request(WatchRequest { number: own.number().into() }));
        within(3 * SILENCE, asked).await.map(tonic::Response::into_inner)
    }

    /// The record of a name there, with its blob where that is short. `None` where there is none.
    pub(super) async fn get(&self, name: &Name, limit: Duration) -> Result<Option<Parcel>, Status> {
        let mut client = ActionCacheClient::new(self.channel.clone());
        let request = GetActionResultRequest {
            instance_name: name.namespace().into(),
            action_digest: Some(wire::action(name)),
            inline_output_files: vec![name.name().into()],
            ..Default::default()
        };
        match self.measured(within(limit, client.get_action_result(self.request(request)))).await {
            Ok(response) => match Parcel::read(response.into_inner()) {
                Some(parcel) => Ok(Some(parcel)),
                None => {
                    self.distrust();
                    Err(Status::data_loss("what is no record"))
                }
            },
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Brings it a record.
    pub(super) async fn put(&self, name: &Name, parcel: Parcel) -> Result<(), Status> {
        let mut client = ActionCacheClient::new(self.channel.clone());
        let result: ActionResult = parcel.write(name);
        let request = UpdateActionResultRequest {
            instance_name: name.namespace().into(),
            action_digest: Some(wire::action(name)),
            action_result: Some(result),
            ..Default::default()
        };
        self.measured(within(DELIVERY, client.update_action_result(self.request(request)))).await.map(drop)
    }

    /// Of each name what it is of there.
    pub(super) async fn look(&self, names: &[Hash], limit: Duration) -> Result<Vec<Option<Digest>>, Status> {
        let mut client = PeersClient::new(self.channel.clone());
        let request = LookRequest { names: names.iter().map(|name| name.to_vec()).collect() };
        let found = self.measured(within(limit, client.look(self.request(request)))).await?.into_inner().digests;
        if found.len() != names.len() {
            self.distrust();
            return Err(Status::data_loss("not as many answers as questions"));
        }
        Ok(found.iter().map(|text| text.parse().ok()).collect())
    }

    /// The bytes of a blob from `at` on.
    pub(super) async fn read(
        &self,
        digest: &Digest,
        at: u64,
        compressed: bool,
    ) -> Result<Streaming<ReadResponse>, Status> {
        let mut client = ByteStreamClient::new(self.bulk.clone());
        let request =
            ReadRequest { resource_name: wire::resource(digest, compressed), read_offset: at as i64, read_limit: 0 };
        client.read(self.request(request)).await.map(tonic::Response::into_inner)
    }

    /// Asks for a lease, which lasts as long as `requests`.
    pub(super) async fn lease(
        &self,
        requests: impl tokio_stream::Stream<Item = LeaseRequest> + Send + 'static,
    ) -> Result<Streaming<LeaseEvent>, Status> {
        let mut client = PeersClient::new(self.channel.clone());
        client.lease(self.request(requests)).await.map(tonic::Response::into_inner)
    }

    /// Tells it, as the home of a name, that these runners do not have its blob.
    pub(super) async fn lose(&self, name: &Hash, roles: &[Role]) -> Result<(), Status> {
        let mut client = PeersClient::new(self.channel.clone());
        let numbers = roles.iter().map(|role| role.number().into()).collect();
        let request = LostRequest { name: name.to_vec(), numbers };
        within(DELIVERY, client.lost(self.request(request))).await.map(drop)
    }

    /// Asks it to fetch from us what would leave with us; how many blobs it has then. Without names: that is all.
    pub(super) async fn take_over(&self, own: Role, names: &[Hash]) -> Result<u32, Status> {
        let mut client = PeersClient::new(self.channel.clone());
        let names = names.iter().map(|name| name.to_vec()).collect();
        let request = TakeOverRequest { number: own.number().into(), names };
        client.take_over(self.request(request)).await.map(|response| response.into_inner().taken)
    }
}

/// Whether a peer that says this is well.
fn is_answer(status: &Status) -> bool {
    [Code::NotFound, Code::InvalidArgument, Code::ResourceExhausted, Code::OutOfRange].contains(&status.code())
}

/// The answer, if it comes in time.
pub(super) async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}
