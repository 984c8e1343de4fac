//! The server's own routes below `/_fake`, and the program around it.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use netns_tests::fake_github::{LogEntry, Route};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::{Answer, JOB, RUN, Rig, client};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn faults_are_set_and_ended_over_http() {
    let rig = Rig::start().await;
    let url = format!("{}/_fake/faults", rig.fake.url());
    let rules = json!([{"route": "GetSignedArtifactURL", "status": 429, "retry_after": 3, "times": 1, "delay_ms": 1},
        {"route": "ListArtifacts", "visible_after_ms": 3_600_000}, {"route": "Download", "tamper": "truncate"}]);

    let set = rig.http.post(&url).json(&rules).send().await.expect("the server answers");
    rig.publish("ep", b"hello").await;
    let limited = rig.call("GetSignedArtifactURL", json!({"name": "ep"})).await;
    let hidden = rig.names().await;
    let cut = rig.fetch(&rig.signed_url("ep").await).await;
    let ended = rig.http.delete(&url).send().await.expect("the server answers");

    assert_eq!((set.status().as_u16(), ended.status().as_u16()), (204, 204));
    assert_eq!((limited.status.as_u16(), limited.header("retry-after")), (429, "3"));
    assert_eq!((hidden.len(), cut.body.as_slice()), (0, b"he".as_slice()));
    assert_eq!(rig.names().await, ["ep"]);
}

#[tokio::test]
async fn bad_faults_are_refused_with_a_reason() {
    let rig = Rig::start().await;
    let url = format!("{}/_fake/faults", rig.fake.url());
    for (body, reason) in [
        ("{}", "expected a sequence"),
        (r#"[{"route": "Nowhere", "status": 500}]"#, "unknown variant `Nowhere`"),
        (r#"[{"route": "Upload", "statsu": 500}]"#, "unknown field `statsu`"),
        (r#"[{"route": "Upload", "status": 99}]"#, "from 400 to 599"),
        (r#"[{"route": "Upload", "burn": true}]"#, "burn is for FinalizeArtifact"),
    ] {
        let answer = Answer::read(rig.http.post(&url).body(body).send().await.expect("the server answers")).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.text().contains(reason), "{}", answer.text());
    }
}

#[tokio::test]
async fn the_log_is_lines_of_json_without_secrets() {
    let rig = Rig::start().await;
    rig.publish("ep", b"hello").await;

    let log = rig.fetch(&format!("{}/_fake/log", rig.fake.url())).await.text();

    let entries: Vec<LogEntry> = log.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    assert_eq!(entries, rig.fake.log());
    let routes: Vec<Route> = entries.iter().map(|entry| entry.route).collect();
    assert_eq!(routes, [Route::CreateArtifact, Route::Upload, Route::FinalizeArtifact]);
    for entry in &entries {
        assert_eq!((entry.run.as_deref(), entry.job.as_deref()), (Some(RUN), Some(JOB)), "{entry:?}");
    }
    assert!(!log.contains("sig=") && !log.contains("Bearer"), "{log}");
}

#[tokio::test]
async fn a_token_is_handed_out_for_a_run_and_a_job() {
    let rig = Rig::start().await;
    let url = |query: &str| format!("{}/_fake/token?{query}", rig.fake.url());

    let token = rig.fetch(&url("run=99&job=job-z")).await.text();
    let body = json!({"workflow_run_backend_id": "99"}).to_string();
    let listed = rig.post("ListArtifacts", Some(&token), &body).await;

    assert_eq!(listed.json(), json!({"artifacts": []}));
    for bad in ["run=99", "run=&job=j", "run=a:b&job=j", "run=a&job=b%20c"] {
        assert_eq!(rig.fetch(&url(bad)).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn the_program_prints_its_url_and_ends_on_either_signal() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut program, url) = spawn(&[]).await;

        let log = client().get(format!("{url}/_fake/log")).send().await.expect("the server answers");
        let status = end(&mut program, signal).await;

        assert_eq!(log.status(), 200);
        assert!(status.success(), "{signal}: {status}");
    }
}

#[tokio::test]
async fn the_program_begins_with_faults_from_a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("faults.json");
    std::fs::write(&path, r#"[{"route": "RestList", "status": 500}]"#).expect("the folder is writable");

    let (mut program, url) = spawn(&["--faults", path.to_str().expect("UTF-8")]).await;
    let broken = client().get(format!("{url}/repos/o/r/actions/runs/1/artifacts")).send().await;
    end(&mut program, Signal::SIGTERM).await;

    assert_eq!(broken.expect("the server answers").status(), 500);
}

#[tokio::test]
async fn the_program_says_what_is_wrong_with_its_arguments() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    for (arguments, reason) in [
        (["--listen", address.as_str()], format!("cannot serve on {address}")),
        (["--faults", "/nowhere/faults"], "cannot read /nowhere/faults".to_owned()),
    ] {
        let program = Command::new(env!("CARGO_BIN_EXE_fake-github")).args(arguments).kill_on_drop(true).output();
        let output = timeout(PATIENCE, program).await.expect("it ends in time").expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && errors.contains(&reason), "{errors}");
    }
}

async fn spawn(arguments: &[&str]) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fake-github"));
    let mut program =
        command.args(arguments).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the program starts");
    let stdout = program.stdout.take().expect("stdout is piped");
    let mut lines = BufReader::new(stdout).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("ready in time").expect("stdout can be read");
    (program, line.expect("the program prints its URL"))
}

async fn end(program: &mut Child, signal: Signal) -> ExitStatus {
    let id = program.id().and_then(|id| i32::try_from(id).ok()).expect("the program runs");
    kill(Pid::from_raw(id), signal).expect("the program can be signalled");
    timeout(PATIENCE, program.wait()).await.expect("it ends in time").expect("it can be waited for")
}
