//! Who takes part, where its program is, and what it says of itself. Not here: how its tunnel is set up ([`super::others`], [`super::ours`]).

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::{Plan, Progress};
use crate::stage::binary;

/// One of those who are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// No tunnel at all.
    Veth,
    /// Cloudflare's, which `mesh` has its cipher and handshake of.
    Boringtun,
    /// Mullvad's fork of it.
    Gotatun,
    /// WireGuard's own in user space.
    WireguardGo,
    /// Ours.
    Mesh,
}

/// A contender that is installed.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) contender: Contender,
    /// Its version, in its own words.
    pub(super) version: String,
}

/// Those of the plan that are installed. Of each other it is said how to get it.
///
/// # Errors
/// If none is left, or what measures them is missing.
pub(super) fn present(plan: &Plan, progress: &Progress) -> Result<Vec<Present>> {
    ensure!(version("iperf3".as_ref()).is_some(), "there is no iperf3\n\nhint: scripts/install-deps lab");
    let mut present = vec![];
    for contender in &plan.peers {
        match contender.version(plan) {
            Some(version) => present.push(Present { contender: *contender, version }),
            None => progress.note(&format!("{} is left out: {}", contender.name(), contender.hint())),
        }
    }
    ensure!(!present.is_empty(), "nobody is left to be measured");
    Ok(present)
}

impl Contender {
    /// All, in the order of their turns.
    pub const ALL: [Self; 5] = [Self::Veth, Self::Boringtun, Self::Gotatun, Self::WireguardGo, Self::Mesh];

    /// The one that ratios are to.
    pub const MEASURE: Self = Self::Boringtun;

    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Boringtun => "boringtun-cli",
            Self::Gotatun => "gotatun-cli",
            Self::WireguardGo => "wireguard-go",
            Self::Mesh => "mesh",
        }
    }

    /// Its program, and what has it stay in the foreground as root; `None` where there is nothing to start.
    pub(super) fn daemon(self, plan: &Plan) -> Option<(OsString, &'static [&'static str])> {
        match self {
            Self::Veth | Self::Mesh => None,
            Self::Boringtun => Some(("boringtun-cli".into(), &["--foreground", "--disable-drop-privileges"])),
            Self::Gotatun => Some(("gotatun".into(), &["--foreground", "--disable-drop-privileges"])),
            Self::WireguardGo => Some((plan.wireguard_go.clone().into(), &["--foreground"])),
        }
    }

    fn version(self, plan: &Plan) -> Option<String> {
        match self {
            Self::Veth => Some("no tunnel".into()),
            Self::Mesh => version(&binary().ok()?),
            _ => version("wg".as_ref()).and_then(|_| version(self.daemon(plan)?.0.as_ref())),
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Veth => "",
            Self::Boringtun | Self::Gotatun => "scripts/install-deps peers builds it, and wg comes with it",
            Self::WireguardGo => {
                "scripts/install-deps peers installs the distribution's, WIREGUARD_GO=PATH names another"
            }
            Self::Mesh => "scripts/bench builds it",
        }
    }
}

/// The first line of `program --version`; `None` if it cannot be run.
fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
}
