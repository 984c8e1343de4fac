//! The seal of announcements and probes, written a second time: it takes any plaintext, so that what is behind it can be fuzzed.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

/// A nonce, and XChaCha20-Poly1305 of `plain` under it.
pub fn xchacha(key: [u8; 32], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let nonce = [5; 24];
    let payload = Payload { msg: plain, aad };
    let sealed = XChaCha20Poly1305::new(&key.into()).encrypt(XNonce::from_slice(&nonce), payload);
    [&nonce[..], &sealed.expect("short enough for the cipher")].concat()
}
