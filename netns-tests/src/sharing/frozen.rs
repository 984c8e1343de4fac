//! A build that uses the cache takes no longer than one without, even where all peers freeze just before it: ccache builds a C project that nobody has built before, without remote
//! storage, with the cache and healthy peers, and with the cache and frozen ones, in turns.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::statistics::spread;
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

/// The table as Markdown.
///
/// # Errors
/// If the crew does not form, or the project does not build.
pub(super) fn measure(plan: &Plan, interrupt: &Interrupt) -> Result<String> {
    let none: &[&str] = &[];
    let crew = Crew::start("frozen", &[none; AUX + 1])?;
    let files = if plan.quick { 20 } else { 60 };
    let (mut seconds, mut errors) = ([vec![], vec![], vec![]], [0; 3]);
    // The first fills the page cache.
    build(&crew.members[0], With::Nothing, files, "first")?;
    for number in 0..usize::from(plan.rounds()) {
        for turn in 0..ALL.len() {
            let at = (number + turn) % ALL.len();
            begin(interrupt, &format!("frozen, {}, round {}", ALL[at].name(), number + 1))?;
            let (took, failed) = under(&crew, ALL[at], files, &format!("{number}/{turn}"))?;
            seconds[at].push(took);
            errors[at] += failed;
        }
    }
    Ok(markdown(plan, files, &seconds, errors))
}

fn markdown(plan: &Plan, files: usize, seconds: &[Vec<f64>; 3], errors: [u64; 3]) -> String {
    let mut text = format!(
        "\nccache with an empty folder builds {files} files that nobody has built before (`make -j2`): seconds, median (least-most) of {} rounds, in turns; ratios are of the same \
         round. The goal is 1.05 with frozen peers.\n\n| with | seconds | of none | ccache's errors |\n|---|---|---|---|\n",
        plan.rounds()
    );
    for (at, with) in ALL.iter().enumerate() {
        let ratios: Vec<f64> = seconds[at].iter().zip(&seconds[0]).map(|(one, none)| one / none).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            with.name(),
            spread(&seconds[at], 2),
            spread(&ratios, 3),
            errors[at]
        );
    }
    text
}

fn under(crew: &Crew, with: With, files: usize, salt: &str) -> Result<(f64, u64)> {
    let frozen = if with == With::Frozen { &crew.members[1..] } else { &[] };
    crew.wait_for_all()?;
    let _thaw = Thaw(frozen);
    frozen.iter().try_for_each(|member| member.process.signal(Signal::SIGSTOP))?;
    build(&crew.members[0], with, files, salt)
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

/// Seconds, and how often ccache complained of its remote storage.
fn build(member: &Member, with: With, files: usize, salt: &str) -> Result<(f64, u64)> {
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
    let began = Instant::now();
    said(&mut make)?;
    let seconds = began.elapsed().as_secs_f64();
    let told = said(stats.arg("--print-stats"))?;
    let count = |name: &str| -> u64 {
        let value = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
    };
    ensure!(count("cache_miss") == files as u64, "not all is new to ccache: {told}");
    for folder in [&project, &cache] {
        std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok((seconds, count("remote_storage_error") + count("remote_storage_timeout")))
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
