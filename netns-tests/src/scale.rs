//! What one real primary costs, against the number of its aux: a crowd of simulated ones ([`crowd`]) behind one NAT of the lab. Figures as a
//! table, and as a plot ([`plot`]); no verdict.

mod crowd;
mod plot;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use self::crowd::Crowd;
pub use self::plot::svg;
use crate::lab::{Lab, Link, Nat, Runner, wait_until};
use crate::stage::{KEY, Process, binary};

/// A mesh that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(60);

/// From all up to the beginning of idling: a path that was not used for 45 s is pinged less often.
const QUIET_AFTER: Duration = Duration::from_secs(50);

/// The same while paths are still pinged often; only the comparison of routes, 5 s from when they are selected, is over.
const LIVELY_AFTER: Duration = Duration::from_secs(8);

/// Which run the mesh is; any.
const RUN: &str = "scale";

/// What the primary cost with so many aux.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// How many.
    pub aux: u16,
    /// From the last aux's announcement to all up.
    pub wall: Duration,
    /// User and system time from the moment the aux started to all up. Starting without them is not in it.
    pub connect: Duration,
    /// Of one core, in per cent, soon after all are up, while paths are pinged every 2 s.
    pub fresh: f64,
    /// Likewise once they are quiet.
    pub idle: f64,
    /// Resident memory then.
    pub mib: f64,
}

/// Connects `aux` simulated ones and lets them idle for `idle`.
///
/// # Errors
/// If the lab cannot be made, or not all come up.
pub fn measure(aux: u16, idle: Duration) -> Result<Figures> {
    let lab = Lab::new("scale")?;
    let stun = lab.stun_servers()?;
    let folder = tempfile::tempdir()?;
    let (home, away) =
        (lab.runner("primary", Nat::Azure, Link::default())?, lab.runner("crowd", Nat::Azure, Link::default())?);
    let meeting = folder.path().join("meeting");
    let stun_option = stun.map(|addr| addr.to_string()).join(",");
    let mut primary = start(&home, aux, &folder, &meeting, &stun_option)?;
    wait_until(DEADLINE, "the primary's announcement", || is_announced(&meeting).then_some(()))?;
    let before = primary.cpu()?;
    let crowd = Crowd::start(away, aux, meeting, stun.to_vec());
    primary.wait_for(&format!("mesh is up: {aux} of {aux}"), DEADLINE)?;
    let (up_at, connect) = (Instant::now(), primary.cpu()? - before);
    let wall = up_at.saturating_duration_since(crowd.last_announced(aux)?);
    let fresh = share(&primary, up_at + LIVELY_AFTER, idle)?;
    let idle = share(&primary, up_at + QUIET_AFTER, idle)?;
    let mib = primary.memory_mib("VmRSS")?;
    primary.signal(Signal::SIGTERM)?;
    primary.wait(DEADLINE)?;
    crowd.end()?;
    Ok(Figures { aux, wall, connect, fresh, idle, mib })
}

fn start(home: &Runner, aux: u16, folder: &TempDir, meeting: &Path, stun: &str) -> Result<Process> {
    let mut command = home.command(binary()?);
    let control = folder.path().join("primary.sock");
    command.env_clear().envs(std::env::vars().filter(|(name, _)| name == "PATH" || name == "HOME"));
    command.env("MESH_KEY", KEY).env("MESH_CONTROL", control).env("MESH_STUN", stun);
    command.args(["primary", "--aux", &aux.to_string(), "--offload", "none", "--run-id", RUN, "--rendezvous"]);
    command.arg(format!("dir:{}", meeting.display()));
    Process::spawn(command, &folder.path().join("primary.log"))
}

fn is_announced(meeting: &PathBuf) -> bool {
    let mut entries = std::fs::read_dir(meeting).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_string_lossy().starts_with("mesh-"))
}

/// Per cent of one core over `time`, beginning at `from`.
fn share(process: &Process, from: Instant, time: Duration) -> Result<f64> {
    std::thread::sleep(from.saturating_duration_since(Instant::now()));
    let (before, started) = (process.cpu()?, Instant::now());
    std::thread::sleep(time);
    Ok(100.0 * (process.cpu()? - before).as_secs_f64() / started.elapsed().as_secs_f64())
}
