//! A process between `mesh` and a daemon that must not outlive it: `mesh guard -- PROGRAM ARGS`. Whether and when the daemon is
//! started again is not decided here.
//!
//! The kernel's own remedy, PR_SET_PDEATHSIG, is cleared when a process changes its user (prctl(2)), as distccd does, and reaches
//! no grandchild. So the guard holds a pipe from `mesh` as its standard input: however `mesh` dies, the kernel closes the other
//! end. The guard is a subreaper, so all that PROGRAM ever forked stays below it, also what took a process group of its own
//! (each compile of distccd does).
//!
//! **The guard ends only when nothing below it lives**: whoever sees it gone may take the daemon's port again.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::processes;

/// The hidden verb.
pub const VERB: &str = "guard";

/// From SIGTERM to SIGKILL. Long enough for distccd to remove its temporary files (a few ms), short enough that stopping an aux
/// takes less than a second in all.
const GRACE: Duration = Duration::from_millis(500);

/// Between two looks at what still lives, while ending only: a fork may race with a signal sent to all.
const TICK: u16 = 20;

/// As env(1): PROGRAM could not be found, or not be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// Runs `argv` and returns its exit code (128 + N where signal N ended it) once nothing of it is left. Ends it, first by SIGTERM
/// and then by SIGKILL, when standard input ends or SIGTERM, SIGINT or SIGHUP comes, and ends what it left when it exits by itself.
/// Standard input has to be a pipe that the parent holds open; PROGRAM gets `/dev/null` and a process group of its own.
pub fn run(argv: Vec<OsString>) -> u8 {
    match Guard::start(&argv) {
        Ok(guard) => guard.watch(),
        Err(error) => {
            let program = argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
            let _ = writeln!(io::stderr(), "mesh: cannot guard `{program}`: {error}");
            if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN }
        }
    }
}

struct Guard {
    program: Pid,
    signals: SignalFd,
    code: Option<u8>,
    stop: bool,
    kill_at: Option<Instant>,
}

impl Guard {
    fn start(argv: &[OsString]) -> io::Result<Self> {
        let (program, args) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        prctl::set_child_subreaper(true)?;
        let child = Command::new(program).args(args).stdin(Stdio::null()).process_group(0).spawn()?;
        let signals = signals()?;
        Ok(Self { program: Pid::from_raw(child.id() as i32), signals, code: None, stop: false, kill_at: None })
    }

    fn watch(mut self) -> u8 {
        while self.reap() {
            match self.kill_at {
                Some(at) if Instant::now() >= at => signal_all(Signal::SIGKILL),
                None if self.stop || self.code.is_some() => {
                    signal_all(Signal::SIGTERM);
                    self.kill_at = Some(Instant::now() + GRACE);
                }
                _ => {}
            }
            self.sleep();
        }
        self.code.unwrap_or(NOT_RUN)
    }

    /// Takes the status of all that ended; false once nothing is left.
    fn reap(&mut self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return true,
                Ok(WaitStatus::Exited(pid, code)) if pid == self.program => self.code = Some(code as u8),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.program => self.code = Some(128 + signal as u8),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Until a signal comes, standard input ends, or, while ending, the next look is due.
    fn sleep(&mut self) {
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let ending = self.kill_at.is_some();
        if !ending {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        let timeout = if ending { PollTimeout::from(TICK) } else { PollTimeout::NONE };
        if poll(&mut fds, timeout).is_err() {
            return;
        }
        let spoken = fds.get(1).is_some_and(|fd| fd.any().unwrap_or(true));
        self.stop |= spoken && ended(stdin.lock());
        while let Ok(Some(signal)) = self.signals.read_signal() {
            self.stop |= signal.ssi_signo != Signal::SIGCHLD as u32;
        }
    }
}

/// After PROGRAM has started: it would inherit the mask and could not be ended by SIGTERM.
fn signals() -> nix::Result<SignalFd> {
    let set: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// What the parent writes has no meaning; that it can write no more has.
fn ended(mut stdin: impl Read) -> bool {
    !matches!(stdin.read(&mut [0; 64]), Ok(1..))
}

fn signal_all(signal: Signal) {
    for pid in processes::descendants(Pid::this()) {
        let _ = kill(pid, signal);
    }
}
