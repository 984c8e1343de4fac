//! This process's whole state machine: STUN, peers, and whose a datagram is. It has no clock and no socket: `link` drives it.
//!
//! In: [`Node::handle_datagram`], [`Node::handle_announcement`], [`Node::handle_inner`], [`Node::handle_timeout`].
//! Out, in this order: [`Node::poll_transmit`], [`Node::poll_inner`], [`Node::poll_event`]; then sleep until [`Node::poll_timeout`].
//! The order matters: an announcement promises that its opening datagrams have left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use x25519_dalek::PublicKey;

use super::announcement::{Ack, Announcement, Boot, PROTOCOL, Standing};
use super::candidate::{Candidate, MAX_CANDIDATES};
use super::hops::DEFAULT_OPENING_TTL;
use super::key::{RunKeys, Secret};
use super::keyring::KeyRing;
use super::nat::{self, Mapping};
use super::overlay::Prefix;
use super::peer::{Output, Own, Peer, PeerView, State};
use super::probe::{self, Farewell};
use super::renewal::{self, Renewal};
use super::reset::{self, Connections};
use super::role::Role;
use super::stun::{Answer, StunClient};
use super::transmit::{Event, Transmit};
use super::tunnel::{self, Addressee, HandshakeLimit, Tunnel};

/// How often boringtun's timers are driven. It measures its sessions' age by these calls.
const TICK: Duration = Duration::from_millis(250);

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
    /// Own interfaces' addresses with the socket's port.
    pub hosts: Vec<SocketAddr>,
    /// STUN servers, resolved.
    pub stun: Vec<SocketAddr>,
}

/// The state machine. One for each process.
#[derive(Debug)]
pub struct Node {
    config: Config,
    public: PublicKey,
    boot: Boot,
    rng: ChaCha20Rng,
    stun: StunClient,
    limit: HandshakeLimit,
    peers: BTreeMap<Role, Peer>,
    /// Announcements read before our own addresses were known.
    early: BTreeMap<Role, (Announcement, u64)>,
    connections: Connections,
    /// Peers whose connections have been reset since they were last there.
    lost: BTreeSet<Role>,
    settled: bool,
    closing: bool,
    seq: u32,
    renewal: Renewal,
    /// A fresh socket is asked for and not there yet.
    rebinding: bool,
    reflexive: Vec<SocketAddr>,
    opening_ttl: u8,
    next_tick: Instant,
    next_limit_reset: Instant,
    dropped: BTreeMap<&'static str, u64>,
    out: Output,
}

impl Node {
    /// A node that begins to ask its STUN servers.
    pub fn new(now: Instant, config: Config) -> Self {
        let public = PublicKey::from(&config.secret.to_static());
        let mut rng = ChaCha20Rng::from_seed(config.seed.0);
        let stun = StunClient::new(now, &config.stun, &mut rng);
        Self {
            public,
            boot: Boot::draw(&mut rng),
            rng,
            stun,
            limit: HandshakeLimit::new(&public),
            peers: BTreeMap::new(),
            early: BTreeMap::new(),
            connections: Connections::default(),
            lost: BTreeSet::new(),
            settled: false,
            closing: false,
            seq: 0,
            renewal: Renewal::default(),
            rebinding: false,
            reflexive: vec![],
            opening_ttl: DEFAULT_OPENING_TTL,
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

    /// How far opening datagrams travel, as `link::hops` found out.
    pub fn set_opening_ttl(&mut self, ttl: u8) {
        self.opening_ttl = ttl;
    }

    /// Takes a datagram from the socket. Whatever is not authentic is counted and dropped.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if StunClient::is_stun(datagram) {
            self.handle_stun(now, from, datagram);
        } else if probe::is_probe(datagram) {
            self.handle_probe(now, from, datagram);
        } else if tunnel::is_wireguard(datagram) {
            self.handle_wireguard(now, from, datagram);
        } else {
            self.drop_one("unknown datagram");
        }
    }

    /// Takes an authentic announcement; `born` orders the processes of one role, later ones are greater.
    pub fn handle_announcement(&mut self, now: Instant, announcement: Announcement, born: u64) {
        let role = announcement.role;
        if role == self.config.role || self.config.role != Role::Primary && role != Role::Primary {
            return;
        }
        let early = self.early.get(&role).map(|(known, born)| (known, *born));
        let known = self.peers.get(&role).map(|peer| (&peer.announcement, peer.born)).or(early);
        if known.is_some_and(|known| !is_newer((&announcement, born), known)) {
            return;
        }
        if !self.settled {
            self.early.insert(role, (announcement, born));
            return;
        }
        if announcement.standing == Standing::Closed {
            return self.handle_closed(role, announcement.boot);
        }
        if let Err(why) = self.check(&announcement) {
            return self.out.events.push_back(Event::Unusable { role, why });
        }
        self.admit(now, announcement, born);
        self.handle_timeout(now);
        if self.config.role != Role::Primary {
            self.publish();
        }
    }

    /// Takes an inner packet from the TUN device. What cannot be delivered is answered with a TCP reset, or dropped.
    pub fn handle_inner(&mut self, now: Instant, packet: &[u8]) {
        let role = reset::destination(packet).and_then(|to| self.config.overlay.role_at(to));
        if let Some(peer) = role.and_then(|role| self.peers.get_mut(&role)) {
            if peer.send(now, packet, &mut self.out) {
                return self.connections.note(packet);
            }
            if peer.state == State::Up {
                return self.drop_one("inner packet while its path is repaired");
            }
        }
        match reset::answer(packet) {
            Some(reset) if role.is_some() => self.out.inner.push_back(reset),
            _ => self.drop_one("inner packet for nobody"),
        }
    }

    /// Takes what has come due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.rebinding {
            return;
        }
        while let Some((to, bytes)) = self.stun.poll_transmit(now) {
            self.out.transmits.push_back(Transmit { to, ttl: None, bytes });
        }
        if self.stun.handle_timeout(now, &mut self.rng) && !self.settled {
            self.settle(now);
        }
        if self.next_limit_reset <= now {
            self.next_limit_reset = now + LIMIT_RESET;
            self.limit.reset();
        }
        self.drive_peers(now);
        self.watch_paths(now);
    }

    /// A fresh socket is there, with these addresses; or the old one again, where there is no other.
    pub fn handle_rebound(&mut self, now: Instant, hosts: Vec<SocketAddr>) {
        self.rebinding = false;
        self.config.hosts = hosts;
        self.handle_timeout(now);
    }

    /// A datagram for the socket.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.transmits.pop_front()
    }

    /// An inner packet for the TUN device.
    pub fn poll_inner(&mut self) -> Option<Vec<u8>> {
        self.out.inner.pop_front()
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
        let renewal = self.renewal.poll_timeout().filter(|_| self.settled && !self.closing);
        let peers = self.peers.values().filter_map(Peer::poll_timeout);
        let tick = (!self.peers.is_empty()).then_some(self.next_tick.min(self.next_limit_reset));
        peers.chain(tick).chain(self.stun.poll_timeout()).chain(renewal).min()
    }

    /// Says goodbye to every peer and asks for a closing announcement, for those that come later.
    pub fn close(&mut self, now: Instant, farewell: Farewell) {
        self.closing = true;
        for peer in self.peers.values_mut() {
            peer.say_goodbye(now, farewell);
        }
        if self.settled {
            self.publish();
        }
        self.handle_timeout(now);
    }

    /// Whether everybody has heard our goodbye, or was told often enough.
    pub fn is_closed(&self) -> bool {
        self.closing && self.peers.values().all(Peer::has_said_goodbye)
    }

    /// The peers, in the order of their roles.
    pub fn peers(&self, now: Instant) -> Vec<PeerView> {
        self.peers.values().map(|peer| peer.view(now)).collect()
    }

    /// How our NAT maps and how many egress addresses were seen.
    pub fn network(&self) -> (Mapping, usize) {
        let samples = self.stun.samples();
        (nat::mapping(&samples), nat::egress_addresses(&samples))
    }

    /// What was dropped, by cause.
    pub fn dropped(&self) -> &BTreeMap<&'static str, u64> {
        &self.dropped
    }

    fn own(&self) -> Own {
        Own { role: self.config.role, seq: self.seq, opening_ttl: self.opening_ttl }
    }

    fn drop_one(&mut self, cause: &'static str) {
        *self.dropped.entry(cause).or_default() += 1;
        tracing::trace!(cause, "dropped");
    }

    fn handle_stun(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        match self.stun.handle_response(now, from, datagram) {
            Answer::Foreign => self.drop_one("STUN that we did not ask for"),
            Answer::Same => {}
            Answer::Moved if self.settled => self.renewal.handle_moved(now),
            Answer::Moved => {}
        }
        self.handle_timeout(now);
    }

    fn handle_probe(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let own = self.own();
        let known = probe::parties(datagram).filter(|(_, to)| *to == own.role);
        let Some(peer) = known.and_then(|(role, _)| self.peers.get_mut(&role)) else {
            return self.drop_one("probe of nobody we know");
        };
        if peer.handle_probe(now, from, datagram, own, &mut self.rng, &mut self.out) {
            self.handle_timeout(now);
        } else {
            self.drop_one("probe that is not authentic");
        }
    }

    fn handle_wireguard(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let addressee = tunnel::addressee(datagram, &self.config.secret.to_static(), &self.public);
        let for_it = |peer: &&mut Peer| match addressee {
            Some(Addressee::Session(index)) => peer.index() == index,
            Some(Addressee::Key(key)) => peer.announcement.public_key == key,
            None => false,
        };
        let Some(peer) = self.peers.values_mut().find(for_it) else {
            return self.drop_one("WireGuard message of nobody we know");
        };
        let before = self.out.inner.len();
        let useful = peer.handle_wireguard(now, from, datagram, &mut self.out);
        let overlay = peer.overlay;
        if !useful {
            self.drop_one("WireGuard message that is not authentic");
        }
        self.keep_own_addresses(before, overlay);
    }

    /// Cryptokey routing (WireGuard paper section 2): a peer may send from its own overlay address, and to ours, alone.
    fn keep_own_addresses(&mut self, before: usize, peer: Ipv4Addr) {
        let own = self.config.overlay.address(self.config.role);
        let routed = |packet: &Vec<u8>| reset::source(packet) == Some(peer) && reset::destination(packet) == own;
        if self.out.inner.iter().skip(before).any(|packet| !routed(packet)) {
            let fresh = self.out.inner.split_off(before);
            let (kept, dropped): (Vec<_>, Vec<_>) = fresh.into_iter().partition(routed);
            self.out.inner.extend(kept);
            dropped.iter().for_each(|_| self.drop_one("inner packet with addresses that are not its peer's"));
        }
    }

    fn drive_peers(&mut self, now: Instant) {
        let own = self.own();
        if self.next_tick <= now {
            self.next_tick = now + TICK;
            self.peers.values_mut().for_each(|peer| peer.tick(&mut self.out));
        }
        for peer in self.peers.values_mut() {
            peer.handle_timeout(now, own, &mut self.rng, &mut self.out);
        }
        let absent = |peer: &Peer| matches!(peer.state, State::Gone | State::Left);
        let lost = self.peers.iter().filter(|(_, peer)| absent(peer)).map(|(role, _)| *role).collect();
        let before = std::mem::replace(&mut self.lost, lost);
        let fresh: Vec<_> = self.lost.difference(&before).copied().collect();
        fresh.into_iter().for_each(|role| self.reset_connections(role));
    }

    fn watch_paths(&mut self, now: Instant) {
        if self.peers.values().any(Peer::is_doubtful) {
            self.stun.hasten(now);
        }
        match self.peers.get(&Role::Primary).filter(|peer| peer.state != State::Left) {
            Some(peer) if peer.is_suspect() => self.renewal.handle_lost(now, Duration::ZERO),
            Some(peer) if peer.is_lost() => self.renewal.handle_lost(now, renewal::PATIENCE),
            _ => self.renewal.handle_found(),
        }
        if self.settled && !self.closing && self.renewal.take(now) {
            self.rebind(now);
        }
    }

    /// Nobody has let the fresh socket in: all paths begin anew, and so does STUN.
    fn rebind(&mut self, now: Instant) {
        tracing::info!("the paths begin anew from a fresh socket");
        (self.rebinding, self.settled) = (true, false);
        // Acknowledgements on their way are of the old address: a number that was never published voids them.
        self.seq += 1;
        self.stun = StunClient::new(now, &self.config.stun, &mut self.rng);
        self.peers.values_mut().for_each(|peer| peer.reopen(now));
        self.out.transmits.clear();
        self.out.events.push_back(Event::Rebind);
    }

    fn reset_connections(&mut self, role: Role) {
        let resets = self.config.overlay.address(role).map(|peer| self.connections.reset_all(peer));
        self.out.inner.extend(resets.into_iter().flatten());
    }

    fn handle_closed(&mut self, role: Role, boot: Boot) {
        let known = self.peers.get(&role);
        if role == Role::Primary && known.is_none_or(|peer| peer.boot() == boot || peer.state != State::Up) {
            self.out.events.push_back(Event::Released);
        }
    }

    fn check(&self, announcement: &Announcement) -> Result<(), String> {
        let overlay = self.config.overlay;
        if announcement.overlay != overlay.to_string() {
            return Err(format!("its overlay is {}, ours is {overlay}", announcement.overlay));
        }
        if overlay.address(announcement.role).is_none() {
            return Err(format!("the overlay {overlay} has no address for {}", announcement.role));
        }
        if self.shared_keys(announcement).is_none() {
            return Err("it has none of our keys".into());
        }
        Ok(())
    }

    fn shared_keys(&self, announcement: &Announcement) -> Option<&RunKeys> {
        self.config.keys.shared_with(&announcement.keys, self.config.role < announcement.role)
    }

    /// INVARIANT: `check` has passed.
    fn admit(&mut self, now: Instant, announcement: Announcement, born: u64) {
        let role = announcement.role;
        let acknowledged = announcement.acknowledges(self.config.role, self.boot, self.seq);
        match self.peers.get_mut(&role) {
            Some(peer) if peer.boot() == announcement.boot => {
                return peer.handle_announcement(now, announcement, acknowledged);
            }
            Some(peer) => {
                tracing::info!(peer = %role, "a newer process takes over");
                peer.say_goodbye(now, Farewell::Replaced);
                let own = self.own();
                if let Some(peer) = self.peers.get_mut(&role) {
                    peer.handle_timeout(now, own, &mut self.rng, &mut self.out);
                }
                self.reset_connections(role);
            }
            None => {}
        }
        let Some(overlay) = self.config.overlay.address(role) else { return };
        let Some(keys) = self.shared_keys(&announcement) else { return };
        let secret = self.config.secret.to_static();
        let preshared = keys.preshared(&self.public, &announcement.public_key);
        let probes = keys.probes(&secret, &announcement.public_key);
        let index = self.fresh_index();
        let tunnel = Tunnel::new(&secret, &announcement.public_key, preshared, index, &self.limit);
        self.peers.insert(role, Peer::new(now, announcement, born, overlay, probes, tunnel, acknowledged));
    }

    fn fresh_index(&mut self) -> u32 {
        loop {
            let index = self.rng.random_range(1..1 << 24);
            if self.peers.values().all(|peer| peer.index() != index) {
                return index;
            }
        }
    }

    fn settle(&mut self, now: Instant) {
        let answers = self.stun.samples().len();
        if answers == 0 && self.renewal.has_happened() {
            self.stun = StunClient::new(now, &self.config.stun, &mut self.rng);
            return;
        }
        self.settled = true;
        self.renewal.handle_settled(now);
        self.reflexive = self.stun.reflexive();
        let (mapping, egress) = self.network();
        self.out.events.push_back(Event::Settled { answers, mapping, egress, reflexive: self.reflexive.clone() });
        if self.config.role == Role::Primary || !self.peers.is_empty() {
            self.publish();
        }
        for (announcement, born) in std::mem::take(&mut self.early).into_values() {
            self.handle_announcement(now, announcement, born);
        }
    }

    fn publish(&mut self) {
        self.seq += 1;
        self.peers.values_mut().for_each(Peer::forget_acknowledgement);
        self.out.events.push_back(Event::Publish(Box::new(self.announcement())));
    }

    fn announcement(&self) -> Announcement {
        let mapped = self.reflexive.iter().copied().map(Candidate::server_reflexive);
        let hosts = self.config.hosts.iter().filter(|host| !self.reflexive.contains(host)).copied();
        let candidates = mapped.chain(hosts.map(Candidate::host)).filter(Candidate::is_usable);
        let ack = |(role, peer): (&Role, &Peer)| Ack { role: *role, boot: peer.boot(), seq: peer.announcement.seq };
        Announcement {
            protocol: (PROTOCOL, PROTOCOL),
            role: self.config.role,
            boot: self.boot,
            seq: self.seq,
            issued_at: 0,
            expires_at: 0,
            keys: self.config.keys.ids(),
            public_key: self.public,
            overlay: self.config.overlay.to_string(),
            slots: self.config.slots,
            offload: self.config.offload.clone(),
            standing: if self.closing { Standing::Closed } else { Standing::Open },
            mapping: self.network().0,
            candidates: candidates.take(MAX_CANDIDATES).collect(),
            acks: self.peers.iter().map(ack).collect(),
        }
    }
}

/// By sequence number within one process, else by the birth of the process.
fn is_newer((this, born): (&Announcement, u64), (known, known_born): (&Announcement, u64)) -> bool {
    if this.boot == known.boot { this.seq > known.seq } else { born > known_born }
}
