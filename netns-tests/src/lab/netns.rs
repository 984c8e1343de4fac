//! One network namespace: made, entered, and removed with the processes inside. Not here: what is wired to what ([`super::Lab`]).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::Arc;
use std::time::Duration;
use std::{panic, thread};

use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::run;
use super::wait_until;

const RUN_NETNS: &str = "/run/netns";

/// A killed process is gone within milliseconds; this much on a machine that swaps.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// A handle on a network namespace of the lab. Cheap to clone; dropping it removes nothing.
#[derive(Debug, Clone)]
pub struct Netns {
    name: Arc<str>,
}

impl Netns {
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.into() }
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside. Its pid is the program's own: `ip netns exec` replaces itself.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name()]).arg(program);
        command
    }

    /// Runs `work` on a thread inside. Sockets that it makes stay inside when it ends, and so do processes that it starts.
    ///
    /// # Errors
    /// If the namespace is gone or this is not root. A panic of `work` goes on in the caller.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(self.path()).with_context(|| format!("open namespace {}", self.name))?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
        })
        .map_err(|errno: Errno| anyhow!("enter namespace {}: {errno}", self.name))
    }

    /// A UDP socket inside, on every address and this port (0: any).
    ///
    /// # Errors
    /// If the port is taken or the namespace gone.
    pub fn udp_socket(&self, port: u16) -> Result<UdpSocket> {
        self.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?
            .with_context(|| format!("bind UDP port {port} in namespace {}", self.name))
    }

    /// Sets a kernel parameter below `/proc/sys/net`, such as `ipv4/ip_forward`.
    ///
    /// # Errors
    /// If the kernel has no such parameter or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.enter(|| fs::write(format!("/proc/sys/net/{key}"), value))?
            .with_context(|| format!("set net/{key} to {value} in namespace {}", self.name))
    }

    fn has_sysctl(&self, folder: &str) -> Result<bool> {
        self.enter(|| PathBuf::from("/proc/sys/net").join(folder).exists())
    }

    /// The text of a file below `/proc/net`, such as `snmp`, as seen inside.
    ///
    /// # Errors
    /// If the kernel has no such file.
    pub fn proc_net(&self, file: &str) -> Result<String> {
        self.enter(|| fs::read_to_string(format!("/proc/thread-self/net/{file}")))?
            .with_context(|| format!("read /proc/net/{file} in namespace {}", self.name))
    }

    /// Runs a command inside to its end, feeds it `input`, and gives what it wrote to stdout.
    ///
    /// # Errors
    /// If it cannot start, or ends with another code than 0; the error holds its stderr.
    pub fn run(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        self.enter(|| run(program, args, input))?.with_context(|| format!("in namespace {}", self.name))
    }

    pub(super) fn ip(&self, batch: &str) -> Result<()> {
        self.run("ip", &["-batch", "-"], batch).map(drop)
    }

    pub(super) fn nft(&self, ruleset: &str) -> Result<()> {
        self.run("nft", &["-f", "-"], ruleset).with_context(|| format!("load ruleset\n{ruleset}")).map(drop)
    }

    pub(super) fn create(&self) -> Result<()> {
        run("ip", &["netns", "add", self.name()], "")?;
        for scope in ["all", "default"] {
            self.sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "1")?;
            self.sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
            self.sysctl(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
        }
        self.ip("link set lo up\n")
    }

    /// Forwards, and answers every packet whose TTL ran out: with a ratemask of 0 no ICMP type is limited. What it sends back to where it came
    /// from, as in a hairpin, goes without a redirect. What a bridge forwards passes no rules for IP.
    pub(super) fn make_router(&self) -> Result<()> {
        for scope in ["all", "default"] {
            self.sysctl(&format!("ipv4/conf/{scope}/send_redirects"), "0")?;
            self.sysctl(&format!("ipv6/conf/{scope}/forwarding"), "1")?;
        }
        for key in ["ipv4/icmp_ratelimit", "ipv4/icmp_ratemask", "ipv6/icmp/ratelimit"] {
            self.sysctl(key, "0")?;
        }
        if self.has_sysctl("bridge")? {
            self.sysctl("bridge/bridge-nf-call-iptables", "0")?;
        }
        self.sysctl("ipv4/ip_forward", "1")
    }

    /// For the devices that are there, and those that will be. Nobody looks for duplicates of addresses first, which takes a second.
    pub(super) fn enable_ipv6(&self) -> Result<()> {
        ["default", "all"].iter().try_for_each(|scope| self.sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "0"))
    }

    /// Ends every process inside, then removes the name. One that is gone already is no error: another lab may be sweeping too.
    pub(super) fn remove(&self) -> Result<()> {
        match self.kill_and_delete() {
            Err(_) if !self.exists() => Ok(()),
            outcome => outcome,
        }
    }

    fn kill_and_delete(&self) -> Result<()> {
        wait_until(KILL_DEADLINE, "the processes inside to end", || match self.pids() {
            Ok(pids) if pids.is_empty() => Some(Ok(())),
            Ok(pids) => {
                kill_all(&pids);
                None
            }
            Err(error) => Some(Err(error)),
        })??;
        run("ip", &["netns", "del", self.name()], "").map(drop)
    }

    /// The processes inside, without this one.
    fn pids(&self) -> Result<Vec<Pid>> {
        let listed = run("ip", &["netns", "pids", self.name()], "")?;
        let pids = listed.lines().filter_map(|line| line.trim().parse().ok()).map(Pid::from_raw);
        Ok(pids.filter(|pid| *pid != Pid::this()).collect())
    }

    fn exists(&self) -> bool {
        self.path().exists()
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(RUN_NETNS).join(self.name())
    }
}

/// Removes the namespaces of labs whose process is gone, and ends the processes inside them. [`super::Lab::new`] does it first.
///
/// # Errors
/// If such a namespace cannot be removed.
pub fn sweep() -> Result<()> {
    for name in names()?.iter().filter(|name| is_orphan(name)) {
        tracing::info!(netns = name, "removing what a crashed lab left behind");
        Netns::named(name).remove().with_context(|| format!("sweep namespace {name}"))?;
    }
    Ok(())
}

/// What the names of all namespaces of this process begin with: `mesh-<pid>-<start time>`. The start time tells a pid that was used again.
pub(super) fn own_prefix() -> Result<String> {
    let pid = process::id();
    let started = start_time(pid).with_context(|| format!("read /proc/{pid}/stat"))?;
    Ok(format!("mesh-{pid}-{started}"))
}

pub(super) fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!((1..=32).contains(&name.len()), "the name `{name}` has not 1 to 32 characters");
    ensure!(name.chars().all(fits), "the name `{name}` has other characters than a-z, 0-9 and -");
    Ok(())
}

/// One that ended by itself in the meantime is no error.
fn kill_all(pids: &[Pid]) {
    for pid in pids {
        let _ = kill(*pid, Signal::SIGKILL);
    }
}

fn names() -> Result<Vec<String>> {
    if !PathBuf::from(RUN_NETNS).exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(RUN_NETNS).context("list the network namespaces")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn is_orphan(name: &str) -> bool {
    owner(name).is_some_and(|(pid, started)| start_time(pid) != Some(started))
}

fn owner(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix("mesh-")?.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// When the process started, in clock ticks since boot (field 22 of proc_pid_stat(5)); `None` if it is gone or a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_this_process_is_no_orphan() {
        let name = format!("{}-0-x-core", own_prefix().expect("proc is there"));

        assert!(!is_orphan(&name));
    }

    #[test]
    fn a_namespace_of_an_earlier_process_with_this_pid_is_an_orphan() {
        assert!(is_orphan(&format!("mesh-{}-1-0-x-core", process::id())));
    }

    #[test]
    fn namespaces_of_others_are_left_alone() {
        for name in ["mesh", "mesh-core", "mesh-1", "mesh-one-2-3", "other-1-1-0"] {
            assert!(!is_orphan(name), "{name} is not ours");
        }
    }
}
