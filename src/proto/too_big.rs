//! Tells this machine's own network stack that a packet is too long for its peer: ICMP "fragmentation needed" (RFC 792, RFC 1191). So the
//! kernel sends shorter ones to that peer alone, and nobody needs the right to change the device.

use super::checksum::Sum;
use super::ipv4::{self, DONT_FRAGMENT, HEADER, ICMP};

/// ICMP type 3, code 4.
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];

const TTL: u8 = 64;

/// The answer to `packet`, which may have `mtu` bytes at most. `None` where it may be cut to pieces, is itself of ICMP, or is no IPv4.
pub fn answer(packet: &[u8], mtu: u16) -> Option<Vec<u8>> {
    let length = ipv4::header_len(packet)?;
    if packet[6] & DONT_FRAGMENT == 0 || packet[9] == ICMP {
        return None;
    }
    let quoted = packet.get(..length + 8)?;
    let mut icmp = [&FRAGMENTATION_NEEDED[..], &[0; 4], &mtu.to_be_bytes(), quoted].concat();
    let sum = Sum::of(&icmp).checksum();
    icmp[2..4].copy_from_slice(&sum);

    let mut answer = vec![0x45, 0, 0, 0, 0, 0, 0, 0, TTL, ICMP, 0, 0];
    answer.extend(&packet[16..20]);
    answer.extend(&packet[12..16]);
    answer[2..4].copy_from_slice(&((HEADER + icmp.len()) as u16).to_be_bytes());
    ipv4::seal_header(&mut answer, HEADER);
    answer.extend(icmp);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(fragment: u8, protocol: u8) -> Vec<u8> {
        let mut packet = vec![0; 1420];
        (packet[0], packet[6], packet[9]) = (0x45, fragment, protocol);
        packet[12..20].copy_from_slice(&[10, 77, 0, 1, 10, 77, 0, 2]);
        packet
    }

    #[test]
    fn the_answer_comes_from_the_peer_and_quotes_the_packet() {
        let answer = answer(&packet(DONT_FRAGMENT, 6), 1340).expect("an answer");
        assert_eq!(answer.len(), 20 + 8 + 28);
        assert_eq!(answer[12..20], [10, 77, 0, 2, 10, 77, 0, 1]);
        assert_eq!((&answer[20..22], &answer[26..28]), (&FRAGMENTATION_NEEDED[..], &1340u16.to_be_bytes()[..]));
        assert!(Sum::of(&answer[..20]).is_intact() && Sum::of(&answer[20..]).is_intact());
    }

    #[test]
    fn what_may_be_cut_and_icmp_itself_get_no_answer() {
        assert_eq!(answer(&packet(0, 6), 1340), None);
        assert_eq!(answer(&packet(DONT_FRAGMENT, ICMP), 1340), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = answer(&bytes, 1340);
        }
    }
}
