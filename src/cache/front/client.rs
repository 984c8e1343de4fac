//! The other side of the door, for `mesh cache get` and `put`: what is kept under a name comes and goes in pieces, one connection each time, over this
//! machine's loopback. Not here: where the pieces come from and go to.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;

use super::{named, turn};

/// Of a refusal's words.
const MOST_WORDS: usize = 4096;

/// Where the cache answers, and the token that it asks for.
#[derive(Debug, Clone)]
pub struct Door {
    /// On loopback.
    pub addr: SocketAddr,
    /// Names the namespace.
    pub token: String,
}

/// Why nothing came or went.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nothing can have this name.
    #[error("a name has no empty part between slashes, and no `.` or `..` there")]
    Name,
    /// Nobody listens there.
    #[error("nobody answers at {0}: {1}")]
    Unreachable(SocketAddr, io::Error),
    /// Before all was said.
    #[error("the connection broke off: {0}")]
    Broken(hyper::Error),
    /// What was to be sent could not be read.
    #[error("{0}")]
    Input(String),
    /// An answer that is neither yes nor no.
    #[error("it answers {status}: {words}")]
    Refused {
        /// Of HTTP.
        status: u16,
        /// Which the cache gave as its reason.
        words: String,
    },
}

impl From<hyper::Error> for Trouble {
    fn from(error: hyper::Error) -> Self {
        let input = error.source().and_then(|source| source.downcast_ref::<Unreadable>());
        input.map(|Unreadable(why)| Self::Input(why.clone())).unwrap_or(Self::Broken(error))
    }
}

/// A request that stops in its middle because what was to be sent cannot be read. So nobody takes its half for the whole.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// What is to be sent, as it becomes known.
#[derive(Debug)]
pub struct Pieces {
    /// How much it will be, where that is known.
    pub size: Option<u64>,
    /// All of it, in order.
    pub pieces: Receiver<Result<Bytes, Unreadable>>,
}

/// A request's body.
#[derive(Debug)]
struct Outgoing(Option<Pieces>);

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Unreadable;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unreadable>>> {
        let Some(Pieces { pieces, .. }) = &mut self.0 else { return Poll::Ready(None) };
        pieces.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let size = self.0.as_ref().map_or(Some(0), |pieces| pieces.size);
        size.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// A connection whose other side may stop listening in mid-request, once it has said why: what is written then is lost in silence, and what was said is read.
#[derive(Debug)]
struct Wire(TcpStream);

/// What was written, had anybody listened.
fn despite(written: io::Result<usize>, len: usize) -> io::Result<usize> {
    let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
    written.or_else(|error| if gone.contains(&error.kind()) { Ok(len) } else { Err(error) })
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes).map(|written| despite(written, bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// What is kept under a name, on its way to us.
#[derive(Debug)]
pub struct Coming(Incoming);

impl Coming {
    /// How much is still to come, as far as that is known.
    pub fn size(&self) -> Option<u64> {
        self.0.size_hint().exact()
    }

    /// The next piece; `None` when all has come.
    ///
    /// # Errors
    /// If the connection breaks off before all has come.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        while let Some(frame) = self.0.frame().await {
            if let Ok(bytes) = frame?.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// What is kept under this name; `None` where nothing is.
///
/// # Errors
/// If the cache does not answer, or refuses.
pub async fn get(door: &Door, name: &str) -> Result<Option<Coming>, Trouble> {
    let answer = ask(door, Method::GET, name, None).await?;
    match answer.status() {
        StatusCode::OK => Ok(Some(Coming(answer.into_body()))),
        StatusCode::NOT_FOUND => Ok(None),
        _ => Err(refused(answer).await),
    }
}

/// Keeps what comes under this name.
///
/// # Errors
/// If the cache does not answer, or refuses, or what comes cannot be read to its end.
pub async fn put(door: &Door, name: &str, pieces: Pieces) -> Result<(), Trouble> {
    let answer = ask(door, Method::PUT, name, Some(pieces)).await?;
    if answer.status().is_success() { Ok(()) } else { Err(refused(answer).await) }
}

/// Who makes what is not there.
#[derive(Debug)]
pub enum Turn {
    /// The caller, as long as it keeps this; and, where it is `None`, perhaps others too.
    Ours(Option<Coming>),
    /// Somebody else has made it meanwhile.
    Made,
}

/// Waits until the caller is the one to make what the name is of, or somebody else has.
///
/// # Errors
/// If the cache does not answer, or refuses.
pub async fn turn(door: &Door, name: &str) -> Result<Turn, Trouble> {
    let answer = ask(door, Method::POST, name, None).await?;
    match answer.status() {
        turn::OURS => Ok(Turn::Ours(Some(Coming(answer.into_body())))),
        turn::ALONE => Ok(Turn::Ours(None)),
        turn::MADE => Ok(Turn::Made),
        _ => Err(refused(answer).await),
    }
}

async fn ask(door: &Door, method: Method, name: &str, pieces: Option<Pieces>) -> Result<Response<Incoming>, Trouble> {
    let request = Request::builder().method(method).uri(named::path(name).ok_or(Trouble::Name)?);
    let request = request.header(HOST, door.addr.to_string()).header(AUTHORIZATION, format!("Bearer {}", door.token));
    // INVARIANT: a path of `named` is a path, an address and a token of ours are letters that a header may have.
    let request = request.body(Outgoing(pieces)).expect("an address, a token and a path of ours are good in a head");
    let stream = TcpStream::connect(door.addr).await.map_err(|error| Trouble::Unreachable(door.addr, error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(Wire(stream))).await?;
    // What it fails with, who waits for the answer is told too.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

async fn refused(answer: Response<Incoming>) -> Trouble {
    let status = answer.status().as_u16();
    let words = Limited::new(answer.into_body(), MOST_WORDS).collect().await.map(|all| all.to_bytes());
    let words = String::from_utf8_lossy(&words.unwrap_or_default()).trim().to_owned();
    Trouble::Refused { status, words }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::super::tests::Stage;
    use super::*;

    fn door(stage: &Stage, namespace: &str) -> Door {
        Door { addr: stage.addr, token: stage.token(namespace, true) }
    }

    async fn send(
        door: &Door,
        name: &str,
        size: Option<u64>,
        all: Vec<Result<Bytes, Unreadable>>,
    ) -> Result<(), Trouble> {
        let (sender, pieces) = mpsc::channel(1);
        tokio::spawn(async move {
            for piece in all {
                // It is refused before it is whole.
                let _ = sender.send(piece).await;
            }
        });
        put(door, name, Pieces { size, pieces }).await
    }

    async fn whole(door: &Door, name: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let Some(mut coming) = get(door, name).await? else { return Ok(None) };
        let mut all = vec![];
        while let Some(bytes) = coming.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(Some(all))
    }

    #[tokio::test]
    async fn what_is_put_with_or_without_its_size_is_got() {
        let stage = Stage::start().await;
        let door = door(&stage, "main");
        let pieces = || (0..20_u8).map(|at| Ok(Bytes::from(vec![at; 100_000]))).collect::<Vec<_>>();
        let bytes: Vec<u8> = (0..20_u8).flat_map(|at| vec![at; 100_000]).collect();

        for (name, size) in [("known", Some(2_000_000)), ("ä name/50 %", None)] {
            assert!(whole(&door, name).await.expect("an answer").is_none());
            send(&door, name, size, pieces()).await.expect("stored");
            assert!(whole(&door, name).await.expect("an answer") == Some(bytes.clone()), "{name}");
            assert!(whole(&self::door(&stage, "other"), name).await.expect("an answer").is_none());
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_to_its_end_is_told_and_not_kept() {
        let stage = Stage::start().await;
        let door = door(&stage, "main");
        for size in [None, Some(200_000)] {
            let pieces = vec![Ok(Bytes::from(vec![b'x'; 100_000])), Err(Unreadable("it has gone".into()))];

            let trouble = send(&door, "x", size, pieces).await.expect_err("not whole");

            assert!(matches!(&trouble, Trouble::Input(why) if why == "it has gone"), "{trouble}");
            assert!(whole(&door, "x").await.expect("an answer").is_none());
        }
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused_with_its_reason() {
        let stage = Stage::start().await;
        let (most, piece) = (stage.cache.largest(), Bytes::from(vec![b'x'; 1 << 20]));
        let pieces = || (0..=most >> 20).map(|_| Ok(piece.clone())).collect::<Vec<_>>();

        for size in [Some(most + 1), None] {
            let trouble = send(&door(&stage, "main"), "x", size, pieces()).await.expect_err("too large");
            let said = matches!(&trouble, Trouble::Refused { status: 413, words } if words.contains(&most.to_string()));
            assert!(said, "{trouble}");
        }
    }

    #[tokio::test]
    async fn a_name_that_is_none_and_a_door_that_is_shut_are_told() {
        let stage = Stage::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let shut = Door { addr: listener.local_addr().expect("an address"), token: "x".into() };
        drop(listener);

        assert!(matches!(get(&door(&stage, "main"), "../x").await, Err(Trouble::Name)));
        assert!(matches!(get(&shut, "x").await, Err(Trouble::Unreachable(..))));
        let stranger = Door { token: "rw.main.x".into(), ..door(&stage, "main") };
        assert!(matches!(get(&stranger, "x").await, Err(Trouble::Refused { status: 401, .. })));
    }

    #[tokio::test]
    async fn an_answer_that_ends_early_is_no_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let door = Door { addr: listener.local_addr().expect("an address"), token: "x".into() };
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("somebody comes");
            let _ = stream.read(&mut [0; 1000]).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf").await.expect("written");
        });

        assert!(matches!(whole(&door, "x").await, Err(Trouble::Broken(_))));
    }
}
