//! One peer: its path, its tunnel, and whether it is there. Who the peers are and whose a datagram is, is not here but in [`super::node`].

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::Rng;
use rand_chacha::ChaCha20Rng;

use super::announcement::{Announcement, Boot};
use super::key::ProbeKeys;
use super::path::{PathAgent, Reach};
use super::probe::{self, Body, Farewell, Probe, Transaction};
use super::role::Role;
use super::schedule::{Ladder, Schedule};
use super::transmit::{Event, Transmit};
use super::tunnel::{self, Tunnel};

/// First handshakes are driven from here: boringtun would wait 5 s after a lost one. Four messages must come through, so the pace is
/// dense; but not below half a round trip, as boringtun remembers only the last two initiations.
const HANDSHAKE: Ladder = Ladder { front_ms: &[0, 250, 500, 1000, 1500], every: Some(Duration::from_millis(500)) };

/// A responder's first messages in a session: the initiator is up only when one of them comes through.
const CONFIRMING: Ladder = Ladder { front_ms: &[0, 100, 300, 700], every: None };

/// A goodbye is said until it is heard, and no longer than its speaker has time.
const GOODBYE: Ladder = Ladder { front_ms: &[0, 50, 100, 200, 400, 700, 1000], every: None };

/// A peer of which nothing was heard for so long is gone: three lively pings and a re-transmitted one.
pub const GONE_AFTER: Duration = Duration::from_secs(12);

/// Where a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Announced; no authenticated packet has come through the tunnel yet.
    Joining,
    /// Packets come through the tunnel.
    Up,
    /// It was up; nothing is heard of it.
    Gone,
    /// It said goodbye.
    Left,
}

/// What peers put out, in the order in which it must leave.
#[derive(Debug, Default)]
pub struct Output {
    /// Datagrams for the socket.
    pub transmits: VecDeque<Transmit>,
    /// Inner packets for the TUN device.
    pub inner: VecDeque<Vec<u8>>,
    /// Notices.
    pub events: VecDeque<Event>,
}

/// What every peer needs to know of ourselves.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// Who we are.
    pub role: Role,
    /// The sequence number of our newest announcement.
    pub seq: u32,
    /// The TTL that opens our NATs.
    pub opening_ttl: u8,
}

/// Bytes of one peer, for reports.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Traffic {
    /// Inner bytes sent.
    pub tx_bytes: u64,
    /// Inner bytes received.
    pub rx_bytes: u64,
}

/// A peer as reports show it.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerView {
    /// Who.
    pub role: Role,
    /// Its address in the overlay.
    pub overlay: Ipv4Addr,
    /// Where it stands.
    pub state: State,
    /// From its announcement to the first authenticated packet in the tunnel.
    pub connect: Option<Duration>,
    /// The address of the selected pair.
    pub addr: Option<SocketAddr>,
    /// Average round trip on it.
    pub rtt: Option<Duration>,
    /// How long nothing was heard.
    pub silent: Duration,
    /// Inner bytes sent.
    pub tx_bytes: u64,
    /// Inner bytes received.
    pub rx_bytes: u64,
    /// How many jobs it runs at once.
    pub slots: u16,
    /// The engine it asks for.
    pub offload: Option<String>,
}

/// One peer.
#[derive(Debug)]
pub struct Peer {
    /// Its newest announcement.
    pub announcement: Announcement,
    /// When its process first published, as the rendezvous counts.
    pub born: u64,
    /// Its address in the overlay.
    pub overlay: Ipv4Addr,
    /// Where it stands.
    pub state: State,
    /// From its announcement to the first authenticated packet in the tunnel.
    pub connect: Option<Duration>,
    /// What it cost.
    pub traffic: Traffic,
    path: PathAgent,
    tunnel: Tunnel,
    keys: ProbeKeys,
    announced_at: Instant,
    heard_at: Instant,
    handshake: Option<Schedule>,
    /// It initiated a session and has not heard from us in it yet.
    unconfirmed: bool,
    confirming: Option<Schedule>,
    goodbye: Option<(Farewell, Schedule)>,
    goodbye_heard: bool,
    /// Since when its path is in doubt, while it counts as up.
    suspected: Option<Instant>,
}

impl Peer {
    /// A peer that has just announced itself; opening begins at once.
    pub fn new(
        now: Instant,
        announcement: Announcement,
        born: u64,
        overlay: Ipv4Addr,
        keys: ProbeKeys,
        tunnel: Tunnel,
        acknowledged: bool,
    ) -> Self {
        let path = PathAgent::new(now, candidates(&announcement), acknowledged);
        Self {
            announcement,
            born,
            overlay,
            state: State::Joining,
            connect: None,
            traffic: Traffic::default(),
            path,
            tunnel,
            keys,
            announced_at: now,
            heard_at: now,
            handshake: None,
            unconfirmed: false,
            confirming: None,
            goodbye: None,
            goodbye_heard: false,
            suspected: None,
        }
    }

    /// As reports show it.
    pub fn view(&self, now: Instant) -> PeerView {
        let (addr, rtt) = self.path();
        PeerView {
            role: self.announcement.role,
            overlay: self.overlay,
            state: self.state,
            connect: self.connect,
            addr,
            rtt,
            silent: self.silent(now),
            tx_bytes: self.traffic.tx_bytes,
            rx_bytes: self.traffic.rx_bytes,
            slots: self.announcement.slots,
            offload: self.announcement.offload.clone(),
        }
    }

    /// Which process it is.
    pub fn boot(&self) -> Boot {
        self.announcement.boot
    }

    /// The index that WireGuard messages for it carry.
    pub fn index(&self) -> u32 {
        self.tunnel.index()
    }

    /// The address of the selected pair and its average round trip.
    pub fn path(&self) -> (Option<SocketAddr>, Option<Duration>) {
        (self.path.selected(), self.path.rtt())
    }

    /// How long nothing was heard of it.
    pub fn silent(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard_at)
    }

    /// A newer announcement of the same process. What works stays; where it has moved, the path begins anew.
    pub fn handle_announcement(&mut self, now: Instant, announcement: Announcement, acknowledged: bool) {
        let moved = announcement.candidates != self.announcement.candidates;
        if moved || self.path.selected().is_none() || matches!(self.state, State::Gone | State::Left) {
            self.path = PathAgent::new(now, candidates(&announcement), acknowledged);
            self.handshake = None;
            self.doubt(now);
        }
        self.announcement = announcement;
    }

    /// Our own announcement has changed.
    pub fn forget_acknowledgement(&mut self) {
        self.path.forget_acknowledgement();
    }

    /// Our own address has changed: what was opened from the old one is not.
    pub fn reopen(&mut self, now: Instant) {
        self.path.reopen(now);
        self.handshake = None;
        self.doubt(now);
    }

    /// Whether it counts as up and has left a ping unanswered.
    pub fn is_doubtful(&self) -> bool {
        self.state == State::Up && self.path.is_doubtful()
    }

    /// Whether it has no path, or none that answers any more.
    pub fn is_lost(&self) -> bool {
        self.path.selected().is_none() || self.state == State::Gone
    }

    /// Whether it counts as up and does not answer.
    pub fn is_suspect(&self) -> bool {
        self.state == State::Up && self.path.is_suspect()
    }

    /// Takes a probe that claims to be of this peer; false when it is not authentic.
    pub fn handle_probe(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        own: Own,
        rng: &mut ChaCha20Rng,
        out: &mut Output,
    ) -> bool {
        let Some(Probe { transaction, body }) = probe::open(datagram, &self.keys) else { return false };
        self.path.handle_heard(now, from);
        match body {
            Body::Ping { .. } => {
                self.send_probe(from, None, Probe { transaction, body: Body::Pong { observed: from } }, own, rng, out);
            }
            Body::Pong { .. } => {
                if self.path.handle_pong(now, transaction, from) {
                    tracing::debug!(peer = %self.announcement.role, addr = %from, "pair selected");
                }
            }
            Body::Bye(farewell) => {
                self.send_probe(from, None, Probe { transaction, body: Body::ByeAck }, own, rng, out);
                self.handle_goodbye(farewell, out);
            }
            Body::ByeAck => self.goodbye_heard = true,
        }
        self.hear(now, out);
        true
    }

    /// Takes a WireGuard message for this peer's session; false when it is not authentic or says nothing.
    pub fn handle_wireguard(&mut self, now: Instant, from: SocketAddr, datagram: &[u8], out: &mut Output) -> bool {
        let opened = self.tunnel.open(from.ip(), datagram);
        let useful = opened.authentic || !opened.replies.is_empty();
        self.unconfirmed |= tunnel::is_initiation(datagram) && useful;
        out.transmits.extend(opened.replies.into_iter().map(|bytes| Transmit { to: from, ttl: None, bytes }));
        if opened.authentic {
            self.path.handle_tunnelled(now, from);
            self.come_up(now, from, out);
            if std::mem::take(&mut self.unconfirmed) {
                self.confirming = Some(Schedule::new(CONFIRMING, now));
                self.confirm(now, out);
            }
            self.hear(now, out);
        }
        if let Some(packet) = opened.inner {
            self.traffic.rx_bytes += packet.len() as u64;
            out.inner.push_back(packet);
        }
        useful
    }

    /// Sends an inner packet; false when the peer is not up.
    pub fn send(&mut self, now: Instant, packet: &[u8], out: &mut Output) -> bool {
        let (State::Up, Some(to)) = (self.state, self.path.selected()) else { return false };
        self.traffic.tx_bytes += packet.len() as u64;
        self.path.handle_sent(now);
        out.transmits.extend(self.tunnel.seal(packet).map(|bytes| Transmit { to, ttl: None, bytes }));
        true
    }

    /// Begins to say goodbye. A peer without a path cannot be told.
    pub fn say_goodbye(&mut self, now: Instant, farewell: Farewell) {
        if self.path.selected().is_some() && !matches!(self.state, State::Left) {
            self.goodbye = Some((farewell, Schedule::new(GOODBYE, now)));
            self.goodbye_heard = false;
        }
    }

    /// Whether nothing more is to be said: no goodbye was begun, it was heard, or it was repeated to the end.
    pub fn has_said_goodbye(&self) -> bool {
        self.goodbye_heard || self.goodbye.as_ref().is_none_or(|(_, schedule)| schedule.next().is_none())
    }

    /// WireGuard's own timers; due every 250 ms.
    pub fn tick(&mut self, out: &mut Output) {
        if self.state == State::Left {
            return;
        }
        let message = self.tunnel.tick();
        if let (Some(to), Some(bytes)) = (self.path.selected(), message) {
            out.transmits.push_back(Transmit { to, ttl: None, bytes });
        }
    }

    /// Takes what has come due.
    pub fn handle_timeout(&mut self, now: Instant, own: Own, rng: &mut ChaCha20Rng, out: &mut Output) {
        self.repeat_goodbye(now, own, rng, out);
        if self.state == State::Left {
            return;
        }
        self.notice_silence(now, out);
        self.path.handle_timeout(now);
        self.notice_doubt(now, out);
        let mut transaction: Transaction = rng.random();
        while let Some((to, reach)) = self.path.poll_ping(now, transaction) {
            let ttl = (reach == Reach::Opening).then_some(own.opening_ttl);
            self.send_probe(to, ttl, Probe { transaction, body: Body::Ping { seq: own.seq } }, own, rng, out);
            transaction = rng.random();
        }
        self.drive_handshake(now, own, out);
        self.confirm(now, out);
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let goodbye = self.goodbye.as_ref().filter(|_| !self.goodbye_heard).and_then(|(_, schedule)| schedule.next());
        if self.state == State::Left {
            return goodbye;
        }
        let silence = (self.state == State::Up).then(|| self.heard_at + GONE_AFTER);
        let handshake = self.handshake.as_ref().and_then(Schedule::next);
        let confirm = self.confirming.as_ref().and_then(Schedule::next);
        self.path.poll_timeout().into_iter().chain(goodbye).chain(silence).chain(handshake).chain(confirm).min()
    }

    fn come_up(&mut self, now: Instant, from: SocketAddr, out: &mut Output) {
        if self.state != State::Joining {
            return;
        }
        self.state = State::Up;
        self.handshake = None;
        let connect = now - self.announced_at;
        self.connect = Some(connect);
        out.events.push_back(Event::Up { role: self.announcement.role, connect, at: from });
    }

    /// The initiator's first message proves a session to us; an empty one back proves it to the initiator.
    fn confirm(&mut self, now: Instant, out: &mut Output) {
        let due = self.confirming.as_mut().is_some_and(|schedule| schedule.take(now));
        if let (true, Some(to)) = (due, self.path.selected()) {
            out.transmits.extend(self.tunnel.seal(&[]).map(|bytes| Transmit { to, ttl: None, bytes }));
        }
    }

    /// A peer that was silent or has moved is back once there is a path that answers.
    fn hear(&mut self, now: Instant, out: &mut Output) {
        self.heard_at = now;
        if self.path.selected().is_none() {
            return;
        }
        let (role, suspected) = (self.announcement.role, self.suspected.take());
        match (self.state, suspected) {
            (State::Gone, _) => {
                self.state = State::Up;
                out.events.push_back(Event::Back { role });
            }
            (State::Up, Some(since)) => out.events.push_back(Event::Recovered { role, took: now - since }),
            _ => {}
        }
    }

    fn doubt(&mut self, now: Instant) {
        if self.state == State::Up {
            self.suspected.get_or_insert(now);
        }
    }

    fn notice_doubt(&mut self, now: Instant, out: &mut Output) {
        if self.is_suspect() && self.suspected.is_none() {
            self.suspected = Some(now);
            out.events.push_back(Event::Suspect { role: self.announcement.role });
        }
    }

    fn notice_silence(&mut self, now: Instant, out: &mut Output) {
        let silent = self.silent(now);
        if self.state == State::Up && silent >= GONE_AFTER {
            self.state = State::Gone;
            out.events.push_back(Event::Gone { role: self.announcement.role, silent });
        }
    }

    fn handle_goodbye(&mut self, farewell: Farewell, out: &mut Output) {
        if self.state == State::Left {
            return;
        }
        self.state = State::Left;
        out.events.push_back(match (farewell, self.announcement.role) {
            (Farewell::Released, Role::Primary) => Event::Released,
            (Farewell::Replaced, Role::Primary) => Event::Replaced,
            (Farewell::Released | Farewell::Replaced | Farewell::Leaving, role) => Event::Left { role },
        });
    }

    fn repeat_goodbye(&mut self, now: Instant, own: Own, rng: &mut ChaCha20Rng, out: &mut Output) {
        let Some((farewell, schedule)) = &mut self.goodbye else { return };
        if self.goodbye_heard || !schedule.take(now) {
            return;
        }
        let bye = Probe { transaction: rng.random(), body: Body::Bye(*farewell) };
        if let Some(to) = self.path.selected() {
            self.send_probe(to, None, bye, own, rng, out);
        }
    }

    /// The lower number initiates, so that two initiations never cross.
    fn drive_handshake(&mut self, now: Instant, own: Own, out: &mut Output) {
        let Some(to) = self.path.selected() else { return };
        if self.state != State::Joining || own.role > self.announcement.role {
            return;
        }
        let schedule = self.handshake.get_or_insert_with(|| Schedule::new(HANDSHAKE, now));
        if schedule.take(now) {
            out.transmits.extend(self.tunnel.initiate().map(|bytes| Transmit { to, ttl: None, bytes }));
        }
    }

    fn send_probe(
        &self,
        to: SocketAddr,
        ttl: Option<u8>,
        probe: Probe,
        own: Own,
        rng: &mut ChaCha20Rng,
        out: &mut Output,
    ) {
        let bytes = probe::seal(&probe, own.role, self.announcement.role, &self.keys, rng);
        out.transmits.push_back(Transmit { to, ttl, bytes });
    }
}

fn candidates(announcement: &Announcement) -> impl Iterator<Item = SocketAddr> {
    announcement.candidates.iter().map(|candidate| candidate.addr)
}
