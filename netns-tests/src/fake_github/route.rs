//! The routes by name, as faults and the log speak of them.
//!
//! Not here: what a route does.

use axum::http::Method;
use serde::{Deserialize, Serialize};

use super::twirp;

/// A route that can be broken and is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Route {
    /// Artifact service: reserve a name and hand out an upload URL.
    CreateArtifact,
    /// Blob side: Put Blob, Put Block and Put Block List alike.
    Upload,
    /// Artifact service: check what was uploaded and make it visible.
    FinalizeArtifact,
    /// Artifact service: the finalized artifacts of the run.
    ListArtifacts,
    /// Artifact service: a download URL.
    #[serde(rename = "GetSignedArtifactURL")]
    GetSignedArtifactUrl,
    /// Artifact service: delete by name.
    DeleteArtifact,
    /// Blob side: GET and HEAD.
    Download,
    /// REST: `GET /repos/{owner}/{repo}/actions/runs/{run_id}/artifacts`.
    RestList,
    /// REST: `GET /repos/{owner}/{repo}/actions/artifacts/{id}`.
    RestGet,
    /// REST: `DELETE /repos/{owner}/{repo}/actions/artifacts/{id}`.
    RestDelete,
    /// REST: `GET /repos/{owner}/{repo}/actions/artifacts/{id}/zip`, the redirect alone.
    RestDownload,
    /// Anything else.
    Unknown,
}

/// Which protocol's errors a route answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Twirp,
    Blob,
    Rest,
}

impl Route {
    pub(super) fn of(method: &Method, path: &str) -> Self {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method.as_str(), segments.as_slice()) {
            (_, ["twirp", twirp::SERVICE, name]) => Self::of_twirp(name),
            ("PUT", ["actions-results", ..]) => Self::Upload,
            ("GET" | "HEAD", ["actions-results", ..]) => Self::Download,
            ("GET", ["repos", _, _, "actions", "runs", _, "artifacts"]) => Self::RestList,
            ("GET", ["repos", _, _, "actions", "artifacts", _]) => Self::RestGet,
            ("DELETE", ["repos", _, _, "actions", "artifacts", _]) => Self::RestDelete,
            ("GET", ["repos", _, _, "actions", "artifacts", _, "zip"]) => Self::RestDownload,
            _ => Self::Unknown,
        }
    }

    fn of_twirp(name: &str) -> Self {
        match name {
            "CreateArtifact" => Self::CreateArtifact,
            "FinalizeArtifact" => Self::FinalizeArtifact,
            "ListArtifacts" => Self::ListArtifacts,
            "GetSignedArtifactURL" => Self::GetSignedArtifactUrl,
            "DeleteArtifact" => Self::DeleteArtifact,
            _ => Self::Unknown,
        }
    }

    pub(super) fn family(self) -> Family {
        match self {
            Self::Upload | Self::Download => Family::Blob,
            Self::RestList | Self::RestGet | Self::RestDelete | Self::RestDownload | Self::Unknown => Family::Rest,
            _ => Family::Twirp,
        }
    }

    /// Whether this route answers with a list of artifacts.
    pub(super) fn lists(self) -> bool {
        matches!(self, Self::ListArtifacts | Self::RestList)
    }
}
