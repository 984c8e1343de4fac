//! What tools say to the cache: whole connections of any bytes, and requests of any shape with a token. Nothing of another namespace is ever given out, nothing
//! that was not put, and without a token nothing at all.
//!
//! Input: which of these in one byte; then what is sent, or requests. gRPC is not here.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mesh::cache::Cache;
use mesh::cache::front::{Fronts, Limits};
use mesh::cache::store::{LEAST_BUDGET, Store};
use mesh::cache::token::{Grant, Tokens};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::{Builder, Runtime};

use super::input::{Input, piece};
use super::stage;

const SECRET: [u8; 32] = [7; 32];

/// What only readers of another namespace may see.
const HIDDEN: &[u8] = b"what is of another namespace";

/// A conversation that is at its end is over by then.
const SOON: Duration = Duration::from_secs(8);

/// The other side is asked so often whether it has more to say.
const TURNS: usize = 64;

const METHODS: [&str; 8] = ["GET", "PUT", "HEAD", "DELETE", "PROPFIND", "MKCOL", "OPTIONS", "POST"];

/// A cache is for so many inputs: making one takes longer than asking it.
const INPUTS: u32 = 1000;

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

/// A cache that holds [`HIDDEN`] under every name that the seeds ask for, and for each input a namespace of its own.
struct Stage {
    _folder: tempfile::TempDir,
    runtime: Runtime,
    fronts: Fronts,
    tokens: Tokens,
    inputs: u32,
    token: String,
}

impl Stage {
    fn new() -> Self {
        let folder = stage::folder();
        let cache =
            Arc::new(Cache::new(Store::open(folder.path(), LEAST_BUDGET).expect("a folder of our own").into(), None));
        let tokens = Tokens::new([SECRET]);
        let fronts = Fronts::new(cache, tokens.clone(), Limits { connections: 1, patience: SOON / 2 });
        let runtime = Builder::new_current_thread().enable_time().build().expect("the machine takes an event loop");
        let stage = Self { _folder: folder, runtime, fronts, tokens, inputs: 0, token: String::new() };
        let other = stage.issue("other");
        for path in paths() {
            let put = request("PUT", &path, &other, "", HIDDEN);
            assert!(stage.converse(&put).starts_with(b"HTTP/1.1 20") || path.contains("/cas/"), "{path}");
        }
        stage
    }

    fn issue(&self, namespace: &str) -> String {
        self.tokens.issue(&Grant::new(namespace, true).expect("a good name"))
    }

    fn next_input(&mut self) {
        self.inputs += 1;
        self.token = self.issue(&format!("input-{}", self.inputs));
    }

    /// Everything that comes back, until nothing more does.
    fn converse(&self, said: &[u8]) -> Vec<u8> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let talk = async {
            let (told, ()) = tokio::join!(talk(ours, said), async {
                // How it ends is the other side's affair.
                let _ = self.fronts.clone().over_http1(TokioIo::new(theirs)).await;
            });
            told
        };
        let told = self.runtime.block_on(async { tokio::time::timeout(SOON, talk).await });
        told.expect("a connection with nothing more to say does not end")
    }
}

async fn talk(stream: DuplexStream, said: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut told = vec![];
    let saying = async {
        // Who is sent away is not listened to.
        let _ = write.write_all(said).await;
        // Who hangs up at once gets no answer.
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        let _ = write.shutdown().await;
    };
    let (_, _) = tokio::join!(saying, read.read_to_end(&mut told));
    told
}

pub fn run(data: &[u8]) {
    // libFuzzer sees what is looked for, and learns it.
    if contains(data, HIDDEN) {
        return;
    }
    STAGE.with_borrow_mut(|stage| {
        let stage = match stage {
            Some(stage) if stage.inputs < INPUTS => stage,
            stage => stage.insert(Stage::new()),
        };
        stage.next_input();
        let mut input = Input::new(data);
        match input.byte() % 3 {
            0 => anything(stage, input.rest()),
            1 => asked_for(stage, &mut input),
            _ => without_a_token(stage, &mut input),
        }
    });
}

/// `TOKEN` in it is a good one.
fn anything(stage: &Stage, said: &[u8]) {
    let said = replace(said, b"TOKEN", stage.token.as_bytes());
    let told = stage.converse(&said);
    assert!(told.is_empty() || told.starts_with(b"HTTP/1."), "{}", told.escape_ascii());
    assert!(!contains(&told, HIDDEN), "of another namespace: {}", told.escape_ascii());
}

/// Requests one after the other: what is got was put, and what was put is got.
fn asked_for(stage: &Stage, input: &mut Input<'_>) {
    let mut put: Vec<Vec<u8>> = vec![];
    for _ in 0..8 {
        if input.is_empty() {
            return;
        }
        let (method, path) = (METHODS[usize::from(input.byte()) % METHODS.len()], path(input));
        let (header, body) = (header(input), input.piece());
        let answer = stage.converse(&request(method, &path, &stage.token, &header, body));
        let Some((status, told)) = parts(&answer) else { continue };
        match (method, status) {
            // A header of the input's may say that the body is another, or have more requests behind it.
            ("PUT", 201 | 204) if !header.is_empty() => return,
            ("PUT", 201 | 204) => {
                put.push(body.to_vec());
                let got = stage.converse(&request("GET", &path, &stage.token, "", b""));
                assert_eq!(parts(&got), Some((200, body)), "{path}: what was just put");
            }
            ("GET", 200) if header.is_empty() => {
                let known = put.iter().any(|put| put == told) || path.split('?').next() == Some("/metrics");
                assert!(known, "{path}: {} was never put", told.escape_ascii());
            }
            ("GET", 201..300) => panic!("{path}: {status}"),
            _ => {}
        }
        assert!(!contains(&answer, HIDDEN), "{path}: of another namespace");
    }
}

/// As before, but with a header of the input's own.
fn without_a_token(stage: &Stage, input: &mut Input<'_>) {
    let (method, path) = (METHODS[usize::from(input.byte()) % METHODS.len()], path(input));
    let token = input.piece().escape_ascii().to_string();
    if token.trim() == stage.token {
        return;
    }
    let answer = stage.converse(&request(method, &path, &token, "", input.piece()));
    assert!(parts(&answer).is_none_or(|(status, _)| (400..500).contains(&status)), "{}", answer.escape_ascii());
}

/// One of the seeds', or the input's own.
fn path(input: &mut Input<'_>) -> String {
    let (known, choice) = (paths(), usize::from(input.byte()));
    let mut text = || input.piece().escape_ascii().to_string().replace([' ', '\\'], "/");
    match known.get(choice % 16) {
        Some(path) if choice < 128 => path.clone(),
        Some(path) => format!("{path}{}", text()),
        None => format!("/{}", text()),
    }
}

fn header(input: &mut Input<'_>) -> String {
    let text = input.piece();
    if text.is_empty() {
        String::new()
    } else {
        format!("{}\r\n", text.escape_ascii().to_string().replace("\\r\\n", "\r\n"))
    }
}

/// With its length, unless the header says how it ends.
fn request(method: &str, path: &str, token: &str, header: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{header}");
    let length = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), length.as_bytes(), body].concat()
}

/// The status of the first answer, and what follows its head.
fn parts(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let status = str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()?;
    Some((status, &answer[end..]))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = vec![];
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    [&replaced, rest].concat()
}

fn paths() -> Vec<String> {
    let (key, hash) =
        ("5a69gth13egv6ac9oei8trdnd47sfft9o", "434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53");
    vec![
        format!("/ccache/{key}"),
        format!("/ccache/5a/{}", &key[2..]),
        format!("/ccache/ac/{hash}"),
        format!("/bazel/ac/{hash}"),
        format!("/bazel/of/us/ac/{hash}"),
        format!("/bazel/cas/{hash}"),
        "/webdav/a/b".into(),
        "/mesh/release/v1%20.tar".into(),
    ]
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![];
    let said = |method: &str, path: &str, rest: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\n{rest}");
        [&[0][..], head.as_bytes()].concat()
    };
    for path in paths() {
        let get = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\n\r\n");
        seeds.push(said("PUT", &path, &format!("Content-Length: 8\r\n\r\ncontent\n{get}")));
    }
    seeds.push(said("PUT", "/mesh/x", "Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n"));
    seeds.push(said("PUT", "/webdav/x", "Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n"));
    seeds.push(said("PROPFIND", "/webdav/a/", "Depth: 1\r\n\r\n"));
    seeds.push(said("GET", "/metrics", "Connection: close\r\n\r\n"));
    seeds.push(said("GET", "http://x/mesh/../metrics", "\r\n"));
    seeds.push([&[0][..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0; 9]].concat());
    seeds.push(b"\0GET /webdav/a/b HTTP/1.0\r\nAuthorization: Basic bWVzaDpy\r\n\r\n".to_vec());
    let asked =
        |method: u8, path: u8, header: &[u8], body: &[u8]| [&[method, path][..], &piece(header), &piece(body)].concat();
    for path in 0..8 {
        let turns = [
            asked(0, path, b"", b""),
            asked(1, path, b"", b"content\n"),
            asked(2, path, b"", b""),
            asked(3, path, b"", b""),
        ];
        seeds.push([&[1][..], &turns.concat()].concat());
    }
    seeds.push(
        [&[1, 1, 8][..], &piece(b"webdav/x"), &piece(b"Transfer-Encoding: chunked"), &piece(b"0\r\n\r\n")].concat(),
    );
    seeds.push([&[2, 0, 6][..], &piece(b"rw.main.AAAAAAAAAAAAAAAAAAAAAA"), &piece(b"")].concat());
    seeds
}
