//! A relay of the user's own (`mesh relay`): takes registrations of runners and passes frames between those of one run. It holds no key
//! that opens what is inside. Sockets and clocks are not here but in `cli::relay`.
//!
//! Whoever is not registered gets nothing but a cookie, as long as its question; what is not authentic is counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use rand::RngCore;
use sha2::Sha256;

use super::key::{KeyId, Secret};
use super::registration::{self, Body, Cookie, Message};
use super::relay::{self, Head, HopKey};
use super::role::Role;

/// A runner that says nothing for so long is forgotten.
const FORGET: Duration = Duration::from_secs(60);

/// How long a cookie is good for, at least.
const COOKIE_LIFE: Duration = Duration::from_secs(120);

/// The most runners at once; each costs about 200 bytes.
const MOST_SESSIONS: usize = 16_384;

/// A runner in its run.
type Place = ([u8; 16], Role);

#[derive(Debug)]
struct Session {
    place: Place,
    key: HopKey,
    last: Instant,
}

/// What it did, for the operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runners registered now.
    pub sessions: usize,
    /// Frames passed on.
    pub frames: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Frames for somebody who is not registered.
    pub undeliverable: u64,
    /// Datagrams that were not authentic or malformed.
    pub dropped: u64,
}

/// What is to be sent.
#[derive(Debug)]
pub enum Outgoing<'d> {
    /// To whoever has asked.
    Answer(SocketAddr, Vec<u8>),
    /// To another runner.
    Frame(Frame<'d>),
}

impl Outgoing<'_> {
    /// Where it goes, and the whole of it.
    pub fn into_bytes(self) -> (SocketAddr, Vec<u8>) {
        match self {
            Self::Answer(to, bytes) => (to, bytes),
            Self::Frame(frame) => (frame.to, relay::seal(frame.head, frame.datagram, &frame.key)),
        }
    }
}

/// A frame on its second hop.
#[derive(Debug)]
pub struct Frame<'d> {
    /// Where it goes.
    pub to: SocketAddr,
    /// Its head. In two runs the same role may be meant.
    pub head: Head,
    key: HopKey,
    datagram: &'d [u8],
}

impl Frame<'_> {
    /// How many bytes it has.
    pub fn length(&self) -> usize {
        relay::OVERHEAD + self.datagram.len()
    }

    /// Writes it into the beginning of `buffer`; `None` where it is longer.
    pub fn write(&self, buffer: &mut [u8]) -> Option<usize> {
        let buffer = buffer.get_mut(..self.length())?;
        buffer[relay::OVERHEAD..].copy_from_slice(self.datagram);
        relay::write(self.head, buffer, &self.key);
        Some(buffer.len())
    }
}

/// The state of a relay.
pub struct RelayServer {
    keys: Vec<(KeyId, [u8; 32])>,
    secret: Secret,
    started: Instant,
    sessions: BTreeMap<SocketAddr, Session>,
    places: BTreeMap<Place, SocketAddr>,
    counts: Counts,
}

impl std::fmt::Debug for RelayServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayServer").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl RelayServer {
    /// One that takes runners with any of `keys`; `secret` makes its cookies.
    pub fn new(now: Instant, keys: Vec<(KeyId, [u8; 32])>, secret: Secret) -> Self {
        let (sessions, places) = (BTreeMap::new(), BTreeMap::new());
        Self { keys, secret, started: now, sessions, places, counts: Counts::default() }
    }

    /// Takes a datagram; gives at most one to be sent, never to somebody who has not proven that it receives at its address, but for one
    /// answer as long as the question.
    pub fn handle_datagram<'d>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &'d [u8],
        rng: &mut impl RngCore,
    ) -> Option<Outgoing<'d>> {
        let answer = if relay::is_frame(datagram) {
            self.pass(now, from, datagram).map(Outgoing::Frame)
        } else {
            self.register(now, from, datagram, rng).map(|answer| Outgoing::Answer(from, answer))
        };
        if answer.is_none() {
            self.counts.dropped += 1;
        }
        answer
    }

    /// Forgets who is silent. To be called every few seconds.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.sessions.retain(|_, session| now.saturating_duration_since(session.last) < FORGET);
        let sessions = &self.sessions;
        self.places.retain(|place, addr| sessions.get(addr).is_some_and(|session| session.place == *place));
    }

    /// What it did so far.
    pub fn counts(&self) -> Counts {
        Counts { sessions: self.sessions.len(), ..self.counts }
    }

    /// How many runs have runners here.
    pub fn runs(&self) -> usize {
        let mut runs: Vec<[u8; 16]> = self.places.keys().map(|(run, _)| *run).collect();
        runs.dedup();
        runs.len()
    }

    fn pass<'d>(&mut self, now: Instant, from: SocketAddr, frame: &'d [u8]) -> Option<Frame<'d>> {
        let head = relay::head(frame)?;
        let session = self.sessions.get_mut(&from).filter(|session| session.place.1 == head.from && !head.relayed)?;
        let datagram = relay::open(frame, &session.key)?;
        session.last = now;
        let place = (session.place.0, head.to);
        let Some((to, session)) = self.places.get(&place).and_then(|to| Some((*to, self.sessions.get(to)?))) else {
            self.counts.undeliverable += 1;
            return None;
        };
        self.counts.frames += 1;
        self.counts.bytes += datagram.len() as u64;
        Some(Frame { to, head: Head { by: relay::SERVER, relayed: true, ..head }, key: session.key, datagram })
    }

    fn register(&mut self, now: Instant, from: SocketAddr, datagram: &[u8], rng: &mut impl RngCore) -> Option<Vec<u8>> {
        let id = registration::key_id(datagram)?;
        let key = self.keys.iter().find(|(known, _)| *known == id)?.1;
        let Message { transaction, body } = registration::open(datagram, &key)?;
        let Body::Register { run, role, key: hop, cookie } = body else { return None };
        let mut answer = |body| registration::seal(&Message { transaction, body }, id, &key, rng);
        if !self.is_good(now, from, cookie) {
            return Some(answer(Body::Challenge(self.cookie(self.slot(now), from))));
        }
        let known = self.sessions.contains_key(&from);
        if !known && self.sessions.len() >= MOST_SESSIONS {
            return None;
        }
        let place = (run, role);
        if let Some(before) = self.places.insert(place, from).filter(|before| *before != from) {
            self.sessions.remove(&before);
        }
        self.sessions.insert(from, Session { place, key: hop, last: now });
        Some(answer(Body::Registered { observed: from }))
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_secs() / COOKIE_LIFE.as_secs()
    }

    fn is_good(&self, now: Instant, from: SocketAddr, cookie: Cookie) -> bool {
        let slot = self.slot(now);
        [slot, slot.saturating_sub(1)].into_iter().any(|slot| self.cookie(slot, from) == cookie)
    }

    /// Bound to the address and the time, so that nothing need be kept for it.
    fn cookie(&self, slot: u64, from: SocketAddr) -> Cookie {
        let mac = Hmac::<Sha256>::new_from_slice(&self.secret.0).expect("HMAC takes a key of any length");
        let whole = mac.chain_update(slot.to_be_bytes()).chain_update(from.to_string()).finalize().into_bytes();
        let mut cookie = Cookie::default();
        cookie.copy_from_slice(&whole[..8]);
        cookie
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::super::relay_client::{Answer, RelayClient};
    use super::*;

    const ID: KeyId = KeyId([1; 4]);
    const KEY: [u8; 32] = [2; 32];

    fn server(now: Instant) -> (RelayServer, ChaCha20Rng) {
        (RelayServer::new(now, vec![(ID, KEY)], Secret([3; 32])), ChaCha20Rng::seed_from_u64(1))
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// A client that has registered from `at`.
    fn registered(server: &mut RelayServer, now: Instant, at: &str, role: Role, rng: &mut ChaCha20Rng) -> RelayClient {
        let mut client = RelayClient::new(now, addr("192.0.2.9:7"), ID, KEY, [9; 16], role, rng);
        for _ in 0..2 {
            let question = client.poll_transmit(now, rng).expect("it asks at once");
            let (to, answer) = server.handle_datagram(now, addr(at), &question, rng).expect("an answer").into_bytes();
            assert_eq!((to, answer.len()), (addr(at), question.len()));
            client.handle_answer(now, &answer);
        }
        assert!(client.is_registered());
        client
    }

    #[test]
    fn a_frame_passes_between_two_registered_runners_of_a_run() {
        let now = Instant::now();
        let (mut server, mut rng) = server(now);
        let one = registered(&mut server, now, "198.51.100.1:1", Role::Primary, &mut rng);
        let two = registered(&mut server, now, "198.51.100.2:2", Role::Aux(0), &mut rng);
        let frame = one.seal(Role::Aux(0), b"hello");
        let passed = server.handle_datagram(now, addr("198.51.100.1:1"), &frame, &mut rng).expect("it passes");
        let mut buffer = [0; 100];
        let Outgoing::Frame(frame) = &passed else { panic!("{passed:?} is no frame") };
        assert_eq!(frame.write(&mut buffer), Some(frame.length()));
        assert_eq!(frame.write(&mut buffer[..frame.length() - 1]), None);
        let written = buffer[..frame.length()].to_vec();
        let (to, passed) = passed.into_bytes();
        assert_eq!(written, passed);
        assert_eq!(to, addr("198.51.100.2:2"));
        assert_eq!(two.open(&passed), Some((Role::Primary, &b"hello"[..])));
        assert_eq!(server.counts(), Counts { sessions: 2, frames: 1, bytes: 5, ..Counts::default() });
    }

    #[test]
    fn who_is_not_registered_or_pretends_to_be_another_is_not_served() {
        let now = Instant::now();
        let (mut server, mut rng) = server(now);
        let one = registered(&mut server, now, "198.51.100.1:1", Role::Primary, &mut rng);
        registered(&mut server, now, "198.51.100.2:2", Role::Aux(0), &mut rng);
        let frame = one.seal(Role::Aux(0), b"hello");
        for from in ["198.51.100.9:9", "198.51.100.2:2"] {
            assert!(server.handle_datagram(now, addr(from), &frame, &mut rng).is_none(), "{from}");
        }
        let unknown = one.seal(Role::Aux(7), b"hello");
        assert!(server.handle_datagram(now, addr("198.51.100.1:1"), &unknown, &mut rng).is_none());
        assert_eq!((server.counts().undeliverable, server.counts().frames), (1, 0));
    }

    #[test]
    fn a_copy_of_a_registration_from_elsewhere_changes_nothing() {
        let now = Instant::now();
        let (mut server, mut rng) = server(now);
        let mut client = registered(&mut server, now, "198.51.100.1:1", Role::Primary, &mut rng);
        let later = now + Duration::from_secs(10);
        let again = client.poll_transmit(later, &mut rng).expect("it holds its place");
        let (to, answer) =
            server.handle_datagram(later, addr("203.0.113.6:6"), &again, &mut rng).expect("a challenge").into_bytes();
        assert_eq!((to, answer.len()), (addr("203.0.113.6:6"), again.len()));
        assert_eq!(server.counts().sessions, 1);
        assert_eq!(server.places.values().copied().collect::<Vec<_>>(), [addr("198.51.100.1:1")]);
    }

    #[test]
    fn a_runner_that_moves_takes_its_place_along_and_a_silent_one_is_forgotten() {
        let now = Instant::now();
        let (mut server, mut rng) = server(now);
        registered(&mut server, now, "198.51.100.1:1", Role::Primary, &mut rng);
        registered(&mut server, now, "198.51.100.1:77", Role::Primary, &mut rng);
        assert_eq!((server.counts().sessions, server.runs()), (1, 1));
        server.handle_timeout(now + FORGET);
        assert_eq!((server.counts().sessions, server.runs()), (0, 0));
    }

    #[test]
    fn a_runner_with_another_key_gets_no_answer() {
        let now = Instant::now();
        let (mut server, mut rng) = server(now);
        for (id, key) in [(ID, [8; 32]), (KeyId([8; 4]), KEY)] {
            let mut client = RelayClient::new(now, addr("192.0.2.9:7"), id, key, [9; 16], Role::Primary, &mut rng);
            let question = client.poll_transmit(now, &mut rng).expect("it asks at once");
            assert!(server.handle_datagram(now, addr("198.51.100.1:1"), &question, &mut rng).is_none());
        }
        assert_eq!(server.counts().dropped, 2);
    }

    #[test]
    fn a_relay_that_stays_silent_is_noticed_and_asked_on() {
        let now = Instant::now();
        let (mut server, mut rng) = server(now);
        let mut client = registered(&mut server, now, "198.51.100.1:1", Role::Primary, &mut rng);
        let mut lost_after = None;
        for _ in 0..12 {
            let at = client.poll_timeout();
            assert!(client.poll_transmit(at, &mut rng).is_some_and(|bytes| bytes.len() == registration::LEN));
            if !client.is_registered() {
                lost_after.get_or_insert(at - now);
            }
        }
        assert!(lost_after.is_some_and(|after| after < Duration::from_secs(13)), "{lost_after:?}");
        assert_eq!(client.handle_answer(now, b"nonsense"), Answer::Foreign);
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_changes_nothing(bytes: Vec<u8>, frame: bool) {
            let now = Instant::now();
            let (mut server, mut rng) = server(now);
            registered(&mut server, now, "198.51.100.1:1", Role::Primary, &mut rng);
            let bytes = if frame { [b"MSR1", &bytes[..]].concat() } else { bytes };
            prop_assert!(server.handle_datagram(now, addr("198.51.100.1:1"), &bytes, &mut rng).is_none());
            prop_assert_eq!(server.counts().sessions, 1);
        }
    }
}
