//! The runners of the demo and the `mesh` processes on them. Not here: when they start and what is made of them.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mesh::report::Report;
use nix::unistd::Pid;

use super::screen::Screen;
use super::tail::Tail;
use crate::interrupt::Interrupt;
use crate::lab::{Nat, Runner};
use crate::stage::{Process, RUN, Stage, binary};

/// For all runners to find each other; it takes a second or two.
const FORMING: Duration = Duration::from_secs(60);

/// Runners have 2 to 4 cores; here they share one machine's.
const SLOTS: &str = "2";

/// Who called sudo: the build is theirs.
#[derive(Debug, Clone)]
pub(super) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// From SUDO_UID and SUDO_GID; `None` where root itself is at work.
    pub(super) fn from_env() -> Option<Self> {
        let id = |name: &str| std::env::vars().find(|(known, _)| known == name)?.1.parse().ok();
        Some(Self { uid: id("SUDO_UID")?, gid: id("SUDO_GID")? })
    }

    /// Gives a file to them.
    pub(super) fn own(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid)).with_context(|| format!("give {} to the user", path.display()))
    }

    /// Makes a command theirs.
    pub(super) fn run_as(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    fn variables(&self) -> [(&'static str, String); 2] {
        [("SUDO_UID", self.uid.to_string()), ("SUDO_GID", self.gid.to_string())]
    }
}

/// The runners, and all that they need.
#[derive(Debug)]
pub(super) struct Theatre<'a> {
    stage: &'a Stage,
    home: Runner,
    pub(super) aux: Vec<Runner>,
    user: Option<User>,
    pub(super) interrupt: Interrupt,
}

impl<'a> Theatre<'a> {
    /// Adds the runners to the lab.
    pub(super) fn new(stage: &'a Stage, aux: u16, user: Option<User>, interrupt: Interrupt) -> Result<Self> {
        // The control socket and the compiler links lie in it, and the build is not root's.
        std::fs::set_permissions(stage.folder.path(), PermissionsExt::from_mode(0o755))?;
        let home = stage.runner("primary", Nat::Azure)?;
        let aux = (0..aux).map(|i| stage.runner(&format!("aux{i}"), Nat::Azure)).collect::<Result<_>>()?;
        Ok(Self { stage, home, aux, user, interrupt })
    }

    /// Starts `mesh` on every runner, as the given attempt of the run, and says with which words.
    pub(super) fn start(&self, args: &[&str], command: &[OsString], attempt: u32, screen: &mut Screen) -> Result<Cast> {
        let count = self.aux.len().to_string();
        let command =
            command.iter().map(|word| word.to_str().context("COMMAND is not UTF-8")).collect::<Result<Vec<_>>>()?;
        let dashes = if command.is_empty() { &[][..] } else { &["--"][..] };
        let args = [&["primary", "--aux", &count], args, dashes, &command].concat();
        screen.line("primary", &format!("$ mesh {}", args.iter().map(|arg| quoted(arg)).collect::<Vec<_>>().join(" ")));
        let primary = self.actor("primary", &self.home, &args, attempt)?;
        let mut aux = vec![];
        for (i, runner) in self.aux.iter().enumerate() {
            let (name, index) = (format!("aux {i}"), i.to_string());
            let args = ["aux", "--index", &index, "--slots", SLOTS];
            screen.line(&name, &format!("$ mesh {}", args.join(" ")));
            aux.push(self.actor(&name, runner, &args, attempt)?);
        }
        Ok(Cast { primary, aux })
    }

    /// Tells what everybody says until all are up.
    pub(super) fn until_up(&self, cast: &mut Cast, screen: &mut Screen) -> Result<Report> {
        let mut announced = 0;
        let report = self.interrupt.wait_until(FORMING, "all runners to be up", || {
            self.tell_announced(&mut announced, screen);
            cast.tell(screen);
            cast.nobody_ended()?;
            Ok(self.status().filter(|report| report.peers.iter().all(|peer| peer.state == "up")))
        });
        cast.tell(screen);
        report
    }

    fn tell_announced(&self, already: &mut usize, screen: &mut Screen) {
        for artifact in self.stage.github.artifacts(RUN).iter().skip(*already) {
            screen.line("GitHub", &format!("has an artifact of {}, {} bytes", artifact.job, artifact.size));
            *already += 1;
        }
    }

    /// What `mesh status --json` of the primary says.
    pub(super) fn status(&self) -> Option<Report> {
        let output = self.ask(&["status", "--json"]).ok()?;
        serde_json::from_slice(&output).ok()
    }

    /// Ends the mesh.
    pub(super) fn leave(&self) -> Result<()> {
        self.ask(&["leave"]).map(drop)
    }

    /// The file with what the primary and the build say.
    pub(super) fn primary_log(&self) -> PathBuf {
        self.stage.folder.path().join(format!("{}.log", self.home.name()))
    }

    fn ask(&self, verb: &[&str]) -> Result<Vec<u8>> {
        let mut command = Command::new(binary()?);
        command.args(verb).arg("--control").arg(self.stage.control(&self.home)).stdin(Stdio::null());
        let output = command.output().with_context(|| format!("run `mesh {}`", verb.join(" ")))?;
        ensure!(
            output.status.success(),
            "`mesh {}`: {}",
            verb.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(output.stdout)
    }

    fn actor(&self, name: &str, runner: &Runner, args: &[&str], attempt: u32) -> Result<Actor> {
        let mut variables = vec![("GITHUB_RUN_ATTEMPT", attempt.to_string())];
        variables.extend(self.user.iter().flat_map(User::variables));
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let process = self.stage.mesh_with(runner, args, &variables)?;
        let tail = Tail::open(process.log())?;
        Ok(Actor { name: name.into(), process, tail })
    }
}

/// A `mesh` process, and what it says.
#[derive(Debug)]
struct Actor {
    name: String,
    process: Process,
    tail: Tail,
}

impl Actor {
    fn tell(&mut self, screen: &mut Screen) {
        for line in self.tail.lines() {
            if let Some(line) = line.strip_prefix("mesh: ").filter(|line| *line != "summary") {
                screen.line(&self.name, line);
            }
        }
    }
}

/// The processes of one mesh.
#[derive(Debug)]
pub(super) struct Cast {
    primary: Actor,
    aux: Vec<Actor>,
}

impl Cast {
    /// Tells what was said since.
    fn tell(&mut self, screen: &mut Screen) {
        self.all().for_each(|actor| actor.tell(screen));
    }

    /// Likewise, of the primary alone.
    pub(super) fn tell_primary(&mut self, screen: &mut Screen) {
        self.primary.tell(screen);
    }

    /// Whether the primary has ended.
    pub(super) fn primary_ended(&mut self) -> bool {
        self.primary.process.ended().is_some()
    }

    /// The exit codes once all have ended: the primary's first.
    pub(super) fn ends(&mut self, within: Duration) -> Result<Vec<i32>> {
        self.all()
            .map(|actor| actor.process.wait(within).with_context(|| format!("{} does not end", actor.name)))
            .collect()
    }

    /// Names and ids.
    pub(super) fn pids(&self) -> Vec<(String, Pid)> {
        let all = std::iter::once(&self.primary).chain(&self.aux);
        all.map(|actor| (actor.name.clone(), actor.process.pid())).collect()
    }

    fn nobody_ended(&mut self) -> Result<()> {
        for actor in self.all() {
            if let Some(code) = actor.process.ended() {
                bail!("{} ended with exit code {code}; it said:\n{}", actor.name, actor.process.output());
            }
        }
        Ok(())
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Actor> {
        std::iter::once(&mut self.primary).chain(&mut self.aux)
    }
}

/// As one would type it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}
