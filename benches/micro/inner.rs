//! Inner packets: of bulk over TCP, as Linux makes them, with time stamps.

use std::net::Ipv4Addr;

use mesh::proto::ipv4::{self, ACK, DONT_FRAGMENT, TCP};
use mesh::proto::packets::Packets;
use mesh::proto::super_packet::SuperPacket;
use mesh::proto::virtio::{Header, LEN, Segmentation};

/// 20 of IPv4, 20 of TCP, 12 of its options.
pub const HEADERS: usize = 52;

/// With its headers, the overlay's MTU.
pub const SEGMENT: u16 = 1368;

/// What Linux makes a super-packet of at most 64 KiB of.
pub const MOST_SEGMENTS: usize = 47;

/// What the kernel hands over for so many full segments, and what it says of it.
pub fn super_packet(from: Ipv4Addr, to: Ipv4Addr, segments: usize) -> ([u8; LEN], Vec<u8>) {
    let mut packet = vec![0; HEADERS + segments * usize::from(SEGMENT)];
    let len = u16::try_from(packet.len()).expect("it is an IPv4 packet");
    packet[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, DONT_FRAGMENT, 0, 64, TCP]);
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet[20..24].copy_from_slice(&[0xc3, 0x50, 0x14, 0x51]);
    (packet[32], packet[33]) = (8 << 4, ACK);
    packet[40..HEADERS].copy_from_slice(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    ipv4::seal_header(&mut packet, ipv4::HEADER);
    let partial = ipv4::pseudo_header(&packet, packet.len() - ipv4::HEADER).partial();
    packet[36..38].copy_from_slice(&partial);
    let segmentation = (segments > 1).then_some((Segmentation::Tcp, SEGMENT));
    let header = Header { segmentation, headers: HEADERS as u16, checksum: Some((ipv4::HEADER as u16, 16)) };
    (header.to_bytes(), packet)
}

/// So many full segments that follow each other.
pub fn segments(from: Ipv4Addr, to: Ipv4Addr, count: usize) -> Packets {
    let (header, mut bytes) = super_packet(from, to, count);
    let mut whole = SuperPacket::new(header, &mut bytes).expect("it makes sense");
    let mut packets = Packets::default();
    while let Some(segment) = whole.next_segment() {
        packets.push(segment);
    }
    packets
}

/// One of them, which is as long as the MTU.
pub fn segment(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    segments(from, to, 1).get(0).expect("one").to_vec()
}
