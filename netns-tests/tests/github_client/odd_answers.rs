//! A server that answers what no GitHub would: a proxy's page, broken JSON, a body without an end. Each listing ends in a
//! classified error, in time.

use std::net::SocketAddr;

use base64::Engine as _;
use mesh::github::config::Config;
use mesh::rendezvous::github::Github;
use mesh::rendezvous::{Entry, Error, Rendezvous as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{in_time, is_again};

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_worth_another_try() {
    let answers: [&'static [u8]; 7] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n<html>...",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"artifacts\":",
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n[null]",
        b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{\"artifacts\":\"x\"}",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ];
    for answer in answers {
        let error = in_time(listing(Always(answer))).await.expect_err("no listing");
        assert!(is_again(&error), "{}: {error:?}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn items_that_cannot_be_read_do_not_hide_the_others() {
    let body = r#"{"artifacts":[7,null,{"name":"mesh-1-q"},{"databaseId":"9","name":"mesh-1-p",
        "workflowRunBackendId":"r","workflowJobRunBackendId":"j","size":3}],"next":true}"#;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let entries = listing(Always(answer.leak().as_bytes())).await.expect("one can be read");
    let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["mesh-1-p"]);
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_our_token() {
    let answer = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n";
    let error = in_time(listing(Always(answer))).await.expect_err("no listing");
    assert!(matches!(&error, Error::Refused { what, .. } if what.contains("307")), "{error:?}");
}

#[tokio::test]
async fn a_body_without_an_end_is_left_at_a_bound() {
    let error = in_time(listing(Endless)).await.expect_err("no listing");
    assert!(matches!(&error, Error::Refused { what, .. } if what.contains("longer than")), "{error:?}");
}

/// What is sent to each request on a connection of its own.
trait Answer: Send + Sync + 'static {
    fn send(&self, stream: &mut TcpStream) -> impl Future<Output = std::io::Result<()>> + Send;
}

struct Always(&'static [u8]);

struct Endless;

impl Answer for Always {
    async fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(self.0).await
    }
}

impl Answer for Endless {
    async fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"artifacts\":[").await?;
        loop {
            stream.write_all(&[b' '; 64 * 1024]).await?;
        }
    }
}

/// A listing from a server that gives this answer to everything.
async fn listing(answer: impl Answer) -> Result<Vec<Entry>, Error> {
    let (address, server) = serve(answer).await;
    let listed = rendezvous(address).list().await;
    server.abort();
    listed
}

async fn serve(answer: impl Answer) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            // The client may hang up in the middle; that is what the test is about.
            let _ = answer.send(&mut stream).await;
        }
    });
    (address, server)
}

fn rendezvous(address: SocketAddr) -> Github {
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"scp":"Actions.Results:r:j"}"#);
    let config = Config::from_lookup(|name| match name {
        "ACTIONS_RUNTIME_TOKEN" => Some(format!("e30.{claims}.c2ln")),
        "ACTIONS_RESULTS_URL" => Some(format!("http://{address}/")),
        _ => None,
    });
    Github::member(config).expect("all variables are set")
}
