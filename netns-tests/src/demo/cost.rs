//! What a process costs while it idles, as the kernel counts it. Not here: which processes.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::unistd::Pid;

use crate::interrupt::Interrupt;

/// What the project allows itself for each process.
const GOAL_CPU: f64 = 1.0;
const GOAL_MIB: f64 = 30.0;

/// The cost of one process.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Idle {
    name: String,
    /// Per cent of one core.
    cpu: f64,
    /// Resident memory.
    mib: f64,
}

/// Looks at the processes for a while.
pub(super) fn measure(pids: &[(String, Pid)], over: Duration, interrupt: &Interrupt) -> Result<Vec<Idle>> {
    let busy = || pids.iter().map(|(_, pid)| cpu_time(*pid)).collect::<Result<Vec<_>>>();
    let (before, started) = (busy()?, Instant::now());
    interrupt.pass(over)?;
    let (after, passed) = (busy()?, started.elapsed());
    let cost = |((name, pid), (before, after)): (&(String, Pid), (Duration, Duration))| {
        let cpu = 100.0 * after.saturating_sub(before).as_secs_f64() / passed.as_secs_f64();
        Ok(Idle { name: name.clone(), cpu, mib: resident_mib(*pid)? })
    };
    pids.iter().zip(before.into_iter().zip(after)).map(cost).collect()
}

/// One line for each process.
pub(super) fn table(idle: &[Idle]) -> String {
    let row = |idle: &Idle| format!("{:<8}  {:>5.2} % of a core  {:>5.1} MiB of memory", idle.name, idle.cpu, idle.mib);
    idle.iter().map(row).collect::<Vec<_>>().join("\n")
}

/// The most that any process took, and whether that is within the goal.
pub(super) fn worst(idle: &[Idle]) -> String {
    let most = |of: fn(&Idle) -> f64| idle.iter().map(of).fold(0.0, f64::max);
    let (cpu, mib) = (most(|idle| idle.cpu), most(|idle| idle.mib));
    let within = if cpu < GOAL_CPU && mib < GOAL_MIB { "within" } else { "OVER" };
    format!(
        "{cpu:.2} % of a core and {mib:.1} MiB at most for a process; {within} the goal of {GOAL_CPU} % and {GOAL_MIB} MiB"
    )
}

/// The time on a CPU of all threads, from the first field of `/proc/PID/task/TID/schedstat`, in ns (Documentation/scheduler/sched-stats).
fn cpu_time(pid: Pid) -> Result<Duration> {
    let folder = format!("/proc/{pid}/task");
    let mut all = Duration::ZERO;
    for thread in fs::read_dir(&folder).with_context(|| format!("read {folder}"))?.flatten() {
        // A thread may end between the listing and the look.
        let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let nanos = text.split_ascii_whitespace().next().and_then(|field| field.parse().ok());
        all += Duration::from_nanos(nanos.with_context(|| format!("no time in {folder}: `{text}`"))?);
    }
    Ok(all)
}

fn resident_mib(pid: Pid) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let kib =
        text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.map(|kib: f64| kib / 1024.0).with_context(|| format!("no VmRSS in {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_has_used_time_and_memory() {
        let own = Pid::this();
        let before = cpu_time(own).expect("proc is there");
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(30) {
            std::hint::spin_loop();
        }

        assert!(cpu_time(own).expect("proc is there") > before);
        assert!(resident_mib(own).expect("proc is there") > 0.1);
    }

    #[test]
    fn the_worst_of_each_is_told() {
        let idle = |cpu, mib| Idle { name: "x".into(), cpu, mib };

        assert!(worst(&[idle(0.5, 9.0), idle(0.1, 12.0)]).starts_with("0.50 % of a core and 12.0 MiB at most"));
        assert!(worst(&[idle(1.5, 9.0)]).contains("OVER"));
    }
}
