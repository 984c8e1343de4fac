//! What happened, as all threads write it down: bytes, faults, pauses, rebindings. Not here: what is made of it ([`super::verdict`]).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Shorter pauses are a lost packet or two.
const WORTH: Duration = Duration::from_millis(300);

/// A pause that begins this long after a rebinding may come of it.
pub(super) const AFTERMATH: Duration = Duration::from_secs(10);

/// As many are kept of each kind.
const LONGEST: usize = 5;

/// As many faults are told of.
const TOLD: usize = 20;

/// What stood still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing of a bulk transfer came.
    Bulk,
    /// No answer to a request over TCP.
    Request,
    /// No answer to any datagram.
    Datagram,
    /// A connection was opened. A lost SYN is repeated after 1 s, the next after 2 s more (RFC 6298): no fault of the mesh.
    Opening,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Bulk, Self::Request, Self::Datagram, Self::Opening];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bulk => "TCP transfer",
            Self::Request => "TCP request",
            Self::Datagram => "UDP echo",
            Self::Opening => "opening of a TCP connection",
        }
    }

    /// Whether the limit of stalls is for it.
    pub(super) fn is_judged(self) -> bool {
        self != Self::Opening
    }
}

/// A time for which nothing came.
#[derive(Debug, Clone)]
pub(super) struct Pause {
    pub(super) who: String,
    /// Since the load began.
    pub(super) began: Duration,
    pub(super) took: Duration,
    /// The last rebinding before its end, and when.
    pub(super) after: Option<(String, Duration)>,
}

/// All pauses of one kind, after rebindings or not.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// Those longer than the limit.
    pub(super) stalls: usize,
    pub(super) longest: Vec<Pause>,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) count: usize,
    pub(super) first: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Book {
    began: Instant,
    /// When that was, as RFC 3339 writes it: what the logs of `mesh` have.
    pub(super) since: String,
    limit: Duration,
    /// From then on nothing new is begun.
    pub(super) closing: AtomicBool,
    /// From then on nothing goes on.
    pub(super) over: AtomicBool,
    /// Who has something under way: transfers, and who asks.
    pub(super) busy: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) whole: AtomicU64,
    pub(super) answers: AtomicU64,
    pub(super) datagrams: AtomicU64,
    pub(super) echoes: AtomicU64,
    corrupt: Mutex<Faults>,
    broken: Mutex<Faults>,
    rebindings: Mutex<Vec<(String, Duration)>>,
    pauses: Mutex<[[Pauses; 2]; 4]>,
    /// What TCP said of transfers that stood still.
    silences: Mutex<Faults>,
}

impl Book {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            began: Instant::now(),
            since: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            limit,
            closing: AtomicBool::default(),
            over: AtomicBool::default(),
            busy: AtomicU64::default(),
            bytes: AtomicU64::default(),
            whole: AtomicU64::default(),
            answers: AtomicU64::default(),
            datagrams: AtomicU64::default(),
            echoes: AtomicU64::default(),
            corrupt: Mutex::default(),
            broken: Mutex::default(),
            rebindings: Mutex::default(),
            pauses: Mutex::default(),
            silences: Mutex::default(),
        }
    }

    /// How long the load lasts already.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Does `work`, which the end of the load waits for.
    pub(super) fn busily(&self, work: impl FnOnce()) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        work();
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn note_corrupt(&self, what: String) {
        self.note_fault(&self.corrupt, what);
    }

    pub(super) fn note_broken(&self, what: String) {
        self.note_fault(&self.broken, what);
    }

    pub(super) fn corrupt(&self) -> MutexGuard<'_, Faults> {
        lock(&self.corrupt)
    }

    pub(super) fn broken(&self) -> MutexGuard<'_, Faults> {
        lock(&self.broken)
    }

    pub(super) fn note_silence(&self, what: String) {
        self.note_fault(&self.silences, what);
    }

    pub(super) fn silences(&self) -> MutexGuard<'_, Faults> {
        lock(&self.silences)
    }

    pub(super) fn note_rebinding(&self, who: &str) {
        lock(&self.rebindings).push((who.to_owned(), self.elapsed()));
    }

    pub(super) fn rebindings(&self) -> usize {
        lock(&self.rebindings).len()
    }

    /// Nothing came from then to now.
    pub(super) fn note_pause(&self, kind: Kind, who: &str, from: Instant) {
        let took = from.elapsed();
        if took >= WORTH {
            let began = self.elapsed().saturating_sub(took);
            let after = lock(&self.rebindings).iter().rev().find(|(_, at)| *at <= began + took).cloned();
            self.keep(kind, Pause { who: who.to_owned(), began, took, after });
        }
    }

    fn keep(&self, kind: Kind, pause: Pause) {
        let mut pauses = lock(&self.pauses);
        let place = &mut pauses[kind as usize][usize::from(pause.is_aftermath())];
        place.stalls += usize::from(pause.took > self.limit);
        place.longest.push(pause);
        place.longest.sort_by_key(|pause| std::cmp::Reverse(pause.took));
        place.longest.truncate(LONGEST);
    }

    /// Calls `look` with those of this kind.
    pub(super) fn pauses<T>(&self, kind: Kind, aftermath: bool, look: impl FnOnce(&Pauses) -> T) -> T {
        look(&lock(&self.pauses)[kind as usize][usize::from(aftermath)])
    }

    fn note_fault(&self, faults: &Mutex<Faults>, what: String) {
        let mut faults = lock(faults);
        faults.count += 1;
        if faults.first.len() < TOLD {
            faults.first.push(format!("at {:.1} s: {what}", self.elapsed().as_secs_f64()));
        }
    }
}

impl Pause {
    /// One that a rebinding falls into is one too.
    pub(super) fn is_aftermath(&self) -> bool {
        self.after.as_ref().is_some_and(|(_, at)| self.began <= *at + AFTERMATH)
    }
}

/// The heartbeat of something that must not stand still.
#[derive(Debug)]
pub(super) struct Pulse<'a> {
    book: &'a Book,
    kind: Kind,
    who: &'a str,
    last: Mutex<Option<Instant>>,
}

impl<'a> Pulse<'a> {
    /// It does not beat yet.
    pub(super) fn new(book: &'a Book, kind: Kind, who: &'a str) -> Self {
        Self { book, kind, who, last: Mutex::default() }
    }

    /// Something came.
    pub(super) fn beat(&self) {
        if let Some(last) = lock(&self.last).replace(Instant::now()) {
            self.book.note_pause(self.kind, self.who, last);
        }
    }

    /// How long nothing has come that should have.
    pub(super) fn silent_for(&self) -> Duration {
        lock(&self.last).map_or(Duration::ZERO, |last| last.elapsed())
    }

    /// Nothing more is to come; until now it should have.
    pub(super) fn stop(&self) {
        if let Some(last) = lock(&self.last).take() {
            self.book.note_pause(self.kind, self.who, last);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(began: u64, took: u64) -> Pause {
        let [began, took] = [began, took].map(Duration::from_secs);
        Pause { who: "a > b".into(), began, took, after: Some(("a".into(), Duration::from_secs(60))) }
    }

    #[test]
    fn a_pause_is_an_aftermath_when_a_rebinding_falls_into_it_or_shortly_before() {
        let all = [(58, 3), (60, 1), (70, 1), (71, 1)].map(|(began, took)| pause(began, took).is_aftermath());

        assert_eq!(all, [true, true, true, false]);
        assert!(!Pause { after: None, ..pause(58, 3) }.is_aftermath());
    }

    #[test]
    fn the_longest_are_kept_and_all_above_the_limit_counted() {
        let book = Book::new(Duration::from_secs(2));

        (1..=9).for_each(|took| book.keep(Kind::Bulk, pause(100, took)));

        let (stalls, longest) = book.pauses(Kind::Bulk, false, |all| {
            (all.stalls, all.longest.iter().map(|pause| pause.took.as_secs()).collect::<Vec<_>>())
        });
        assert_eq!((stalls, longest), (7, vec![9, 8, 7, 6, 5]));
    }
}
