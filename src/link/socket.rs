//! A UDP socket: STUN, probes, WireGuard and relay frames share it, and so share one NAT mapping. How many there are is not here but in
//! [`super::sockets`].

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::{RcvBufForce, UdpGroSegment};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt};
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::exit::{Exit, Failure};
use crate::proto::batch::Batch;
use crate::proto::transmit::Transmit;

/// What the kernel may keep for us while we are busy: 7 MiB is 40 ms of 1.4 Gb/s.
const RECEIVE_BUFFER: usize = 7 << 20;

/// Likewise for sending.
const SEND_BUFFER: usize = 2 << 20;

/// The socket.
///
/// The event loop watches it for datagrams alone. Were it watched for room as well, each datagram that has left would wake us: the kernel
/// tells of every buffer that it frees.
#[derive(Debug)]
pub struct Socket {
    socket: AsyncFd<socket2::Socket>,
    port: u16,
    /// Room for what the kernel says beside the data.
    control: Vec<u8>,
}

/// What became of the datagrams of a batch that were sent one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OneByOne {
    /// How many had their turn before the socket was full.
    pub tried: usize,
    /// How many of those the system did not take.
    pub lost: usize,
    /// How many of those were too long for it.
    pub too_long: usize,
}

/// Watches a full socket until it takes more.
#[derive(Debug)]
pub struct Room(AsyncFd<socket2::Socket>);

impl Room {
    /// Waits until something can be sent, since the last time that it was waited for.
    pub async fn made(&self) -> io::Result<()> {
        self.0.writable().await?.clear_ready();
        Ok(())
    }
}

/// Until there is room; never, where nothing waits for any. A socket that fails has some: who tries it again learns why.
pub async fn made(room: Option<&Room>) {
    match room {
        Some(room) => drop(room.made().await),
        None => std::future::pending().await,
    }
}

/// What came in at once: datagrams of one sender, all of one length but for the last (`UDP_GRO` of Linux).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Who sent them.
    pub from: SocketAddr,
    len: usize,
    segment_size: usize,
}

impl Received {
    /// The datagrams, as they lie in the buffer.
    pub fn datagrams<'b>(&self, buffer: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        buffer[..self.len].chunks(self.segment_size.max(1))
    }
}

impl Socket {
    /// Binds `port` of every IPv4 address; 0 is any.
    pub fn bind(port: u16) -> Result<Self, Failure> {
        Self::open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).map_err(|error| {
            let hint = if error.kind() == io::ErrorKind::AddrInUse {
                "another process has it: choose another with --listen (MESH_PORT), or 0 for any"
            } else {
                "choose another with --listen (MESH_PORT), or 0 for any"
            };
            Failure::new(Exit::InUse, "M206", format!("cannot listen on UDP port {port}: {error}"), hint)
        })
    }

    /// Binds any port of every IPv6 address, and of IPv6 alone. `None` where the machine has none.
    pub fn bind_v6() -> Option<Self> {
        Self::open(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).ok()
    }

    fn open(addr: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        } else {
            // Probes of full length tell the path's MTU; the kernel shall neither cut them nor know better.
            never_fragment(&socket);
        }
        if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
            let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        }
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        if setsockopt(&socket, UdpGroSegment, &true).is_err() {
            tracing::debug!("the kernel does not put received datagrams together");
        }
        let port = socket.local_addr()?.as_socket().map_or(0, |addr| addr.port());
        let socket = watch(socket, Interest::READABLE)?;
        Ok(Self { socket, port, control: nix::cmsg_space!(i32) })
    }

    /// The port that was bound.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until a datagram can be read.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await.map(drop)
    }

    /// Whether a datagram can be read; wakes `context` when that changes.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_read_ready(context).map_ok(drop)
    }

    /// For a socket that has just been full.
    pub fn room(&self) -> io::Result<Room> {
        watch(self.socket.get_ref().try_clone()?, Interest::WRITABLE).map(Room)
    }

    /// What is there; `None` when there is nothing. Beyond the buffer all is lost.
    pub fn try_receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let Self { socket, control, .. } = self;
        let received = socket.try_io(Interest::READABLE, |socket| receive(socket.as_raw_fd(), buffer, control));
        match received {
            Ok(received) => Ok(Some(received)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends now or not at all. A TTL goes with this datagram alone (ip(7), IP_TTL as ancillary data).
    pub fn send(&self, transmit: &Transmit) -> io::Result<()> {
        let (data, to) = ([IoSlice::new(&transmit.bytes)], SockaddrStorage::from(transmit.to));
        let ttl = transmit.ttl.map(i32::from);
        let control = match (&ttl, transmit.to.is_ipv4()) {
            (None, _) => None,
            (Some(ttl), true) => Some(ControlMessage::Ipv4Ttl(ttl)),
            (Some(ttl), false) => Some(ControlMessage::Ipv6HopLimit(ttl)),
        };
        sendmsg(self.socket.as_raw_fd(), &data, control.as_slice(), MsgFlags::MSG_DONTWAIT, Some(&to))?;
        Ok(())
    }

    /// Sends all datagrams with one call, which the kernel or the network card cuts again (`UDP_SEGMENT`, udp(7)).
    pub fn send_batch(&self, to: SocketAddr, batch: &Batch) -> io::Result<()> {
        let size = u16::try_from(batch.segment_size()).map_err(io::Error::other)?;
        let (data, to) = ([IoSlice::new(batch.bytes())], SockaddrStorage::from(to));
        let control = [ControlMessage::UdpGsoSegments(&size)];
        let control = if batch.len() > 1 { &control[..] } else { &[] };
        sendmsg(self.socket.as_raw_fd(), &data, control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
        Ok(())
    }

    /// As [`Self::send_batch`], with a call for each, until the socket is full.
    pub fn send_one_by_one(&self, to: SocketAddr, batch: &Batch) -> OneByOne {
        let (to, mut outcome) = (SockaddrStorage::from(to), OneByOne::default());
        for datagram in batch.datagrams() {
            let data = [IoSlice::new(datagram)];
            match sendmsg(self.socket.as_raw_fd(), &data, &[], MsgFlags::MSG_DONTWAIT, Some(&to)) {
                Ok(_) => {}
                Err(Errno::EAGAIN) => break,
                Err(error) => {
                    outcome.lost += 1;
                    outcome.too_long += usize::from(error == Errno::EMSGSIZE);
                }
            }
            outcome.tried += 1;
        }
        outcome
    }
}

#[expect(unsafe_code, reason = "the event loop cannot know that a descriptor stays what it is")]
fn watch(socket: socket2::Socket, interest: Interest) -> io::Result<AsyncFd<socket2::Socket>> {
    // SAFETY: a `socket2::Socket` owns one descriptor from its making to its end, which is after the watch's.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

fn receive(socket: RawFd, buffer: &mut [u8], control: &mut [u8]) -> io::Result<Received> {
    let mut data = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(socket, &mut data, Some(control), MsgFlags::MSG_DONTWAIT)?;
    let segment_size = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
        _ => None,
    });
    let len = message.bytes;
    let from = message.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Received { from, len, segment_size: segment_size.unwrap_or(len) })
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|addr| SocketAddr::V4((*addr).into()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|addr| SocketAddr::V6((*addr).into())))
}

/// Sets IP_MTU_DISCOVER to IP_PMTUDISC_PROBE (ip(7)). Where the kernel refuses, large probes may pass in pieces, and the MTU is taken for
/// larger than it is: slower, not wrong.
fn never_fragment(socket: &impl AsRawFd) {
    if !set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE) {
        tracing::debug!("the kernel does not let us forbid fragments");
    }
}

/// setsockopt(2) of a number; false where the kernel refuses.
#[expect(unsafe_code, reason = "no crate in use has these options")]
fn set_option(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> bool {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is open as long as the borrow, and the kernel reads `len` bytes of `value`, which is that long.
    unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) == 0 }
}

#[cfg(test)]
impl Socket {
    /// Sends without checksums from now on, which the kernel refuses for batches.
    pub(super) fn refuse_batches(&self) {
        assert!(set_option(&self.socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1));
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdSocket;
    use std::time::Duration;

    use nix::sys::socket::sockopt::Ipv4RecvTtl;
    use nix::sys::socket::{ControlMessageOwned, recvmsg};

    use super::*;
    use crate::proto::route::SocketId;

    #[tokio::test]
    async fn a_ttl_goes_with_one_datagram_and_not_with_the_next() {
        let receiver = StdSocket::bind("127.0.0.1:0").expect("a free port");
        receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("a deadline");
        setsockopt(&receiver, Ipv4RecvTtl, &true).expect("Linux tells the TTL");
        let to = receiver.local_addr().expect("bound");
        let socket = Socket::bind(0).expect("a free port");
        for ttl in [Some(3), None] {
            socket.send(&Transmit { socket: SocketId::MAIN, to, ttl, bytes: vec![1] }).expect("sent");
        }
        assert_eq!(received_ttl(&receiver), Some(3));
        assert_eq!(received_ttl(&receiver), Some(64));
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_flag() {
        let taken = StdSocket::bind("0.0.0.0:0").expect("a free port");
        let port = taken.local_addr().expect("bound").port();
        let failure = Socket::bind(port).expect_err("it is taken");
        assert_eq!((failure.exit, failure.code), (Exit::InUse, "M206"));
        assert!(failure.what.contains(&port.to_string()) && failure.hint.contains("--listen"));
    }

    fn received_ttl(socket: &StdSocket) -> Option<i32> {
        let mut space = nix::cmsg_space!(i32);
        let mut byte = [0];
        let mut data = [IoSliceMut::new(&mut byte)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut space), MsgFlags::empty()).ok()?;
        message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4Ttl(ttl) => Some(ttl),
            _ => None,
        })
    }
}
