//! A mesh of one with a cache.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use netns_tests::lab::wait_until;
use netns_tests::stage::{KEY, Process, binary};

/// For what must come on a machine that does other things too.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// A running `mesh primary` whose cache is below `folder`.
pub(crate) struct Home<'a> {
    pub(crate) process: Process,
    folder: &'a Path,
}

impl<'a> Home<'a> {
    /// Starts it and waits until its cache answers.
    pub(crate) fn start(folder: &'a Path) -> Self {
        let mut command = Command::new(binary().unwrap());
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
        let process = Process::spawn(command, &folder.join("mesh.log")).unwrap();
        let home = Self { process, folder };
        wait_until(SOON, "the cache", || home.try_env().filter(|env| env.len() > 3)).unwrap();
        home
    }

    /// `mesh cache` with these arguments.
    pub(crate) fn cache(&self, args: &[&str]) -> Output {
        let control = self.folder.join("mesh.sock");
        Command::new(binary().unwrap()).arg("cache").args(args).arg("--control").arg(control).output().unwrap()
    }

    fn try_env(&self) -> Option<Vec<(String, String)>> {
        let output = self.cache(&["env"]);
        output.status.success().then(|| variables(&String::from_utf8(output.stdout).unwrap()))
    }

    /// What `mesh cache env` prints.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        self.try_env().unwrap()
    }

    /// One of its variables.
    pub(crate) fn variable(&self, name: &str) -> String {
        self.env().into_iter().find(|(known, _)| known == name).unwrap().1
    }

    /// What `mesh cache stats` counts.
    pub(crate) fn stats(&self) -> serde_json::Value {
        serde_json::from_slice(&self.cache(&["stats", "--json"]).stdout).unwrap()
    }
}

fn variables(text: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let (name, value) = line.strip_prefix("export ").unwrap().split_once('=').unwrap();
        (name.to_owned(), value.trim_matches('\'').to_owned())
    };
    text.lines().map(line).collect()
}
