//! What passes through somebody else: the frame around a datagram of two peers that cannot reach each other. The datagram inside is sealed
//! end to end; the frame is authenticated from hop to hop, so that nobody else can make a relay send. Who relays for whom is not here but
//! in [`super::node`]; the relay of the user's own is in [`super::relay_server`].
//!
//! Wire: `MSR1` | from u16 | to u16 | by u16 | hop u8 | 0 u8 | MAC 8 | datagram. `by` is whoever sends this hop; `hop` is 0 from the origin and 1
//! from a relay, which passes nothing on that has been relayed before: no loops. MAC: SipHash-2-4 (Aumasson and Bernstein 2012, made for
//! network traffic), little-endian, over everything else, with the first half of the key of this hop and direction. Bulk passes here, and it takes a
//! twelfth of the time of an HMAC.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::role::Role;

const MAGIC: &[u8; 4] = b"MSR1";
const HEAD: usize = 12;
const MAC: usize = 8;

/// What a frame adds to the datagram inside.
pub const OVERHEAD: usize = HEAD + MAC;

/// `by`, where a `mesh relay` sends.
pub const SERVER: u16 = u16::MAX;

/// The key of one hop in one direction.
pub type HopKey = [u8; 32];

/// A frame's head. Nothing in it is authentic before [`open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Who made the datagram inside.
    pub from: Role,
    /// Whom it is for.
    pub to: Role,
    /// Number of the role that sends this hop, or [`SERVER`].
    pub by: u16,
    /// Whether it has been relayed.
    pub relayed: bool,
}

/// Whether a datagram claims to be a frame.
pub fn is_frame(datagram: &[u8]) -> bool {
    datagram.len() > OVERHEAD && datagram.starts_with(MAGIC)
}

/// Reads the head; `None` where it is malformed.
pub fn head(datagram: &[u8]) -> Option<Head> {
    if !is_frame(datagram) {
        return None;
    }
    let number = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
    let relayed = match datagram[10..HEAD] {
        [0, 0] => false,
        [1, 0] => true,
        _ => return None,
    };
    Some(Head { from: Role::from_number(number(4))?, to: Role::from_number(number(6))?, by: number(8), relayed })
}

/// Puts a frame around a datagram.
pub fn seal(head: Head, datagram: &[u8], key: &HopKey) -> Vec<u8> {
    let mut frame = [&[0; OVERHEAD], datagram].concat();
    write(head, &mut frame, key);
    frame
}

/// Writes a frame's head before the datagram, which lies in its place already.
pub fn write(head: Head, frame: &mut [u8], key: &HopKey) {
    let Some((head_and_mac, datagram)) = frame.split_at_mut_checked(OVERHEAD) else { return };
    head_and_mac[..4].copy_from_slice(MAGIC);
    for (at, number) in [head.from.number(), head.to.number(), head.by].into_iter().enumerate() {
        head_and_mac[4 + 2 * at..6 + 2 * at].copy_from_slice(&number.to_be_bytes());
    }
    head_and_mac[10..HEAD].copy_from_slice(&[u8::from(head.relayed), 0]);
    let mac = mac(&head_and_mac[..HEAD], datagram, key);
    head_and_mac[HEAD..].copy_from_slice(&mac.to_le_bytes());
}

/// The datagram inside; `None` where the frame is not authentic.
pub fn open<'f>(frame: &'f [u8], key: &HopKey) -> Option<&'f [u8]> {
    if !is_frame(frame) {
        return None;
    }
    let (head, rest) = frame.split_at(HEAD);
    let (claimed, datagram) = rest.split_first_chunk::<MAC>()?;
    // Two numbers are compared at once, so the time tells nothing of how far they agree.
    (mac(head, datagram, key) == u64::from_le_bytes(*claimed)).then_some(datagram)
}

fn mac(head: &[u8], datagram: &[u8], key: &HopKey) -> u64 {
    let half = key.first_chunk().expect("32 bytes have 16");
    let mut mac = SipHasher24::new_with_key(half);
    mac.write(head);
    mac.write(datagram);
    mac.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: HopKey = [7; 32];

    fn a_head() -> Head {
        Head { from: Role::Aux(3), to: Role::Primary, by: Role::Aux(3).number(), relayed: false }
    }

    #[test]
    fn a_frame_gives_back_its_head_and_its_datagram() {
        for head_in in [a_head(), Head { by: SERVER, relayed: true, ..a_head() }] {
            let frame = seal(head_in, b"inside", &KEY);
            assert_eq!(frame.len(), OVERHEAD + 6);
            assert_eq!(head(&frame), Some(head_in));
            assert_eq!(open(&frame, &KEY), Some(&b"inside"[..]));
            assert_eq!(open(&frame, &[8; 32]), None);
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_never_opens(at in 0..OVERHEAD + 6, bit in 0u8..8) {
            let mut frame = seal(a_head(), b"inside", &KEY);
            frame[at] ^= 1 << bit;
            prop_assert_eq!(open(&frame, &KEY), None);
        }

        #[test]
        fn garbage_never_panics_and_never_opens(mut bytes in prop::collection::vec(any::<u8>(), 0..100), magic: bool) {
            if magic && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(MAGIC);
            }
            let _ = head(&bytes);
            prop_assert_eq!(open(&bytes, &KEY), None);
        }
    }
}
