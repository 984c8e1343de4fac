//! TCP's word on the longest segment that a side takes (RFC 9293 section 3.7.1), lowered where the path is narrower than the device: so no
//! connection begins with segments that get lost. What is too long all the same is answered by [`super::too_big`].

use super::checksum::Sum;
use super::ipv4::{self, HEADER, SYN, TCP_HEADER};

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;

/// Lowers the maximum segment size that a SYN tells of to what fits `mtu`; leaves every other packet alone, and a damaged SYN to be refused where
/// it goes.
pub fn clamp(packet: &mut [u8], mtu: u16) {
    let Some((ip, tcp)) = ipv4::tcp_headers_len(packet).filter(|(ip, _)| packet[ip + 13] & SYN != 0) else { return };
    let Some(at) = find(&packet[ip + TCP_HEADER..ip + tcp]).map(|at| ip + TCP_HEADER + at) else { return };
    let most = usize::from(mtu).saturating_sub(HEADER + TCP_HEADER) as u16;
    if u16::from_be_bytes([packet[at], packet[at + 1]]) <= most || !sum(packet, ip).is_intact() {
        return;
    }
    packet[at..at + 2].copy_from_slice(&most.to_be_bytes());
    packet[ip + 16..ip + 18].fill(0);
    let checksum = sum(packet, ip).checksum();
    packet[ip + 16..ip + 18].copy_from_slice(&checksum);
}

/// Of all that TCP's checksum covers, behind an IP header of `ip` bytes.
fn sum(packet: &[u8], ip: usize) -> Sum {
    ipv4::pseudo_header(packet, packet.len() - ip).and(Sum::of(&packet[ip..]))
}

/// Where the value is among the options.
fn find(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += match *options.get(at)? {
            END => return None,
            NO_OPERATION => 1,
            MAXIMUM_SEGMENT_SIZE if options.get(at + 1) == Some(&4) => {
                return (at + 4 <= options.len()).then_some(at + 2);
            }
            _ => usize::from(*options.get(at + 1)?).max(2),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ipv4::{ACK, TCP};
    use super::*;

    /// With a window scale before the segment size, and something odd behind.
    fn packet(flags: u8, mss: u16) -> Vec<u8> {
        let mut packet = vec![0; 48];
        (packet[0], packet[3], packet[9], packet[32], packet[33]) = (0x45, 48, TCP, 7 << 4, flags);
        packet[40..44].copy_from_slice(&[3, 3, 7, 1]);
        packet[44..46].copy_from_slice(&[2, 4]);
        packet[46..48].copy_from_slice(&mss.to_be_bytes());
        let checksum = ipv4::pseudo_header(&packet, 28).and(Sum::of(&packet[20..])).checksum();
        packet[36..38].copy_from_slice(&checksum);
        packet
    }

    fn clamped(flags: u8, mss: u16, mtu: u16) -> u16 {
        let mut packet = packet(flags, mss);
        clamp(&mut packet, mtu);
        assert!(ipv4::pseudo_header(&packet, 28).and(Sum::of(&packet[20..])).is_intact());
        u16::from_be_bytes([packet[46], packet[47]])
    }

    #[test]
    fn a_syn_never_asks_for_more_than_the_path_takes() {
        assert_eq!(clamped(SYN, 1380, 1280), 1240);
        assert_eq!(clamped(SYN | ACK, 1380, 1280), 1240);
    }

    #[test]
    fn what_fits_and_what_is_no_syn_stays_as_it_is() {
        assert_eq!(clamped(SYN, 1000, 1280), 1000);
        assert_eq!(clamped(ACK, 1380, 1280), 1380);
    }

    #[test]
    fn a_damaged_syn_stays_damaged() {
        let mut damaged = packet(SYN, 1380);
        damaged[21] ^= 1;
        let mut same = damaged.clone();
        clamp(&mut same, 1280);
        assert_eq!(same, damaged);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..100), mtu: u16) {
            if bytes.len() > 33 {
                (bytes[0], bytes[6], bytes[7], bytes[9], bytes[33]) = (0x45, 0, 0, TCP, SYN);
            }
            clamp(&mut bytes, mtu);
        }
    }
}
