//! What the device hands over and takes: packets that we are to cut, packets that are put together for it, and the word of a SYN on the way.
//! What comes out is compared byte by byte with what `inner.rs` says it must be.
//!
//! Input: what to do in one byte; then what it is done with.

use std::collections::{BTreeMap, VecDeque};

use mesh::proto::coalesce::{Coalescer, MOST_PIECES};
use mesh::proto::mss;
use mesh::proto::packets::Packets;
use mesh::proto::super_packet::{Malformed, SuperPacket};
use mesh::proto::too_big;
use mesh::proto::virtio::Header;

use super::inner::{
    self, GSO_TCPV4, GSO_UDP_L4, ICMP, TCP, UDP, headers, is_whole, set_word, sum, transport_sum, word,
};
use super::input::{Input, alter, piece};

const FIN: u8 = 1;
const SYN: u8 = 2;
const PSH: u8 = 8;
const ACK: u8 = 16;
const CWR: u8 = 128;

const ENDS: [[u8; 4]; 2] = [[10, 77, 0, 2], [10, 77, 0, 1]];

/// What one packet is cut into; more shows nothing new and takes long.
const MOST_SEGMENTS: usize = 200;

/// What is behind the headers, in bytes; more takes its time alone.
const MOST_PAYLOAD: usize = 16_000;

/// Of IPv4 and TCP.
const LONGEST_HEADERS: usize = 120;

/// Packets before they are put together.
const MOST_PACKETS: usize = 96;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => cut(&mut input),
        1 => put_together(&mut input),
        _ => clamp(&mut input),
    }
}

fn native(header: &[u8; 10], at: usize) -> usize {
    usize::from(u16::from_ne_bytes([header[at], header[at + 1]]))
}

/// Any packet behind any virtio header: refused for a reason, or cut as it should be.
fn cut(input: &mut Input<'_>) {
    let mtu = usize::from(u16::from_be_bytes(input.array()));
    let (header, mut original) = inner::super_packet(input, MOST_PAYLOAD);
    original.truncate(LONGEST_HEADERS + MOST_SEGMENTS * native(&header, 4).min(mtu).max(1));
    let (kind, size, place) = (header[1], native(&header, 4), native(&header, 6) + native(&header, 8));
    let wanted = match kind {
        GSO_TCPV4 => headers(&original, TCP),
        GSO_UDP_L4 => headers(&original, UDP),
        _ => None,
    };
    let (asked, completes) = (kind != 0, header[0] & 1 != 0);
    let known = [0, GSO_TCPV4, GSO_UDP_L4].contains(&kind);
    let mut bytes = original.clone();
    match (SuperPacket::new(header, &mut bytes), wanted) {
        (Err(Malformed::Kind), _) => assert!(!known),
        (Err(Malformed::Headers), _) => assert!(known && asked && (wanted.is_none() || size == 0)),
        (Err(Malformed::Checksum), _) => assert!(known && completes && place + 2 > original.len()),
        (Ok(whole), Some(at)) if at.1 < original.len() => segments(whole, &original, at, size, mtu),
        (Ok(whole), _) => {
            assert!(known && asked == wanted.is_some());
            let expected = if completes { completed(&header, original) } else { original };
            plain(whole, &expected, mtu);
        }
    }
}

/// As the device wants it: the sum from one place on, written to another.
fn completed(header: &[u8; 10], mut packet: Vec<u8>) -> Vec<u8> {
    let (start, place) = (native(header, 6), native(header, 6) + native(header, 8));
    let checksum = !sum(&packet[start..]);
    let is_udp = packet[0] >> 4 == 4 && packet.get(9) == Some(&UDP);
    set_word(&mut packet, place, if is_udp && checksum == 0 { 0xffff } else { checksum });
    packet
}

fn plain(mut whole: SuperPacket<'_>, expected: &[u8], mtu: usize) {
    assert_eq!(whole.bytes(), expected);
    if whole.fit(mtu) {
        assert!(expected.len() <= mtu);
    } else {
        assert!(expected.len() > mtu);
        told(&whole, mtu);
    }
    if !expected.is_empty() {
        assert_eq!(whole.next_segment().map(|segment| &*segment), Some(expected));
    }
    assert!(whole.next_segment().is_none());
}

/// Each of them byte by byte.
fn segments(mut whole: SuperPacket<'_>, original: &[u8], at: (usize, usize), size: usize, mtu: usize) {
    let (is_tcp, payload) = (original[9] == TCP, &original[at.1..]);
    if !whole.fit(mtu) {
        assert_eq!(whole.bytes(), original);
        assert!(at.1 + if is_tcp { 1 } else { size.min(payload.len()) } > mtu, "refused without a need");
        return told(&whole, mtu);
    }
    let size = if is_tcp { size.min(mtu - at.1) } else { size };
    for (number, part) in payload.chunks(size).enumerate() {
        let last = (number + 1) * size >= payload.len();
        let segment = whole.next_segment().expect("one for each part of the payload");
        assert!(segment.len() <= mtu && is_whole(segment));
        assert_eq!(segment, expected_segment(&original[..at.1], part, number, number * size, last));
    }
    assert!(whole.next_segment().is_none());
}

fn expected_segment(headers: &[u8], part: &[u8], number: usize, offset: usize, last: bool) -> Vec<u8> {
    let mut packet = [headers, part].concat();
    let (ip, id) = (usize::from(packet[0] & 0xf) * 4, word(headers, 4).wrapping_add(number as u16));
    set_word(&mut packet, 4, id);
    if packet[9] == TCP {
        let seq = [headers[ip + 4], headers[ip + 5], headers[ip + 6], headers[ip + 7]];
        let seq = u32::from_be_bytes(seq).wrapping_add(offset as u32);
        packet[ip + 4..ip + 8].copy_from_slice(&seq.to_be_bytes());
        packet[ip + 13] &= !if last { 0 } else { FIN | PSH };
        packet[ip + 13] &= !if number == 0 { 0 } else { CWR };
    }
    inner::seal(&mut packet);
    packet
}

/// What the sender hears of a packet that is too long, if it may hear anything.
fn told(whole: &SuperPacket<'_>, mtu: usize) {
    let packet = whole.bytes();
    let ip = packet.first().map_or(0, |first| usize::from(first & 0xf) * 4);
    let quotable = packet.len() >= 20 && packet[0] >> 4 == 4 && ip >= 20 && ip + 8 <= packet.len();
    let Some(answer) = too_big::answer(packet, mtu as u16) else {
        return assert!(!quotable || packet[6] & 0x40 == 0 || packet[9] == ICMP, "nobody is told");
    };
    assert!(quotable && packet[6] & 0x40 != 0 && packet[9] != ICMP);
    assert_eq!((answer.len(), usize::from(word(&answer, 2))), (28 + ip + 8, answer.len()));
    assert_eq!((&answer[12..16], &answer[16..20]), (&packet[16..20], &packet[12..16]));
    assert_eq!((sum(&answer[..20]), sum(&answer[20..])), (0xffff, 0xffff));
    assert_eq!((&answer[20..22], usize::from(word(&answer, 26))), (&[3, 4][..], mtu));
    assert_eq!(answer[28..], packet[..ip + 8]);
}

/// Packets out of the tunnel, as the device gets them; more than once with the same lists.
fn put_together(input: &mut Input<'_>) {
    let datagrams = input.byte() & 1 == 1;
    let (mut coalescer, mut packets, mut flows) = (Coalescer::new(datagrams), Packets::default(), Flows::default());
    for _ in 0..MOST_PACKETS {
        if input.is_empty() {
            break;
        }
        match input.byte() {
            0xff => flush(&mut coalescer, &mut packets, datagrams),
            what => packets.push(&flows.next(what, input)),
        }
    }
    flush(&mut coalescer, &mut packets, datagrams);
}

/// Where four connections are.
#[derive(Debug, Default)]
struct Flows {
    seqs: [u32; 4],
    id: u16,
    last: Vec<u8>,
}

impl Flows {
    fn next(&mut self, what: u8, input: &mut Input<'_>) -> Vec<u8> {
        self.id = self.id.wrapping_add(1);
        let (at, len) = (usize::from(what & 3), [1368, 900, 12][usize::from(what >> 5) % 3]);
        let packet = match what >> 2 & 7 {
            0 | 1 => self.tcp(at, len, ACK, |_| {}),
            2 => self.tcp(at, len, ACK | PSH, |_| {}),
            3 => inner::packet(UDP, ENDS, at as u16, &inner::payload(len, what)),
            4 => {
                let (flags, len) = (input.byte(), usize::from(input.byte()));
                self.tcp(at, len, flags, |_| {})
            }
            5 => {
                let mut last = self.last.clone();
                alter(&mut last, input);
                last
            }
            6 => input.piece().to_vec(),
            // Whole, but another than those before it.
            _ => {
                let [place, flip] = input.array();
                self.tcp(at, len, ACK, |packet| packet[usize::from(place) % 40] ^= flip)
            }
        };
        self.last.clone_from(&packet);
        packet
    }

    fn tcp(&mut self, at: usize, len: usize, flags: u8, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        // Close to where numbers begin anew.
        let seq = self.seqs[at].wrapping_sub(4000);
        self.seqs[at] = self.seqs[at].wrapping_add(len as u32);
        let mut packet = inner::packet(TCP, ENDS, at as u16, &inner::payload(len, self.id as u8));
        set_word(&mut packet, 4, self.id);
        packet[24..28].copy_from_slice(&seq.to_be_bytes());
        packet[33] = flags;
        change(&mut packet);
        inner::seal(&mut packet);
        packet
    }
}

/// Addresses, protocol and ports; what is too short for them is of one flow.
type Flow = Option<(u8, Vec<u8>)>;

fn flow(packet: &[u8]) -> Flow {
    (packet.len() >= 24).then(|| (packet[9], packet[12..24].to_vec()))
}

/// The kernel gets all that was given, each flow in its order; what it gets as one it can cut into the same again.
fn flush(coalescer: &mut Coalescer, packets: &mut Packets, datagrams: bool) {
    let given: Vec<Vec<u8>> = packets.iter().map(<[u8]>::to_vec).collect();
    let mut flows = BTreeMap::<Flow, VecDeque<&[u8]>>::new();
    given.iter().for_each(|packet| flows.entry(flow(packet)).or_default().push_back(packet));
    coalescer.coalesce(packets, |header, pieces| {
        let pieces: Vec<&[u8]> = pieces.collect();
        let whole = pieces.concat();
        let flow = flows.get_mut(&flow(&whole)).expect("a flow that was given");
        let parts: Vec<&[u8]> = flow.drain(..pieces.len().min(flow.len())).collect();
        assert_eq!(Header::parse(header.to_bytes()), Some(header));
        if header == Header::default() {
            assert_eq!(parts, [whole]);
        } else {
            assert!(datagrams || whole[9] == TCP);
            assert!((2..=MOST_PIECES).contains(&parts.len()) && parts.len() == pieces.len());
            cut_again(header, whole, &parts);
        }
    });
    assert!(flows.values().all(VecDeque::is_empty), "a packet was lost");
    packets.clear();
}

/// The identification is lost, which no fragment needs here; nothing else is.
fn cut_again(header: Header, mut whole: Vec<u8>, parts: &[&[u8]]) {
    let (ip, headers) = headers(&whole, whole[9]).expect("headers");
    assert_eq!((usize::from(word(&whole, 2)), sum(&whole[..ip]), whole[6] & 0x40), (whole.len(), 0xffff, 0x40));
    assert_eq!(usize::from(header.headers), headers);
    assert!(is_whole(&completed(&header.to_bytes(), whole.clone())), "the kernel's own sum would not come out");
    let mut cut = SuperPacket::new(header.to_bytes(), &mut whole).expect("it makes sense");
    for part in parts {
        let segment = cut.next_segment().expect("a segment for each packet");
        assert!(is_whole(part) && is_whole(segment), "a damaged packet was put together with others");
        assert_eq!(without_id(segment), without_id(part));
    }
    assert!(cut.next_segment().is_none());
}

/// Both are whole, so where all else is the same the checksums say the same.
fn without_id(packet: &[u8]) -> Vec<u8> {
    let (mut packet, checksum) = (packet.to_vec(), if packet[9] == TCP { 36 } else { 26 });
    for at in [4, 10, checksum] {
        set_word(&mut packet, at, 0);
    }
    packet
}

/// A SYN asks for no more than fits, and is otherwise as it was; so is every other packet.
fn clamp(input: &mut Input<'_>) {
    let mtu = u16::from_be_bytes(input.array());
    let (_, original) = inner::super_packet(input, 300);
    let most = mtu.saturating_sub(40);
    let mut packet = original.clone();
    mss::clamp(&mut packet, mtu);
    let wanted = headers(&original, TCP).filter(|(ip, _)| original[ip + 13] & SYN != 0);
    let place = wanted.and_then(|(ip, end)| Some(ip + 20 + segment_size(&original[ip + 20..end])?));
    let place = place.filter(|at| word(&original, *at) > most);
    let intact = |packet: &[u8]| wanted.is_some_and(|(ip, _)| transport_sum(packet, ip) == 0xffff);
    let Some((at, (ip, _))) = place.zip(wanted).filter(|_| intact(&original)) else {
        return assert_eq!(packet, original);
    };
    assert_eq!(word(&packet, at), most);
    assert!(intact(&packet));
    let mut restored = packet;
    for at in [at, ip + 16] {
        set_word(&mut restored, at, word(&original, at));
    }
    assert_eq!(restored, original);
}

/// Where the first value of it is among the options of a TCP header (RFC 9293 section 3.2).
fn segment_size(mut options: &[u8]) -> Option<usize> {
    let whole = options.len();
    loop {
        let len = match options {
            [] | [0, ..] => return None,
            [1, ..] => 1,
            [2, 4, _, _, ..] => return Some(whole - options.len() + 2),
            [2, 4, ..] => return None,
            [_, len, ..] => usize::from(*len).max(2),
            [_] => return None,
        };
        options = options.get(len..)?;
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let virtio = |kind: u8, size: u16, start: u16, offset: u16| {
        let words = [size, start, offset].map(u16::to_ne_bytes);
        [&[1, kind, 0, 0][..], words.as_flattened()].concat()
    };
    let headers = |protocol, flags: u8| {
        let mut packet = inner::packet(protocol, ENDS, 7, &[]);
        packet[if protocol == TCP { 33 } else { 1 }] = flags;
        piece(&packet)
    };
    let cut = |mtu: u16, mend: u8, virtio: &[u8], headers: &[u8], len: u16| {
        [&[0][..], &mtu.to_be_bytes(), &[mend], virtio, headers, &len.to_be_bytes()].concat()
    };
    let (tcp, udp) = (virtio(GSO_TCPV4, 1368, 20, 16), virtio(GSO_UDP_L4, 1000, 20, 6));
    let flags = headers(TCP, ACK | PSH | FIN | CWR);
    let mut syn = inner::packet(TCP, ENDS, 7, &[3, 3, 7, 1, 2, 4, 0x05, 0x8c]);
    (syn[32], syn[33]) = (7 << 4, SYN);
    inner::seal(&mut syn);
    let clamp = |mtu: u16, packet: &[u8]| [&[2][..], &mtu.to_be_bytes(), &[0; 11], &piece(packet), &[0; 2]].concat();
    let mut damaged = syn.clone();
    damaged[21] ^= 1;
    let together = |steps: &[u8]| [&[1, 1][..], steps].concat();
    vec![
        cut(1420, 4, &tcp, &flags, 5000),
        cut(600, 4, &tcp, &flags, 2000),
        cut(1420, 5, &tcp, &piece(&[0x47, 0, 0, 0, 0xff, 0xff, 0x40]), 3000),
        cut(1420, 4, &udp, &headers(UDP, 0), 2500),
        cut(600, 4, &udp, &headers(UDP, 0), 2500),
        cut(1420, 4, &virtio(0, 0, 20, 16), &flags, 33),
        cut(1420, 0, &virtio(4, 9, 20, 16), &flags, 33),
        cut(100, 4, &virtio(0, 0, 1, 7), &headers(UDP, 0), 200),
        together(&[0, 0, 1, 4, 0, 8, 1, 0]),
        together(&[12, 12, 13, 0, 12, 0xff, 12, 12]),
        together(&[0, 0x10, ACK, 0, 0, 0x10, ACK | FIN, 200, 0, 0x14, 0, 0, 60, 1, 0]),
        together(&[&[0, 0, 0x18][..], &piece(&syn), &[0, 0x1c, 8, 1, 0, 0x1c, 1, 4, 0, 32, 64]].concat()),
        together(&[0; 80]),
        clamp(1280, &syn),
        clamp(1480, &syn),
        clamp(1280, &damaged),
        clamp(1280, &syn[..46]),
    ]
}
