//! What STUN servers and those who play them send: to the client that keeps the mapping, and to the filtering test of `mesh doctor`.
//!
//! Input: 0 or 1 (client or filtering test), then steps, each of one byte and what it asks for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytecodec::EncodeExt;
use mesh::proto::filtering::{Filtering, FilteringTest};
use mesh::proto::route::SocketId;
use mesh::proto::stun::{Answer, StunClient};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use stun_codec::rfc5389::attributes::{ErrorCode, MappedAddress, Software, XorMappedAddress};
use stun_codec::rfc5389::methods::BINDING;
use stun_codec::rfc5780::attributes::{OtherAddress, ResponseOrigin};
use stun_codec::{Attribute, Message, MessageClass, MessageEncoder, TransactionId};

use super::input::{Input, piece};

const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Requests that are still remembered, and so can be answered.
const REMEMBERED: usize = 8;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.byte() & 1 == 0 { client(&mut input) } else { filtering(&mut input) }
}

fn client(input: &mut Input<'_>) {
    let mut story = Story::new();
    story.pass(Duration::ZERO);
    while !input.is_empty() {
        match input.byte() % 6 {
            0 => story.pass(Duration::from_millis(u64::from(input.byte()) * 20)),
            1 => story.client.hasten(story.now),
            2 => {
                story.take(servers()[usize::from(input.byte()) % 3], input.piece());
            }
            3 => story.take_from_a_stranger(input),
            _ => story.answer(input),
        }
    }
}

/// A client, and what it has asked.
struct Story {
    client: StunClient,
    rng: ChaCha20Rng,
    now: Instant,
    asked: Vec<(SocketAddr, Vec<u8>)>,
}

impl Story {
    fn new() -> Self {
        let (now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
        Self { client: StunClient::new(now, &servers(), 7, &mut rng), rng, now, asked: vec![] }
    }

    /// As the node drives it: what is due is taken until nothing is due at this moment.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        for _ in 0..3 {
            while let Some((_, to, request)) = self.client.poll_transmit(self.now) {
                assert!(servers().contains(&to) && request.len() == HEADER && StunClient::is_stun(&request));
                self.asked.push((to, request));
            }
            self.client.handle_timeout(self.now, &mut self.rng);
        }
        let waits = self.client.poll_timeout().is_none_or(|at| at > self.now);
        assert!(waits, "something stays due, so a driver would spin");
        self.asked.drain(..self.asked.len().saturating_sub(REMEMBERED));
    }

    fn take(&mut self, from: SocketAddr, datagram: &[u8]) -> Answer {
        let before = self.client.samples();
        let answer = self.client.handle_response(self.now, SocketId::MAIN, from, datagram);
        let after = self.client.samples();
        match answer {
            Answer::Foreign => assert_eq!(before, after, "what is foreign changes nothing"),
            Answer::Same | Answer::Moved => assert!(after.iter().any(|sample| sample.server == from)),
        }
        assert!(self.client.reflexive().len() <= after.len() && after.len() <= servers().len());
        answer
    }

    fn take_from_a_stranger(&mut self, input: &mut Input<'_>) {
        let request = self.recent(input).1;
        let datagram = response(&request, input.piece());
        assert_eq!(self.take(SocketAddr::from(([203, 0, 113, 9], 3478)), &datagram), Answer::Foreign);
    }

    /// From whom it was asked and with the right transaction id; the attributes are arbitrary.
    fn answer(&mut self, input: &mut Input<'_>) {
        let (server, request) = self.recent(input);
        let datagram = response(&request, input.piece());
        self.take(server, &datagram);
    }

    fn recent(&self, input: &mut Input<'_>) -> (SocketAddr, Vec<u8>) {
        let back = usize::from(input.byte()) % self.asked.len();
        self.asked[self.asked.len() - 1 - back].clone()
    }
}

fn filtering(input: &mut Input<'_>) {
    let mut test = FilteringTest::new(servers()[0], &mut ChaCha20Rng::seed_from_u64(1));
    let questions = test.questions();
    let mut open = questions.len();
    while !input.is_empty() {
        let which = usize::from(input.byte());
        let datagram = match questions.get(which % 4) {
            Some((_, question)) => response(question, input.piece()),
            None => input.piece().to_vec(),
        };
        test.handle_response(&datagram);
        let still = test.questions().len();
        assert!(still <= open && test.is_done() == (still == 0));
        assert!(still < questions.len() || test.verdict() == Filtering::Unknown, "silence says nothing by itself");
        open = still;
    }
}

/// A success response to `request` with these attributes.
fn response(request: &[u8], attributes: &[u8]) -> Vec<u8> {
    let len = attributes.len() as u16;
    [&[1, 1], &len.to_be_bytes()[..], &COOKIE, &request[8..HEADER], attributes].concat()
}

fn servers() -> [SocketAddr; 3] {
    [([192, 0, 2, 1], 3478), ([192, 0, 2, 1], 3479), ([192, 0, 2, 2], 3478)].map(SocketAddr::from)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let (later, hasten) = ([0, 10], [1]);
    let answer = |back: u8, attributes: &[u8]| [&[4, back], &piece(attributes)[..]].concat();
    let here = xor_mapped(([198, 51, 100, 1], 1024));
    let all = |attributes: &[u8]| [answer(0, attributes), answer(1, attributes), answer(2, attributes)].concat();
    let refresh = [[0, 250], [0, 250], later].concat();
    let moved = [all(&here), refresh.clone(), answer(0, &xor_mapped(([198, 51, 100, 1], 2000)))].concat();
    let clients = [
        all(&here),
        all(&mapped(([198, 51, 100, 1], 1024))),
        all(&xor_mapped(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 1024))),
        all(&coturn()),
        answer(0, &error()),
        moved,
        [all(&here), refresh, hasten.to_vec(), later.to_vec()].concat(),
        [&[2, 0][..], &piece(&rfc5769())].concat(),
        [&[3, 0][..], &piece(&here)].concat(),
    ];
    let verdicts = [
        [&[0][..], &piece(&coturn()), &[1], &piece(&coturn()), &[2], &piece(&coturn())].concat(),
        [&[0][..], &piece(&other_address())].concat(),
        [&[3][..], &piece(&rfc5769())].concat(),
    ];
    let client = clients.into_iter().map(|steps| [&[0][..], &steps].concat());
    client.chain(verdicts.into_iter().map(|steps| [&[1][..], &steps].concat())).collect()
}

/// The attributes of a message, as bytes.
fn attributes<A: Attribute>(class: MessageClass, of: Vec<A>) -> Vec<u8> {
    let mut message = Message::<A>::new(class, BINDING, TransactionId::new(first_transaction()));
    of.into_iter().for_each(|attribute| message.add_attribute(attribute));
    MessageEncoder::new().encode_into_bytes(message).expect("it encodes").split_off(HEADER)
}

/// What an address is XORed with: an answer to the newest request is then one that was meant.
fn first_transaction() -> [u8; 12] {
    let mut story = Story::new();
    story.pass(Duration::ZERO);
    let (_, request) = &story.asked[story.asked.len() - 1];
    request[8..HEADER].try_into().expect("12 bytes")
}

fn xor_mapped(addr: impl Into<SocketAddr>) -> Vec<u8> {
    attributes::<stun_codec::rfc5389::Attribute>(
        MessageClass::SuccessResponse,
        vec![XorMappedAddress::new(addr.into()).into()],
    )
}

fn mapped(addr: impl Into<SocketAddr>) -> Vec<u8> {
    attributes::<stun_codec::rfc5389::Attribute>(
        MessageClass::SuccessResponse,
        vec![MappedAddress::new(addr.into()).into()],
    )
}

fn error() -> Vec<u8> {
    let attribute = ErrorCode::new(420, "Unknown Attribute".into()).expect("a code of RFC 8489");
    attributes::<stun_codec::rfc5389::Attribute>(MessageClass::ErrorResponse, vec![attribute.into()])
}

fn other_address() -> Vec<u8> {
    let other = OtherAddress::new(servers()[2]).into();
    attributes::<stun_codec::rfc5780::Attribute>(MessageClass::SuccessResponse, vec![other])
}

/// The attributes that a coturn sends, in its order.
fn coturn() -> Vec<u8> {
    let here = SocketAddr::from(([198, 51, 100, 1], 1024));
    let origin = ResponseOrigin::new(servers()[0]).into();
    let software = Software::new("Coturn-4.6.1 'Gorst'".into()).expect("short");
    [
        xor_mapped(here),
        mapped(here),
        attributes::<stun_codec::rfc5780::Attribute>(MessageClass::SuccessResponse, vec![origin]),
        other_address(),
        attributes::<stun_codec::rfc5389::Attribute>(MessageClass::SuccessResponse, vec![software.into()]),
    ]
    .concat()
}

/// The sample response of RFC 5769 section 2.2, with SOFTWARE, MESSAGE-INTEGRITY and FINGERPRINT.
fn rfc5769() -> Vec<u8> {
    let head = [&[1, 1, 0, 0x3c], &COOKIE[..], &[0xb7, 0xe7, 0xa7, 1, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]];
    let software = [&[0x80, 0x22, 0, 11], &b"test vector "[..]].concat();
    let mapped = [0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
    let integrity = [
        0, 8, 0, 0x14, 0x2b, 0x91, 0xf5, 0x99, 0xfd, 0x9e, 0x90, 0xc3, 0x8c, 0x74, 0x89, 0xf9, 0x2a, 0xf9, 0xba, 0x53,
        0xf0, 0x6b, 0xe7, 0xd7,
    ];
    let fingerprint = [0x80, 0x28, 0, 4, 0xc0, 0x7d, 0x4c, 0x96];
    [&head.concat()[..], &software, &mapped, &integrity, &fingerprint].concat()
}
