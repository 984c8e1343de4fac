//! How a peer's cache is reached: gRPC over the overlay's TCP. Not here: what is said.

use std::future::Future;
use std::io;
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use crate::link::ports::{Connection, Ports};
use crate::proto::overlay::Prefix;
use crate::proto::role::Role;

/// A call to a peer that takes longer will not be answered.
const CONNECT: Duration = Duration::from_secs(5);

/// Bytes under way, of one blob and in all: what a link of 1 Gb/s and 60 ms holds.
pub(super) const WINDOWS: (u32, u32) = (4 << 20, 8 << 20);

/// A connection speaks at least so often, and is given up when nothing is answered for as long.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A way to every peer.
#[derive(Debug, Clone)]
pub struct Dialer {
    /// The overlay's ports.
    pub ports: Ports,
    /// Where peers' addresses are.
    pub overlay: Prefix,
    /// Where a peer's cache listens.
    pub port: u16,
}

impl Dialer {
    /// To a peer; it is called when something is to be said, and again where that was lost. `None` where the overlay has no such address.
    pub(super) fn channel(&self, peer: Role) -> Option<Channel> {
        let at = SocketAddrV4::new(self.overlay.address(peer)?, self.port);
        let endpoint = Endpoint::from_static("http://peer")
            .connect_timeout(CONNECT)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        Some(endpoint.connect_with_connector_lazy(Call { ports: self.ports.clone(), at }))
    }
}

#[derive(Clone)]
struct Call {
    ports: Ports,
    at: SocketAddrV4,
}

impl Service<Uri> for Call {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { ports, at } = self.clone();
        Box::pin(async move { ports.connect(at).await.map(TokioIo::new) })
    }
}
