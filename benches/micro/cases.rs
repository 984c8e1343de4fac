//! What is measured: each a body that takes one input, and what makes its inputs, which does not count. Running them is not here.

use std::hint::black_box;
use std::net::Ipv4Addr;

use mesh::proto::batch::Batches;
use mesh::proto::checksum::Sum;
use mesh::proto::coalesce::Coalescer;
use mesh::proto::overlay::MTU;
use mesh::proto::packets::Packets;
use mesh::proto::relay::{self, Head};
use mesh::proto::role::Role;
use mesh::proto::route::Route;
use mesh::proto::stun::StunClient;
use mesh::proto::super_packet::SuperPacket;
use mesh::proto::tunnel::{self, Addressee, Tunnel};
use mesh::proto::{probe, registration};

use super::inner::{self, HEADERS, MOST_SEGMENTS};
use super::{nodes, session};

const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// As many sealed packets as one UDP datagram of the kernel's may hold.
const BATCH: usize = 45;

/// What a TCP segment's checksum covers at this MTU, about.
const SUMMED: usize = 1380;

/// WireGuard's header and tag.
const SEALED: usize = MTU as usize + 32;

/// Sets one up.
type Make = fn() -> Case;

/// What makes an input, and what takes it.
type Fresh = Box<dyn FnMut() -> Vec<u8>>;
type Body = Box<dyn FnMut(&mut [u8])>;

/// In this order they are shown.
const ALL: [(&str, Make); 15] = [
    ("demultiplex", demultiplex),
    ("look-up-of-1", || look_up(1)),
    ("look-up-of-20", || look_up(20)),
    ("look-up-of-255", || look_up(255)),
    ("seal", seal),
    ("open", open),
    ("receive-of-1", || receive(1)),
    ("receive-of-20", || receive(20)),
    ("receive-of-255", || receive(255)),
    ("checksum", checksum),
    ("cut", cut),
    ("coalesce", coalesce),
    ("send", send),
    ("relay-write", relay_write),
    ("relay-open", relay_open),
];

/// Something that is measured.
pub struct Case {
    /// How many packets an input is of.
    pub packets: usize,
    /// Makes an input. No two may be the same where a replay would be noticed.
    pub fresh: Fresh,
    /// Does what is measured, and fails where that does not come to what it should.
    pub body: Body,
}

impl Case {
    fn new(packets: usize, fresh: impl FnMut() -> Vec<u8> + 'static, body: impl FnMut(&mut [u8]) + 'static) -> Self {
        Self { packets, fresh: Box::new(fresh), body: Box::new(body) }
    }

    /// Whose input is always the same.
    fn of(packets: usize, input: Vec<u8>, body: impl FnMut(&mut [u8]) + 'static) -> Self {
        Self::new(packets, move || input.clone(), body)
    }
}

/// Every name.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.into_iter().map(|(name, _)| name)
}

/// The one of this name, set up.
pub fn find(name: &str) -> Option<Case> {
    ALL.into_iter().find(|(known, _)| *known == name).map(|(_, make)| make())
}

/// From the first byte to the session that a transport message is for.
fn demultiplex() -> Case {
    let [mut sender, receiver] = session::shaken();
    let message = session::sealed(&mut sender, &inner::segment(HERE, THERE));
    let public = session::public();
    Case::of(1, message, move |message| {
        let other = StunClient::is_stun(message)
            || relay::is_frame(message)
            || registration::is_registration(message)
            || probe::is_probe(message)
            || !tunnel::is_wireguard(message);
        let addressee = tunnel::addressee(message, session::secret, &public);
        assert!(!other && addressee == Some(Addressee::Session(receiver.index())));
    })
}

/// A transport message for a session that nobody gave out: a node looks for it among all of its peers, and counts.
fn look_up(aux: u16) -> Case {
    let [mut primary, _] = nodes::up(aux);
    let mut message = vec![7; SEALED];
    message[..4].copy_from_slice(&[4, 0, 0, 0]);
    let mut inner = Packets::default();
    let mut dropped = 0;
    Case::of(1, message, move |message| {
        primary.receive(message, &mut inner);
        dropped += 1;
        assert!(inner.is_empty() && primary.node.dropped().values().sum::<u64>() >= dropped);
    })
}

/// Packets of the MTU into a batch.
fn seal() -> Case {
    let [mut sender, _] = session::shaken();
    let route = Route::to((session::HERE, 9).into());
    let mut batches = Batches::default();
    Case::of(BATCH, inner::segment(HERE, THERE), move |packet| {
        for _ in 0..BATCH {
            let most = Tunnel::sealed_len(packet.len());
            batches.add(Role::Primary, route, most, |buffer| sender.seal(packet, buffer));
        }
        let batch = batches.pop().expect("they were sealed");
        assert_eq!(black_box(batch.bytes()).len(), BATCH * SEALED);
        batches.recycle(batch);
    })
}

/// A transport message with a packet of the MTU inside.
fn open() -> Case {
    let ([mut sender, mut receiver], packet) = (session::shaken(), inner::segment(HERE, THERE));
    let mut packets = Packets::default();
    let fresh = move || session::sealed(&mut sender, &packet);
    Case::new(1, fresh, move |message| {
        let opened = receiver.open(session::HERE, message, &mut packets);
        packets.keep(opened.inner.expect("it is authentic"));
        assert_eq!(black_box(packets.get(0)).map_or(0, <[u8]>::len), usize::from(MTU));
        packets.clear();
    })
}

/// The same, all the way through a node of so many peers.
fn receive(aux: u16) -> Case {
    let [mut primary, mut sender] = nodes::up(aux);
    let packet = inner::segment(sender.here, sender.there);
    let mut inner = Packets::default();
    let fresh = move || {
        let mut datagram = vec![];
        sender.send(SuperPacket::plain(&mut packet.clone()), |batch| datagram.extend(batch.bytes()));
        datagram
    };
    Case::new(1, fresh, move |datagram| {
        primary.receive(datagram, &mut inner);
        assert_eq!(black_box(&inner).bytes(), usize::from(MTU));
    })
}

fn checksum() -> Case {
    Case::of(1, vec![7; SUMMED], |bytes| {
        black_box(Sum::of(black_box(bytes)).checksum());
    })
}

/// A TSO super-packet into segments.
fn cut() -> Case {
    let (header, bytes) = inner::super_packet(HERE, THERE, MOST_SEGMENTS);
    Case::of(MOST_SEGMENTS, bytes, move |bytes| {
        let mut whole = SuperPacket::new(header, bytes).expect("it makes sense");
        let mut count = 0;
        while let Some(segment) = whole.next_segment() {
            black_box(segment);
            count += 1;
        }
        assert_eq!(count, MOST_SEGMENTS);
    })
}

/// A batch's worth of segments into one packet.
fn coalesce() -> Case {
    let mut packets = inner::segments(HERE, THERE, BATCH);
    let mut coalescer = Coalescer::new(true);
    // The first one's headers become those of the whole.
    let head = packets.get(0).expect("the first")[..HEADERS].to_vec();
    Case::of(BATCH, head, move |head| {
        packets.get_mut(0).expect("the first")[..HEADERS].copy_from_slice(head);
        let mut writes = 0;
        coalescer.coalesce(&mut packets, |header, pieces| {
            black_box((header, pieces.map(black_box).count()));
            writes += 1;
        });
        assert_eq!(writes, 1);
    })
}

/// A TSO super-packet all the way through a node, to batches of sealed datagrams.
fn send() -> Case {
    let [mut primary, _] = nodes::up(1);
    let (header, bytes) = inner::super_packet(primary.here, primary.there, MOST_SEGMENTS);
    Case::of(MOST_SEGMENTS, bytes, move |bytes| {
        let mut count = 0;
        primary.send(SuperPacket::new(header, bytes).expect("it makes sense"), |batch| count += black_box(batch).len());
        assert_eq!(count, MOST_SEGMENTS);
    })
}

fn relay_write() -> Case {
    let frame = vec![7; relay::OVERHEAD + SEALED];
    Case::of(1, frame, |frame| relay::write(head(), black_box(frame), &[7; 32]))
}

fn relay_open() -> Case {
    let frame = relay::seal(head(), &[7; SEALED], &[7; 32]);
    Case::of(1, frame, |frame| assert!(black_box(relay::open(black_box(frame), &[7; 32])).is_some()))
}

fn head() -> Head {
    Head { from: Role::Aux(1), to: Role::Primary, by: Role::Aux(1).number(), relayed: false }
}
