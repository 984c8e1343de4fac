//! A build that uses the cache takes no longer than one without, even where all peers freeze just before it: ccache builds a C project that nobody has built before, without remote
//! storage, with the cache and healthy peers, and with the cache and frozen ones, in turns.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::statistics::{median, spread};
use super::{Plan, begin};
use crate::interrupt::Interrupt;
use crate::stage::{Crew, Member};

const AUX: usize = 4;

/// Functions of a file: gcc takes about a fifth of a second for them.
const FUNCTIONS: usize = 8;

/// With what it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum With {
    Nothing,
    Healthy,
    Frozen,
}

const ALL: [With; 3] = [With::Nothing, With::Healthy, With::Frozen];

impl With {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no remote storage",
            Self::Healthy => "the cache, 4 aux",
            Self::Frozen => "the cache, all 4 aux frozen",
        }
    }
}

/// One build.
#[derive(Debug, Clone, Copy)]
struct Build {
    seconds: f64,
    /// Seconds of CPU: of gcc and ccache, of the `mesh` that they ask, and of the others.
    cpu: [f64; 3],
    /// Look-ups that no peer answered in time.
    late: u64,
    /// How often ccache complained of its remote storage.
    errors: u64,
}

/// The table as Markdown.
///
/// # Errors
/// If the crew does not form, or the project does not build.
pub(super) fn measure(plan: &Plan, interrupt: &Interrupt) -> Result<String> {
    let none: &[&str] = &[];
    let crew = Crew::start("frozen", &[none; AUX + 1])?;
    let files = if plan.quick { 20 } else { 60 };
    let mut builds = [vec![], vec![], vec![]];
    // The first fills the page cache.
    build(&crew, With::Nothing, files, "first")?;
    for number in 0..usize::from(plan.rounds()) {
        for turn in 0..ALL.len() {
            let at = (number + turn) % ALL.len();
            begin(interrupt, &format!("frozen, {}, round {}", ALL[at].name(), number + 1))?;
            builds[at].push(under(&crew, ALL[at], files, &format!("{number}/{turn}"))?);
        }
    }
    Ok(markdown(plan, files, &builds))
}

fn markdown(plan: &Plan, files: usize, builds: &[Vec<Build>; 3]) -> String {
    let mut text = format!(
        "\nccache with an empty folder builds {files} files that nobody has built before (`make -j2`): seconds, median (least-most) of {} rounds, in turns; ratios are of the same \
         round. The goal is 1.05 with frozen peers. CPU in seconds, median: of gcc and ccache, of the `mesh` that they ask, and of the four others, which share its cores here. \
         *Late*: look-ups that no peer answered in time.\n\n\
         | with | seconds | of none | CPU of the build | of its mesh | of the others | late | ccache's errors |\n|---|---|---|---|---|---|---|---|\n",
        plan.rounds()
    );
    for (with, all) in ALL.iter().zip(builds) {
        let seconds: Vec<f64> = all.iter().map(|one| one.seconds).collect();
        let ratios: Vec<f64> = all.iter().zip(&builds[0]).map(|(one, none)| one.seconds / none.seconds).collect();
        let cpu = [0, 1, 2].map(|at| median(all.iter().map(|one| one.cpu[at])));
        let (late, errors) = all.iter().fold((0, 0), |(late, errors), one| (late + one.late, errors + one.errors));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} | {:.3} | {:.3} | {late} | {errors} |",
            with.name(),
            spread(&seconds, 2),
            spread(&ratios, 3),
            cpu[0],
            cpu[1],
            cpu[2]
        );
    }
    text
}

fn under(crew: &Crew, with: With, files: usize, salt: &str) -> Result<Build> {
    let frozen = if with == With::Frozen { &crew.members[1..] } else { &[] };
    crew.wait_for_all()?;
    let _thaw = Thaw(frozen);
    frozen.iter().try_for_each(|member| member.process.signal(Signal::SIGSTOP))?;
    build(crew, with, files, salt)
}

/// They go on when it is dropped.
struct Thaw<'a>(&'a [Member]);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        for member in self.0 {
            // One that is gone has nothing to go on with.
            let _ = member.process.signal(Signal::SIGCONT);
        }
    }
}

/// CPU so far: of what was started here and has ended, of the first `mesh`, and of the others.
fn cpu(crew: &Crew) -> Result<[f64; 3]> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    let ended = of_children(&stat).with_context(|| format!("/proc/self/stat has no times: {stat}"))?;
    let of = |members: &[Member]| members.iter().map(|member| member.process.cpu()).sum::<Result<Duration>>();
    Ok([ended, of(&crew.members[..1])?.as_secs_f64(), of(&crew.members[1..])?.as_secs_f64()])
}

/// cutime and cstime, in hundredths (proc_pid_stat(5)).
fn of_children(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(13);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / 100.0)
}

fn build(crew: &Crew, with: With, files: usize, salt: &str) -> Result<Build> {
    let member = &crew.members[0];
    let (project, cache) = (member.folder().join("project"), member.folder().join("ccache"));
    write(&project, files, salt)?;
    let storage = if with == With::Nothing { String::new() } else { member.variable("CCACHE_REMOTE_STORAGE")? };
    let command = |program: &str| {
        let mut command = member.plain(program);
        command.current_dir(&project).env("CCACHE_DIR", &cache).env_remove("CCACHE_REMOTE_STORAGE");
        if !storage.is_empty() {
            command.env("CCACHE_REMOTE_STORAGE", &storage);
        }
        command
    };
    let (mut make, mut stats) = (command("make"), command("ccache"));
    make.args(["-s", "-j2"]);
    let late = member.count("late")?;
    let (began, before) = (Instant::now(), cpu(crew)?);
    said(&mut make)?;
    let (seconds, after) = (began.elapsed().as_secs_f64(), cpu(crew)?);
    let late = member.count("late")? - late;
    let told = said(stats.arg("--print-stats"))?;
    let count = |name: &str| -> u64 {
        let value = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
    };
    ensure!(count("cache_miss") == files as u64, "not all is new to ccache: {told}");
    for folder in [&project, &cache] {
        std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    let errors = count("remote_storage_error") + count("remote_storage_timeout");
    Ok(Build { seconds, cpu: [0, 1, 2].map(|at| after[at] - before[at]), late, errors })
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// As much work each time, of which nobody has done any.
fn write(folder: &Path, files: usize, salt: &str) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let objects: Vec<String> = (0..files).map(|at| format!("f{at}.o")).collect();
    let rules = format!("all: {}\n%.o: %.c\n\tccache gcc -O2 -c $< -o $@\n", objects.join(" "));
    std::fs::write(folder.join("Makefile"), rules)?;
    for file in 0..files {
        let mut text = format!(
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\nconst char salt{file}[] = \"{salt}\";\n"
        );
        for at in 0..FUNCTIONS {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "int f{file}_{at}(int n, const char *s) {{ int a[64], t = {at}; for (int i = 0; i < 64; i++) a[i] = i * n + {at};\n\
                 for (int i = 0; i < n; i++) {{ t += a[i % 64] ^ (int)strlen(s); if (t % 7 == 3) printf(\"%d %s\\n\", t, s); a[i % 64] = t; }}\n\
                 char *b = malloc(t > 0 ? t : 1); if (b) {{ memset(b, t, 1); t += b[0]; free(b); }} return t; }}"
            );
        }
        std::fs::write(folder.join(format!("f{file}.c")), text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_of_children_is_behind_a_name_that_may_have_spaces() {
        let stat = "1234 (a ) b) S 1 2 3 4 5 6 7 8 9 10 111 222 333 444 20 0";

        assert_eq!(of_children(stat), Some(7.77));
    }
}
