//! Inner packets of programs here on their way into the tunnel: which connections they are of, and the resets that answer them.
//!
//! Input: packets, each after its length in one byte.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use mesh::proto::ipv4;
use mesh::proto::reset::{self, Connections};

use super::input::{Input, piece};

/// A reset: two headers without options.
const RESET: usize = 40;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut connections = Connections::new(3632);
    let mut peers = BTreeSet::new();
    while !input.is_empty() {
        let packet = input.piece();
        assert_eq!(ipv4::source(packet).is_some(), ipv4::destination(packet).is_some());
        peers.extend(ipv4::destination(packet));
        connections.note(packet);
        if let Some(answer) = reset::answer(packet) {
            assert_reset(&answer, ipv4::destination(packet));
            assert_eq!(ipv4::destination(&answer), ipv4::source(packet));
        }
    }
    for peer in peers {
        let resets = connections.reset_all(peer);
        resets.iter().for_each(|reset| assert_reset(reset, Some(peer)));
        assert!(connections.reset_all(peer).is_empty());
    }
}

/// A whole segment that looks as if `peer` had sent it, with good checksums, and that is not answered in its turn.
fn assert_reset(packet: &[u8], peer: Option<Ipv4Addr>) {
    assert_eq!(packet.len(), RESET);
    assert_eq!(ipv4::source(packet), peer);
    assert_eq!(reset::answer(packet), None);
    let pseudo = [&packet[12..20], &[0, packet[9]], &(RESET as u16 - 20).to_be_bytes(), &packet[20..]].concat();
    assert_eq!((sum(&packet[..20]), sum(&pseudo)), (0xffff, 0xffff));
}

/// The ones' complement sum (RFC 1071); all ones where a checksum within is right.
fn sum(bytes: &[u8]) -> u32 {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    (sum & 0xffff) + (sum >> 16)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let (fin, syn, rst, ack) = (1, 2, 4, 16);
    let packet = |flags, payload| piece(&segment(flags, payload));
    let mut with_options = segment(ack, 20);
    (with_options[0], with_options[40], with_options[41]) = (0x47, 5 << 4, ack);
    let mut fragment = segment(ack, 8);
    fragment[7] = 1;
    let mut udp = segment(ack, 8);
    udp[9] = 17;
    let open = packet(ack, 30);
    vec![
        packet(syn, 0),
        [open.clone(), packet(ack | fin, 0)].concat(),
        [packet(syn | ack, 0), packet(ack, 0), packet(ack, 100)].concat(),
        [open.clone(), packet(rst, 0)].concat(),
        packet(fin, 7),
        piece(&with_options),
        piece(&fragment),
        [open, piece(&udp), piece(&segment(ack, 0)[..39]), piece(&[0x60; 40])].concat(),
    ]
}

/// TCP from 10.77.0.1 to 10.77.0.2.
fn segment(flags: u8, payload: u8) -> Vec<u8> {
    let mut packet = vec![0; RESET + usize::from(payload)];
    (packet[0], packet[3], packet[8], packet[9]) = (0x45, RESET as u8 + payload, 64, 6);
    packet[12..24].copy_from_slice(&[10, 77, 0, 1, 10, 77, 0, 2, 0xc3, 0x50, 0x0e, 0x30]);
    packet[24..32].copy_from_slice(&[0, 0, 0, 41, 0, 0, 0, 7]);
    (packet[32], packet[33]) = (5 << 4, flags);
    packet
}
