//! A peer as reports show it.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::crossing::Crossing;
use super::super::nat::Behaviour;
use super::super::role::Role;
use super::super::route::Route;
use super::State;

/// A peer as of now.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerView {
    /// Who.
    pub role: Role,
    /// Its address in the overlay.
    pub overlay: Ipv4Addr,
    /// Where it stands.
    pub state: State,
    /// From its announcement to the first authenticated packet in the tunnel.
    pub connect: Option<Duration>,
    /// The selected route.
    pub route: Option<Route>,
    /// Average round trip on it.
    pub rtt: Option<Duration>,
    /// The largest inner packet that it takes.
    pub mtu: u16,
    /// What it tells of its NAT.
    pub nat: Behaviour,
    /// How its NAT and ours can be crossed.
    pub crossing: Crossing,
    /// Whether anything was heard of it on a direct route.
    pub heard_directly: bool,
    /// How long nothing was heard.
    pub silent: Duration,
    /// Inner bytes sent.
    pub tx_bytes: u64,
    /// Inner bytes received.
    pub rx_bytes: u64,
    /// How many jobs it runs at once.
    pub slots: u16,
    /// The engine it asks for.
    pub offload: Option<String>,
}
