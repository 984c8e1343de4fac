//! One try to do a job in another way, out of sight: nothing of it is seen unless it succeeds. What to try, and what to do after a
//! failure, is not decided here.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::process::{Command, ExitStatus};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

/// What make and ninja send to end a job, or a terminal to its foreground group.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// Runs `command` to its end. True: it succeeded and what it wrote has been written to our standard output and error. False: it
/// failed or could not be run, and nothing was written. A signal that is to end us is passed on, and then ends us.
pub fn succeeds(command: &mut Command) -> bool {
    run(command).unwrap_or(false)
}

fn run(command: &mut Command) -> io::Result<bool> {
    let (mut out, mut err) = (capture()?, capture()?);
    let before = SigSet::thread_get_mask()?;
    let child = command.stdout(out.try_clone()?).stderr(err.try_clone()?).spawn()?;
    let status = wait(child, &block()?, &before);
    before.thread_set_mask()?;
    if !status?.success() {
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

/// After the child has started: it would inherit the mask and could not be ended.
fn block() -> nix::Result<SignalFd> {
    let set: SigSet = ENDING.into_iter().chain([Signal::SIGCHLD]).collect();
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)
}

fn wait(mut child: std::process::Child, signals: &SignalFd, before: &SigSet) -> io::Result<ExitStatus> {
    let mut ending = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return match ending {
                Some(signal) => end(signal, before),
                None => Ok(status),
            };
        }
        let Some(told) = signals.read_signal()? else { continue };
        let signal = Signal::try_from(told.ssi_signo as i32)?;
        if ENDING.contains(&signal) {
            let _ = kill(Pid::from_raw(child.id() as i32), signal);
            ending = Some(signal);
        }
    }
}

/// Dies of `signal`, so that whoever waits for us sees what it asked for.
fn end(signal: Signal, before: &SigSet) -> io::Result<ExitStatus> {
    before.thread_set_mask()?;
    raise(signal)?;
    Err(io::ErrorKind::Interrupted.into())
}

/// Whoever closed our standard output does not want it.
fn replay(captured: &mut File, mut to: impl Write) {
    let _ = captured.rewind().and_then(|()| io::copy(captured, &mut to)).and_then(|_| to.flush());
}
