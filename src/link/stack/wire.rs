//! Inner packets as smoltcp takes and gives them, and what of a packet is known before smoltcp sees it. Which connection it is of is not
//! decided here but in [`super::core`].

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket};

use crate::proto::overlay::MTU;

/// Packets that wait for the tunnel: four turns of the driver. A connection that has more to send waits until some have left.
pub(super) const QUEUE: usize = 256;

/// Answers to packets (acknowledgements, resets, echoes) may go beyond, as they cannot wait; what is more than this is lost.
const MOST: usize = 4 * QUEUE;

/// One connection as seen from here: whose, and the two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    /// The peer's end.
    pub(super) peer: SocketAddrV4,
    /// Our port.
    pub(super) port: u16,
}

/// A TCP segment's flow, and whether it opens one.
pub(super) fn segment(packet: &[u8]) -> Option<(Flow, bool)> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    if ip.next_header() != IpProtocol::Tcp {
        return None;
    }
    let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
    let flow = Flow { peer: SocketAddrV4::new(ip.src_addr(), tcp.src_port()), port: tcp.dst_port() };
    Some((flow, tcp.syn() && !tcp.ack() && !tcp.rst()))
}

/// Whether a packet is whole, and for `own`. Nobody on the overlay sends fragments: all have one MTU.
pub(super) fn is_for(own: Ipv4Addr, packet: &[u8]) -> bool {
    Ipv4Packet::new_checked(packet)
        .is_ok_and(|ip| ip.version() == 4 && ip.dst_addr() == own && !ip.more_frags() && ip.frag_offset() == 0)
}

/// What smoltcp takes for its network device, for one call: at most one packet in, any number out.
#[derive(Debug)]
pub(super) struct Wire<'a> {
    pub(super) incoming: Option<&'a [u8]>,
    pub(super) outgoing: &'a mut VecDeque<Vec<u8>>,
}

impl Wire<'_> {
    /// Whether a connection may send.
    pub(super) fn has_room(&self) -> bool {
        self.outgoing.len() < QUEUE
    }
}

impl Device for Wire<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), Outgoing(self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        self.has_room().then_some(Outgoing(self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU.into();
        capabilities
    }
}

#[derive(Debug)]
pub(super) struct Incoming<'a>(&'a [u8]);

impl phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

#[derive(Debug)]
pub(super) struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let written = write(&mut packet);
        if self.0.len() < MOST {
            self.0.push_back(packet);
        }
        written
    }
}
