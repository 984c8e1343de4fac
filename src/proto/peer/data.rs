//! What passes through one peer's tunnel, in both directions: inner packets, and what their coming says of the peer.

use std::net::Ipv4Addr;
use std::time::Instant;

use super::super::ipv4;
use super::super::mss;
use super::super::output::Output;
use super::super::overlay::MTU;
use super::super::packets::Packets;
use super::super::route::Route;
use super::super::schedule::Schedule;
use super::super::super_packet::SuperPacket;
use super::super::tunnel::{self, Tunnel};
use super::{CONFIRMING, MOST_WAITING, Peer, State};

/// How many messages were dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused {
    /// Not authentic, or saying nothing.
    pub forged: u64,
    /// With inner addresses that are not the peer's and ours.
    pub foreign: u64,
}

impl Peer {
    /// Takes WireGuard messages for this peer's session that came together, and hands out what is inside if it is for `here`.
    pub fn handle_wireguard<'d>(
        &mut self,
        now: Instant,
        route: Route,
        datagrams: impl Iterator<Item = &'d [u8]>,
        here: Option<Ipv4Addr>,
        out: &mut Output,
    ) -> Refused {
        let source = route.addr().map_or(self.overlay.into(), |addr| addr.ip());
        let (mut refused, mut authentic, mut lively) = (Refused::default(), false, self.state == State::Joining);
        for datagram in datagrams {
            let opened = self.tunnel.open(source, datagram, &mut out.inner);
            let foreign = opened.inner.is_some_and(|len| !self.take_in(len, here, &mut out.inner));
            let useful = opened.authentic || !opened.replies.is_empty();
            authentic |= opened.authentic;
            lively |= opened.inner.is_some();
            refused.foreign += u64::from(foreign);
            refused.forged += u64::from(!useful);
            self.unconfirmed |= tunnel::is_initiation(datagram) && useful;
            for reply in opened.replies {
                out.send(self.announcement.role, route, None, reply);
            }
        }
        if authentic {
            self.handle_authentic(now, route, lively, out);
        }
        refused
    }

    /// Something decrypted; it was `lively` where there was more in it than a keepalive.
    fn handle_authentic(&mut self, now: Instant, route: Route, lively: bool, out: &mut Output) {
        self.heard_directly |= route.is_direct();
        self.path.handle_tunnelled(now, route, lively);
        self.come_up(now, out);
        if std::mem::take(&mut self.unconfirmed) {
            self.confirming = Some(Schedule::new(CONFIRMING, now));
            self.confirm(now, out);
        }
        self.hear(now, out);
    }

    /// Cryptokey routing (WireGuard paper section 2): a peer may send from its own overlay address, and to ours, alone. What it has sent lies
    /// in the room of `packets`. False where it is dropped.
    fn take_in(&mut self, len: usize, here: Option<Ipv4Addr>, packets: &mut Packets) -> bool {
        let packet = &mut packets.room(len)[..len];
        if ipv4::source(packet) != Some(self.overlay) || ipv4::destination(packet) != here {
            return false;
        }
        if self.path.mtu() < MTU {
            mss::clamp(packet, self.path.mtu());
        }
        self.traffic.rx_bytes += len as u64;
        packets.keep(len);
        true
    }

    /// Whether [`Self::send`] can do anything with a packet.
    pub fn takes_packets(&self) -> bool {
        match self.state {
            State::Joining => self.waiting.len() < MOST_WAITING,
            State::Up => self.path.selected().is_some(),
            State::Gone | State::Left => false,
        }
    }

    /// Sends an inner packet to a peer that is up. The first few wait for one that is joining.
    pub fn send(&mut self, now: Instant, mut packet: SuperPacket<'_>, out: &mut Output) {
        let Some(route) = self.path.selected().filter(|_| self.state == State::Up) else {
            while let Some(segment) = packet.next_segment() {
                self.waiting.push_back(segment.to_vec());
            }
            return;
        };
        self.path.handle_sent(now);
        let (to, mtu) = (self.announcement.role, self.mtu());
        while let Some(segment) = packet.next_segment() {
            if mtu < MTU {
                mss::clamp(segment, mtu);
            }
            self.traffic.tx_bytes += segment.len() as u64;
            let most = Tunnel::sealed_len(segment.len());
            out.batches.add(to, route, most, |buffer| self.tunnel.seal(segment, buffer));
        }
    }
}
