//! How tools speak to the cache: HTTP on this machine's loopback, each protocol a file that says what a path names. A token of the run is asked of everyone.
//! Not here: what is found ([`super::Cache`]), and what gRPC carries ([`super::reapi`]).

mod bazel;
mod body;
mod ccache;
pub mod client;
mod holding;
mod metrics;
mod named;
mod prompt;
mod serve;
mod turn;
mod webdav;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};

use self::body::Body;
use super::Cache;
use super::reapi::Reapi;
use super::store::{Error, Name};
use super::token::{Grant, Tokens};
use crate::proto::digest::Hash;

/// What nobody may exceed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once, and calls of gRPC in all of them; more wait.
    pub connections: usize,
    /// For a request's head to come, for each piece of its body, and for whoever asked to take a piece of the answer.
    pub patience: Duration,
}

/// What a path names in a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// A name, of whatever bytes are put there.
    Entry(String),
    /// A name that is the SHA-256 of what may be put there.
    Content(Hash, String),
    /// What has to exist so that something may be put below it, and always does.
    Folder,
}

/// A protocol: the first part of its paths, and what the rest names; `None` for what names nothing.
struct Front {
    name: &'static str,
    target: fn(&str) -> Option<Target>,
    /// Whether what begins so took work to make, and not only says where that is.
    is_work: fn(&[u8]) -> bool,
}

const FRONTS: [Front; 4] = [ccache::FRONT, bazel::FRONT, webdav::FRONT, named::FRONT];

/// The protocols over one cache.
#[derive(Debug, Clone)]
pub struct Fronts {
    cache: Arc<Cache>,
    tokens: Tokens,
    limits: Limits,
    reapi: Reapi,
}

type Answer = Response<Body>;

impl Fronts {
    /// For the bearers of these tokens.
    pub fn new(cache: Arc<Cache>, tokens: Tokens, limits: Limits) -> Self {
        let reapi = Reapi::new(Arc::clone(&cache), limits.connections, limits.patience);
        Self { cache, tokens, limits, reapi }
    }

    async fn answer(&self, grant: Option<Grant>, request: Request<Incoming>) -> Answer {
        let Some(grant) = grant else { return unauthorized() };
        let path = request.uri().path();
        if path == metrics::PATH {
            return metrics::answer(request.method(), &self.cache);
        }
        let found = FRONTS.iter().find_map(|front| Some((front, below(path, front.name)?)));
        let Some((front, rest)) = found else { return say(StatusCode::NOT_FOUND, "there is no such protocol here") };
        match (front.target)(rest) {
            None => say(StatusCode::BAD_REQUEST, "the path names nothing that is kept here"),
            Some(Target::Folder) => webdav::folder(request.method(), path),
            Some(Target::Entry(name)) => self.entry(front, &grant, name, None, request).await,
            Some(Target::Content(hash, name)) => self.entry(front, &grant, name, Some(hash), request).await,
        }
    }

    async fn entry(
        &self,
        front: &Front,
        grant: &Grant,
        name: String,
        hash: Option<Hash>,
        request: Request<Incoming>,
    ) -> Answer {
        let Ok(name) = Name::new(format!("{}.{}", front.name, grant.namespace()), name) else {
            return say(StatusCode::URI_TOO_LONG, "the name is too long");
        };
        let writes = [Method::PUT, Method::DELETE, Method::POST].contains(request.method());
        if writes && !grant.writes() {
            return say(StatusCode::FORBIDDEN, "this token may only read");
        }
        match *request.method() {
            Method::GET => self.get(&name).await,
            Method::HEAD => self.head(&name).await,
            Method::PUT => self.put(front, &name, hash, request).await,
            Method::DELETE if self.cache.remove(&name).await => status(StatusCode::NO_CONTENT),
            Method::DELETE => status(StatusCode::NOT_FOUND),
            Method::POST if front.name == named::FRONT.name => turn::answer(&self.cache, name).await,
            _ if request.method().as_str() == "PROPFIND" => {
                webdav::entry(request.uri().path(), self.cache.peek(&[name]).await.pop().flatten())
            }
            _ => not_allowed("GET, HEAD, PUT, DELETE, PROPFIND"),
        }
    }

    async fn get(&self, name: &Name) -> Answer {
        let found = self.cache.find(name).await;
        let body = found.and_then(|(_, blob)| Body::blob(Arc::clone(&self.cache), blob));
        body.map_or_else(|| status(StatusCode::NOT_FOUND), carry)
    }

    async fn head(&self, name: &Name) -> Answer {
        match self.cache.peek(std::slice::from_ref(name)).await.pop().flatten() {
            Some(digest) => carry(Body::of_size(digest.size)),
            None => status(StatusCode::NOT_FOUND),
        }
    }

    async fn put(&self, front: &Front, name: &Name, hash: Option<Hash>, request: Request<Incoming>) -> Answer {
        let largest = self.cache.largest();
        if request.body().size_hint().lower() > largest {
            return refuse(&Error::TooLarge { most: largest });
        }
        let mut incoming = self.cache.incoming();
        let (mut body, mut is_work) = (request.into_body(), true);
        loop {
            match tokio::time::timeout(self.limits.patience, body.frame()).await {
                Err(_) => return say(StatusCode::REQUEST_TIMEOUT, "nothing came for too long"),
                Ok(Some(Err(_))) => return say(StatusCode::BAD_REQUEST, "the body broke off"),
                Ok(None) => break,
                Ok(Some(Ok(frame))) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    if incoming.is_empty() {
                        is_work = (front.is_work)(&bytes);
                    }
                    if let Err(error) = incoming.write(&bytes) {
                        return refuse(&error);
                    }
                }
            }
        }
        if hash.is_none() && incoming.is_empty() {
            return say(StatusCode::BAD_REQUEST, "an empty body is nobody's result");
        }
        let stored = incoming.finish_as(hash).and_then(|digest| self.cache.set(name, digest, Bytes::new(), is_work));
        match stored {
            Ok(true) => status(StatusCode::CREATED),
            Ok(false) => status(StatusCode::NO_CONTENT),
            Err(error) => refuse(&error),
        }
    }
}

/// The rest of a path below `/first/`.
fn below<'a>(path: &'a str, first: &str) -> Option<&'a str> {
    path.strip_prefix('/')?.strip_prefix(first)?.strip_prefix('/')
}

fn carry(body: Body) -> Answer {
    let size = body.size();
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size));
    answer
}

fn status(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::default());
    *answer.status_mut() = status;
    answer
}

fn say(status: StatusCode, what: impl Into<String>) -> Answer {
    let mut answer = Response::new(Body::text(what.into() + "\n"));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

fn unauthorized() -> Answer {
    let mut answer =
        say(StatusCode::UNAUTHORIZED, "the token of this run is missing; hint: `mesh cache env` prints it");
    // Who has no token shall not hold a place.
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"mesh\", Bearer"));
    answer
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = status(StatusCode::METHOD_NOT_ALLOWED);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn refuse(error: &Error) -> Answer {
    let status = match error {
        Error::Mismatch { .. } | Error::Metadata => StatusCode::BAD_REQUEST,
        Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
        Error::InUse(_) | Error::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    tracing::debug!(%error, %status, "the cache refused a write");
    say(status, error.to_string())
}

#[cfg(test)]
mod tests;
