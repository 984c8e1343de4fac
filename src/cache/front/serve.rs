//! Who connects is taken here: HTTP/1.1 as the fronts answer it, and HTTP/2 with prior knowledge (RFC 9113, section 3.3), which carries gRPC alone. Not here:
//! what is answered.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_io_timeout::TimeoutStream;

use super::Fronts;
use super::prompt::Prompt;
use crate::cache::reapi::{self, Reapi};
use crate::cache::token::Grant;

/// Of a request; what a connection may have in memory.
const LONGEST_HEAD: usize = 128 << 10;

/// A listener that cannot take a connection tries again after this.
const PAUSE: Duration = Duration::from_millis(300);

/// No request of HTTP/1.1 begins like HTTP/2's preface (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI";

/// Somebody who has sent less is looked at so often.
const LOOK: Duration = Duration::from_millis(10);

/// Bytes that may be on their way in a call, and in all of a connection; and in a frame.
const WINDOW: u32 = 1 << 20;
const WINDOWS: u32 = 4 << 20;
const LONGEST_FRAME: u32 = 64 << 10;

/// Of a call's headers, uncompressed.
const LONGEST_HEADERS: u32 = 16 << 10;

/// Calls at once in a connection: the least that RFC 9113, section 6.5.2, recommends.
const CALLS: u32 = 100;

/// The last header of a connection that was let in: a MAC for every request would be a tenth of a small one's cost.
type Known = Mutex<Option<(HeaderValue, Grant)>>;

/// An HTTP/2 connection.
#[derive(Debug)]
struct Calls {
    fronts: Fronts,
    known: Known,
    /// Told of somebody without a token.
    stranger: Notify,
}

impl Fronts {
    /// Answers whoever connects, for ever.
    pub async fn serve(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let fronts = self.clone();
                    tokio::spawn(async move {
                        fronts.converse(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection to the cache");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn converse(self, stream: TcpStream) {
        // Answers are whole writes; waiting for more would only add a delay.
        let _ = stream.set_nodelay(true);
        let patience = self.limits.patience;
        let Ok(speaks_http2) = tokio::time::timeout(patience, speaks_http2(&stream)).await else { return };
        let mut stream = TimeoutStream::new(Prompt(stream));
        stream.set_write_timeout(Some(patience));
        let stream = TokioIo::new(Box::pin(stream));
        let ended = if speaks_http2 { self.over_http2(stream).await } else { self.over_http1(stream).await };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the cache ended early");
        }
    }

    /// Answers on one connection, until it ends. Who takes nothing of an answer is waited for.
    ///
    /// # Errors
    /// If it ends in the middle.
    pub async fn over_http1<S>(self, stream: S) -> hyper::Result<()>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin,
    {
        let known = Known::default();
        let answer = service_fn(|request: Request<Incoming>| {
            let (fronts, grant) = (&self, self.grant(&known, request.headers()));
            async move { Ok::<_, Infallible>(fronts.answer(grant, request).await) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(self.limits.patience).max_buf_size(LONGEST_HEAD);
        server.serve_connection(stream, answer).await
    }

    /// Who has no token is told so, and shall not hold a place; nor who never calls.
    async fn over_http2<S>(self, stream: S) -> hyper::Result<()>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin,
    {
        let patience = self.limits.patience;
        let calls = Arc::new(Calls { fronts: self, known: Known::default(), stranger: Notify::new() });
        let answering = Arc::clone(&calls);
        let answer = service_fn(move |request: Request<Incoming>| {
            let calls = Arc::clone(&answering);
            async move { Ok::<_, Infallible>(calls.answer(request).await) }
        });
        let mut connection = std::pin::pin!(http2_server(patience).serve_connection(stream, answer));
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = calls.stranger.notified() => {}
            () = calls.never_calls(patience) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::time::timeout(patience, connection).await.unwrap_or(Ok(()))
    }

    /// What the bearer of a request's token may do.
    fn grant(&self, known: &Known, headers: &HeaderMap) -> Option<Grant> {
        let header = headers.get(AUTHORIZATION)?;
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((last, grant)) if last == header => Some(grant.clone()),
            _ => {
                let grant = header.to_str().ok().and_then(|header| self.tokens.authorize(header))?;
                *known = Some((header.clone(), grant.clone()));
                Some(grant)
            }
        }
    }
}

impl Calls {
    async fn answer(&self, request: Request<Incoming>) -> reapi::Answer {
        if !Reapi::is_call(&request) {
            let mut answer = Response::default();
            *answer.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return answer;
        }
        match self.fronts.grant(&self.known, request.headers()) {
            Some(grant) => self.fronts.reapi.answer(grant, request).await,
            None => {
                self.stranger.notify_one();
                Reapi::stranger()
            }
        }
    }

    /// Comes where nobody has shown a token for so long.
    async fn never_calls(&self, patience: Duration) {
        tokio::time::sleep(patience).await;
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            std::future::pending().await
        }
    }
}

/// Looks at what comes first, and leaves it where it is.
async fn speaks_http2(stream: &TcpStream) -> bool {
    let mut first = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut first).await {
            Ok(len @ 1..) if len < PREFACE.len() && PREFACE.starts_with(&first[..len]) => {
                tokio::time::sleep(LOOK).await;
            }
            Ok(len) => return first[..len] == *PREFACE,
            Err(_) => return false,
        }
    }
}

/// Who does not answer a ping any more has lost its place.
fn http2_server(patience: Duration) -> http2::Builder<TokioExecutor> {
    let mut server = http2::Builder::new(TokioExecutor::new());
    server.timer(TokioTimer::new()).keep_alive_interval(patience).keep_alive_timeout(patience);
    server.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOWS).max_frame_size(LONGEST_FRAME);
    server.max_concurrent_streams(CALLS).max_header_list_size(LONGEST_HEADERS);
    server
}
