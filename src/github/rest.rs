//! Artifacts of a run by the public REST API: the way to read when the artifact service does not answer. The one file that names
//! octocrab. Each listing costs the repository's hourly budget, so nothing here is for polling while the service works.
//!
//! octocrab's own artifact models, download and client are not used: they fail a whole page for one missing date and have no digest,
//! read a body of any length, and go by another name and another TLS stack.

use std::sync::Mutex;
use std::time::Duration;

use octocrab::service::middleware::auth_header::AuthHeaderLayer;
use octocrab::service::middleware::base_uri::BaseUriLayer;
use octocrab::service::middleware::reqwest_connector::ReqwestConnector;
use octocrab::{AuthState, FromResponse as _, Octocrab, OctocrabBuilder, Page};
use reqwest::header::{ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LOCATION};
use reqwest::{Client, Url};
use serde::Deserialize;
use time::OffsetDateTime;

use super::config::Rest as Config;
use super::error::{Error, Kind};
use super::http;

/// The most that one page holds.
const PER_PAGE: usize = 100;

/// The official client stops at 1,000 artifacts of a run too.
const MAX_PAGES: usize = 10;

/// What GitHub asks for after a secondary rate limit that names no time.
const SECONDARY_WAIT: Duration = Duration::from_secs(60);

/// The artifacts of one run.
#[derive(Debug)]
pub struct Rest {
    octocrab: Octocrab,
    config: Config,
    unchanged: Mutex<Option<(HeaderValue, Vec<Artifact>)>>,
}

/// One artifact, as listed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Artifact {
    /// The same number as `database_id` in the artifact service.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Bytes as uploaded.
    #[serde(default)]
    pub size_in_bytes: u64,
    /// `sha256:` and hex; absent for artifacts of old clients.
    #[serde(default)]
    pub digest: Option<String>,
    /// Its bytes are gone.
    #[serde(default)]
    pub expired: bool,
}

impl Rest {
    /// A client over `http`, which must not follow redirects. Needs a running tokio runtime; nothing is sent yet.
    pub fn new(http: Client, config: Config) -> Result<Self, Error> {
        let unusable = || Error::new(Kind::Unusable, format!("cannot set up REST at {}", config.base));
        let base = || config.base.as_str().parse().map_err(|_| unusable());
        let bearer = format!("Bearer {}", config.token.expose()).parse().map_err(|_| unusable())?;
        let Ok(octocrab) = OctocrabBuilder::new_empty()
            .with_service(ReqwestConnector::new(http))
            .with_layer(&BaseUriLayer::new(base()?))
            .with_layer(&AuthHeaderLayer::new(Some(bearer), base()?, base()?))
            .with_auth(AuthState::None)
            .build();
        Ok(Self { octocrab, config, unchanged: Mutex::new(None) })
    }

    /// The artifacts of the run that have not expired, of all its attempts; at most 1,000.
    pub async fn list(&self) -> Result<Vec<Artifact>, Error> {
        let mut all = Vec::new();
        for page in 1..=MAX_PAGES {
            let Some((mut items, more, etag)) = self.page(page).await? else {
                return Ok(self.remembered());
            };
            all.append(&mut items);
            if !more {
                all.retain(|artifact: &Artifact| !artifact.expired);
                self.remember(etag.filter(|_| page == 1), &all);
                return Ok(all);
            }
        }
        tracing::debug!(listed = all.len(), "the run has more artifacts than are listed");
        all.retain(|artifact| !artifact.expired);
        Ok(all)
    }

    /// The signed URL to download an artifact from; it is valid for a minute.
    pub async fn signed_url(&self, id: u64) -> Result<Url, Error> {
        let what = format!("find artifact {id} by REST");
        let Config { owner, repo, .. } = &self.config;
        let route = format!("/repos/{owner}/{repo}/actions/artifacts/{id}/zip");
        let response = self.octocrab._get(route).await.map_err(|e| error(&what, e))?;
        if response.status().is_redirection() {
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let url = location.and_then(|location| self.config.base.join(location).ok());
            return url.ok_or_else(|| Error::passing(format!("{what}: a redirect to nowhere")));
        }
        let status = response.status();
        octocrab::map_github_error(response).await.map_err(|e| error(&what, e))?;
        Err(Error::new(Kind::Unusable, format!("{what}: {status} where a redirect belongs")))
    }

    /// One page, whether another follows, and its tag; `None` if page 1 is what was remembered.
    async fn page(&self, page: usize) -> Result<Option<(Vec<Artifact>, bool, Option<HeaderValue>)>, Error> {
        let what = "list artifacts by REST";
        let Config { owner, repo, run, .. } = &self.config;
        let route = format!("/repos/{owner}/{repo}/actions/runs/{run}/artifacts?per_page={PER_PAGE}&page={page}");
        let headers = self.condition(page);
        let response = self.octocrab._get_with_headers(route, Some(headers)).await.map_err(|e| error(what, e))?;
        if response.status().as_u16() == 304 {
            return Ok(None);
        }
        let response = octocrab::map_github_error(response).await.map_err(|e| error(what, e))?;
        let etag = response.headers().get(ETAG).cloned();
        let items: Page<serde_json::Value> = Page::from_response(response).await.map_err(|e| error(what, e))?;
        let more = items.next.is_some();
        Ok(Some((items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect(), more, etag)))
    }

    /// An unchanged page costs nothing of the budget. Only a listing of one page is remembered: of a longer one another page
    /// may have changed.
    fn condition(&self, page: usize) -> HeaderMap {
        let unchanged = self.unchanged.lock().expect("no panic while it is held");
        let tag = unchanged.as_ref().filter(|_| page == 1).map(|(etag, _)| (IF_NONE_MATCH, etag.clone()));
        tag.into_iter().collect()
    }

    fn remember(&self, etag: Option<HeaderValue>, artifacts: &[Artifact]) {
        let mut unchanged = self.unchanged.lock().expect("no panic while it is held");
        *unchanged = etag.map(|etag| (etag, artifacts.to_vec()));
    }

    fn remembered(&self) -> Vec<Artifact> {
        let unchanged = self.unchanged.lock().expect("no panic while it is held");
        unchanged.as_ref().map(|(_, artifacts)| artifacts.clone()).unwrap_or_default()
    }
}

fn error(what: &str, error: octocrab::Error) -> Error {
    match error {
        octocrab::Error::GitHub { source, .. } => {
            let headers = source.headers.clone().unwrap_or_default();
            answered(what, source.status_code.as_u16(), &source.message, &headers, OffsetDateTime::now_utc())
        }
        octocrab::Error::Service { source, .. } => {
            Error::passing(format!("{what}: {}", http::excerpt(&chain(&*source))))
        }
        other => Error::passing(format!("{what}: {}", http::excerpt(&chain(&other)))),
    }
}

/// An error that GitHub answered. A used up budget comes as 403 or 429, with the time of its renewal or with a wait.
fn answered(what: &str, status: u16, message: &str, headers: &HeaderMap, now: OffsetDateTime) -> Error {
    let what = format!("{what}: {status}: {}", http::excerpt(message));
    let exhausted = header(headers, "x-ratelimit-remaining") == Some(0);
    let secondary = message.to_ascii_lowercase().contains("secondary rate limit");
    let wait = http::retry_after(headers, now);
    let limited = matches!(status, 403 | 429) && (exhausted || secondary || wait.is_some());
    if !limited {
        return Error { what, kind: Kind::of_status(status), after: wait };
    }
    let reset = header(headers, "x-ratelimit-reset").filter(|_| exhausted);
    let reset = reset.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()).map(|at| http::until(at, now));
    Error { what, kind: Kind::Passing, after: wait.or(reset).or(Some(SECONDARY_WAIT)) }
}

fn header(headers: &HeaderMap, name: &str) -> Option<i64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let parts = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    parts.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_up_budget_is_told_from_a_missing_permission() {
        let now = OffsetDateTime::from_unix_timestamp(1000).expect("1970");
        let spent = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1090")];
        let cases = [
            (403, "API rate limit exceeded", &spent[..], Kind::Passing, Some(90)),
            (403, "You have exceeded a secondary rate limit", &[], Kind::Passing, Some(60)),
            (403, "Slow down", &[("retry-after", "5")], Kind::Passing, Some(5)),
            (429, "Too many", &[], Kind::Passing, None),
            (403, "Resource not accessible by integration", &[("x-ratelimit-remaining", "9")], Kind::Forbidden, None),
            (404, "Not Found", &[], Kind::Missing, None),
            (502, "Bad gateway", &[], Kind::Passing, None),
        ];
        for (status, message, headers, kind, after) in cases {
            let error = answered("list", status, message, &of(headers), now);
            assert_eq!((error.kind, error.after), (kind, after.map(Duration::from_secs)), "{error}");
        }
    }

    #[test]
    fn dates_and_digests_may_be_absent() {
        let json = r#"{"id":7,"name":"mesh-x","size_in_bytes":12,"expires_at":null,"workflow_run":null,"digest":null}"#;
        let artifact: Artifact = serde_json::from_str(json).expect("lenient");
        assert_eq!(
            artifact,
            Artifact { id: 7, name: "mesh-x".into(), size_in_bytes: 12, digest: None, expired: false }
        );
    }

    fn of(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &'static str)| {
            (reqwest::header::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        headers.iter().map(header).collect()
    }
}
