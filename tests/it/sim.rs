//! A simulated internet in virtual time: hosts with a node each behind modelled NATs, two STUN servers, and a rendezvous. What must
//! happen on it is not here but in [`super::punch`].
//!
//! Hosts of one site are on one LAN and behind one NAT. A host is `TO_OWN_NAT` hops behind its NAT, and NATs are `BETWEEN_NATS` hops apart;
//! so a TTL decides whether a datagram passes its own NAT and whether it reaches the peer's. boringtun alone reads the real clock: stories stay below a minute of virtual time.

pub mod nat;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytecodec::{DecodeExt, EncodeExt};
use mesh::proto::announcement::{self, Announcement, Boot, LIFETIME, Name, Rejected};
use mesh::proto::key::{Context, MasterKey, Secret};
use mesh::proto::keyring::KeyRing;
use mesh::proto::node::{Config, Node};
use mesh::proto::overlay::Prefix;
use mesh::proto::packets::Packets;
use mesh::proto::probe::Farewell;
use mesh::proto::relay_server::{Outgoing, RelayServer};
use mesh::proto::role::Role;
use mesh::proto::route::{Route, SocketId};
use mesh::proto::super_packet::SuperPacket;
use mesh::proto::transmit::{Event, Transmit};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use stun_codec::rfc5389::Attribute;
use stun_codec::rfc5389::attributes::XorMappedAddress;
use stun_codec::rfc5389::methods::BINDING;
use stun_codec::{Message, MessageClass, MessageDecoder, MessageEncoder};

use self::nat::{Kind, Nat};

const TO_OWN_NAT: u8 = 1;
const BETWEEN_NATS: u8 = 8;
const DEFAULT_TTL: u8 = 64;
const STUN: [&str; 2] = ["192.0.2.1:3478", "192.0.2.2:3478"];
const RELAY: &str = "192.0.2.9:3479";
/// Between two hosts of one site.
const LAN: Duration = Duration::from_micros(200);

const UNIX_START: u64 = 1_800_000_000;

/// More inputs than this in one instant mean that some timeout never passes.
const STUCK: usize = 100_000;

/// A host by its number.
pub type HostId = usize;

/// A NAT and the LAN behind it, by its number.
pub type SiteId = usize;

/// What the network does to datagrams, and the rendezvous to announcements.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// One way between any two hosts, at least.
    pub latency: Duration,
    /// And at most so much more: datagrams overtake each other.
    pub jitter: Duration,
    /// The share of datagrams lost, half of them before they reach their own NAT.
    pub loss: f64,
    /// The share that arrives twice.
    pub duplication: f64,
    /// From publication to when others have read it, at least.
    pub rendezvous: Duration,
    /// And at most so much more: announcements overtake each other.
    pub rendezvous_jitter: Duration,
    /// How often everyone reads each announcement.
    pub readings: usize,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
            rendezvous: Duration::from_secs(1),
            rendezvous_jitter: Duration::ZERO,
            readings: 1,
        }
    }
}

/// A machine.
#[derive(Debug)]
pub struct Host {
    /// Who it is in the mesh.
    pub role: Role,
    /// Its state machine.
    pub node: Node,
    /// What it noticed, and when.
    pub events: Vec<(Instant, Event)>,
    /// What came out of its tunnel.
    pub inner: Vec<Vec<u8>>,
    /// How many datagrams it sent.
    pub sent: usize,
    /// Who is up, by the notices alone.
    pub up: BTreeSet<Role>,
    /// Its low-TTL datagrams vanish before they reach its NAT.
    pub loses_openings: bool,
    /// Where it is.
    pub site: SiteId,
    keys: KeyRing,
    alive: bool,
    /// When its node has something to do.
    timeout: Option<Instant>,
    /// Whether it reads what other aux have published.
    reads_aux: bool,
    /// Its address on the LAN.
    inside: Ipv4Addr,
    sockets: BTreeMap<u16, SocketId>,
    next_port: u16,
    /// Where something authentic came from, on which socket.
    heard: BTreeSet<(SocketId, SocketAddr)>,
    /// Where something was ever sent to, however far it got.
    opened: BTreeSet<SocketAddr>,
}

/// A NAT and the LAN behind it.
#[derive(Debug)]
pub struct Site {
    /// The NAT.
    pub nat: Nat,
    /// Whether its hosts cannot reach each other on the LAN.
    pub isolated: bool,
}

#[derive(Debug, Clone)]
struct Published {
    name: Name,
    bytes: Vec<u8>,
    born: u64,
}

#[derive(Debug)]
enum Delivery {
    Datagram { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    OnLan { site: SiteId, from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Announcement { host: HostId, published: Published },
}

/// All of it.
#[derive(Debug)]
pub struct Internet {
    /// The time.
    pub now: Instant,
    /// The machines, by [`HostId`].
    pub hosts: Vec<Host>,
    /// Where they are, by [`SiteId`].
    pub sites: Vec<Site>,
    /// The relay of the user's own, where there is one.
    pub relay: Option<RelayServer>,
    /// Whether STUN servers do not answer.
    pub stun_down: bool,
    /// Whether the network between these hosts' NATs drops everything, both ways.
    pub cut: BTreeSet<(HostId, HostId)>,
    /// When an announcement was read last.
    pub last_reading: Instant,
    /// Each full-TTL datagram that left too early.
    pub violations: Vec<String>,
    /// Each datagram that came to a NAT, and where from.
    pub overheard: Vec<(SocketAddr, Vec<u8>)>,
    start: Instant,
    weather: Weather,
    rng: ChaCha20Rng,
    queue: BTreeMap<(Instant, u64), Delivery>,
    queued: u64,
    published: Vec<Published>,
    births: Vec<Boot>,
    steps_now: usize,
}

impl Internet {
    /// An empty one, whose every chance follows from `seed`.
    pub fn new(seed: u64, weather: Weather) -> Self {
        let now = Instant::now();
        Self {
            now,
            hosts: vec![],
            sites: vec![],
            relay: None,
            stun_down: false,
            cut: BTreeSet::new(),
            last_reading: now,
            violations: vec![],
            overheard: vec![],
            start: now,
            weather,
            rng: ChaCha20Rng::seed_from_u64(seed),
            queue: BTreeMap::new(),
            queued: 0,
            published: vec![],
            births: vec![],
            steps_now: 0,
        }
    }

    /// A NAT with an empty LAN.
    pub fn site(&mut self, kind: Kind) -> SiteId {
        let id = self.sites.len();
        let nat = Nat::new(kind, outside(id), self.rng.random());
        self.sites.push(Site { nat, isolated: false });
        id
    }

    /// A relay of the user's own, that the hosts added from now on know.
    pub fn add_relay(&mut self) {
        let keys = keys(&[7]);
        let keys = keys.iter().map(|keys| (keys.key_id(), keys.relay())).collect();
        self.relay = Some(RelayServer::new(self.now, keys, Secret([9; 32])));
    }

    /// A machine that starts now at a site of its own, and will read everything that was published before.
    pub fn host(&mut self, role: Role, kind: Kind) -> HostId {
        let site = self.site(kind);
        self.host_at(role, site, &[7])
    }

    /// As [`Self::host`], with shared keys of its own, the current one first.
    pub fn host_with_keys(&mut self, role: Role, kind: Kind, masters: &[u8]) -> HostId {
        let site = self.site(kind);
        self.host_at(role, site, masters)
    }

    /// As [`Self::host_with_keys`], at a site that may have others.
    pub fn host_at(&mut self, role: Role, site: SiteId, masters: &[u8]) -> HostId {
        let id = self.hosts.len();
        let keys = keys(masters);
        let inside = Ipv4Addr::from_bits(Ipv4Addr::new(192, 168, 1, 2).to_bits() + id as u32);
        let port = 40_000 + id as u16;
        let config = self.config(role, keys.clone(), SocketAddr::from((inside, port)));
        self.hosts.push(Host {
            role,
            keys,
            node: Node::new(self.now, config),
            events: vec![],
            inner: vec![],
            sent: 0,
            up: BTreeSet::new(),
            loses_openings: false,
            site,
            alive: true,
            timeout: None,
            reads_aux: false,
            inside,
            sockets: BTreeMap::from([(port, SocketId::MAIN)]),
            next_port: 0,
            heard: BTreeSet::new(),
            opened: BTreeSet::new(),
        });
        for published in self.published.clone() {
            self.deliver_announcement(id, published);
        }
        self.input(id, |node, now| node.handle_hops(now, None));
        id
    }

    /// A host's NAT.
    pub fn nat(&mut self, id: HostId) -> &mut Nat {
        let site = self.hosts[id].site;
        &mut self.sites[site].nat
    }

    /// The route of `id` to `peer`, if there is one.
    pub fn route(&self, id: HostId, peer: Role) -> Option<Route> {
        self.hosts[id].node.peers(self.now).into_iter().find(|view| view.role == peer)?.route
    }

    /// Runs until `done`; false when that has not come within `limit`.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let deadline = self.now + limit;
        while !done(self) {
            let Some(next) = self.next().filter(|at| *at <= deadline) else {
                self.now = deadline;
                return done(self);
            };
            self.step(next);
        }
        true
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Runs for so long.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Whether the primary and every aux that is alive have each other up.
    pub fn all_up(&self) -> bool {
        let alive = || self.hosts.iter().filter(|host| host.alive);
        let Some(primary) = alive().find(|host| host.role == Role::Primary) else { return false };
        let mut aux = alive().filter(|host| host.role != Role::Primary);
        aux.all(|aux| aux.up.contains(&Role::Primary) && primary.up.contains(&aux.role))
    }

    /// Gives a host's node something to do, and sends what comes of it.
    pub fn input(&mut self, id: HostId, input: impl FnOnce(&mut Node, Instant)) {
        input(&mut self.hosts[id].node, self.now);
        self.drain(id);
    }

    /// A host begins to leave.
    pub fn close(&mut self, id: HostId, farewell: Farewell) {
        self.input(id, |node, now| node.close(now, farewell));
    }

    /// For so long nothing arrives anywhere, announcements excepted.
    pub fn black_out(&mut self, time: Duration) {
        let loss = std::mem::replace(&mut self.weather.loss, 1.0);
        self.run_for(time);
        self.weather.loss = loss;
    }

    /// A host vanishes without a word.
    pub fn kill(&mut self, id: HostId) {
        self.hosts[id].alive = false;
    }

    /// Whether a host still runs: it was not killed, and has had an answer of a STUN server or a relay.
    pub fn is_alive(&self, id: HostId) -> bool {
        self.hosts[id].alive
    }

    /// When a host noticed something, counted from the beginning.
    pub fn noticed(&self, id: HostId, what: impl Fn(&Event) -> bool) -> Vec<Duration> {
        self.hosts[id].events.iter().filter(|(_, event)| what(event)).map(|(at, _)| *at - self.start).collect()
    }

    fn config(&mut self, role: Role, keys: KeyRing, inside: SocketAddr) -> Config {
        Config {
            role,
            keys,
            secret: Secret(self.rng.random()),
            seed: Secret(self.rng.random()),
            overlay: Prefix::new(Ipv4Addr::new(10, 77, 0, 0), 16),
            slots: 4,
            offload: None,
            job_port: 3632,
            hosts: vec![inside],
            stun: stun_servers().to_vec(),
            relays: self.relay.iter().map(|_| relay_addr()).collect(),
        }
    }

    fn next(&self) -> Option<Instant> {
        let delivery = self.queue.keys().next().map(|(at, _)| *at);
        let timeouts = self.hosts.iter().filter(|host| host.alive).filter_map(|host| host.timeout);
        timeouts.chain(delivery).min().map(|at| at.max(self.now))
    }

    fn step(&mut self, now: Instant) {
        self.steps_now = if now == self.now { self.steps_now + 1 } else { 0 };
        assert!(self.steps_now < STUCK, "a timeout never passes at {:?}", now - self.start);
        self.now = now;
        if self.queue.keys().next().is_some_and(|(at, _)| *at <= now) {
            match self.queue.pop_first().expect("it has a first key").1 {
                Delivery::Datagram { from, to, bytes } => self.arrive(from, to, &bytes),
                Delivery::OnLan { site, from, to, bytes } => self.arrive_on_lan(site, from, to, &bytes),
                Delivery::Announcement { host, published } => self.read(host, &published),
            }
            return;
        }
        for id in 0..self.hosts.len() {
            if self.hosts[id].alive && self.hosts[id].timeout.is_some_and(|at| at <= now) {
                self.input(id, |node, now| node.handle_timeout(now));
            }
        }
    }

    /// A program on a host sends a packet.
    pub fn send_inner(&mut self, id: HostId, packet: &[u8]) {
        let mut packet = packet.to_vec();
        self.input(id, |node, now| node.handle_inner(now, SuperPacket::plain(&mut packet)));
    }

    /// In the order that [`Node`] asks for.
    fn drain(&mut self, id: HostId) {
        while let Some(transmit) = self.hosts[id].node.poll_transmit() {
            self.send(id, transmit);
        }
        while let Some(bulk) = self.hosts[id].node.poll_batch() {
            for datagram in bulk.batch.datagrams() {
                self.send(id, Transmit { socket: bulk.socket, to: bulk.to, ttl: None, bytes: datagram.to_vec() });
            }
            self.hosts[id].node.recycle(bulk);
        }
        let Host { node, inner, .. } = &mut self.hosts[id];
        let mut packets = Packets::default();
        node.swap_inner(&mut packets);
        inner.extend(packets.iter().map(<[u8]>::to_vec));
        while let Some(event) = self.hosts[id].node.poll_event() {
            self.notice(id, event);
        }
        self.hosts[id].timeout = self.hosts[id].node.poll_timeout();
    }

    fn send(&mut self, id: HostId, transmit: Transmit) {
        let Transmit { socket, to, ttl, bytes } = transmit;
        let ttl = ttl.unwrap_or(DEFAULT_TTL);
        let reaches = ttl >= TO_OWN_NAT + BETWEEN_NATS;
        if reaches && !self.may_send_to(id, socket, to) {
            self.violations.push(format!("{} to {to} at {:?}", self.hosts[id].role, self.now - self.start));
        }
        let Weather { loss, duplication, .. } = self.weather;
        let (lost, lost_at_home, twice) =
            (self.rng.random_bool(loss), self.rng.random_bool(0.5), self.rng.random_bool(duplication));
        let host = &mut self.hosts[id];
        host.sent += 1;
        host.opened.insert(to);
        let inside = SocketAddr::from((host.inside, host.port(socket)));
        let site = host.site;
        if is_private(to) {
            if !lost && !self.sites[site].isolated {
                self.enqueue(self.now + LAN, Delivery::OnLan { site, from: inside, to, bytes });
            }
            return;
        }
        let at_home = lost && lost_at_home || host.loses_openings && !reaches;
        if at_home || ttl <= TO_OWN_NAT {
            return;
        }
        let nat = &mut self.sites[site].nat;
        let Some(from) = nat.outbound(self.now, inside, to) else { return };
        let hairpin = to.ip() == nat.outside;
        let arrives = !lost && if hairpin { nat.kind.hairpin } else { reaches };
        for _ in 0..if arrives { 1 + usize::from(twice) } else { 0 } {
            self.fly(from, to, bytes.clone());
        }
    }

    /// The rule, by what the hosts did and not by what their nodes believe: full TTL goes to where something came from, and to a peer that
    /// has opened towards an address that is ours now.
    fn may_send_to(&self, id: HostId, socket: SocketId, to: SocketAddr) -> bool {
        let host = &self.hosts[id];
        if stun_servers().contains(&to) || to == relay_addr() || host.heard.contains(&(socket, to)) {
            return true;
        }
        let there = |other: &&Host| {
            self.sites[other.site].nat.outside == to.ip() || SocketAddr::from((other.inside, to.port())) == to
        };
        let mut opened = self.hosts.iter().filter(there).flat_map(|other| &other.opened);
        let ours: BTreeSet<SocketAddr> = host.node.candidates().collect();
        opened.any(|addr| ours.contains(addr))
    }

    fn fly(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let at = self.now + self.weather.latency + self.weather.jitter.mul_f64(self.rng.random());
        self.enqueue(at, Delivery::Datagram { from, to, bytes });
    }

    fn enqueue(&mut self, at: Instant, delivery: Delivery) {
        self.queued += 1;
        self.queue.insert((at, self.queued), delivery);
    }

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if stun_servers().contains(&to) {
            if !self.stun_down {
                self.fly(to, from, binding_response(bytes, from));
            }
            return;
        }
        if to == relay_addr() {
            let answer =
                self.relay.as_mut().and_then(|relay| relay.handle_datagram(self.now, from, bytes, &mut self.rng));
            let answer = answer.map(Outgoing::into_bytes);
            return answer.into_iter().for_each(|(back, bytes)| self.fly(to, back, bytes));
        }
        let Some(site) = (0..self.sites.len()).find(|site| to.ip() == outside(*site)) else { return };
        self.overheard.push((from, bytes.to_vec()));
        let inside = self.sites[site].nat.inbound(self.now, from, to.port());
        if let Some(inside) = inside.filter(|_| !self.is_cut(site, from)) {
            self.arrive_on_lan(site, from, inside, bytes);
        }
    }

    fn is_cut(&self, site: SiteId, from: SocketAddr) -> bool {
        let is = |host: HostId, site: SiteId| self.hosts[host].site == site;
        let Some(other) = (0..self.sites.len()).find(|site| from.ip() == outside(*site)) else { return false };
        self.cut.iter().any(|(a, b)| is(*a, site) && is(*b, other) || is(*b, site) && is(*a, other))
    }

    fn arrive_on_lan(&mut self, site: SiteId, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let at = |host: &Host| host.site == site && SocketAddr::from((host.inside, to.port())) == to && host.alive;
        let Some(id) = self.hosts.iter().position(at) else { return };
        let host = &mut self.hosts[id];
        let Some(socket) = host.sockets.get(&to.port()).copied() else { return };
        let dropped = |node: &Node| node.dropped().values().sum::<u64>();
        let before = dropped(&host.node);
        host.node.handle_datagram(self.now, socket, from, bytes);
        if dropped(&host.node) == before {
            host.heard.insert((socket, from));
        }
        self.drain(id);
    }

    fn notice(&mut self, id: HostId, event: Event) {
        let host = &mut self.hosts[id];
        match &event {
            Event::Publish(announcement) => {
                self.publish(id, (**announcement).clone());
            }
            Event::Up { role, .. } | Event::Back { role, .. } => {
                host.up.insert(*role);
            }
            Event::Gone { role, .. } | Event::Left { role } => {
                host.up.remove(role);
            }
            Event::Released | Event::Replaced => {
                host.up.remove(&Role::Primary);
            }
            Event::Rebind(_) => self.rebind(id),
            Event::Stranded => self.strand(id),
            // A verb ends then, with M201.
            Event::Settled { answers: 0, .. } => host.alive = false,
            Event::Settled { .. } | Event::Unusable { .. } | Event::Suspect { .. } => {}
            Event::Doubt(_)
            | Event::Recovered { .. }
            | Event::Rerouted { .. }
            | Event::Mtu { .. }
            | Event::DeviceGone
            | Event::OneByOne
            | Event::Relay { .. } => {}
        }
        self.hosts[id].events.push((self.now, event));
    }

    /// What was known of the old sockets says nothing of the new ones.
    fn rebind(&mut self, id: HostId) {
        let host = &mut self.hosts[id];
        let port = host.fresh_port();
        host.sockets = BTreeMap::from([(port, SocketId::MAIN)]);
        host.heard = BTreeSet::new();
        let inside = SocketAddr::from((host.inside, port));
        self.input(id, |node, now| node.handle_rebound(now, vec![inside]));
    }

    /// From now on it reads everybody's announcements, and those that are there already.
    fn strand(&mut self, id: HostId) {
        self.hosts[id].reads_aux = true;
        for published in self.published.clone() {
            self.deliver_announcement(id, published);
        }
    }

    fn publish(&mut self, by: HostId, mut announcement: Announcement) {
        announcement.issued_at = self.unix_now();
        announcement.expires_at = announcement.issued_at + LIFETIME.as_secs();
        if !self.births.contains(&announcement.boot) {
            self.births.push(announcement.boot);
        }
        let born = self.births.iter().position(|boot| *boot == announcement.boot).expect("just made sure") as u64;
        let name = Name { attempt: 1, role: announcement.role, seq: announcement.seq, nonce: self.rng.random() };
        let bytes = announcement::seal(&announcement, &self.hosts[by].keys, &name, &mut self.rng);
        let published = Published { name, bytes, born };
        self.published.push(published.clone());
        for id in (0..self.hosts.len()).filter(|id| *id != by) {
            self.deliver_announcement(id, published.clone());
        }
    }

    fn deliver_announcement(&mut self, host: HostId, published: Published) {
        let Host { role, reads_aux, .. } = self.hosts[host];
        if role != Role::Primary && published.name.role != Role::Primary && !reads_aux {
            return;
        }
        for _ in 0..self.weather.readings {
            let late = self.weather.rendezvous_jitter.mul_f64(self.rng.random());
            let at = self.now + self.weather.rendezvous + late;
            self.enqueue(at, Delivery::Announcement { host, published: published.clone() });
        }
    }

    fn read(&mut self, id: HostId, published: &Published) {
        let Published { name, bytes, born } = published;
        if !self.hosts[id].alive {
            return;
        }
        let announcement = match announcement::open(bytes, &self.hosts[id].keys, name, self.unix_now()) {
            Ok(announcement) => announcement,
            Err(Rejected::OtherKey) => return,
            Err(cause) => panic!("an announcement is {cause}"),
        };
        self.last_reading = self.now;
        self.input(id, |node, now| node.handle_announcement(now, announcement, *born));
    }

    fn unix_now(&self) -> u64 {
        UNIX_START + (self.now - self.start).as_secs()
    }
}

impl Host {
    /// The inside port of a socket, bound if it is not yet.
    fn port(&mut self, socket: SocketId) -> u16 {
        if let Some((port, _)) = self.sockets.iter().find(|(_, id)| **id == socket) {
            return *port;
        }
        let port = self.fresh_port();
        self.sockets.insert(port, socket);
        port
    }

    fn fresh_port(&mut self) -> u16 {
        self.next_port += 1;
        42_000 + (self.next_port * 7 + self.inside.octets()[3] as u16 * 13) % 20_000
    }
}

fn keys(masters: &[u8]) -> KeyRing {
    let context = Context { repository: "1".into(), run: "1".into(), attempt: 1 };
    let text: Vec<_> = masters.iter().map(|master| MasterKey::from_bytes([*master; 32]).to_text()).collect();
    KeyRing::parse(&text.join("\n"), &context).expect("good keys")
}

fn stun_servers() -> [SocketAddr; 2] {
    STUN.map(|server| server.parse().expect("an address"))
}

fn relay_addr() -> SocketAddr {
    RELAY.parse().expect("an address")
}

fn outside(id: SiteId) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits() + id as u32)
}

/// Reached on its own LAN alone.
fn is_private(to: SocketAddr) -> bool {
    matches!(to.ip(), std::net::IpAddr::V4(ip) if ip.is_private())
}

/// What a STUN server answers (RFC 8489 section 6.3.1).
fn binding_response(request: &[u8], from: SocketAddr) -> Vec<u8> {
    let request = MessageDecoder::<Attribute>::new().decode_from_bytes(request).expect("whole").expect("well-formed");
    let mut answer = Message::<Attribute>::new(MessageClass::SuccessResponse, BINDING, request.transaction_id());
    answer.add_attribute(XorMappedAddress::new(from));
    MessageEncoder::new().encode_into_bytes(answer).expect("it encodes")
}
