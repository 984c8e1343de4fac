//! The demo: a mesh forms, idles and builds before a newcomer's eyes, and is judged. Not here: the network and the processes
//! ([`crate::stage`]), and where the project comes from (`scripts/demo`).

mod cast;
mod cost;
mod screen;
mod tail;
mod verdict;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh::report::Report;

use crate::interrupt::Interrupt;
use crate::stage::Stage;
use cast::{Cast, Theatre, User};
use cost::Idle;
use screen::Screen;
use verdict::Verdict;

/// Long enough for a CPU share of 1 % to be 50 ms of work.
const IDLE: Duration = Duration::from_secs(5);

/// An aux that is released ends within this time.
const RELEASE: Duration = Duration::from_secs(2);

/// A build that takes longer has nobody watching.
const BUILD: Duration = Duration::from_secs(24 * 60 * 60);

/// How often the jobs are counted, on a terminal and in a log.
const LIVE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// What is shown of a log of a build that failed.
const LAST_LINES: usize = 30;

/// What to show. The project is the current folder.
#[derive(Debug)]
pub struct Plan {
    /// How many aux.
    pub aux: u16,
    /// What builds the project.
    pub command: Vec<OsString>,
    /// A shell's command that tells by its exit code whether the program that was built works.
    pub self_test: Option<String>,
    /// Where the primary's report is kept; an absolute path.
    pub report: PathBuf,
    /// Where the build's output is kept; an absolute path.
    pub log: PathBuf,
}

/// Shows it all. Whether everything was as it must be.
///
/// # Errors
/// If the lab cannot be built, a process ends too early, or [`crate::interrupt::Interrupted`].
pub fn run(plan: &Plan) -> Result<bool> {
    let (mut screen, interrupt) = (Screen::new(), Interrupt::listen()?);
    screen.heading("1. Runners without a network between them");
    screen.text(&screen::picture(plan.aux));
    let stage = Stage::new("demo").context("build the lab")?;
    let user = User::from_env();
    let theatre = Theatre::new(&stage, plan.aux, user.clone(), interrupt)?;
    let idle = form(&theatre, &mut screen)?;
    let (report, mut verdict) = build(&theatre, plan, &mut screen)?;
    keep_log(&theatre, plan, user.as_ref())?;
    test(plan, user.as_ref(), &mut verdict)?;
    tell(plan, &report, &idle, &verdict, &mut screen);
    Ok(verdict.is_good())
}

fn form(theatre: &Theatre<'_>, screen: &mut Screen) -> Result<Vec<Idle>> {
    screen.heading("2. They find each other");
    screen.text(
        "Every runner asks a STUN server how its NAT looks from outside and leaves that, encrypted, as an artifact\n\
         of the workflow run. Whoever reads it opens its own NAT, and a WireGuard tunnel comes up. No port is opened by hand.",
    );
    let mut cast = theatre.start(&["--min-aux", &theatre.aux.len().to_string()], &[], 1, screen)?;
    let report = theatre.until_up(&mut cast, screen)?;
    screen.text(&format!("All are up. Median time to connect: {} ms.", verdict::median_connect_ms(&report)));
    screen.text(&format!("What does a mesh cost that has nothing to do? Looking for {} seconds...", IDLE.as_secs()));
    let idle = cost::measure(&cast.pids(), IDLE, &theatre.interrupt)?;
    screen.text(&cost::table(&idle));
    theatre.leave()?;
    cast.ends(RELEASE)?;
    Ok(idle)
}

fn build(theatre: &Theatre<'_>, plan: &Plan, screen: &mut Screen) -> Result<(Report, Verdict)> {
    screen.heading("3. They build together");
    let report_path = plan.report.to_str().context("the report's path is not UTF-8")?;
    let mut cast = theatre.start(&["--report", report_path], &plan.command, 2, screen)?;
    screen.text(&format!("The build's own output goes to {}", plan.log.display()));
    watch(theatre, &mut cast, screen)?;
    let codes = cast.ends(RELEASE)?;
    let text = fs::read_to_string(&plan.report).with_context(|| format!("read {report_path}"))?;
    let report: Report = serde_json::from_str(&text).with_context(|| format!("parse {report_path}"))?;
    let verdict = Verdict::new(&report, &codes);
    Ok((report, verdict))
}

/// Until the primary ends: the primary's own words, and the jobs of each aux.
fn watch(theatre: &Theatre<'_>, cast: &mut Cast, screen: &mut Screen) -> Result<()> {
    let every = LIVE[usize::from(!screen.is_live())];
    let (started, mut next) = (Instant::now(), Instant::now() + every);
    theatre.interrupt.wait_until(BUILD, "the end of the build", || {
        cast.tell_primary(screen);
        if Instant::now() >= next {
            next += every;
            if let Some(report) =
                theatre.status().filter(|report| report.peers.iter().any(|peer| peer.connect_ms.is_some()))
            {
                screen.live(&progress(started.elapsed(), &report));
            }
        }
        Ok(cast.primary_ended().then_some(()))
    })?;
    screen.end_live();
    Ok(())
}

fn progress(since: Duration, report: &Report) -> String {
    let jobs: Vec<String> = report.peers.iter().map(|peer| peer.jobs.to_string()).collect();
    let all: u64 = report.peers.iter().map(|peer| peer.jobs).sum();
    format!("{:>4} s   jobs done by aux 0 to {}: {} ({all} in all)", since.as_secs(), jobs.len() - 1, jobs.join(" + "))
}

fn keep_log(theatre: &Theatre<'_>, plan: &Plan, user: Option<&User>) -> Result<()> {
    fs::copy(theatre.primary_log(), &plan.log).with_context(|| format!("write {}", plan.log.display()))?;
    user.map_or(Ok(()), |user| user.own(&plan.log))
}

fn test(plan: &Plan, user: Option<&User>, verdict: &mut Verdict) -> Result<()> {
    let Some(line) = &plan.self_test else { return Ok(()) };
    let mut command = std::process::Command::new("sh");
    command.args(["-c", line]).stdin(std::process::Stdio::null());
    if let Some(user) = user {
        user.run_as(&mut command);
    }
    let output = command.output().with_context(|| format!("run the self test `{line}`"))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    verdict.add(output.status.success(), "the program that was built passes its self test", said.trim());
    Ok(())
}

fn tell(plan: &Plan, report: &Report, idle: &[Idle], verdict: &Verdict, screen: &mut Screen) {
    screen.heading("4. What came of it");
    screen.text(&report.table());
    let wall = report.command.as_ref().map_or(0, |command| command.wall_ms);
    screen.text(&format!(
        "median time to connect  {} ms, with 20 ms of delay one way\n\
         build                   {:.1} s; all runners share this machine's cores, so it cannot be faster than without a mesh\n\
         idle cost               {}\n\
         report                  {}\n\
         output of the build     {}",
        verdict::median_connect_ms(report),
        Duration::from_millis(wall).as_secs_f64(),
        cost::worst(idle),
        plan.report.display(),
        plan.log.display(),
    ));
    screen.text(&verdict.to_string());
    if !verdict.is_good() {
        screen.text(&format!("The last lines of {}:\n{}", plan.log.display(), last_lines(&plan.log)));
    }
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
