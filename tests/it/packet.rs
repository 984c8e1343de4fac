//! Inner packets for the tests: one TCP segment, and what one says.

use std::net::Ipv4Addr;

/// Acknowledges.
pub const ACK: u8 = 0x10;

/// Resets.
pub const RST: u8 = 0x04;

/// A segment from port 50000 to port 3632, where jobs are served, that expects `ack` next.
pub fn segment(from: Ipv4Addr, to: Ipv4Addr, ack: u32) -> Vec<u8> {
    segment_to_port(3632, from, to, ack)
}

/// As [`segment`], to another port.
pub fn segment_to_port(port: u16, from: Ipv4Addr, to: Ipv4Addr, ack: u32) -> Vec<u8> {
    let mut packet = vec![0; 40];
    (packet[0], packet[3], packet[8], packet[9]) = (0x45, 40, 64, 6);
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet[20..22].copy_from_slice(&50000u16.to_be_bytes());
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet[28..32].copy_from_slice(&ack.to_be_bytes());
    (packet[32], packet[33]) = (5 << 4, ACK);
    packet
}

/// Whether `packet` is a reset from `from`'s port 3632 at sequence number `seq`.
pub fn is_reset(packet: &[u8], from: Ipv4Addr, seq: u32) -> bool {
    packet.len() == 40
        && packet[12..16] == from.octets()
        && packet[20..24] == [&3632u16.to_be_bytes()[..], &50000u16.to_be_bytes()].concat()
        && packet[24..28] == seq.to_be_bytes()
        && packet[33] & RST != 0
}
