//! A packet that the kernel has left whole for us to segment (TSO and USO), or whose checksum it has left for us to complete. Reading what
//! the device says of it is not here but in [`super::virtio`].
//!
//! Segments are made in place: the headers of each are written over the end of the payload before it, which has been used by then.

use super::checksum::Sum;
use super::ipv4::{self, CWR, FIN, PSH, UDP, UDP_HEADER};
use super::virtio::{Header, Segmentation};

/// The longest headers: 60 bytes of IPv4, 60 of TCP.
const LONGEST_HEADERS: usize = 120;

/// What a device has handed over makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The virtio header has an unknown kind.
    #[error("offload of an unknown kind")]
    Kind,
    /// The packet is not of the protocol that the virtio header tells of, or shorter than its headers.
    #[error("offload that its packet does not fit")]
    Headers,
    /// The place of the checksum is not in the packet.
    #[error("checksum outside of its packet")]
    Checksum,
}

/// One packet of a program here, to be sent as one or more.
#[derive(Debug)]
pub struct SuperPacket<'p> {
    bytes: &'p mut [u8],
    /// Where the payload of the next segment begins; the length when all were taken.
    at: usize,
    cut: Option<Cut>,
}

/// How a packet is cut.
#[derive(Debug)]
struct Cut {
    kind: Segmentation,
    /// The headers as they were.
    template: [u8; LONGEST_HEADERS],
    /// Their length, and that of the IP header among them.
    headers: usize,
    ip: usize,
    /// The payload of each segment but the last.
    size: usize,
}

impl<'p> SuperPacket<'p> {
    /// One that goes as it is.
    pub fn plain(bytes: &'p mut [u8]) -> Self {
        Self { bytes, at: 0, cut: None }
    }

    /// What came out of the device behind `header`.
    pub fn new(header: [u8; super::virtio::LEN], bytes: &'p mut [u8]) -> Result<Self, Malformed> {
        let Header { segmentation, checksum, .. } = Header::parse(header).ok_or(Malformed::Kind)?;
        if let Some((kind, size)) = segmentation {
            let cut = Cut::new(kind, size.into(), bytes).ok_or(Malformed::Headers)?;
            if cut.headers < bytes.len() {
                return Ok(Self { at: cut.headers, bytes, cut: Some(cut) });
            }
        }
        if let Some((start, offset)) = checksum {
            complete(bytes, start.into(), offset.into()).ok_or(Malformed::Checksum)?;
        }
        Ok(Self::plain(bytes))
    }

    /// All of it, as the kernel sees it.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Makes the segments no longer than `mtu`; false where that cannot be done: a datagram is not ours to divide.
    pub fn fit(&mut self, mtu: usize) -> bool {
        match &mut self.cut {
            None => self.bytes.len() <= mtu,
            Some(cut) if cut.kind == Segmentation::Tcp && mtu > cut.headers => {
                cut.size = cut.size.min(mtu - cut.headers);
                true
            }
            Some(cut) => self.bytes.len().min(cut.headers + cut.size) <= mtu,
        }
    }

    /// The next segment, a whole packet; `None` when all were taken.
    pub fn next_segment(&mut self) -> Option<&mut [u8]> {
        let Self { bytes, at, cut } = self;
        if *at >= bytes.len() {
            return None;
        }
        let Some(cut) = cut else {
            *at = bytes.len();
            return Some(bytes);
        };
        let (begin, end) = (*at, (*at + cut.size).min(bytes.len()));
        *at = end;
        let last = end == bytes.len();
        let segment = &mut bytes[begin - cut.headers..end];
        cut.write_headers(segment, begin - cut.headers, last);
        Some(segment)
    }
}

impl Cut {
    /// `None` where the packet is of another protocol, or lacks headers.
    fn new(kind: Segmentation, size: usize, bytes: &[u8]) -> Option<Self> {
        let (ip, transport) = match kind {
            Segmentation::Tcp => ipv4::tcp_headers_len(bytes)?,
            Segmentation::Udp => {
                (ipv4::header_len(bytes).filter(|_| bytes[9] == UDP && !ipv4::is_fragment(bytes))?, UDP_HEADER)
            }
        };
        let headers = ip + transport;
        let mut template = [0; LONGEST_HEADERS];
        template[..headers].copy_from_slice(bytes.get(..headers)?);
        (size > 0).then_some(Self { kind, template, headers, ip, size })
    }

    /// Before a payload that is `offset` bytes behind the first one.
    fn write_headers(&self, segment: &mut [u8], offset: usize, last: bool) {
        let ip = self.ip;
        segment[..self.headers].copy_from_slice(&self.template[..self.headers]);
        let id = u16::from_be_bytes([segment[4], segment[5]]).wrapping_add((offset / self.size) as u16);
        let len = segment.len() as u16;
        segment[2..4].copy_from_slice(&len.to_be_bytes());
        segment[4..6].copy_from_slice(&id.to_be_bytes());
        ipv4::seal_header(segment, ip);
        let checksum = match self.kind {
            Segmentation::Tcp => {
                let tcp = &mut segment[ip..];
                let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(offset as u32);
                tcp[4..8].copy_from_slice(&seq.to_be_bytes());
                let (first, flags) = (offset == 0, tcp[13]);
                tcp[13] = flags & !(if last { 0 } else { FIN | PSH }) & !(if first { 0 } else { CWR });
                ip + 16
            }
            Segmentation::Udp => {
                segment[ip + 4..ip + 6].copy_from_slice(&(len - ip as u16).to_be_bytes());
                ip + 6
            }
        };
        segment[checksum..checksum + 2].fill(0);
        let sum = ipv4::pseudo_header(segment, segment.len() - ip).and(Sum::of(&segment[ip..])).checksum();
        segment[checksum..checksum + 2].copy_from_slice(&stored(self.kind, sum));
    }
}

/// UDP has no checksum of zero: that is how it says that there is none (RFC 768).
fn stored(kind: Segmentation, checksum: [u8; 2]) -> [u8; 2] {
    if kind == Segmentation::Udp && checksum == [0, 0] { [0xff; 2] } else { checksum }
}

/// The sum of the pseudo-header is there already, in the place of the checksum.
fn complete(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let covered = packet.get_mut(start..)?;
    covered.get(offset..offset + 2)?;
    let sum = Sum::of(covered).checksum();
    let udp = packet.first().is_some_and(|first| first >> 4 == 4) && packet.get(9) == Some(&UDP);
    let kind = if udp { Segmentation::Udp } else { Segmentation::Tcp };
    packet[start + offset..start + offset + 2].copy_from_slice(&stored(kind, sum));
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ipv4::{ACK, TCP};
    use super::*;

    const SEQ: u32 = u32::MAX - 1000;

    /// A super-packet as Linux hands it over, with `options` bytes of TCP options.
    fn tcp(payload: &[u8], size: u16, options: usize, flags: u8) -> ([u8; 10], Vec<u8>) {
        let headers = 40 + options;
        let mut packet = vec![0; headers];
        packet[..10].copy_from_slice(&[0x45, 0, 0, 0, 0xff, 0xfe, 0x40, 0, 64, TCP]);
        packet[12..20].copy_from_slice(&[10, 77, 0, 1, 10, 77, 0, 2]);
        packet[20..24].copy_from_slice(&[0x12, 0x34, 0x0e, 0x30]);
        packet[24..28].copy_from_slice(&SEQ.to_be_bytes());
        (packet[32], packet[33]) = ((((20 + options) / 4) << 4) as u8, flags);
        packet[40..].fill(1);
        packet.extend(payload);
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        ipv4::seal_header(&mut packet, 20);
        let partial = ipv4::pseudo_header(&packet, packet.len() - 20).partial();
        packet[36..38].copy_from_slice(&partial);
        let header =
            Header { segmentation: Some((Segmentation::Tcp, size)), headers: headers as u16, checksum: Some((20, 16)) };
        (header.to_bytes(), packet)
    }

    fn udp(payload: &[u8], size: u16) -> ([u8; 10], Vec<u8>) {
        let (_, mut packet) = tcp(&[], 1, 0, 0);
        packet[9] = UDP;
        packet.truncate(28);
        packet.extend(payload);
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        let header = Header { segmentation: Some((Segmentation::Udp, size)), headers: 28, checksum: Some((20, 6)) };
        (header.to_bytes(), packet)
    }

    fn segments(header: [u8; 10], mut packet: Vec<u8>, mtu: usize) -> Vec<Vec<u8>> {
        let mut whole = SuperPacket::new(header, &mut packet).expect("it makes sense");
        assert!(whole.fit(mtu));
        std::iter::from_fn(|| whole.next_segment().map(|segment| segment.to_vec())).collect()
    }

    fn is_intact(packet: &[u8]) -> bool {
        let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        length == packet.len()
            && Sum::of(&packet[..20]).is_intact()
            && ipv4::pseudo_header(packet, packet.len() - 20).and(Sum::of(&packet[20..])).is_intact()
    }

    #[test]
    fn a_tcp_super_packet_becomes_segments_that_follow_each_other() {
        let payload: Vec<u8> = (0..3000).map(|at| at as u8).collect();
        let (header, packet) = tcp(&payload, 1368, 12, ACK | PSH | FIN | CWR);
        let made = segments(header, packet, 1420);
        assert_eq!(made.iter().map(Vec::len).collect::<Vec<_>>(), [1420, 1420, 52 + 264]);
        assert!(made.iter().all(|segment| is_intact(segment)));
        assert_eq!(made.iter().map(|segment| segment[33]).collect::<Vec<_>>(), [ACK | CWR, ACK, ACK | PSH | FIN]);
        let seqs: Vec<u32> = made.iter().map(|one| u32::from_be_bytes([one[24], one[25], one[26], one[27]])).collect();
        assert_eq!(seqs, [SEQ, SEQ.wrapping_add(1368), SEQ.wrapping_add(2736)]);
        let ids: Vec<[u8; 2]> = made.iter().map(|one| [one[4], one[5]]).collect();
        assert_eq!(ids, [[0xff, 0xfe], [0xff, 0xff], [0, 0]]);
        assert_eq!(made.iter().flat_map(|segment| &segment[52..]).copied().collect::<Vec<_>>(), payload);
    }

    #[test]
    fn a_narrow_path_makes_shorter_segments_of_tcp_and_none_of_datagrams() {
        let (header, packet) = tcp(&[7; 2000], 1368, 12, ACK);
        assert!(segments(header, packet, 600).iter().all(|segment| segment.len() <= 600 && is_intact(segment)));
        let (header, mut packet) = udp(&[7; 2000], 1000);
        assert!(!SuperPacket::new(header, &mut packet).expect("it makes sense").fit(600));
    }

    #[test]
    fn a_udp_super_packet_becomes_datagrams() {
        let (header, packet) = udp(&[9; 2500], 1000);
        let made = segments(header, packet, 1420);
        assert_eq!(made.iter().map(Vec::len).collect::<Vec<_>>(), [1028, 1028, 528]);
        assert!(made.iter().all(|datagram| is_intact(datagram)));
        assert_eq!(
            made.iter().map(|one| u16::from_be_bytes([one[24], one[25]])).collect::<Vec<_>>(),
            [1008, 1008, 508]
        );
    }

    #[test]
    fn a_checksum_that_was_left_to_us_is_completed() {
        let (_, packet) = tcp(b"odd", 0, 0, ACK);
        let header = Header { segmentation: None, headers: 0, checksum: Some((20, 16)) };
        let made = segments(header.to_bytes(), packet, 1420);
        assert_eq!(made.len(), 1);
        assert!(is_intact(&made[0]));
    }

    #[test]
    fn what_does_not_fit_its_packet_is_refused() {
        let (header, mut packet) = tcp(&[7; 2000], 1000, 0, ACK);
        packet[9] = UDP;
        assert_eq!(SuperPacket::new(header, &mut packet).map(drop), Err(Malformed::Headers));
        let beyond = Header { checksum: Some((20, 2030)), ..Header::default() };
        assert_eq!(SuperPacket::new(beyond.to_bytes(), &mut packet).map(drop), Err(Malformed::Checksum));
        assert_eq!(SuperPacket::new([0, 4, 0, 0, 0, 0, 0, 0, 0, 0], &mut packet).map(drop), Err(Malformed::Kind));
        let (header, mut fragment) = udp(&[7; 2000], 1000);
        fragment[7] = 1;
        assert_eq!(SuperPacket::new(header, &mut fragment).map(drop), Err(Malformed::Headers));
    }

    #[test]
    fn a_datagram_that_is_shorter_than_its_segments_may_be_fits_as_it_is() {
        let (header, packet) = udp(&[7; 500], 1000);
        assert_eq!(segments(header, packet, 600).len(), 1);
    }

    proptest! {
        #[test]
        fn segments_hold_the_whole_payload_and_are_intact(
            payload in prop::collection::vec(any::<u8>(), 1..9000), size in 1u16..3000, options in 0usize..=10, mtu in 200usize..1500,
        ) {
            let (header, packet) = tcp(&payload, size, options * 4, ACK);
            let made = segments(header, packet, mtu);
            prop_assert!(made.iter().all(|segment| is_intact(segment) && segment.len() <= mtu));
            let headers = 40 + options * 4;
            prop_assert_eq!(made.iter().flat_map(|segment| &segment[headers..]).copied().collect::<Vec<_>>(), payload);
        }

        #[test]
        fn garbage_never_panics(header: [u8; 10], kind in 0u8..6, mut bytes in prop::collection::vec(any::<u8>(), 0..400), protocol: bool) {
            let mut header = header;
            header[1] = kind;
            if bytes.len() > 10 {
                (bytes[0], bytes[9]) = (0x40 | bytes[0] & 0xf, if protocol { TCP } else { UDP });
            }
            if let Ok(mut packet) = SuperPacket::new(header, &mut bytes) {
                let _ = packet.fit(300);
                while packet.next_segment().is_some() {}
            }
        }
    }
}
