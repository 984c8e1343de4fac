//! One try to do a job in another way, out of sight: nothing of it is seen unless it succeeds. What to try, and what to do after a
//! failure, is not decided here.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What make and ninja send to end a job, or a terminal to its foreground group.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// What is to be run: all that execve(2) takes.
#[derive(Debug)]
pub struct Program<'p> {
    /// The file to execute.
    pub file: &'p Path,
    /// Its arguments, with what it is told that it is called before them.
    pub args: Vec<CString>,
    /// The environment, whole: `NAME=value`.
    pub environment: Vec<CString>,
}

/// Runs a program to its end. True: it succeeded and what it wrote has been written to our standard output and error. False: it
/// failed or could not be run, and nothing was written. A signal that is to end us is passed on, and then ends us.
pub fn succeeds(program: &Program<'_>) -> bool {
    run(program).unwrap_or(false)
}

fn run(program: &Program<'_>) -> io::Result<bool> {
    let (mut out, mut err) = (capture()?, capture()?);
    let before = SigSet::thread_get_mask()?;
    let signals = block()?;
    let success = spawn(program, &out, &err, &before).map(|child| wait(child, &signals, &before));
    before.thread_set_mask()?;
    if !success?? {
        return Ok(false);
    }
    replay(&mut out, io::stdout());
    replay(&mut err, io::stderr());
    Ok(true)
}

/// In memory, without a bound on what may be written before somebody reads, as a pipe has.
fn capture() -> io::Result<File> {
    Ok(memfd_create(c"mesh-attempt", MFdFlags::MFD_CLOEXEC).map(File::from)?)
}

/// Before the child has started: a signal in between would end us alone, and the child would go on without anybody.
fn block() -> nix::Result<SignalFd> {
    let set: SigSet = ENDING.into_iter().chain([Signal::SIGCHLD]).collect();
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)
}

/// With the signals as they were `before`: a child inherits what is blocked, and could not be ended.
fn spawn(program: &Program<'_>, out: &File, err: &File, before: &SigSet) -> nix::Result<Pid> {
    let mut files = PosixSpawnFileActions::init()?;
    files.add_dup2(out.as_raw_fd(), 1)?;
    files.add_dup2(err.as_raw_fd(), 2)?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
    attributes.set_sigmask(before)?;
    // A Rust program ignores it, which no other expects.
    attributes.set_sigdefault(&SigSet::from(Signal::SIGPIPE))?;
    posix_spawn(program.file, &files, &attributes, &program.args, &program.environment)
}

/// Whether the child ended with success.
fn wait(child: Pid, signals: &SignalFd, before: &SigSet) -> io::Result<bool> {
    let mut ending = None;
    loop {
        let status = waitpid(child, Some(WaitPidFlag::WNOHANG))?;
        if status != WaitStatus::StillAlive {
            return match ending {
                Some(signal) => end(signal, before),
                None => Ok(status == WaitStatus::Exited(child, 0)),
            };
        }
        let Some(told) = signals.read_signal()? else { continue };
        let signal = Signal::try_from(told.ssi_signo as i32)?;
        if ENDING.contains(&signal) {
            let _ = kill(child, signal);
            ending = Some(signal);
        }
    }
}

/// Dies of `signal`, so that whoever waits for us sees what it asked for.
fn end(signal: Signal, before: &SigSet) -> io::Result<bool> {
    before.thread_set_mask()?;
    raise(signal)?;
    Err(io::ErrorKind::Interrupted.into())
}

/// Whoever closed our standard output does not want it.
fn replay(captured: &mut File, mut to: impl Write) {
    let _ = captured.rewind().and_then(|()| io::copy(captured, &mut to)).and_then(|_| to.flush());
}
