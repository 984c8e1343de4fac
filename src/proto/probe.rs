//! Probes: the small sealed datagrams that open NATs, test pairs, measure, and say goodbye. When to send them is not here but in
//! [`super::path`].
//!
//! Wire: `MSH1` | from u16 | to u16 | nonce 24 | XChaCha20-Poly1305(type u8, flags u8, transaction 8, body 22), associated data the first
//! eight bytes. Every probe has the same length, so an answer is never longer than what caused it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::{Rng, RngCore};

use super::key::ProbeKeys;
use super::role::Role;

const MAGIC: &[u8; 4] = b"MSH1";
const HEADER: usize = 8;
const NONCE: usize = 24;
const PLAIN: usize = 32;
const TAG: usize = 16;

/// The length of every probe.
pub const LEN: usize = HEADER + NONCE + PLAIN + TAG;

/// Ties an answer to its question.
pub type Transaction = u64;

/// Why a peer says goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// From the primary: the build is over, go home.
    Released,
    /// From an aux: this machine leaves.
    Leaving,
    /// From the primary: a newer process has your index.
    Replaced,
}

/// What a probe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// "Do you hear me?" Carries the sequence number of the sender's newest announcement.
    Ping { seq: u32 },
    /// "I heard you, from this address."
    Pong { observed: SocketAddr },
    /// Goodbye; answered by `ByeAck`.
    Bye(Farewell),
    /// "I heard that you leave."
    ByeAck,
}

/// One probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Chosen by who asks, repeated by who answers.
    pub transaction: Transaction,
    /// What it says.
    pub body: Body,
}

/// Whether a datagram claims to be a probe.
pub fn is_probe(datagram: &[u8]) -> bool {
    datagram.len() == LEN && datagram.starts_with(MAGIC)
}

/// Who a probe claims to be from and to; nothing is authentic before [`open`].
pub fn parties(datagram: &[u8]) -> Option<(Role, Role)> {
    let number = |at: usize| Some(u16::from_be_bytes(datagram.get(at..at + 2)?.try_into().ok()?));
    Some((Role::from_number(number(4)?)?, Role::from_number(number(6)?)?))
}

/// Seals a probe.
pub fn seal(probe: &Probe, from: Role, to: Role, keys: &ProbeKeys, rng: &mut impl RngCore) -> Vec<u8> {
    let mut datagram = MAGIC.to_vec();
    datagram.extend(from.number().to_be_bytes());
    datagram.extend(to.number().to_be_bytes());
    let nonce: [u8; NONCE] = rng.random();
    let sealed = XChaCha20Poly1305::new(&keys.send.into())
        .encrypt(XNonce::from_slice(&nonce), Payload { msg: &encode(probe), aad: &datagram })
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

fn encode(probe: &Probe) -> [u8; PLAIN] {
    let mut plain = [0; PLAIN];
    plain[2..10].copy_from_slice(&probe.transaction.to_be_bytes());
    plain[0] = match probe.body {
        Body::Ping { seq } => {
            plain[10..14].copy_from_slice(&seq.to_be_bytes());
            1
        }
        Body::Pong { observed } => {
            plain[10..28].copy_from_slice(&encode_addr(observed));
            2
        }
        Body::Bye(farewell) => {
            plain[10] = match farewell {
                Farewell::Released => 1,
                Farewell::Leaving => 2,
                Farewell::Replaced => 3,
            };
            7
        }
        Body::ByeAck => 8,
    };
    plain
}

fn decode(plain: &[u8]) -> Option<Probe> {
    let plain: &[u8; PLAIN] = plain.try_into().ok()?;
    let body = match plain[0] {
        1 => Body::Ping { seq: u32::from_be_bytes(plain[10..14].try_into().ok()?) },
        2 => Body::Pong { observed: decode_addr(plain[10..28].try_into().ok()?) },
        7 => Body::Bye(match plain[10] {
            1 => Farewell::Released,
            2 => Farewell::Leaving,
            3 => Farewell::Replaced,
            _ => return None,
        }),
        8 => Body::ByeAck,
        _ => return None,
    };
    Some(Probe { transaction: Transaction::from_be_bytes(plain[2..10].try_into().ok()?), body })
}

/// Port, then the address as IPv6 (IPv4 in its mapped form, RFC 4291 section 2.5.5.2).
fn encode_addr(addr: SocketAddr) -> [u8; 18] {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 18];
    bytes[..2].copy_from_slice(&addr.port().to_be_bytes());
    bytes[2..].copy_from_slice(&ip.octets());
    bytes
}

fn decode_addr(bytes: [u8; 18]) -> SocketAddr {
    let [high, low, ip @ ..] = bytes;
    let ip: [u8; 16] = ip;
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    const AUX: Role = Role::Aux(2);

    #[test]
    fn every_probe_opens_at_the_other_end_and_has_one_length() {
        let (here, there) = keys();
        let bodies = [
            Body::Ping { seq: 3 },
            Body::Pong { observed: "198.51.100.1:1024".parse().expect("an address") },
            Body::Pong { observed: "[2001:db8::1]:1024".parse().expect("an address") },
            Body::Bye(Farewell::Released),
            Body::Bye(Farewell::Leaving),
            Body::Bye(Farewell::Replaced),
            Body::ByeAck,
        ];
        for body in bodies {
            let probe = Probe { transaction: 0x0102_0304_0506_0708, body };
            let bytes = seal(&probe, Role::Primary, AUX, &here, &mut ChaCha20Rng::seed_from_u64(1));
            assert_eq!(bytes.len(), LEN);
            assert_eq!(parties(&bytes), Some((Role::Primary, AUX)));
            assert_eq!(open(&bytes, &there), Some(probe));
            assert_eq!(open(&bytes, &here), None, "it must not open in the direction it was sent");
        }
    }

    #[test]
    fn a_probe_cannot_be_passed_off_as_from_somebody_else() {
        let (here, there) = keys();
        let probe = Probe { transaction: 1, body: Body::ByeAck };
        let mut bytes = seal(&probe, Role::Primary, AUX, &here, &mut ChaCha20Rng::seed_from_u64(1));
        bytes[5] = 9;
        assert_eq!(open(&bytes, &there), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), plain: [u8; PLAIN]) {
            let (_, there) = keys();
            prop_assert_eq!(open(&bytes, &there), None);
            let _ = parties(&bytes);
            let _ = decode(&plain);
        }

        #[test]
        fn a_flipped_bit_never_opens(at in 0..LEN, bit in 0u8..8) {
            let (here, there) = keys();
            let probe = Probe { transaction: 1, body: Body::Ping { seq: 1 } };
            let mut bytes = seal(&probe, Role::Primary, AUX, &here, &mut ChaCha20Rng::seed_from_u64(1));
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(open(&bytes, &there), None);
        }
    }

    fn keys() -> (ProbeKeys, ProbeKeys) {
        (ProbeKeys { send: [1; 32], receive: [2; 32] }, ProbeKeys { send: [2; 32], receive: [1; 32] })
    }
}
