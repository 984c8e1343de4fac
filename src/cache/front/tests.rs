//! The fronts as a client sees them, over loopback.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;

use reqwest::header::AUTHORIZATION;
use reqwest::{Client, RequestBuilder, StatusCode};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::cache::sha256;
use crate::cache::store::Store;

const BUDGET: u64 = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(30);
const KEY: &str = "5a69gth13egv6ac9oei8trdnd47sfft9o";

/// A cache with its fronts, for as long as a test needs it.
pub(super) struct Stage {
    folder: tempfile::TempDir,
    pub(super) addr: SocketAddr,
    tokens: Tokens,
    pub(super) cache: Arc<Cache>,
    pub(super) client: Client,
    task: JoinHandle<()>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stage {
    pub(super) async fn start() -> Self {
        Self::with(Limits { connections: 64, patience: PATIENCE }).await
    }

    async fn with(limits: Limits) -> Self {
        // Somebody else may have chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Arc::new(Cache::new(Store::open(folder.path(), BUDGET).expect("a store").into(), None));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let tokens = Tokens::new([[7; 32]]);
        let task = tokio::spawn(Fronts::new(Arc::clone(&cache), tokens.clone(), limits).serve(listener));
        Self { folder, addr, tokens, cache, client: Client::builder().no_proxy().build().expect("a client"), task }
    }

    pub(super) fn token(&self, namespace: &str, writes: bool) -> String {
        self.tokens.issue(&Grant::new(namespace, writes).expect("a grant"))
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(super) fn ask(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        self.client.request(method, self.url(path)).bearer_auth(self.token("main", true))
    }

    pub(super) async fn put(&self, path: &str, bytes: impl Into<reqwest::Body>) -> StatusCode {
        self.ask("PUT", path).body(bytes).send().await.expect("an answer").status()
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, Bytes) {
        let answer = self.ask("GET", path).send().await.expect("an answer");
        (answer.status(), answer.bytes().await.expect("a whole body"))
    }

    /// Writes `bytes` as they are and gives the first line that comes back.
    async fn raw(&self, bytes: Vec<u8>) -> String {
        let addr = self.addr;
        let told = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(addr).expect("connected");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            // It may be closed before all is written.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut told = vec![];
            let _ = stream.read_to_end(&mut told);
            String::from_utf8_lossy(&told).lines().next().unwrap_or_default().to_owned()
        });
        told.await.expect("ended")
    }
}

fn paths() -> [String; 7] {
    let hash = sha256::digest(b"content").hex();
    [
        format!("/ccache/{KEY}"),
        format!("/ccache/{}/{}", &KEY[..2], &KEY[2..]),
        format!("/ccache/ac/{hash}"),
        format!("/bazel/ac/{hash}"),
        format!("/bazel/cas/{hash}"),
        "/webdav/1/9/1/191a".into(),
        "/mesh/release/v1%20final.tar".into(),
    ]
}

#[tokio::test]
async fn what_is_put_is_got_by_every_protocol() {
    for path in paths() {
        let stage = Stage::start().await;
        assert_eq!(stage.get(&path).await.0, StatusCode::NOT_FOUND, "{path}");

        assert_eq!(stage.put(&path, "content").await, StatusCode::CREATED, "{path}");
        assert_eq!(stage.put(&path, "content").await, StatusCode::NO_CONTENT, "{path}, again");

        assert_eq!(stage.get(&path).await, (StatusCode::OK, "content".into()), "{path}");
        let head = stage.ask("HEAD", &path).send().await.expect("an answer");
        assert_eq!(head.headers().get("content-length").and_then(|len| len.to_str().ok()), Some("7"), "{path}");
        assert_eq!(stage.ask("DELETE", &path).send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
        assert_eq!(stage.get(&path).await.0, StatusCode::NOT_FOUND, "{path}, removed");
    }
}

#[tokio::test]
async fn large_bodies_come_back_whole() {
    let stage = Stage::start().await;
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|at| (at / 7) as u8).collect();

    assert_eq!(stage.put("/webdav/large", bytes.clone()).await, StatusCode::CREATED);

    assert_eq!(stage.get("/webdav/large").await, (StatusCode::OK, bytes.into()));
}

#[tokio::test]
async fn nobody_is_answered_without_the_token() {
    let stage = Stage::start().await;
    let headers = ["", "Bearer", "Bearer x", "Bearer rw.main.AAAAAAAAAAAAAAAAAAAAAA", "Basic bWVzaDpy", "Negotiate x"];

    for path in paths().iter().map(String::as_str).chain(["/", "/webdav/", "/metrics"]) {
        for method in ["GET", "HEAD", "PUT", "DELETE", "PROPFIND", "MKCOL", "OPTIONS", "POST"] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            for header in headers {
                let asked = stage.client.request(method.clone(), stage.url(path)).header(AUTHORIZATION, header);
                assert_eq!(
                    asked.send().await.expect("an answer").status(),
                    StatusCode::UNAUTHORIZED,
                    "{method} {path} {header}"
                );
            }
        }
    }
    assert_eq!(stage.cache.usage().entries, 0);
}

#[tokio::test]
async fn a_reader_reads_its_own_namespace_and_changes_nothing() {
    let stage = Stage::start().await;
    let path = format!("/ccache/{KEY}");
    stage.put(&path, "content").await;
    let as_reader = |namespace: &str, method: Method| {
        stage.client.request(method, stage.url(&path)).bearer_auth(stage.token(namespace, false)).body("other")
    };

    let told = |asked: RequestBuilder| async { asked.send().await.expect("an answer").status() };
    assert_eq!(told(as_reader("main", Method::GET)).await, StatusCode::OK);
    assert_eq!(told(as_reader("other", Method::GET)).await, StatusCode::NOT_FOUND);
    assert_eq!(told(as_reader("main", Method::PUT)).await, StatusCode::FORBIDDEN);
    assert_eq!(told(as_reader("main", Method::DELETE)).await, StatusCode::FORBIDDEN);
    assert_eq!(stage.get(&path).await, (StatusCode::OK, "content".into()));
}

#[tokio::test]
async fn content_is_not_read_from_another_namespace_by_its_hash() {
    let stage = Stage::start().await;
    let path = format!("/bazel/cas/{}", sha256::digest(b"content").hex());
    stage.put(&path, "content").await;

    let asked = stage.client.get(stage.url(&path)).bearer_auth(stage.token("other", true));

    assert_eq!(asked.send().await.expect("an answer").status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn other_content_than_its_name_says_is_refused() {
    let stage = Stage::start().await;
    let path = format!("/bazel/cas/{}", sha256::digest(b"content").hex());

    assert_eq!(stage.put(&path, "other").await, StatusCode::BAD_REQUEST);

    assert_eq!(stage.get(&path).await.0, StatusCode::NOT_FOUND);
    assert_eq!(stage.cache.usage().entries, 0);
}

#[tokio::test]
async fn an_empty_result_is_refused_and_empty_content_is_content() {
    let stage = Stage::start().await;
    let empty = format!("/bazel/cas/{}", sha256::digest(b"").hex());

    assert_eq!(stage.put(&format!("/ccache/{KEY}"), "").await, StatusCode::BAD_REQUEST);
    assert_eq!(stage.put(&empty, "").await, StatusCode::CREATED);

    assert_eq!(stage.get(&empty).await, (StatusCode::OK, Bytes::new()));
}

#[tokio::test]
async fn oversized_and_endless_bodies_are_refused_and_leave_nothing() {
    let stage = Stage::start().await;
    let token = stage.token("main", true);
    let head = |length: &str| {
        format!("PUT /webdav/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{length}\r\n\r\n")
    };
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    let endless = [head("Transfer-Encoding: chunked").into_bytes(), chunk.repeat(20)].concat();

    let told = stage.raw(head("Content-Length: 99999999999").into_bytes()).await;
    assert_eq!(told, "HTTP/1.1 413 Payload Too Large");
    assert_eq!(stage.raw(endless).await, "HTTP/1.1 413 Payload Too Large");
    let broken_off = [head("Content-Length: 1000000").into_bytes(), vec![b'x'; 500_000]].concat();
    assert_ne!(stage.raw(broken_off).await, "HTTP/1.1 201 Created");

    assert_eq!((stage.cache.usage().entries, stage.cache.usage().bytes), (0, 0));
}

#[tokio::test]
async fn garbage_is_answered_with_a_4xx_or_with_nothing() {
    let stage = Stage::start().await;
    let token = stage.token("main", true);
    let heads = [
        "GET /webdav/../x HTTP/1.1",
        "GET /webdav/%2e%2e/%2e%2e/etc/passwd HTTP/1.1",
        "GET http://[::1/x HTTP/1.1",
        "GET //etc/passwd HTTP/1.1",
        "GET /ccache/../../etc/passwd HTTP/1.1",
        "BREW /webdav/x HTTP/1.1",
        "PUT /webdav/ HTTP/1.1",
        "GET /webdav/\u{7f} HTTP/1.1",
    ];
    for head in heads {
        let told = stage.raw(format!("{head}\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n").into_bytes()).await;
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 4"), "{head}: {told}");
    }
    for bytes in [vec![0; 1000], b"\r\n\r\n".to_vec(), vec![b'A'; 1 << 20], b"GET /".to_vec()] {
        let told = stage.raw(bytes).await;
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 4"), "{told}");
    }
    assert_eq!(stage.put("/webdav/x", "still here").await, StatusCode::CREATED);
}

#[tokio::test]
async fn a_damaged_blob_breaks_off_and_is_gone() {
    let stage = Stage::start().await;
    stage.put("/webdav/large", vec![b'x'; 3_000_000]).await;
    flip_last_byte_of_a_file(stage.folder.path());

    let answer = stage.ask("GET", "/webdav/large").send().await.expect("a head");

    assert!(answer.bytes().await.is_err(), "the body is not whole");
    assert_eq!(stage.get("/webdav/large").await.0, StatusCode::NOT_FOUND);
}

fn flip_last_byte_of_a_file(folder: &Path) {
    let all = std::fs::read_dir(folder.join("files")).expect("files");
    let inner = all.flat_map(|entry| std::fs::read_dir(entry.expect("a folder").path()).expect("files"));
    let path = inner.map(|entry| entry.expect("a file").path()).next().expect("one file");
    let mut bytes = std::fs::read(&path).expect("read");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&path, bytes).expect("written");
}

#[tokio::test]
async fn every_collection_exists_and_an_entry_tells_its_size() {
    let stage = Stage::start().await;
    stage.put("/webdav/a/b", "content").await;

    for path in ["/webdav/", "/webdav/never/heard/of/"] {
        let answer = stage.ask("PROPFIND", path).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::MULTI_STATUS);
        assert!(answer.text().await.expect("text").contains("<D:collection/>"));
        assert_eq!(stage.ask("MKCOL", path).send().await.expect("an answer").status(), StatusCode::CREATED);
    }
    let entry = stage.ask("PROPFIND", "/webdav/a/b").send().await.expect("an answer");
    assert!(entry.text().await.expect("text").contains("<D:getcontentlength>7<"));
    assert_eq!(stage.ask("PROPFIND", "/webdav/a/c").send().await.expect("an answer").status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn who_neither_reads_nor_goes_on_writing_loses_its_place() {
    let limits = Limits { connections: 2, patience: Duration::from_millis(300) };
    let stage = Stage::with(limits).await;
    stage.put("/webdav/large", vec![b'x'; 15_000_000]).await;
    let token = stage.token("main", true);
    let head =
        |method: &str| format!("{method} /webdav/large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n");
    let idle = [head("GET") + "\r\n", head("PUT") + "Content-Length: 1000\r\n\r\n"].map(|bytes| {
        let mut stream = std::net::TcpStream::connect(stage.addr).expect("connected");
        stream.write_all(bytes.as_bytes()).expect("written");
        stream
    });

    let answered = tokio::time::timeout(PATIENCE, stage.get("/webdav/none")).await;

    assert_eq!(answered.expect("a place").0, StatusCode::NOT_FOUND);
    drop(idle);
}

#[tokio::test]
async fn who_has_no_token_is_sent_away() {
    let stage = Stage::start().await;

    let answer = stage.client.get(stage.url("/webdav/x")).send().await.expect("an answer");

    assert_eq!(answer.headers().get("connection").and_then(|value| value.to_str().ok()), Some("close"));
}

#[tokio::test]
async fn a_blob_whose_first_bytes_are_damaged_is_not_found() {
    let stage = Stage::start().await;
    stage.put("/webdav/large", vec![b'x'; 200_000]).await;
    let files = std::fs::read_dir(stage.folder.path().join("files")).expect("files");
    let inner = files.flat_map(|entry| std::fs::read_dir(entry.expect("a folder").path()).expect("files"));
    let path = inner.map(|entry| entry.expect("a file").path()).next().expect("one file");
    std::fs::write(&path, vec![b'y'; 200_000]).expect("written");

    assert_eq!(stage.get("/webdav/large").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_put_that_begins_with_its_first_letter_alone_is_no_http2() {
    let stage = Stage::start().await;
    let mut stream = std::net::TcpStream::connect(stage.addr).expect("connected");
    stream.set_nodelay(true).expect("set");
    stream.write_all(b"P").expect("written");
    // By now somebody has looked at it.
    stage.get("/webdav/x").await;
    let token = stage.token("main", true);
    let rest = format!(
        "UT /webdav/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 7\r\n\r\ncontent"
    );
    stream.write_all(rest.as_bytes()).expect("written");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let told = tokio::task::spawn_blocking(move || {
        let mut told = [0; 12];
        stream.read_exact(&mut told).map(|()| told)
    });

    assert_eq!(told.await.expect("ended").expect("an answer"), *b"HTTP/1.1 201");
}
