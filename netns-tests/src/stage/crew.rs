//! A run whose runners share their caches: a primary and its aux, each behind a NAT of its own and with a folder of its own. Not here: a mesh of one ([`super::Home`]).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::home::{named, variables};
use super::{Process, Stage, binary};
use crate::lab::{Link, Nat, Runner, wait_until};

const SOON: Duration = Duration::from_secs(40);

/// A primary and its aux. Nothing delays them.
#[derive(Debug)]
pub struct Crew {
    /// The primary first, then each aux by its index.
    pub members: Vec<Member>,
    /// What they run on.
    pub stage: Stage,
}

/// One of them.
#[derive(Debug)]
pub struct Member {
    /// Where it runs.
    pub runner: Runner,
    /// Its `mesh`.
    pub process: Process,
    args: Vec<String>,
    folder: PathBuf,
    control: PathBuf,
}

impl Crew {
    /// Starts them, a primary and an aux for each further one of `args`, which `mesh` takes beside the usual. Waits until each knows that all others have a cache.
    ///
    /// # Errors
    /// If that does not happen.
    pub fn start(name: &str, args: &[&[&str]]) -> Result<Self> {
        let stage = Stage::new(name)?;
        let members = args.iter().enumerate().map(|(at, more)| Member::start(&stage, at, args.len() - 1, more));
        let crew = Self { members: members.collect::<Result<_>>()?, stage };
        crew.wait_for_all()?;
        Ok(crew)
    }

    /// Waits until each knows that all others have a cache.
    ///
    /// # Errors
    /// If that does not happen.
    pub fn wait_for_all(&self) -> Result<()> {
        self.members.iter().try_for_each(|member| member.wait_for_peers(self.members.len() as u64 - 1))
    }

    /// Waits until what one member stored before is known to another: a record that is stored now is.
    ///
    /// # Errors
    /// If it is not found.
    pub fn settle(&self, from: usize, to: usize) -> Result<()> {
        let (file, name) = (self.stage.folder.path().join("fence"), format!("fence/{}", rand::random::<u64>()));
        std::fs::write(&file, &name)?;
        let put = self.members[from].cache(&["put", &name, &file.display().to_string()])?;
        ensure!(put.status.success(), "mesh cache put: {}", String::from_utf8_lossy(&put.stderr));
        let found = || self.members[to].cache(&["get", &name]).ok().filter(|output| output.status.success());
        wait_until(SOON, "what another runner stored", found).map(drop)
    }
}

impl Member {
    fn start(stage: &Stage, at: usize, aux: usize, more: &[&str]) -> Result<Self> {
        let index = at.checked_sub(1).map(|index| index.to_string());
        let (name, count) = (index.as_ref().map_or("primary".into(), |index| format!("aux{index}")), aux.to_string());
        let runner = stage.lab.runner(&name, Nat::Azure, Link::default())?;
        let folder = stage.folder.path().join(&name);
        std::fs::create_dir(&folder)?;
        let cache = folder.join("cache").display().to_string();
        let mut args = match &index {
            None => vec!["primary", "--aux", &count, "--offload", "none"],
            Some(index) => vec!["aux", "--index", index],
        };
        args.extend(["--cache", &cache]);
        args.extend(more);
        let process = stage.mesh(&runner, &args)?;
        let (args, control) = (args.into_iter().map(String::from).collect(), stage.control(&runner));
        Ok(Self { runner, process, args, folder, control })
    }

    /// Starts it again when it has ended, with what it kept on the disk.
    ///
    /// # Errors
    /// If it cannot start.
    pub fn restart(&mut self, stage: &Stage) -> Result<()> {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.process = stage.mesh(&self.runner, &args)?;
        Ok(())
    }

    /// A folder of its own, for tools.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Tools ask here from now on; waits until it knows of so many others.
    ///
    /// # Errors
    /// If it does not.
    pub fn wait_for_peers(&self, others: u64) -> Result<()> {
        let knows = || self.env().ok().and(self.stats().ok()).filter(|stats| stats["peers"] == others).map(drop);
        let known = wait_until(SOON, "the others' caches", knows);
        known
            .with_context(|| format!("{}: {:?}; it said:\n{}", self.runner.name(), self.stats(), self.process.output()))
    }

    /// A program on its runner, with nothing but what it has by itself.
    pub fn plain(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.runner.command(program);
        command.stdin(Stdio::null()).env("MESH_CONTROL", &self.control);
        command
    }

    /// A program on its runner, with what `mesh cache env` prints.
    ///
    /// # Errors
    /// If that prints nothing.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = self.plain(program);
        command.envs(self.env()?);
        Ok(command)
    }

    /// `mesh` with these arguments, to its end.
    ///
    /// # Errors
    /// If it cannot start.
    pub fn mesh(&self, args: &[&str]) -> Result<Output> {
        Ok(self.plain(binary()?).args(args).output()?)
    }

    /// `mesh cache` with these arguments, to its end.
    ///
    /// # Errors
    /// If it cannot start.
    pub fn cache(&self, args: &[&str]) -> Result<Output> {
        self.mesh(&[&["cache"], args].concat())
    }

    /// What `mesh cache env` prints.
    ///
    /// # Errors
    /// If it fails.
    pub fn env(&self) -> Result<Vec<(String, String)>> {
        variables(self.cache(&["env"])?)
    }

    /// One of its variables.
    ///
    /// # Errors
    /// If it has none of this name.
    pub fn variable(&self, name: &str) -> Result<String> {
        named(self.env()?, name)
    }

    /// What `mesh cache stats` counts.
    ///
    /// # Errors
    /// If that is no JSON.
    pub fn stats(&self) -> Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.cache(&["stats", "--json"])?.stdout)?)
    }

    /// One of its numbers.
    ///
    /// # Errors
    /// If it has none of this name.
    pub fn count(&self, name: &str) -> Result<u64> {
        self.stats()?[name].as_u64().with_context(|| format!("mesh cache stats has no {name}"))
    }
}
