//! A mesh of one machine, with a cache: on loopback, without a lab and without privilege.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{KEY, Process, binary};
use crate::lab::wait_until;

const SOON: Duration = Duration::from_secs(40);

/// What `mesh primary` takes so that it is alone, keeping everything below `folder`, the cache too.
pub fn alone(folder: &Path) -> Result<Command> {
    let mut command = Command::new(binary()?);
    let at = |name: &str| folder.join(name).display().to_string();
    command.args(["primary", "--aux", "0", "--no-tun", "--offload", "none", "--stun", "127.0.0.1:9"]);
    command.args([
        "--rendezvous",
        &format!("dir:{}", at("meeting")),
        "--control",
        &at("mesh.sock"),
        "--cache",
        &at("cache"),
    ]);
    command.env("MESH_KEY", KEY);
    Ok(command)
}

/// Such a mesh, running.
#[derive(Debug)]
pub struct Home {
    /// The `mesh primary`.
    pub process: Process,
    folder: PathBuf,
}

impl Home {
    /// Starts it and waits until its cache answers.
    ///
    /// # Errors
    /// If it does not.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, &[])
    }

    /// The same, with more arguments.
    ///
    /// # Errors
    /// If its cache does not answer.
    pub fn start_with(folder: &Path, args: &[&str]) -> Result<Self> {
        let mut command = alone(folder)?;
        command.args(args);
        let process = Process::spawn(command, &folder.join("mesh.log"))?;
        let home = Self { process, folder: folder.into() };
        let answers = wait_until(SOON, "the cache", || home.env().ok());
        answers.with_context(|| format!("it said:\n{}", home.process.output()))?;
        Ok(home)
    }

    /// `mesh cache` with these arguments.
    ///
    /// # Errors
    /// If it cannot start.
    pub fn cache(&self, args: &[&str]) -> Result<Output> {
        Ok(self.cache_command(args)?.output()?)
    }

    /// The same, to be started.
    ///
    /// # Errors
    /// If there is no program.
    pub fn cache_command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.arg("cache").args(args).arg("--control").arg(self.folder.join("mesh.sock"));
        Ok(command)
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
}

/// What `mesh cache env` has printed.
pub(super) fn variables(output: Output) -> Result<Vec<(String, String)>> {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success(), "mesh cache env: {told}");
    String::from_utf8(output.stdout)?.lines().map(variable).collect()
}

/// The one of this name.
pub(super) fn named(variables: Vec<(String, String)>, name: &str) -> Result<String> {
    let found = variables.into_iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value).with_context(|| format!("mesh cache env prints no {name}"))
}

fn variable(line: &str) -> Result<(String, String)> {
    let exported = line.strip_prefix("export ").and_then(|line| line.split_once('='));
    let (name, value) = exported.with_context(|| format!("`{line}` exports nothing"))?;
    Ok((name.to_owned(), value.trim_matches('\'').to_owned()))
}
