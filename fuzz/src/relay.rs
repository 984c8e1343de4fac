//! Relay frames and registrations, and the relay that takes both. Nothing that is not authentic may pass, nor change who is registered.
//!
//! Input: what to do in one byte; then a datagram.

use std::net::SocketAddr;
use std::time::Instant;

use mesh::proto::key::{KeyId, Secret};
use mesh::proto::registration;
use mesh::proto::relay::{self, Head};
use mesh::proto::relay_client::RelayClient;
use mesh::proto::relay_server::RelayServer;
use mesh::proto::role::Role;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::input::{Input, alter, fingerprint};

const ID: KeyId = KeyId([1; 4]);
const KEY: [u8; 32] = [2; 32];
const HOP: [u8; 32] = [3; 32];
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => parsed(input.rest()),
        1 => altered(&mut input),
        _ => at_the_relay(&mut input),
    }
}

/// Whatever the bytes are, reading them is harmless, and they are authentic under no key.
fn parsed(datagram: &[u8]) {
    let _ = (relay::head(datagram), registration::key_id(datagram));
    let mut key = [6; 32];
    key[..8].copy_from_slice(&fingerprint(datagram).to_be_bytes());
    assert_eq!(relay::open(datagram, &key), None);
    assert!(registration::open(datagram, &key).is_none());
}

/// A frame opens if and only if nobody has touched it.
fn altered(input: &mut Input<'_>) {
    let head = Head { from: Role::Aux(1), to: Role::Primary, by: 2, relayed: input.byte() % 2 == 1 };
    let original = relay::seal(head, b"a datagram", &HOP);
    assert_eq!(relay::head(&original), Some(head));
    let mut frame = original.clone();
    alter(&mut frame, input);
    assert_eq!(relay::open(&frame, &HOP).is_some(), frame == original);
}

/// A registered runner's address sends anything at all.
fn at_the_relay(input: &mut Input<'_>) {
    let datagram = input.rest();
    let (now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(fingerprint(datagram)));
    let mut relay = RelayServer::new(now, vec![(ID, KEY)], Secret([4; 32]));
    let from: SocketAddr = ([198, 51, 100, 1], 1024).into();
    let server: SocketAddr = ([192, 0, 2, 9], 3479).into();
    let mut client = RelayClient::new(now, server, ID, KEY, [5; 16], Role::Primary, &mut rng);
    while let Some(question) = client.poll_transmit(now, &mut rng) {
        let answer = relay.handle_datagram(now, from, &question, &mut rng).expect("it answers who has the key");
        let (_, answer) = answer.into_bytes();
        assert_eq!(answer.len(), question.len());
        client.handle_answer(now, &answer);
    }
    let before = relay.counts();
    assert!(relay.handle_datagram(now, from, datagram, &mut rng).is_none(), "it answers what is not authentic");
    assert_eq!(relay.counts().sessions, before.sessions);
    client.handle_answer(now, datagram);
    assert!(client.is_registered() && client.open(datagram).is_none());
}

pub fn seeds() -> Vec<Vec<u8>> {
    let head = Head { from: Role::Aux(1), to: Role::Primary, by: 2, relayed: false };
    let frames =
        [head, Head { by: relay::SERVER, relayed: true, ..head }].map(|head| relay::seal(head, b"inside", &HOP));
    let garbled = [frames[0].clone(), frames[1].clone(), [&b"MSQ1\x01\x01\x01\x01"[..], &[7; 136]].concat()];
    let parsed = [frames[0][..15].to_vec(), b"MSR1".to_vec(), vec![]].map(|bytes| [&[0][..], &bytes].concat());
    let altered = [vec![1, 0, 0, 0, 40, 1], vec![1, 1, 1, 0, 3, 9]];
    let sent = garbled.map(|bytes| [&[2][..], &bytes].concat());
    parsed.into_iter().chain(altered).chain(sent).collect()
}
