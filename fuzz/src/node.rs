//! A primary and an aux, with all that lies between them in the hands of the input: time, what arrives, in which order and how often,
//! what STUN servers and the rendezvous say, and what strangers send.
//!
//! Input: steps. Bit 0 of the first byte of each is whom it happens to, the rest what happens; see [`World::step`].

use std::collections::{BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mesh::proto::announcement::{Announcement, Boot, Standing};
use mesh::proto::batch::Bulk;
use mesh::proto::call::Call;
use mesh::proto::candidate::Candidate;
use mesh::proto::ipv4;
use mesh::proto::key::{ProbeKeys, Secret};
use mesh::proto::node::{Config, Node};
use mesh::proto::overlay::Prefix;
use mesh::proto::packets::Packets;
use mesh::proto::probe::{self, Body, Farewell, Probe};
use mesh::proto::role::Role;
use mesh::proto::route::SocketId;
use mesh::proto::stun::StunClient;
use mesh::proto::super_packet::SuperPacket;
use mesh::proto::transmit::{Event, Transmit};
use mesh::proto::tunnel;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use x25519_dalek::PublicKey;

use super::announcement::ring;
use super::inner::{self, TCP};
use super::input::{Input, alter, piece};

/// Longer stories show nothing new and take long.
const MOST_STEPS: usize = 64;

/// Steps from here on came later, so that older inputs mean what they meant.
const LATER: u8 = 240;

/// In bytes, of what one packet of a program is cut from.
const MOST_BULK: usize = 9000;

/// How often the timeouts of one moment may follow each other.
const MOST_TIMEOUTS: usize = 8;

const STUN: ([u8; 4], u16) = ([192, 0, 2, 1], 3478);
const HOST: ([u8; 4], u16) = ([192, 168, 1, 2], 40000);
const ROLES: [Role; 2] = [Role::Primary, Role::Aux(0)];
const FAREWELLS: [Farewell; 3] = [Farewell::Released, Farewell::Leaving, Farewell::Replaced];

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            return;
        }
        world.step(&mut input);
    }
}

struct World {
    now: Instant,
    sides: [Side; 2],
}

/// One of the two, as those outside see it.
struct Side {
    node: Node,
    role: Role,
    /// Where its datagrams seem to come from.
    address: SocketAddr,
    /// Its datagrams that travel all the way and have not arrived.
    wire: VecDeque<Transmit>,
    /// Its STUN requests without an answer.
    asked: Vec<Vec<u8>>,
    published: Option<Announcement>,
    /// What it was told.
    read: Vec<Announcement>,
    /// Where something authentic came from.
    heard: BTreeSet<SocketAddr>,
    /// What its peer has called: which epoch of ours it has opened towards, and where it is.
    called: Vec<Call>,
    /// What it hears its peer with.
    keys: ProbeKeys,
    /// A fresh socket is asked for.
    rebinding: bool,
    /// What came out of the tunnel since the last step.
    inner: Vec<Vec<u8>>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let mut world = Self { now, sides: [0, 1].map(|at| Side::new(now, at)) };
        world.pass(Duration::ZERO);
        world
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.byte();
        let (at, now) = (usize::from(step & 1), self.now);
        self.sides[at].inner.clear();
        let what = if step < LATER { step / 2 % 12 } else { 12 + (step - LATER) / 2 % 4 };
        match what {
            0 => self.pass(Duration::from_millis(u64::from(input.byte()) * 40)),
            1 => self.deliver(at),
            2 => (0..8).for_each(|turn| self.deliver((at + turn) % 2)),
            3 => drop(self.sides[at].wire.pop_front()),
            4 => self.alter(at, input),
            5 => {
                let from = [STUN.into(), self.sides[1 - at].address, ([203, 0, 113, 9], 9).into()];
                let from = from[usize::from(input.byte()) % 3];
                self.sides[at].take_from_a_stranger(now, from, &[input.piece()]);
            }
            6 => {
                let mut packet = input.piece().to_vec();
                self.sides[at].input(|node| node.handle_inner(now, SuperPacket::plain(&mut packet)));
            }
            7 => self.announce(at, input.byte(), |_| {}),
            8 => {
                let born = input.byte();
                self.announce(at, born, |announcement| distort(announcement, input));
            }
            9 => self.sides[at].answer_stun(now, input.byte()),
            10 => self.repeat(at),
            11 => self.sides[at].input(|node| node.close(now, FAREWELLS[usize::from(input.byte()) % 3])),
            12 => {
                let (header, mut bytes) = inner::super_packet(input, MOST_BULK);
                if let Ok(packet) = SuperPacket::new(header, &mut bytes) {
                    self.sides[at].input(|node| node.handle_inner(now, packet));
                }
            }
            13 => self.deliver_together(at, usize::from(input.byte())),
            14 => {
                let (size, from) = (usize::from(input.byte()).max(1), self.sides[1 - at].address);
                let datagrams: Vec<&[u8]> = input.piece().chunks(size).collect();
                self.sides[at].take_from_a_stranger(now, from, &datagrams);
            }
            _ => {
                let to = [ROLES[1 - at], Role::Aux(7)][usize::from(input.byte()) % 2];
                self.sides[at].input(|node| node.handle_too_long(now, to));
            }
        }
        self.pass(Duration::ZERO);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.sides.iter_mut().for_each(|side| side.drive(self.now));
    }

    /// The oldest datagram on its way to `at`, where it is for its address.
    fn deliver(&mut self, at: usize) {
        let from = self.sides[1 - at].address;
        let Some(Transmit { to, bytes, .. }) = self.sides[1 - at].wire.pop_front() else { return };
        if to == self.sides[at].address {
            self.sides[at].take(self.now, from, &[&bytes]);
        }
    }

    /// As the kernel does with what comes from one place: many at once, whatever lies between them.
    fn deliver_together(&mut self, at: usize, most: usize) {
        let (from, to) = (self.sides[1 - at].address, self.sides[at].address);
        let wire = &mut self.sides[1 - at].wire;
        let mut together: Vec<Vec<u8>> =
            wire.drain(..most.min(wire.len())).filter(|sent| sent.to == to).map(|sent| sent.bytes).collect();
        if most & 0x80 != 0 {
            // Somebody has touched one of them; the others hold.
            let middle = together.len() / 2;
            if let Some(byte) = together.get_mut(middle).and_then(|bytes| bytes.last_mut()) {
                *byte ^= 1;
            }
        }
        let datagrams: Vec<&[u8]> = together.iter().map(Vec::as_slice).collect();
        self.sides[at].take(self.now, from, &datagrams);
    }

    fn repeat(&mut self, at: usize) {
        if let Some(oldest) = self.sides[1 - at].wire.front().cloned() {
            self.sides[1 - at].wire.push_back(oldest);
        }
    }

    fn alter(&mut self, at: usize, input: &mut Input<'_>) {
        let from = self.sides[1 - at].address;
        let Some(oldest) = self.sides[1 - at].wire.front() else { return };
        let mut altered = oldest.bytes.clone();
        alter(&mut altered, input);
        if altered != oldest.bytes {
            self.sides[at].take_from_a_stranger(self.now, from, &[&altered]);
        }
    }

    fn announce(&mut self, at: usize, born: u8, change: impl FnOnce(&mut Announcement)) {
        let Some(mut announcement) = self.sides[1 - at].published.clone() else { return };
        change(&mut announcement);
        let now = self.now;
        self.sides[at].read.push(announcement.clone());
        self.sides[at].input(|node| node.handle_announcement(now, announcement, u64::from(born)));
    }
}

impl Side {
    fn new(now: Instant, at: usize) -> Self {
        let config = Config {
            role: ROLES[at],
            keys: ring(&[1]),
            secret: Secret([at as u8 + 1; 32]),
            seed: Secret([at as u8 + 3; 32]),
            overlay: overlay(),
            slots: 2,
            offload: None,
            job_port: 3632,
            hosts: vec![HOST.into()],
            stun: vec![STUN.into()],
            relays: vec![],
        };
        let mut node = Node::new(now, config);
        node.handle_hops(now, None);
        Self {
            node,
            role: ROLES[at],
            address: SocketAddr::from(([198, 51, 100, at as u8 + 1], 1024)),
            wire: VecDeque::new(),
            asked: vec![],
            published: None,
            read: vec![],
            heard: BTreeSet::new(),
            called: vec![],
            keys: keys(at),
            rebinding: false,
            inner: vec![],
        }
    }

    /// As the driver of `link` does. Whoever was driven has nothing more to do at the same moment.
    fn drive(&mut self, now: Instant) {
        for _ in 0..MOST_TIMEOUTS {
            if std::mem::take(&mut self.rebinding) {
                self.input(|node| node.handle_rebound(now, vec![HOST.into()]));
            } else if self.is_due(now) {
                self.input(|node| node.handle_timeout(now));
            }
        }
        assert!(!self.is_due(now), "something stays due, so the driver would spin");
    }

    fn is_due(&self, now: Instant) -> bool {
        self.node.poll_timeout().is_some_and(|at| at <= now)
    }

    fn input(&mut self, input: impl FnOnce(&mut Node)) {
        input(&mut self.node);
        self.drain();
    }

    /// Datagrams that somebody who has our keys, or a STUN server, may have sent; together where they are several.
    fn take(&mut self, now: Instant, from: SocketAddr, datagrams: &[&[u8]]) {
        let before = self.dropped();
        for datagram in datagrams {
            if let Some(Probe { body: Body::Call(call), .. }) = probe::open(datagram, &self.keys) {
                self.called.push(*call);
            }
        }
        self.node.handle_datagrams(now, SocketId::MAIN, from, datagrams.iter().copied());
        if self.took_some(before, datagrams) {
            self.heard.insert(from);
        }
        let inner = self.inner.len();
        self.drain();
        if datagrams.iter().all(|datagram| tunnel::is_wireguard(datagram)) {
            let whole = |packet: &[u8]| usize::from(inner::word(packet, 2)) == packet.len();
            let honest = |packet: &Vec<u8>| ipv4::destination(packet) == overlay().address(self.role) && whole(packet);
            assert!(self.inner[inner..].iter().all(honest), "an inner packet for somebody else");
        }
    }

    /// Those that nobody with our keys has sent. What is answered at all is answered with less.
    fn take_from_a_stranger(&mut self, now: Instant, from: SocketAddr, datagrams: &[&[u8]]) {
        let (before, sent, inner) = (self.dropped(), self.wire.len(), self.inner.len());
        self.take(now, from, datagrams);
        let took_some = self.took_some(before, datagrams);
        if datagrams.iter().any(|datagram| StunClient::is_stun(datagram)) && took_some {
            return;
        }
        let replies = self.wire.range(sent..).map(|reply| reply.bytes.len()).sum::<usize>();
        let asked = datagrams.iter().map(|datagram| datagram.len()).sum::<usize>();
        assert!(replies <= if took_some { asked } else { 0 }, "{replies} bytes in reply");
        assert_eq!(self.inner.len(), inner, "a stranger's packet in the tunnel");
    }

    /// Whether not all of them were dropped, where `before` had been.
    fn took_some(&self, before: u64, datagrams: &[&[u8]]) -> bool {
        self.dropped() - before < datagrams.len() as u64
    }

    /// Answers everything that was asked; `port` is what the server sees, and so where its peer is reached.
    fn answer_stun(&mut self, now: Instant, port: u8) {
        self.address.set_port(1024 + u16::from(port));
        let SocketAddr::V4(here) = self.address else { return };
        for request in std::mem::take(&mut self.asked) {
            let port = here.port() ^ 0x2112;
            let ip = here.ip().to_bits() ^ 0x2112_a442;
            let mapped = [&[0, 0x20, 0, 8, 0, 1][..], &port.to_be_bytes(), &ip.to_be_bytes()].concat();
            self.take(now, STUN.into(), &[&[&[1, 1, 0, 12], &request[4..20], &mapped].concat()]);
        }
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.node.poll_transmit() {
            if transmit.to == STUN.into() && StunClient::is_stun(&transmit.bytes) {
                self.asked.push(transmit.bytes);
            } else if transmit.ttl.is_none() {
                assert!(self.may_send_to(transmit.to), "a full-TTL datagram to {} leaves too early", transmit.to);
                self.wire.push_back(transmit);
            }
        }
        while let Some(Bulk { socket, to, batch }) = self.node.poll_batch() {
            assert!(self.may_send_to(to), "bulk to {to} leaves too early");
            let datagrams = batch.datagrams().map(<[u8]>::to_vec);
            self.wire.extend(datagrams.map(|bytes| Transmit { socket, to, ttl: None, bytes }));
            self.node.recycle(Bulk { socket, to, batch });
        }
        let mut packets = Packets::default();
        self.node.swap_inner(&mut packets);
        self.inner.extend(packets.iter().map(<[u8]>::to_vec));
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::Publish(announcement) => {
                    self.published = Some(*announcement);
                }
                // Nobody has let a fresh socket in.
                Event::Rebind(_) => {
                    (self.rebinding, self.heard) = (true, BTreeSet::new());
                    self.asked.clear();
                }
                _ => {}
            }
        }
    }

    /// The rule, by what was said outside and not by what the node believes.
    fn may_send_to(&self, to: SocketAddr) -> bool {
        let epoch = self.node.epoch();
        let among = |candidates: &[Candidate]| candidates.iter().any(|candidate| candidate.addr == to);
        // An epoch of a process has one set of addresses, whichever of its words tells them. A call does not say of which process it is.
        let told = |epoch: u32, boot: Option<Boot>| {
            let same = |read: &&Announcement| read.epoch == epoch && boot.is_none_or(|boot| read.boot == boot);
            let called = self.called.iter().filter(|call| call.epoch == epoch);
            self.read.iter().filter(same).any(|read| among(&read.candidates))
                || called.into_iter().any(|call| among(&call.candidates))
        };
        let acknowledged = |ack: &Announcement| {
            ack.acknowledges(self.role, self.node.boot(), epoch) && told(ack.epoch, Some(ack.boot))
        };
        let called = |call: &Call| call.opened == epoch && told(call.epoch, None);
        self.heard.contains(&to) || self.read.iter().any(acknowledged) || self.called.iter().any(called)
    }

    fn dropped(&self) -> u64 {
        self.node.dropped().values().sum()
    }
}

/// What a peer of another build, or one that is broken, might say instead.
fn distort(announcement: &mut Announcement, input: &mut Input<'_>) {
    let (what, byte) = (input.byte(), input.byte());
    match what % 8 {
        0 => announcement.acks.clear(),
        1 => announcement.candidates = vec![Candidate::host(([203, 0, 113, byte], 9).into())],
        2 => announcement.standing = Standing::Closed,
        3 => announcement.seq = u32::from(byte),
        4 => announcement.overlay = "10.78.0.0/16".into(),
        5 => announcement.keys.clear(),
        6 => announcement.boot = Boot::draw(&mut ChaCha20Rng::seed_from_u64(u64::from(byte))),
        _ => announcement.role = Role::Aux(u16::from(byte)),
    }
}

/// Of one side, for the probes of the other.
fn keys(at: usize) -> ProbeKeys {
    let secret = |at: usize| Secret([at as u8 + 1; 32]).to_static();
    let ring = ring(&[1]);
    let keys = ring.iter().next().expect("one key");
    keys.probes(&secret(at), &PublicKey::from(&secret(1 - at)))
}

fn overlay() -> Prefix {
    Prefix::new(Ipv4Addr::new(10, 77, 0, 0), 16)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let wait = |tens: u8| step(0, 0, &[tens]);
    let both = |what: u8, args: &[u8]| [step(0, what, args), step(1, what, args)].concat();
    let deliver = step(0, 2, &[]);
    let later = |steps: &[u8]| [up(), steps.to_vec()].concat();
    let packet =
        piece(&[&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2][..], &[0; 20]].concat());
    let probe = piece(&[&b"MSH1\0\x01\0\0"[..], &[7; 72]].concat());
    let initiation = piece(&[&[1, 0, 0, 0][..], &[7; 144]].concat());
    let distorted = (0..8).map(|what| later(&step(1, 8, &[9, what, 7])));
    let stories = [
        up(),
        later(&[step(0, 6, &packet), deliver.clone(), wait(50)].concat()),
        later(&[step(0, 4, &[0, 0, 40, 1]), step(0, 10, &[]), deliver.clone()].concat()),
        later(&[both(11, &[0]), deliver.clone(), wait(3), deliver].concat()),
        later(&[wait(255), wait(255), wait(255), step(1, 6, &packet), both(9, &[1])].concat()),
        [step(0, 5, &[&[2][..], &probe].concat()), step(1, 5, &[&[2][..], &initiation].concat())].concat(),
        later(&[step(1, 5, &[&[1][..], &probe].concat()), step(0, 5, &[&[1][..], &initiation].concat())].concat()),
        later(&[super_packet(0, 8000), arrive(1, 64), super_packet(1, 9000), arrive(0, 0x83), arrive(0, 9)].concat()),
        later(
            &[super_packet(1, 5000), later_step(1, 3, &[0]), super_packet(1, 5000), wait(50), arrive(0, 64)].concat(),
        ),
        later(&[&later_step(0, 2, &[32])[..], &piece(&[4, 0, 0, 0, 0, 1, 2, 3].repeat(20)), &arrive(0, 9)].concat()),
        [super_packet(0, 3000), later_step(1, 3, &[1])].concat(),
    ];
    stories.into_iter().chain(distorted).collect()
}

/// STUN answers both, each reads what the other has published, and what they send arrives.
fn up() -> Vec<u8> {
    let (stun, read) = (|at| step(at, 9, &[0]), |at| step(at, 7, &[1]));
    let wait = step(0, 0, &[3]);
    let deliver = step(0, 2, &[]);
    let rounds = [wait.clone(), deliver].concat().repeat(6);
    [wait, stun(0), stun(1), step(0, 0, &[12]), read(1), read(0), rounds].concat()
}

fn step(at: u8, what: u8, args: &[u8]) -> Vec<u8> {
    [&[at + 2 * what], args].concat()
}

fn later_step(at: u8, what: u8, args: &[u8]) -> Vec<u8> {
    [&[LATER + at + 2 * what], args].concat()
}

/// TCP from one to the other, as the device hands it over.
fn super_packet(at: u8, len: u16) -> Vec<u8> {
    let mut ends = [[10, 77, 0, 1], [10, 77, 0, 2]];
    ends.rotate_left(at.into());
    let headers = piece(&inner::packet(TCP, ends, 7, &[]));
    let words = [1368u16, 20, 16].map(u16::to_ne_bytes);
    let virtio = [&[1, 1, 0, 0][..], words.as_flattened()].concat();
    later_step(at, 0, &[&[4][..], &virtio, &headers, &len.to_be_bytes()].concat())
}

/// Many at once.
fn arrive(at: u8, most: u8) -> Vec<u8> {
    later_step(at, 1, &[most])
}

#[cfg(test)]
mod tests {
    use mesh::proto::peer::State;

    use super::*;

    fn told(story: &[u8]) -> World {
        let (mut input, mut world) = (Input::new(story), World::new());
        while !input.is_empty() {
            world.step(&mut input);
        }
        world
    }

    #[test]
    fn the_first_seed_brings_both_up() {
        let world = told(&up());
        let up = |side: &Side| side.node.peers(world.now).iter().any(|peer| peer.state == State::Up);
        assert!(world.sides.iter().all(up), "{:?}", world.sides.each_ref().map(|side| side.node.dropped()));
    }

    #[test]
    fn what_is_sent_as_one_arrives_in_segments() {
        let story = [up(), super_packet(0, 8000), arrive(1, 64)].concat();
        let arrived: Vec<usize> = told(&story).sides[1].inner.iter().map(|packet| packet.len() - 40).collect();
        assert_eq!((arrived.len(), arrived.iter().sum::<usize>()), (6, 8000));
    }
}
