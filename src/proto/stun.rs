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

use super::candidate::Candidate;
use super::nat::Sample;
use super::route::SocketId;
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

/// From how many further sockets servers are asked where the mapping depends on the destination: enough to see how ports are drawn.
const SURVEYED: u16 = 3;

/// A server as asked from one of our sockets.
#[derive(Debug)]
struct Server {
    socket: SocketId,
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
    /// The port of the main socket; 0 where it is not known.
    local: u16,
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
    /// Begins to ask `servers` from the main socket, whose port is `local`; the first requests are due at once.
    pub fn new(now: Instant, servers: &[SocketAddr], local: u16, rng: &mut impl RngCore) -> Self {
        Self {
            servers: servers.iter().map(|addr| Server::new(now, SocketId::MAIN, *addr, rng)).collect(),
            local,
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

    /// Asks from a few more sockets too, since the main one alone shows too few mappings; the round is open again.
    pub fn survey(&mut self, now: Instant, rng: &mut impl RngCore) {
        let answering: Vec<_> =
            self.servers.iter().filter(|server| server.mapped.is_some()).map(|it| it.addr).collect();
        for number in 0..SURVEYED {
            let socket = SocketId(SocketId::FIRST_OF_SPRAY.0 + number);
            self.servers.extend(answering.iter().map(|addr| Server::new(now, socket, *addr, rng)));
        }
        (self.settled, self.started, self.first_answer) = (false, now, None);
    }

    /// Whether more sockets than the main one were asked from.
    pub fn is_surveyed(&self) -> bool {
        self.servers.iter().any(|server| server.socket != SocketId::MAIN)
    }

    /// A request that is due, from which socket, and whom it is for.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(SocketId, SocketAddr, Vec<u8>)> {
        let mut waiting = self.servers.iter_mut().filter(|server| !server.answered);
        waiting.find_map(|server| {
            server.requests.take(now).then(|| (server.socket, server.addr, request(server.transaction)))
        })
    }

    /// Takes an answer that came to `socket`.
    pub fn handle_response(&mut self, now: Instant, socket: SocketId, from: SocketAddr, datagram: &[u8]) -> Answer {
        let Some((transaction, mapped)) = parse_response(datagram) else { return Answer::Foreign };
        if !Candidate::server_reflexive(mapped).is_usable() {
            return Answer::Foreign;
        }
        let asked = |server: &&mut Server| {
            (server.socket, server.addr, server.transaction) == (socket, from, transaction) && !server.answered
        };
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

    /// What each server saw of each socket, in the order in which they were asked.
    pub fn samples(&self) -> Vec<Sample> {
        let local = |socket: SocketId| if socket == SocketId::MAIN { self.local } else { socket.0 };
        let sample =
            |server: &Server| Some(Sample { server: server.addr, mapped: server.mapped?, local: local(server.socket) });
        self.servers.iter().filter_map(sample).collect()
    }

    /// Every address that some server saw of the main socket, each once, in the servers' order.
    pub fn reflexive(&self) -> Vec<SocketAddr> {
        let mut seen = vec![];
        let main = self.servers.iter().filter(|server| server.socket == SocketId::MAIN);
        for mapped in main.filter_map(|server| server.mapped) {
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
        let mut asked: Vec<_> = self.servers.iter_mut().filter(|server| server.socket == SocketId::MAIN).collect();
        // Those that have never answered come last: they may yet tell how our NAT maps, where too few have.
        asked.sort_by_key(|server| server.mapped.is_none());
        for server in asked.into_iter().take(REFRESHED) {
            server.transaction = rng.random();
            server.requests = Schedule::new(RETRANSMIT, now);
            server.answered = false;
        }
    }
}

impl Server {
    fn new(now: Instant, socket: SocketId, addr: SocketAddr, rng: &mut impl RngCore) -> Self {
        let requests = Schedule::new(RETRANSMIT, now);
        Self { socket, addr, transaction: rng.random(), requests, mapped: None, answered: false }
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
        (StunClient::new(now, &[addr("192.0.2.1:3478"), addr("192.0.2.2:3478")], 7, &mut rng), rng)
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
        while let Some((_, server, bytes)) = client.poll_transmit(now) {
            assert!(!client.handle_timeout(now, &mut rng));
            assert_eq!(
                client.handle_response(now, SocketId::MAIN, server, &answer(&bytes, "198.51.100.1:1024")),
                Answer::Same
            );
        }
        assert!(client.handle_timeout(now, &mut rng));
        assert_eq!(client.samples().len(), 2);
    }

    #[test]
    fn it_settles_without_a_server_that_stays_silent() {
        let now = Instant::now();
        let (mut client, mut rng) = client(now);
        let (_, server, bytes) = client.poll_transmit(now).expect("due at once");
        client.handle_response(now, SocketId::MAIN, server, &answer(&bytes, "198.51.100.1:1024"));
        assert!(!client.handle_timeout(now + ms(399), &mut rng));
        assert!(client.handle_timeout(now + ms(400), &mut rng));
    }

    #[test]
    fn an_address_that_nobody_can_have_is_no_answer() {
        let now = Instant::now();
        let (mut client, _) = client(now);
        let (_, server, bytes) = client.poll_transmit(now).expect("due at once");
        for impossible in ["0.0.0.0:7", "239.1.1.1:7", "198.51.100.1:0"] {
            let answer = client.handle_response(now, SocketId::MAIN, server, &answer(&bytes, impossible));
            assert_eq!(answer, Answer::Foreign, "{impossible}");
        }
    }

    #[test]
    fn a_server_that_was_silent_at_first_is_asked_again_where_one_alone_has_answered() {
        let now = Instant::now();
        let (mut client, mut rng) = client(now);
        let (_, one, bytes) = client.poll_transmit(now).expect("due at once");
        client.handle_response(now, SocketId::MAIN, one, &answer(&bytes, "198.51.100.1:1024"));
        while client.poll_transmit(now + ms(3000)).is_some() {}
        client.handle_timeout(now + ms(3000), &mut rng);
        client.handle_timeout(now + ms(3000) + REFRESH, &mut rng);
        let again = std::iter::from_fn(|| client.poll_transmit(now + ms(3000) + REFRESH));
        assert!(again.map(|(_, server, _)| server).any(|server| server != one));
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
        let (_, server, bytes) = client.poll_transmit(now).expect("due at once");
        let good = answer(&bytes, "198.51.100.1:1024");
        assert_eq!(client.handle_response(now, SocketId::MAIN, addr("203.0.113.9:3478"), &good), Answer::Foreign);
        let mut forged = good.clone();
        forged[8] ^= 1;
        assert_eq!(client.handle_response(now, SocketId::MAIN, server, &forged), Answer::Foreign);
        assert_eq!(
            client.handle_response(now, SocketId::MAIN, server, &bytes),
            Answer::Foreign,
            "a request is not an answer"
        );
        assert_eq!(client.handle_response(now, SocketId::MAIN, server, &good), Answer::Same);
        assert_eq!(
            client.handle_response(now, SocketId::MAIN, server, &good),
            Answer::Foreign,
            "a duplicate says nothing"
        );
    }

    #[test]
    fn a_refresh_that_sees_another_address_says_that_the_mapping_moved() {
        let now = Instant::now();
        let (mut client, mut rng) = client(now);
        while let Some((_, server, bytes)) = client.poll_transmit(now) {
            client.handle_response(now, SocketId::MAIN, server, &answer(&bytes, "198.51.100.1:1024"));
        }
        client.handle_timeout(now, &mut rng);
        let later = now + REFRESH;
        client.handle_timeout(later, &mut rng);
        let (_, server, bytes) = client.poll_transmit(later).expect("a refresh is due");
        assert_eq!(
            client.handle_response(later, SocketId::MAIN, server, &answer(&bytes, "198.51.100.1:2000")),
            Answer::Moved
        );
    }

    #[test]
    fn a_survey_asks_the_servers_that_answered_from_three_more_sockets() {
        let now = Instant::now();
        let (mut client, mut rng) = client(now);
        let (_, server, bytes) = client.poll_transmit(now).expect("due at once");
        client.handle_response(now, SocketId::MAIN, server, &answer(&bytes, "198.51.100.1:1024"));
        client.handle_timeout(now + ms(400), &mut rng);
        client.survey(now + ms(400), &mut rng);
        assert!(!client.handle_timeout(now + ms(400), &mut rng));
        let mut asked = vec![];
        while let Some((socket, to, bytes)) = client.poll_transmit(now + ms(400)) {
            if to == server {
                asked.push(socket.0);
                let seen = format!("198.51.100.1:{}", 2000 + socket.0);
                assert_eq!(client.handle_response(now, socket, to, &answer(&bytes, &seen)), Answer::Same);
            }
        }
        assert_eq!(asked, [2, 3, 4]);
        assert_eq!(client.samples().len(), 4);
        assert_eq!(client.reflexive(), [addr("198.51.100.1:1024")]);
        assert!(client.is_surveyed());
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
