//! Inner packets as fuzzers make them, and what is whole by arithmetic of its own: none of it is the code's that it judges.

use super::input::Input;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// Kinds of the virtio header.
pub const GSO_TCPV4: u8 = 1;
pub const GSO_UDP_L4: u8 = 5;

/// The ones' complement sum (RFC 1071), word by word; all ones where a checksum within is right.
pub fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    words.fold(0, |sum, word| (sum + word) % 0x1_0000 + (sum + word) / 0x1_0000) as u16
}

/// Of what is behind an IP header of `ip` bytes, and of the pseudo-header.
pub fn transport_sum(packet: &[u8], ip: usize) -> u16 {
    let len = (packet.len() - ip) as u16;
    sum(&[&packet[12..20], &[0, packet[9]], &len.to_be_bytes(), &packet[ip..]].concat())
}

pub fn word(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

pub fn set_word(packet: &mut [u8], at: usize, value: u16) {
    packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The length of the IP header, where there is one and no fragment behind it.
pub fn ip_header(packet: &[u8]) -> Option<usize> {
    let ip = usize::from(packet.first()? & 0xf) * 4;
    (packet[0] >> 4 == 4 && (20..=packet.len()).contains(&ip) && word(packet, 6) & 0x3fff == 0).then_some(ip)
}

/// The length of the IP header, and of all headers before the payload.
pub fn headers(packet: &[u8], protocol: u8) -> Option<(usize, usize)> {
    let ip = ip_header(packet).filter(|_| packet[9] == protocol)?;
    let transport = if protocol == UDP { 8 } else { usize::from(packet.get(ip + 12)? >> 4) * 4 };
    let least = if protocol == UDP { 8 } else { 20 };
    (transport >= least && ip + transport <= packet.len()).then_some((ip, ip + transport))
}

/// Whether a packet of IPv4 with TCP or UDP has the length that it says, and good checksums.
pub fn is_whole(packet: &[u8]) -> bool {
    let Some(ip) = ip_header(packet).filter(|_| [TCP, UDP].contains(&packet[9])) else { return false };
    usize::from(word(packet, 2)) == packet.len() && sum(&packet[..ip]) == 0xffff && transport_sum(packet, ip) == 0xffff
}

/// Writes lengths and checksums as they should be.
pub fn seal(packet: &mut [u8]) {
    let Some((ip, _)) = headers(packet, packet.get(9).copied().unwrap_or(0)) else { return };
    set_word(packet, 2, packet.len() as u16);
    set_word(packet, 10, 0);
    set_word(packet, 10, !sum(&packet[..ip]));
    let place = ip + if packet[9] == UDP { 6 } else { 16 };
    if packet[9] == UDP {
        set_word(packet, ip + 4, (packet.len() - ip) as u16);
    }
    set_word(packet, place, 0);
    let checksum = !transport_sum(packet, ip);
    set_word(packet, place, if packet[9] == UDP && checksum == 0 { 0xffff } else { checksum });
}

/// From `ends[0]` to `ends[1]`, without options.
pub fn packet(protocol: u8, ends: [[u8; 4]; 2], port: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; if protocol == UDP { 28 } else { 40 }];
    packet[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, protocol]);
    packet[12..20].copy_from_slice(ends.as_flattened());
    set_word(&mut packet, 20, port);
    set_word(&mut packet, 22, 3632);
    if protocol == TCP {
        (packet[32], packet[33]) = (5 << 4, 0x10);
    }
    packet.extend(payload);
    seal(&mut packet);
    packet
}

/// Bytes in which a shift shows.
pub fn payload(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8) ^ ((at >> 8) as u8).wrapping_mul(31) ^ seed).collect()
}

/// What a device may hand over: a virtio header, and a packet that it fits more or less. Input: what of it is mended in one byte, the virtio
/// header, the beginning of the packet as a piece, the length of the payload behind it in two bytes.
pub fn super_packet(input: &mut Input<'_>, most: usize) -> ([u8; 10], Vec<u8>) {
    let (mend, mut header, mut bytes) = (input.byte(), input.array::<10>(), input.piece().to_vec());
    if mend & 1 != 0 {
        header[1] = if mend & 2 != 0 { GSO_UDP_L4 } else { GSO_TCPV4 };
        mend_headers(&mut bytes, if mend & 2 != 0 { UDP } else { TCP });
    }
    let len = usize::from(u16::from_be_bytes(input.array()));
    bytes.extend(payload(len % (most + 1), mend));
    if mend & 4 != 0 {
        seal(&mut bytes);
    }
    (header, bytes)
}

/// What is needed for [`headers`] to find some, and no more.
fn mend_headers(bytes: &mut Vec<u8>, protocol: u8) {
    bytes.resize(bytes.len().max(10), 0);
    bytes[0] = 0x40 | (bytes[0] & 0xf).max(5);
    (bytes[6], bytes[7], bytes[9]) = (bytes[6] & 0xc0, 0, protocol);
    let ip = usize::from(bytes[0] & 0xf) * 4;
    bytes.resize(bytes.len().max(ip + 20), 0);
    if protocol == TCP {
        bytes[ip + 12] = (bytes[ip + 12] & 0xf) | (bytes[ip + 12] >> 4).max(5) << 4;
        let headers = ip + usize::from(bytes[ip + 12] >> 4) * 4;
        bytes.resize(bytes.len().max(headers), 0);
    }
}
