//! Debian's `gh` against the REST side, over a unix socket: it speaks plain HTTP nowhere else.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{RUN, Rig};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn gh_lists_all_pages_of_a_run_and_downloads_an_artifact() {
    let gh = Gh::start().await;
    for number in 0..3 {
        gh.rig.publish(&format!("ep-{number}"), format!("hello {number}").as_bytes()).await;
    }
    let path = format!("repos/o/r/actions/runs/{RUN}/artifacts?per_page=1");

    let names = gh.api(&["--paginate", &path, "--jq", ".artifacts[].name"]).await;
    let id = gh.api(&[&path, "--jq", ".artifacts[0].id"]).await;
    let content = gh.api(&[&format!("repos/o/r/actions/artifacts/{}/zip", id.trim())]).await;

    assert_eq!(names.lines().collect::<Vec<&str>>(), ["ep-2", "ep-1", "ep-0"]);
    assert_eq!(content, "hello 2");
}

#[tokio::test]
async fn gh_deletes_an_artifact_and_reads_the_error_after() {
    let gh = Gh::start().await;
    let id = gh.rig.publish("ep", b"hello").await;
    let path = format!("repos/o/r/actions/artifacts/{id}");

    gh.api(&["-X", "DELETE", &path]).await;
    let missing = gh.run(&["api", &path]).await;

    let error: Value = serde_json::from_slice(&missing.stdout).expect("gh prints the body of an error");
    assert_eq!((missing.status.success(), &error["message"]), (false, &Value::from("Not Found")));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("HTTP 404"));
}

struct Gh {
    rig: Rig,
    folder: tempfile::TempDir,
}

impl Gh {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let gh = Self { rig: Rig::start().await, folder };
        let socket = gh.folder.path().join("github.sock");
        gh.rig.fake.listen_unix(&socket).expect("the folder is writable");
        gh.configure(&socket).await;
        gh
    }

    async fn configure(&self, socket: &Path) {
        let output = self.run(&["config", "set", "http_unix_socket", socket.to_str().expect("UTF-8")]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    async fn api(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["api"], arguments].concat()).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("the output is UTF-8")
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("gh");
        command.args(arguments).env("GH_CONFIG_DIR", self.folder.path()).env("GH_TOKEN", "ghs_any").kill_on_drop(true);
        command.env_remove("GH_HOST").env("NO_COLOR", "1");
        let output = timeout(PATIENCE, command.output()).await.expect("gh ends in time");
        output.expect("gh is installed: apt-get install gh")
    }
}
