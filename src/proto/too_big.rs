//! Tells this machine's own network stack that a packet is too long for its peer: ICMP "fragmentation needed" (RFC 792, RFC 1191). So the
//! kernel sends shorter ones to that peer alone, and nobody needs the right to change the device.

/// Of an IPv4 header without options.
const HEADER: usize = 20;

/// ICMP type 3, code 4.
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];

const ICMP: u8 = 1;

const TTL: u8 = 64;

/// "Don't fragment" in the third 16-bit word of an IPv4 header.
const DONT_FRAGMENT: u8 = 0x40;

/// The answer to `packet`, which may have `mtu` bytes at most. `None` where it may be cut to pieces, is itself of ICMP, or is no IPv4.
pub fn answer(packet: &[u8], mtu: u16) -> Option<Vec<u8>> {
    let header = packet.get(..HEADER)?;
    let length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || length < HEADER || header[6] & DONT_FRAGMENT == 0 || header[9] == ICMP {
        return None;
    }
    let quoted = packet.get(..length + 8)?;
    let mut icmp = [&FRAGMENTATION_NEEDED[..], &[0; 4], &mtu.to_be_bytes(), quoted].concat();
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);

    let mut answer = vec![0x45, 0, 0, 0, 0, 0, 0, 0, TTL, ICMP, 0, 0];
    answer.extend(&header[16..20]);
    answer.extend(&header[12..16]);
    answer[2..4].copy_from_slice(&((HEADER + icmp.len()) as u16).to_be_bytes());
    let sum = checksum(&answer);
    answer[10..12].copy_from_slice(&sum);
    answer.extend(icmp);
    Some(answer)
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
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
        assert_eq!((checksum(&answer[..20]), checksum(&answer[20..])), ([0, 0], [0, 0]));
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
