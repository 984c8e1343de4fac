//! All UDP sockets of this process: the main one, its twin for IPv6, and those that a spray opens from. Which of them a datagram leaves
//! from is decided in `proto`.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use nix::errno::Errno;

use crate::exit::Failure;
use crate::link::interfaces;
use crate::link::socket::{OneByOne, Received, Room, Socket};
use crate::proto::batch::Bulk;
use crate::proto::route::SocketId;
use crate::proto::transmit::Transmit;

/// The sockets by their ids.
///
/// INVARIANT: the main one is always there.
#[derive(Debug)]
pub struct Sockets {
    main: Socket,
    others: BTreeMap<SocketId, Socket>,
    /// The one that had its turn last: the next search begins behind it.
    last: SocketId,
    segments: bool,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It left.
    All,
    /// What is in it now has not left yet, as the socket is full. So many others did not leave at all.
    Later(usize),
    /// So many datagrams of it did not leave.
    Lost(usize),
    /// Likewise, as the interface on the way has become too narrow for them.
    TooLong(usize),
}

impl Sockets {
    /// Binds the main one to `port` (0: any), and its twin to any port, where the machine has IPv6.
    pub fn bind(port: u16) -> Result<Self, Failure> {
        let main = Socket::bind(port)?;
        let twin = Socket::bind_v6().map(|twin| (SocketId::V6, twin));
        Ok(Self { main, others: twin.into_iter().collect(), last: SocketId::MAIN, segments: true })
    }

    /// Binds the main one alone.
    pub fn bind_one(port: u16) -> Result<Self, Failure> {
        Ok(Self { main: Socket::bind(port)?, others: BTreeMap::new(), last: SocketId::MAIN, segments: true })
    }

    /// Where the main one listens.
    pub fn port(&self) -> u16 {
        self.main.port()
    }

    /// Fresh ones in the place of all.
    pub fn rebind(&mut self) -> Result<(), Failure> {
        let segments = self.segments;
        *self = Self { segments, ..Self::bind(0)? };
        Ok(())
    }

    /// Where this machine's interfaces can be reached by these sockets.
    pub fn host_addresses(&self) -> Vec<SocketAddr> {
        let twin = self.others.get(&SocketId::V6).map(Socket::port);
        interfaces::host_addresses(self.main.port(), twin)
    }

    /// Waits until one of them has a datagram, and says which: in turn, so that one that always has some leaves time for the others.
    pub async fn readable(&self) -> io::Result<SocketId> {
        poll_fn(|context| {
            let behind = self.all().filter(|(id, _)| *id > self.last);
            for (id, socket) in behind.chain(self.all().filter(|(id, _)| *id <= self.last)) {
                if let Poll::Ready(ready) = socket.poll_readable(context) {
                    return Poll::Ready(ready.map(|()| id));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// What is there on one of them; `None` when there is nothing.
    pub fn try_receive(&mut self, id: SocketId, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        self.last = id;
        self.get_mut(id).map_or(Ok(None), |socket| socket.try_receive(buffer))
    }

    /// Sends now or not at all; binds a socket that does not exist yet.
    pub fn send(&mut self, transmit: &Transmit) -> io::Result<()> {
        let id = transmit.socket;
        if id >= SocketId::FIRST_OF_SPRAY && !self.others.contains_key(&id) {
            self.others.insert(id, Socket::bind(0).map_err(|failure| io::Error::other(failure.what))?);
        }
        self.get(id).ok_or_else(none)?.send(transmit)
    }

    /// What tells when `id`, which has just been full, takes more.
    pub fn room(&self, id: SocketId) -> io::Result<Room> {
        self.get(id).ok_or_else(none)?.room()
    }

    /// Sends a batch now. Where the socket is full, what has left is not in the batch any more.
    pub fn send_bulk(&mut self, bulk: &mut Bulk) -> Sent {
        let Some(socket) = self.get(bulk.socket) else { return Sent::Lost(bulk.batch.len()) };
        if self.segments || bulk.batch.len() == 1 {
            match socket.send_batch(bulk.to, &bulk.batch) {
                Ok(()) => return Sent::All,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Sent::Later(0),
                Err(error) if !is_refusal(&error) => return Sent::Lost(bulk.batch.len()),
                Err(_) => {}
            }
        }
        let OneByOne { tried, lost, too_long } = socket.send_one_by_one(bulk.to, &bulk.batch);
        self.segments &= !tells_of_batches(tried, lost, too_long);
        bulk.batch.skip(tried);
        match (lost, too_long) {
            _ if !bulk.batch.is_empty() => Sent::Later(lost),
            (0, _) => Sent::All,
            (_, 0) => Sent::Lost(lost),
            _ => Sent::TooLong(lost),
        }
    }

    /// Whether the system takes several datagrams with one call, as far as is known.
    pub fn segments(&self) -> bool {
        self.segments
    }

    /// Closes those of sprays that are not of use any more.
    pub fn keep(&mut self, used: impl Fn(SocketId) -> bool) {
        self.others.retain(|id, _| *id == SocketId::V6 || used(*id));
    }

    fn get(&self, id: SocketId) -> Option<&Socket> {
        if id == SocketId::MAIN { Some(&self.main) } else { self.others.get(&id) }
    }

    fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        if id == SocketId::MAIN { Some(&mut self.main) } else { self.others.get_mut(&id) }
    }

    fn all(&self) -> impl Iterator<Item = (SocketId, &Socket)> {
        std::iter::once((SocketId::MAIN, &self.main)).chain(self.others.iter().map(|(id, socket)| (*id, socket)))
    }
}

fn none() -> io::Error {
    io::Error::new(io::ErrorKind::AddrNotAvailable, "this machine has no such socket")
}

/// Whether it is the putting together that was refused: some of `len` have passed alone, and not because they are shorter than those that
/// are too long.
fn tells_of_batches(len: usize, lost: usize, too_long: usize) -> bool {
    lost < len && too_long == 0
}

/// Whether a batch may have been refused because it is one: a network card that cannot make checksums (EIO), a kernel or a path that does
/// not take such segments.
fn is_refusal(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EIO | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOPROTOOPT | Errno::EMSGSIZE))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::proto::batch::Batches;
    use crate::proto::role::Role;
    use crate::proto::route::Route;

    const SENT: [&[u8]; 4] = [b"one", b"two", b"six", b"x"];

    fn bulk(to: SocketAddr) -> Bulk {
        let mut batches = Batches::default();
        for datagram in SENT {
            batches.add(Role::Primary, Route::to(to), datagram.len(), |buffer| {
                buffer[..datagram.len()].copy_from_slice(datagram);
                Some(datagram.len())
            });
        }
        Bulk { socket: SocketId::MAIN, to, batch: batches.pop().expect("one batch") }
    }

    fn received(receiver: &UdpSocket) -> Vec<Vec<u8>> {
        receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("a deadline");
        let mut buffer = [0; 100];
        let mut next = || receiver.recv(&mut buffer).map(|len| buffer[..len].to_vec());
        SENT.iter().map(|_| next().expect("a datagram")).collect()
    }

    #[tokio::test]
    async fn a_batch_arrives_as_the_datagrams_that_it_is_made_of() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let mut sockets = Sockets::bind(0).expect("a free port");
        let mut bulk = bulk(receiver.local_addr().expect("bound"));
        assert_eq!(sockets.send_bulk(&mut bulk), Sent::All);
        assert_eq!(received(&receiver), SENT);
        assert!(sockets.segments());
    }

    #[tokio::test]
    async fn a_batch_that_the_system_refuses_leaves_datagram_by_datagram_and_so_do_those_after_it() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let mut sockets = Sockets::bind(0).expect("a free port");
        sockets.main.refuse_batches();
        let to = receiver.local_addr().expect("bound");
        for _ in 0..2 {
            assert_eq!(sockets.send_bulk(&mut bulk(to)), Sent::All);
            assert_eq!(received(&receiver), SENT);
            assert!(!sockets.segments());
        }
    }

    #[tokio::test]
    async fn a_socket_that_always_has_something_leaves_the_others_their_turn() {
        let mut sockets = Sockets::bind(0).expect("a free port");
        let other = SocketId::FIRST_OF_SPRAY;
        sockets.others.insert(other, Socket::bind(0).expect("a free port"));
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let (mut buffer, mut turns) = (vec![0; 1 << 16], vec![]);
        for port in [sockets.main.port(), sockets.others[&other].port()].repeat(2) {
            sender.send_to(b"x", ("127.0.0.1", port)).expect("sent");
        }
        while turns.len() < 4 {
            let id = sockets.readable().await.expect("a socket");
            let read = sockets.try_receive(id, &mut buffer[..1]).expect("a datagram");
            turns.extend(read.map(|_| id));
        }
        assert_eq!(turns.iter().filter(|id| **id == other).count(), 2);
        assert_eq!(turns[..2].iter().filter(|id| **id == other).count(), 1, "{turns:?}");
    }

    #[test]
    fn a_refused_batch_tells_of_batches_only_where_its_datagrams_pass_alone() {
        assert!(tells_of_batches(4, 0, 0) && tells_of_batches(4, 1, 0));
        assert!(!tells_of_batches(4, 4, 0), "nothing passes");
        assert!(!tells_of_batches(4, 3, 3), "the last one is shorter");
    }

    #[tokio::test]
    async fn what_comes_at_once_is_read_datagram_by_datagram() {
        let (mut one, mut other) = (Sockets::bind(0).expect("a free port"), Sockets::bind(0).expect("a free port"));
        let to = SocketAddr::from(([127, 0, 0, 1], other.main.port()));
        assert_eq!(one.send_bulk(&mut bulk(to)), Sent::All);
        let (mut buffer, mut got) = (vec![0; 1 << 16], vec![]);
        while got.len() < SENT.len() {
            let id = other.readable().await.expect("a socket");
            while let Some(received) = other.try_receive(id, &mut buffer).expect("a datagram") {
                got.extend(received.datagrams(&buffer).map(<[u8]>::to_vec));
            }
        }
        assert_eq!(got, SENT);
    }
}
