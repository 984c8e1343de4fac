//! Can two peers meet directly, and how must they go about it? One pure function of what is known about both sides. How a path is
//! opened is not here but in [`super::path`]; which ports to try in [`super::guess`].
//!
//! The outcomes are those of a lab with real NATs, where both sides open with a low TTL before they send for good.

use std::fmt;

use super::filtering::Filtering;
use super::nat::Behaviour;

/// The most egress addresses that are searched: with four, 256 sockets and 1024 probes meet in two of three tries.
const MOST_EGRESS: u8 = 4;

/// Between a peer and the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// No STUN server answered: UDP does not pass at all.
    Blocked,
    /// A public address without a NAT, that admits everyone. One behind a firewall that admits answers alone is [`Side::Nat`] with an
    /// endpoint-independent mapping.
    Public,
    /// A NAT. One whose mapping is unknown counts as endpoint-independent, since most are; an unknown filtering counts as the strictest.
    Nat(Behaviour, Filtering),
}

impl Side {
    /// The NAT whose mapping a peer cannot know.
    fn dependent(&self) -> Option<&Behaviour> {
        match self {
            Self::Nat(behaviour, _) if behaviour.is_dependent() => Some(behaviour),
            _ => None,
        }
    }

    /// Whether a datagram from an unexpected port of an expected address comes in.
    fn admits_any_port(&self) -> bool {
        match self {
            Self::Blocked => false,
            Self::Public => true,
            Self::Nat(_, filtering) => {
                matches!(filtering, Filtering::EndpointIndependent | Filtering::AddressDependent)
            }
        }
    }
}

/// Why there is no direct path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Both mappings depend on the destination: 2^32 pairs of ports to search.
    BothDependent,
    /// One does, over too many egress addresses to search.
    EgressAddresses,
}

/// How two sides meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crossing {
    /// Open both, then send.
    Direct,
    /// The port of one side has to be guessed, and is one of few.
    Predict,
    /// The port of one side has to be guessed, and may be any: many sockets there, many probes here.
    Spray,
    /// Through another peer.
    Relay(Obstacle),
    /// Not at all, since a relay needs UDP too.
    Blocked,
}

impl Crossing {
    /// The failure code that explains it, for all that is not simply direct.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Direct => None,
            Self::Predict | Self::Spray => Some("M202"),
            Self::Relay(Obstacle::BothDependent) => Some("M203"),
            Self::Relay(Obstacle::EgressAddresses) => Some("M205"),
            Self::Blocked => Some("M201"),
        }
    }
}

impl fmt::Display for Crossing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Predict => "direct once one NAT's next port is predicted",
            Self::Spray => "direct once one NAT's port is found by many probes",
            Self::Relay(Obstacle::BothDependent) => "relayed: both NATs map by destination",
            Self::Relay(Obstacle::EgressAddresses) => "relayed: one NAT maps by destination over many egress addresses",
            Self::Blocked => "no path: UDP is blocked",
        })
    }
}

/// How `a` and `b` meet; the same for `b` and `a`.
pub fn can_punch(a: &Side, b: &Side) -> Crossing {
    if *a == Side::Blocked || *b == Side::Blocked {
        return Crossing::Blocked;
    }
    match (a.dependent(), b.dependent()) {
        (None, None) => Crossing::Direct,
        (Some(hard), None) => towards(hard, b),
        (None, Some(hard)) => towards(hard, a),
        (Some(_), Some(_)) => Crossing::Relay(Obstacle::BothDependent),
    }
}

/// `easy` learns the mapping from the first datagram if it lets it in. The filtering of `hard` does not count: even where `easy` is let
/// in at a known mapping, the answer leaves from another.
fn towards(hard: &Behaviour, easy: &Side) -> Crossing {
    if easy.admits_any_port() {
        Crossing::Direct
    } else if hard.egress > MOST_EGRESS {
        Crossing::Relay(Obstacle::EgressAddresses)
    } else if hard.ports.is_predictable() {
        Crossing::Predict
    } else {
        Crossing::Spray
    }
}
