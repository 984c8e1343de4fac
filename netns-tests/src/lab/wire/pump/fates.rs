//! Which packets of a frame are lost, and which overtake others. A frame may be a super-packet, which a real wire carries as many packets: each of
//! them has a fate of its own, and neighbours that share one stay together as a shorter super-packet. Not here: chance.

use std::ops::Range;

/// `struct virtio_net_hdr` of linux/virtio_net.h, in the machine's byte order: flags, GSO type, length of all headers, GSO size, and where
/// the transport's header and its checksum are.
const VIRTIO: usize = 10;
const GSO_TYPE: usize = 1;
const GSO_SIZE: usize = 4;
const CHECKSUM_START: usize = 6;
const CHECKSUM_OFFSET: usize = 8;
const GSO_UDP: u8 = 5;
/// A bit beside the type.
const GSO_ECN: u8 = 0x80;

const UDP_HEADER: usize = 8;
const TCP_FLAGS: usize = 13;
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// What a wire does to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Waits,
    /// Goes at once, before those that wait.
    Hurries,
    Lost,
}

/// What is left of a frame, each in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sorted {
    pub(super) hurrying: Vec<Vec<u8>>,
    pub(super) waiting: Vec<Vec<u8>>,
}

/// Takes `frame` apart as far as its packets part. `fate` is asked for each of them.
pub(super) fn sort(frame: &[u8], mut fate: impl FnMut() -> Fate) -> Sorted {
    let large = SuperPacket::parse(frame);
    let fates: Vec<Fate> = (0..large.as_ref().map_or(1, SuperPacket::count)).map(|_| fate()).collect();
    let of = |wanted| match &large {
        _ if fates.iter().all(|fate| *fate == wanted) => vec![frame.to_vec()],
        Some(large) => runs(&fates, wanted).into_iter().map(|run| large.cut(run)).collect(),
        None => vec![],
    };
    Sorted { hurrying: of(Fate::Hurries), waiting: of(Fate::Waits) }
}

/// Ranges of packets that follow each other and share this fate.
fn runs(fates: &[Fate], wanted: Fate) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = vec![];
    for (at, _) in fates.iter().enumerate().filter(|(_, fate)| **fate == wanted) {
        match runs.last_mut().filter(|run| run.end == at) {
            Some(run) => run.end += 1,
            None => runs.push(at..at + 1),
        }
    }
    runs
}

/// A frame whose payload is to be sent in packets of `size`.
struct SuperPacket<'frame> {
    headers: &'frame [u8],
    payload: &'frame [u8],
    size: usize,
    transport: usize,
    is_udp: bool,
}

impl<'frame> SuperPacket<'frame> {
    /// `None` for a frame that is one packet.
    fn parse(frame: &'frame [u8]) -> Option<Self> {
        let (kind, size) = (frame.get(GSO_TYPE)? & !GSO_ECN, native(frame, GSO_SIZE)?);
        if kind == 0 || size == 0 {
            return None;
        }
        let (transport, is_udp) = (VIRTIO + native(frame, CHECKSUM_START)?, kind == GSO_UDP);
        let len = if is_udp { UDP_HEADER } else { usize::from(frame.get(transport + 12)? >> 4) * 4 };
        let (headers, payload) = frame.split_at_checked(transport + len)?;
        Some(Self { headers, payload, size, transport, is_udp })
    }

    fn count(&self) -> usize {
        self.payload.len().div_ceil(self.size).max(1)
    }

    /// These packets of it, as a frame: what the kernel would have made of them alone.
    fn cut(&self, run: Range<usize>) -> Vec<u8> {
        let bytes = run.start * self.size..self.payload.len().min(run.end * self.size);
        let mut frame = [self.headers, &self.payload[bytes.clone()]].concat();
        let shorter = (self.payload.len() - bytes.len()) as u16;
        if run.len() == 1 {
            frame[GSO_TYPE] = 0;
            frame[GSO_SIZE..GSO_SIZE + 2].fill(0);
        }
        shorten_ip(&mut frame[VIRTIO..self.transport], shorter, run.start as u16);
        let transport = &mut frame[self.transport..];
        if self.is_udp {
            edit(transport, 4, |len| len.wrapping_sub(shorter));
        } else {
            self.move_tcp(transport, &bytes);
        }
        // Before the kernel fills it in, it holds the sum of the pseudo header, of which the length is a part.
        let checksum =
            usize::from(u16::from_ne_bytes([self.headers[CHECKSUM_OFFSET], self.headers[CHECKSUM_OFFSET + 1]]));
        edit(transport, checksum, |sum| add(sum, !shorter));
        frame
    }

    /// FIN and PSH belong to the last packet, CWR to the first (RFC 3168, section 6.1.2).
    fn move_tcp(&self, header: &mut [u8], bytes: &Range<usize>) {
        let sequence = [header[4], header[5], header[6], header[7]];
        header[4..8].copy_from_slice(&u32::from_be_bytes(sequence).wrapping_add(bytes.start as u32).to_be_bytes());
        if bytes.end < self.payload.len() {
            header[TCP_FLAGS] &= !FIN_PSH;
        }
        if bytes.start > 0 {
            header[TCP_FLAGS] &= !CWR;
        }
    }
}

/// IPv4 has its whole length at 2, an identification for each packet at 4, and a checksum at 10; IPv6 has the length of its payload at 4.
fn shorten_ip(header: &mut [u8], shorter: u16, skipped: u16) {
    if header.first().is_some_and(|first| first >> 4 == 6) {
        return edit(header, 4, |len| len.wrapping_sub(shorter));
    }
    edit(header, 2, |len| len.wrapping_sub(shorter));
    edit(header, 4, |identification| identification.wrapping_add(skipped));
    edit(header, 10, |_| 0);
    let sum = !sum(header);
    edit(header, 10, |_| sum);
}

fn edit(header: &mut [u8], at: usize, change: impl FnOnce(u16) -> u16) {
    if let Some([high, low]) = header.get_mut(at..at + 2) {
        [*high, *low] = change(u16::from_be_bytes([*high, *low])).to_be_bytes();
    }
}

fn native(frame: &[u8], at: usize) -> Option<usize> {
    frame.get(at..at + 2).map(|bytes| usize::from(u16::from_ne_bytes([bytes[0], bytes[1]])))
}

/// Of ones' complement (RFC 1071).
fn add(one: u16, other: u16) -> u16 {
    let (sum, carry) = one.overflowing_add(other);
    sum + u16::from(carry)
}

fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or_default()]));
    words.fold(0, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: u8 = 17;
    const TCP: u8 = 6;

    /// As the kernel hands it over: the transport's checksum is the sum of the pseudo header.
    fn super_packet(protocol: u8, payload: usize, size: u16) -> Vec<u8> {
        let header = if protocol == UDP { UDP_HEADER } else { 20 };
        let kind = if protocol == UDP { GSO_UDP } else { 1 };
        let mut frame = vec![0; VIRTIO + 20 + header];
        frame[0] = 1;
        frame[GSO_TYPE] = kind;
        frame[GSO_SIZE..GSO_SIZE + 2].copy_from_slice(&size.to_ne_bytes());
        frame[CHECKSUM_START] = 20;
        frame[CHECKSUM_OFFSET] = if protocol == UDP { 6 } else { 16 };
        let len = (header + payload) as u16;
        let ip = &mut frame[VIRTIO..];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&(20 + len).to_be_bytes());
        ip[9] = protocol;
        ip[12..20].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
        let checksum = !sum(&ip[..20]);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        let transport = &mut ip[20..];
        if protocol == UDP {
            transport[4..6].copy_from_slice(&len.to_be_bytes());
        } else {
            transport[4..8].copy_from_slice(&7000_u32.to_be_bytes());
            transport[12] = 0x50;
            transport[TCP_FLAGS] = CWR | 0x19;
        }
        let at = usize::from(u16::from_ne_bytes([frame[CHECKSUM_OFFSET], 0]));
        let pseudo = pseudo_sum(&frame[VIRTIO..], len);
        frame[VIRTIO + 20 + at..][..2].copy_from_slice(&pseudo.to_be_bytes());
        frame.extend((0..payload).map(|at| (at / usize::from(size)) as u8));
        frame
    }

    fn pseudo_sum(ip: &[u8], len: u16) -> u16 {
        add(add(sum(&ip[12..20]), ip[9].into()), len)
    }

    fn sorted(frame: &[u8], fates: &[Fate]) -> Sorted {
        let mut fates = fates.iter();
        let sorted = sort(frame, || *fates.next().expect("a fate for each packet"));
        assert!(fates.next().is_none(), "a packet for each fate");
        sorted
    }

    fn lose(frame: &[u8], lost: &[bool]) -> Vec<Vec<u8>> {
        let fates: Vec<Fate> = lost.iter().map(|lost| if *lost { Fate::Lost } else { Fate::Waits }).collect();
        let Sorted { hurrying, waiting } = sorted(frame, &fates);
        assert_eq!(hurrying, Vec::<Vec<u8>>::new(), "nothing hurries");
        waiting
    }

    fn assert_well_formed(piece: &[u8]) {
        let ip = &piece[VIRTIO..];
        let len = ip.len() as u16;
        assert_eq!(ip[2..4], len.to_be_bytes());
        assert_eq!(sum(&ip[..20]), 0xffff, "the header's checksum");
        let at = 20 + usize::from(piece[CHECKSUM_OFFSET]);
        assert_eq!(ip[at..at + 2], pseudo_sum(ip, len - 20).to_be_bytes(), "the transport's");
    }

    #[test]
    fn a_frame_of_which_nothing_is_lost_passes_as_it_is() {
        let frame = super_packet(UDP, 250, 100);

        assert_eq!(lose(&frame, &[false; 3]), [frame]);
    }

    #[test]
    fn a_small_packet_is_lost_or_not() {
        let frame = [0; 60];

        assert_eq!(lose(&frame, &[true]), Vec::<Vec<u8>>::new());
        assert_eq!(lose(&frame, &[false]), [frame]);
    }

    #[test]
    fn a_lost_packet_leaves_those_before_and_those_after() {
        let pieces = lose(&super_packet(UDP, 350, 100), &[false, true, false, false]);

        let [one, two] = &pieces[..] else { panic!("{} pieces", pieces.len()) };
        pieces.iter().for_each(|piece| assert_well_formed(piece));
        assert_eq!((one[GSO_TYPE], one[GSO_SIZE], two[GSO_TYPE], two[GSO_SIZE]), (0, 0, GSO_UDP, 100));
        assert_eq!(one[VIRTIO + 28..], [0; 100]);
        assert_eq!(two[VIRTIO + 28..], [&[2; 100][..], &[3; 50]].concat());
        assert_eq!((one[VIRTIO + 20 + 5], two[VIRTIO + 20 + 5]), (108, 158));
        assert_eq!((one[VIRTIO + 5], two[VIRTIO + 5]), (0, 2), "identifications");
    }

    #[test]
    fn what_is_left_of_a_stream_has_its_own_sequence_number_and_flags() {
        let pieces = lose(&super_packet(TCP, 300, 100), &[false, true, false]);

        pieces.iter().for_each(|piece| assert_well_formed(piece));
        let tcp: Vec<&[u8]> = pieces.iter().map(|piece| &piece[VIRTIO + 20..]).collect();
        assert_eq!((&tcp[0][4..8], &tcp[1][4..8]), (&7000_u32.to_be_bytes()[..], &7200_u32.to_be_bytes()[..]));
        assert_eq!((tcp[0][TCP_FLAGS], tcp[1][TCP_FLAGS]), (CWR | 0x10, 0x19));
    }

    #[test]
    fn a_packet_that_hurries_leaves_the_others_to_wait() {
        let Sorted { hurrying, waiting } =
            sorted(&super_packet(UDP, 300, 100), &[Fate::Waits, Fate::Hurries, Fate::Lost]);

        let ([fast], [slow]) = (&hurrying[..], &waiting[..]) else { panic!("{hurrying:?} {waiting:?}") };
        [fast, slow].iter().for_each(|piece| assert_well_formed(piece));
        assert_eq!((&fast[VIRTIO + 28..], &slow[VIRTIO + 28..]), (&[1; 100][..], &[0; 100][..]));
    }

    #[test]
    fn a_small_packet_that_hurries_goes_as_it_is() {
        let frame = vec![7; 60];

        assert_eq!(sorted(&frame, &[Fate::Hurries]), Sorted { hurrying: vec![frame], waiting: vec![] });
    }

    #[test]
    fn a_frame_too_short_for_its_headers_is_one_packet() {
        let frame = &super_packet(TCP, 300, 100)[..VIRTIO + 30];

        assert_eq!(lose(frame, &[false]), [frame]);
    }
}
