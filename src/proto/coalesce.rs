//! Puts segments of one flow that follow each other back into one packet, so that the kernel takes them as one (generic receive offload).
//! Cutting is not here but in [`super::super_packet`].
//!
//! The payloads stay where they are: what comes out is a list of pieces for one gathering write. The packets of a flow stay in their order. All
//! that is lost is the identification of those after the first: none of them may become fragments, so it means nothing (RFC 6864 section 4.1).

use super::checksum::Sum;
use super::ipv4::{self, ACK, DONT_FRAGMENT, HEADER, PSH, TCP, UDP, UDP_HEADER};
use super::packets::Packets;
use super::virtio::{Header, Segmentation};

/// The most segments that are put together.
pub const MOST_PIECES: usize = 64;

/// The longest IPv4 packet.
const LONGEST: usize = u16::MAX as usize;

/// How far back a flow is looked for; a batch rarely holds more flows than this.
const MOST_OPEN: usize = 16;

/// A packet that may be put together with others.
#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: Segmentation,
    /// The length of its headers.
    headers: usize,
    payload: usize,
    /// Of TCP.
    seq: u32,
    pushed: bool,
}

/// Packets that are put together; one alone stays as it is.
#[derive(Debug)]
struct Group {
    /// The first and the last of them.
    first: usize,
    last: usize,
    count: usize,
    /// What the first one is; `None` where nothing may follow it.
    segment: Option<Segment>,
    payload: usize,
    next_seq: u32,
    pushed: bool,
    open: bool,
    /// What the device is told of them.
    header: Header,
}

/// Puts packets together; keeps its lists from one time to the next.
#[derive(Debug, Default)]
pub struct Coalescer {
    /// Whether datagrams may be put together too.
    datagrams: bool,
    groups: Vec<Group>,
    /// For each packet, the next one of its group.
    next: Vec<Option<usize>>,
}

impl Coalescer {
    /// For TCP, and for `datagrams` where the device takes them.
    pub fn new(datagrams: bool) -> Self {
        Self { datagrams, ..Self::default() }
    }

    /// Calls `write` with each packet, some of them put together, and with what to say of it. Changes headers in `packets`.
    pub fn coalesce<'p>(&mut self, packets: &'p mut Packets, mut write: impl FnMut(Header, Pieces<'_, 'p>)) {
        self.groups.clear();
        self.next.clear();
        self.next.resize(packets.len(), None);
        for at in 0..packets.len() {
            self.place(packets, at);
        }
        for group in &mut self.groups {
            group.finish(packets);
        }
        for Group { first, header, .. } in &self.groups {
            let headers = header.headers.into();
            write(*header, Pieces { packets, next: &self.next, at: Some(*first), skip: 0, headers });
        }
    }

    fn place(&mut self, packets: &Packets, at: usize) {
        let Some(packet) = packets.get(at) else { return };
        let segment = Segment::read(packet).filter(|segment| self.datagrams || segment.kind == Segmentation::Tcp);
        let flow =
            self.groups.iter_mut().rev().take(MOST_OPEN).find(|group| is_same_flow(packets.get(group.first), packet));
        if let (Some(group), Some(segment)) = (flow, segment)
            && group.takes(&segment, packets, packet)
        {
            self.next[group.last] = Some(at);
            return group.add(at, &segment);
        }
        self.groups.push(Group::new(at, segment));
    }
}

impl Group {
    fn new(at: usize, segment: Option<Segment>) -> Self {
        let (payload, seq) = segment.map_or((0, 0), |segment| (segment.payload, segment.seq));
        let pushed = segment.is_some_and(|segment| segment.pushed);
        let open = segment.is_some() && !pushed;
        let (next_seq, header) = (seq.wrapping_add(payload as u32), Header::default());
        Self { first: at, last: at, count: 1, segment, payload, next_seq, pushed, open, header }
    }

    /// Whether `segment` follows, with the same headers but for what tells segments apart. Both must be intact: nobody looks after us.
    fn takes(&self, segment: &Segment, packets: &Packets, packet: &[u8]) -> bool {
        let (Some(mine), Some(first)) = (self.segment, packets.get(self.first)) else { return false };
        let fits = mine.kind == segment.kind
            && mine.headers == segment.headers
            && segment.payload <= mine.payload
            && self.count < MOST_PIECES
            && mine.headers + self.payload + segment.payload <= LONGEST;
        let follows = segment.kind == Segmentation::Udp || segment.seq == self.next_seq;
        self.open
            && fits
            && follows
            && is_alike(first, packet, mine)
            && (self.count > 1 || is_intact(first))
            && is_intact(packet)
    }

    fn add(&mut self, at: usize, segment: &Segment) {
        let full = self.segment.map_or(0, |mine| mine.payload);
        self.last = at;
        self.count += 1;
        self.payload += segment.payload;
        self.next_seq = segment.seq.wrapping_add(segment.payload as u32);
        self.pushed = segment.pushed;
        self.open = segment.payload == full && !segment.pushed;
    }

    /// Writes the headers of the whole.
    fn finish(&mut self, packets: &mut Packets) {
        let several = self.segment.filter(|_| self.count > 1);
        let (Some(segment), Some(packet)) = (several, packets.get_mut(self.first)) else { return };
        let len = (segment.headers + self.payload) as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        ipv4::seal_header(packet, HEADER);
        let transport = len - HEADER as u16;
        let offset = match segment.kind {
            Segmentation::Tcp => {
                packet[HEADER + 13] |= if self.pushed { PSH } else { 0 };
                16
            }
            Segmentation::Udp => {
                packet[HEADER + 4..HEADER + 6].copy_from_slice(&transport.to_be_bytes());
                6
            }
        };
        let pseudo = ipv4::pseudo_header(packet, transport.into()).partial();
        packet[HEADER + offset..HEADER + offset + 2].copy_from_slice(&pseudo);
        self.header = Header {
            segmentation: Some((segment.kind, segment.payload as u16)),
            headers: segment.headers as u16,
            checksum: Some((HEADER as u16, offset as u16)),
        };
    }
}

/// What a packet is written from: the first of a group whole, of the others the payload.
#[derive(Debug)]
pub struct Pieces<'l, 'p> {
    packets: &'p Packets,
    next: &'l [Option<usize>],
    at: Option<usize>,
    skip: usize,
    headers: usize,
}

impl<'p> Iterator for Pieces<'_, 'p> {
    type Item = &'p [u8];

    fn next(&mut self) -> Option<&'p [u8]> {
        let at = self.at?;
        self.at = self.next[at];
        let piece = self.packets.get(at)?.get(self.skip..);
        self.skip = self.headers;
        piece
    }
}

impl Segment {
    /// `None` for what goes alone: other protocols, fragments and what may become some, options of IP, and TCP that says more than data.
    fn read(packet: &[u8]) -> Option<Self> {
        let whole = packet.len() >= HEADER && usize::from(u16::from_be_bytes([packet[2], packet[3]])) == packet.len();
        if !whole || packet[0] != 0x45 || packet[6..8] != [DONT_FRAGMENT, 0] {
            return None;
        }
        let (kind, headers) = match packet[9] {
            TCP => (Segmentation::Tcp, HEADER + ipv4::tcp_headers_len(packet)?.1),
            UDP if packet.len() >= HEADER + UDP_HEADER => (Segmentation::Udp, HEADER + UDP_HEADER),
            _ => return None,
        };
        let payload = packet.len() - headers;
        let mut segment = Self { kind, headers, payload, seq: 0, pushed: false };
        if kind == Segmentation::Tcp {
            let tcp = &packet[HEADER..];
            segment.seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            segment.pushed = tcp[13] & PSH != 0;
            (tcp[13] & !PSH == ACK).then_some(())?;
        } else {
            let len = usize::from(u16::from_be_bytes([packet[24], packet[25]]));
            (len == payload + UDP_HEADER && packet[26..28] != [0, 0]).then_some(())?;
        }
        (payload > 0).then_some(segment)
    }
}

/// Between the same two ends: addresses, protocol and ports.
fn is_same_flow(one: Option<&[u8]>, other: &[u8]) -> bool {
    let Some(one) = one.filter(|one| one.len() >= HEADER + 4) else { return false };
    other.len() >= HEADER + 4 && one[9] == other[9] && one[12..HEADER + 4] == other[12..HEADER + 4]
}

/// Whether all agrees that segments of one packet have in common.
fn is_alike(one: &[u8], other: &[u8], segment: Segment) -> bool {
    let ip = one[1] == other[1] && one[8] == other[8];
    match segment.kind {
        Segmentation::Udp => ip,
        Segmentation::Tcp => {
            let (one, other) = (&one[HEADER..segment.headers], &other[HEADER..segment.headers]);
            ip && one[8..13] == other[8..13] && one[14..16] == other[14..16] && one[18..] == other[18..]
        }
    }
}

fn is_intact(packet: &[u8]) -> bool {
    let transport = &packet[HEADER..];
    Sum::of(&packet[..HEADER]).is_intact()
        && ipv4::pseudo_header(packet, transport.len()).and(Sum::of(transport)).is_intact()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ipv4::FIN;
    use super::super::super_packet::SuperPacket;
    use super::*;

    const SEQ: u32 = u32::MAX - 2000;

    /// A segment of the flow from `port`, with a timestamp in its options.
    fn tcp(port: u16, id: u16, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 52];
        packet[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, TCP]);
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[12..20].copy_from_slice(&[10, 77, 0, 1, 10, 77, 0, 2]);
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        packet[24..28].copy_from_slice(&seq.to_be_bytes());
        (packet[32], packet[33]) = (8 << 4, flags);
        packet[40..52].copy_from_slice(&[1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9]);
        sealed(packet, payload, 16)
    }

    fn udp(port: u16, id: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = tcp(port, id, 0, 0, &[]);
        (packet[9], packet[10], packet[11]) = (UDP, 0, 0);
        packet.truncate(28);
        packet[24..26].copy_from_slice(&(payload.len() as u16 + 8).to_be_bytes());
        sealed(packet, payload, 6)
    }

    fn sealed(mut packet: Vec<u8>, payload: &[u8], checksum: usize) -> Vec<u8> {
        packet[20 + checksum..22 + checksum].fill(0);
        packet.extend(payload);
        let len = packet.len();
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        ipv4::seal_header(&mut packet, 20);
        let sum = ipv4::pseudo_header(&packet, len - 20).and(Sum::of(&packet[20..])).checksum();
        packet[20 + checksum..22 + checksum].copy_from_slice(&sum);
        packet
    }

    /// What the kernel is given.
    fn written(given: &[Vec<u8>]) -> Vec<(Header, Vec<u8>)> {
        let (mut packets, mut out) = (Packets::default(), vec![]);
        given.iter().for_each(|packet| packets.push(packet));
        Coalescer::new(true)
            .coalesce(&mut packets, |header, pieces| out.push((header, pieces.collect::<Vec<_>>().concat())));
        out
    }

    /// What it makes of that.
    fn cut(written: Vec<(Header, Vec<u8>)>) -> Vec<Vec<u8>> {
        let mut all = vec![];
        for (header, mut bytes) in written {
            let mut whole = SuperPacket::new(header.to_bytes(), &mut bytes).expect("it makes sense");
            all.extend(std::iter::from_fn(|| whole.next_segment().map(|segment| segment.to_vec())));
        }
        all
    }

    #[test]
    fn segments_that_follow_each_other_become_one_packet() {
        let given = [tcp(1, 5, SEQ, ACK, &[1; 1368]), tcp(1, 6, SEQ.wrapping_add(1368), ACK | PSH, &[2; 800])];
        let written = written(&given);
        assert_eq!(written.len(), 1);
        let (header, bytes) = &written[0];
        assert_eq!((header.segmentation, header.checksum), (Some((Segmentation::Tcp, 1368)), Some((20, 16))));
        assert_eq!((bytes.len(), bytes[33]), (52 + 2168, ACK | PSH));
        assert_eq!(cut(written), given);
    }

    #[test]
    fn datagrams_of_one_flow_become_one_packet_where_the_device_takes_it() {
        let given = [udp(1, 5, &[1; 1000]), udp(1, 6, &[2; 1000]), udp(1, 7, &[3; 10])];
        assert_eq!(written(&given).len(), 1);
        assert_eq!(cut(written(&given)), given);
        let mut packets = Packets::default();
        given.iter().for_each(|packet| packets.push(packet));
        let mut count = 0;
        Coalescer::new(false).coalesce(&mut packets, |_, _| count += 1);
        assert_eq!(count, 3);
    }

    #[test]
    fn two_flows_that_alternate_become_two_packets() {
        let given: Vec<_> =
            (0..6).map(|at| tcp(at % 2, at / 2, u32::from(at / 2) * 100, ACK, &[at as u8; 100])).collect();
        assert_eq!(written(&given).len(), 2);
    }

    #[test]
    fn what_says_more_than_data_stays_alone_and_in_its_place() {
        let data = tcp(1, 5, SEQ, ACK, &[1; 100]);
        let next = |id, flags, seq: u32, payload: &[u8]| tcp(1, id, SEQ.wrapping_add(seq), flags, payload);
        for other in [
            next(6, ACK, 100, &[]),
            next(6, ACK | FIN, 100, &[2; 100]),
            next(6, ACK, 200, &[2; 100]),
            next(6, ACK, 100, &[2; 101]),
        ] {
            let given = [data.clone(), other];
            assert_eq!(written(&given).len(), 2);
            assert_eq!(cut(written(&given)), given);
        }
    }

    #[test]
    fn a_segment_that_is_damaged_is_left_to_the_kernel_to_refuse() {
        for damaged in 0..2 {
            let mut given = [tcp(1, 5, SEQ, ACK, &[1; 100]), tcp(1, 6, SEQ.wrapping_add(100), ACK, &[2; 100])];
            given[damaged][60] ^= 1;
            assert_eq!(written(&given).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), given);
        }
    }

    #[derive(Debug, Clone)]
    enum Given {
        Tcp { port: u16, gap: bool, flags: u8, len: usize },
        Udp { port: u16, len: usize },
        Garbage(Vec<u8>),
    }

    fn given() -> impl Strategy<Value = Given> {
        let flags = prop_oneof![8 => Just(ACK), 1 => Just(ACK | PSH), 1 => Just(ACK | FIN)];
        let lens = || prop_oneof![4 => Just(1368usize), 1 => 0usize..1368];
        prop_oneof![
            8 => (0u16..3, prop::bool::weighted(0.05), flags, lens()).prop_map(|(port, gap, flags, len)| Given::Tcp { port, gap, flags, len }),
            2 => (0u16..3, lens()).prop_map(|(port, len)| Given::Udp { port, len }),
            1 => prop::collection::vec(any::<u8>(), 1..100).prop_map(Given::Garbage),
        ]
    }

    proptest! {
        #[test]
        fn what_the_kernel_cuts_again_is_what_came_flow_by_flow(list in prop::collection::vec(given(), 1..120)) {
            let mut next = [[0u32; 3], [0; 3]];
            let given: Vec<Vec<u8>> = list.into_iter().map(|one| match one {
                Given::Tcp { port, gap, flags, len } => {
                    let [seq, id] = [next[0][usize::from(port)] + u32::from(gap), next[1][usize::from(port)]];
                    (next[0][usize::from(port)], next[1][usize::from(port)]) = (seq + len as u32, id + 1);
                    tcp(port, id as u16, seq, flags, &vec![id as u8; len])
                }
                Given::Udp { port, len } => {
                    let id = next[1][usize::from(port)];
                    next[1][usize::from(port)] += 1;
                    udp(port, id as u16, &vec![id as u8; len])
                }
                Given::Garbage(bytes) => bytes,
            }).collect();
            let got = cut(written(&given));
            prop_assert_eq!(got.len(), given.len());
            let flow = |packet: &Vec<u8>| (packet.len() >= 24).then(|| (packet[9], packet[12..24].to_vec()));
            let by_flow = |packets: &[Vec<u8>]| {
                let mut flows = std::collections::BTreeMap::<_, Vec<Vec<u8>>>::new();
                packets.iter().for_each(|packet| flows.entry(flow(packet)).or_default().push(packet.clone()));
                flows
            };
            // The ids of TCP and UDP from one port are of one row here, so a datagram between two segments shows in them.
            let plain = |mut packet: Vec<u8>| {
                if packet.len() >= 24 && packet[0] == 0x45 {
                    packet[4..6].fill(0);
                    packet[10..12].fill(0);
                }
                packet
            };
            let (got, given): (Vec<_>, Vec<_>) = (got.into_iter().map(plain).collect(), given.into_iter().map(plain).collect());
            prop_assert_eq!(by_flow(&got), by_flow(&given));
        }
    }
}
