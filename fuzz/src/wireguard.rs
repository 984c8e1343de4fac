//! WireGuard messages: of strangers, altered, replayed, and inner packets of any shape from a peer that is what it says.
//!
//! Input: steps, each of one byte and what it asks for. The handshake's own randomness and the clock are boringtun's: only what holds
//! whatever they are is asked for.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use mesh::proto::packets::Packets;
use mesh::proto::tunnel::{self, Addressee, HandshakeLimit, Opened, Tunnel};
use x25519_dalek::{PublicKey, StaticSecret};

use super::input::{Input, alter, piece};

const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const INDICES: [u32; 2] = [11, 22];

/// Handshakes cost most of the time; more of them show nothing new.
const MOST_STEPS: usize = 12;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut pair = Pair::new();
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            return;
        }
        match input.byte() % 6 {
            0 => pair.take_from_a_stranger(input.piece()),
            1 => pair.shake(),
            2 => {
                let times = 1 + usize::from(input.byte() % 32);
                pair.carry(&input.piece().repeat(times));
            }
            3 => pair.alter(&mut input),
            4 => pair.replay(),
            _ => pair.tick(),
        }
    }
}

/// Two ends of a session. The second one always initiates.
struct Pair {
    ends: [Tunnel; 2],
    limits: [HandshakeLimit; 2],
    /// The last message that the first end has taken.
    taken: Option<Vec<u8>>,
}

impl Pair {
    fn new() -> Self {
        let [one, two] = publics();
        let limits = [HandshakeLimit::new(&one), HandshakeLimit::new(&two)];
        let tunnel = |at: usize, peer| Tunnel::new(&secret(at), peer, [5; 32], INDICES[at], &limits[at]);
        Self { ends: [tunnel(0, &two), tunnel(1, &one)], limits, taken: None }
    }

    /// Without our keys nothing is authentic, and no answer is longer than its question.
    fn take_from_a_stranger(&mut self, datagram: &[u8]) {
        let addressee = tunnel::addressee(datagram, || secret(0), &publics()[0]);
        assert!(addressee.is_none() || tunnel::is_wireguard(datagram));
        if !tunnel::is_wireguard(datagram) {
            return;
        }
        let Opened { authentic, inner, replies } = self.ends[0].open(THERE, datagram, &mut Packets::default());
        assert!(!authentic && inner.is_none());
        assert!(replies.iter().map(Vec::len).sum::<usize>() <= datagram.len());
    }

    /// A whole handshake. It may fail, as where initiations come faster than their time stamps differ.
    fn shake(&mut self) {
        self.limits.iter().for_each(HandshakeLimit::reset);
        let Some(initiation) = self.ends[1].initiate() else { return };
        assert_eq!(self.addressee(&initiation), Some(Addressee::Key(publics()[1])));
        let answers = self.take(initiation);
        let confirmations =
            answers.iter().flat_map(|answer| self.ends[1].open(THERE, answer, &mut Packets::default()).replies);
        for confirmation in confirmations.collect::<Vec<_>>() {
            self.take(confirmation);
        }
    }

    /// What goes in comes out, or nothing does; at most its padding is cut off.
    fn carry(&mut self, inner: &[u8]) {
        let Some(sealed) = self.seal(inner) else { return };
        if tunnel::is_initiation(&sealed) {
            return;
        }
        assert_eq!(self.addressee(&sealed), Some(Addressee::Session(INDICES[0])));
        let mut packets = Packets::default();
        let opened = self.ends[0].open(THERE, &sealed, &mut packets);
        opened.inner.into_iter().for_each(|len| packets.keep(len));
        assert!(packets.iter().all(|out| opened.authentic && inner.starts_with(out)));
        self.taken = Some(sealed);
    }

    fn seal(&mut self, inner: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = vec![0; Tunnel::sealed_len(inner.len())];
        let len = self.ends[1].seal(inner, &mut buffer)?;
        buffer.truncate(len);
        Some(buffer)
    }

    fn alter(&mut self, input: &mut Input<'_>) {
        let original = if input.byte() & 1 == 0 { self.ends[1].initiate() } else { self.seal(&[0x45; 20]) };
        let Some(original) = original else { return };
        let mut altered = original.clone();
        alter(&mut altered, input);
        if altered != original {
            self.take_from_a_stranger(&altered);
        }
    }

    fn replay(&mut self) {
        if let Some(taken) = self.taken.clone() {
            let opened = self.ends[0].open(THERE, &taken, &mut Packets::default());
            assert!(!opened.authentic && opened.inner.is_none());
        }
    }

    fn tick(&mut self) {
        self.ends.iter_mut().for_each(|end| {
            end.tick();
        });
    }

    fn take(&mut self, message: Vec<u8>) -> Vec<Vec<u8>> {
        let replies = self.ends[0].open(THERE, &message, &mut Packets::default()).replies;
        self.taken = Some(message);
        replies
    }

    fn addressee(&self, message: &[u8]) -> Option<Addressee> {
        assert!(tunnel::is_wireguard(message));
        tunnel::addressee(message, || secret(0), &publics()[0])
    }
}

fn secret(at: usize) -> StaticSecret {
    StaticSecret::from([at as u8 + 1; 32])
}

fn publics() -> [PublicKey; 2] {
    static PUBLICS: LazyLock<[PublicKey; 2]> = LazyLock::new(|| [0, 1].map(|at| PublicKey::from(&secret(at))));
    *PUBLICS
}

pub fn seeds() -> Vec<Vec<u8>> {
    let (shake, replay, tick) = (&[1][..], &[4][..], &[5][..]);
    let foreign = |message: &[u8]| [&[0][..], &piece(message)].concat();
    let carry_times = |times: u8, inner: &[u8]| [&[2, times - 1][..], &piece(inner)].concat();
    let carry = |inner: &[u8]| carry_times(1, inner);
    let alter = |what: u8, at: u8| vec![3, what, 0, 0, at, 1];
    let cookie = [&[3, 0, 0, 0][..], &[7; 60]].concat();
    vec![
        shake.to_vec(),
        [shake, replay, shake, tick].concat(),
        [shake, &carry(&inner(4)), replay].concat(),
        [shake, &carry(&[]), &carry(&inner(200)), &carry(&[0x60; 40]), &carry(&[0x45, 0, 0, 3])].concat(),
        [&carry(&inner(9)), &carry(&inner(60)), shake, shake, &carry_times(20, &inner(50))].concat(),
        [shake, &alter(1, 0), &alter(1, 4), &alter(1, 8), &alter(1, 20)].concat(),
        [alter(0, 0), alter(0, 4), alter(0, 8), alter(0, 120), alter(0, 140)].concat(),
        foreign(&Pair::new().ends[1].initiate().expect("an initiation")),
        foreign(&[&[2, 0, 0, 0][..], &[7; 88]].concat()),
        [shake, &foreign(&cookie)].concat(),
        [shake, &foreign(&[&[4, 0, 0, 0, 0, 11, 0, 0][..], &[0; 24]].concat())].concat(),
    ]
}

/// An IPv4 packet of the right length.
fn inner(payload: u8) -> Vec<u8> {
    let mut packet = vec![0; 20 + usize::from(payload)];
    (packet[0], packet[3]) = (0x45, 20 + payload);
    packet[12..20].copy_from_slice(&[10, 77, 0, 2, 10, 77, 0, 1]);
    packet
}
