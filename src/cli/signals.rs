//! The signals that ask a mesh to end.

use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind};

use crate::exit::{Exit, Failure};

/// Listens from its creation on.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    /// Takes the signals over from their default, which would end us without a goodbye.
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            unix::signal(kind).map_err(|error| {
                let what = format!("cannot listen to signals: {error}");
                Failure::new(Exit::Failure, "M199", what, "check the limits on open files (ulimit -n)")
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.hang_up.recv() => Signal::SIGHUP,
        }
    }
}

/// The exit code of a process that a signal ended, as shells have it.
pub(super) fn exit_code(signal: Signal) -> u8 {
    128 + signal as i32 as u8
}
