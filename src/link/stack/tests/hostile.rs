//! Packets that no stack of a peer would send, made by hand: an echo request, garbage, and segments that were twisted on their way.

use std::time::Duration;

use proptest::prelude::*;

use super::{A, B, End, HERE, Net, THERE};
use crate::proto::ipv4;

#[test]
fn an_echo_request_is_answered() {
    let mut net = Net::new();
    net.cores[B].input(net.now, &echo_request());
    let reply = net.cores[B].output().expect("an answer");
    assert_eq!((ipv4::source(&reply), ipv4::destination(&reply)), (Some(THERE), Some(HERE)));
    assert_eq!((reply[20], &reply[28..]), (0, &b"are you there?"[..]), "an echo reply (RFC 792)");
}

fn echo_request() -> Vec<u8> {
    let data = b"are you there?";
    let mut packet = vec![0; 28 + data.len()];
    (packet[0], packet[3], packet[8], packet[9]) = (0x45, 28 + data.len() as u8, 64, 1);
    packet[12..16].copy_from_slice(&HERE.octets());
    packet[16..20].copy_from_slice(&THERE.octets());
    packet[20] = 8;
    packet[28..].copy_from_slice(data);
    let (ip, icmp) = (checksum(&packet[..20]), checksum(&packet[20..]));
    packet[10..12].copy_from_slice(&ip);
    packet[22..24].copy_from_slice(&icmp);
    packet
}

fn checksum(data: &[u8]) -> [u8; 2] {
    let mut sum: u32 = data.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// Makes both checksums right again, so that what was changed reaches the stack.
fn seal(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 0xf) * 4;
    if packet.len() < header + 20 || header < 20 {
        return;
    }
    packet[10..12].fill(0);
    let ip = checksum(&packet[..header]);
    packet[10..12].copy_from_slice(&ip);
    packet[header + 16..header + 18].fill(0);
    let len = (packet.len() - header) as u16;
    let mut pseudo = [&packet[12..20], &[0, 6], &len.to_be_bytes()[..], &packet[header..]].concat();
    pseudo.resize(pseudo.len().next_multiple_of(2), 0);
    let tcp = checksum(&pseudo);
    packet[header + 16..header + 18].copy_from_slice(&tcp);
}

/// A change of one packet on its way: where, to what, and whether the checksums are made to fit.
type Change = (u16, u8, bool);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn garbage_never_panics(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..20)) {
        let mut net = Net::new();
        for mut packet in packets {
            if packet.len() >= 20 {
                packet[0] = 0x45;
                packet[16..20].copy_from_slice(&THERE.octets());
            }
            net.cores[B].input(net.now, &packet);
        }
        net.until(Duration::from_secs(5), |_| false);
    }

    #[test]
    fn a_peer_that_twists_its_packets_never_makes_us_panic_or_spin(
        changes in prop::collection::vec((any::<u16>(), any::<u8>(), any::<bool>()), 1..200),
        len in 0..60_000usize,
    ) {
        let mut net = Net::new();
        let (here, there) = net.connect();
        let mut ends = [End::new(A, here, len, 1), End::new(B, there, len, 2)];
        let mut changes = changes.into_iter();
        let mut turns = 0;
        for _ in 0..400 {
            net.until(Duration::from_millis(20), |cores| {
                turns += 1;
                ends.iter_mut().for_each(|end| {
                    end.step(cores);
                });
                false
            });
            if let Some((_, packet)) = net.transit.values_mut().find(|(to, _)| *to == B) {
                twist(packet, changes.next());
            }
        }
        prop_assert!(turns < 40_000, "{} turns in 8 s", turns);
        net.cores[A].release(here);
        net.cores[B].release(there);
        net.assert_nothing_is_left();
    }
}

fn twist(packet: &mut [u8], change: Option<Change>) {
    let Some((at, value, fitting)) = change else { return };
    // The headers of TCP are where it hurts.
    let at = 20 + usize::from(at) % (packet.len() - 20).min(40);
    packet[at] = value;
    if fitting {
        seal(packet);
    }
}
