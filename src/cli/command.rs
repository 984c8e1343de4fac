//! COMMAND: started as the user who called sudo, ended when we are asked to end, its exit code ours.

use std::ffi::OsString;
use std::io::{IsTerminal, stdin};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::unistd::{Pid, getpgrp, tcgetpgrp};
use tokio::process::{Child, Command};

use crate::link::clock;
use crate::offload::processes;
use crate::privilege::{Caller, not_started};
use crate::report;

/// Variables that hold the shared key: a build step has no use for it, and whatever it runs could read it.
const KEYS: [&str; 2] = ["MESH_KEY", "ENCRYPTION_KEY"];

/// A running COMMAND.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    started: Instant,
}

/// Starts `command` with `variables` on top of our own environment. The error is the exit code of a shell, and why.
pub(super) fn start<'a>(
    command: &[OsString],
    variables: impl IntoIterator<Item = (&'a str, OsString)>,
    caller: Option<&Caller>,
) -> Result<Running, (u8, String)> {
    let describe = |error: std::io::Error| not_started(&command[0], &error);
    let (program, args) = match caller {
        None => (command[0].clone(), command[1..].to_vec()),
        Some(caller) => (std::env::current_exe().map_err(describe)?.into(), caller.wrap(command)),
    };
    let mut process = Command::new(program);
    process.args(args).envs(variables);
    for name in KEYS {
        process.env_remove(name);
    }
    if let Some((name, home)) = caller.and_then(|caller| caller.account.as_ref()) {
        process.env("HOME", home).env("USER", name).env("LOGNAME", name);
    }
    let child = process.spawn().map_err(describe)?;
    Ok(Running { child, started: clock::now() })
}

impl Running {
    /// Waits for its end; what the report tells of it.
    pub(super) async fn wait(&mut self) -> report::Command {
        let status = self.child.wait().await;
        let exit = status.map_or(1, |status| i32::from(code(status)));
        report::Command { exit, wall_ms: (clock::now() - self.started).as_millis() as u64 }
    }

    /// Passes a signal on. A terminal has sent its interrupt to COMMAND already.
    pub(super) fn signal(&self, signal: Signal) {
        if signal != Signal::SIGINT || !from_terminal() {
            self.send(signal);
        }
    }

    /// Ends it without asking.
    pub(super) fn kill(&self) {
        self.send(Signal::SIGKILL);
    }

    /// To COMMAND and everything it started, as a terminal would: a shell does not pass signals on to what it waits for.
    fn send(&self, signal: Signal) {
        let Some(pid) = self.child.id() else { return };
        let pid = Pid::from_raw(pid as i32);
        for pid in std::iter::once(pid).chain(processes::descendants(pid)) {
            if let Err(error) = kill(pid, signal) {
                tracing::debug!(%error, %signal, %pid, "a process of COMMAND could not be signalled");
            }
        }
    }
}

/// User and system time of everything we have started and waited for.
pub(super) fn children_cpu() -> Duration {
    let micros = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map(|usage| usage.user_time().num_microseconds() + usage.system_time().num_microseconds());
    Duration::from_micros(micros.unwrap_or_default().unsigned_abs())
}

fn code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128 + signal as u8,
        (None, None) => 1,
    }
}

/// Whether an interrupt comes from a terminal, which sends it to its whole foreground group.
fn from_terminal() -> bool {
    stdin().is_terminal() && tcgetpgrp(stdin()).is_ok_and(|group| group == getpgrp())
}
