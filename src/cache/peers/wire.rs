//! What peers' caches say to each other. Blobs travel by the Remote Execution API's own services; a record travels as one of its action results, whose only file is
//! the blob:
//!
//! | a record's | is there |
//! |---|---|
//! | namespace | `instance_name` |
//! | name | `output_files[0].path`, its hash the hash of `action_digest`, its length the size |
//! | digest, and the blob itself where it is short | `output_files[0].digest` and `.contents` |
//! | cost | `execution_metadata.virtual_execution_duration` |
//! | version | `execution_metadata.worker_completed_timestamp`, in microseconds |
//! | holders, best first | `execution_metadata.worker`, as `primary,aux3` |
//! | metadata | `stdout_raw` |
//!
//! A record without a file is that of a name that is of nothing any more. The rest is a service of our own. Pure.

use std::str::FromStr;

use bazel_remote_apis::build::bazel::remote::execution::v2::{
    ActionResult, Digest as WireDigest, ExecutedActionMetadata, OutputFile,
};
use bazel_remote_apis::google::protobuf::{Duration, Timestamp};
use bytes::Bytes;

use crate::cache::store::Name;
use crate::proto::digest::{self, Digest, Hash};
use crate::proto::role::Role;

/// The generated client and server.
#[allow(unused_qualifications, clippy::allow_attributes_without_reason, reason = "generated")]
pub mod service {
    include!(concat!(env!("OUT_DIR"), "/mesh.cache.v1.Peers.rs"));
}

/// A record's version may be so far ahead of our clock, in microseconds: an hour.
const AHEAD: u64 = 3_600_000_000;

/// Who wants to know what is here.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WatchRequest {
    /// The number of the caller's role.
    #[prost(uint32, tag = "1")]
    pub number: u32,
}

/// What is news. An event in which nothing is says that its sender lives.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchEvent {
    /// Of all names that are here, in place of what was said before ([`crate::proto::filter`]).
    #[prost(bytes = "vec", tag = "1")]
    pub filter: Vec<u8>,
    /// Names that were set since: the first eight bytes of their hashes.
    #[prost(fixed64, repeated, tag = "2")]
    pub keys: Vec<u64>,
    /// Of each of them its version.
    #[prost(fixed64, repeated, tag = "3")]
    pub versions: Vec<u64>,
    /// The primary alone knows them: numbers of all that have a cache.
    #[prost(uint32, repeated, tag = "4")]
    pub members: Vec<u32>,
}

/// Which of these names are there.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LookRequest {
    /// Their hashes, of 32 bytes each.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub names: Vec<Vec<u8>>,
}

/// The answer, in the same order.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LookResponse {
    /// `HASH/SIZE` of the blob, or empty.
    #[prost(string, repeated, tag = "1")]
    pub digests: Vec<String>,
}

/// Of who wants to do the work, repeated while it lasts.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LeaseRequest {
    /// The hash of the record's name.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
}

/// What became of it. While nothing has, it is repeated.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LeaseEvent {
    /// [`Lease`].
    #[prost(enumeration = "Lease", tag = "1")]
    pub lease: i32,
}

/// Where a caller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Lease {
    /// Somebody else does the work.
    Waiting = 0,
    /// The caller does.
    Leading = 1,
    /// The record is there.
    Done = 2,
}

/// What the caller, who leaves, alone has.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TakeOverRequest {
    /// The number of its role.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// Hashes of names whose records are known here, of 32 bytes each. None: that was all, and the caller is gone.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub names: Vec<Vec<u8>>,
}

/// How many blobs of them are here now.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct TakeOverResponse {
    /// Of the names that were given.
    #[prost(uint32, tag = "1")]
    pub taken: u32,
}

/// These runners do not have the blob of a name.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LostRequest {
    /// The hash of the name.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// The numbers of their roles.
    #[prost(uint32, repeated, tag = "2")]
    pub numbers: Vec<u32>,
}

/// Nothing.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LostResponse {}

/// A hash as bytes.
pub(super) fn hash(bytes: &[u8]) -> Option<Hash> {
    bytes.try_into().ok()
}

/// As the Remote Execution API writes it.
pub(super) fn to_digest(digest: &Digest) -> WireDigest {
    WireDigest { hash: digest.hex(), size_bytes: digest.size as i64 }
}

fn from_digest(digest: &WireDigest) -> Option<Digest> {
    Some(Digest { hash: digest::parse_hash(&digest.hash).ok()?, size: digest.size_bytes.try_into().ok()? })
}

/// What `action_digest` is of a name.
pub(super) fn action(name: &Name) -> WireDigest {
    to_digest(&Digest { hash: name.hash(), size: name.name().len() as u64 })
}

/// A record on its way from one runner to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parcel {
    /// As a record's.
    pub(super) version: u64,
    /// As a record's.
    pub(super) cost_ms: u32,
    /// Who has the blob, best first.
    pub(super) holders: Vec<Role>,
    /// What the name is of; nothing, where it is removed.
    pub(super) content: Option<Content>,
}

/// What a name is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) digest: Digest,
    /// The whole blob, where it is short.
    pub(super) bytes: Option<Bytes>,
    pub(super) metadata: Bytes,
}

impl Parcel {
    /// As an action result.
    pub(super) fn write(self, name: &Name) -> ActionResult {
        let slugs: Vec<String> = self.holders.iter().map(|role| role.slug()).collect();
        let timestamp =
            Timestamp { seconds: (self.version / 1_000_000) as i64, nanos: (self.version % 1_000_000 * 1_000) as i32 };
        let metadata = ExecutedActionMetadata {
            worker: slugs.join(","),
            worker_completed_timestamp: Some(timestamp),
            virtual_execution_duration: (self.cost_ms > 0).then(|| Duration {
                seconds: (self.cost_ms / 1000).into(),
                nanos: (self.cost_ms % 1000 * 1_000_000) as i32,
            }),
            ..Default::default()
        };
        let (files, stdout_raw) = self.content.map_or_else(Default::default, |content| {
            let file = OutputFile {
                path: name.name().into(),
                digest: Some(to_digest(&content.digest)),
                contents: content.bytes.map(Vec::from).unwrap_or_default(),
                ..Default::default()
            };
            (vec![file], Vec::from(content.metadata))
        });
        ActionResult { output_files: files, stdout_raw, execution_metadata: Some(metadata), ..Default::default() }
    }

    /// Whether its blob is to be fetched.
    pub(super) fn is_large(&self) -> bool {
        self.content.as_ref().is_some_and(|content| content.bytes.is_none())
    }

    /// Whether it is of a time that a clock which is right, or nearly so, could have: one from far ahead would win for as long.
    pub(super) fn is_timely(&self, now_micros: u64) -> bool {
        self.version <= now_micros.saturating_add(AHEAD)
    }

    /// The opposite; `None` for what is no record. That bytes are those of their digest is not checked here.
    pub(super) fn read(result: ActionResult) -> Option<Self> {
        let metadata = result.execution_metadata?;
        let timestamp = metadata.worker_completed_timestamp?;
        let micros = u64::try_from(timestamp.nanos).ok()? / 1_000;
        let version = u64::try_from(timestamp.seconds).ok()?.checked_mul(1_000_000)?.checked_add(micros)?;
        let cost_ms = metadata.virtual_execution_duration.as_ref().map_or(Some(0), milliseconds)?;
        let slugs = metadata.worker.split(',').filter(|slug| !slug.is_empty());
        let holders = slugs.map(Role::from_slug).collect::<Option<_>>()?;
        let content = match result.output_files.into_iter().next() {
            None => None,
            Some(file) => {
                let digest = from_digest(&file.digest?)?;
                let bytes = (!file.contents.is_empty() || digest.size == 0).then(|| file.contents.into());
                Some(Content { digest, bytes, metadata: result.stdout_raw.into() })
            }
        };
        Some(Self { version, cost_ms, holders, content })
    }
}

fn milliseconds(duration: &Duration) -> Option<u32> {
    let seconds = u32::try_from(duration.seconds).ok()?.checked_mul(1000)?;
    seconds.checked_add(u32::try_from(duration.nanos).ok()? / 1_000_000)
}

/// The name that a record in `namespace` says it has, if it has that hash.
pub(super) fn name(namespace: &str, action: Option<&WireDigest>, path: &str) -> Option<Name> {
    let name = Name::new(namespace, path).ok()?;
    (from_digest(action?)?.hash == name.hash()).then_some(name)
}

/// A blob as ByteStream calls it.
pub(super) fn resource(digest: &Digest, compressed: bool) -> String {
    if compressed { format!("compressed-blobs/zstd/{digest}") } else { format!("blobs/{digest}") }
}

/// The opposite: which blob, and whether compressed.
pub(super) fn parse_resource(name: &str) -> Option<(Digest, bool)> {
    let (rest, compressed) = match name.strip_prefix("compressed-blobs/zstd/") {
        Some(rest) => (rest, true),
        None => (name.strip_prefix("blobs/")?, false),
    };
    Some((Digest::from_str(rest).ok()?, compressed))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn parcel() -> impl Strategy<Value = Parcel> {
        let content = (any::<Hash>(), any::<Vec<u8>>(), any::<Vec<u8>>()).prop_map(|(hash, bytes, metadata)| Content {
            digest: Digest { hash, size: bytes.len() as u64 },
            bytes: Some(bytes.into()),
            metadata: metadata.into(),
        });
        let holders = proptest::collection::vec(0..300_u16, 0..5);
        (0..1_u64 << 60, any::<u32>(), holders, proptest::option::of(content)).prop_map(
            |(version, cost_ms, holders, content)| Parcel {
                version,
                cost_ms,
                holders: holders.into_iter().filter_map(Role::from_number).collect(),
                content,
            },
        )
    }

    #[test]
    fn a_record_from_far_ahead_is_not_timely() {
        let parcel = |version| Parcel { version, cost_ms: 0, holders: vec![], content: None };

        assert!(parcel(AHEAD).is_timely(0) && !parcel(AHEAD + 1).is_timely(0) && parcel(u64::MAX).is_timely(u64::MAX));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(parcel in parcel(), path in ".{1,40}") {
            let name = Name::new("a", path).expect("a name");

            let bytes = parcel.clone().write(&name).encode_to_vec();

            let read = ActionResult::decode(&bytes[..]).ok().and_then(Parcel::read);
            prop_assert_eq!(read, Some(parcel));
            prop_assert_eq!(super::name("a", Some(&action(&name)), name.name()), Some(name.clone()));
            prop_assert_eq!(super::name("b", Some(&action(&name)), name.name()), None, "of another namespace");
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text: String) {
            let _ = ActionResult::decode(&bytes[..]).ok().and_then(Parcel::read);
            let _ = parse_resource(&text);
        }

        #[test]
        fn a_resource_is_of_its_blob(hash: Hash, size: u64, compressed: bool) {
            let digest = Digest { hash, size };

            prop_assert_eq!(parse_resource(&resource(&digest, compressed)), Some((digest, compressed)));
        }
    }
}
