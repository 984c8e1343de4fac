//! Our artifacts read by GitHub's own client, `@actions/artifact`, and its artifacts read by us.

use std::path::PathBuf;
use std::time::Duration;

use mesh::rendezvous::Rendezvous as _;
use netns_tests::fake_github::FakeGithub;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{RUN, entry, github, member};

#[tokio::test]
async fn the_official_client_lists_and_downloads_what_we_publish() {
    let fake = github().await;
    member(&fake, "primary").publish("mesh-1-p", b"sealed").await.expect("published");
    let listed = official(&fake, &["list"]).await;
    let artifact = &listed["artifacts"][0];
    assert_eq!((artifact["name"].as_str(), artifact["size"].as_u64()), (Some("mesh-1-p"), Some(6)), "{listed}");
    let folder = TempDir::new().expect("a scratch folder");
    let (id, digest) = (artifact["id"].to_string(), artifact["digest"].as_str().expect("we sent one"));
    let path = folder.path().to_str().expect("UTF-8");
    let downloaded = official(&fake, &["download", &id, path, digest]).await;
    assert_eq!(downloaded["digestMismatch"].as_bool(), Some(false), "{downloaded}");
    assert_eq!(std::fs::read(folder.path().join("mesh-1-p")).expect("named as the artifact"), b"sealed");
}

#[tokio::test]
async fn we_fetch_what_the_official_client_uploads_raw_or_as_a_zip() {
    let fake = github().await;
    let folder = TempDir::new().expect("a scratch folder");
    let file = folder.path().join("mesh-1-raw");
    std::fs::write(&file, b"sealed").expect("writable");
    let file = file.to_str().expect("UTF-8");
    official(&fake, &["upload-raw", file]).await;
    official(&fake, &["upload", "mesh-1-zip", file]).await;
    let primary = member(&fake, "primary");
    for name in ["mesh-1-raw", "mesh-1-zip"] {
        let listed = entry(&primary, name).await;
        assert_eq!(primary.fetch(&listed).await.expect("fetched"), b"sealed", "{name}");
    }
}

/// One verb of `artifact.mjs`, as another job of the run; its outcome.
async fn official(fake: &FakeGithub, arguments: &[&str]) -> Value {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("official");
    let modules = folder.join("node_modules");
    assert!(modules.is_dir(), "{} is missing: run npm ci --prefix netns-tests/official", modules.display());
    let mut command = Command::new("node");
    command.arg(folder.join("artifact.mjs")).args(arguments).kill_on_drop(true);
    command.env("ACTIONS_RESULTS_URL", format!("{}/", fake.url())).env("GITHUB_WORKSPACE", folder);
    command.env("ACTIONS_RUNTIME_TOKEN", fake.runtime_token(RUN, "official")).env_remove("GITHUB_SERVER_URL");
    for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        command.env_remove(proxy);
    }
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("it ends in time");
    let output = output.expect("node is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}
