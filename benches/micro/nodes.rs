//! A primary with many aux that are up, on the simulated internet of the tests; and what one of them sends.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mesh::proto::batch::Batch;
use mesh::proto::node::Node;
use mesh::proto::overlay::Prefix;
use mesh::proto::packets::Packets;
use mesh::proto::role::Role;
use mesh::proto::route::{Route, SocketId};
use mesh::proto::super_packet::SuperPacket;

use super::it::sim::nat::EIM_APDF;
use super::it::sim::{Internet, Weather};

/// Virtual time; boringtun's sessions are as old as the real clock says.
const LONGEST: Duration = Duration::from_secs(30);

/// As the tests' internet has it.
const OVERLAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 0);

/// A node, and the peer that it is looked at with.
pub struct Side {
    pub node: Node,
    pub now: Instant,
    /// Its address in the overlay, and its peer's.
    pub here: Ipv4Addr,
    pub there: Ipv4Addr,
    /// Where its peer's datagrams come from, and to which of its sockets.
    pub from: SocketAddr,
    pub socket: SocketId,
}

/// The primary, and one of its `aux`.
pub fn up(aux: u16) -> [Side; 2] {
    let mut net = Internet::new(1, Weather::default());
    net.host(Role::Primary, EIM_APDF);
    for index in 0..aux {
        net.host(Role::Aux(index), EIM_APDF);
    }
    assert!(net.run_until(LONGEST, Internet::all_up), "not all are up");
    let (now, other) = (net.now, usize::from(aux / 2) + 1);
    let routes = [(0, other), (other, 0)].map(|(id, peer)| net.route(id, net.hosts[peer].role));
    // The later one first, as the others move up.
    let [other, primary] = [other, 0].map(|id| net.hosts.swap_remove(id));
    let roles = [primary.role, other.role];
    let primary = Side::new(primary.node, now, roles, routes[0]);
    [primary, Side::new(other.node, now, [roles[1], roles[0]], routes[1])]
}

impl Side {
    fn new(node: Node, now: Instant, roles: [Role; 2], route: Option<Route>) -> Self {
        let Some(Route::Direct { socket, addr: from }) = route else { panic!("there is no direct route") };
        let [here, there] = roles.map(|role| Prefix::new(OVERLAY, 16).address(role).expect("it is large"));
        Self { node, now, here, there, from, socket }
    }

    /// Takes a datagram of the peer, and hands out what is inside.
    pub fn receive(&mut self, datagram: &[u8], inner: &mut Packets) {
        self.node.handle_datagram(self.now, self.socket, self.from, datagram);
        self.node.swap_inner(inner);
    }

    /// Takes a packet for the peer, and does `sent` with each batch that comes of it.
    pub fn send(&mut self, packet: SuperPacket<'_>, mut sent: impl FnMut(&Batch)) {
        self.node.handle_inner(self.now, packet);
        while let Some(bulk) = self.node.poll_batch() {
            sent(&bulk.batch);
            self.node.recycle(bulk);
        }
    }
}
