//! Where things are in an inner IPv4 packet (RFC 791) and in the TCP and UDP headers behind it. Nothing here trusts a length.

use std::net::Ipv4Addr;

use super::checksum::Sum;

/// Of a header without options.
pub const HEADER: usize = 20;

/// Protocol numbers.
pub const ICMP: u8 = 1;
/// RFC 9293.
pub const TCP: u8 = 6;
/// RFC 768.
pub const UDP: u8 = 17;

/// The least that a TCP header has.
pub const TCP_HEADER: usize = 20;
/// What a UDP header has.
pub const UDP_HEADER: usize = 8;

/// Flags of a TCP header.
pub const FIN: u8 = 0x01;
/// Synchronize.
pub const SYN: u8 = 0x02;
/// Reset.
pub const RST: u8 = 0x04;
/// Push.
pub const PSH: u8 = 0x08;
/// Acknowledgement.
pub const ACK: u8 = 0x10;
/// Congestion window reduced (RFC 3168).
pub const CWR: u8 = 0x80;

/// "Don't fragment" in byte 6.
pub const DONT_FRAGMENT: u8 = 0x40;

/// The destination; `None` for what is not IPv4.
pub fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    is_ipv4(packet).then(|| Ipv4Addr::from([packet[16], packet[17], packet[18], packet[19]]))
}

/// The source; `None` for what is not IPv4.
pub fn source(packet: &[u8]) -> Option<Ipv4Addr> {
    is_ipv4(packet).then(|| Ipv4Addr::from([packet[12], packet[13], packet[14], packet[15]]))
}

/// The length of the IP header, options included; `None` where the packet does not have so much.
pub fn header_len(packet: &[u8]) -> Option<usize> {
    let len = usize::from(packet.first()? & 0xf) * 4;
    (is_ipv4(packet) && (HEADER..=packet.len()).contains(&len)).then_some(len)
}

/// The length of the IP header and of the TCP header behind it; `None` where the packet does not have so much, is a fragment or not TCP.
pub fn tcp_headers_len(packet: &[u8]) -> Option<(usize, usize)> {
    let ip = header_len(packet).filter(|_| packet[9] == TCP && !is_fragment(packet))?;
    let tcp = usize::from(packet.get(ip + 12)? >> 4) * 4;
    (tcp >= TCP_HEADER && ip + tcp <= packet.len()).then_some((ip, tcp))
}

/// Whether it is a piece of a longer packet.
pub fn is_fragment(packet: &[u8]) -> bool {
    packet.len() >= HEADER && u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0
}

/// Writes the checksum of the IP header, whose length is `len`.
pub fn seal_header(packet: &mut [u8], len: usize) {
    packet[10..12].fill(0);
    let checksum = Sum::of(&packet[..len]).checksum();
    packet[10..12].copy_from_slice(&checksum);
}

/// The sum of the pseudo-header of a packet whose IP header is followed by `len` bytes (RFC 9293 section 3.1, RFC 768).
pub fn pseudo_header(packet: &[u8], len: usize) -> Sum {
    let addresses = Sum::of(&packet[12..HEADER]);
    addresses.and(Sum::of(&[0, packet[9]])).and(Sum::of(&(len as u16).to_be_bytes()))
}

fn is_ipv4(packet: &[u8]) -> bool {
    packet.len() >= HEADER && packet[0] >> 4 == 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_lie_within_the_packet_whatever_they_say(mut packet in prop::collection::vec(any::<u8>(), 0..120)) {
            if packet.len() > 10 {
                (packet[0], packet[9]) = (0x40 | packet[0] & 0xf, TCP);
            }
            if let Some((ip, tcp)) = tcp_headers_len(&packet) {
                prop_assert!(ip >= HEADER && tcp >= TCP_HEADER && ip + tcp <= packet.len());
            }
            let _ = (source(&packet), destination(&packet), is_fragment(&packet));
        }
    }
}
