//! Keys: the shared secret of a run and everything derived from it. Secrets never print: their `Debug` shows the type alone.
//!
//! Derivation: `K_run = HKDF-SHA256(master, context)`, and from it by label the key of announcements, the pre-shared key of each
//! WireGuard pair, and the probe keys of each pair, which also take the pair's X25519 shared secret: a peer can probe only
//! as itself.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};

use super::base64url;
use super::relay::HopKey;

const PREFIX: &str = "mesh1_";

/// The shortest passphrase taken in place of a key, in bytes. Announcements of public repositories can be downloaded by anyone and
/// attacked offline; Argon2id makes a guess cost about 0.1 s, which 16 random characters turn into never.
pub const MIN_PASSPHRASE: usize = 16;

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A `mesh1_` key of another length, or with letters that base64url does not have.
    #[error("a key that begins with `mesh1_` must go on with 43 letters of base64url, this one has {0}")]
    Malformed(usize),
    /// A passphrase that could be guessed.
    #[error("the key has {0} bytes, a passphrase needs at least {MIN_PASSPHRASE}")]
    Short(usize),
    /// A `mesh1_` key with something before it, or characters that are not UTF-8.
    #[error("it is a key with quotes or other characters around it, or damaged")]
    Garbled,
}

/// The secret that all runners of a run share.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// A key from 32 bytes of good randomness.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads `mesh1_<base64url of 32 bytes>`, or stretches any other text of at least [`MIN_PASSPHRASE`] bytes with Argon2id
    /// (64 MiB, 3 passes, salted with `repository`). Tells whether it was such a passphrase.
    pub fn parse(text: &str, repository: &str) -> Result<(Self, bool), KeyError> {
        match text.strip_prefix(PREFIX) {
            Some(rest) => decode(rest).map(|key| (key, false)).ok_or(KeyError::Malformed(rest.len())),
            None if text.to_ascii_lowercase().contains(PREFIX) => Err(KeyError::Garbled),
            None if text.contains(char::REPLACEMENT_CHARACTER) => Err(KeyError::Garbled),
            None if text.len() < MIN_PASSPHRASE => Err(KeyError::Short(text.len())),
            None => Ok((stretch(text, repository), true)),
        }
    }

    /// The form that [`Self::parse`] reads and `mesh keygen` prints.
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

fn decode(rest: &str) -> Option<MasterKey> {
    URL_SAFE_NO_PAD.decode(rest).ok()?.try_into().ok().map(MasterKey)
}

fn stretch(passphrase: &str, repository: &str) -> MasterKey {
    let salt = Sha256::new().chain_update(b"mesh/v1").chain_update(repository).finalize();
    let params = Params::new(64 * 1024, 3, 1, Some(32)).expect("constant parameters within Argon2's bounds");
    let mut key = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), &salt, &mut key)
        .expect("a salt of 32 bytes and an output of 32 bytes are within Argon2's bounds");
    MasterKey(key)
}

/// What a run is: announcements of one context say nothing in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// `GITHUB_REPOSITORY_ID`, or `local`.
    pub repository: String,
    /// `GITHUB_RUN_ID`, or what `--run-id` says.
    pub run: String,
    /// `GITHUB_RUN_ATTEMPT`, else 1.
    pub attempt: u32,
}

impl Context {
    /// Unambiguous bytes: each part after its length.
    fn bytes(&self) -> Vec<u8> {
        let attempt = self.attempt.to_string();
        let mut bytes = b"mesh/v1".to_vec();
        for part in [&self.repository, &self.run, &attempt] {
            bytes.extend((part.len() as u32).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        bytes
    }
}

/// Names a shared key without telling it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyId(#[serde(with = "base64url")] pub [u8; 4]);

/// What one shared secret gives for one run.
#[derive(Clone)]
pub struct RunKeys {
    run: Hkdf<Sha256>,
    key_id: KeyId,
    context: Vec<u8>,
    relay: [u8; 32],
}

impl RunKeys {
    /// Derives everything from the shared secret and the run's context.
    pub fn new(master: &MasterKey, context: &Context) -> Self {
        let context = context.bytes();
        let master = Hkdf::<Sha256>::new(None, &master.0);
        let run: [u8; 32] = expand(&master, &[b"run", &context]);
        Self {
            run: Hkdf::from_prk(&run).expect("32 bytes are a SHA-256 pseudorandom key"),
            key_id: KeyId(expand(&master, &[b"kid"])),
            context,
            relay: expand(&master, &[b"relay"]),
        }
    }

    /// The key that runners register with at a `mesh relay`, which serves all runs of one shared secret.
    pub fn relay(&self) -> [u8; 32] {
        self.relay
    }

    /// Tells runs of one shared secret apart, and says nothing else.
    pub fn run_id(&self) -> [u8; 16] {
        expand(&self.run, &[b"run-id"])
    }

    /// The name of the shared secret, as sealed announcements carry it.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The run's context as associated data.
    pub fn context(&self) -> &[u8] {
        &self.context
    }

    /// The key that announcements are sealed with.
    pub fn announcement(&self) -> [u8; 32] {
        expand(&self.run, &[b"record"])
    }

    /// What the tokens of the run's cache are made with.
    pub fn cache(&self) -> [u8; 32] {
        expand(&self.run, &[b"cache"])
    }

    /// The pre-shared key of a WireGuard pair (WireGuard paper 5.2), the same from both sides.
    pub fn preshared(&self, one: &PublicKey, other: &PublicKey) -> [u8; 32] {
        let (low, high) = if one.as_bytes() < other.as_bytes() { (one, other) } else { (other, one) };
        expand(&self.run, &[b"wg-psk", low.as_bytes(), high.as_bytes()])
    }

    /// The keys that seal probes to and from `peer`.
    pub fn probes(&self, secret: &StaticSecret, peer: &PublicKey) -> ProbeKeys {
        let [send, receive] = self.of_pair(b"probe", secret, peer);
        ProbeKeys { send, receive }
    }

    /// The keys that authenticate relay frames to and from `peer`.
    pub fn hops(&self, secret: &StaticSecret, peer: &PublicKey) -> HopKeys {
        let [send, receive] = self.of_pair(b"hop", secret, peer);
        HopKeys { send, receive }
    }

    /// From us to the peer, and back.
    fn of_pair(&self, label: &[u8], secret: &StaticSecret, peer: &PublicKey) -> [[u8; 32]; 2] {
        let (shared, own) = (secret.diffie_hellman(peer), PublicKey::from(secret));
        let key = |from: &PublicKey, to: &PublicKey| {
            expand(&self.run, &[label, shared.as_bytes(), from.as_bytes(), to.as_bytes()])
        };
        [key(&own, peer), key(peer, &own)]
    }
}

fn expand<const N: usize>(key: &Hkdf<Sha256>, info: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    key.expand_multi_info(info, &mut out).expect("at most 32 bytes, HKDF-SHA256 gives up to 8160");
    out
}

/// One key for each direction of a pair.
#[derive(Clone, PartialEq, Eq)]
pub struct ProbeKeys {
    /// Seals what we send.
    pub send: [u8; 32],
    /// Opens what they send.
    pub receive: [u8; 32],
}

/// One key for each direction of a hop.
#[derive(Clone, PartialEq, Eq)]
pub struct HopKeys {
    /// Authenticates what we send.
    pub send: HopKey,
    /// Authenticates what they send.
    pub receive: HopKey,
}

/// 32 bytes that only this process knows: a WireGuard static key, or the seed of its randomness.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl Secret {
    /// As the static key of X25519.
    pub fn to_static(self) -> StaticSecret {
        StaticSecret::from(self.0)
    }
}

macro_rules! never_prints {
    ($($secret:ty),*) => {$(
        impl fmt::Debug for $secret {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($secret), "(..)"))
            }
        }
    )*};
}
never_prints!(MasterKey, RunKeys, ProbeKeys, HopKeys, Secret);

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context { repository: "1".into(), run: "2".into(), attempt: 1 }
    }

    #[test]
    fn a_printed_key_is_read_back() {
        let key = MasterKey::from_bytes([7; 32]);
        assert_eq!(key.to_text().len(), 49);
        assert_eq!(MasterKey::parse(&key.to_text(), "r"), Ok((key, false)));
    }

    #[test]
    fn keys_that_are_too_short_or_malformed_are_refused() {
        assert_eq!(MasterKey::parse("", "r"), Err(KeyError::Short(0)));
        assert_eq!(MasterKey::parse("secret", "r"), Err(KeyError::Short(6)));
        assert_eq!(MasterKey::parse("mesh1_AAAA", "r"), Err(KeyError::Malformed(4)));
        assert_eq!(MasterKey::parse(&format!("mesh1_{}", "*".repeat(43)), "r"), Err(KeyError::Malformed(43)));
    }

    #[test]
    fn a_key_that_was_damaged_on_its_way_is_no_passphrase() {
        let key = MasterKey::from_bytes([7; 32]).to_text();
        for garbled in [format!("\"{key}\""), key.to_uppercase(), format!("key={key}"), "a passphrase \u{fffd}".into()]
        {
            assert_eq!(MasterKey::parse(&garbled, "r"), Err(KeyError::Garbled), "{garbled}");
        }
    }

    #[test]
    fn a_passphrase_is_stretched_and_salted_with_the_repository() {
        let (one, stretched) = MasterKey::parse("correct horse battery", "r1").expect("long enough");
        let (other, _) = MasterKey::parse("correct horse battery", "r2").expect("long enough");
        assert!(stretched);
        assert_ne!(one, other);
    }

    #[test]
    fn every_part_of_the_context_changes_the_keys() {
        let master = MasterKey::from_bytes([1; 32]);
        let base = RunKeys::new(&master, &context()).announcement();
        let mut moved = context();
        (moved.repository, moved.run) = (String::new(), "12".into());
        let variants = [Context { attempt: 2, ..context() }, Context { run: "3".into(), ..context() }, moved];
        for variant in variants {
            assert_ne!(RunKeys::new(&master, &variant).announcement(), base, "{variant:?}");
        }
    }

    #[test]
    fn both_ends_of_a_pair_derive_the_same_keys() {
        let keys = RunKeys::new(&MasterKey::from_bytes([1; 32]), &context());
        let (a, b) = (StaticSecret::from([3; 32]), StaticSecret::from([4; 32]));
        let (pa, pb) = (PublicKey::from(&a), PublicKey::from(&b));
        assert_eq!(keys.preshared(&pa, &pb), keys.preshared(&pb, &pa));
        let (at_a, at_b) = (keys.probes(&a, &pb), keys.probes(&b, &pa));
        assert_eq!(at_a.send, at_b.receive);
        assert_eq!(at_a.receive, at_b.send);
        assert_ne!(at_a.send, at_a.receive);
    }

    #[test]
    fn secrets_do_not_print() {
        let master = MasterKey::from_bytes([0xab; 32]);
        let keys = RunKeys::new(&master, &context());
        assert_eq!(format!("{master:?} {keys:?}"), "MasterKey(..) RunKeys(..)");
    }
}
