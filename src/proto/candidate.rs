//! A transport address a peer may be reached at (RFC 8445 section 5.1.1).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The most candidates an announcement carries.
pub const MAX_CANDIDATES: usize = 8;

/// How a candidate was learned (RFC 8445 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An address of an interface of the peer itself.
    Host,
    /// What a STUN server saw.
    ServerReflexive,
}

/// One address, and how it was learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// How it was learned.
    pub kind: Kind,
    /// Where to send.
    pub addr: SocketAddr,
}

impl Candidate {
    /// An address of an own interface.
    pub fn host(addr: SocketAddr) -> Self {
        Self { kind: Kind::Host, addr }
    }

    /// An address seen by a STUN server.
    pub fn server_reflexive(addr: SocketAddr) -> Self {
        Self { kind: Kind::ServerReflexive, addr }
    }

    /// Whether a datagram may be sent there: a unicast address that means the same everywhere, or on one network, and a port. Others come
    /// from broken or hostile announcements.
    pub fn is_usable(&self) -> bool {
        let unicast = match self.addr.ip() {
            IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => {
                !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback() && !ip.is_unicast_link_local()
            }
        };
        unicast && self.addr.port() != 0
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.addr)
    }
}

/// Whether an address is of a network that is not the public internet (RFC 1918, RFC 6598, RFC 3927, loopback).
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_address_space_counts_as_private() {
        for (text, private) in [("100.64.0.1", true), ("100.128.0.1", false), ("10.1.1.1", true), ("20.1.2.3", false)] {
            assert_eq!(is_private(text.parse().expect("an address")), private, "{text}");
        }
    }

    #[test]
    fn addresses_that_nobody_can_have_are_not_usable() {
        for text in
            ["0.0.0.0:1", "224.0.0.1:9", "255.255.255.255:9", "1.2.3.4:0", "[::1]:5", "[fe80::1]:5", "[2001:db8::1]:0"]
        {
            assert!(!Candidate::host(text.parse().expect("an address")).is_usable(), "{text}");
        }
        for text in ["192.0.2.1:5", "[2001:db8::1]:5"] {
            assert!(Candidate::host(text.parse().expect("an address")).is_usable(), "{text}");
        }
    }
}
