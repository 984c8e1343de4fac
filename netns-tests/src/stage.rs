//! A run on stage: a lab, a rendezvous that every runner reaches, and real `mesh` processes inside. Not here: what is expected of them.

mod crew;
mod home;
mod process;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub use crew::{Crew, Member};
pub use home::{Home, alone};
pub use process::Process;

use crate::fake_github::FakeGithub;
use crate::lab::{Lab, Link, Nat, Runner, Server};

/// A delay that a build's runners may have between them, one way.
pub const DELAY: Duration = Duration::from_millis(20);

/// The shared key of every run on stage.
pub const KEY: &str = "mesh1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// The id of the run that all are in.
pub const RUN: &str = "42";

const HTTP_PORT: u16 = 80;

/// A lab with coturn and a fake GitHub, and a folder for everything else.
#[derive(Debug)]
pub struct Stage {
    /// The network.
    pub lab: Lab,
    /// The rendezvous.
    pub github: FakeGithub,
    /// Logs, reports and control sockets.
    pub folder: TempDir,
    stun: [SocketAddr; 2],
    _world: Server,
    _runtime: Runtime,
}

impl Stage {
    /// Builds everything but runners.
    pub fn new(name: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        let world = lab.server("github")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = world.enter(|| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, HTTP_PORT)))??;
        listener.set_nonblocking(true)?;
        let public_url = Some(format!("http://{}", world.addr()));
        let options = crate::fake_github::Options { public_url, ..Default::default() };
        let github = {
            let _inside = runtime.enter();
            FakeGithub::serve(tokio::net::TcpListener::from_std(listener)?, options)?
        };
        let stun = lab.stun_servers()?;
        let folder = tempfile::tempdir()?;
        Ok(Self { lab, github, folder, stun, _world: world, _runtime: runtime })
    }

    /// A runner behind `nat`, [`DELAY`] away from everybody.
    pub fn runner(&self, name: &str, nat: Nat) -> Result<Runner> {
        self.lab.runner(name, nat, Link { delay: DELAY, ..Link::default() })
    }

    /// A `mesh` on `runner`, with the variables that a step's action would hand it, and its own control socket. `args` begins with the verb.
    pub fn mesh(&self, runner: &Runner, args: &[&str]) -> Result<Process> {
        self.mesh_with(runner, args, &[])
    }

    /// Likewise, with more variables; an empty value removes one.
    pub fn mesh_with(&self, runner: &Runner, args: &[&str], variables: &[(&str, &str)]) -> Result<Process> {
        self.mesh_under(runner, &[], args, variables)
    }

    /// Likewise, by way of `wrapper`: a program and its arguments that start the rest of the line, such as `setpriv`.
    pub fn mesh_under(
        &self,
        runner: &Runner,
        wrapper: &[&str],
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Process> {
        let mesh = binary()?;
        let (program, before) = wrapper
            .split_first()
            .map_or((mesh.as_os_str(), None), |(program, arguments)| (program.as_ref(), Some((arguments, &mesh))));
        let mut command = runner.command(program);
        if let Some((arguments, mesh)) = before {
            command.args(arguments).arg(mesh);
        }
        command.args(args).env_clear().envs(std::env::vars().filter(|(name, _)| name == "PATH" || name == "HOME"));
        command.envs(self.variables(runner));
        for (name, value) in variables {
            if value.is_empty() {
                command.env_remove(name)
            } else {
                command.env(name, value)
            };
        }
        Process::spawn(command, &self.folder.path().join(format!("{}.log", runner.name())))
    }

    /// The control socket of the mesh on `runner`.
    pub fn control(&self, runner: &Runner) -> PathBuf {
        self.folder.path().join(format!("{}.sock", runner.name()))
    }

    /// Its report.
    pub fn report(&self, runner: &Runner) -> Result<serde_json::Value> {
        let path = self.report_path(runner);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
    }

    /// Where the STUN servers listen, as `--stun` takes them.
    pub fn stun(&self) -> String {
        self.stun.map(|addr| addr.to_string()).join(",")
    }

    fn report_path(&self, runner: &Runner) -> PathBuf {
        self.folder.path().join(format!("{}.json", runner.name()))
    }

    /// The variables that a step on `runner` has, those of an action included, and the options of `mesh` as variables.
    pub fn variables(&self, runner: &Runner) -> Vec<(&'static str, String)> {
        let url = self.github.url();
        vec![
            ("MESH_KEY", KEY.into()),
            ("MESH_STUN", self.stun()),
            ("MESH_CONTROL", self.control(runner).display().to_string()),
            ("MESH_REPORT", self.report_path(runner).display().to_string()),
            ("MESH_RENDEZVOUS", "github".into()),
            ("ACTIONS_RESULTS_URL", format!("{url}/")),
            ("ACTIONS_RUNTIME_TOKEN", self.github.runtime_token(RUN, runner.name())),
            ("GITHUB_API_URL", url),
            ("GITHUB_REPOSITORY", "octo/project".into()),
            ("GITHUB_REPOSITORY_ID", "7".into()),
            ("GITHUB_RUN_ID", RUN.into()),
            ("GITHUB_RUN_ATTEMPT", "1".into()),
        ]
    }
}

/// The `mesh` binary beside this one.
pub fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("mesh")).find(|path| path.is_file());
    found.context("there is no `mesh` binary beside this one\n\nhint: build it first: cargo build")
}
