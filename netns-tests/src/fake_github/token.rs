//! Runtime tokens: unsigned JWTs whose scope names the run and the job.
//!
//! Not here: which runs exist ([`super::artifacts`]) and the tokens of REST ([`super::rest`]).

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use time::OffsetDateTime;

/// The life of a hosted job, after which GitHub's own tokens expire.
const LIFETIME_SECONDS: i64 = 6 * 3600;
/// Room for clocks that disagree.
const BACKDATED_SECONDS: i64 = 300;

/// The job that a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) run: String,
    pub(super) job: String,
}

/// A runtime token with the claims that known clients read.
pub(super) fn mint(run: &str, job: &str) -> String {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let claims = json!({
        "iss": "https://token.actions.githubusercontent.com",
        "scp": format!("Actions.GenericRead:{run} Actions.Results:{run}:{job}"),
        "ac": r#"[{"Scope":"refs/heads/main","Permission":3}]"#,
        "repository_id": "123",
        "nbf": now - BACKDATED_SECONDS,
        "exp": now + LIFETIME_SECONDS,
    });
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    format!("{}.{}.{}", part(&json!({"typ": "JWT", "alg": "HS256"})), part(&claims), URL_SAFE_NO_PAD.encode("unsigned"))
}

/// The token of an `Authorization: Bearer` or `token` header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token");
    (known && !token.trim().is_empty()).then(|| token.trim())
}

/// Whom a runtime token speaks for; nobody when it is malformed, has no scope for results, or has expired.
pub(super) fn identity(token: &str) -> Option<Identity> {
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?).ok()?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    if claims["exp"].as_i64().is_some_and(|expiry| expiry <= now) {
        return None;
    }
    let scope = claims["scp"].as_str()?.split(' ').find_map(|scope| scope.strip_prefix("Actions.Results:"))?;
    let (run, job) = scope.split_once(':')?;
    let whole = !run.is_empty() && !job.is_empty() && !job.contains(':');
    whole.then(|| Identity { run: run.to_owned(), job: job.to_owned() })
}
