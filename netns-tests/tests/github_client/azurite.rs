//! Our blob client against Azurite: the real semantics of Azure Blob Storage.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use mesh::github::blob;
use mesh::github::error::Kind;
use mesh::github::http;
use reqwest::Url;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Node loads some 20 MiB of JavaScript first.
const START: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_we_upload_we_download_and_every_refusal_has_its_kind() {
    let mut azurite = Azurite::start().await;
    let client = http::client().expect("a client");
    let (write, read) = (azurite.url("cw", "ep0").await, azurite.url("r", "ep0").await);

    let missing = blob::download(&client, &read, 64).await.expect_err("nothing is there yet");
    assert_eq!(missing.kind, Kind::Missing, "{missing:?}");
    assert!(missing.what.contains("BlobNotFound"), "{missing}");

    blob::upload(&client, &write, b"sealed").await.expect("uploaded");
    assert_eq!(blob::download(&client, &read, 64).await.expect("downloaded"), b"sealed");
    let long = blob::download(&client, &read, 5).await.expect_err("beyond the bound");
    assert_eq!(long.kind, Kind::Unusable, "{long:?}");

    let written = blob::upload(&client, &read, b"x").await.expect_err("a URL to download");
    let fetched = blob::download(&client, &write, 64).await.expect_err("a URL to upload");
    for denied in [written, fetched] {
        assert_eq!(denied.kind, Kind::Forbidden, "{denied:?}");
        assert!(denied.what.contains("AuthorizationPermissionMismatch"), "{denied}");
    }

    let forged = blob::download(&client, &forged(&read), 64).await.expect_err("not signed");
    assert_eq!(forged.kind, Kind::Forbidden, "{forged:?}");
    assert!(!forged.what.contains("sig="), "{forged}");
    assert_eq!(blob::download(&client, &read, 64).await.expect("as it was"), b"sealed");
}

#[tokio::test]
async fn the_largest_announcement_fits_into_one_block_and_a_second_upload_replaces_the_first() {
    let mut azurite = Azurite::start().await;
    let client = http::client().expect("a client");
    let (write, read) = (azurite.url("cw", "ep1+2").await, azurite.url("r", "ep1+2").await);
    let largest: Vec<u8> = (0..mesh::rendezvous::MAX_LEN).map(|at| (at % 251) as u8).collect();
    blob::upload(&client, &write, b"first").await.expect("uploaded");
    blob::upload(&client, &write, &largest).await.expect("uploaded");
    assert_eq!(blob::download(&client, &read, largest.len()).await.expect("downloaded"), largest);
}

/// The same URL with another signature of the same form.
fn forged(url: &Url) -> Url {
    let pairs = url.query_pairs().map(|(name, value)| match name.as_ref() {
        "sig" => (name.into_owned(), value.chars().rev().collect::<String>().replace('=', "") + "="),
        _ => (name.into_owned(), value.into_owned()),
    });
    let pairs: Vec<_> = pairs.collect();
    let mut forged = url.clone();
    forged.query_pairs_mut().clear().extend_pairs(pairs);
    forged
}

/// A running Azurite with one container; it ends when it is dropped.
struct Azurite {
    _child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Azurite {
    async fn start() -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("official");
        let modules = folder.join("node_modules");
        assert!(modules.is_dir(), "{} is missing: run npm ci --prefix netns-tests/official", modules.display());
        let mut command = Command::new("node");
        command.arg("azurite.mjs").current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).kill_on_drop(true).spawn().expect("node is installed");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut azurite = Self { _child: child, stdin, stdout };
        azurite.line().await;
        azurite
    }

    /// A URL of `blob`, signed for `permissions` (`r`, `cw`).
    async fn url(&mut self, permissions: &str, blob: &str) -> Url {
        self.stdin.write_all(format!("{permissions} {blob}\n").as_bytes()).await.expect("it reads");
        let line = self.line().await;
        Url::parse(&line).unwrap_or_else(|e| panic!("no URL but {line:?}: {e}"))
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(START, self.stdout.next_line()).await.expect("it answers in time");
        line.expect("it can be read").expect("it still runs")
    }
}
