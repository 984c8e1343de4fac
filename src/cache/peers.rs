//! The caches of a run's other runners. A record is told to its two homes ([`crate::proto::placement`]), short blobs with it; larger ones stay where they were written, and
//! their homes know where that is. A look-up asks the homes, unless their filters say that they have no such name; it never waits for a peer that does not answer.
//! What a peer says is verified before it is stored, and stored before it is used. Who is there is known by what each tells the others all the time.

mod dial;
mod fetch;
mod health;
mod home;
mod lease;
mod membership;
mod peer;
mod publish;
mod rate;
mod recent;
mod serve;
mod swarm;
#[cfg(test)]
mod tests;
pub mod wire;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tonic::Status;

pub use self::dial::Dialer;
use self::fetch::Fetches;
pub use self::lease::Lease;
use self::lease::Leases;
use self::peer::Peer;
use self::recent::Recent;
use self::swarm::Swarm;
use self::wire::{LeaseRequest, Parcel};
use super::store::{Blob, Error, Holders, Key, Name, Record, Store, key};
use super::token::Tokens;
use crate::link::clock;
use crate::link::ports::Listener;
use crate::proto::digest::{Digest, Hash};
use crate::proto::placement;
use crate::proto::role::Role;

/// A look-up takes no longer than this before it is a miss. What a build would wait for is cheaper to make.
const LOOKUP: Duration = Duration::from_millis(150);

/// Once in its life, an aux whose tools begin to ask waits so long for peers that it has not called yet.
const WARM_UP: Duration = Duration::from_millis(1500);

/// A blob of at most so many bytes travels with its record.
const INLINE: u64 = 64 << 10;

/// Records that wait to be told to their homes.
const QUEUE: usize = 8192;

/// News that wait for a peer that is slow to hear them; it gets a filter instead.
const NEWS: usize = 8192;

/// Filters are made for at least so many names.
const LEAST_NAMES: usize = 4096;

/// The metadata in which a peer says who it is.
const CALLER: &str = "mesh-role";

/// Who this runner is, and how it reaches the others.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our place in the run.
    pub own: Role,
    /// Which run it is: what was known of the runners of another means nothing.
    pub run: u64,
    /// How peers know each other.
    pub tokens: Tokens,
    /// The way to them.
    pub dialer: Dialer,
}

/// What was asked of peers, and said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runners that have a cache, this one among them.
    pub members: u64,
    /// Look-ups that were known to be in vain, so that nobody was asked.
    pub known_misses: u64,
    /// Look-ups for which somebody was asked, in vain or not.
    pub asked: u64,
    /// Of them, those that nobody answered in time.
    pub late: u64,
    /// Bytes of blobs that came from peers.
    pub fetched_bytes: u64,
    /// Bytes of large blobs that went to peers.
    pub sent_bytes: u64,
    /// Times that bytes were not those of their name.
    pub wrong: u64,
    /// Records that were told to a home.
    pub told: u64,
}

#[derive(Debug, Default)]
struct Counts {
    known_misses: AtomicU64,
    asked: AtomicU64,
    late: AtomicU64,
    fetched_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    wrong: AtomicU64,
    told: AtomicU64,
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// The other runners' caches.
#[derive(Debug, Clone)]
pub struct Peers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    own: Role,
    run: u64,
    tokens: Tokens,
    dialer: Dialer,
    store: Arc<Store>,
    fetches: Arc<Fetches>,
    leases: Arc<Leases>,
    swarm: Mutex<Swarm>,
    recent: Mutex<Recent>,
    /// Names that were set here as their home, and their versions.
    news: broadcast::Sender<(Key, u64)>,
    /// Numbers of all that have a cache.
    members: watch::Sender<Vec<u32>>,
    peers: Mutex<BTreeMap<Role, membership::Acquaintance>>,
    /// Since when tools have asked here.
    asked_since: OnceLock<Instant>,
    publications: mpsc::Sender<Name>,
    counts: Counts,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who makes what is not there.
#[derive(Debug)]
pub enum Turn {
    /// The caller, as long as it keeps the lease.
    Ours(Lease),
    /// Somebody else has made it meanwhile.
    Made,
    /// The caller, and perhaps others: no home answers.
    Alone,
}

impl Peers {
    /// Begins to answer peers on `listener`, and to find them. To be called in the runtime that it shall run on.
    pub fn start(config: Config, store: Arc<Store>, listener: Listener) -> Self {
        let (publications, to_publish) = mpsc::channel(QUEUE);
        let (news, _) = broadcast::channel(NEWS);
        let (members, _) = watch::channel(vec![config.own.number().into()]);
        let inner = Arc::new(Inner {
            own: config.own,
            run: config.run,
            tokens: config.tokens,
            dialer: config.dialer,
            store,
            fetches: Arc::default(),
            leases: Arc::default(),
            swarm: Mutex::default(),
            recent: Mutex::default(),
            news,
            members,
            peers: Mutex::default(),
            asked_since: OnceLock::new(),
            publications,
            counts: Counts::default(),
        });
        tokio::spawn(serve::serve(Arc::clone(&inner), listener));
        tokio::spawn(publish::publish(Arc::clone(&inner), to_publish));
        tokio::spawn(membership::keep(Arc::clone(&inner)));
        tokio::spawn(publish::rehome(Arc::clone(&inner)));
        Self(inner)
    }

    /// Tools will ask here: others are called, so that nobody has to wait for that.
    pub fn warm_up(&self) {
        self.0.begin();
    }

    /// What the name is of, as some peer has it. It is in the store then. `None` where no peer has it or can say so in time.
    pub async fn find(&self, name: &Name) -> Option<(Record, Blob)> {
        let inner = &self.0;
        inner.get_ready().await;
        // Who is the first home itself knows best.
        let is_first = inner.homes(&name.hash()).first() == Some(&inner.own);
        let ours = || inner.give(name, Some(inner.own)).map(|parcel| (None, parcel));
        let mut answer = if is_first { ours() } else { None };
        // Where one home lies, the other is asked.
        for _ in 0..placement::HOMES {
            let (from, parcel) = match answer.take() {
                Some(known) => known,
                None => inner.ask(name).await.or_else(ours)?,
            };
            if let Some(record) = inner.bring(name, from, parcel).await {
                let blob = inner.store.blob(&record.digest)?;
                return Some((record, blob));
            }
        }
        None
    }

    /// Of each name what it is of, as some peer has it: `names` and the answers are in one order. Nothing is fetched.
    pub async fn look(&self, names: &[Name]) -> Vec<Option<Digest>> {
        self.0.get_ready().await;
        self.0.look(names).await
    }

    /// Waits until the caller is the one to make what the name is of, or somebody else has.
    pub async fn turn(&self, name: &Name) -> Turn {
        self.0.get_ready().await;
        self.0.turn(name).await
    }

    /// The record was set here; its homes will be told.
    pub fn publish(&self, name: &Name) {
        self.0.announce(name);
    }

    /// Tells the record's homes of it, and waits until they know.
    pub async fn settle(&self, name: &Name) {
        self.0.deliver(name).await;
    }

    /// The name was of something until `version`, and is of nothing now.
    pub async fn remove(&self, name: &Name, version: u64) {
        self.0.retract(name, version).await;
    }

    /// This runner leaves: what nobody else has is handed on. How many blobs.
    pub async fn hand_over(&self) -> u64 {
        self.0.hand_over().await
    }

    /// What was asked and said.
    pub fn stats(&self) -> Stats {
        let counts = &self.0.counts;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            members: self.0.members.borrow().len() as u64,
            known_misses: of(&counts.known_misses),
            asked: of(&counts.asked),
            late: of(&counts.late),
            fetched_bytes: of(&counts.fetched_bytes),
            sent_bytes: of(&counts.sent_bytes),
            wrong: of(&counts.wrong),
            told: of(&counts.told),
        }
    }
}

impl Inner {
    /// Where the name is at home, the first home first.
    fn homes(&self, name: &Hash) -> Vec<Role> {
        placement::homes(name, self.member_roles())
    }

    /// Its homes but us, as far as they are worth asking.
    fn good_homes(&self, name: &Hash) -> Vec<Arc<Peer>> {
        let others = self.homes(name).into_iter().filter(|role| *role != self.own);
        others.filter_map(|role| self.peer(role)).filter(|peer| peer.is_good()).collect()
    }

    /// What the name's homes say, within [`LOOKUP`].
    async fn ask(&self, name: &Name) -> Option<(Option<Arc<Peer>>, Parcel)> {
        let hash = name.hash();
        let mut homes = self.good_homes(&hash);
        homes.retain(|peer| peer.may_have(key(&hash)));
        let (Some(first), second) = (homes.first(), homes.get(1)) else {
            count(&self.counts.known_misses, 1);
            return None;
        };
        count(&self.counts.asked, 1);
        let ask = |peer: &Arc<Peer>| {
            let peer = Arc::clone(peer);
            async move { Ok::<_, Status>(peer.get(name, LOOKUP).await?.map(|parcel| (Some(peer), parcel))) }
        };
        let answer = match second {
            None => ask(first).await,
            Some(second) => either(ask(first), ask(second), first.hedge()).await,
        };
        let Ok(answer) = answer else {
            count(&self.counts.late, 1);
            return None;
        };
        match answer {
            // Who fetches a large blob is led by the first home: two that lead would both lead to its origin.
            Some((from, parcel)) if parcel.is_large() && from.as_ref().is_some_and(|from| from.role != first.role) => {
                let led = ask(first).await.ok().flatten().filter(|(_, led)| led.is_large());
                led.or(Some((from, parcel)))
            }
            answer => answer,
        }
    }

    /// What the parcel holds or tells of is verified and stored.
    async fn bring(&self, name: &Name, from: Option<Arc<Peer>>, parcel: Parcel) -> Option<Record> {
        if !parcel.is_timely(clock::unix_micros()) {
            return None;
        }
        let content = parcel.content?;
        if let Some(bytes) = &content.bytes {
            if let Err(error) = self.keep(bytes, &content.digest) {
                tracing::debug!(%error, "what a peer gave is not kept");
                from.iter().filter(|_| matches!(error, Error::Mismatch { .. })).for_each(|peer| peer.distrust());
                return None;
            }
        } else {
            let sources = parcel.holders.iter().filter_map(|role| self.peer(*role)).filter(|peer| peer.is_trusted());
            if let Err(lost) = fetch::fetch(&self.fetches, &self.store, content.digest, sources.collect()).await {
                self.tell_lost(name, &lost).await;
                return None;
            }
        }
        count(&self.counts.fetched_bytes, content.digest.size);
        let record = Record {
            digest: content.digest,
            version: parcel.version,
            cost_ms: parcel.cost_ms,
            holders: Holders::default(),
            metadata: content.metadata,
        };
        if record.version < lock(&self.recent).version(key(&name.hash())) {
            // It has been set anew meanwhile, and this home has not heard of it: good for an answer, not to be kept.
            return Some(record);
        }
        let known = self.store.record(name);
        if known.is_none_or(|known| (known.version, known.digest) != (record.version, record.digest)) {
            self.store.set_later(name, &record).ok()?;
        }
        if content.bytes.is_none() {
            self.announce(name);
        }
        Some(record)
    }

    /// Stores bytes if they are those of the digest.
    fn keep(&self, bytes: &[u8], digest: &Digest) -> Result<(), Error> {
        let mut incoming = self.store.incoming();
        incoming.write(bytes)?;
        let kept = incoming.finish(Some(digest)).map(drop);
        if matches!(kept, Err(Error::Mismatch { .. })) {
            count(&self.counts.wrong, 1);
        }
        kept
    }

    async fn look(&self, names: &[Name]) -> Vec<Option<Digest>> {
        let hashes: Vec<Hash> = names.iter().map(Name::hash).collect();
        let mut found: Vec<Option<Digest>> = hashes.iter().map(|hash| self.known(hash)).collect();
        // First the first homes are asked for all that they may have, then the second ones for the rest.
        for at in 0..placement::HOMES {
            let mut questions: BTreeMap<Role, (Arc<Peer>, Vec<usize>)> = BTreeMap::new();
            for (index, hash) in hashes.iter().enumerate().filter(|(index, _)| found[*index].is_none()) {
                let home = self.homes(hash).get(at).filter(|role| **role != self.own).and_then(|role| self.peer(*role));
                if let Some(peer) = home.filter(|peer| peer.is_good() && peer.may_have(key(hash))) {
                    questions.entry(peer.role).or_insert_with(|| (peer, vec![])).1.push(index);
                }
            }
            let mut answers = tokio::task::JoinSet::new();
            for (peer, indexes) in questions.into_values() {
                let names: Vec<Hash> = indexes.iter().map(|index| hashes[*index]).collect();
                answers.spawn(async move { (indexes, peer.look(&names, LOOKUP).await) });
            }
            while let Some(Ok((indexes, answer))) = answers.join_next().await {
                for (index, digest) in indexes.into_iter().zip(answer.unwrap_or_default()) {
                    found[index] = digest;
                }
            }
        }
        found
    }

    async fn turn(&self, name: &Name) -> Turn {
        let hash = name.hash();
        let homes = self.homes(&hash);
        for role in homes {
            if role == self.own {
                let guard = self.leases.pass(&hash).await;
                return if self.known(&hash).is_some() { Turn::Made } else { Turn::Ours(Lease::here(guard)) };
            }
            let Some(peer) = self.peer(role).filter(|peer| peer.is_good()) else { continue };
            if let Some(turn) = turn_at(&peer, hash).await {
                return turn;
            }
        }
        Turn::Alone
    }
}

/// Waits at a home for the lease of a name; `None` when it no longer answers.
async fn turn_at(peer: &Peer, name: Hash) -> Option<Turn> {
    let (requests, stream) = mpsc::channel(1);
    let (ends, mut ended) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let request = LeaseRequest { name: name.to_vec() };
        while requests.send(request.clone()).await.is_ok() {
            tokio::select! {
                _ = &mut ended => return,
                () = tokio::time::sleep(lease::BEAT) => {}
            }
        }
    });
    let mut events = peer.lease(tokio_stream::wrappers::ReceiverStream::new(stream)).await.ok()?;
    loop {
        let event = peer::within(lease::TERM, events.message()).await.ok().flatten()?;
        match event.lease() {
            wire::Lease::Waiting => {}
            wire::Lease::Done => return Some(Turn::Made),
            wire::Lease::Leading => {
                // Somebody has to hear what the home says, or it would think that nobody listens.
                tokio::spawn(async move { while let Ok(Some(_)) = events.message().await {} });
                return Some(Turn::Ours(Lease::there(ends)));
            }
        }
    }
}

/// The first good answer of two, the second of which is asked for after `hedge`, or when the first has none.
async fn either<T, E>(
    first: impl Future<Output = Result<Option<T>, E>>,
    second: impl Future<Output = Result<Option<T>, E>>,
    hedge: Duration,
) -> Result<Option<T>, E> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    tokio::select! {
        answer = &mut first => return if let Ok(Some(_)) = answer { answer } else { or(answer, second.await) },
        () = tokio::time::sleep(hedge) => {}
    }
    tokio::select! {
        answer = &mut first => if let Ok(Some(_)) = answer { answer } else { or(answer, second.await) },
        answer = &mut second => if let Ok(Some(_)) = answer { answer } else { or(answer, first.await) },
    }
}

/// Of two answers the better one: something, then nothing, then a failure.
fn or<T, E>(one: Result<Option<T>, E>, other: Result<Option<T>, E>) -> Result<Option<T>, E> {
    match (one, other) {
        (_, Ok(Some(found))) | (Ok(Some(found)), _) => Ok(Some(found)),
        (Ok(None), _) => Ok(None),
        (Err(_), other) => other,
    }
}

/// Since when a look-up may wait for peers that have not been called.
fn warms_until(since: Instant) -> Option<Duration> {
    (since + WARM_UP).checked_duration_since(clock::now()).filter(|left| !left.is_zero())
}
