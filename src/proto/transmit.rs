//! What machines hand out: datagrams and notices.

use std::net::SocketAddr;
use std::time::Duration;

use super::announcement::Announcement;
use super::nat::Behaviour;
use super::renewal::Reason;
use super::role::Role;
use super::route::{Route, SocketId};

/// A datagram to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// From which of our sockets.
    pub socket: SocketId,
    /// Where to.
    pub to: SocketAddr,
    /// The hop limit of this one datagram; `None` is the system's default. Never set on the socket: data of others shares it.
    pub ttl: Option<u8>,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// Something the rest of the process should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The STUN round is over. `answers` 0 means that no server answered; `reflexive` is how the main socket is seen.
    Settled { answers: usize, nat: Behaviour, reflexive: Vec<SocketAddr> },
    /// To be published; the times in it are the publisher's to fill in. It follows the opening datagrams that it promises.
    Publish(Box<Announcement>),
    /// A fresh socket is asked for, and why; until [`super::node::Node::handle_rebound`] the node is silent.
    Rebind(Reason),
    /// Whether a peer that is up has not answered for a second or more: it may have announced another address.
    Doubt(bool),
    /// A peer's direct path does not answer.
    Suspect { role: Role },
    /// A peer that did not answer, or whose address has changed, is heard again after so long.
    Recovered { role: Role, took: Duration },
    /// The first authenticated packet of this peer came through the tunnel.
    Up { role: Role, connect: Duration, route: Route },
    /// Packets for this peer take another kind of way: over a relay, or direct again.
    Rerouted { role: Role, from: Route, to: Route },
    /// Larger inner packets than this do not get through to this peer; before, it was more (`narrower`) or less.
    Mtu { role: Role, mtu: u16, narrower: bool },
    /// Without a path to the primary: announcements of other aux are asked for, as one of them may relay.
    Stranded,
    /// Nothing was heard of a peer for a while.
    Gone { role: Role, silent: Duration },
    /// A peer that was gone is heard again.
    Back { role: Role, route: Route },
    /// A peer said goodbye.
    Left { role: Role },
    /// The primary has released us, by word or by a closing announcement.
    Released,
    /// Another process has our index.
    Replaced,
    /// The TUN device was removed by somebody.
    DeviceGone,
    /// The system takes datagrams only one by one.
    OneByOne,
    /// A relay of the user's own does not take us, or does again.
    Relay { server: SocketAddr, takes_us: bool },
    /// A peer's announcement cannot be used, and why.
    Unusable { role: Role, why: String },
}
