//! STUN on the mesh's own socket (RFC 8489): asks several servers what they see of it, and keeps asking so that the mapping stays.
//! What the answers say about the NAT is not here but in [`super::nat`].
//!
//! Only an answer from the address that was asked, with the transaction id that was sent, is believed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytecodec::{DecodeExt, EncodeExt};
use rand::{Rng, RngCore};
use stun_codec::rfc5389::Attribute;
use stun_codec::rfc5389::attributes::{MappedAddress, XorMappedAddress};
use stun_codec::rfc5389::methods::BINDING;
use stun_codec::{Message, MessageClass, MessageDecoder, MessageEncoder, TransactionId};

use super::nat::Sample;
use super::schedule::{Ladder, Schedule};

/// RFC 8489 section 6.2.1 asks for 500 ms and seven tries; a runner's network answers within 100 ms or not at all.
const RETRANSMIT: Ladder = Ladder { front_ms: &[0, 100, 300, 700, 1500], every: None };

/// When a server that has not answered is given up, counted from the first request.
const GIVE_UP: Duration = Duration::from_secs(3);

/// How long the slower servers are waited for once one has answered.
const STRAGGLERS: Duration = Duration::from_millis(400);

/// Linux forgets a mapping without an answer after 30 s; three refreshes fit.
const REFRESH: Duration = Duration::from_secs(10);

/// The least time between two refreshes.
const HASTE: Duration = Duration::from_secs(2);

/// How many servers keep the mapping alive.
const REFRESHED: usize = 2;

#[derive(Debug)]
struct Server {
    addr: SocketAddr,
    transaction: [u8; 12],
    requests: Schedule,
    mapped: Option<SocketAddr>,
    answered: bool,
}

/// Asks, repeats, and believes only what it asked for.
#[derive(Debug)]
pub struct StunClient {
    servers: Vec<Server>,
    started: Instant,
    first_answer: Option<Instant>,
    settled: bool,
    refresh_at: Option<Instant>,
}

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Not an answer to any request of ours.
    Foreign,
    /// An answer that says what was known, or that was the first of its server.
    Same,
    /// This server sees another address than before: the mapping has moved.
    Moved,
}

impl StunClient {
    /// Begins to ask `servers`; their first requests are due at once.
    pub fn new(now: Instant, servers: &[SocketAddr], rng: &mut impl RngCore) -> Self {
        let server = |addr: &SocketAddr| Server {
            addr: *addr,
            transaction: rng.random(),
            requests: Schedule::new(RETRANSMIT, now),
            mapped: None,
            answered: false,
        };
        Self {
            servers: servers.iter().map(server).collect(),
            started: now,
            first_answer: None,
            settled: false,
            refresh_at: None,
        }
    }

    /// Whether a datagram is STUN: first two bits zero and the magic cookie (RFC 8489 section 5).
    pub fn is_stun(datagram: &[u8]) -> bool {
        datagram.len() >= 20 && datagram[0] & 0xc0 == 0 && datagram[4..8] == [0x21, 0x12, 0xa4, 0x42]
    }

    /// A request that is due, and whom it is for.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        let mut waiting = self.servers.iter_mut().filter(|server| !server.answered);
        waiting.find_map(|server| server.requests.take(now).then(|| (server.addr, request(server.transaction))))
    }

    /// Takes an answer.
    pub fn handle_response(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Answer {
        let Some((transaction, mapped)) = parse_response(datagram) else { return Answer::Foreign };
        let asked = |server: &&mut Server| server.addr == from && server.transaction == transaction && !server.answered;
        let Some(server) = self.servers.iter_mut().find(asked) else { return Answer::Foreign };
        server.answered = true;
        self.first_answer.get_or_insert(now);
        match server.mapped.replace(mapped) {
            Some(before) if before != mapped => Answer::Moved,
            _ => Answer::Same,
        }
    }

    /// Asks the servers again now, unless they have just been asked: the mapping may have moved.
    pub fn hasten(&mut self, now: Instant) {
        if let Some(at) = self.refresh_at.filter(|at| *at - now <= REFRESH - HASTE) {
            self.refresh_at = Some(at.min(now));
        }
    }

    /// Whether the first round is over: everyone answered, or the rest had its time. From then on the mapping is refreshed.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut impl RngCore) -> bool {
        if !self.settled && self.settle_at().is_none_or(|at| at <= now) {
            self.settled = true;
            self.refresh_at = Some(now + REFRESH);
        }
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh(now, rng);
        }
        self.settled
    }

    /// When [`Self::handle_timeout`] or [`Self::poll_transmit`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let requests =
            self.servers.iter().filter(|server| !server.answered).filter_map(|server| server.requests.next());
        let settle = (!self.settled).then(|| self.settle_at().unwrap_or(self.started));
        requests.chain(settle).chain(self.refresh_at).min()
    }

    /// What each server saw, in the order the servers were given.
    pub fn samples(&self) -> Vec<Sample> {
        let sample = |server: &Server| Some(Sample { server: server.addr, mapped: server.mapped?, local: 0 });
        self.servers.iter().filter_map(sample).collect()
    }

    /// Every address that some server saw, each once, in the servers' order.
    pub fn reflexive(&self) -> Vec<SocketAddr> {
        let mut seen = vec![];
        for mapped in self.servers.iter().filter_map(|server| server.mapped) {
            if !seen.contains(&mapped) {
                seen.push(mapped);
            }
        }
        seen
    }

    /// `None` when nothing is left to wait for.
    fn settle_at(&self) -> Option<Instant> {
        let waiting = self.servers.iter().any(|server| !server.answered);
        let by = self.first_answer.map_or(self.started + GIVE_UP, |at| at + STRAGGLERS);
        waiting.then_some(by.min(self.started + GIVE_UP))
    }

    fn refresh(&mut self, now: Instant, rng: &mut impl RngCore) {
        self.refresh_at = Some(now + REFRESH);
        for server in self.servers.iter_mut().filter(|server| server.mapped.is_some()).take(REFRESHED) {
            server.transaction = rng.random();
            server.requests = Schedule::new(RETRANSMIT, now);
            server.answered = false;
        }
    }
}

/// A Binding request without attributes.
fn request(transaction: [u8; 12]) -> Vec<u8> {
    let message = Message::<Attribute>::new(MessageClass::Request, BINDING, TransactionId::new(transaction));
    MessageEncoder::new().encode_into_bytes(message).expect("a message without attributes always encodes")
}

/// The transaction id and the mapped address of a Binding success response. MAPPED-ADDRESS is what servers of RFC 3489 send.
fn parse_response(datagram: &[u8]) -> Option<([u8; 12], SocketAddr)> {
    let message = MessageDecoder::<Attribute>::new().decode_from_bytes(datagram).ok()?.ok()?;
    if message.class() != MessageClass::SuccessResponse || message.method() != BINDING {
        return None;
    }
    let mapped = message
        .get_attribute::<XorMappedAddress>()
        .map(XorMappedAddress::address)
        .or_else(|| message.get_attribute::<MappedAddress>().map(MappedAddress::address))?;
    Some((*message.transaction_id().as_bytes(), mapped))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn client(now: Instant) -> (StunClient, ChaCha20Rng) {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        (StunClient::new(now, &[addr("192.0.2.1:3478"), addr("192.0.2.2:3478")], &mut rng), rng)
    }

    #[test]
    fn a_request_is_twenty_bytes_with_the_magic_cookie() {
        let bytes = request([7; 12]);
        assert_eq!(bytes[..8], [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
        assert_eq!(bytes[8..], [7; 12]);
        assert!(StunClient::is_stun(&bytes));
    }

    #[test]
    fn it_settles_when_everyone_has_answered() {
        let now = Instant::now();
        let (mut client, mut rng) = client(now);
        while let Some((server, bytes)) = client.poll_transmit(now) {
            assert!(!client.handle_timeout(now, &mut rng));
            assert_eq!(client.handle_response(now, server, &answer(&bytes, "198.51.100.1:1024")), Answer::Same);
        }
        assert!(client.handle_timeout(now, &mut rng));
        assert_eq!(client.samples().len(), 2);
    }

    #[test]
    fn it_settles_without_a_server_that_stays_silent() {
        let now = Instant::now();
        let (mut client, mut rng) = client(now);
        let (server, bytes) = client.poll_transmit(now).expect("due at once");
        client.handle_response(now, server, &answer(&bytes, "198.51.100.1:1024"));
        assert!(!client.handle_timeout(now + ms(399), &mut rng));
        assert!(client.handle_timeout(now + ms(400), &mut rng));
    }

    #[test]
    fn silence_of_all_servers_ends_after_three_seconds() {
        let now = Instant::now();
        let (mut client, mut rng) = client(now);
        assert!(!client.handle_timeout(now + ms(2999), &mut rng));
        assert!(client.handle_timeout(now + ms(3000), &mut rng));
        assert!(client.samples().is_empty());
    }

    #[test]
    fn an_answer_from_elsewhere_or_with_another_transaction_is_foreign() {
        let now = Instant::now();
        let (mut client, _) = client(now);
        let (server, bytes) = client.poll_transmit(now).expect("due at once");
        let good = answer(&bytes, "198.51.100.1:1024");
        assert_eq!(client.handle_response(now, addr("203.0.113.9:3478"), &good), Answer::Foreign);
        let mut forged = good.clone();
        forged[8] ^= 1;
        assert_eq!(client.handle_response(now, server, &forged), Answer::Foreign);
        assert_eq!(client.handle_response(now, server, &bytes), Answer::Foreign, "a request is not an answer");
        assert_eq!(client.handle_response(now, server, &good), Answer::Same);
        assert_eq!(client.handle_response(now, server, &good), Answer::Foreign, "a duplicate says nothing");
    }

    #[test]
    fn a_refresh_that_sees_another_address_says_that_the_mapping_moved() {
        let now = Instant::now();
        let (mut client, mut rng) = client(now);
        while let Some((server, bytes)) = client.poll_transmit(now) {
            client.handle_response(now, server, &answer(&bytes, "198.51.100.1:1024"));
        }
        client.handle_timeout(now, &mut rng);
        let later = now + REFRESH;
        client.handle_timeout(later, &mut rng);
        let (server, bytes) = client.poll_transmit(later).expect("a refresh is due");
        assert_eq!(client.handle_response(later, server, &answer(&bytes, "198.51.100.1:2000")), Answer::Moved);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes: Vec<u8>) {
            let _ = parse_response(&bytes);
            if bytes.len() >= 8 {
                bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
                bytes[..2].copy_from_slice(&[1, 1]);
                let _ = parse_response(&bytes);
            }
        }
    }

    fn answer(request: &[u8], mapped: &str) -> Vec<u8> {
        let transaction: [u8; 12] = request[8..20].try_into().expect("12 bytes");
        let mut message =
            Message::<Attribute>::new(MessageClass::SuccessResponse, BINDING, TransactionId::new(transaction));
        message.add_attribute(XorMappedAddress::new(addr(mapped)));
        MessageEncoder::new().encode_into_bytes(message).expect("it encodes")
    }
}
