//! The birthday spray, for a pair of which one NAT keeps its port for everyone (the *easy* side) and the other has another for each peer
//! (the *hard* side). The hard side opens from many sockets towards the easy side's one address; the easy side probes many ports of the
//! hard side's address until one of them is open.
//!
//! The hard side's datagrams have a low TTL: at full TTL those that come first would clash at the easy side's NAT, and that port would be
//! lost for the pair. With 320 sockets and 1,280 probes among 64,512 ports the chance to miss is below two in a thousand (birthday paradox;
//! RFC 5128 section 3.3 has the idea, for two unknown ports).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::guess::Guesses;
use super::route::{Route, SocketId};
use super::schedule::{Ladder, Schedule};

/// From how many sockets the hard side opens.
pub const SOCKETS: u16 = 320;

/// How many ports the easy side probes at most.
pub const PROBES: usize = 2560;

/// The first of them in a hurry: those that all but two in a thousand runs need.
const HURRIED: usize = 1600;

/// How many at once, and how often: 250 a second, which no NAT on the way takes for an attack, for 6.4 s; then 50.
const VOLLEY: usize = 5;
const PACE: Duration = Duration::from_millis(20);
const SLOW_PACE: Duration = Duration::from_millis(100);

/// When the hard side opens: within the 30 s after which Linux forgets an unanswered mapping, and not for ever.
const OPENING: Ladder = Ladder { front_ms: &[0, 10_000, 20_000, 30_000, 45_000, 60_000], every: None };

/// One side's part.
#[derive(Debug)]
pub struct Spray(Part);

#[derive(Debug)]
enum Part {
    Hard { rounds: Schedule, towards: Vec<SocketAddr> },
    Easy { guesses: Box<Guesses>, left: usize, next: Instant, at: Vec<IpAddr> },
}

impl Spray {
    /// The part of the side whose NAT has another port for everyone: opens `towards` the other's mapped addresses.
    pub fn hard(now: Instant, towards: Vec<SocketAddr>) -> Self {
        Self(Part::Hard { rounds: Schedule::new(OPENING, now), towards })
    }

    /// The part of the side whose port is the same for everyone: probes ports `at` the other's addresses, the likeliest first.
    pub fn easy(now: Instant, at: Vec<IpAddr>, guesses: Guesses) -> Self {
        Self(Part::Easy { guesses: Box::new(guesses), left: PROBES, next: now, at })
    }

    /// Whether it probes, at full TTL, and is not done.
    pub fn is_probing(&self) -> bool {
        matches!(self.0, Part::Easy { left: 1.., .. })
    }

    /// Whether it opens from many sockets.
    pub fn is_opening(&self) -> bool {
        matches!(self.0, Part::Hard { .. })
    }

    /// What has come due.
    pub fn take(&mut self, now: Instant) -> Vec<Route> {
        match &mut self.0 {
            Part::Hard { rounds, towards } => {
                if !rounds.take(now) {
                    return vec![];
                }
                let sockets = (0..SOCKETS).map(|number| SocketId(SocketId::FIRST_OF_SPRAY.0 + number));
                let towards = &*towards;
                sockets
                    .flat_map(|socket| towards.iter().map(move |addr| Route::Direct { socket, addr: *addr }))
                    .collect()
            }
            Part::Easy { guesses, left, next, at } => {
                if *next > now {
                    return vec![];
                }
                *next = now + if PROBES - *left < HURRIED { PACE } else { SLOW_PACE };
                let ports: Vec<u16> = guesses.take(VOLLEY.min(*left)).collect();
                *left = if ports.is_empty() { 0 } else { *left - ports.len() };
                let at = &*at;
                ports.into_iter().flat_map(|port| at.iter().map(move |ip| Route::to((*ip, port).into()))).collect()
            }
        }
    }

    /// When [`Self::take`] has something to say.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.0 {
            Part::Hard { rounds, .. } => rounds.next(),
            Part::Easy { left, next, .. } => (*left > 0).then_some(*next),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::super::nat::ports::Ports;
    use super::*;

    fn story(mut spray: Spray, now: Instant) -> Vec<(Duration, Route)> {
        let mut sent = vec![];
        while let Some(at) = spray.poll_timeout() {
            assert!(at - now < Duration::from_secs(300), "it ends");
            sent.extend(spray.take(at).into_iter().map(|route| (at - now, route)));
        }
        sent
    }

    #[test]
    fn the_hard_side_opens_from_every_socket_a_few_times_and_ends() {
        let now = Instant::now();
        let sent = story(Spray::hard(now, vec!["198.51.100.1:7".parse().expect("an address")]), now);
        assert_eq!(sent.len(), usize::from(SOCKETS) * 6);
        assert_eq!(sent.iter().map(|(_, route)| route).collect::<BTreeSet<_>>().len(), usize::from(SOCKETS));
    }

    #[test]
    fn the_easy_side_probes_each_port_once_most_of_them_within_seven_seconds_and_ends() {
        let now = Instant::now();
        let guesses = Guesses::new(Ports::Random, PROBES, ChaCha20Rng::seed_from_u64(1));
        let sent = story(Spray::easy(now, vec!["198.51.100.1".parse().expect("an address")], guesses), now);
        assert_eq!(sent.iter().map(|(_, route)| route).collect::<BTreeSet<_>>().len(), PROBES);
        assert!(sent.iter().filter(|(at, _)| *at < Duration::from_secs(7)).count() >= HURRIED);
    }
}
