//! The machine that all contenders share: what it is, how busy it is, and what its processors have done. Not here: single processes
//! ([`crate::stage::Process`]).

use std::fs::read_to_string;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result};
use mesh::link::clock;
use mesh::proto::overlay::MTU;

use super::contender::Present;
use super::{Contender, Kind, Plan};

/// Of `/proc/stat`: USER_HZ is 100 wherever this runs (time(7)).
const TICK: Duration = Duration::from_millis(10);

/// What a reader has to know of that.
const GRID: &str = "Delay and loss are of a cable in user space, which takes CPU too. Both are the same each way, and of a super-packet each packet is lost \
    on its own.\n";

/// What was found before the first turn.
#[derive(Debug)]
pub(super) struct Machine {
    day: String,
    name: String,
    /// The load average over a minute.
    pub(super) load: String,
}

impl Machine {
    /// # Errors
    /// If `/proc` cannot be read.
    pub(super) fn now() -> Result<Self> {
        let model = model(&read("/proc/cpuinfo")?).unwrap_or("a processor without a name").to_owned();
        let cores = available_parallelism()?;
        let name = format!("{cores} cores of {model}, Linux {}", read("/proc/sys/kernel/osrelease")?.trim());
        Ok(Self { day: clock::rfc3339_now().chars().take(10).collect(), name, load: load()? })
    }

    /// Under which conditions it was measured, and of whom.
    ///
    /// # Errors
    /// As [`Machine::now`].
    pub(super) fn conditions(&self, plan: &Plan, present: &[Present]) -> Result<String> {
        let Self { day, name, load: before } = self;
        let congestion = match &plan.congestion {
            Some(name) => name.clone(),
            None => read("/proc/sys/net/ipv4/tcp_congestion_control")?.trim().to_owned(),
        };
        let who: Vec<String> =
            present.iter().map(|one| format!("{} ({})", one.contender.name(), one.version)).collect();
        let (after, who, measure) = (load()?, who.join(", "), Contender::MEASURE.name());
        let Plan { rounds, seconds, .. } = plan;
        Ok(format!(
            "{day}, {name}, load average {before} before and {after} after; rounds in turn: {rounds}; {seconds} s a stream; TCP {congestion}; \
             MTU {MTU} inside.\n{who}.\nMedian (least-most) of the rounds, and the ratio to {measure}: the median of each round's.\n{}",
            if plan.only.contains(&Kind::Grid) { GRID } else { "" }
        ))
    }
}

/// What all processors have worked since the machine started, interrupts and kernel threads included.
///
/// # Errors
/// If `/proc` cannot be read.
pub(super) fn cpu() -> Result<Duration> {
    busy(&read("/proc/stat")?).context("/proc/stat has no line of all processors")
}

/// user, nice, system, irq and softirq; idle and iowait are no work, steal is another machine's, and guests are in user (proc_stat(5)).
fn busy(stat: &str) -> Option<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks = line.split_whitespace().map(|field| field.parse::<u32>().ok()).collect::<Option<Vec<_>>>()?;
    let &[user, nice, system, _idle, _iowait, irq, softirq, ..] = &ticks[..] else { return None };
    [user, nice, system, irq, softirq].into_iter().try_fold(0_u32, u32::checked_add).map(|ticks| TICK * ticks)
}

fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim())
}

fn load() -> Result<String> {
    Ok(read("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned())
}

fn read(path: &str) -> Result<String> {
    read_to_string(path).with_context(|| format!("read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_all_but_idling_waiting_and_what_others_took() {
        let stat = "cpu  3624474 1490307 599680 1658263 28692 0 44038 9648 0 0\n\
            cpu0 1790056 723114 294876 886600 5992 0 21755 4890 0 0\n";

        assert_eq!(busy(stat), Some(TICK * (3_624_474 + 1_490_307 + 599_680 + 44_038)));
        assert_eq!((busy("intr 1 2 3\n"), busy("cpu  1 2 3\n")), (None, None));
    }

    #[test]
    fn the_processor_has_a_name() {
        let cpuinfo = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Processor @ 2.50GHz\n";

        assert_eq!(model(cpuinfo), Some("Intel(R) Xeon(R) Processor @ 2.50GHz"));
    }
}
