//! `ActionCache`: what an action resulted in, by the digest of the action. Only what is complete is given out.

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bytes::Bytes;
use prost::Message as _;
use tonic::{Request, Response, Status};

use self::api::action_cache_server::ActionCache;
use super::{Desk, digests, read_all, refuse};
use crate::cache::store::Name;

/// Of a result as bytes: what clients take by default (gRPC's limit of a message).
const LARGEST_RESULT: usize = 4 << 20;

/// Contents that are given with a result, together: what saves a round trip, and still fits into a message.
const LARGEST_INLINE: usize = 1 << 20;

#[tonic::async_trait]
impl ActionCache for Desk {
    async fn get_action_result(
        &self,
        request: Request<api::GetActionResultRequest>,
    ) -> Result<Response<api::ActionResult>, Status> {
        let asked = request.into_inner();
        let name = self.action(&asked.instance_name, asked.digest_function, asked.action_digest.as_ref())?;
        let missing = || Status::not_found("there is no result of this action");
        let mut result = self.result(&name).await.ok_or_else(missing)?;
        if !self.is_complete(&result).await {
            return Err(Status::not_found("some of what this action resulted in is gone"));
        }
        self.inline(&mut result, &asked).await;
        Ok(Response::new(result))
    }

    async fn update_action_result(
        &self,
        request: Request<api::UpdateActionResultRequest>,
    ) -> Result<Response<api::ActionResult>, Status> {
        self.may_write()?;
        let asked = request.into_inner();
        let name = self.action(&asked.instance_name, asked.digest_function, asked.action_digest.as_ref())?;
        let result = asked.action_result.ok_or_else(|| Status::invalid_argument("the result is missing"))?;
        let bytes = result.encode_to_vec();
        if bytes.len() > LARGEST_RESULT {
            return Err(Status::invalid_argument(format!("a result of more than {LARGEST_RESULT} bytes")));
        }
        let mut incoming = self.cache.incoming();
        let stored = incoming.write(&bytes).and_then(|()| incoming.finish(None));
        let named = stored.and_then(|digest| self.cache.set(&name, digest, Bytes::new(), true));
        named.map_err(|error| refuse(&error))?;
        Ok(Response::new(result))
    }
}

impl Desk {
    fn action(&self, instance: &str, function: i32, digest: Option<&api::Digest>) -> Result<Name, Status> {
        digests::check(instance, function)?;
        digests::action(self.grant.namespace(), instance, &digests::required(digest)?)
    }

    /// What was stored, if it is a result: by way of HTTP it may be anything.
    async fn result(&self, name: &Name) -> Option<api::ActionResult> {
        let (record, blob) = self.cache.find(name).await?;
        if record.digest.size > LARGEST_RESULT as u64 {
            return None;
        }
        api::ActionResult::decode(read_all(&self.cache, &blob)?).ok()
    }

    /// Puts the contents into the result that were asked for, while they are small.
    async fn inline(&self, result: &mut api::ActionResult, asked: &api::GetActionResultRequest) {
        let mut left = LARGEST_INLINE.min(LARGEST_RESULT.saturating_sub(result.encoded_len()));
        if asked.inline_stdout {
            self.fill(&mut result.stdout_raw, result.stdout_digest.as_ref(), &mut left).await;
        }
        if asked.inline_stderr {
            self.fill(&mut result.stderr_raw, result.stderr_digest.as_ref(), &mut left).await;
        }
        for file in &mut result.output_files {
            if asked.inline_output_files.contains(&file.path) {
                self.fill(&mut file.contents, file.digest.as_ref(), &mut left).await;
            }
        }
    }

    async fn fill(&self, contents: &mut Vec<u8>, digest: Option<&api::Digest>, left: &mut usize) {
        let digest = digest.and_then(|digest| digests::read(digest).ok());
        let fitting = digest.filter(|digest| contents.is_empty() && digest.size <= *left as u64);
        if let Some(digest) = fitting
            && let Some(bytes) = self.content(&digest).await
        {
            *left -= bytes.len();
            *contents = bytes.into();
        }
    }
}
