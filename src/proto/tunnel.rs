//! One peer's WireGuard session. The only file that names boringtun; which address a datagram goes to is not here but in
//! [`super::path`].
//!
//! **The written exception to the rule of `proto`**: boringtun reads the time and draws its ephemeral keys by itself.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use blake2::digest::consts::U16;
use blake2::digest::{Digest, FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac};
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use x25519_dalek::{PublicKey, StaticSecret};

use super::packets::Packets;

/// What WireGuard adds to an inner packet: 16 of header, 16 of tag.
const OVERHEAD: usize = 32;

/// No IPv4 packet is longer. The MTU is no bound: whoever is root here can raise it.
const LONGEST_INNER: usize = u16::MAX as usize;

/// boringtun writes handshakes of up to 148 bytes whatever the length of the input.
const LEAST_BUFFER: usize = 148;

/// Keeps a session fresh when nothing is sent, so that the first packet after a pause waits for no handshake. The NAT is kept open by
/// probes, which come more often.
const PERSISTENT_KEEPALIVE_SECS: u16 = 25;

/// Handshakes that one process takes a second before it asks for cookies (WireGuard paper 5.3). Every peer may restart at once.
const HANDSHAKES_PER_SECOND: u64 = 1000;

/// Shared by all sessions of a process, as boringtun counts handshakes over all of them.
#[derive(Clone)]
pub struct HandshakeLimit(Arc<RateLimiter>);

impl HandshakeLimit {
    /// For the process whose static public key is `own`.
    pub fn new(own: &PublicKey) -> Self {
        Self(Arc::new(RateLimiter::new(own, HANDSHAKES_PER_SECOND)))
    }

    /// To be called once a second.
    pub fn reset(&self) {
        self.0.reset_count();
    }
}

impl fmt::Debug for HandshakeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandshakeLimit(..)")
    }
}

/// Whom an incoming WireGuard message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressee {
    /// The session that gave out this index.
    Session(u32),
    /// Whoever has this static key: a handshake initiation.
    Key(PublicKey),
}

/// Whether a datagram is of WireGuard: a type of 1 to 4 and three zero bytes (WireGuard paper 5.4).
pub fn is_wireguard(datagram: &[u8]) -> bool {
    datagram.len() >= OVERHEAD && (1..=4).contains(&datagram[0]) && datagram[1..4] == [0; 3]
}

/// The session that a transport message is for; `None` for every other datagram. What [`addressee`] tells, with less to be looked at.
pub fn session(datagram: &[u8]) -> Option<u32> {
    match datagram.first_chunk::<8>()? {
        // 24 bits behind one that counts handshakes.
        [4, 0, 0, 0, _, a, b, c] if datagram.len() >= OVERHEAD => Some(u32::from_le_bytes([*a, *b, *c, 0])),
        _ => None,
    }
}

/// Whether a WireGuard message begins a handshake.
pub fn is_initiation(datagram: &[u8]) -> bool {
    datagram.first() == Some(&1)
}

/// Where a handshake message's first MAC is: the last 32 bytes are the two of them (WireGuard paper 5.4.4).
const MACS: usize = 32;
const MAC1: usize = 16;

/// Whether whoever sent this initiation knows our public key, which only announcements tell. It costs a microsecond, where reading the
/// initiation costs sixty: without this a stranger with 15,000 datagrams a second would use up a core.
fn is_for(public: &PublicKey, initiation: &[u8]) -> bool {
    let Some((covered, macs)) = initiation.split_last_chunk::<MACS>() else { return false };
    let key = Blake2s256::new().chain(b"mac1----").chain(public.as_bytes()).finalize();
    let Ok(mac) = <Blake2sMac<U16> as KeyInit>::new_from_slice(&key) else { return false };
    mac.chain(covered).finalize_fixed()[..] == macs[..MAC1]
}

/// Reads whom a WireGuard message is for; an initiation costs two X25519 operations, and the secret. `None` for a malformed message, and for
/// an initiation by somebody who does not know us.
pub fn addressee(datagram: &[u8], secret: impl FnOnce() -> StaticSecret, public: &PublicKey) -> Option<Addressee> {
    match Tunn::parse_incoming_packet(datagram).ok()? {
        Packet::HandshakeInit(_) if !is_for(public, datagram) => None,
        Packet::HandshakeInit(init) => {
            let half = parse_handshake_anon(&secret(), public, &init).ok()?;
            Some(Addressee::Key(PublicKey::from(half.peer_static_public)))
        }
        Packet::HandshakeResponse(packet) => Some(Addressee::Session(packet.receiver_idx >> 8)),
        Packet::PacketCookieReply(packet) => Some(Addressee::Session(packet.receiver_idx >> 8)),
        Packet::PacketData(packet) => Some(Addressee::Session(packet.receiver_idx >> 8)),
    }
}

/// What came out of a datagram.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Whether the peer is proven to have sent it inside the tunnel: a transport message that decrypted.
    pub authentic: bool,
    /// The length of the inner packet, if it carried one. It lies in the room of the packets that were passed along, to be kept or not.
    pub inner: Option<usize>,
    /// What must be sent back: a handshake response, a keepalive, packets that waited for the session.
    pub replies: Vec<Vec<u8>>,
}

/// One peer's session: handshakes, keys, replay window and timers, all inside boringtun.
pub struct Tunnel {
    tunn: Tunn,
    index: u32,
}

impl Tunnel {
    /// With `index` of 24 random bits, unique in this process: it appears in clear in every message to us.
    pub fn new(
        secret: &StaticSecret,
        peer: &PublicKey,
        preshared: [u8; 32],
        index: u32,
        limit: &HandshakeLimit,
    ) -> Self {
        let keepalive = Some(PERSISTENT_KEEPALIVE_SECS);
        let tunn = Tunn::new(secret.clone(), *peer, Some(preshared), keepalive, index, Some(limit.0.clone()));
        Self { tunn, index }
    }

    /// The index that messages to this session carry.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// A fresh handshake initiation.
    pub fn initiate(&mut self) -> Option<Vec<u8>> {
        // A session is stamped with a time that only update_timers advances: without this it could be born expired.
        let _ = self.tick();
        let mut buffer = vec![0; LEAST_BUFFER];
        to_network(self.tunn.format_handshake_initiation(&mut buffer, true))
    }

    /// Room for what [`Self::seal`] makes of an inner packet of `len` bytes.
    pub fn sealed_len(len: usize) -> usize {
        (len + OVERHEAD).max(LEAST_BUFFER)
    }

    /// Writes an inner packet as a transport message, and returns its length; empty is a keepalive. Without a session boringtun keeps the
    /// packet, and what comes out is at most an initiation. `None` where nothing is to be sent, or the buffer is shorter than
    /// [`Self::sealed_len`].
    pub fn seal(&mut self, inner: &[u8], buffer: &mut [u8]) -> Option<usize> {
        if inner.len() > LONGEST_INNER || buffer.len() < Self::sealed_len(inner.len()) {
            return None;
        }
        match self.tunn.encapsulate(inner, buffer) {
            TunnResult::WriteToNetwork(datagram) => Some(datagram.len()),
            _ => None,
        }
    }

    /// A transport message that carries nothing.
    pub fn keepalive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; LEAST_BUFFER];
        let len = self.seal(&[], &mut buffer)?;
        buffer.truncate(len);
        Some(buffer)
    }

    /// Takes a datagram that came from `from`. What is inside is written behind `packets`.
    pub fn open(&mut self, from: IpAddr, datagram: &[u8], packets: &mut Packets) -> Opened {
        let transport = datagram.first() == Some(&4);
        if !transport {
            let _ = self.tick();
        }
        let room = packets.room(datagram.len().max(LEAST_BUFFER));
        let mut opened = Opened::default();
        match self.tunn.decapsulate(Some(from), datagram, room) {
            TunnResult::Done => opened.authentic = transport,
            TunnResult::Err(error) => tracing::trace!(?error, "datagram refused"),
            TunnResult::WriteToNetwork(reply) => {
                opened.authentic = transport;
                opened.replies.push(reply.to_vec());
                opened.replies.extend(self.queued());
            }
            TunnResult::WriteToTunnelV4(inner, _) | TunnResult::WriteToTunnelV6(inner, _) => {
                opened.authentic = true;
                opened.inner = Some(inner.len());
            }
        }
        opened
    }

    /// Due every 250 ms: re-keys, keepalives and expiry.
    pub fn tick(&mut self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; LEAST_BUFFER];
        to_network(self.tunn.update_timers(&mut buffer))
    }

    /// Packets that boringtun kept while there was no session, to be asked for after each handshake.
    fn queued(&mut self) -> Vec<Vec<u8>> {
        let mut packets = vec![];
        // boringtun panics where it is too small.
        let mut buffer = vec![0; LONGEST_INNER + OVERHEAD];
        while let TunnResult::WriteToNetwork(packet) = self.tunn.decapsulate(None, &[], &mut buffer) {
            packets.push(packet.to_vec());
        }
        packets
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("index", &self.index).finish_non_exhaustive()
    }
}

fn to_network(result: TunnResult<'_>) -> Option<Vec<u8>> {
    match result {
        TunnResult::WriteToNetwork(datagram) => Some(datagram.to_vec()),
        TunnResult::Err(error) => {
            tracing::trace!(?error, "nothing to send");
            None
        }
        TunnResult::Done | TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn three_messages_make_a_session_that_carries_packets_both_ways() {
        let (mut a, mut b) = pair([5; 32], [5; 32]);
        shake(&mut a, &mut b).expect("a session");
        let packet = inner(b"hello");
        let sealed = sealed(&mut b, &packet).expect("a session");
        let mut packets = Packets::default();
        let opened = a.open(HERE, &sealed, &mut packets);
        assert!(opened.authentic);
        packets.keep(opened.inner.expect("a packet"));
        assert_eq!(packets.get(0), Some(&packet[..]));
    }

    #[test]
    fn a_packet_that_waited_for_the_session_follows_it_whatever_its_length() {
        let (mut a, mut b) = pair([5; 32], [5; 32]);
        let (jumbo, beyond) = (vec![0; usize::from(u16::MAX)], vec![0; usize::from(u16::MAX) + 1]);
        let initiation = sealed(&mut a, &jumbo).expect("an initiation");
        assert_eq!(sealed(&mut a, &beyond), None);
        let response = open(&mut b, &initiation).replies.remove(0);
        let replies = open(&mut a, &response).replies;
        assert_eq!(replies.iter().map(Vec::len).collect::<Vec<_>>(), [OVERHEAD, jumbo.len() + OVERHEAD]);
        assert_eq!(sealed(&mut a, &beyond), None);
    }

    #[test]
    fn a_buffer_that_is_too_short_seals_nothing() {
        let (mut a, mut b) = pair([5; 32], [5; 32]);
        shake(&mut a, &mut b).expect("a session");
        assert_eq!(b.seal(&[0; 1000], &mut [0; 1031]), None);
        assert_eq!(b.seal(&[0; 1000], &mut [0; 1032]), Some(1032));
    }

    #[test]
    fn another_preshared_key_makes_no_session() {
        let (mut a, mut b) = pair([5; 32], [6; 32]);
        assert_eq!(shake(&mut a, &mut b), None);
    }

    #[test]
    fn an_initiation_is_routed_by_its_static_key_and_the_rest_by_index() {
        let (mut a, mut b) = pair([5; 32], [5; 32]);
        let (secret_b, public_b) = (StaticSecret::from([2; 32]), PublicKey::from(&StaticSecret::from([2; 32])));
        let initiation = a.initiate().expect("an initiation");
        let public_a = PublicKey::from(&StaticSecret::from([1; 32]));
        assert_eq!(addressee(&initiation, || secret_b.clone(), &public_b), Some(Addressee::Key(public_a)));
        let response = open(&mut b, &initiation).replies.remove(0);
        assert_eq!(addressee(&response, || secret_b.clone(), &public_b), Some(Addressee::Session(11)));
        open(&mut a, &response);
        let keepalive = a.keepalive().expect("a session");
        assert_eq!(addressee(&keepalive, || secret_b.clone(), &public_b), session(&keepalive).map(Addressee::Session));
        assert_eq!((session(&keepalive), session(&response)), (Some(22), None));
    }

    #[test]
    fn an_initiation_by_somebody_who_does_not_know_our_key_is_not_even_read() {
        let (mut a, _) = pair([5; 32], [5; 32]);
        let mut initiation = a.initiate().expect("an initiation");
        let public = |secret: u8| PublicKey::from(&StaticSecret::from([secret; 32]));
        let unread = || panic!("it is read");
        assert_eq!(addressee(&initiation, unread, &public(3)), None, "it is for somebody else");
        initiation[40] ^= 1;
        assert_eq!(addressee(&initiation, unread, &public(2)), None, "altered");
        assert_eq!(addressee(&[&[1, 0, 0, 0], &[7; 144][..]].concat(), unread, &public(2)), None, "made up");
    }

    #[test]
    fn a_replayed_or_altered_message_is_not_authentic() {
        let (mut a, mut b) = pair([5; 32], [5; 32]);
        shake(&mut a, &mut b).expect("a session");
        let mut sealed = sealed(&mut b, &inner(b"x")).expect("a session");
        assert!(open(&mut a, &sealed).authentic);
        assert!(!open(&mut a, &sealed).authentic, "a replay");
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        assert!(!open(&mut a, &sealed).authentic, "altered");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 1u8..=4) {
            let (mut a, _) = pair([5; 32], [5; 32]);
            let (secret, public) = (StaticSecret::from([1; 32]), PublicKey::from(&StaticSecret::from([1; 32])));
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
            }
            let _ = is_wireguard(&bytes);
            let _ = addressee(&bytes, || secret, &public);
            if !bytes.is_empty() {
                prop_assert!(!open(&mut a, &bytes).authentic);
            }
        }
    }

    fn pair(psk_a: [u8; 32], psk_b: [u8; 32]) -> (Tunnel, Tunnel) {
        let (a, b) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
        let (pa, pb) = (PublicKey::from(&a), PublicKey::from(&b));
        let limit = HandshakeLimit::new(&pa);
        let other = HandshakeLimit::new(&pb);
        (Tunnel::new(&a, &pb, psk_a, 11, &limit), Tunnel::new(&b, &pa, psk_b, 22, &other))
    }

    fn shake(a: &mut Tunnel, b: &mut Tunnel) -> Option<()> {
        let response = open(b, &a.initiate()?).replies.pop()?;
        let confirmation = open(a, &response).replies.pop()?;
        open(b, &confirmation).authentic.then_some(())
    }

    fn open(tunnel: &mut Tunnel, datagram: &[u8]) -> Opened {
        tunnel.open(HERE, datagram, &mut Packets::default())
    }

    fn sealed(tunnel: &mut Tunnel, inner: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = vec![0; Tunnel::sealed_len(inner.len())];
        let len = tunnel.seal(inner, &mut buffer)?;
        Some(buffer[..len].to_vec())
    }

    /// The smallest IPv4 packet boringtun lets through: a header with the right length.
    fn inner(payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[3] = 20 + payload.len() as u8;
        packet[12..20].copy_from_slice(&[10, 77, 0, 2, 10, 77, 0, 1]);
        packet.extend(payload);
        packet
    }
}
