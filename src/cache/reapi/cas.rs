//! `ContentAddressableStorage`: which blobs are missing, small ones by the batch, and folders with all that is below them. Not here: large blobs
//! ([`super::bytestream`]).

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::rpc;
use bytes::Bytes;
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status, Streaming};

use self::api::content_addressable_storage_server::ContentAddressableStorage;
use self::api::{batch_read_blobs_response as read_batch, batch_update_blobs_response as update_batch};
use super::upload::refuse_compressed;
use super::{Desk, LARGEST_BATCH, digests, refuse};
use crate::cache::compression::{Expander, compress};
use crate::proto::digest::Digest;

const IDENTITY: i32 = api::compressor::Value::Identity as i32;
const ZSTD: i32 = api::compressor::Value::Zstd as i32;

/// Folders in one message of a tree.
const FOLDERS: usize = 1000;

#[tonic::async_trait]
impl ContentAddressableStorage for Desk {
    async fn find_missing_blobs(
        &self,
        request: Request<api::FindMissingBlobsRequest>,
    ) -> Result<Response<api::FindMissingBlobsResponse>, Status> {
        let mut asked = request.into_inner();
        digests::check(&asked.instance_name, asked.digest_function)?;
        let wanted = asked.blob_digests.iter().map(digests::read).collect::<Result<Vec<_>, _>>()?;
        let mut present = self.present(&wanted).await.into_iter();
        asked.blob_digests.retain(|_| present.next() != Some(true));
        Ok(Response::new(api::FindMissingBlobsResponse { missing_blob_digests: asked.blob_digests }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<api::BatchUpdateBlobsRequest>,
    ) -> Result<Response<api::BatchUpdateBlobsResponse>, Status> {
        self.may_write()?;
        let asked = request.into_inner();
        digests::check(&asked.instance_name, asked.digest_function)?;
        check_batch(asked.requests.iter().map(|blob| blob.data.len() as u64))?;
        let store = |blob: api::batch_update_blobs_request::Request| {
            let stored = digests::required(blob.digest.as_ref())
                .and_then(|digest| self.store(&digest, &blob.data, blob.compressor));
            update_batch::Response { digest: blob.digest, status: Some(told(stored.err())) }
        };
        let responses = asked.requests.into_iter().map(store).collect();
        Ok(Response::new(api::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<api::BatchReadBlobsRequest>,
    ) -> Result<Response<api::BatchReadBlobsResponse>, Status> {
        let asked = request.into_inner();
        digests::check(&asked.instance_name, asked.digest_function)?;
        let wanted = asked.digests.iter().map(digests::read).collect::<Result<Vec<_>, _>>()?;
        check_batch(wanted.iter().map(|digest| digest.size))?;
        let compresses = asked.acceptable_compressors.contains(&ZSTD);
        let found = self.contents(&wanted).await.into_iter().zip(asked.digests);
        let responses = found.map(|(bytes, digest)| carry(digest, bytes, compresses)).collect();
        Ok(Response::new(api::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = BoxStream<api::GetTreeResponse>;

    async fn get_tree(&self, request: Request<api::GetTreeRequest>) -> Result<Response<Self::GetTreeStream>, Status> {
        let asked = request.into_inner();
        digests::check(&asked.instance_name, asked.digest_function)?;
        if !asked.page_token.is_empty() {
            return Err(Status::invalid_argument("a tree is given as a whole: no page_token is from here"));
        }
        let (folders, _) = self.walk(digests::required(asked.root_digest.as_ref())?).await?;
        let message = |part: &[api::Directory]| {
            Ok(api::GetTreeResponse { directories: part.to_vec(), next_page_token: String::new() })
        };
        let messages: Vec<_> = folders.chunks(FOLDERS).map(message).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn split_blob(&self, _: Request<api::SplitBlobRequest>) -> Result<Response<api::SplitBlobResponse>, Status> {
        Err(whole())
    }

    type GetChunkMappingStream = BoxStream<api::GetChunkMappingResponse>;

    async fn get_chunk_mapping(
        &self,
        _: Request<api::GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(whole())
    }

    async fn splice_blob(
        &self,
        _: Request<api::SpliceBlobRequest>,
    ) -> Result<Response<api::SpliceBlobResponse>, Status> {
        Err(whole())
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<api::RegisterChunkMappingRequest>>,
    ) -> Result<Response<api::RegisterChunkMappingResponse>, Status> {
        Err(whole())
    }
}

impl Desk {
    fn store(&self, digest: &Digest, bytes: &[u8], compressor: i32) -> Result<(), Status> {
        let mut incoming = self.cache.incoming();
        match compressor {
            IDENTITY => incoming.write(bytes).map_err(|error| refuse(&error))?,
            ZSTD => {
                let expander = Expander::new(digest.size).map_err(|error| Status::internal(error.to_string()));
                let mut expander = expander?;
                let expanded = expander.write(bytes, |bytes| incoming.write(bytes));
                expanded.and_then(|()| expander.finish()).map_err(refuse_compressed)?;
            }
            _ => return Err(Status::invalid_argument("the only compressor here is ZSTD")),
        }
        incoming.finish(Some(digest)).map_err(|error| refuse(&error))?;
        self.keep(digest)
    }
}

fn whole() -> Status {
    Status::unimplemented("blobs are stored whole here")
}

fn check_batch(mut sizes: impl Iterator<Item = u64>) -> Result<(), Status> {
    let total = sizes.try_fold(0_u64, |total, size| total.checked_add(size).filter(|total| *total <= LARGEST_BATCH));
    let refused = || {
        Status::invalid_argument(format!(
            "more than {LARGEST_BATCH} bytes in a batch; hint: ByteStream takes and gives what is larger"
        ))
    };
    total.map(drop).ok_or_else(refused)
}

fn carry(digest: api::Digest, bytes: Option<Bytes>, compresses: bool) -> read_batch::Response {
    let Some(bytes) = bytes else {
        let status = Some(told(Some(Status::not_found("there is no such blob"))));
        return read_batch::Response { digest: Some(digest), status, ..Default::default() };
    };
    let packed = compresses.then(|| compress(&bytes).ok()).flatten().filter(|packed| packed.len() < bytes.len());
    let compressor = if packed.is_some() { ZSTD } else { IDENTITY };
    let data = packed.unwrap_or_else(|| bytes.into());
    read_batch::Response { digest: Some(digest), data, compressor, status: Some(told(None)) }
}

/// As it is told of one blob of many.
fn told(status: Option<Status>) -> rpc::Status {
    let code = status.as_ref().map_or(Code::Ok, Status::code) as i32;
    rpc::Status { code, message: status.map(|status| status.message().to_owned()).unwrap_or_default(), details: vec![] }
}
