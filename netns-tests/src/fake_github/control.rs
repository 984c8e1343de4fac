//! The server's own routes below `/_fake`: faults, the log, and tokens. They are neither logged nor broken.
//!
//! Not here: what a rule means ([`super::faults`]).

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::faults::Rule;
use super::service::Service;

pub(super) fn router() -> Router<Arc<Service>> {
    Router::new()
        .route("/_fake/faults", post(add_faults).delete(clear_faults))
        .route("/_fake/log", get(log))
        .route("/_fake/token", get(token))
}

async fn add_faults(State(service): State<Arc<Service>>, body: String) -> Response {
    let refused = |why: String| (StatusCode::BAD_REQUEST, format!("bad list of faults: {why}\n")).into_response();
    match serde_json::from_str::<Vec<Rule>>(&body) {
        Err(error) => refused(error.to_string()),
        Ok(rules) => match service.faults.add(rules) {
            Err(error) => refused(error.to_string()),
            Ok(()) => StatusCode::NO_CONTENT.into_response(),
        },
    }
}

async fn clear_faults(State(service): State<Arc<Service>>) -> StatusCode {
    service.faults.clear();
    StatusCode::NO_CONTENT
}

async fn log(State(service): State<Arc<Service>>) -> impl IntoResponse {
    let lines = service.log.entries().into_iter().filter_map(|entry| serde_json::to_string(&entry).ok());
    let text: String = lines.map(|line| line + "\n").collect();
    ([(CONTENT_TYPE, "application/jsonl")], text)
}

#[derive(Deserialize)]
struct Whose {
    run: String,
    job: String,
}

async fn token(State(service): State<Arc<Service>>, Query(Whose { run, job }): Query<Whose>) -> Response {
    let whole = |id: &str| !id.is_empty() && !id.contains([':', ' ']);
    if whole(&run) && whole(&job) {
        return service.runtime_token(&run, &job).into_response();
    }
    (StatusCode::BAD_REQUEST, "run and job may be neither empty nor have a colon or a space\n").into_response()
}
