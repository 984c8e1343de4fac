//! Our registration at one `mesh relay`: asked for until it is there, and held. What passes through it is sealed elsewhere.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::{Rng, RngCore};

use super::key::KeyId;
use super::registration::{self, Body, Cookie, Message};
use super::relay::{self, Head, HopKey};
use super::role::Role;
use super::schedule::{Ladder, Schedule};

/// Until an answer comes. A relay that is down is asked now and then.
const ASKING: Ladder = Ladder { front_ms: &[0, 100, 300, 700, 1500, 3000], every: Some(Duration::from_secs(3)) };

/// How often the place is held once it is there: below the 20 s of the most forgetful NATs, and well below what the relay forgets after.
const HOLD: Duration = Duration::from_secs(10);

/// The least time between two of them.
const HASTE: Duration = Duration::from_millis(400);

/// So many questions without an answer, and we are not registered any more.
const PATIENCE: usize = 4;

/// A relay that has not taken us for so long is worth a word: one question is lost, five are not.
const MISSED: Duration = Duration::from_secs(5);

/// What an answer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing that we asked for.
    Foreign,
    /// It wants to be asked again.
    Challenged,
    /// We are registered, and seen at this address.
    Registered(SocketAddr),
}

/// One registration.
pub struct RelayClient {
    server: SocketAddr,
    id: KeyId,
    key: [u8; 32],
    run: [u8; 16],
    role: Role,
    hop: HopKey,
    cookie: Cookie,
    transaction: u64,
    asking: Schedule,
    registered: bool,
    /// When we were last registered; before that, when we began.
    there_at: Instant,
    /// It was told that it does not take us.
    missed: bool,
    observed: Option<SocketAddr>,
}

impl std::fmt::Debug for RelayClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayClient").field("server", &self.server).finish_non_exhaustive()
    }
}

impl RelayClient {
    /// Begins to register at `server` as `role` of `run`, with the shared key that is named `id` and gives `key`.
    pub fn new(
        now: Instant,
        server: SocketAddr,
        id: KeyId,
        key: [u8; 32],
        run: [u8; 16],
        role: Role,
        rng: &mut impl RngCore,
    ) -> Self {
        Self {
            server,
            id,
            key,
            run,
            role,
            hop: rng.random(),
            cookie: Cookie::default(),
            transaction: rng.random(),
            asking: Schedule::new(ASKING, now),
            registered: false,
            there_at: now,
            missed: false,
            observed: None,
        }
    }

    /// Where the relay is.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// Where the relay sees us, as long as we are registered.
    pub fn observed(&self) -> Option<SocketAddr> {
        self.observed.filter(|_| self.registered)
    }

    /// Whether frames can pass.
    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// What is to be told of it: that it does not take us, or that it does again.
    pub fn take_notice(&mut self, now: Instant) -> Option<bool> {
        if self.registered {
            self.there_at = now;
            return std::mem::take(&mut self.missed).then_some(true);
        }
        let late = !self.missed && now - self.there_at >= MISSED;
        self.missed |= late;
        late.then_some(false)
    }

    /// Our own address has changed, or is in doubt: registers again.
    pub fn restart(&mut self, now: Instant) {
        self.registered = false;
        self.asking = Schedule::new(ASKING, now);
    }

    /// Asks again soon, unless an answer has just come: our address is in doubt.
    pub fn hasten(&mut self, now: Instant) {
        let next = self.asking.next();
        if self.registered && next.is_some_and(|at| at > now && at - now <= HOLD - HASTE) && self.asking.steps() == 0 {
            self.asking = Schedule::new(ASKING, now);
        }
    }

    /// A question that is due.
    pub fn poll_transmit(&mut self, now: Instant, rng: &mut impl RngCore) -> Option<Vec<u8>> {
        if !self.asking.take(now) {
            return None;
        }
        self.registered &= self.asking.steps() <= PATIENCE;
        let Self { run, role, hop, cookie, transaction, .. } = *self;
        let body = Body::Register { run, role, key: hop, cookie };
        Some(registration::seal(&Message { transaction, body }, self.id, &self.key, rng))
    }

    /// Takes what claims to be an answer of the relay.
    pub fn handle_answer(&mut self, now: Instant, datagram: &[u8]) -> Answer {
        let ours = |message: &Message| message.transaction == self.transaction;
        let Some(Message { body, .. }) = registration::open(datagram, &self.key).filter(ours) else {
            return Answer::Foreign;
        };
        match body {
            Body::Challenge(cookie) if cookie != self.cookie => {
                self.cookie = cookie;
                self.transaction = self.transaction.wrapping_add(1);
                self.asking = Schedule::new(ASKING, now);
                Answer::Challenged
            }
            Body::Registered { observed } => {
                self.transaction = self.transaction.wrapping_add(1);
                self.registered = true;
                self.observed = Some(observed);
                self.asking = Schedule::new(ASKING, now + HOLD);
                Answer::Registered(observed)
            }
            Body::Challenge(_) | Body::Register { .. } => Answer::Foreign,
        }
    }

    /// When [`Self::poll_transmit`] has something to say.
    pub fn poll_timeout(&self) -> Instant {
        self.asking.next().expect("the ladder has no end")
    }

    /// Puts a frame around a datagram for `to`.
    pub fn seal(&self, to: Role, datagram: &[u8]) -> Vec<u8> {
        let head = Head { from: self.role, to, by: self.role.number(), relayed: false };
        relay::seal(head, datagram, &self.hop)
    }

    /// As [`Self::seal`], of a datagram that lies behind room for the frame's head.
    pub fn write(&self, to: Role, frame: &mut [u8]) {
        let head = Head { from: self.role, to, by: self.role.number(), relayed: false };
        relay::write(head, frame, &self.hop);
    }

    /// Whom a frame of the relay is from, and what is inside; `None` where it is not authentic or not for us.
    pub fn open<'f>(&self, frame: &'f [u8]) -> Option<(Role, &'f [u8])> {
        let head =
            relay::head(frame).filter(|head| head.to == self.role && head.by == relay::SERVER && head.relayed)?;
        relay::open(frame, &self.hop).map(|datagram| (head.from, datagram))
    }
}
