//! What a peer tells the rendezvous: its key, its candidates and whom it has already opened towards; sealed, and bound to the name it
//! is published under. Publishing and collecting are not here but in `rendezvous`.
//!
//! Envelope: `MSHE` | version (1 byte) | number of boxes (1 byte) | boxes, one for each key of the sender and all of one length.
//! Box: key id (4 bytes) | nonce (24 bytes) | XChaCha20-Poly1305(length u32, JSON, zeros to a multiple of 1 KiB).
//! Associated data: the run's context, the version and the name. So an announcement that is renamed, replayed from another run
//! or attempt, or given to another role does not open.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::{Rng, RngCore};
use serde::{Deserialize, Serialize};
use x25519_dalek::PublicKey;

use super::base64url;
use super::candidate::{Candidate, MAX_CANDIDATES};
use super::key::{KeyId, RunKeys};
use super::keyring::{KeyRing, MAX_KEYS};
use super::nat::Behaviour;
use super::role::Role;

const MAGIC: &[u8; 4] = b"MSHE";
const VERSION: u8 = 1;
const NONCE: usize = 24;
const KEY_ID: usize = 4;

/// Announcements are padded to a multiple of this, so that their length tells little about the run.
const PAD: usize = 1024;

/// How long an announcement is good for: the longest a hosted workflow job may run.
pub const LIFETIME: Duration = Duration::from_secs(6 * 3600);

/// How far apart two runners' clocks may be. Ten minutes are seen on machines without time synchronisation.
const CLOCK_SKEW: Duration = Duration::from_secs(30 * 60);

/// The protocol that this build speaks. A peer with no version in common is refused by name.
pub const PROTOCOL: u16 = 3;

/// Random for each process: tells a restarted peer from the one before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Boot(#[serde(with = "base64url")] [u8; 16]);

impl Boot {
    /// Drawn from `rng`.
    pub fn draw(rng: &mut impl RngCore) -> Self {
        Self(rng.random())
    }
}

impl fmt::Debug for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}{:02x}", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// "I have read where you are and opened my NAT towards every candidate of it."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Whose candidates.
    pub role: Role,
    /// Which process of theirs.
    pub boot: Boot,
    /// Which of its sets of candidates.
    pub epoch: u32,
}

/// Whether a peer is there to be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Up, and open to peers.
    #[default]
    Open,
    /// The build is over: whoever comes now is released at once.
    Closed,
}

/// One peer's announcement, newest `seq` of a `boot` first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The least and the greatest [`PROTOCOL`] the peer speaks.
    pub protocol: (u16, u16),
    /// Who it is.
    pub role: Role,
    /// Which process.
    pub boot: Boot,
    /// Grows with each announcement of the process.
    pub seq: u32,
    /// Grows each time the process's own addresses change, from 1 on: acknowledgements are of an epoch.
    pub epoch: u32,
    /// Unix time in seconds, by the peer's own clock.
    pub issued_at: u64,
    /// Likewise; see [`LIFETIME`].
    pub expires_at: u64,
    /// The shared keys it has, the current one first.
    pub keys: Vec<KeyId>,
    /// The WireGuard static public key, fresh for each process.
    #[serde(with = "base64url")]
    pub public_key: PublicKey,
    /// The overlay prefix as text; peers must agree.
    pub overlay: String,
    /// How many compile jobs it runs at once; 0 for a primary.
    pub slots: u16,
    /// Which engine runs the compile jobs, as the primary chose; `None` from an aux.
    #[serde(default)]
    pub offload: Option<String>,
    /// Whether it can be joined.
    #[serde(default)]
    pub standing: Standing,
    /// How its NAT maps and draws ports, as far as it knows.
    #[serde(default)]
    pub nat: Behaviour,
    /// Where it may be reached, at most [`MAX_CANDIDATES`].
    pub candidates: Vec<Candidate>,
    /// What it has read and opened towards.
    #[serde(default)]
    pub acks: Vec<Ack>,
}

impl Announcement {
    /// Whether it says that it has opened towards the candidates that `boot` at `role` had in `epoch`.
    pub fn acknowledges(&self, role: Role, boot: Boot, epoch: u32) -> bool {
        self.acks.contains(&Ack { role, boot, epoch })
    }

    /// With no candidate in it that cannot be used; `None` where it claims more keys than anybody has.
    pub fn checked(mut self) -> Option<Self> {
        self.candidates.retain(Candidate::is_usable);
        self.candidates.truncate(MAX_CANDIDATES);
        (self.keys.len() <= MAX_KEYS).then_some(self)
    }

    /// Its candidates' addresses.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.candidates.iter().map(|candidate| candidate.addr)
    }
}

/// The name an announcement is published under: `mesh-<attempt>-<role>-<seq>-<nonce>`. The nonce makes each try's name fresh, because
/// a failed upload may have burnt the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The run's attempt.
    pub attempt: u32,
    /// Whose announcement.
    pub role: Role,
    /// Its sequence number.
    pub seq: u32,
    /// Fresh for each try.
    pub nonce: u32,
}

impl Name {
    /// Reads a name; `None` for anything that `Display` would not write.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("mesh-")?.split('-');
        let name = Self {
            attempt: parts.next()?.parse().ok()?,
            role: Role::from_slug(parts.next()?)?,
            seq: parts.next()?.parse().ok()?,
            nonce: u32::from_str_radix(parts.next()?, 16).ok()?,
        };
        (parts.next().is_none() && name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mesh-{}-{}-{}-{:08x}", self.attempt, self.role.slug(), self.seq, self.nonce)
    }
}

/// Why an announcement was not accepted. Each is counted; none is fatal, since anybody may publish anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Rejected {
    /// Not an announcement at all, or cut short.
    #[error("not an announcement")]
    Foreign,
    /// Of a version of `mesh` that this one does not know.
    #[error("of another version of mesh")]
    Version,
    /// Sealed with another shared key (M102).
    #[error("sealed with another key")]
    OtherKey,
    /// Altered, or of another run, attempt, role or name (M102).
    #[error("altered, or of another run")]
    Unauthentic,
    /// Authentic, and yet it cannot be read or contradicts its name.
    #[error("malformed")]
    Malformed,
    /// Past its time, or from a clock far ahead of ours (M103).
    #[error("expired, or from a clock far off")]
    Stale,
}

/// Seals for publication under `name`, for whoever has one of `keys`.
pub fn seal(announcement: &Announcement, keys: &KeyRing, name: &Name, rng: &mut impl RngCore) -> Vec<u8> {
    let json = serde_json::to_vec(announcement).expect("plain data with text keys always serialises");
    let mut plain = (json.len() as u32).to_be_bytes().to_vec();
    plain.extend(json);
    plain.resize(plain.len().next_multiple_of(PAD), 0);

    let boxes: Vec<_> = keys.iter().map(|key| seal_box(&plain, key, name, rng.random())).collect();
    [MAGIC, &[VERSION, boxes.len() as u8][..], &boxes.concat()].concat()
}

fn seal_box(plain: &[u8], keys: &RunKeys, name: &Name, nonce: [u8; NONCE]) -> Vec<u8> {
    let sealed = cipher(keys)
        .encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad: &associated_data(keys, name) })
        .expect("the cipher takes any length below 256 GiB");
    [&keys.key_id().0[..], &nonce, &sealed].concat()
}

/// Opens what was published under `name` with one of `ring`'s keys, at unix time `now`.
pub fn open(bytes: &[u8], ring: &KeyRing, name: &Name, now: u64) -> Result<Announcement, Rejected> {
    let boxes = bytes.strip_prefix(MAGIC).ok_or(Rejected::Foreign)?;
    let (version, boxes) = boxes.split_first().ok_or(Rejected::Foreign)?;
    if *version != VERSION {
        return Err(Rejected::Version);
    }
    let (keys, sealed) = own_box(boxes, ring)?;
    let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or(Rejected::Foreign)?;
    let plain = cipher(keys)
        .decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: &associated_data(keys, name) })
        .map_err(|_| Rejected::Unauthentic)?;
    let announcement = parse(&plain).ok_or(Rejected::Malformed)?;
    if !announcement.keys.contains(&keys.key_id()) {
        return Err(Rejected::Malformed);
    }
    check(announcement, name, now)
}

/// The first box that one of our keys is for, without its key id.
fn own_box<'r, 'b>(counted: &'b [u8], ring: &'r KeyRing) -> Result<(&'r RunKeys, &'b [u8]), Rejected> {
    let (count, boxes) = counted.split_first().ok_or(Rejected::Foreign)?;
    let count = usize::from(*count);
    if count == 0 || count > MAX_KEYS || !boxes.len().is_multiple_of(count) || boxes.len() / count < KEY_ID {
        return Err(Rejected::Foreign);
    }
    let known = |sealed: &'b [u8]| {
        let (id, sealed) = sealed.split_first_chunk::<KEY_ID>()?;
        Some((ring.get(KeyId(*id))?, sealed))
    };
    boxes.chunks_exact(boxes.len() / count).find_map(known).ok_or(Rejected::OtherKey)
}

fn parse(plain: &[u8]) -> Option<Announcement> {
    let (len, rest) = plain.split_first_chunk::<4>()?;
    serde_json::from_slice(rest.get(..u32::from_be_bytes(*len) as usize)?).ok()
}

fn check(announcement: Announcement, name: &Name, now: u64) -> Result<Announcement, Rejected> {
    if (announcement.role, announcement.seq) != (name.role, name.seq) {
        return Err(Rejected::Malformed);
    }
    let (least, greatest) = announcement.protocol;
    if !(least..=greatest).contains(&PROTOCOL) {
        return Err(Rejected::Version);
    }
    let skew = CLOCK_SKEW.as_secs();
    let lifetime = LIFETIME.as_secs();
    let expired = now > announcement.expires_at.saturating_add(skew) || announcement.expires_at > now + lifetime + skew;
    if expired || announcement.issued_at > now + skew {
        return Err(Rejected::Stale);
    }
    announcement.checked().ok_or(Rejected::Malformed)
}

fn cipher(keys: &RunKeys) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&keys.announcement().into())
}

fn associated_data(keys: &RunKeys, name: &Name) -> Vec<u8> {
    [keys.context(), &[VERSION], name.to_string().as_bytes()].concat()
}

/// One that says something in every field.
#[cfg(test)]
pub(super) fn example() -> Announcement {
    let boot = Boot([5; 16]);
    Announcement {
        protocol: (PROTOCOL, PROTOCOL),
        role: Role::Aux(3),
        boot,
        seq: 7,
        epoch: 3,
        issued_at: 1_800_000_000,
        expires_at: 1_800_000_000 + LIFETIME.as_secs(),
        keys: vec![KeyId([1; 4])],
        public_key: PublicKey::from([9; 32]),
        overlay: "10.77.0.0/16".into(),
        slots: 4,
        offload: None,
        standing: Standing::Open,
        nat: Behaviour::default(),
        candidates: vec![Candidate::server_reflexive("198.51.100.7:1024".parse().expect("an address"))],
        acks: vec![Ack { role: Role::Primary, boot, epoch: 1 }],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::super::key::{Context, MasterKey};
    use super::*;

    const NOW: u64 = 1_800_000_000;

    /// Up to the first box.
    const HEADER: usize = MAGIC.len() + 2;

    #[test]
    fn an_announcement_opens_under_its_own_name() {
        let (sealed, keys, name) = sealed();
        assert_eq!(open(&sealed, &keys, &name, NOW), Ok(example()));
        assert_eq!((sealed.len() - HEADER - (KEY_ID + NONCE + 16)) % PAD, 0);
    }

    #[test]
    fn a_renamed_one_does_not_open() {
        let (sealed, keys, name) = sealed();
        let names = [
            Name { attempt: 2, ..name.clone() },
            Name { role: Role::Aux(4), ..name.clone() },
            Name { seq: 8, ..name.clone() },
            Name { nonce: 1, ..name },
        ];
        for name in names {
            assert_eq!(open(&sealed, &keys, &name, NOW), Err(Rejected::Unauthentic), "{name}");
        }
    }

    #[test]
    fn another_key_and_another_run_are_told_apart() {
        let (sealed, _, name) = sealed();
        assert_eq!(open(&sealed, &keys(&[2], "run"), &name, NOW), Err(Rejected::OtherKey));
        assert_eq!(open(&sealed, &keys(&[1], "other run"), &name, NOW), Err(Rejected::Unauthentic));
    }

    #[test]
    fn one_sealed_with_two_keys_opens_with_either() {
        let (both, name) = (keys(&[2, 1], "run"), sealed().2);
        let announcement = Announcement { keys: both.ids(), ..example() };
        let bytes = seal(&announcement, &both, &name, &mut ChaCha20Rng::seed_from_u64(1));
        for masters in [&[1][..], &[2], &[1, 2], &[2, 3]] {
            assert_eq!(open(&bytes, &keys(masters, "run"), &name, NOW).as_ref(), Ok(&announcement), "{masters:?}");
        }
        assert_eq!(open(&bytes, &keys(&[3], "run"), &name, NOW), Err(Rejected::OtherKey));
    }

    #[test]
    fn a_number_of_boxes_that_does_not_fit_is_foreign() {
        let (sealed, keys, name) = sealed();
        for count in [0, 2, 3, 255] {
            let bytes = [MAGIC, &[VERSION, count][..], &sealed[HEADER..sealed.len() - 1]].concat();
            assert_eq!(open(&bytes, &keys, &name, NOW), Err(Rejected::Foreign), "{count}");
        }
        for short in [&[VERSION, 1][..], &[VERSION, 2, 0, 0]] {
            assert_eq!(open(&[MAGIC, short].concat(), &keys, &name, NOW), Err(Rejected::Foreign), "{short:?}");
        }
    }

    #[test]
    fn clocks_may_be_ten_minutes_apart_but_not_hours() {
        let (sealed, keys, name) = sealed();
        for ok in [NOW - 600, NOW + 600, NOW + LIFETIME.as_secs()] {
            assert!(open(&sealed, &keys, &name, ok).is_ok(), "{ok}");
        }
        for bad in [NOW - 3600, NOW + LIFETIME.as_secs() + 3600] {
            assert_eq!(open(&sealed, &keys, &name, bad), Err(Rejected::Stale), "{bad}");
        }
    }

    #[test]
    fn unusable_candidates_are_dropped_and_the_rest_kept() {
        let (_, keys, name) = sealed();
        let mut announcement = example();
        announcement.candidates.push(Candidate::host("0.0.0.0:0".parse().expect("an address")));
        let bytes = seal(&announcement, &keys, &name, &mut ChaCha20Rng::seed_from_u64(1));
        assert_eq!(open(&bytes, &keys, &name, NOW), Ok(example()));
    }

    #[test]
    fn a_protocol_of_the_future_is_refused_by_name() {
        let (_, keys, name) = sealed();
        let announcement = Announcement { protocol: (PROTOCOL + 1, PROTOCOL + 2), ..example() };
        let bytes = seal(&announcement, &keys, &name, &mut ChaCha20Rng::seed_from_u64(1));
        assert_eq!(open(&bytes, &keys, &name, NOW), Err(Rejected::Version));
    }

    #[test]
    fn names_are_read_only_as_they_are_written() {
        let name = Name { attempt: 3, role: Role::Aux(11), seq: 2, nonce: 0xbeef };
        assert_eq!(name.to_string(), "mesh-3-aux11-2-0000beef");
        assert_eq!(Name::parse("mesh-3-aux11-2-0000beef"), Some(name));
        for text in
            ["mesh-3-aux11-2-beef", "mesh-03-aux11-2-0000beef", "mesh-3-aux11-2-0000beef-x", "demo-bundle", "mesh-"]
        {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_never_opens(position: prop::sample::Index, bit in 0u8..8) {
            let (mut sealed, keys, name) = sealed();
            let at = position.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(open(&sealed, &keys, &name, NOW).is_err());
        }

        #[test]
        fn a_truncated_one_never_opens(position: prop::sample::Index) {
            let (sealed, keys, name) = sealed();
            prop_assert!(open(&sealed[..position.index(sealed.len())], &keys, &name, NOW).is_err());
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, text in ".{0,60}") {
            let (_, keys, name) = sealed();
            prop_assert!(open(&bytes, &keys, &name, NOW).is_err());
            let _ = Name::parse(&text);
            let _ = parse(&bytes);
        }
    }

    fn example() -> Announcement {
        Announcement { keys: keys(&[1], "run").ids(), ..super::example() }
    }

    fn keys(masters: &[u8], run: &str) -> KeyRing {
        let context = Context { repository: "1".into(), run: run.into(), attempt: 1 };
        let text: Vec<_> = masters.iter().map(|master| MasterKey::from_bytes([*master; 32]).to_text()).collect();
        KeyRing::parse(&text.join("\n"), &context).expect("good keys")
    }

    fn sealed() -> (Vec<u8>, KeyRing, Name) {
        let (keys, name) = (keys(&[1], "run"), Name { attempt: 1, role: Role::Aux(3), seq: 7, nonce: 9 });
        let bytes = seal(&example(), &keys, &name, &mut ChaCha20Rng::seed_from_u64(1));
        (bytes, keys, name)
    }
}
