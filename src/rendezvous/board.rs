//! What we keep up at the rendezvous and what we have read there: seals under fresh names and tries again, opens what is new, counts what
//! is not ours. Which announcements matter is not decided here but in `proto::node`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng;
use tokio::task::JoinSet;

use super::{Entry, Error, Rendezvous};
use crate::link::clock;
use crate::proto::announcement::{self, Announcement, Boot, LIFETIME, Name, Rejected};
use crate::proto::keyring::KeyRing;
use crate::proto::role::Role;

/// Waits between tries of a publication, at first and at most. GitHub's services fail for seconds or for hours.
const FIRST_WAIT: Duration = Duration::from_millis(300);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// A service may ask for more patience than a build has.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Entries fetched at once: a primary may find 255 new ones.
const PARALLEL_FETCHES: usize = 16;

/// Waits between tries of a fetch, at first and at most: an outage of minutes must not lose a peer, nor a damaged artifact cost much.
const FIRST_FETCH_WAIT: Duration = Duration::from_millis(500);
const LONGEST_FETCH_WAIT: Duration = Duration::from_secs(30);

/// How many of the aux before us, and after us, are asked to relay.
const MOST_HELPERS: u16 = 8;

/// An announcement that is new to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// What it says.
    pub announcement: Announcement,
    /// When its process first published, as the rendezvous counts.
    pub born: u64,
}

/// What a look at the rendezvous brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// New announcements, oldest first.
    pub collected: Vec<Collected>,
    /// Whether a younger process has our own index (M105).
    pub duplicate: bool,
}

/// What was found and not used; for the message when nobody comes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Announcements that did not open, by cause.
    pub rejected: BTreeMap<Rejected, u64>,
    /// Names of other attempts of this run (M103).
    pub other_attempts: u64,
    /// Entries that are listed and cannot be fetched.
    pub unreadable: u64,
    /// Why the last listing failed, if it did.
    pub trouble: Option<String>,
    /// Why our own announcement is not published, if it is not.
    pub unpublished: Option<String>,
}

/// An entry that could not be fetched.
#[derive(Debug, Clone, Copy)]
struct Failing {
    wait: Duration,
    again_at: Instant,
}

#[derive(Debug, Default)]
struct State {
    ours: BTreeSet<String>,
    seen: BTreeSet<String>,
    failing: BTreeMap<String, Failing>,
    births: BTreeMap<(Role, Boot), u64>,
    tally: Tally,
}

impl State {
    fn postpone(&mut self, name: &str, now: Instant) {
        let wait = self.failing.get(name).map_or(FIRST_FETCH_WAIT, |failing| failing.wait * 2).min(LONGEST_FETCH_WAIT);
        self.failing.insert(name.into(), Failing { wait, again_at: now + wait });
        self.tally.unreadable = self.failing.len() as u64;
    }

    /// Said once for each cause: there may be thousands.
    fn reject(&mut self, name: &str, cause: Rejected) {
        let count = self.tally.rejected.entry(cause).or_default();
        *count += 1;
        if *count == 1 {
            tracing::warn!(name, %cause, "skipped what is not an announcement for us");
        } else {
            tracing::debug!(name, %cause, count = *count, "skipped another one");
        }
    }
}

/// One process's side of the rendezvous.
#[derive(Debug)]
pub struct Board {
    rendezvous: Arc<dyn Rendezvous>,
    keys: KeyRing,
    attempt: u32,
    role: Role,
    boot: Boot,
    /// As an aux: whether announcements of other aux are read too.
    aux_too: AtomicBool,
    state: Mutex<State>,
}

impl Board {
    /// For the process `boot` of `role` in attempt `attempt` of a run.
    pub fn new(rendezvous: Arc<dyn Rendezvous>, keys: KeyRing, attempt: u32, role: Role, boot: Boot) -> Self {
        Self { rendezvous, keys, attempt, role, boot, aux_too: AtomicBool::new(false), state: Mutex::default() }
    }

    /// From now on announcements of other aux are read too, as far as a few can help.
    pub fn read_aux(&self) {
        self.aux_too.store(true, Ordering::Relaxed);
    }

    /// What was found and not used so far.
    pub fn tally(&self) -> Tally {
        self.state().tally.clone()
    }

    /// Publishes, and tries again under a fresh name until it succeeds or is refused for good.
    pub async fn publish(&self, mut announcement: Announcement) -> Result<(), Error> {
        announcement.issued_at = clock::unix_now();
        announcement.expires_at = announcement.issued_at + LIFETIME.as_secs();
        let mut wait = FIRST_WAIT;
        loop {
            let name =
                Name { attempt: self.attempt, role: self.role, seq: announcement.seq, nonce: rand::rng().random() };
            let bytes = announcement::seal(&announcement, &self.keys, &name, &mut rand::rng());
            self.state().ours.insert(name.to_string());
            match self.rendezvous.publish(&name.to_string(), &bytes).await {
                Ok(()) => {
                    self.state().tally.unpublished = None;
                    return Ok(());
                }
                Err(Error::Again { what, after }) => {
                    tracing::warn!(%what, "publishing failed, trying again under another name");
                    self.state().tally.unpublished = Some(what);
                    tokio::time::sleep(after.map_or(jittered(wait), patience)).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                Err(refused @ Error::Refused { .. }) => return Err(refused),
            }
        }
    }

    /// Reads what is new.
    pub async fn look(&self) -> Result<Look, Error> {
        let listed = self.rendezvous.list().await.inspect_err(|error| {
            self.state().tally.trouble = Some(error.to_string());
        })?;
        let mut fresh = self.choose(listed);
        fresh.sort_by_key(|(_, entry)| entry.order);
        let mut opened: Vec<(u64, Announcement)> = self.fetch(fresh).await;
        opened.sort_by_key(|(order, _)| *order);
        let mut state = self.state();
        state.tally.trouble = None;
        for (order, announcement) in &opened {
            let born = state.births.entry((announcement.role, announcement.boot)).or_insert(*order);
            *born = (*order).min(*born);
        }
        let collect = |(_, announcement): (u64, Announcement)| {
            let born = state.births.get(&(announcement.role, announcement.boot)).copied().unwrap_or_default();
            Collected { announcement, born }
        };
        let theirs = opened.into_iter().filter(|(_, announcement)| announcement.role != self.role);
        let collected = theirs.map(collect).collect();
        Ok(Look { collected, duplicate: self.is_replaced(&state) })
    }

    /// Takes back everything we published, but for the newest where `keep_newest`. Best effort.
    pub async fn retire(&self, keep_newest: bool) {
        let mut names: Vec<_> = self.state().ours.iter().cloned().collect();
        names.sort_by_key(|name| Name::parse(name).map(|name| name.seq));
        if keep_newest {
            names.pop();
        }
        let mut removals = JoinSet::new();
        for name in names {
            let rendezvous = Arc::clone(&self.rendezvous);
            removals.spawn(async move { rendezvous.remove(&name).await });
        }
        while let Some(removed) = removals.join_next().await {
            if let Ok(Err(error)) = removed {
                tracing::debug!(%error, "an announcement of ours stays at the rendezvous");
            }
        }
    }

    /// Those of the listed entries that may be announcements we need and were not read yet. Of two entries of one name, the later.
    fn choose(&self, listed: Vec<Entry>) -> Vec<(Name, Entry)> {
        let mut state = self.state();
        let listed_names: BTreeSet<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
        state.failing.retain(|name, _| listed_names.contains(name.as_str()));
        state.tally.unreadable = state.failing.len() as u64;
        let now = clock::now();
        let mut newest: BTreeMap<String, Entry> = BTreeMap::new();
        for entry in listed {
            let known = newest.get(&entry.name).map_or(0, |entry| entry.order);
            if entry.order >= known && !state.seen.contains(&entry.name) {
                newest.insert(entry.name.clone(), entry);
            }
        }
        let mut chosen = vec![];
        for (text, entry) in newest {
            let Some(name) = Name::parse(&text) else { continue };
            if !self.is_read(name.role) {
                continue;
            }
            if name.attempt != self.attempt {
                state.tally.other_attempts += 1;
                state.seen.insert(text);
                continue;
            }
            if state.failing.get(&text).is_some_and(|failing| now < failing.again_at) {
                continue;
            }
            chosen.push((name, entry));
        }
        chosen
    }

    /// An aux reads the primary's and its own; where it looks for one that relays, those of a few others, each aux another few.
    fn is_read(&self, role: Role) -> bool {
        let distance = role.number().abs_diff(self.role.number());
        let helper = self.aux_too.load(Ordering::Relaxed) && distance <= MOST_HELPERS;
        role == self.role || self.role == Role::Primary || role == Role::Primary || helper
    }

    async fn fetch(&self, chosen: Vec<(Name, Entry)>) -> Vec<(u64, Announcement)> {
        let mut waiting = chosen.into_iter();
        let mut running = JoinSet::new();
        let mut opened = vec![];
        loop {
            while running.len() < PARALLEL_FETCHES
                && let Some((name, entry)) = waiting.next()
            {
                let rendezvous = Arc::clone(&self.rendezvous);
                running.spawn(async move { (rendezvous.fetch(&entry).await, name, entry) });
            }
            match running.join_next().await {
                None => return opened,
                Some(Ok((fetched, name, entry))) => opened.extend(self.open(fetched, &name, &entry)),
                Some(Err(error)) => tracing::warn!(%error, "a fetch ended early"),
            }
        }
    }

    fn open(&self, fetched: Result<Vec<u8>, Error>, name: &Name, entry: &Entry) -> Option<(u64, Announcement)> {
        let mut state = self.state();
        let bytes = match fetched {
            Ok(bytes) => bytes,
            Err(error) => {
                state.postpone(&entry.name, clock::now());
                tracing::debug!(%error, name = %entry.name, "an announcement cannot be fetched");
                return None;
            }
        };
        state.failing.remove(&entry.name);
        state.tally.unreadable = state.failing.len() as u64;
        state.seen.insert(entry.name.clone());
        match announcement::open(&bytes, &self.keys, name, clock::unix_now()) {
            Ok(announcement) => Some((entry.order, announcement)),
            Err(cause) => {
                state.reject(&entry.name, cause);
                None
            }
        }
    }

    /// Both of two processes with one index judge alike: the one that published first gives way to the later.
    fn is_replaced(&self, state: &State) -> bool {
        let Some(own) = state.births.get(&(self.role, self.boot)) else { return false };
        state.births.iter().any(|((role, boot), born)| *role == self.role && *boot != self.boot && born > own)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change to the state is a single insertion or assignment, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a service that asked for `after` is left alone.
pub fn patience(after: Duration) -> Duration {
    after.min(LONGEST_RETRY_AFTER)
}

/// Between half and the whole of `wait`, so that runners that failed together do not come back together.
pub fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.5..=1.0))
}
