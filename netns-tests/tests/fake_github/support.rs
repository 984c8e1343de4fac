//! A fake GitHub with a plain HTTP client in front of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use netns_tests::fake_github::{FakeGithub, Options};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

/// A number, so that REST knows the run as well.
pub const RUN: &str = "4711";
pub const JOB: &str = "job-a";
const SERVICE: &str = "twirp/github.actions.results.api.v1.ArtifactService";

pub fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A client that follows no redirect and never repeats a request on its own.
pub fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder().no_proxy().pool_max_idle_per_host(0).redirect(reqwest::redirect::Policy::none());
    builder.timeout(Duration::from_secs(20)).build().expect("a client without TLS needs nothing")
}

pub fn official_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("official")
}

/// Panics unless `npm ci` was run: these judges must not go missing unnoticed.
pub fn require_node_modules() {
    let modules = official_folder().join("node_modules");
    assert!(modules.is_dir(), "{} is missing: run npm ci --prefix netns-tests/official", modules.display());
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub async fn read(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, body: response.bytes().await.expect("the body arrives").to_vec() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("the body is UTF-8")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are ASCII"))
    }
}

pub struct Rig {
    pub fake: FakeGithub,
    pub http: Client,
}

impl Rig {
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> Self {
        let fake = FakeGithub::start_with(loopback(), options).await.expect("a free port on loopback");
        Self { fake, http: client() }
    }

    /// Calls the artifact service as [`JOB`] of [`RUN`], with both ids filled in.
    pub async fn call(&self, method: &str, fields: Value) -> Answer {
        self.call_as(JOB, method, fields).await
    }

    pub async fn call_as(&self, job: &str, method: &str, fields: Value) -> Answer {
        let token = self.fake.runtime_token(RUN, job);
        let mut message = json!({"workflow_run_backend_id": RUN, "workflow_job_run_backend_id": job});
        let both = message.as_object_mut().expect("an object");
        both.extend(fields.as_object().expect("fields are an object").clone());
        self.post(method, Some(&token), &message.to_string()).await
    }

    pub async fn post(&self, method: &str, token: Option<&str>, body: &str) -> Answer {
        let url = format!("{}/{SERVICE}/{method}", self.fake.url());
        let request = self.http.post(url).header("content-type", "application/json").body(body.to_owned());
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        Answer::read(request.send().await.expect("the server answers")).await
    }

    /// Reserves `name` for a raw file and returns its upload URL.
    pub async fn create(&self, name: &str) -> String {
        let answer = self.call("CreateArtifact", json!({"name": name, "version": 7, "mime_type": "text/plain"})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["signed_upload_url"].as_str().expect("a URL").to_owned()
    }

    pub async fn put(&self, url: &str, content: &[u8]) -> Answer {
        let request = self.http.put(url).header("x-ms-blob-type", "BlockBlob").body(content.to_vec());
        Answer::read(request.send().await.expect("the server answers")).await
    }

    /// A PUT without `x-ms-blob-type`, as blocks and block lists are sent.
    pub async fn put_part(&self, url: &str, content: &[u8]) -> Answer {
        Answer::read(self.http.put(url).body(content.to_vec()).send().await.expect("the server answers")).await
    }

    pub async fn fetch(&self, url: &str) -> Answer {
        Answer::read(self.http.get(url).send().await.expect("the server answers")).await
    }

    pub async fn finalize(&self, name: &str, size: usize) -> Answer {
        self.call("FinalizeArtifact", json!({"name": name, "size": size.to_string()})).await
    }

    /// Publishes a raw file as [`JOB`] and returns its id.
    pub async fn publish(&self, name: &str, content: &[u8]) -> u64 {
        let url = self.create(name).await;
        assert_eq!(self.put(&url, content).await.status, 201);
        let answer = self.finalize(name, content.len()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["artifact_id"].as_str().and_then(|id| id.parse().ok()).expect("ids are numbers in strings")
    }

    pub async fn names(&self) -> Vec<String> {
        let answer = self.call("ListArtifacts", json!({})).await.json();
        let artifacts = answer["artifacts"].as_array().expect("a list");
        artifacts.iter().map(|artifact| artifact["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// A download URL of an artifact that [`JOB`] created.
    pub async fn signed_url(&self, name: &str) -> String {
        let answer = self.call("GetSignedArtifactURL", json!({"name": name})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["signed_url"].as_str().expect("a URL").to_owned()
    }

    /// A request to REST below the repository's `/actions`, as a client with good manners sends it.
    pub fn rest(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/repos/o/r/actions/{path}", self.fake.url());
        self.http.request(method, url).header("user-agent", "mesh-tests").bearer_auth("ghs_any")
    }

    pub async fn rest_get(&self, path: &str) -> Answer {
        Answer::read(self.rest(Method::GET, path).send().await.expect("the server answers")).await
    }
}
