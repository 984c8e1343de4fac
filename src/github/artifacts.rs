//! The artifact service of the running workflow: Twirp over JSON, one request per call. Bytes do not pass here but through
//! [`super::blob`]; nothing is tried twice here.
//!
//! To publish: [`create`](ArtifactService::create), upload to the URL it gave, [`finalize`](ArtifactService::finalize). A name that
//! was created and not finalized is taken for the rest of the run.

mod wire;

use reqwest::header::HeaderMap;
use reqwest::{Client, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use super::config::Service;
use super::error::{Error, Kind};
use super::http;
use super::token::BackendIds;

pub use wire::Artifact;

/// A listing of 500 artifacts (the most one job may make) takes about 200 KiB; a matrix of 256 jobs does not make them all.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// What the service says when the account's storage is used up, with a 403 (the official client looks for the same words).
const QUOTA_MARK: &str = "insufficient usage";

/// The service, as one job of one run.
#[derive(Debug, Clone)]
pub struct ArtifactService {
    http: Client,
    service: Service,
}

impl ArtifactService {
    /// A client for `service`; nothing is sent yet.
    pub fn new(http: Client, service: Service) -> Self {
        Self { http, service }
    }

    /// Takes `name` and gives the signed URL to upload to. The artifact is raw, not a zip (`version` 7 with a MIME type).
    pub async fn create(&self, name: &str, expires_at: OffsetDateTime) -> Result<Url, Error> {
        let what = format!("create artifact {name}");
        let request = wire::Create::new(&self.service.ids, name, expires_at);
        let answer: wire::Created = self.call("CreateArtifact", &what, &request).await?;
        if !answer.ok {
            return Err(Error::passing(format!("{what}: the service answered `ok: false`")));
        }
        signed(&what, &answer.signed_upload_url)
    }

    /// Makes an uploaded artifact visible and gives its id. `sha256` is in hex, over the bytes as uploaded.
    pub async fn finalize(&self, name: &str, size: u64, sha256: &str) -> Result<u64, Error> {
        let what = format!("finalize artifact {name}");
        let request = wire::Finalize::new(&self.service.ids, name, size, sha256);
        let answer: wire::Finalized = self.call("FinalizeArtifact", &what, &request).await?;
        if !answer.ok {
            return Err(Error::passing(format!("{what}: the service answered `ok: false`")));
        }
        Ok(answer.artifact_id)
    }

    /// Every finalized artifact of the run, of all its jobs. An item that cannot be read is skipped and counted.
    pub async fn list(&self) -> Result<Vec<Artifact>, Error> {
        let answer: wire::List =
            self.call("ListArtifacts", "list artifacts", &wire::Of::run(&self.service.ids)).await?;
        let count = answer.artifacts.len();
        let artifacts: Vec<_> =
            answer.artifacts.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect();
        if artifacts.len() < count {
            tracing::debug!(skipped = count - artifacts.len(), "unreadable items in the artifact listing");
        }
        Ok(artifacts)
    }

    /// The signed URL to download `name` from. `owner` is the job that made it, as listed; not our own.
    pub async fn signed_url(&self, owner: &BackendIds, name: &str) -> Result<Url, Error> {
        let what = format!("find artifact {name}");
        let answer: wire::Signed = self.call("GetSignedArtifactURL", &what, &wire::Of::artifact(owner, name)).await?;
        signed(&what, &answer.signed_url)
    }

    /// Deletes an artifact of this very job. Its name stays taken.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let what = format!("delete artifact {name}");
        let request = wire::Of::artifact(&self.service.ids, name);
        let answer: wire::Deleted = self.call("DeleteArtifact", &what, &request).await?;
        if answer.ok { Ok(()) } else { Err(Error::passing(format!("{what}: the service answered `ok: false`"))) }
    }

    async fn call<A: DeserializeOwned>(
        &self,
        method: &str,
        what: &str,
        request: &(impl Serialize + Sync),
    ) -> Result<A, Error> {
        let mut url = self.service.origin.clone();
        url.set_path(&format!("twirp/github.actions.results.api.v1.ArtifactService/{method}"));
        let sent = self.http.post(url).bearer_auth(self.service.token.expose()).json(request).send().await;
        let response = sent.map_err(|e| http::network(what, e))?;
        if !response.status().is_success() {
            return Err(quota(http::failure(response, what, explain).await));
        }
        let body = http::body(response, MAX_ANSWER, what).await?;
        parse(&body).map_err(|e| Error::passing(format!("{what}: the answer cannot be read: {e}")))
    }
}

/// An answer is a JSON object. A list would be taken for one field after the other.
fn parse<A: DeserializeOwned>(body: &[u8]) -> serde_json::Result<A> {
    let object: serde_json::Map<_, _> = serde_json::from_slice(body)?;
    serde_json::from_value(object.into())
}

fn signed(what: &str, text: &str) -> Result<Url, Error> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| Error::passing(format!("{what}: the service gave no signed URL")))
}

/// The `msg` of a Twirp error, else the body as it is: a proxy answers in words of its own.
fn explain(_: &HeaderMap, body: &[u8]) -> String {
    let twirp = serde_json::from_slice::<wire::Failure>(body).ok();
    twirp.map(|failure| failure.msg).unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}

fn quota(error: Error) -> Error {
    let is_quota = error.what.to_ascii_lowercase().contains(QUOTA_MARK);
    if is_quota { Error { kind: Kind::Quota, ..error } } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twirp_error_is_explained_by_its_message_and_others_by_their_body() {
        let headers = HeaderMap::new();
        assert_eq!(explain(&headers, br#"{"code":"already_exists","msg":"taken"}"#), "taken");
        assert_eq!(explain(&headers, b"<h1>Bad gateway</h1>"), "<h1>Bad gateway</h1>");
        assert_eq!(explain(&headers, br#"{"other":1}"#), r#"{"other":1}"#);
    }

    #[test]
    fn a_used_up_quota_is_told_from_a_403() {
        let told = quota(Error::new(Kind::Forbidden, "create artifact x: 403 Forbidden: Insufficient usage to create"));
        assert_eq!(told.kind, Kind::Quota);
        let plain = quota(Error::new(Kind::Forbidden, "create artifact x: 403 Forbidden"));
        assert_eq!(plain.kind, Kind::Forbidden);
    }

    #[test]
    fn a_signed_url_that_is_none_is_a_passing_failure_without_the_text() {
        for text in ["", "nonsense sig=abc", "file:///etc/passwd"] {
            let error = signed("create artifact x", text).expect_err("no http URL");
            assert_eq!(error.kind, Kind::Passing);
            assert!(!error.what.contains("abc"), "{error}");
        }
    }
}
