//! What lies at the rendezvous: envelopes of strangers, altered ones, and what is behind the seal, as a peer with our key but another
//! build might write it; and names.
//!
//! Input: one byte for which of these, then it.

use mesh::proto::announcement::{self, Ack, Announcement, Boot, LIFETIME, Name, PROTOCOL, Rejected, Standing};
use mesh::proto::candidate::{Candidate, MAX_CANDIDATES};
use mesh::proto::key::{Context, MasterKey};
use mesh::proto::keyring::{KeyRing, MAX_KEYS};
use mesh::proto::nat::{Behaviour, Mapping};
use mesh::proto::role::Role;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use x25519_dalek::PublicKey;

use super::input::{Input, alter};
use super::seal::xchacha;

const NOW: u64 = 1_800_000_000;
const NAME: Name = Name { attempt: 1, role: Role::Aux(3), seq: 7, nonce: 9 };

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 5 {
        0 => open(input.rest()),
        1 => altered(&mut input),
        2 => behind_the_seal(input.rest()),
        3 => of_json(input.rest()),
        _ => named(input.rest()),
    }
}

fn altered(input: &mut Input<'_>) {
    let original = announcement::seal(&example(), &ring(&[1]), &NAME, &mut rng());
    let mut bytes = original.clone();
    alter(&mut bytes, input);
    let opened = announcement::open(&bytes, &ring(&[1]), &NAME, NOW);
    assert_eq!(opened.is_ok(), bytes == original, "{opened:?}");
}

/// A plaintext with its own length in front.
fn of_json(json: &[u8]) {
    behind_the_seal(&[&(json.len() as u32).to_be_bytes(), json].concat());
}

/// Any plaintext, sealed as [`announcement::seal`] does.
fn behind_the_seal(plain: &[u8]) {
    let ring = ring(&[1]);
    let keys = ring.iter().next().expect("a ring has a key");
    let aad = [keys.context(), &[1], NAME.to_string().as_bytes()].concat();
    let sealed = xchacha(keys.announcement(), &aad, plain);
    let envelope = [b"MSHE\x01\x01", &keys.key_id().0[..], &sealed].concat();
    assert_ne!(announcement::open(&envelope, &ring, &NAME, NOW), Err(Rejected::Unauthentic), "the envelope fits");
    open(&envelope);
}

/// What opens keeps what the rest of the code relies on, and opens again when we seal it.
fn open(envelope: &[u8]) {
    let ring = ring(&[1]);
    let Ok(opened) = announcement::open(envelope, &ring, &NAME, NOW) else { return };
    assert_eq!((opened.role, opened.seq), (NAME.role, NAME.seq));
    assert!(opened.keys.len() <= MAX_KEYS && opened.candidates.len() <= MAX_CANDIDATES);
    assert!(opened.candidates.iter().all(Candidate::is_usable));
    let again = announcement::seal(&opened, &ring, &NAME, &mut rng());
    assert_eq!(announcement::open(&again, &ring, &NAME, NOW), Ok(opened));
}

fn named(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    if let Some(name) = Name::parse(text) {
        assert_eq!(name.to_string(), text);
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let json = |announcement: &Announcement| serde_json::to_vec(announcement).expect("plain data serialises");
    let plain = json(&example());
    let padded = [&(plain.len() as u32).to_be_bytes(), &plain[..], &[0; 64]].concat();
    let closed = Announcement { standing: Standing::Closed, offload: Some("distcc".into()), ..example() };
    let with = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    vec![
        with(0, &announcement::seal(&example(), &ring(&[1]), &NAME, &mut rng())),
        with(0, b"MSHE\x01\x02"),
        with(1, &[0, 0, 7, 1]),
        with(1, &[0x80, 0, 7, 0, 0, 9]),
        with(2, &padded),
        with(3, &plain),
        with(3, &json(&closed)),
        with(3, &json(&Announcement { protocol: (2, 3), ..example() })),
        with(3, &json(&Announcement { keys: ring(&[1, 2]).ids(), acks: vec![], candidates: many(), ..example() })),
        with(4, NAME.to_string().as_bytes()),
        with(4, b"mesh-1-primary-1-00000001"),
    ]
}

/// More than are taken, the first of them not usable.
fn many() -> Vec<Candidate> {
    (0..10).map(|port| Candidate::host(([192, 168, 1, 2], port).into())).collect()
}

pub fn example() -> Announcement {
    Announcement {
        protocol: (PROTOCOL, PROTOCOL),
        role: NAME.role,
        boot: Boot::draw(&mut rng()),
        seq: NAME.seq,
        epoch: 1,
        issued_at: NOW,
        expires_at: NOW + LIFETIME.as_secs(),
        keys: ring(&[1]).ids(),
        public_key: PublicKey::from([9; 32]),
        overlay: "10.77.0.0/16".into(),
        slots: 4,
        offload: None,
        standing: Standing::Open,
        nat: Behaviour { mapping: Mapping::EndpointIndependent, egress: 1, ..Behaviour::default() },
        candidates: vec![Candidate::server_reflexive(([198, 51, 100, 7], 1024).into())],
        acks: vec![Ack { role: Role::Primary, boot: Boot::draw(&mut rng()), epoch: 1 }],
    }
}

/// The keys of run 2 of repository 1.
pub fn ring(masters: &[u8]) -> KeyRing {
    let context = Context { repository: "1".into(), run: "2".into(), attempt: 1 };
    let text: Vec<_> = masters.iter().map(|master| MasterKey::from_bytes([*master; 32]).to_text()).collect();
    KeyRing::parse(&text.join("\n"), &context).expect("good keys")
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}
