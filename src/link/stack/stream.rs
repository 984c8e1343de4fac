//! A connection of the stack as tokio reads and writes one. Dropped before both sides have said all, it resets the peer: nobody must take
//! half of something for the whole.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use smoltcp::socket::tcp::{RecvError, Socket, State};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;
use super::core::Id;

/// One connection.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    id: Id,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, id: Id) -> Self {
        Self { shared, id }
    }

    /// Whether the peer has taken our call.
    pub(super) fn poll_connected(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| match socket.state() {
            State::SynSent | State::SynReceived => {
                socket.register_send_waker(context.waker());
                Poll::Pending
            }
            State::Closed | State::Listen => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            _ => Poll::Ready(Ok(())),
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Socket<'static>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self.shared.core().socket(self.id) {
            Some(socket) => work(socket),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// What was done wants a turn of the driver.
    fn served<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(done, Poll::Ready(Ok(_))) {
            self.shared.serve(self.id);
        }
        done
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let done = self.with(|socket| {
            let into = buffer.initialize_unfilled();
            match socket.recv_slice(into) {
                Ok(0) if !into.is_empty() => {
                    socket.register_recv_waker(context.waker());
                    Poll::Pending
                }
                Ok(len) => {
                    buffer.advance(len);
                    Poll::Ready(Ok(()))
                }
                Err(RecvError::Finished) => Poll::Ready(Ok(())),
                Err(RecvError::InvalidState) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        });
        self.served(done)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let done = self.with(|socket| match socket.send_slice(data) {
            Ok(0) if !data.is_empty() => {
                socket.register_send_waker(context.waker());
                Poll::Pending
            }
            Ok(len) => Poll::Ready(Ok(len)),
            Err(_) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        });
        self.served(done)
    }

    /// What was written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more comes from here. What the peer says still does.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = self.with(|socket| {
            socket.close();
            Poll::Ready(Ok(()))
        });
        self.served(done)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.release(self.id);
    }
}
