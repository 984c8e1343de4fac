//! SHA-256 as fast as this machine has it: two libraries are timed once, and the faster one is used. Which it is differs between processors (with
//! and without instructions for SHA-256) and builds.

use std::sync::OnceLock;
use std::time::Duration;

use sha2::Digest as _;

use crate::link::clock;
use crate::proto::digest::{Digest, Hash};

/// Timed on so much: 5 ms at most on the slowest machines.
const SAMPLE: usize = 256 << 10;

/// The best of so many counts: others use the machine too.
const ROUNDS: usize = 3;

/// Who computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// ring's assembler.
    Ring,
    /// RustCrypto's, which detects the processor's instructions.
    RustCrypto,
}

impl Engine {
    const ALL: [Self; 2] = [Self::Ring, Self::RustCrypto];

    /// The fastest here, as measured when it is asked for the first time.
    pub fn fastest() -> Self {
        static FASTEST: OnceLock<Engine> = OnceLock::new();
        *FASTEST.get_or_init(|| {
            let sample = vec![0x5a; SAMPLE];
            let [ring, rust_crypto] = Self::ALL.map(|engine| engine.time(&sample));
            tracing::debug!(?ring, ?rust_crypto, bytes = SAMPLE, "timed SHA-256");
            if rust_crypto < ring { Self::RustCrypto } else { Self::Ring }
        })
    }

    fn time(self, sample: &[u8]) -> Duration {
        let once = || {
            let began = clock::now();
            std::hint::black_box(Hasher::new(self).chain(sample).finish());
            began.elapsed()
        };
        (0..ROUNDS).map(|_| once()).min().unwrap_or(Duration::MAX)
    }
}

/// A SHA-256 under way, and how many bytes it has seen.
#[derive(Clone)]
pub struct Hasher {
    state: State,
    size: u64,
}

#[derive(Clone)]
enum State {
    Ring(ring::digest::Context),
    RustCrypto(sha2::Sha256),
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Hasher of {} bytes", self.size)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new(Engine::fastest())
    }
}

impl Hasher {
    /// Of no bytes yet.
    pub fn new(engine: Engine) -> Self {
        let state = match engine {
            Engine::Ring => State::Ring(ring::digest::Context::new(&ring::digest::SHA256)),
            Engine::RustCrypto => State::RustCrypto(sha2::Sha256::new()),
        };
        Self { state, size: 0 }
    }

    /// These bytes follow.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        match &mut self.state {
            State::Ring(context) => context.update(bytes),
            State::RustCrypto(hasher) => hasher.update(bytes),
        }
    }

    fn chain(mut self, bytes: &[u8]) -> Self {
        self.update(bytes);
        self
    }

    /// Of all bytes.
    pub fn finish(self) -> Digest {
        let mut hash = Hash::default();
        match self.state {
            State::Ring(context) => hash.copy_from_slice(context.finish().as_ref()),
            State::RustCrypto(hasher) => hash = hasher.finalize().into(),
        }
        Digest { hash, size: self.size }
    }
}

/// Of these bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    Hasher::default().chain(bytes).finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_compute_what_the_standard_says() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad/3";

        for engine in Engine::ALL {
            assert_eq!(Hasher::new(engine).chain(b"abc").finish().to_string(), expected, "FIPS 180-4, {engine:?}");
        }
    }

    proptest! {
        #[test]
        fn both_agree_however_the_bytes_come(parts: Vec<Vec<u8>>) {
            let [ring, rust_crypto] = Engine::ALL.map(|engine| {
                parts.iter().fold(Hasher::new(engine), |hasher, part| hasher.chain(part)).finish()
            });

            prop_assert_eq!(ring, rust_crypto);
            prop_assert_eq!(ring, digest(&parts.concat()));
        }
    }
}
