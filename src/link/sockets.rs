//! All UDP sockets of this process: the main one, its twin for IPv6, and those that a spray opens from. Which of them a datagram leaves
//! from is decided in `proto`.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use crate::exit::Failure;
use crate::link::interfaces;
use crate::link::socket::Socket;
use crate::proto::route::SocketId;
use crate::proto::transmit::Transmit;

/// The sockets by their ids.
///
/// INVARIANT: the main one is always there.
#[derive(Debug)]
pub struct Sockets {
    main: Socket,
    others: BTreeMap<SocketId, Socket>,
}

impl Sockets {
    /// Binds the main one to `port` (0: any), and its twin to any port, where the machine has IPv6.
    pub fn bind(port: u16) -> Result<Self, Failure> {
        let main = Socket::bind(port)?;
        let twin = Socket::bind_v6().map(|twin| (SocketId::V6, twin));
        Ok(Self { main, others: twin.into_iter().collect() })
    }

    /// Fresh ones in the place of all.
    pub fn rebind(&mut self) -> Result<(), Failure> {
        *self = Self::bind(0)?;
        Ok(())
    }

    /// Where this machine's interfaces can be reached by these sockets.
    pub fn host_addresses(&self) -> Vec<SocketAddr> {
        let twin = self.others.get(&SocketId::V6).map(Socket::port);
        interfaces::host_addresses(self.main.port(), twin)
    }

    /// Waits until one of them has a datagram, and says which.
    pub async fn readable(&self) -> io::Result<SocketId> {
        poll_fn(|context| {
            for (id, socket) in self.all() {
                if let Poll::Ready(ready) = socket.poll_readable(context) {
                    return Poll::Ready(ready.map(|()| id));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// A datagram that is there on one of them; `None` when there is none.
    pub fn try_receive(&self, id: SocketId, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
        self.get(id).map_or(Ok(None), |socket| socket.try_receive(buffer))
    }

    /// Sends now or not at all; binds a socket that does not exist yet.
    pub fn send(&mut self, transmit: &Transmit) -> io::Result<()> {
        let id = transmit.socket;
        if id >= SocketId::FIRST_OF_SPRAY && !self.others.contains_key(&id) {
            self.others.insert(id, Socket::bind(0).map_err(|failure| io::Error::other(failure.what))?);
        }
        let none = || io::Error::new(io::ErrorKind::AddrNotAvailable, "this machine has no such socket");
        self.get(id).ok_or_else(none)?.send(transmit)
    }

    /// Closes those of sprays that are not of use any more.
    pub fn keep(&mut self, used: impl Fn(SocketId) -> bool) {
        self.others.retain(|id, _| *id == SocketId::V6 || used(*id));
    }

    fn get(&self, id: SocketId) -> Option<&Socket> {
        if id == SocketId::MAIN { Some(&self.main) } else { self.others.get(&id) }
    }

    fn all(&self) -> impl Iterator<Item = (SocketId, &Socket)> {
        std::iter::once((SocketId::MAIN, &self.main)).chain(self.others.iter().map(|(id, socket)| (*id, socket)))
    }
}
