//! What this server can do: a cache of blobs by SHA-256 and of actions' results, and nothing is executed.

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::build::bazel::semver::SemVer;
use tonic::{Request, Response, Status};

use super::{Desk, LARGEST_BATCH};

/// The oldest and the newest version of the API that is spoken. Bazel 4 asks for the oldest.
const VERSIONS: [(i32, i32); 2] = [(2, 0), (2, 3)];

#[tonic::async_trait]
impl api::capabilities_server::Capabilities for Desk {
    async fn get_capabilities(
        &self,
        _: Request<api::GetCapabilitiesRequest>,
    ) -> Result<Response<api::ServerCapabilities>, Status> {
        let [oldest, newest] =
            VERSIONS.map(|(major, minor)| Some(SemVer { major, minor, patch: 0, prerelease: String::new() }));
        Ok(Response::new(api::ServerCapabilities {
            cache_capabilities: Some(self.cache_capabilities()),
            low_api_version: oldest,
            high_api_version: newest,
            ..Default::default()
        }))
    }
}

impl Desk {
    fn cache_capabilities(&self) -> api::CacheCapabilities {
        let update_enabled = self.grant.writes();
        let zstd = vec![api::compressor::Value::Zstd as i32];
        api::CacheCapabilities {
            digest_functions: vec![api::digest_function::Value::Sha256 as i32],
            action_cache_update_capabilities: Some(api::ActionCacheUpdateCapabilities { update_enabled }),
            max_batch_total_size_bytes: LARGEST_BATCH as i64,
            symlink_absolute_path_strategy: api::symlink_absolute_path_strategy::Value::Allowed as i32,
            supported_compressors: zstd.clone(),
            supported_batch_update_compressors: zstd,
            max_cas_blob_size_bytes: self.cache.largest() as i64,
            ..Default::default()
        }
    }
}
