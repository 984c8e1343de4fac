//! Azurite, a real implementation of Azure's blobs, through the script that signs its URLs: does the script do its job,
//! and does the fake answer as Azurite does?

use std::process::Stdio;
use std::time::Duration;

use reqwest::Client;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::{Rig, official_folder, require_node_modules};

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn azurite_and_the_fake_give_the_same_statuses() {
    let mut azurite = Azurite::start().await;
    let urls = (azurite.sign("cw ep").await, azurite.sign("r ep").await);
    let rig = Rig::start().await;
    let upload = rig.create("ep").await;
    // The fake signs downloads of finalized artifacts alone, so something has to be there before the walk begins.
    rig.put(&upload, b"first").await;
    rig.finalize("ep", 5).await;
    let download = rig.signed_url("ep").await;

    let real = walk(&rig.http, &urls.0, &urls.1).await;
    let fake = walk(&rig.http, &upload, &download).await;

    assert_eq!(real, EXPECTED.map(|(step, status, body)| (step, status, body.to_owned())));
    assert_eq!(fake, real);
}

#[tokio::test]
async fn azurite_ends_with_its_stdin() {
    let mut azurite = Azurite::start().await;
    drop(azurite.stdin);
    let status = timeout(PATIENCE, azurite.child.wait()).await.expect("it ends in time").expect("it can be waited for");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn azurite_says_when_it_cannot_sign() {
    let mut azurite = Azurite::start().await;
    let answer = azurite.sign("zz ep").await;
    assert!(answer.starts_with("error: cannot sign"), "{answer}");
}

/// A step, its status, and its body unless it failed: the texts of errors differ.
type Step = (&'static str, u16, String);

const EXPECTED: [(&str, u16, &str); 9] = [
    ("put blob without a type", 400, ""),
    ("put block 1", 201, ""),
    ("put block 2", 201, ""),
    ("put block list of a missing block", 400, ""),
    ("put block list", 201, ""),
    ("get", 200, "hello world"),
    ("get a range", 206, "lo w"),
    ("get with the right to write", 403, ""),
    ("put with the right to read", 403, ""),
];

/// Sends the same requests to either server.
async fn walk(http: &Client, write: &str, read: &str) -> Vec<Step> {
    let block = |id: &str| format!("{write}&comp=block&blockid={id}%3D");
    let list = |ids: &[&str]| {
        let entries: String = ids.iter().map(|id| format!("<Latest>{id}=</Latest>")).collect();
        format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{entries}</BlockList>")
    };
    let commit = |ids: &[&str]| http.put(format!("{write}&comp=blocklist")).body(list(ids));
    let requests = [
        http.put(write).body("hello"),
        http.put(block("QUI")).body("world"),
        http.put(block("QUE")).body("hello "),
        commit(&["QUM"]),
        commit(&["QUE", "QUI"]),
        http.get(read),
        http.get(read).header("range", "bytes=3-6"),
        http.get(write),
        http.put(read).header("x-ms-blob-type", "BlockBlob").body("x"),
    ];
    let mut steps = Vec::new();
    for ((step, ..), request) in EXPECTED.iter().zip(requests) {
        let response = request.send().await.expect("the server answers");
        let status = response.status().as_u16();
        let body = response.text().await.expect("the body arrives");
        steps.push((*step, status, if status < 400 { body } else { String::new() }));
    }
    steps
}

struct Azurite {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Azurite {
    async fn start() -> Self {
        require_node_modules();
        let mut command = Command::new("node");
        command.arg("azurite.mjs").current_dir(official_folder()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).kill_on_drop(true).spawn().expect("node is installed");
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let mut azurite = Self { child, stdin, stdout };
        let container = azurite.line().await;
        assert!(container.ends_with("/devstoreaccount1/actions-results"), "{container}");
        azurite
    }

    async fn sign(&mut self, line: &str) -> String {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await.expect("azurite reads");
        self.line().await
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.stdout.next_line()).await.expect("azurite answers in time");
        line.expect("stdout can be read").expect("azurite runs")
    }
}
