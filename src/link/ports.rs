//! The overlay's TCP ports, as this process uses them: calls to a peer's, and takes calls to its own. By the kernel where there is a TUN
//! device, else by our own stack; whoever asks sees no difference. What is led where is not here but in [`super::forward`].

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::libc::linger;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{KeepAlive, Linger, TcpKeepIdle, TcpKeepInterval};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::stack;

/// A quiet connection speaks so often, in seconds: where its peer is gone, the node answers with a reset. As the stack does.
const KEEP_ALIVE: u32 = 5;

/// A way to the overlay's ports.
#[derive(Debug, Clone)]
pub enum Ports {
    /// Through a TUN device that has this address of ours.
    Kernel(Ipv4Addr),
    /// Through our own stack.
    Stack(stack::Handle),
}

/// Something to read from and to write to. Dropped before both sides have said all, it is reset, so that nobody takes half for the whole.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl Duplex for stack::Stream {}
impl Duplex for Kernel {}

/// Either kind of connection.
pub type Connection = Box<dyn Duplex>;

/// Takes calls to one port of ours.
#[derive(Debug)]
pub enum Listener {
    /// By the kernel.
    Kernel(TcpListener),
    /// By our own stack.
    Stack(stack::Listener),
}

impl Ports {
    /// Whether programs on this machine reach the overlay only through us.
    pub fn are_ours_alone(&self) -> bool {
        matches!(self, Self::Stack(_))
    }

    /// Calls a peer's port.
    pub async fn connect(&self, peer: SocketAddrV4) -> io::Result<Connection> {
        match self {
            Self::Kernel(_) => {
                let stream = TcpStream::connect(peer).await?;
                keep_alive(&stream)?;
                Ok(Box::new(Kernel::new(stream)?))
            }
            Self::Stack(stack) => Ok(Box::new(stack.connect(peer).await?)),
        }
    }

    /// Takes calls to `port` of ours.
    pub fn listen(&self, port: u16) -> io::Result<Listener> {
        match self {
            Self::Kernel(own) => Ok(Listener::Kernel(listen(SocketAddrV4::new(*own, port))?)),
            Self::Stack(stack) => Ok(Listener::Stack(stack.listen(port)?)),
        }
    }
}

impl Listener {
    /// The next call.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        match self {
            Self::Kernel(listener) => {
                let (stream, _) = listener.accept().await?;
                keep_alive(&stream)?;
                Ok(Box::new(Kernel::new(stream)?))
            }
            Self::Stack(listener) => Ok(Box::new(listener.accept().await?)),
        }
    }
}

/// Listens at an address of this machine; port 0 is any.
pub(super) fn listen(at: SocketAddrV4) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    setsockopt(stream, KeepAlive, &true)?;
    setsockopt(stream, TcpKeepIdle, &KEEP_ALIVE)?;
    setsockopt(stream, TcpKeepInterval, &KEEP_ALIVE)?;
    Ok(())
}

/// A connection of the kernel's.
#[derive(Debug)]
pub(super) struct Kernel {
    stream: TcpStream,
    heard_all: bool,
    said_all: bool,
}

impl Kernel {
    /// What goes through us was gathered by its sender already, so nothing waits for more. A close is a reset (socket(7), SO_LINGER) until
    /// both sides have said all: so it is too when the kernel closes, because this process was killed.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_zero_linger()?;
        Ok(Self { stream, heard_all: false, said_all: false })
    }
}

impl AsyncRead for Kernel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(context, buffer);
        let at_its_end = buffer.filled().len() == before && buffer.remaining() > 0;
        self.heard_all |= matches!(done, Poll::Ready(Ok(()))) && at_its_end;
        done
    }
}

impl AsyncWrite for Kernel {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.said_all = true;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if self.heard_all && self.said_all {
            let _ = setsockopt(&self.stream, Linger, &linger { l_onoff: 0, l_linger: 0 });
        }
    }
}
