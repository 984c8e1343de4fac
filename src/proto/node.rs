//! This process's whole state machine: STUN, relays, peers, and whose a datagram is. It has no clock and no socket: `link` drives it.
//!
//! In: [`Node::handle_datagram`], [`Node::handle_announcement`], [`Node::handle_inner`], [`Node::handle_timeout`].
//! Out, in this order: [`Node::poll_transmit`], [`Node::poll_batch`], [`Node::swap_inner`], [`Node::poll_event`]; then sleep until
//! [`Node::poll_timeout`].
//! The order matters: an announcement promises that its opening datagrams have left.
//!
//! Who becomes a peer is in [`membership`], who of them needs a look in [`peers`], what comes in in [`intake`], who relays in [`relaying`], and
//! what must not go on as it is in [`upkeep`].

mod intake;
mod membership;
mod peers;
mod relaying;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use x25519_dalek::PublicKey;

use self::membership::Wanted;
use self::peers::Peers;
use super::announcement::{Ack, Announcement, Boot};
use super::batch::Bulk;
use super::crossing::Side;
use super::hops::DEFAULT_OPENING_TTL;
use super::key::Secret;
use super::keyring::KeyRing;
use super::nat::Behaviour;
use super::output::{Around, Output, Own};
use super::overlay::Prefix;
use super::packets::Packets;
use super::peer::{Absence, Peer, PeerView};
use super::probe::Farewell;
use super::relay_client::RelayClient;
use super::renewal::Renewal;
use super::reset::Connections;
use super::role::Role;
use super::route::{Relay, SocketId};
use super::stun::StunClient;
use super::transmit::{Event, Transmit};
use super::tunnel::HandshakeLimit;

/// How often boringtun's timers are driven. It measures its sessions' age by these calls.
const TICK: Duration = Duration::from_millis(250);

/// How long the first opening waits to be told how far it may travel, should nobody ever tell.
const MEASURING: Duration = Duration::from_millis(500);

/// How often handshakes are counted anew.
const LIMIT_RESET: Duration = Duration::from_secs(1);

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who we are.
    pub role: Role,
    /// The run's keys.
    pub keys: KeyRing,
    /// Our WireGuard static key, fresh for this process.
    pub secret: Secret,
    /// The seed of everything random.
    pub seed: Secret,
    /// The overlay.
    pub overlay: Prefix,
    /// How many compile jobs we run at once.
    pub slots: u16,
    /// The engine a primary asks its aux for.
    pub offload: Option<String>,
    /// The TCP port that aux serve jobs on. A job can run elsewhere, so its connection is reset as soon as its peer is silent; others wait.
    pub job_port: u16,
    /// Own interfaces' addresses with the sockets' ports.
    pub hosts: Vec<SocketAddr>,
    /// STUN servers, resolved.
    pub stun: Vec<SocketAddr>,
    /// Relays of the user's own, resolved.
    pub relays: Vec<SocketAddr>,
}

/// The state machine. One for each process.
#[derive(Debug)]
pub struct Node {
    config: Config,
    public: PublicKey,
    boot: Boot,
    rng: ChaCha20Rng,
    own: Own,
    stun: StunClient,
    relays: Vec<RelayClient>,
    limit: HandshakeLimit,
    peers: Peers,
    /// Announcements read before our own addresses were known.
    early: BTreeMap<Role, (Announcement, u64)>,
    /// Other aux that something is to be sent to, and that the primary is asked for.
    wanted: BTreeMap<Role, Wanted>,
    connections: Connections,
    /// Peers that are away, as far as connections to them have been reset.
    away: BTreeMap<Role, Absence>,
    settled: bool,
    closing: bool,
    seq: u32,
    /// The acknowledgements in our newest announcement, and when it was made.
    acked: Vec<Ack>,
    published_at: Option<Instant>,
    renewal: Renewal,
    /// A fresh socket is asked for and not there yet.
    rebinding: bool,
    /// Other aux are looked for, as the primary is out of reach.
    stranded: bool,
    /// Whether it was told that a peer may have moved.
    doubtful: bool,
    reflexive: Vec<SocketAddr>,
    /// How far opening datagrams travel, where that was measured.
    measured_ttl: Option<u8>,
    /// Until when the first of them wait for that.
    measuring: Option<Instant>,
    /// Who can relay, as peers were last told.
    able: BTreeSet<Relay>,
    /// Datagrams that we have passed on, and the bytes in them.
    relayed: (u64, u64),
    next_tick: Instant,
    next_limit_reset: Instant,
    dropped: BTreeMap<&'static str, u64>,
    out: Output,
}

impl Node {
    /// A node that begins to ask its STUN servers and to register with its relays.
    pub fn new(now: Instant, config: Config) -> Self {
        let public = PublicKey::from(&config.secret.to_static());
        let mut rng = ChaCha20Rng::from_seed(config.seed.0);
        let local = config.hosts.first().map_or(0, SocketAddr::port);
        let stun = StunClient::new(now, &config.stun, local, &mut rng);
        let relays = relaying::clients(now, &config, &mut rng);
        let own = Own {
            role: config.role,
            epoch: 1,
            opening_ttl: DEFAULT_OPENING_TTL,
            nat: Behaviour::default(),
            side: Side::Blocked,
            candidates: vec![],
        };
        Self {
            public,
            boot: Boot::draw(&mut rng),
            rng,
            own,
            stun,
            relays,
            limit: HandshakeLimit::new(&public),
            peers: Peers::default(),
            early: BTreeMap::new(),
            wanted: BTreeMap::new(),
            connections: Connections::new(config.job_port),
            away: BTreeMap::new(),
            settled: false,
            closing: false,
            seq: 0,
            acked: vec![],
            published_at: None,
            renewal: Renewal::default(),
            rebinding: false,
            stranded: false,
            doubtful: false,
            reflexive: vec![],
            measured_ttl: None,
            measuring: Some(now + MEASURING),
            able: BTreeSet::new(),
            relayed: (0, 0),
            next_tick: now + TICK,
            next_limit_reset: now + LIMIT_RESET,
            dropped: BTreeMap::new(),
            out: Output::default(),
            config,
        }
    }

    /// Which process we are.
    pub fn boot(&self) -> Boot {
        self.boot
    }

    /// Which set of our addresses is the current one.
    pub fn epoch(&self) -> u32 {
        self.own.epoch
    }

    /// How far opening datagrams travel, as `link::hops` found out; `None` where no router tells. The first of them wait for this: one that
    /// travels as far as the peer's NAT may spoil its mapping for everyone.
    pub fn handle_hops(&mut self, now: Instant, ttl: Option<u8>) {
        self.measuring = None;
        if let Some(ttl) = ttl {
            (self.measured_ttl, self.own.opening_ttl) = (Some(ttl), ttl);
        }
        self.handle_timeout(now);
    }

    /// Takes what has come due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.rebinding {
            return;
        }
        self.ask(now);
        self.measuring = self.measuring.filter(|until| *until > now);
        if self.stun.handle_timeout(now, &mut self.rng) && !self.settled && self.measuring.is_none() {
            self.settle(now);
        }
        if self.next_limit_reset <= now {
            self.next_limit_reset = now + LIMIT_RESET;
            self.limit.reset();
        }
        self.update_relays(now, &self.peers.touched());
        let driven = self.drive_peers(now);
        self.update_relays(now, &driven);
        self.watch(now);
    }

    /// A fresh socket is there, with these addresses; or the old one again, where there is no other.
    pub fn handle_rebound(&mut self, now: Instant, hosts: Vec<SocketAddr>) {
        self.rebinding = false;
        let local = hosts.first().map_or(0, SocketAddr::port);
        self.stun = StunClient::new(now, &self.config.stun, local, &mut self.rng);
        self.relays.iter_mut().for_each(|relay| relay.restart(now));
        self.config.hosts = hosts;
        self.handle_timeout(now);
    }

    /// A datagram for one of the sockets.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if self.out.transmits.is_empty() {
            self.frame_relayed();
        }
        self.out.transmits.pop_front()
    }

    /// Bulk for one of the sockets, to be given back to [`Self::recycle`] when it was sent.
    pub fn poll_batch(&mut self) -> Option<Bulk> {
        while let Some(mut batch) = self.out.batches.pop() {
            if let Some((socket, to)) = self.address(&mut batch) {
                return Some(Bulk { socket, to, batch });
            }
            self.drop_one("datagram whose relay is out of reach");
            self.out.batches.recycle(batch);
        }
        None
    }

    /// The system found a batch for a peer too long: an interface on the way is narrower than it was.
    pub fn handle_too_long(&mut self, now: Instant, to: Role) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.handle_too_long(now);
        }
    }

    /// What was sent, for its buffer.
    pub fn recycle(&mut self, bulk: Bulk) {
        self.out.batches.recycle(bulk.batch);
    }

    /// How many bytes of inner packets wait for the TUN device.
    pub fn inner_bytes(&self) -> usize {
        self.out.inner.bytes()
    }

    /// The inner packets for the TUN device, in exchange for an empty list.
    pub fn swap_inner(&mut self, empty: &mut Packets) {
        empty.clear();
        std::mem::swap(&mut self.out.inner, empty);
    }

    /// A notice.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.rebinding {
            return None;
        }
        let tick = (!self.peers.is_empty()).then_some(self.next_tick.min(self.next_limit_reset));
        let relays = self.relays.iter().map(RelayClient::poll_timeout);
        let others = [self.peers.poll_timeout(), tick, self.stun.poll_timeout(), self.watch_timeout()];
        relays.chain(others.into_iter().flatten()).chain(self.measuring).min()
    }

    /// Says goodbye to every peer and asks for a closing announcement, for those that come later.
    pub fn close(&mut self, now: Instant, farewell: Farewell) {
        self.closing = true;
        for peer in self.peers.values_mut() {
            peer.say_goodbye(now, farewell);
        }
        if self.settled {
            self.publish(now);
        }
        self.handle_timeout(now);
    }

    /// Whether everybody has heard our goodbye, or was told often enough.
    pub fn is_closed(&self) -> bool {
        self.closing && self.peers.values().all(Peer::has_said_goodbye)
    }

    /// The peers, in the order of their roles.
    pub fn peers(&self, now: Instant) -> Vec<PeerView> {
        self.peers.values().map(|peer| peer.view(now, &self.own)).collect()
    }

    /// Where we may be reached, as far as is known.
    pub fn candidates(&self) -> impl Iterator<Item = SocketAddr> {
        self.own.candidates.iter().map(|candidate| candidate.addr)
    }

    /// What is known of our NAT.
    pub fn nat(&self) -> Behaviour {
        self.own.nat
    }

    /// Each relay of the user's own, and whether we are registered with it.
    pub fn relays(&self) -> impl Iterator<Item = (SocketAddr, bool)> {
        self.relays.iter().map(|relay| (relay.server(), relay.is_registered()))
    }

    /// How many datagrams we have passed on for others, and the bytes in them.
    pub fn relayed(&self) -> (u64, u64) {
        self.relayed
    }

    /// How often our NAT's mapping has moved, as STUN servers see it.
    pub fn moves(&self) -> u32 {
        self.renewal.moves()
    }

    /// What was dropped, by cause.
    pub fn dropped(&self) -> &BTreeMap<&'static str, u64> {
        &self.dropped
    }

    /// Whether the driver must keep `socket`, beyond the main one and its twin.
    pub fn uses(&self, socket: SocketId) -> bool {
        self.peers.values().any(|peer| peer.uses(socket))
    }

    fn drop_one(&mut self, cause: &'static str) {
        self.drop_many(cause, 1);
    }

    fn drop_many(&mut self, cause: &'static str, count: u64) {
        if count > 0 {
            *self.dropped.entry(cause).or_default() += count;
            tracing::trace!(cause, count, "dropped");
        }
    }

    /// A peer, and what its inputs take along.
    fn peer(&mut self, role: Role) -> Option<(&mut Peer, Around<'_>)> {
        let Self { peers, own, rng, out, .. } = self;
        Some((peers.get_mut(&role)?, Around { own, rng, out }))
    }
}
