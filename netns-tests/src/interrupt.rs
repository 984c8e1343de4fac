//! Ctrl-C ends a long run in order, so that its namespaces go. Not here: what the processes inside make of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::lab::wait_until;

/// A pause that nobody feels after Ctrl-C.
const STEP: Duration = Duration::from_millis(50);

/// The user wants it to end.
#[derive(Debug, Clone, Copy)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Whether SIGINT, SIGTERM or SIGHUP came.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Leaves signals as they are: none will come.
    pub fn never() -> Self {
        Self(Arc::default())
    }

    /// Takes these signals over, for good.
    pub fn listen() -> Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let signals = {
            let _inside = runtime.enter();
            let listen = |kind| signal(kind).context("listen for signals");
            [listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?]
        };
        let flag = Arc::clone(&came);
        thread::spawn(move || {
            let [mut interrupt, mut terminate, mut hangup] = signals;
            runtime.block_on(async {
                tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} _ = hangup.recv() => {} }
            });
            flag.store(true, Ordering::Relaxed);
        });
        Ok(Self(came))
    }

    /// Like [`wait_until`], but ends early with [`Interrupted`] or with an error of `poll`.
    pub(crate) fn wait_until<T>(
        &self,
        within: Duration,
        what: &str,
        mut poll: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        wait_until(within, what, || if self.came() { Some(Err(Interrupted.into())) } else { poll().transpose() })?
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, time: Duration) -> Result<()> {
        let end = std::time::Instant::now() + time;
        while std::time::Instant::now() < end {
            if self.came() {
                bail!(Interrupted);
            }
            thread::sleep(STEP);
        }
        Ok(())
    }

    /// Whether one has come so far.
    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
