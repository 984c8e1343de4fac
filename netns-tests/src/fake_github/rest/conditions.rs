//! What REST demands of every request and tells with every answer: user agent, token, budget, ETag.
//!
//! Not here: the budget's own arithmetic ([`super::super::rate`]).

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, USER_AGENT, VARY};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use super::super::service::Service;
use super::super::token;
use super::RestError;

/// Answers are lists of artifacts; one of this size means that something is wrong.
const MAX_ANSWER_BYTES: usize = 64 << 20;

pub(super) async fn check(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let mut response = match admit(&service, request.headers()) {
        Ok(()) => conditional(&service, request, next).await,
        Err(error) => error.into_response(),
    };
    service.rate().write(response.headers_mut());
    response
}

fn admit(service: &Service, headers: &HeaderMap) -> Result<(), RestError> {
    let agent = headers.get(USER_AGENT).map_or(0, HeaderValue::len);
    if agent == 0 {
        let message =
            "Request forbidden by administrative rules. Please make sure your request has a User-Agent header";
        return Err(RestError::new(StatusCode::FORBIDDEN, message));
    }
    let unauthorized = |message| RestError::new(StatusCode::UNAUTHORIZED, message);
    let token = token::bearer(headers).ok_or_else(|| unauthorized("Requires authentication"))?;
    if service.options.rest_token.as_ref().is_some_and(|known| known != token) {
        return Err(unauthorized("Bad credentials"));
    }
    let left = service.rate().has_left();
    left.then_some(()).ok_or_else(|| RestError::new(StatusCode::FORBIDDEN, "API rate limit exceeded"))
}

/// The answer, or 304 and no charge when the client has it already.
async fn conditional(service: &Service, request: Request, next: Next) -> Response {
    let known = request.headers().get(IF_NONE_MATCH).cloned();
    let is_get = request.method() == Method::GET;
    let response = next.run(request).await;
    let response = if is_get && response.status() == StatusCode::OK { tagged(response, known).await } else { response };
    if response.status() != StatusCode::NOT_MODIFIED {
        service.rate().charge();
    }
    response
}

async fn tagged(response: Response, known: Option<HeaderValue>) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(body) = to_bytes(body, MAX_ANSWER_BYTES).await else {
        return RestError::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer is too large").into_response();
    };
    let hex: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    let etag = format!("W/\"{hex}\"");
    let is_known = known.and_then(|known| known.to_str().map(|known| matches(known, &etag)).ok()).unwrap_or(false);
    parts.headers.extend([
        (CACHE_CONTROL, HeaderValue::from_static("private, max-age=60, s-maxage=60")),
        (VARY, HeaderValue::from_static("Accept, Authorization, Cookie, X-GitHub-OTP")),
    ]);
    parts.headers.extend(HeaderValue::from_str(&etag).ok().map(|etag| (ETAG, etag)));
    if is_known {
        return (StatusCode::NOT_MODIFIED, parts.headers).into_response();
    }
    Response::from_parts(parts, Body::from(body))
}

/// RFC 9110, section 13.1.2: the comparison is weak.
fn matches(known: &str, etag: &str) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    known.split(',').any(|tag| tag.trim() == "*" || bare(tag) == bare(etag))
}
