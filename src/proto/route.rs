//! How a datagram gets to a peer: from which of our sockets to which address, or through whom. Which route is taken is not here but in
//! [`super::path`].

use std::fmt;
use std::net::SocketAddr;

use super::candidate::is_private;
use super::role::Role;

/// One of our own UDP sockets. The driver binds those beyond [`SocketId::V6`] when they are first sent from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u16);

impl SocketId {
    /// The one that STUN asks from and that announcements tell of.
    pub const MAIN: Self = Self(0);
    /// Its twin for IPv6.
    pub const V6: Self = Self(1);
    /// The first of those that a spray opens from.
    pub const FIRST_OF_SPRAY: Self = Self(2);

    /// The socket that `addr` is reached from, unless a route says otherwise.
    pub fn towards(addr: SocketAddr) -> Self {
        if addr.is_ipv4() { Self::MAIN } else { Self::V6 }
    }
}

/// Somebody who passes datagrams on (RFC 8445's relayed candidate, without TURN).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relay {
    /// A peer that both have a direct path to.
    Peer(Role),
    /// The n-th `mesh relay` that we are registered with.
    Server(u8),
}

/// A way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// From a socket of ours to an address of the peer's.
    Direct {
        /// Ours.
        socket: SocketId,
        /// The peer's.
        addr: SocketAddr,
    },
    /// Through somebody else.
    Relayed(Relay),
}

/// How good a route is before any measurement, best first (RFC 8445 section 5.1.2.2: host, reflexive, relayed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Without a NAT between: the same machine or network.
    Local,
    /// Over the internet.
    Direct,
    /// Through a relay.
    Relayed,
}

impl Route {
    /// To `addr` from the socket that serves its family.
    pub fn to(addr: SocketAddr) -> Self {
        Self::Direct { socket: SocketId::towards(addr), addr }
    }

    /// Where a direct one leads.
    pub fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Direct { addr, .. } => Some(*addr),
            Self::Relayed(_) => None,
        }
    }

    /// Whether nobody else passes it on.
    pub fn is_direct(&self) -> bool {
        matches!(self, Self::Direct { .. })
    }

    /// Its tier.
    pub fn tier(&self) -> Tier {
        match self {
            Self::Direct { addr, .. } if is_private(addr.ip()) => Tier::Local,
            Self::Direct { .. } => Tier::Direct,
            Self::Relayed(_) => Tier::Relayed,
        }
    }
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(role) => write!(f, "{role}"),
            Self::Server(_) => f.write_str("relay"),
        }
    }
}
