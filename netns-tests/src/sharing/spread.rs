//! How long a large blob takes from one runner to eight that ask for it at once, beside one alone. Each runner has a NAT and a limited link of its own, and each measurement a
//! new run, so that nothing is there already. Not here: that its origin sends it about once (the product's tests).

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use super::statistics::spread;
use super::{Plan, begin};
use crate::interrupt::Interrupt;
use crate::stage::{Crew, Member};

/// How many get it.
const MANY: usize = 8;

const NAME: &str = "large";
const MEGABYTE: usize = 1_000_000;

/// In which all have got it, or it has failed.
const SOON: Duration = Duration::from_secs(900);

/// One measurement.
struct Spread {
    seconds: f64,
    /// How much of it left the origin, in blobs.
    sent: f64,
    /// CPU of all runners, in seconds.
    cpu: f64,
}

/// The table as Markdown.
///
/// # Errors
/// If a crew does not form, or somebody does not get the blob.
pub(super) fn measure(plan: &Plan, interrupt: &Interrupt) -> Result<String> {
    let (mut one, mut many) = (vec![], vec![]);
    // Each takes a minute, of which the link is the most: they differ little.
    for number in 1..=plan.rounds().min(3) {
        for (count, into) in [(1, &mut one), (MANY, &mut many)] {
            begin(interrupt, &format!("spread to {count}, round {number}"))?;
            into.push(to(plan, count, interrupt)?);
        }
    }
    let seconds = |all: &[Spread]| all.iter().map(|one| one.seconds).collect::<Vec<_>>();
    let ratios: Vec<f64> = one.iter().zip(&many).map(|(one, many)| many.seconds / one.seconds).collect();
    let of = |all: &[Spread], part: fn(&Spread) -> f64| spread(&all.iter().map(part).collect::<Vec<_>>(), 1);
    let (bytes, mbit) = (plan.megabytes(), plan.mbit);
    let wire = f64::from(bytes) * 8.0 / f64::from(mbit);
    let cores = std::thread::available_parallelism()?;
    let mut text = format!(
        "\n{bytes} MB from one runner, {mbit} Mbit/s each way and runner, {wire:.1} s on such a link at best: seconds until the last one has it, and median (least-most) of {} \
         rounds. The goal is 1.5 times as long to {MANY}. All share {cores} cores: where CPU is near {cores} times the seconds, the machine is the limit and not the links.\n\n\
         | to | seconds | CPU of all, s | left the origin, times |\n|---|---|---|---|\n",
        one.len()
    );
    for (name, all) in [("1", &one), ("8", &many)] {
        let (cpu, sent) = (of(all, |one| one.cpu), of(all, |one| one.sent));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {} | {cpu} | {sent} |", spread(&seconds(all), 1));
    }
    let _ = writeln!(text, "\nTo {MANY} over to 1: {}.", spread(&ratios, 2));
    Ok(text)
}

/// A primary that has it, and as many others, of which `count` get it.
fn to(plan: &Plan, count: usize, interrupt: &Interrupt) -> Result<Spread> {
    let none: &[&str] = &[];
    let crew = Crew::start("spread", &[none; MANY + 1])?;
    let origin = &crew.members[0];
    let len = usize::from(plan.megabytes()) * MEGABYTE;
    store(origin, len)?;
    (1..=count).try_for_each(|at| crew.settle(0, at))?;
    crew.members.iter().try_for_each(|member| member.runner.limit(plan.mbit))?;
    let (sent, cpu) = (sent_by(origin)?, cpu(&crew)?);
    let began = Instant::now();
    let mut getting: Vec<Child> = crew.members[1..=count].iter().map(get).collect::<Result<_>>()?;
    for child in &mut getting {
        let ended = interrupt.wait_until(SOON, "the end of mesh cache get", || Ok(child.try_wait()?))?;
        ensure!(ended.success(), "mesh cache get: {ended}");
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu = (self::cpu(&crew)? - cpu).as_secs_f64();
    Ok(Spread { seconds, cpu, sent: (sent_by(origin)? - sent) as f64 / len as f64 })
}

/// Bytes that no compression makes smaller.
fn store(member: &Member, len: usize) -> Result<()> {
    let path = member.folder().join("large");
    let mut file = std::fs::File::create(&path)?;
    let (mut chunk, mut random) = (vec![0; MEGABYTE], StdRng::seed_from_u64(7));
    for _ in 0..len / MEGABYTE {
        random.fill_bytes(&mut chunk);
        file.write_all(&chunk)?;
    }
    let put = member.cache(&["put", NAME, &path.display().to_string()])?;
    ensure!(put.status.success(), "mesh cache put: {}", String::from_utf8_lossy(&put.stderr));
    Ok(std::fs::remove_file(&path)?)
}

fn get(member: &Member) -> Result<Child> {
    let mut command = member.plain(crate::stage::binary()?);
    command.args(["cache", "get", NAME]).stdout(Stdio::null());
    command.spawn().context("start mesh cache get")
}

/// Bytes that left its network device, all that wraps them among them.
fn sent_by(member: &Member) -> Result<u64> {
    let table = member.runner.netns().proc_net("dev")?;
    sent(&table).with_context(|| format!("/proc/net/dev has no eth0: {table}"))
}

/// The ninth number of its line (proc_pid_net(5)).
fn sent(table: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix("eth0:"))?;
    line.split_whitespace().nth(8)?.parse().ok()
}

fn cpu(crew: &Crew) -> Result<Duration> {
    crew.members.iter().map(|member| member.process.cpu()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_behind_what_was_received() {
        let table =
            "Inter-|   Receive |  Transmit\n    lo: 1 2 3 4 5 6 7 8 9 10\n  eth0: 10 20 0 0 0 0 0 0 4711 50 0\n";

        assert_eq!(sent(table), Some(4711));
        assert_eq!(sent("lo: 1"), None);
    }
}
