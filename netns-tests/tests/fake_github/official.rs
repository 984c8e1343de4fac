//! GitHub's own client, `@actions/artifact`, against the fake: its artifact service, its blobs and, by octokit, its REST.

use std::path::Path;
use std::time::Duration;

use netns_tests::fake_github::{Route, Rule};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{JOB, RUN, Rig, official_folder, require_node_modules};

/// Node alone takes seconds to load the client on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn the_official_client_uploads_lists_and_downloads_both_kinds_of_artifact() {
    let node = Node::start().await;
    let zip = node.ok(&["upload", "zipped", &node.file("a.txt", "in a zip")]).await;
    let raw = node.ok(&["upload-raw", &node.file("raw.bin", "as it is")]).await;
    let digest = |upload: &Value| format!("sha256:{}", upload["digest"].as_str().expect("a digest"));

    let listed = node.ok(&["list"]).await;
    let zip_download = node.download("download", &zip, &digest(&zip)).await;
    let raw_download = node.download("download", &raw, &digest(&raw)).await;

    let summary =
        |index: usize| (listed["artifacts"][index]["name"].clone(), listed["artifacts"][index]["digest"].clone());
    assert_eq!(summary(0), (json!("zipped"), json!(digest(&zip))));
    assert_eq!(summary(1), (json!("raw.bin"), json!(digest(&raw))));
    assert_eq!((&zip_download["digestMismatch"], node.downloaded("a.txt")), (&json!(false), "in a zip".to_owned()));
    assert_eq!((&raw_download["digestMismatch"], node.downloaded("raw.bin")), (&json!(false), "as it is".to_owned()));
}

#[tokio::test]
async fn the_official_client_names_a_duplicate() {
    let node = Node::start().await;
    let file = node.file("raw.bin", "as it is");
    node.ok(&["upload-raw", &file]).await;

    let refused = node.fails(&["upload-raw", &file]).await;

    let expected = "(409) Conflict: an artifact with this name already exists on the workflow run";
    assert!(refused.contains(expected), "{refused}");
}

#[tokio::test]
async fn the_official_client_gets_and_deletes_by_name() {
    let node = Node::start().await;
    let upload = node.ok(&["upload", "zipped", &node.file("a.txt", "in a zip")]).await;

    let got = node.ok(&["get", "zipped"]).await;
    let deleted = node.ok(&["delete", "zipped"]).await;
    let missing = node.fails(&["get", "zipped"]).await;

    assert_eq!((&got["artifact"]["id"], &got["artifact"]["size"]), (&upload["id"], &upload["size"]));
    assert_eq!(deleted["id"], upload["id"]);
    assert!(missing.contains("Artifact not found for name: zipped"), "{missing}");
}

#[tokio::test]
async fn the_official_client_finds_downloads_and_deletes_over_rest() {
    let node = Node::start().await;
    let upload = node.ok(&["upload-raw", &node.file("raw.bin", "as it is")]).await;
    let digest = format!("sha256:{}", upload["digest"].as_str().expect("a digest"));

    let listed = node.ok(&["rest-list"]).await;
    let got = node.ok(&["rest-get", "raw.bin"]).await;
    let download = node.download("rest-download", &upload, &digest).await;
    node.ok(&["rest-delete", "raw.bin"]).await;

    assert_eq!((&listed["artifacts"][0]["digest"], &got["artifact"]["digest"]), (&json!(digest), &json!(digest)));
    assert_eq!((&download["digestMismatch"], node.downloaded("raw.bin")), (&json!(false), "as it is".to_owned()));
    assert_eq!(node.rig.fake.artifacts(RUN).len(), 0);
}

#[tokio::test]
async fn the_official_client_sees_a_tampered_download_and_outlives_a_short_outage() {
    let node = Node::start().await;
    let upload = node.ok(&["upload-raw", &node.file("raw.bin", "as it is")]).await;
    let digest = format!("sha256:{}", upload["digest"].as_str().expect("a digest"));
    let outage = Rule { status: Some(503), times: Some(1), ..Rule::on(Route::ListArtifacts) };
    let tamper = netns_tests::fake_github::Tamper::Flip;
    let rules = [outage, Rule { tamper: Some(tamper), ..Rule::on(Route::Download) }];
    node.rig.fake.faults().add(rules).expect("the rules are good");

    let download = node.download("download", &upload, &digest).await;

    assert_eq!(download["digestMismatch"], true);
}

struct Node {
    rig: Rig,
    folder: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        require_node_modules();
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { rig: Rig::start().await, folder }
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("the folder is writable");
        text(&path)
    }

    fn downloaded(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join("out").join(name)).expect("the client wrote the file")
    }

    async fn download(&self, verb: &str, upload: &Value, digest: &str) -> Value {
        let out = text(&self.folder.path().join("out"));
        self.ok(&[verb, &upload["id"].to_string(), &out, digest]).await
    }

    async fn ok(&self, arguments: &[&str]) -> Value {
        let (success, outcome, errors) = self.run(arguments).await;
        assert!(success, "{arguments:?}: {outcome}\n{errors}");
        outcome
    }

    /// The text of the error that the client throws.
    async fn fails(&self, arguments: &[&str]) -> String {
        let (success, outcome, errors) = self.run(arguments).await;
        assert!(!success, "{arguments:?}: {outcome}\n{errors}");
        outcome["message"].as_str().expect("an error has a message").to_owned()
    }

    async fn run(&self, arguments: &[&str]) -> (bool, Value, String) {
        let output = timeout(PATIENCE, self.command(arguments).output()).await.expect("the client ends in time");
        let output = output.expect("node is installed");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let outcome = serde_json::from_slice(&output.stdout);
        (output.status.success(), outcome.unwrap_or_else(|_| panic!("no outcome\n{errors}")), errors)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let url = self.rig.fake.url();
        let mut command = Command::new("node");
        command.arg(official_folder().join("artifact.mjs")).args(arguments).kill_on_drop(true);
        command.env("ACTIONS_RESULTS_URL", format!("{url}/"));
        command.env("ACTIONS_RUNTIME_TOKEN", self.rig.fake.runtime_token(RUN, JOB));
        command.env("GITHUB_WORKSPACE", self.folder.path());
        command.env("GITHUB_API_URL", url).env("FIND_TOKEN", "ghs_any").env("FIND_RUN", RUN);
        command.env("FIND_OWNER", "o").env("FIND_REPO", "r");
        for foreign in ["GITHUB_SERVER_URL", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(foreign);
        }
        command
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("temporary folders are UTF-8").to_owned()
}
