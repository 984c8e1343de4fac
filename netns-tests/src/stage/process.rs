//! A process on stage: its output is kept, its end is waited for with a deadline, and it never outlives its test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::lab::wait_until;

/// A running process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; both of its outputs go to `log`.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        Ok(Self { child, log: log.into() })
    }

    /// Its id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// User and system time of all its threads, also of those that have ended (clock_getcpuclockid(3)): what `/proc/PID/stat` has in hundredths.
    pub fn cpu(&self) -> Result<Duration> {
        let clock = clock_getcpuclockid(self.pid()).with_context(|| format!("it said:\n{}", self.output()))?;
        Ok(clock.now()?.into())
    }

    /// A line of `/proc/PID/status` in MiB: `VmRSS` is what is resident now, `VmHWM` the most that ever was (proc_pid_status(5)).
    pub fn memory_mib(&self, line: &str) -> Result<f64> {
        let path = format!("/proc/{}/status", self.pid());
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        mib(&text, line).with_context(|| format!("no {line} in {path}"))
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> Result<usize> {
        self.count("fd")
    }

    /// How many threads it has.
    pub fn threads(&self) -> Result<usize> {
        self.count("task")
    }

    /// Entries of a folder of `/proc/PID`.
    fn count(&self, folder: &str) -> Result<usize> {
        let path = format!("/proc/{}/{folder}", self.pid());
        Ok(std::fs::read_dir(&path).with_context(|| format!("read {path}"))?.count())
    }

    /// The file with what it says.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its exit code, or 128 and the signal that ended it; `None` while it runs.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().map(code)
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until it has said `text`.
    pub fn wait_for(&self, text: &str, within: Duration) -> Result<()> {
        let said = wait_until(within, text, || self.output().contains(text).then_some(()));
        said.with_context(|| format!("it said:\n{}", self.output()))
    }

    /// Waits for its end: its exit code, or 128 and the signal that ended it.
    pub fn wait(&mut self, within: Duration) -> Result<i32> {
        let ended = wait_until(within, "the end of a process", || self.ended());
        ended.with_context(|| format!("it said:\n{}", self.output()))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).context("signal a process")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mib(status: &str, line: &str) -> Option<f64> {
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))?;
    value.trim().strip_suffix(" kB")?.trim().parse().ok().map(|kib: f64| kib / 1024.0)
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_line_that_is_named() {
        let status = "VmSize:\t  723456 kB\nVmHWM:\t   14336 kB\nVmRSS:\t   10240 kB\n";

        assert_eq!((mib(status, "VmHWM"), mib(status, "VmRSS"), mib(status, "VmLck")), (Some(14.0), Some(10.0), None));
    }
}
