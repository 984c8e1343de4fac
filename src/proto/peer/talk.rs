//! What is said to one peer in probes, and what it says: pings and their answers, calls, introductions, goodbyes. What follows from it is
//! decided in [`super`].

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use rand::Rng;

use super::super::announcement::Announcement;
use super::super::call::Call;
use super::super::key::ProbeKeys;
use super::super::output::Around;
use super::super::path::{PathAgent, Reach};
use super::super::probe::{self, Body, Farewell, Probe, Transaction};
use super::super::role::Role;
use super::super::route::Route;
use super::super::schedule::{Ladder, Schedule};

/// A goodbye is said until it is heard, and no longer than its speaker has time.
const GOODBYE: Ladder = Ladder { front_ms: &[0, 50, 100, 200, 400, 700, 1000], every: None };

/// Calls over a relay, while there is no direct path.
const CALLING: Ladder = Ladder { front_ms: &[0, 200, 600, 1500], every: Some(Duration::from_secs(5)) };

/// What nothing answers is said four times.
const TELLING: Ladder = Ladder { front_ms: &[0, 150, 500, 1500], every: None };

/// The most that waits to be said.
const MOST_TELLINGS: usize = 32;

/// Where nobody was seen.
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// Said without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Telling {
    /// To the primary: there is something for this one.
    Introduce(Role),
    /// From the primary: somebody who may be reached directly.
    Card(Box<Announcement>, u64),
}

/// What a peer said.
#[derive(Debug)]
pub enum Word {
    /// Nothing that others need to know.
    Plain,
    /// It heard our ping.
    Pong {
        /// Which.
        transaction: Transaction,
        /// Where it saw us; over a relay that says nothing.
        observed: SocketAddr,
    },
    /// Where it is.
    Call(Box<Call>),
    /// It wants to reach somebody.
    Introduce(Role),
    /// Somebody wants to be reached by us, or can be.
    Card {
        /// Who, and where.
        announcement: Box<Announcement>,
        /// As the rendezvous counts.
        born: u64,
    },
    /// It leaves.
    Farewell(Farewell),
}

/// What is being said to a peer.
#[derive(Debug)]
pub(super) struct Talk {
    calling: Schedule,
    tellings: Vec<(Telling, Schedule)>,
    goodbye: Option<(Farewell, Schedule)>,
    goodbye_heard: bool,
}

impl Talk {
    pub(super) fn new(now: Instant) -> Self {
        Self { calling: Schedule::new(CALLING, now), tellings: vec![], goodbye: None, goodbye_heard: false }
    }

    /// Something in a call has changed.
    pub(super) fn call_again(&mut self, now: Instant) {
        self.calling = Schedule::new(CALLING, now);
    }

    pub(super) fn tell(&mut self, now: Instant, word: Telling) {
        self.tellings.retain(|(known, schedule)| *known != word && schedule.next().is_some());
        if self.tellings.len() < MOST_TELLINGS {
            self.tellings.push((word, Schedule::new(TELLING, now)));
        }
    }

    pub(super) fn say_goodbye(&mut self, now: Instant, farewell: Farewell) {
        self.goodbye = Some((farewell, Schedule::new(GOODBYE, now)));
        self.goodbye_heard = false;
    }

    pub(super) fn has_said_goodbye(&self) -> bool {
        self.goodbye_heard || self.goodbye.as_ref().is_none_or(|(_, schedule)| schedule.next().is_none())
    }

    /// Opens a probe and answers what asks for an answer; `None` where it is not authentic.
    pub(super) fn handle(&mut self, datagram: &[u8], route: Route, mut line: Line<'_, '_>) -> Option<Word> {
        let Probe { transaction, body } = probe::open(datagram, line.keys)?;
        Some(match body {
            Body::Ping { .. } => {
                // Over a relay nobody sees an address of ours.
                line.say(route, transaction, Body::Pong { observed: route.addr().unwrap_or(NOWHERE) });
                Word::Plain
            }
            Body::Pong { observed } => Word::Pong { transaction, observed },
            Body::Call(call) => Word::Call(call),
            Body::Introduce(role) => Word::Introduce(role),
            Body::Card { announcement, born } => Word::Card { announcement, born },
            Body::Bye(farewell) => {
                line.say(route, transaction, Body::ByeAck);
                Word::Farewell(farewell)
            }
            Body::ByeAck => {
                self.goodbye_heard = true;
                Word::Plain
            }
        })
    }

    /// Sends the pings that have come due.
    pub(super) fn send_pings(now: Instant, path: &mut PathAgent, mut line: Line<'_, '_>) {
        loop {
            let transaction = line.around.rng.random();
            let Some(ping) = path.poll_ping(now, transaction) else { return };
            let ttl = (ping.reach == Reach::Opening).then_some(line.around.own.opening_ttl);
            let body = Body::Ping { epoch: line.around.own.epoch };
            line.send(ping.route, ttl, ping.length, &Probe { transaction, body });
        }
    }

    /// Repeats what is to be said over `route`. `opened`: the peer's epoch that we have opened towards, where it must be called.
    pub(super) fn repeat(&mut self, now: Instant, route: Route, opened: Option<u32>, mut line: Line<'_, '_>) {
        // While our own addresses are not known there is nothing to call with; when they are, calling begins anew.
        if let Some(opened) = opened
            && self.calling.take(now)
            && !line.around.own.candidates.is_empty()
        {
            let call = line.around.own.call(opened);
            line.tell(route, Body::Call(Box::new(call)));
        }
        for (telling, schedule) in &mut self.tellings {
            if schedule.take(now) {
                line.tell(route, telling.body());
            }
        }
    }

    /// Repeats the goodbye over `route`.
    pub(super) fn repeat_goodbye(&mut self, now: Instant, route: Option<Route>, mut line: Line<'_, '_>) {
        let Some((farewell, schedule)) = &mut self.goodbye else { return };
        if !self.goodbye_heard
            && schedule.take(now)
            && let Some(route) = route
        {
            line.tell(route, Body::Bye(*farewell));
        }
    }

    /// When [`Self::repeat_goodbye`] has something to say.
    pub(super) fn goodbye_at(&self) -> Option<Instant> {
        self.goodbye.as_ref().filter(|_| !self.goodbye_heard).and_then(|(_, schedule)| schedule.next())
    }

    /// When [`Self::repeat`] has something to say, with or without calls.
    pub(super) fn poll_timeout(&self, calling: bool) -> Option<Instant> {
        let tellings = self.tellings.iter().filter_map(|(_, schedule)| schedule.next());
        tellings.chain(self.calling.next().filter(|_| calling)).min()
    }
}

impl Telling {
    fn body(&self) -> Body {
        match self {
            Self::Introduce(role) => Body::Introduce(*role),
            Self::Card(announcement, born) => Body::Card { announcement: announcement.clone(), born: *born },
        }
    }
}

/// A way to say something to one peer.
#[derive(Debug)]
pub(super) struct Line<'l, 'a> {
    pub(super) peer: Role,
    pub(super) keys: &'l ProbeKeys,
    pub(super) around: &'l mut Around<'a>,
}

impl Line<'_, '_> {
    fn say(&mut self, route: Route, transaction: Transaction, body: Body) {
        self.send(route, None, 0, &Probe { transaction, body });
    }

    fn tell(&mut self, route: Route, body: Body) {
        let transaction = self.around.rng.random();
        self.say(route, transaction, body);
    }

    fn send(&mut self, route: Route, ttl: Option<u8>, length: usize, probe: &Probe) {
        let bytes = probe::seal(probe, self.around.own.role, self.peer, self.keys, length, self.around.rng);
        self.around.out.send(self.peer, route, ttl, bytes);
    }
}
