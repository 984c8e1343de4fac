//! Connections, and what happens to every request around its route: faults, the log, ids.
//!
//! hyper is driven directly because a fault may end a connection without an answer, which axum's own server never does.
//! Not here: the routes.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{AUTHORIZATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::blob::{self, BlobError};
use super::faults::Rule;
use super::log::LogEntry;
use super::route::{Family, Route};
use super::service::Service;
use super::signing::CONTAINER;
use super::token;
use super::twirp::{self, TwirpError};
use super::{control, rest};

/// The fault of a request, for the routes that carry out their own.
#[derive(Clone, Debug)]
pub(super) struct Fault(pub(super) Option<Rule>);

/// Marks an answer that is not to be sent.
#[derive(Clone, Debug)]
struct Dropped;

pub(super) fn router(service: Arc<Service>) -> Router {
    let twirp = format!("/twirp/{}/{{method}}", twirp::SERVICE);
    let blobs = format!("/{CONTAINER}/{{*path}}");
    Router::new()
        .route(&twirp, any(twirp::serve))
        .route(&blobs, get(blob::get).put(blob::put).layer(DefaultBodyLimit::disable()))
        .merge(rest::router(&service))
        .layer(middleware::from_fn_with_state(Arc::clone(&service), observe))
        .merge(control::router())
        .with_state(service)
}

/// Applies the fault of a request, if there is one, and logs how it ended.
async fn observe(State(service): State<Arc<Service>>, mut request: Request, next: Next) -> Response {
    let mut entry = entry(&request);
    let rule = service.faults.take(entry.route, entry.job.as_deref());
    request.extensions_mut().insert(Fault(rule.clone()));
    let mut response = match rule {
        Some(rule) => break_request(entry.route, &rule, request, next).await,
        None => next.run(request).await,
    };
    let dropped = response.extensions().get::<Dropped>().is_some();
    entry.status = (!dropped).then(|| response.status().as_u16());
    service.log.push(entry);
    response.headers_mut().extend(request_ids());
    response
}

async fn break_request(route: Route, rule: &Rule, request: Request, next: Next) -> Response {
    if let Some(delay) = rule.delay {
        tokio::time::sleep(delay).await;
    }
    if rule.after || !fails_before(rule) {
        let answer = next.run(request).await;
        if !rule.after {
            return answer;
        }
    }
    failure(route, rule)
}

/// A name is burnt by its own route, which also answers.
fn fails_before(rule: &Rule) -> bool {
    rule.drop || (rule.status.is_some() && !rule.burn)
}

fn failure(route: Route, rule: &Rule) -> Response {
    if rule.drop {
        return Extension(Dropped).into_response();
    }
    let status = rule.status.and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let message = rule.message.clone();
    let mut response = match route.family() {
        Family::Twirp => TwirpError::new(status.as_u16(), message.unwrap_or_else(|| reason(status))).into_response(),
        Family::Blob => BlobError::of_status(status, message).into_response(),
        Family::Rest => rest::RestError::new(status, message.unwrap_or_else(|| reason(status))).into_response(),
    };
    if let Some(wait) = rule.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    response
}

fn reason(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or("error").to_owned()
}

fn entry(request: &Request) -> LogEntry {
    let path = request.uri().path();
    let route = Route::of(request.method(), path);
    let (run, job) = sender(path, request.headers());
    let authorization = request.headers().contains_key(AUTHORIZATION);
    LogEntry {
        route,
        method: request.method().to_string(),
        path: path.to_owned(),
        status: None,
        run,
        job,
        authorization,
    }
}

/// The run and the job of a request: from its token, else from its path.
fn sender(path: &str, headers: &HeaderMap) -> (Option<String>, Option<String>) {
    if let Some(identity) = token::bearer(headers).and_then(token::identity) {
        return (Some(identity.run), Some(identity.job));
    }
    match path.trim_start_matches('/').split('/').collect::<Vec<&str>>().as_slice() {
        [CONTAINER, run, job, ..] => {
            (Some((*run).to_owned()), job.strip_prefix("workflow-job-run-").map(str::to_owned))
        }
        ["repos", _, _, "actions", "runs", run, ..] => (Some((*run).to_owned()), None),
        _ => (None, None),
    }
}

/// go-actions-cache crashes without `x-ms-request-id`, so every answer has both.
fn request_ids() -> [(HeaderName, HeaderValue); 2] {
    let id = format!("{:032x}", rand::random::<u128>());
    let value = HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("0"));
    ["x-ms-request-id", "x-github-request-id"].map(|name| (HeaderName::from_static(name), value.clone()))
}

pub(super) async fn accept_tcp(listener: TcpListener, router: Router) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                connections.spawn(serve(stream, router.clone()));
            }
            Err(error) => refused(&error).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

pub(super) async fn accept_unix(listener: UnixListener, router: Router) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, router.clone()));
            }
            Err(error) => refused(&error).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// accept fails when there are no more file descriptors; a connection that ends gives one back.
async fn refused(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, router: Router) {
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move { unless_dropped(router.oneshot(request.map(Body::new)).await) }
    });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// hyper closes a connection whose service fails, and sends nothing.
fn unless_dropped(answer: Result<Response, Infallible>) -> io::Result<Response> {
    let Ok(response) = answer;
    match response.extensions().get::<Dropped>() {
        Some(Dropped) => Err(io::Error::other("dropped by a fault")),
        None => Ok(response),
    }
}
