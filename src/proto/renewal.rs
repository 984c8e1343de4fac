//! When this process takes a fresh socket, and so a fresh mapping in its NAT. A path that is lost cannot be punched again from the old
//! port: what was sent from it before the other side had opened has made that NAT bind flows of its own, and each retry keeps them.
//!
//! Two reasons: STUN servers see our mapping moved, which every peer must learn; or an aux hears nothing of its primary. A primary whose
//! own mapping stands does not move for one silent aux: the others' paths would be lost with it.

use std::time::{Duration, Instant};

use super::schedule::{Ladder, Schedule};

/// From a fresh socket in use to the next one at least: each costs an announcement, and its readers seconds.
const APART: Duration = Duration::from_secs(15);

/// While the primary stays silent.
const LOST: Ladder = Ladder { front_ms: &[0, 20_000, 60_000], every: Some(Duration::from_secs(60)) };

/// How long a first path may take, after both sides have published, before its port is given up; and a peer that was found gone without
/// having been suspected, as by a process that was itself asleep.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Why a fresh socket is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Where we announced that we are, we are not: the mapping has moved, so often by now, or each server sees another.
    Astray(u32),
    /// There is no direct path to the primary, or for a primary to anybody, though there should be one.
    Lost,
}

/// Keeps the reasons and the pace.
#[derive(Debug, Default)]
pub struct Renewal {
    /// Since when our addresses are known to be other than announced.
    astray: Option<Instant>,
    /// How often our mapping has moved.
    moves: u32,
    lost: Option<Schedule>,
    /// How many steps of `lost` are worth it.
    most: Option<usize>,
    /// Since when a step of `lost` waits for its turn.
    overdue: Option<Instant>,
    /// When the newest fresh socket came into use.
    last: Option<Instant>,
}

impl Renewal {
    /// STUN says that our mapping has moved.
    pub fn handle_moved(&mut self, now: Instant) {
        if self.astray.is_none() {
            self.moves += 1;
        }
        self.handle_astray(now);
    }

    /// Peers come to another address than the one we announced.
    pub fn handle_astray(&mut self, now: Instant) {
        self.astray.get_or_insert(now);
    }

    /// How often our mapping has moved.
    pub fn moves(&self) -> u32 {
        self.moves
    }

    /// There is no direct path to the primary, though there should be one; a renewal is worth it after `patience`, and `most` times where
    /// that is given. Said again and again, it counts from the first time.
    pub fn handle_lost(&mut self, now: Instant, patience: Duration, most: Option<usize>) {
        self.lost.get_or_insert_with(|| Schedule::new(LOST, now + patience));
        self.most = most;
    }

    /// How often it was tried since there was a path.
    pub fn tries(&self) -> usize {
        self.lost.as_ref().map_or(0, Schedule::steps)
    }

    /// The path to the primary works, or no fresh socket will make it.
    pub fn handle_found(&mut self) {
        (self.lost, self.overdue) = (None, None);
    }

    /// STUN has answered on the fresh socket: now it can be of use.
    pub fn handle_settled(&mut self, now: Instant) {
        self.last = self.last.map(|_| now);
    }

    /// Why it is time, if it is; that moment is taken.
    pub fn take(&mut self, now: Instant) -> Option<Reason> {
        let most = self.most.unwrap_or(usize::MAX);
        if self.lost.as_mut().filter(|lost| lost.steps() < most).is_some_and(|lost| lost.take(now)) {
            self.overdue.get_or_insert(now);
        }
        self.due().filter(|at| *at <= now)?;
        let reason = self.astray.map_or(Reason::Lost, |_| Reason::Astray(self.moves));
        (self.astray, self.overdue, self.last) = (None, None, Some(now));
        Some(reason)
    }

    /// Whether there has been one.
    pub fn has_happened(&self) -> bool {
        self.last.is_some()
    }

    /// When [`Self::take`] may have something to say.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let most = self.most.unwrap_or(usize::MAX);
        let step =
            self.lost.as_ref().filter(|lost| lost.steps() < most && self.overdue.is_none()).and_then(Schedule::next);
        self.due().into_iter().chain(step).min()
    }

    fn due(&self) -> Option<Instant> {
        let earliest = self.last.map(|last| last + APART);
        self.astray
            .into_iter()
            .chain(self.overdue)
            .min()
            .max(earliest)
            .filter(|_| self.astray.or(self.overdue).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn times(renewal: &mut Renewal, start: Instant, until: u64) -> Vec<u64> {
        (0..until).filter(|second| renewal.take(start + secs(*second)).is_some()).collect()
    }

    #[test]
    fn a_moved_mapping_is_renewed_at_once_and_never_twice_within_fifteen_seconds() {
        let (now, mut renewal) = (Instant::now(), Renewal::default());
        renewal.handle_moved(now);
        renewal.handle_moved(now);
        assert_eq!(renewal.take(now), Some(Reason::Astray(1)));
        renewal.handle_settled(now + secs(1));
        renewal.handle_moved(now + secs(3));
        assert_eq!(renewal.moves(), 2);
        assert_eq!(renewal.poll_timeout(), Some(now + secs(1) + APART));
        assert_eq!(times(&mut renewal, now, 100), [16]);
    }

    #[test]
    fn a_lost_primary_is_worth_ever_fewer_renewals() {
        let (now, mut renewal) = (Instant::now(), Renewal::default());
        renewal.handle_lost(now, secs(2), None);
        renewal.handle_lost(now + secs(1), secs(2), None);
        assert_eq!(times(&mut renewal, now, 200), [2, 22, 62, 122, 182]);
    }

    #[test]
    fn while_a_relay_carries_the_data_a_few_renewals_are_enough() {
        let (now, mut renewal) = (Instant::now(), Renewal::default());
        renewal.handle_lost(now, secs(2), Some(3));
        assert_eq!(times(&mut renewal, now, 500), [2, 22, 62]);
        assert_eq!((renewal.tries(), renewal.poll_timeout()), (3, None));
    }

    #[test]
    fn a_fresh_socket_that_took_long_to_come_into_use_has_its_time() {
        let (now, mut renewal) = (Instant::now(), Renewal::default());
        renewal.handle_lost(now, secs(0), None);
        assert_eq!(renewal.take(now), Some(Reason::Lost));
        renewal.handle_settled(now + secs(58));
        assert_eq!(renewal.take(now + secs(58)), None, "the step of 20 s waits");
        renewal.handle_lost(now + secs(60), secs(0), None);
        renewal.handle_found();
        assert_eq!(renewal.poll_timeout(), None);
        assert!(times(&mut renewal, now, 200).is_empty());
    }

    #[test]
    fn a_path_that_works_again_ends_it() {
        let (now, mut renewal) = (Instant::now(), Renewal::default());
        renewal.handle_lost(now, secs(2), None);
        renewal.handle_found();
        assert!(times(&mut renewal, now, 100).is_empty());
    }
}
