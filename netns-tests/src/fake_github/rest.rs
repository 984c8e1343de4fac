//! The REST routes of artifacts: list, get, delete, and the redirect to a download.
//!
//! Any owner and repository will do. Not here: workflow jobs, and uploads, which REST does not have.

mod conditions;
mod page;

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::header::{LINK, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router, middleware};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::artifacts::Artifact;
use super::server::Fault;
use super::service::{REST_LIFETIME, Service};
use page::ListQuery;

/// An error as GitHub's REST API words it.
#[derive(Debug)]
pub(super) struct RestError {
    status: StatusCode,
    message: String,
}

impl RestError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not Found")
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let body = json!({
            "message": self.message,
            "documentation_url": "https://docs.github.com/rest",
            "status": self.status.as_str(),
        });
        (self.status, Json(body)).into_response()
    }
}

pub(super) fn router(service: &Arc<Service>) -> Router<Arc<Service>> {
    Router::new()
        .route("/repos/{owner}/{repo}/actions/runs/{run}/artifacts", get(list))
        .route("/repos/{owner}/{repo}/actions/artifacts/{id}", get(one).delete(delete))
        .route("/repos/{owner}/{repo}/actions/artifacts/{id}/{format}", get(download))
        .fallback(async || RestError::not_found())
        .layer(middleware::from_fn_with_state(Arc::clone(service), conditions::check))
}

/// Where a repository's artifacts are: what every URL in an answer begins with.
struct Repository {
    url: String,
}

impl Repository {
    fn new(service: &Service, headers: &HeaderMap, owner: &str, repo: &str) -> Self {
        Self { url: format!("{}/repos/{owner}/{repo}", service.base(headers)) }
    }

    fn artifact(&self, artifact: &Artifact) -> Value {
        let url = format!("{}/actions/artifacts/{}", self.url, artifact.id);
        let stamp = |at: OffsetDateTime| at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default();
        json!({
            "id": artifact.id,
            "node_id": format!("MDg6QXJ0aWZhY3Q{}", artifact.id),
            "name": artifact.name,
            "size_in_bytes": artifact.size,
            "url": url,
            "archive_download_url": format!("{url}/zip"),
            "expired": artifact.has_expired(),
            "created_at": stamp(artifact.created_at),
            "updated_at": stamp(artifact.created_at),
            "expires_at": stamp(artifact.expires_at),
            "digest": artifact.digest,
            "workflow_run": workflow_run(artifact),
        })
    }
}

fn workflow_run(artifact: &Artifact) -> Option<Value> {
    let run: u64 = artifact.run.parse().ok()?;
    Some(json!({
        "id": run,
        "repository_id": 123,
        "head_repository_id": 123,
        "head_branch": "main",
        "head_sha": "0000000000000000000000000000000000000000",
    }))
}

async fn list(
    State(service): State<Arc<Service>>,
    Path((owner, repo, run)): Path<(String, String, String)>,
    Query(query): Query<ListQuery>,
    Extension(fault): Extension<Fault>,
    headers: HeaderMap,
) -> Result<Response, RestError> {
    if run.parse::<u64>().is_err() || !service.knows(&run) {
        return Err(RestError::not_found());
    }
    let age = fault.0.and_then(|rule| rule.visible_after).unwrap_or_default();
    let artifacts = query.select(service.artifacts().list_older_than(&run, age));
    let repository = Repository::new(&service, &headers, &owner, &repo);
    let page: Vec<Value> = query.page(&artifacts).iter().map(|artifact| repository.artifact(artifact)).collect();
    let body = Json(json!({"total_count": artifacts.len(), "artifacts": page}));
    let url = format!("{}/actions/runs/{run}/artifacts", repository.url);
    Ok(match query.link(&url, artifacts.len()) {
        Some(link) => ([(LINK, link)], body).into_response(),
        None => body.into_response(),
    })
}

async fn one(
    State(service): State<Arc<Service>>,
    Path((owner, repo, id)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, RestError> {
    let artifact = find(&service, &id)?;
    Ok(Json(Repository::new(&service, &headers, &owner, &repo).artifact(&artifact)))
}

async fn delete(
    State(service): State<Arc<Service>>,
    Path((_, _, id)): Path<(String, String, String)>,
) -> Result<StatusCode, RestError> {
    let artifact = find(&service, &id)?;
    service.artifacts().delete(&artifact);
    service.blobs().delete(&artifact.blob);
    Ok(StatusCode::NO_CONTENT)
}

async fn download(
    State(service): State<Arc<Service>>,
    Path((_, _, id, format)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, RestError> {
    if format != "zip" {
        return Err(RestError::not_found());
    }
    let artifact = find(&service, &id)?;
    if artifact.has_expired() {
        return Err(RestError::new(StatusCode::GONE, "Artifact has expired"));
    }
    let url = service.download_url(&service.base(&headers), &artifact, REST_LIFETIME);
    Ok((StatusCode::FOUND, [(LOCATION, url)]).into_response())
}

fn find(service: &Service, id: &str) -> Result<Artifact, RestError> {
    let found = id.parse().ok().and_then(|id| service.artifacts().with_id(id));
    found.ok_or_else(RestError::not_found)
}
