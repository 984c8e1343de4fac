//! Probes: the small sealed datagrams that open NATs, test pairs, measure, and say goodbye. When to send them is not here but in
//! [`super::path`].
//!
//! Wire: `MSH1` | from u16 | to u16 | nonce 24 | XChaCha20-Poly1305(type u8, 0 u8, transaction 8, body, zeros), associated data the first
//! eight bytes. Everything that answers something has the least length, so an answer is never longer than what caused it. Calls, cards and
//! pings that look for the path's MTU are longer; a text in a body is JSON after its length (u16).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::{Rng, RngCore};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::announcement::Announcement;
use super::call::Call;
use super::key::ProbeKeys;
use super::role::Role;

const MAGIC: &[u8; 4] = b"MSH1";
const HEADER: usize = 8;
const NONCE: usize = 24;
const PLAIN: usize = 32;
const TAG: usize = 16;

/// The least length of a probe.
pub const LEN: usize = HEADER + NONCE + PLAIN + TAG;

/// The greatest: what 1500 bytes on the wire leave, after IP, UDP and a relay's frame.
pub const LONGEST: usize = 1452;

/// Where a body begins.
const BODY: usize = 10;

/// Ties an answer to its question.
pub type Transaction = u64;

/// Why a peer says goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// From the primary: the build is over, go home.
    Released = 1,
    /// From an aux: this machine leaves.
    Leaving,
    /// From the primary: a newer process has your index.
    Replaced,
}

/// What a probe says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// "Do you hear me?" Carries the sender's epoch.
    Ping { epoch: u32 },
    /// "I heard you, from this address."
    Pong { observed: SocketAddr },
    /// Where the sender is, and whether it has opened.
    Call(Box<Call>),
    /// From the primary: the announcement of somebody who may be reached directly, and when its process first published.
    Card { announcement: Box<Announcement>, born: u64 },
    /// To the primary: "I have something for this one."
    Introduce(Role),
    /// Goodbye; answered by `ByeAck`.
    Bye(Farewell),
    /// "I heard that you leave."
    ByeAck,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Chosen by who asks, repeated by who answers.
    pub transaction: Transaction,
    /// What it says.
    pub body: Body,
}

/// Whether a datagram claims to be a probe.
pub fn is_probe(datagram: &[u8]) -> bool {
    (LEN..=LONGEST).contains(&datagram.len()) && datagram.starts_with(MAGIC)
}

/// Who a probe claims to be from and to; nothing is authentic before [`open`].
pub fn parties(datagram: &[u8]) -> Option<(Role, Role)> {
    let number = |at: usize| Some(u16::from_be_bytes(datagram.get(at..at + 2)?.try_into().ok()?));
    Some((Role::from_number(number(4)?)?, Role::from_number(number(6)?)?))
}

/// Seals a probe, padded to `length` where that is more than it needs. A text that is too long for a datagram is left out, and so does not
/// open at the other end; those of `mesh` are below half of that.
pub fn seal(probe: &Probe, from: Role, to: Role, keys: &ProbeKeys, length: usize, rng: &mut impl RngCore) -> Vec<u8> {
    let mut datagram = MAGIC.to_vec();
    datagram.extend(from.number().to_be_bytes());
    datagram.extend(to.number().to_be_bytes());
    let mut plain = encode(probe);
    plain.resize(plain.len().max(length.saturating_sub(LEN - PLAIN)).clamp(PLAIN, LONGEST - LEN + PLAIN), 0);
    let nonce: [u8; NONCE] = rng.random();
    let sealed = XChaCha20Poly1305::new(&keys.send.into())
        .encrypt(XNonce::from_slice(&nonce), Payload { msg: &plain, aad: &datagram })
        .expect("the cipher takes any length below 256 GiB");
    datagram.extend(nonce);
    datagram.extend(sealed);
    datagram
}

/// Opens a probe; `None` when it is not authentic or says nothing that we know.
pub fn open(datagram: &[u8], keys: &ProbeKeys) -> Option<Probe> {
    if !is_probe(datagram) {
        return None;
    }
    let (header, rest) = datagram.split_at(HEADER);
    let (nonce, sealed) = rest.split_at(NONCE);
    let plain = XChaCha20Poly1305::new(&keys.receive.into())
        .decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: header })
        .ok()?;
    decode(&plain)
}

fn encode(probe: &Probe) -> Vec<u8> {
    let (kind, body) = match &probe.body {
        Body::Ping { epoch } => (1, epoch.to_be_bytes().to_vec()),
        Body::Pong { observed } => (2, encode_addr(*observed).to_vec()),
        Body::Call(call) => (3, text(call)),
        Body::Card { announcement, born } => (4, [&born.to_be_bytes()[..], &text(announcement)].concat()),
        Body::Introduce(role) => (5, role.number().to_be_bytes().to_vec()),
        Body::Bye(farewell) => (7, vec![*farewell as u8]),
        Body::ByeAck => (8, vec![]),
    };
    [&[kind, 0][..], &probe.transaction.to_be_bytes(), &body].concat()
}

fn decode(plain: &[u8]) -> Option<Probe> {
    let (head, body) = plain.split_at_checked(BODY)?;
    let body = match head[0] {
        1 => Body::Ping { epoch: u32::from_be_bytes(*body.first_chunk()?) },
        2 => Body::Pong { observed: decode_addr(*body.first_chunk()?) },
        3 => Body::Call(Box::new(read::<Call>(body)?.checked())),
        4 => {
            let (born, rest) = body.split_first_chunk()?;
            let announcement: Announcement = read(rest)?;
            Body::Card { announcement: Box::new(announcement.checked()?), born: u64::from_be_bytes(*born) }
        }
        5 => Body::Introduce(Role::from_number(u16::from_be_bytes(*body.first_chunk()?))?),
        7 => Body::Bye(match body.first()? {
            1 => Farewell::Released,
            2 => Farewell::Leaving,
            3 => Farewell::Replaced,
            _ => return None,
        }),
        8 => Body::ByeAck,
        _ => return None,
    };
    Some(Probe { transaction: Transaction::from_be_bytes(*head[2..].first_chunk()?), body })
}

/// JSON after its length; empty where it is longer than a probe has room for.
fn text(value: &impl Serialize) -> Vec<u8> {
    let json = serde_json::to_vec(value).expect("plain data with text keys always serialises");
    let room = LONGEST - LEN + PLAIN - BODY - 2 - 8;
    let json = if json.len() > room { vec![] } else { json };
    [&(json.len() as u16).to_be_bytes()[..], &json].concat()
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    let (len, rest) = body.split_first_chunk()?;
    serde_json::from_slice(rest.get(..usize::from(u16::from_be_bytes(*len)))?).ok()
}

/// Port, then the address as IPv6 (IPv4 in its mapped form, RFC 4291 section 2.5.5.2).
pub(super) fn encode_addr(addr: SocketAddr) -> [u8; 18] {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 18];
    bytes[..2].copy_from_slice(&addr.port().to_be_bytes());
    bytes[2..].copy_from_slice(&ip.octets());
    bytes
}

pub(super) fn decode_addr(bytes: [u8; 18]) -> SocketAddr {
    let [high, low, ip @ ..] = bytes;
    let ip: [u8; 16] = ip;
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::super::announcement;
    use super::super::candidate::{Candidate, MAX_CANDIDATES};
    use super::super::nat::Behaviour;
    use super::*;

    const AUX: Role = Role::Aux(2);

    #[test]
    fn every_probe_opens_at_the_other_end_and_has_one_length() {
        let (here, there) = keys();
        let bodies = [
            Body::Ping { epoch: 3 },
            Body::Pong { observed: "198.51.100.1:1024".parse().expect("an address") },
            Body::Pong { observed: "[2001:db8::1]:1024".parse().expect("an address") },
            Body::Bye(Farewell::Released),
            Body::Bye(Farewell::Leaving),
            Body::Bye(Farewell::Replaced),
            Body::ByeAck,
        ];
        for body in bodies {
            let probe = Probe { transaction: 0x0102_0304_0506_0708, body };
            let bytes = seal(&probe, Role::Primary, AUX, &here, 0, &mut ChaCha20Rng::seed_from_u64(1));
            assert_eq!(bytes.len(), LEN);
            assert_eq!(parties(&bytes), Some((Role::Primary, AUX)));
            assert_eq!(open(&bytes, &there), Some(probe));
            assert_eq!(open(&bytes, &here), None, "it must not open in the direction it was sent");
        }
    }

    #[test]
    fn calls_cards_and_introductions_open_at_the_other_end() {
        let (here, there) = keys();
        let addr = "198.51.100.1:1024".parse().expect("an address");
        let candidates = vec![Candidate::server_reflexive(addr); MAX_CANDIDATES];
        let call = Call { epoch: 2, opened: 1, nat: Behaviour::default(), candidates };
        let bodies = [
            Body::Call(Box::new(call)),
            Body::Card { announcement: Box::new(announcement::example()), born: 77 },
            Body::Introduce(Role::Aux(9)),
        ];
        for body in bodies {
            let probe = Probe { transaction: 1, body };
            let bytes = seal(&probe, Role::Primary, AUX, &here, 0, &mut ChaCha20Rng::seed_from_u64(1));
            assert!(bytes.len() <= LONGEST, "{}", bytes.len());
            assert_eq!(open(&bytes, &there), Some(probe));
        }
    }

    #[test]
    fn a_ping_can_be_as_long_as_a_packet_and_no_longer() {
        let (here, there) = keys();
        let probe = Probe { transaction: 1, body: Body::Ping { epoch: 1 } };
        for (length, expected) in [(0, LEN), (500, 500), (LONGEST, LONGEST), (9000, LONGEST)] {
            let bytes = seal(&probe, Role::Primary, AUX, &here, length, &mut ChaCha20Rng::seed_from_u64(1));
            assert_eq!(bytes.len(), expected);
            assert_eq!(open(&bytes, &there), Some(probe.clone()));
        }
    }

    #[test]
    fn a_probe_cannot_be_passed_off_as_from_somebody_else() {
        let (here, there) = keys();
        let probe = Probe { transaction: 1, body: Body::ByeAck };
        let mut bytes = seal(&probe, Role::Primary, AUX, &here, 0, &mut ChaCha20Rng::seed_from_u64(1));
        bytes[5] = 9;
        assert_eq!(open(&bytes, &there), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), plain: Vec<u8>) {
            let (_, there) = keys();
            prop_assert_eq!(open(&bytes, &there), None);
            let _ = parties(&bytes);
            let _ = decode(&plain);
        }

        #[test]
        fn a_flipped_bit_never_opens(at in 0..LEN, bit in 0u8..8) {
            let (here, there) = keys();
            let probe = Probe { transaction: 1, body: Body::Ping { epoch: 1 } };
            let mut bytes = seal(&probe, Role::Primary, AUX, &here, 0, &mut ChaCha20Rng::seed_from_u64(1));
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(open(&bytes, &there), None);
        }
    }

    fn keys() -> (ProbeKeys, ProbeKeys) {
        (ProbeKeys { send: [1; 32], receive: [2; 32] }, ProbeKeys { send: [2; 32], receive: [1; 32] })
    }
}
