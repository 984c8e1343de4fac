//! The runners behind NATs and the `mesh` processes on them. Not here: what passes between them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::Plan;
use crate::interrupt::Interrupt;
use crate::lab::{Link, Nat, Runner};
use crate::stage::{KEY, Process, Stage, binary};

/// For all runners to find each other; it takes a second or two.
const FORMING: Duration = Duration::from_secs(90);

/// For a process to end that was told to.
const ENDING: Duration = Duration::from_secs(30);

/// How long TCP waits before it repeats what was lost. A connection whose SYN was lost begins with 3 s (RFC 6298 section 5.7) and keeps to them for
/// a while: on a path of 13 ms the kernel was seen to wait for 2.2 s. That would be taken for a stall of the mesh.
pub(super) const RTO_MAX_MS: u32 = 1000;

/// The exit code of a primary that SIGTERM ends.
const TERMINATED: i32 = 128 + Signal::SIGTERM as i32;

/// A runner, and its `mesh`.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) runner: Runner,
    /// Within the overlay.
    pub(super) addr: Ipv4Addr,
    pub(super) process: Process,
}

/// All of them; the first is the primary. Dropping it ends them, and then their network.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) members: Vec<Member>,
    relay: Option<Process>,
    /// Whether TCP's patience could be bounded by [`RTO_MAX_MS`].
    pub(super) rto_max: bool,
    stage: Stage,
}

impl Cast {
    /// # Errors
    /// If not all come up.
    pub(super) fn start(plan: &Plan, interrupt: &Interrupt) -> Result<Self> {
        let mut cast = Self { members: vec![], relay: None, rto_max: true, stage: Stage::new("load")? };
        let relay = if plan.relay { Some(cast.start_relay()?) } else { None };
        let (count, common) = (plan.aux.to_string(), ["--log", plan.log.as_str()]);
        let at = relay.as_ref().map_or(vec![], |addr| vec!["--relay", addr]);
        let primary = ["primary", "--aux", &count, "--min-aux", &count, "--offload", "none"];
        cast.add(plan, "primary".into(), 0, &[&primary[..], &common, &at].concat())?;
        for index in 0..plan.aux {
            let aux = ["aux", "--index", &index.to_string()];
            cast.add(plan, format!("aux{index}"), 1 + index as u8, &[&aux[..], &common, &at].concat())?;
        }
        let up = format!("mesh is up: {count} of {count}");
        interrupt.wait_until(FORMING, &up, || {
            cast.nobody_ended()?;
            Ok(cast.members[0].process.output().contains(&up).then_some(()))
        })?;
        Ok(cast)
    }

    fn add(&mut self, plan: &Plan, name: String, place: u8, args: &[&str]) -> Result<()> {
        let delay = Duration::from_millis(plan.delay.into());
        let link = Link { delay, loss_percent: plan.loss, reorder_percent: plan.reorder };
        let runner = self.stage.lab.runner(&name, Nat::Azure, link)?;
        self.rto_max &=
            runner.netns().run("sysctl", &["-qw", &format!("net.ipv4.tcp_rto_max_ms={RTO_MAX_MS}")], "").is_ok();
        let process = self.stage.mesh(&runner, args)?;
        self.members.push(Member { name, runner, addr: Ipv4Addr::new(10, 77, 0, 1 + place), process });
        Ok(())
    }

    /// On a public address. What `--relay` takes to reach it.
    fn start_relay(&mut self) -> Result<String> {
        let server = self.stage.lab.server("relay")?;
        let mut command = server.command(binary()?);
        command.args(["relay", "--listen", "3479"]).env("MESH_KEY", KEY);
        let process = Process::spawn(command, &self.stage.folder.path().join("relay.log"))?;
        process.wait_for("relay on UDP port 3479", FORMING)?;
        self.relay = Some(process);
        Ok(format!("{}:3479", server.addr()))
    }

    /// # Errors
    /// If one did; what it said last is a part of it.
    pub(super) fn nobody_ended(&mut self) -> Result<()> {
        for member in &mut self.members {
            let ended = member.process.ended();
            ensure!(ended.is_none(), "{} ended with {ended:?}: {}", member.name, member.last_words());
        }
        Ok(())
    }

    /// Ends the mesh in order. What was not as it should be.
    pub(super) fn end(&mut self) -> Vec<String> {
        let mut complaints = vec![];
        let told = self.members[0].process.signal(Signal::SIGTERM);
        complaints.extend(told.err().map(|error| format!("the primary cannot be ended: {error:#}")));
        for (at, Member { name, process, .. }) in self.members.iter_mut().enumerate() {
            let expected = if at == 0 { TERMINATED } else { 0 };
            match process.wait(ENDING) {
                Ok(code) if code == expected => {}
                Ok(code) => complaints.push(format!("{name} ended with {code}, not with {expected}")),
                Err(_) => complaints.push(format!("{name} did not end within {} s", ENDING.as_secs())),
            }
            if process.output().contains("panicked") {
                complaints.push(format!("{name} panicked"));
            }
        }
        complaints
    }

    /// How often each M-code was said, by any.
    pub(super) fn codes(&self) -> BTreeMap<String, usize> {
        let mut codes = BTreeMap::new();
        for member in &self.members {
            let output = member.process.output();
            let words = output.split(|c: char| !c.is_ascii_alphanumeric());
            for code in words.filter(|word| is_code(word)) {
                *codes.entry(code.to_owned()).or_default() += 1;
            }
        }
        codes
    }

    /// Copies what all said.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub(super) fn keep_logs(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
        for process in self.members.iter().map(|member| &member.process).chain(&self.relay) {
            let name = process.log().file_name().context("a log has a name")?;
            std::fs::copy(process.log(), folder.join(name))
                .with_context(|| format!("copy a log to {}", folder.display()))?;
        }
        Ok(())
    }
}

impl Member {
    fn last_words(&self) -> String {
        let output = self.process.output();
        let lines: Vec<&str> = output.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

fn is_code(word: &str) -> bool {
    word.len() == 4 && word.strip_prefix('M').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}
