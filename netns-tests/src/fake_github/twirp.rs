//! The artifact service over Twirp: `POST /twirp/<service>/<method>` with JSON both ways.
//!
//! Names, texts and statuses follow the Twirp wire protocol v7 and what clients have seen of GitHub. int64 values are
//! JSON strings in answers; answers name fields in snake_case. Not here: the protobuf encoding, which no artifact client uses.

mod messages;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::artifacts::{Artifact, Refusal};
use super::server::Fault;
use super::service::{DOWNLOAD_LIFETIME, Service};
use super::token::{self, Identity};
use messages::{Create, Finalize, List, Named};

pub(super) const SERVICE: &str = "github.actions.results.api.v1.ArtifactService";
/// GitHub keeps an artifact this long when nobody says otherwise.
const RETENTION: Duration = Duration::days(90);
/// The first version whose content may be any file.
const RAW_VERSION: i32 = 7;
const KNOWN_VERSIONS: std::ops::RangeInclusive<i32> = 4..=RAW_VERSION;
const FORBIDDEN_IN_NAMES: &[char] = &['"', ':', '<', '>', '|', '*', '?', '\r', '\n', '\\', '/'];

/// A Twirp error; its status follows from its code.
#[derive(Debug)]
pub(super) struct TwirpError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl TwirpError {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, code: code(status.as_u16()), message: message.into() }
    }

    fn bad_route(message: String) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "bad_route", message }
    }

    fn malformed() -> Self {
        let message = "the json request could not be decoded".to_owned();
        Self { status: StatusCode::BAD_REQUEST, code: "malformed", message }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }
}

fn code(status: u16) -> &'static str {
    match status {
        400 => "invalid_argument",
        401 => "unauthenticated",
        403 => "permission_denied",
        404 => "not_found",
        408 => "deadline_exceeded",
        409 => "already_exists",
        412 => "failed_precondition",
        429 => "resource_exhausted",
        501 => "unimplemented",
        503 => "unavailable",
        500 => "internal",
        _ => "unknown",
    }
}

impl From<Refusal> for TwirpError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::AlreadyExists => Self::new(409, "an artifact with this name already exists on the workflow run"),
            Refusal::NotFound => Self::new(404, "artifact not found"),
        }
    }
}

impl IntoResponse for TwirpError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"code": self.code, "msg": self.message}))).into_response()
    }
}

/// One call, after the envelope was checked.
struct Call<'a> {
    service: &'a Service,
    identity: Identity,
    base: String,
    fault: Fault,
}

pub(super) async fn serve(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    Extension(fault): Extension<Fault>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, TwirpError> {
    check_envelope(&method, &headers)?;
    let identity = authenticate(&service, &headers)?;
    let call = Call { base: service.base(&headers), service: &service, identity, fault };
    let answer = match name.as_str() {
        "CreateArtifact" => call.create(read(&body)?),
        "FinalizeArtifact" => call.finalize(&read(&body)?),
        "ListArtifacts" => call.list(&read(&body)?),
        "GetSignedArtifactURL" => call.signed_url(&read(&body)?),
        "DeleteArtifact" => call.delete(&read(&body)?),
        _ => Err(TwirpError::bad_route(format!("no handler for path \"/twirp/{SERVICE}/{name}\""))),
    };
    answer.map(Json)
}

fn check_envelope(method: &Method, headers: &HeaderMap) -> Result<(), TwirpError> {
    if method != Method::POST {
        return Err(TwirpError::bad_route(format!("unsupported method \"{method}\" (only POST is allowed)")));
    }
    let media = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    let plain = media.split(';').next().unwrap_or_default().trim();
    let known = plain.eq_ignore_ascii_case("application/json");
    known.then_some(()).ok_or_else(|| TwirpError::bad_route(format!("unexpected Content-Type: \"{media}\"")))
}

fn authenticate(service: &Service, headers: &HeaderMap) -> Result<Identity, TwirpError> {
    let identity = token::bearer(headers).and_then(token::identity);
    let known = identity.filter(|identity| service.knows(&identity.run));
    known.ok_or_else(|| TwirpError::new(401, "invalid or expired authentication token"))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, TwirpError> {
    let fields = serde_json::from_slice(body).map_err(|_| TwirpError::malformed())?;
    serde_json::from_value(messages::normalised(fields)).map_err(|_| TwirpError::malformed())
}

impl Call<'_> {
    fn create(&self, request: Create) -> Result<Value, TwirpError> {
        self.check_run(&request.workflow_run_backend_id)?;
        self.check_job(&request.workflow_job_run_backend_id)?;
        check_name(&request.name)?;
        let artifact = self.reservation(request)?;
        let blob = artifact.blob.clone();
        self.service.artifacts().reserve(artifact)?;
        Ok(json!({"ok": true, "signed_upload_url": self.service.upload_url(&self.base, &blob)}))
    }

    fn reservation(&self, request: Create) -> Result<Artifact, TwirpError> {
        if !KNOWN_VERSIONS.contains(&request.version) {
            return Err(TwirpError::invalid(format!("unsupported artifact version {}", request.version)));
        }
        let created_at = OffsetDateTime::now_utc();
        let expires_at = match &request.expires_at {
            None => created_at + RETENTION,
            Some(text) => OffsetDateTime::parse(text, &Rfc3339).map_err(|_| TwirpError::malformed())?,
        };
        Ok(Artifact {
            id: 0,
            blob: blob_path(&self.identity, request.version),
            run: self.identity.run.clone(),
            job: self.identity.job.clone(),
            name: request.name,
            size: 0,
            digest: String::new(),
            mime_type: request.mime_type.unwrap_or_else(|| default_mime_type(request.version).to_owned()),
            version: request.version,
            created_at,
            expires_at,
        })
    }

    fn finalize(&self, request: &Finalize) -> Result<Value, TwirpError> {
        self.check_run(&request.workflow_run_backend_id)?;
        self.check_job(&request.workflow_job_run_backend_id)?;
        let Identity { run, job } = &self.identity;
        if let Some(rule) = self.fault.0.as_ref().filter(|rule| rule.burn) {
            self.service.artifacts().burn(run, job, &request.name)?;
            let message = rule.message.clone().unwrap_or_else(|| "failed to finalize artifact".to_owned());
            return Err(TwirpError::new(rule.status.unwrap_or(500), message));
        }
        let reserved = self.service.artifacts().reserved(run, job, &request.name)?;
        let (size, digest) = self.check_content(&reserved, request)?;
        let id = self.service.artifacts().finalize(&reserved, size, digest)?;
        Ok(json!({"ok": true, "artifact_id": id.to_string()}))
    }

    /// Size and digest of what was uploaded, when they are what the client says.
    fn check_content(&self, reserved: &Artifact, request: &Finalize) -> Result<(u64, String), TwirpError> {
        let content = self.service.blobs().content(&reserved.blob);
        let content = content.ok_or_else(|| TwirpError::invalid("nothing was uploaded for this artifact"))?;
        let (size, digest) = (content.len() as u64, messages::digest(&content));
        if u64::try_from(request.size) != Ok(size) {
            return Err(TwirpError::invalid(format!("size is {}, but {size} bytes were uploaded", request.size)));
        }
        if request.hash.as_ref().is_some_and(|hash| *hash != digest) {
            return Err(TwirpError::invalid("hash is not that of the uploaded content"));
        }
        if reserved.version < RAW_VERSION && !content.starts_with(b"PK") {
            return Err(TwirpError::invalid(format!("an artifact of version {} must be a zip", reserved.version)));
        }
        Ok((size, digest))
    }

    fn list(&self, request: &List) -> Result<Value, TwirpError> {
        self.check_run(&request.workflow_run_backend_id)?;
        let age = self.fault.0.as_ref().and_then(|rule| rule.visible_after).unwrap_or_default();
        let artifacts = self.service.artifacts().list_older_than(&self.identity.run, age);
        let listed = artifacts.iter().filter(|artifact| request.wants(artifact)).map(messages::listed);
        Ok(json!({"artifacts": listed.collect::<Vec<Value>>()}))
    }

    fn signed_url(&self, request: &Named) -> Result<Value, TwirpError> {
        let artifact = self.named(request)?;
        Ok(json!({"signed_url": self.service.download_url(&self.base, &artifact, DOWNLOAD_LIFETIME)}))
    }

    fn delete(&self, request: &Named) -> Result<Value, TwirpError> {
        let artifact = self.named(request)?;
        self.service.artifacts().delete(&artifact);
        self.service.blobs().delete(&artifact.blob);
        Ok(json!({"ok": true, "artifact_id": artifact.id.to_string()}))
    }

    /// The artifact of the job that created it, which need not be the caller's own.
    fn named(&self, request: &Named) -> Result<Artifact, TwirpError> {
        self.check_run(&request.workflow_run_backend_id)?;
        let (run, job) = (&self.identity.run, &request.workflow_job_run_backend_id);
        Ok(self.service.artifacts().finalized(run, job, &request.name)?)
    }

    fn check_run(&self, run: &str) -> Result<(), TwirpError> {
        let own = run == self.identity.run;
        own.then_some(()).ok_or_else(|| TwirpError::new(403, "the token is not one of this workflow run"))
    }

    fn check_job(&self, job: &str) -> Result<(), TwirpError> {
        let own = job == self.identity.job;
        own.then_some(()).ok_or_else(|| TwirpError::new(403, "the token is not one of this workflow job"))
    }
}

fn check_name(name: &str) -> Result<(), TwirpError> {
    let valid = !name.is_empty() && !name.contains(FORBIDDEN_IN_NAMES);
    valid.then_some(()).ok_or_else(|| TwirpError::invalid("name is empty or has one of \" : < > | * ? \\r \\n \\ /"))
}

fn default_mime_type(version: i32) -> &'static str {
    if version < RAW_VERSION { "application/zip" } else { "application/octet-stream" }
}

/// A path that says nothing of the name; only that of an old zip ends in `.zip`, by which clients know to unpack it.
/// What `job` would have left after creating, uploading and finalizing; nothing where the name is taken.
pub(super) fn plant(service: &Service, run: &str, job: &str, name: &str, content: &[u8]) {
    let identity = Identity { run: run.to_owned(), job: job.to_owned() };
    let created_at = OffsetDateTime::now_utc();
    let artifact = Artifact {
        id: 0,
        blob: blob_path(&identity, RAW_VERSION),
        run: identity.run,
        job: identity.job,
        name: name.to_owned(),
        size: 0,
        digest: String::new(),
        mime_type: default_mime_type(RAW_VERSION).to_owned(),
        version: RAW_VERSION,
        created_at,
        expires_at: created_at + RETENTION,
    };
    if service.artifacts().reserve(artifact.clone()).is_ok() {
        service.blobs().put(&artifact.blob, Bytes::copy_from_slice(content));
        let digest = messages::digest(content);
        let _ = service.artifacts().finalize(&artifact, content.len() as u64, digest);
    }
}

fn blob_path(identity: &Identity, version: i32) -> String {
    let (run, job) = (super::signing::percent_encoded(&identity.run), super::signing::percent_encoded(&identity.job));
    let ending = if version < RAW_VERSION { ".zip" } else { "" };
    format!("{run}/workflow-job-run-{job}/artifacts/{:032x}{ending}", rand::random::<u128>())
}
