//! A blob is fetched from whoever has it: from the next source where one fails or stalls, on from the byte where it did; and verified before it is anybody's. Whoever asks
//! for it meanwhile waits for the same fetch, and other runners are served what has come so far. Not here: who has it ([`super::swarm`]).

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bazel_remote_apis::google::bytestream::ReadResponse;
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tonic::{Code, Status, Streaming};

use super::peer::Peer;
use crate::cache::compression::Expander;
use crate::cache::store::{Error, Incoming, Store};
use crate::link::clock;
use crate::proto::digest::Digest;
use crate::proto::role::Role;

/// A source that has sent nothing for so long has failed.
const STALL: Duration = Duration::from_secs(1);

/// One that only says that it waits itself, after this.
const WAITING: Duration = Duration::from_secs(5);

/// The next source is tried too when the first has sent nothing for so long.
const HEDGE: Duration = Duration::from_millis(100);

/// Bytes that are given to another runner at once, of what is still coming.
const PIECE: usize = 64 << 10;

/// Who is led here for what is to come may be faster than it: the fetch begins within this time, or not at all.
const BEGINNING: Duration = Duration::from_millis(250);

/// All fetches under way on this runner.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    running: Mutex<HashMap<Digest, Arc<Running>>>,
    begun: Notify,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Running {
    progress: watch::Sender<Progress>,
    file: OnceLock<Arc<File>>,
    /// Who was said to have it and does not.
    lost: Mutex<Vec<Role>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// So many bytes are in the file.
    Coming(u64),
    /// All have come and are right.
    Done,
    Failed,
}

impl Fetches {
    fn running(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of the blob is coming, if it is.
    fn following(&self, digest: &Digest) -> Option<Following> {
        let running = Arc::clone(self.running().get(digest)?);
        Some(Following { progress: running.progress.subscribe(), running, size: digest.size })
    }

    /// The same, waiting for it to begin.
    pub(super) async fn follow(&self, digest: &Digest) -> Option<Following> {
        let begun = async {
            loop {
                let notified = self.begun.notified();
                if let Some(following) = self.following(digest) {
                    return following;
                }
                notified.await;
            }
        };
        tokio::time::timeout(BEGINNING, begun).await.ok()
    }

    /// Joins the fetch of this blob, or begins one: then it is the caller who does it.
    fn enter(&self, digest: &Digest) -> (Arc<Running>, bool) {
        let mut all = self.running();
        match all.get(digest) {
            Some(running) => (Arc::clone(running), false),
            None => {
                let (progress, _) = watch::channel(Progress::Coming(0));
                let running = Arc::new(Running { progress, file: OnceLock::new(), lost: Mutex::default() });
                all.insert(*digest, Arc::clone(&running));
                self.begun.notify_waiters();
                (running, true)
            }
        }
    }

    fn leave(&self, digest: &Digest, running: &Running, whole: bool) {
        self.running().remove(digest);
        running.progress.send_replace(if whole { Progress::Done } else { Progress::Failed });
    }
}

/// Gets the blob into `store`. Goes on when nobody waits for it any more: what has come is worth keeping.
///
/// # Errors
/// Who of the sources does not have it, where it did not come.
pub(super) async fn fetch(
    fetches: &Arc<Fetches>,
    store: &Arc<Store>,
    digest: Digest,
    sources: Vec<Arc<Peer>>,
) -> Result<(), Vec<Role>> {
    let (running, is_first) = fetches.enter(&digest);
    let mut progress = running.progress.subscribe();
    if is_first {
        let (fetches, store, running) = (Arc::clone(fetches), Arc::clone(store), Arc::clone(&running));
        tokio::spawn(async move {
            let whole = work(&store, &running, digest, sources).await;
            fetches.leave(&digest, &running, whole);
        });
    }
    let end = progress.wait_for(|progress| !matches!(progress, Progress::Coming(_))).await;
    let is_whole = end.is_ok_and(|end| *end == Progress::Done);
    let lost = || running.lost.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if is_whole { Ok(()) } else { Err(lost()) }
}

/// Tries all sources together, then, where the bytes were wrong, each of them alone: so it shows whose fault it was.
async fn work(store: &Arc<Store>, running: &Running, digest: Digest, sources: Vec<Arc<Peer>>) -> bool {
    let mut plans = VecDeque::from([sources]);
    while let Some(plan) = plans.pop_front() {
        let mut incoming = store.incoming();
        let used = gather(&mut incoming, running, digest, &plan).await;
        if incoming.len() < digest.size {
            continue;
        }
        match incoming.finish(Some(&digest)) {
            Ok(_) => return true,
            Err(Error::Mismatch { .. }) => {
                let liar = if let [only] = &used[..] { Some(only.role) } else { None };
                used.iter().filter(|_| liar.is_some()).for_each(|only| only.distrust());
                if plan.len() > 1 {
                    plans
                        .extend(plan.into_iter().filter(|source| Some(source.role) != liar).map(|source| vec![source]));
                }
            }
            Err(error) => {
                tracing::debug!(%error, %digest, "what was fetched is not kept");
                return false;
            }
        }
    }
    false
}

/// Fetches on from where it stopped until all is there or no source is left; who sent something.
async fn gather(incoming: &mut Incoming, running: &Running, digest: Digest, plan: &[Arc<Peer>]) -> Vec<Arc<Peer>> {
    let (mut left, mut used) = (VecDeque::from(plan.to_vec()), vec![]);
    while incoming.len() < digest.size
        && let Some(opened) = open(running, &mut left, &digest, incoming.len()).await
    {
        let (peer, began, before) = (Arc::clone(&opened.peer), clock::now(), incoming.len());
        let compressed = opened.expander.is_some();
        if let Err(why) = take(incoming, running, &digest, opened).await {
            tracing::debug!(peer = %peer.role, %digest, at = incoming.len(), %why, "a source of a blob failed");
            note(running, &peer, &why);
        }
        let came = incoming.len() - before;
        peer.sent(compressed, came, clock::now().saturating_duration_since(began));
        if came > 0 {
            used.push(peer);
        }
    }
    used
}

/// A source failed: it does not have the blob, or is not well.
fn note(running: &Running, peer: &Peer, why: &Status) {
    if why.code() == Code::NotFound {
        running.lost.lock().unwrap_or_else(PoisonError::into_inner).push(peer.role);
    } else {
        peer.fail();
    }
}

/// What a source sends.
struct Opened {
    peer: Arc<Peer>,
    stream: Streaming<ReadResponse>,
    first: ReadResponse,
    expander: Option<Expander>,
}

/// The first source that sends something; sources that were tried are `left` no more.
async fn open(running: &Running, left: &mut VecDeque<Arc<Peer>>, digest: &Digest, at: u64) -> Option<Opened> {
    let mut tried: JoinSet<Result<Opened, (Arc<Peer>, Status)>> = JoinSet::new();
    loop {
        if let Some(peer) = left.pop_front() {
            tried.spawn(begin(peer, *digest, at));
        }
        let patience = if left.is_empty() { STALL + HEDGE } else { HEDGE };
        match tokio::time::timeout(patience, tried.join_next()).await {
            Ok(Some(Ok(Ok(opened)))) => return Some(opened),
            Ok(Some(Ok(Err((peer, why))))) => {
                tracing::debug!(peer = %peer.role, %digest, %why, "it does not send a blob");
                note(running, &peer, &why);
            }
            Ok(Some(Err(_))) => {}
            Ok(None) if left.is_empty() => return None,
            Err(_) if left.is_empty() => return None,
            Ok(None) | Err(_) => {}
        }
    }
}

async fn begin(peer: Arc<Peer>, digest: Digest, at: u64) -> Result<Opened, (Arc<Peer>, Status)> {
    let expander = peer.compress().then(|| Expander::new(digest.size - at)).and_then(Result::ok);
    let first = async {
        let mut stream = peer.read(&digest, at, expander.is_some()).await?;
        let first = stream.message().await?.ok_or_else(|| Status::data_loss("it ended before it began"))?;
        Ok((stream, first))
    };
    match tokio::time::timeout(STALL, first).await {
        Ok(Ok((stream, first))) => Ok(Opened { peer, stream, first, expander }),
        Ok(Err(status)) => Err((peer, status)),
        Err(_) => Err((peer, Status::deadline_exceeded("nothing came"))),
    }
}

/// Takes what a source sends, to its end.
async fn take(incoming: &mut Incoming, running: &Running, digest: &Digest, source: Opened) -> Result<(), Status> {
    let Opened { mut stream, first, mut expander, .. } = source;
    let (mut next, mut last) = (Some(first), clock::now());
    while let Some(message) = next {
        if !message.data.is_empty() {
            last = clock::now();
            match &mut expander {
                None => write(incoming, running, digest, &message.data)?,
                Some(expander) => expander
                    .write(&message.data, |bytes| write(incoming, running, digest, bytes))
                    .map_err(|error| Status::data_loss(error.to_string()))?,
            }
        } else if last.elapsed() > WAITING {
            return Err(Status::deadline_exceeded("it waits itself for too long"));
        }
        if incoming.len() == digest.size {
            break;
        }
        next = super::peer::within(STALL, stream.message()).await?;
    }
    if incoming.len() < digest.size { Err(Status::data_loss("it ended early")) } else { Ok(()) }
}

fn write(incoming: &mut Incoming, running: &Running, digest: &Digest, data: &[u8]) -> Result<(), Status> {
    if incoming.len() + data.len() as u64 > digest.size {
        return Err(Status::data_loss("more came than there is"));
    }
    incoming.write(data).map_err(|error| Status::resource_exhausted(error.to_string()))?;
    if let Some((file, written)) = incoming.file() {
        let _ = running.file.set(Arc::clone(file));
        running.progress.send_replace(Progress::Coming(written));
    }
    Ok(())
}

/// What has come so far of a blob, for another runner. It is not verified yet, which whoever gets it does.
#[derive(Debug)]
pub(super) struct Following {
    progress: watch::Receiver<Progress>,
    running: Arc<Running>,
    size: u64,
}

impl Following {
    /// The next bytes from `at`, empty when none have come within `patience`; `None` when none will.
    pub(super) async fn read(&mut self, at: u64, patience: Duration) -> Option<Bytes> {
        let is_there = |progress: &Progress| !matches!(progress, Progress::Coming(written) if *written <= at);
        let state = match tokio::time::timeout(patience, self.progress.wait_for(is_there)).await {
            Err(_) => return Some(Bytes::new()),
            Ok(state) => *state.ok()?,
        };
        let written = match state {
            Progress::Coming(written) => written,
            Progress::Done => self.size,
            Progress::Failed => return None,
        };
        let mut bytes = vec![0; (written.saturating_sub(at)).min(PIECE as u64) as usize];
        self.running.file.get()?.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes.into())
    }
}
