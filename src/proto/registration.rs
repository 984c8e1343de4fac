//! What a runner and a `mesh relay` say to each other before frames pass: the runner registers, from the address that it shall be reached
//! at, with a key for its frames. Frames themselves are in [`super::relay`].
//!
//! Wire: `MSQ1` | key id 4 | nonce 24 | XChaCha20-Poly1305(kind u8, 7 zeros, transaction 8, body 80), associated data the first eight bytes. Every
//! datagram has the same length, so an answer is never longer than its question. The first registration from an address is answered
//! by a cookie that the next must repeat: so a copy of it, sent from elsewhere, changes nothing (RFC 9147 section 5.1 does the same).

use std::fmt;
use std::net::SocketAddr;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::RngCore;

use super::key::KeyId;
use super::probe::{decode_addr, encode_addr};
use super::relay::HopKey;
use super::role::Role;

const MAGIC: &[u8; 4] = b"MSQ1";
const HEAD: usize = 8;
const NONCE: usize = 24;
const PLAIN: usize = 96;
const TAG: usize = 16;

/// The length of every datagram of this protocol.
pub const LEN: usize = HEAD + NONCE + PLAIN + TAG;

/// Proves that whoever sends from an address also receives there.
pub type Cookie = [u8; 8];

/// What is said.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// "Pass on to me what is for `role` of `run`; `key` authenticates frames both ways."
    Register {
        /// Which run.
        run: [u8; 16],
        /// Who in it.
        role: Role,
        /// Fresh for each process.
        key: HopKey,
        /// What the relay gave, or zeros.
        cookie: Cookie,
    },
    /// "Say that again, with this."
    Challenge(Cookie),
    /// "You are registered, at this address."
    Registered {
        /// Where the relay sees the runner.
        observed: SocketAddr,
    },
}

/// One datagram's content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Chosen by the runner, repeated by the relay.
    pub transaction: u64,
    /// What it says.
    pub body: Body,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("transaction", &self.transaction).finish_non_exhaustive()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body(..)")
    }
}

/// Whether a datagram claims to be of this protocol.
pub fn is_registration(datagram: &[u8]) -> bool {
    datagram.len() == LEN && datagram.starts_with(MAGIC)
}

/// Which shared key a datagram claims to be sealed with.
pub fn key_id(datagram: &[u8]) -> Option<KeyId> {
    let id = datagram.get(4..HEAD).filter(|_| is_registration(datagram))?;
    id.try_into().ok().map(KeyId)
}

/// Seals a message.
pub fn seal(message: &Message, id: KeyId, key: &[u8; 32], rng: &mut impl RngCore) -> Vec<u8> {
    let mut datagram = [&MAGIC[..], &id.0].concat();
    let mut nonce = [0; NONCE];
    rng.fill_bytes(&mut nonce);
    let sealed = XChaCha20Poly1305::new(key.into())
        .encrypt(XNonce::from_slice(&nonce), Payload { msg: &encode(message), aad: &datagram })
        .expect("the cipher takes any length below 256 GiB");
    datagram.extend(nonce);
    datagram.extend(sealed);
    datagram
}

/// Opens a message; `None` where it is not authentic or says nothing that we know.
pub fn open(datagram: &[u8], key: &[u8; 32]) -> Option<Message> {
    if !is_registration(datagram) {
        return None;
    }
    let (head, rest) = datagram.split_at(HEAD);
    let (nonce, sealed) = rest.split_at(NONCE);
    let plain = XChaCha20Poly1305::new(key.into())
        .decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: head })
        .ok()?;
    decode(plain.as_slice().try_into().ok()?)
}

fn encode(message: &Message) -> [u8; PLAIN] {
    let mut plain = [0; PLAIN];
    plain[8..16].copy_from_slice(&message.transaction.to_be_bytes());
    let (kind, body) = match message.body {
        Body::Register { run, role, key, cookie } => {
            (1, [&run[..], &role.number().to_be_bytes(), &key, &cookie].concat())
        }
        Body::Challenge(cookie) => (2, cookie.to_vec()),
        Body::Registered { observed } => (3, encode_addr(observed).to_vec()),
    };
    plain[0] = kind;
    plain[16..16 + body.len()].copy_from_slice(&body);
    plain
}

fn decode(plain: &[u8; PLAIN]) -> Option<Message> {
    let body = match plain[0] {
        1 => Body::Register {
            run: plain[16..32].try_into().ok()?,
            role: Role::from_number(u16::from_be_bytes(plain[32..34].try_into().ok()?))?,
            key: plain[34..66].try_into().ok()?,
            cookie: plain[66..74].try_into().ok()?,
        },
        2 => Body::Challenge(plain[16..24].try_into().ok()?),
        3 => Body::Registered { observed: decode_addr(plain[16..34].try_into().ok()?) },
        _ => return None,
    };
    Some(Message { transaction: u64::from_be_bytes(plain[8..16].try_into().ok()?), body })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn every_message_opens_with_its_key_and_has_one_length() {
        let bodies = [
            Body::Register { run: [1; 16], role: Role::Aux(7), key: [2; 32], cookie: [3; 8] },
            Body::Challenge([4; 8]),
            Body::Registered { observed: "[2001:db8::1]:5".parse().expect("an address") },
        ];
        for body in bodies {
            let message = Message { transaction: 9, body };
            let bytes = seal(&message, KeyId([1; 4]), &[5; 32], &mut ChaCha20Rng::seed_from_u64(1));
            assert_eq!((bytes.len(), key_id(&bytes)), (LEN, Some(KeyId([1; 4]))));
            assert!(open(&bytes, &[5; 32]) == Some(message));
            assert!(open(&bytes, &[6; 32]).is_none());
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), plain in prop::collection::vec(any::<u8>(), PLAIN)) {
            prop_assert!(open(&bytes, &[5; 32]).is_none());
            let _ = key_id(&bytes);
            let _ = decode(plain.as_slice().try_into().expect("its length"));
        }
    }
}
