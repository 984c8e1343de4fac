//! `google.bytestream.ByteStream`: blobs of any size, piece by piece. An upload that breaks off leaves nothing to go on from.

use bazel_remote_apis::google::bytestream::byte_stream_server::ByteStream;
use bazel_remote_apis::google::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, WriteRequest, WriteResponse,
};
use bytes::Bytes;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::download::Feed;
use super::resource::{Form, Resource};
use super::upload::Upload;
use super::{Desk, refuse};
use crate::proto::digest::Digest;

#[tonic::async_trait]
impl ByteStream for Desk {
    type ReadStream = Feed;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Feed>, Status> {
        let asked = request.into_inner();
        let resource = parse(&asked.resource_name)?;
        let range = range(&asked, &resource)?;
        let feed = match resource.digest {
            Digest::EMPTY => Feed::once(Bytes::new(), resource.form),
            digest => {
                let missing = || Status::not_found(format!("there is no blob {digest}"));
                Feed::start(self, self.find(&digest).await.ok_or_else(missing)?, range, resource.form)
            }
        };
        feed.map(Response::new)
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        let committed_size = self.upload(request.into_inner()).await?;
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        let resource = to_write(&request.into_inner().resource_name)?;
        let complete = self.present(&[resource.digest]).await == [true];
        let committed_size = if complete { resource.digest.size as i64 } else { 0 };
        Ok(Response::new(QueryWriteStatusResponse { committed_size, complete }))
    }
}

impl Desk {
    /// Takes messages until one is the last. What is told of the size.
    pub(super) async fn upload(
        &self,
        mut messages: impl Stream<Item = Result<WriteRequest, Status>> + Unpin,
    ) -> Result<i64, Status> {
        self.may_write()?;
        let first = messages.next().await.transpose()?;
        let mut message = first.ok_or_else(|| Status::invalid_argument("an upload of no message"))?;
        let resource = to_write(&message.resource_name)?;
        if self.present(&[resource.digest]).await == [true] {
            return Ok(if resource.form == Form::Zstd { -1 } else { resource.digest.size as i64 });
        }
        let mut upload = Upload::start(&self.cache, &resource, message.resource_name.clone())?;
        while !upload.take(&message)? {
            let next = messages.next().await.transpose()?;
            message = next.ok_or_else(|| Status::invalid_argument("the upload ended without finish_write"))?;
        }
        let committed = upload.finish()?;
        self.keep(&resource.digest)?;
        Ok(committed as i64)
    }

    /// From now on the blob is found in this namespace.
    pub(super) fn keep(&self, digest: &Digest) -> Result<(), Status> {
        self.cache.set(&self.name(digest), *digest, Bytes::new(), false).map(drop).map_err(|error| refuse(&error))
    }
}

fn parse(name: &str) -> Result<Resource, Status> {
    name.parse().map_err(|why| Status::invalid_argument(format!("`{name:.300}`: {why}")))
}

fn to_write(name: &str) -> Result<Resource, Status> {
    let resource = parse(name)?;
    let missing = || Status::invalid_argument("what is written is named uploads/UUID/blobs/HASH/SIZE");
    resource.upload.is_some().then_some(resource).ok_or_else(missing)
}

/// Which bytes are asked for, from and to.
fn range(asked: &ReadRequest, resource: &Resource) -> Result<(u64, u64), Status> {
    let size = resource.digest.size;
    let at = u64::try_from(asked.read_offset).ok().filter(|at| *at <= size);
    let at = at.ok_or_else(|| Status::out_of_range(format!("offset {} of {size} bytes", asked.read_offset)))?;
    match (u64::try_from(asked.read_limit), resource.form) {
        (Ok(0), _) => Ok((at, size)),
        (Ok(limit), Form::Plain) => Ok((at, at.saturating_add(limit).min(size))),
        (Ok(_), Form::Zstd) => Err(Status::invalid_argument("read_limit of a compressed blob has to be 0")),
        (Err(_), _) => Err(Status::invalid_argument(format!("read_limit is {}", asked.read_limit))),
    }
}
