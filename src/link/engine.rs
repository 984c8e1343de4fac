//! The thread that the driver runs on, with an event loop and a priority of its own: whatever else this process and this machine do, packets
//! do not wait for it.

use std::io;
use std::thread;

use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::sync::oneshot;

use super::Link;
use crate::exit::{Exit, Failure};

/// Nine times the share of a program of the usual priority, which is used as far as there are packets alone.
const NICE: i32 = -10;

/// The event loop, which gets its thread with its driver.
///
/// INVARIANT: it is there until this is dropped.
#[derive(Debug)]
pub struct Engine(Option<Runtime>);

impl Engine {
    /// An event loop without a thread.
    pub fn new() -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.map(|runtime| Self(Some(runtime))).map_err(|error| cannot_start(&error))
    }

    /// Sockets and devices that are opened while this is held belong to the loop.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.runtime().enter()
    }

    /// Runs a driver to its end on a thread of its own, on which `first` is called before. What is returned hears of that end, and of a panic
    /// as an error.
    pub fn run(self, link: Link, first: fn()) -> Result<oneshot::Receiver<()>, Failure> {
        let (ended, end) = oneshot::channel();
        let work = move || {
            raise_priority();
            first();
            self.runtime().block_on(link.run());
            let _ = ended.send(());
        };
        thread::Builder::new().name("link".into()).spawn(work).map(|_| end).map_err(|error| cannot_start(&error))
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("it is there until this is dropped")
    }
}

impl Drop for Engine {
    /// Without waiting for anything: whoever fails to start drops it within another event loop.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A build has every core busy, and a packet would wait for its turn at each stop. Who may not do this has the usual priority.
fn raise_priority() {
    // Of Linux's threads each has its own, and `None` is the calling one (setpriority(2)).
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "packets have the usual priority");
    }
}

fn cannot_start(error: &io::Error) -> Failure {
    let what = format!("cannot start: the system refuses a thread for packets: {error}");
    Failure::new(Exit::Failure, "M199", what, "check the limits on open files and processes (ulimit -n, ulimit -u)")
}
