//! `mesh cache get` and `put`: from the cache to a file or stdout, and from a file or stdin to the cache, a piece at a time. Not here: how the cache is asked
//! ([`client`]).

use std::fs::File;
use std::io::{self, Read, stdin};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::super::Outcome;
use super::super::actions::say;
use super::super::control::{done, path};
use super::super::signals::{Signals, exit_code};
use super::sink::Sink;
use crate::cache::front::client::{self, Door, Pieces, Trouble, Unreadable};
use crate::config::ControlArgs;
use crate::control::{self, Request, Response};
use crate::exit::{Exit, Failure};
use crate::link::clock;
use crate::report;

/// Of what is read at once, and how many such pieces wait to be sent.
const PIECE: usize = 256 << 10;
const WAITING: usize = 4;

/// How often it is looked whether something has moved.
const LOOK: Duration = Duration::from_secs(1);

/// A user who waits is told so at the first look, and then at each of so many.
const PROGRESS: u32 = 10;

/// After so many looks at which nothing had moved, nothing will: the cache gives up earlier itself.
const STILL: u32 = 60;

/// What both verbs take.
#[derive(Debug, Args)]
pub(super) struct What {
    /// The name, such as `release/v1.tar`
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// Keep apart from what other namespaces hold
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    control: ControlArgs,
}

/// From the cache to `output`, or to stdout; `None` where it is not there.
pub(super) async fn get(door: &Door, name: &str, output: Option<&Path>) -> Result<Option<u8>, Failure> {
    let told = |trouble| failure(&format!("get `{name}`"), trouble);
    let Some(mut coming) = client::get(door, name).await.map_err(told)? else { return Ok(None) };
    let mut sink = Sink::open(output)?;
    // Who leaves nothing behind may just be ended.
    let signals = if sink.leaves_something() { Some(Signals::listen()?) } else { None };
    let moved = Moved::new(coming.size(), name);
    let transfer = async {
        while let Some(bytes) = coming.next().await.map_err(told)? {
            sink.write(&bytes)?;
            moved.add(bytes.len());
        }
        sink.finish().map(|()| Exit::Ok.code())
    };
    watch(&moved, signals, transfer).await.map(Some)
}

/// From `file`, or from stdin, to the cache.
pub(super) async fn put(what: What, file: Option<&Path>) -> Outcome {
    match door(&what, false).await? {
        Ok(door) => keep(&door, &what.name, file).await,
        Err(refusal) => done(refusal),
    }
}

/// The same, with the door open.
pub(super) async fn keep(door: &Door, name: &str, file: Option<&Path>) -> Outcome {
    let start = clock::now();
    let mut source = Source::open(file)?;
    let first = source.next()?;
    if first.is_empty() {
        let what = format!("there is nothing in {} to keep as `{name}`", source.place);
        return Err(Failure::new(Exit::Usage, "M806", what, "did what makes it fail?"));
    }
    let moved = Moved::new(source.size, name);
    let pieces = source.send(first, &moved);
    let transfer = async {
        client::put(door, name, pieces).await.map_err(|trouble| failure(&format!("put `{name}`"), trouble))?;
        let (size, took) = (report::bytes(moved.so_far()), clock::now() - start);
        say(&format!("`{name}` is in the cache: {size} in {:.1} s", took.as_secs_f64()));
        Ok(Exit::Ok.code())
    };
    watch(&moved, None, transfer).await
}

/// What the mesh of this machine says about its cache: the way there, or why there is none.
pub(super) async fn door(what: &What, read_only: bool) -> Result<Result<Door, Response>, Failure> {
    let request = Request::Door { namespace: what.namespace.clone(), read_only };
    Ok(match control::ask(&path(&what.control), &request).await? {
        Response::Door { addr, token } => Ok(Door { addr, token }),
        other => Err(other),
    })
}

/// How much has moved, of how much.
#[derive(Debug, Clone)]
struct Moved {
    bytes: Arc<AtomicU64>,
    all: Option<u64>,
    name: String,
}

impl Moved {
    fn new(all: Option<u64>, name: &str) -> Self {
        Self { bytes: Arc::default(), all, name: name.into() }
    }

    fn add(&self, len: usize) {
        self.bytes.fetch_add(len as u64, Ordering::Relaxed);
    }

    fn so_far(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn line(&self) -> String {
        let of = self.all.map(|all| format!(" of {}", report::bytes(all))).unwrap_or_default();
        format!("`{}`: {}{of}", self.name, report::bytes(self.so_far()))
    }
}

/// Tells how far a transfer is, and gives up on one that stands still, or when a signal says so.
async fn watch(moved: &Moved, mut signals: Option<Signals>, transfer: impl Future<Output = Outcome>) -> Outcome {
    let mut look = tokio::time::interval(LOOK);
    // While a slow reader holds us up, nobody counts against the cache.
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.tick().await;
    let mut transfer = std::pin::pin!(transfer);
    let (mut looks, mut still, mut last) = (0, 0, 0);
    loop {
        tokio::select! {
            outcome = &mut transfer => return outcome,
            signal = next(&mut signals) => return Ok(exit_code(signal)),
            _ = look.tick() => {
                still = if moved.so_far() == last { still + 1 } else { 0 };
                last = moved.so_far();
                if still >= STILL {
                    let what = format!("nothing has moved for {STILL} s, {}", moved.line());
                    return Err(Failure::new(Exit::Failure, "M805", what, "does the mesh still run? `mesh status`"));
                }
                if looks % PROGRESS == 0 {
                    say(&moved.line());
                }
                looks += 1;
            }
        }
    }
}

async fn next(signals: &mut Option<Signals>) -> Signal {
    match signals {
        Some(signals) => signals.next().await,
        None => std::future::pending().await,
    }
}

/// What is to be kept.
struct Source {
    place: String,
    /// Of an ordinary file.
    size: Option<u64>,
    read: u64,
    reader: Box<dyn Read + Send>,
}

impl Source {
    fn open(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = file.filter(|path| *path != Path::new("-")) else {
            return Ok(Self { place: "stdin".into(), size: None, read: 0, reader: Box::new(stdin()) });
        };
        let open = || -> io::Result<_> {
            let file = File::open(path)?;
            let found = file.metadata()?;
            Ok((found.is_file().then_some(found.len()), file))
        };
        let (size, file) = open().map_err(|error| unreadable(format!("cannot read {}: {error}", path.display())))?;
        Ok(Self { place: path.display().to_string(), size, read: 0, reader: Box::new(file) })
    }

    fn next(&mut self) -> Result<Bytes, Failure> {
        self.piece().map_err(|Unreadable(what)| unreadable(what))
    }

    /// The next piece, empty at the end. A file that is not what it was at the start is told before its last piece has gone.
    fn piece(&mut self) -> Result<Bytes, Unreadable> {
        let mut bytes = vec![0; PIECE];
        let read = loop {
            match self.reader.read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| Unreadable(format!("cannot read {}: {error}", self.place)))?,
            }
        };
        bytes.truncate(read);
        self.read += read as u64;
        if self.size.is_some_and(|size| self.read > size || read == 0 && self.read < size) {
            return Err(Unreadable(format!("{} has changed while it was read", self.place)));
        }
        Ok(bytes.into())
    }

    /// All of it, from a thread of its own: reading may wait for whoever writes.
    fn send(mut self, first: Bytes, moved: &Moved) -> Pieces {
        let (size, moved) = (self.size, moved.clone());
        let (sender, pieces) = mpsc::channel(WAITING);
        std::thread::spawn(move || {
            let mut next = Ok(first);
            while let Ok(bytes) = next {
                if bytes.is_empty() {
                    return;
                }
                // One ahead, so that a change shows before the last has gone.
                let (len, after) = (bytes.len(), self.piece());
                if after.is_ok() && sender.blocking_send(Ok(bytes)).is_err() {
                    return;
                }
                moved.add(len);
                next = after;
            }
            let _ = next.map_err(|why| sender.blocking_send(Err(why)));
        });
        Pieces { size, pieces }
    }
}

fn unreadable(what: String) -> Failure {
    Failure::new(Exit::Usage, "M806", what, "check the path and the rights, and that nobody writes to it meanwhile")
}

pub(super) fn missing(name: &str) -> Failure {
    let hint =
        "make it and keep it with `mesh cache put`; what nobody looked up for long may have made room for other things";
    Failure::new(Exit::NotCached, "M804", format!("the cache has no `{name}`"), hint)
}

pub(super) fn failure(attempt: &str, trouble: Trouble) -> Failure {
    let what = format!("cannot {attempt}: {trouble}");
    match trouble {
        Trouble::Name | Trouble::Refused { status: 414, .. } => {
            Failure::new(Exit::Usage, "M806", what, "choose another name, such as release/v1.tar")
        }
        Trouble::Input(what) => unreadable(what),
        Trouble::Refused { status: 413, .. } => {
            let hint =
                "give the cache more with --cache-size (MESH_CACHE_SIZE): a single thing may take a quarter of it";
            Failure::new(Exit::Failure, "M805", what, hint)
        }
        Trouble::Refused { status: 408, .. } => {
            Failure::new(Exit::Failure, "M805", what, "write it to a file first, and put that")
        }
        Trouble::Refused { .. } => Failure::new(Exit::Failure, "M805", what, "the log of the mesh may tell more"),
        Trouble::Unreachable(..) | Trouble::Broken(_) => {
            Failure::new(Exit::Failure, "M805", what, "does the mesh still run? `mesh status`; then try again")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `source` sends until it ends, and why it ended early if it did.
    async fn sent(mut source: Source) -> (Vec<u8>, Option<String>) {
        let first = source.next().expect("a piece");
        let mut pieces = source.send(first, &Moved::new(None, "x")).pieces;
        let mut all = vec![];
        while let Some(piece) = pieces.recv().await {
            match piece {
                Ok(bytes) => all.extend_from_slice(&bytes),
                Err(Unreadable(why)) => return (all, Some(why)),
            }
        }
        (all, None)
    }

    #[tokio::test]
    async fn a_file_is_sent_whole_with_its_size() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, bytes) = (folder.path().join("file"), vec![b'x'; 2 * PIECE + 1]);
        std::fs::write(&path, &bytes).expect("written");

        let source = Source::open(Some(&path)).expect("opened");

        assert_eq!(source.size, Some(bytes.len() as u64));
        assert_eq!(sent(source).await, (bytes, None));
    }

    #[tokio::test]
    async fn a_file_that_grows_or_shrinks_meanwhile_is_not_sent_to_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        for size in [2 * PIECE as u64 - 1, 2 * PIECE as u64 + 1] {
            let path = folder.path().join("file");
            std::fs::write(&path, vec![b'x'; 2 * PIECE]).expect("written");
            let mut source = Source::open(Some(&path)).expect("opened");
            source.size = Some(size);

            let (all, why) = sent(source).await;

            assert!((all.len() as u64) < size, "{} of {size}", all.len());
            assert!(why.is_some_and(|why| why.contains("has changed")), "{size}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        for path in ["/nonexistent/file", "/proc"] {
            let failure = Source::open(Some(Path::new(path))).and_then(|mut source| source.next());
            let failure = failure.expect_err("nothing to read");
            assert_eq!((failure.exit, failure.code), (Exit::Usage, "M806"));
            assert!(failure.what.contains(path), "{}", failure.what);
        }
    }

    #[test]
    fn a_user_who_waits_sees_how_much_of_what() {
        let moved = Moved::new(Some(50_000_000), "a/b");
        moved.add(12_000_000);

        assert_eq!(moved.line(), "`a/b`: 12.0 MB of 50.0 MB");
        assert_eq!(Moved::new(None, "x").line(), "`x`: 0 B");
    }

    #[test]
    fn each_trouble_has_its_code_and_names_the_attempt() {
        let refused = |status| Trouble::Refused { status, words: "why".into() };
        let codes = [(414, "M806"), (413, "M805"), (408, "M805"), (507, "M805")];

        for (status, code) in codes {
            let failure = failure("put `x`", refused(status));
            assert_eq!(failure.code, code);
            assert_eq!(failure.what, format!("cannot put `x`: it answers {status}: why"));
        }
        assert_eq!(failure("get `..`", Trouble::Name).exit, Exit::Usage);
    }
}
