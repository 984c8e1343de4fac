//! Probes: of strangers, altered, of any plaintext behind the seal, and each kind there and back.
//!
//! Input: one byte for which of these, then it.

use std::net::SocketAddr;

use mesh::proto::key::ProbeKeys;
use mesh::proto::probe::{self, Body, Farewell, Probe};
use mesh::proto::role::Role;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::input::{Input, alter};
use super::seal::xchacha;

const FROM: Role = Role::Primary;
const TO: Role = Role::Aux(2);

/// What a probe has around its plaintext: header, nonce and tag.
const AROUND: usize = 8 + 24 + 16;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => foreign(input.rest()),
        1 => altered(&mut input),
        2 => behind_the_seal(&mut input),
        _ => there_and_back(said(&mut input)),
    }
}

fn foreign(datagram: &[u8]) {
    let (_, there) = keys();
    let opened = probe::open(datagram, &there);
    assert!(opened.is_none() || probe::is_probe(datagram) && probe::parties(datagram).is_some());
    opened.into_iter().for_each(there_and_back);
}

fn altered(input: &mut Input<'_>) {
    let (_, there) = keys();
    let original = seal(&said(input));
    let mut datagram = original.clone();
    alter(&mut datagram, input);
    assert_eq!(probe::open(&datagram, &there).is_some(), datagram == original);
}

/// As [`probe::seal`] does; shorter plaintexts are filled up, since a probe has a least length.
fn behind_the_seal(input: &mut Input<'_>) {
    let (here, there) = keys();
    let header: [u8; 4] = input.array();
    let mut plain = input.rest().to_vec();
    plain.resize(plain.len().clamp(probe::LEN - AROUND, probe::LONGEST - AROUND), 0);
    let aad = [b"MSH1", &header[..]].concat();
    let datagram = [&aad[..], &xchacha(here.send, &aad, &plain)].concat();
    assert!(probe::is_probe(&datagram));
    probe::open(&datagram, &there).into_iter().for_each(there_and_back);
}

/// Every probe that we can read is one that we write, and for one direction. A text that was written shorter than we write it may be left out.
fn there_and_back(probe: Probe) {
    let (here, there) = keys();
    let datagram = seal(&probe);
    let has_text = matches!(probe.body, Body::Call(_) | Body::Card { .. });
    assert!(datagram.len() == probe::LEN || has_text && datagram.len() <= probe::LONGEST);
    assert_eq!(probe::parties(&datagram), Some((FROM, TO)));
    let back = probe::open(&datagram, &there);
    assert!(back.as_ref() == Some(&probe) || has_text && back.is_none());
    assert_eq!(probe::open(&datagram, &here), None);
}

fn said(input: &mut Input<'_>) -> Probe {
    let kind = input.byte();
    let transaction = u64::from_be_bytes(input.array());
    let body = match kind % 6 {
        0 => Body::Ping { epoch: u32::from_be_bytes(input.array()) },
        1 => Body::Pong { observed: SocketAddr::from((input.array::<4>(), u16::from_be_bytes(input.array()))) },
        2 => Body::Bye(Farewell::Released),
        3 => Body::Bye(Farewell::Leaving),
        4 => Body::Bye(Farewell::Replaced),
        _ => Body::ByeAck,
    };
    Probe { transaction, body }
}

fn seal(probe: &Probe) -> Vec<u8> {
    probe::seal(probe, FROM, TO, &keys().0, 0, &mut ChaCha20Rng::seed_from_u64(1))
}

fn keys() -> (ProbeKeys, ProbeKeys) {
    (ProbeKeys { send: [1; 32], receive: [2; 32] }, ProbeKeys { send: [2; 32], receive: [1; 32] })
}

pub fn seeds() -> Vec<Vec<u8>> {
    let transaction = [1, 2, 3, 4, 5, 6, 7, 8];
    let kinds = || 0..6u8;
    let written = kinds().map(|kind| [&[3, kind][..], &transaction, &[198, 51, 100, 1, 4, 0]].concat());
    let altered = kinds().map(|kind| [&[1, kind][..], &transaction, &[198, 51, 100, 1, 4, 0], &[0, 0, 40, 1]].concat());
    let genuine = kinds().map(|kind| [&[0][..], &seal(&said(&mut Input::new(&[kind, 9])))].concat());
    let plain = [1u8, 2, 7, 8].map(|kind| {
        let body = [&[1, 4, 0][..], &[0; 10], &[0xff, 0xff, 198, 51, 100, 1]].concat();
        [&[2, 0, 0, 0, 3, kind, 0][..], &transaction, &body].concat()
    });
    written.chain(altered).chain(genuine).chain(plain).collect()
}
