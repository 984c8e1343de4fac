//! One peer: its path, its tunnel, and whether it is there. Who the peers are and whose a datagram is, is not here but in [`super::node`].

mod changes;
mod data;
mod talk;
mod view;

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

pub use self::data::Refused;
pub use self::talk::{Telling, Word};
pub use self::view::PeerView;

use self::talk::{Line, Talk};
use super::announcement::{Announcement, Boot};
use super::candidate::{Candidate, Kind, is_private};
use super::crossing::{Crossing, Side, can_punch};
use super::filtering::Filtering;
use super::key::{HopKeys, ProbeKeys};
use super::output::{Around, Output, Own};
use super::overlay::MTU;
use super::path::PathAgent;
use super::probe::Farewell;
use super::role::Role;
use super::route::{Relay, Route, SocketId};
use super::schedule::{Ladder, Schedule};
use super::tunnel::Tunnel;

/// First handshakes are driven from here: boringtun would wait 5 s after a lost one. Four messages must come through, so the pace is
/// dense; but not below half a round trip, as boringtun remembers only the last two initiations.
const HANDSHAKE: Ladder = Ladder { front_ms: &[0, 250, 500, 1000, 1500], every: Some(Duration::from_millis(500)) };

/// A responder's first messages in a session: the initiator is up only when one of them comes through.
const CONFIRMING: Ladder = Ladder { front_ms: &[0, 100, 300, 700], every: None };

/// A peer of which nothing was heard for so long is gone: three lively pings and a re-transmitted one.
pub const GONE_AFTER: Duration = Duration::from_secs(12);

/// And after so long nobody waits for it any more: as long as an aux waits for its primary.
pub const FORSAKEN_AFTER: Duration = Duration::from_secs(120);

/// Inner packets that wait for a peer which is joining: the first of a few connections.
const MOST_WAITING: usize = 16;

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

/// For whom a peer is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// For what can be done elsewhere: it may come back.
    Silent,
    /// For everybody: it said goodbye, or was silent for [`FORSAKEN_AFTER`].
    Forsaken,
}

/// Bytes of one peer, for reports.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Traffic {
    /// Inner bytes sent.
    pub tx_bytes: u64,
    /// Inner bytes received.
    pub rx_bytes: u64,
}

/// The keys of a pair.
#[derive(Debug, Clone)]
pub struct PairKeys {
    /// Seal probes.
    pub probes: ProbeKeys,
    /// Authenticate relay frames.
    pub hops: HopKeys,
}

/// One peer.
#[derive(Debug)]
pub struct Peer {
    /// Its newest announcement, with what it has told since.
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
    keys: PairKeys,
    path: PathAgent,
    talk: Talk,
    tunnel: Tunnel,
    announced_at: Instant,
    heard_at: Instant,
    heard_directly: bool,
    /// It is gone, and has been silent for [`FORSAKEN_AFTER`].
    forsaken: bool,
    /// There was a direct route since either side's addresses last changed.
    was_direct: bool,
    /// The route that others know of.
    told: Option<Route>,
    told_mtu: u16,
    handshake: Option<Schedule>,
    /// It initiated a session and has not heard from us in it yet.
    unconfirmed: bool,
    confirming: Option<Schedule>,
    /// Since when its path is in doubt, while it counts as up.
    suspected: Option<Instant>,
    waiting: VecDeque<Vec<u8>>,
}

impl Peer {
    /// A peer that has just announced itself; opening begins at once.
    pub fn new(
        now: Instant,
        announcement: Announcement,
        born: u64,
        overlay: Ipv4Addr,
        keys: PairKeys,
        tunnel: Tunnel,
        acknowledged: bool,
    ) -> Self {
        let path = PathAgent::new(now, announcement.addresses(), acknowledged);
        Self {
            announcement,
            born,
            overlay,
            state: State::Joining,
            connect: None,
            traffic: Traffic::default(),
            talk: Talk::new(now),
            path,
            tunnel,
            keys,
            announced_at: now,
            heard_at: now,
            heard_directly: false,
            forsaken: false,
            was_direct: false,
            told: None,
            told_mtu: MTU,
            handshake: None,
            unconfirmed: false,
            confirming: None,
            suspected: None,
            waiting: VecDeque::new(),
        }
    }

    /// As reports show it.
    pub fn view(&self, now: Instant, own: &Own) -> PeerView {
        PeerView {
            role: self.announcement.role,
            overlay: self.overlay,
            state: self.state,
            connect: self.connect,
            route: self.path.selected(),
            rtt: self.path.rtt(),
            mtu: self.path.mtu(),
            nat: self.announcement.nat,
            crossing: self.crossing(own),
            heard_directly: self.heard_directly,
            silent: self.silent(now),
            tx_bytes: self.traffic.tx_bytes,
            rx_bytes: self.traffic.rx_bytes,
            slots: self.announcement.slots,
            offload: self.announcement.offload.clone(),
        }
    }

    /// Who it is.
    pub fn role(&self) -> Role {
        self.announcement.role
    }

    /// Which process it is.
    pub fn boot(&self) -> Boot {
        self.announcement.boot
    }

    /// The index that WireGuard messages for it carry.
    pub fn index(&self) -> u32 {
        self.tunnel.index()
    }

    /// The keys of relay frames.
    pub fn hops(&self) -> &HopKeys {
        &self.keys.hops
    }

    /// The route that carries data.
    pub fn route(&self) -> Option<Route> {
        self.path.selected()
    }

    /// The average round trip on it.
    pub fn rtt(&self) -> Option<Duration> {
        self.path.rtt()
    }

    /// How long nothing was heard of it.
    pub fn silent(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard_at)
    }

    /// For whom it is away; `None` while it is there or about to be.
    pub fn absence(&self) -> Option<Absence> {
        match self.state {
            State::Joining | State::Up => None,
            State::Gone if !self.forsaken => Some(Absence::Silent),
            State::Gone | State::Left => Some(Absence::Forsaken),
        }
    }

    /// When its announcement was first read.
    pub fn announced_at(&self) -> Instant {
        self.announced_at
    }

    /// Whether it can relay: up, by a direct route that answers.
    pub fn can_relay(&self) -> bool {
        self.state == State::Up && self.route().is_some_and(|route| route.is_direct()) && !self.path.is_suspect()
    }

    /// Whether anything of it may come to `socket`.
    pub fn uses(&self, socket: SocketId) -> bool {
        self.path.uses(socket)
    }

    /// How its NAT and ours can be crossed.
    pub fn crossing(&self, own: &Own) -> Crossing {
        can_punch(&own.side, &side_of(&self.announcement))
    }

    /// A newer announcement of the same process, which has `acknowledged` our current addresses or not. What works stays; where it has
    /// moved, the path begins anew.
    pub fn handle_announcement(
        &mut self,
        now: Instant,
        mut announcement: Announcement,
        acknowledged: bool,
        around: &mut Around<'_>,
    ) {
        let moved = announcement.epoch > self.announcement.epoch;
        if !moved {
            let known = &self.announcement;
            (announcement.epoch, announcement.nat) = (known.epoch, known.nat);
            announcement.candidates.clone_from(&known.candidates);
        }
        let back = matches!(self.state, State::Gone | State::Left);
        self.announcement = announcement;
        if moved || back && self.path.selected().is_none() {
            self.handle_moved(now, acknowledged, around);
        } else if acknowledged {
            self.path.handle_acknowledged(now);
        }
    }

    /// Our own addresses have changed: what was opened from the old ones is not.
    pub fn reopen(&mut self, now: Instant, around: &mut Around<'_>) {
        self.path.reopen(now);
        self.begin_anew(now, around);
    }

    /// Who is `able` to relay, and who of them is worth `asking` to.
    pub fn set_relays(&mut self, now: Instant, able: &BTreeSet<Relay>, asking: BTreeSet<Relay>) {
        self.path.set_relays(now, able, asking);
    }

    /// Whether it counts as up and has left a ping unanswered.
    pub fn is_uneasy(&self) -> bool {
        self.state == State::Up && self.path.is_uneasy()
    }

    /// Whether that lasts.
    pub fn is_doubtful(&self) -> bool {
        self.is_uneasy() && self.path.is_doubtful()
    }

    /// Whether it is about to probe many ports of its NAT.
    pub fn is_probing(&self) -> bool {
        self.path.is_probing()
    }

    /// Whether there was a direct route, and it does not answer any more.
    pub fn has_lost_direct(&self) -> bool {
        self.was_direct && !self.path.holds_direct() && self.state != State::Left
    }

    /// Whether there is no direct route yet, though there should be.
    pub fn lacks_direct(&self, own: &Own) -> bool {
        !self.path.selected().is_some_and(|route| route.is_direct()) && self.crossing(own) == Crossing::Direct
    }

    /// Takes a probe that claims to be of this peer; `None` when it is not authentic.
    pub fn handle_probe(
        &mut self,
        now: Instant,
        route: Route,
        datagram: &[u8],
        around: &mut Around<'_>,
    ) -> Option<Word> {
        let line = Line { peer: self.announcement.role, keys: &self.keys.probes, around };
        let word = self.talk.handle(datagram, route, line)?;
        self.path.handle_heard(now, route);
        self.heard_directly |= route.is_direct();
        match &word {
            Word::Pong { transaction, .. } => self.path.handle_pong(now, *transaction, route),
            Word::Call(call) => self.handle_call(now, call, around),
            Word::Farewell(farewell) => self.handle_goodbye(*farewell, around.out),
            Word::Plain | Word::Introduce(_) | Word::Card { .. } => {}
        }
        self.hear(now, around.out);
        Some(word)
    }

    /// The largest inner packet that it can be sent.
    pub fn mtu(&self) -> u16 {
        self.path.mtu()
    }

    /// The system finds what we send to it too long.
    pub fn handle_too_long(&mut self, now: Instant) {
        self.path.handle_too_long(now);
    }

    /// Says something, and repeats it a few times, since nothing answers it.
    pub fn tell(&mut self, now: Instant, telling: Telling) {
        self.talk.tell(now, telling);
    }

    /// Begins to say goodbye. A peer without a path cannot be told.
    pub fn say_goodbye(&mut self, now: Instant, farewell: Farewell) {
        if self.path.selected().is_some() && !matches!(self.state, State::Left) {
            self.talk.say_goodbye(now, farewell);
        }
    }

    /// Whether nothing more is to be said: no goodbye was begun, it was heard, or it was repeated to the end.
    pub fn has_said_goodbye(&self) -> bool {
        self.talk.has_said_goodbye()
    }

    /// WireGuard's own timers; due every 250 ms.
    pub fn tick(&mut self, out: &mut Output) {
        if self.state == State::Left {
            return;
        }
        let message = self.tunnel.tick();
        if let (Some(route), Some(bytes)) = (self.path.selected(), message) {
            out.send(self.announcement.role, route, None, bytes);
        }
    }

    /// Takes what has come due. `may_probe`: whether a spray's probes may leave.
    pub fn handle_timeout(&mut self, now: Instant, may_probe: bool, around: &mut Around<'_>) {
        let (peer, keys) = (self.announcement.role, &self.keys.probes);
        self.talk.repeat_goodbye(now, self.path.selected(), Line { peer, keys, around });
        if self.state == State::Left {
            return;
        }
        self.path.handle_timeout(now, may_probe);
        Talk::send_pings(now, &mut self.path, Line { peer, keys, around });
        if let Some(route) = self.path.selected() {
            let opened = (!self.path.is_direct()).then_some(self.announcement.epoch);
            self.talk.repeat(now, route, opened, Line { peer, keys, around });
        }
        self.notice_silence(now, around.out);
        self.notice_changes(around.out);
        self.drive_handshake(now, around.own, around.out);
        self.confirm(now, around.out);
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let goodbye = self.talk.goodbye_at();
        if self.state == State::Left {
            return goodbye;
        }
        let silence = match self.state {
            State::Up => Some(self.heard_at + GONE_AFTER),
            State::Gone if !self.forsaken => Some(self.heard_at + FORSAKEN_AFTER),
            _ => None,
        };
        let handshake = self.path.selected().and_then(|_| self.handshake.as_ref()?.next());
        let confirm = self.confirming.as_ref().and_then(Schedule::next);
        let talk = self.path.selected().and_then(|_| self.talk.poll_timeout(!self.path.is_direct()));
        let path = self.path.poll_timeout();
        [goodbye, silence, handshake, confirm, talk, path].into_iter().flatten().min()
    }
}

/// Between a peer and the internet, as far as it announces it: an own interface with a public address has no NAT.
fn side_of(announcement: &Announcement) -> Side {
    let public = |candidate: &Candidate| {
        candidate.kind == Kind::Host && candidate.addr.is_ipv4() && !is_private(candidate.addr.ip())
    };
    if announcement.candidates.iter().any(public) {
        return Side::Public;
    }
    Side::Nat(announcement.nat, Filtering::Unknown)
}
