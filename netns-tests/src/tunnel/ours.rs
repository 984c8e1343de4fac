//! Our tunnel: a primary on the hub and an aux on every other host, that meet in a folder. Not here: those of others ([`super::others`]).

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;

use super::ground::{Ground, Tunnel};
use crate::interrupt::Interrupt;
use crate::lab::Netns;
use crate::stage::{KEY, Process, binary};

/// A mesh that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(60);

/// The second address of the STUN server, which is on the hub. `mesh` insists on one, and then finds that it needs none.
const STUN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);

/// # Errors
/// If not all come up.
pub(super) fn start(ground: &Ground, interrupt: &Interrupt) -> Result<Tunnel> {
    let stun = ground.lab.stun_on(ground.hub(), super::ground::outer(0), STUN)?;
    let stun = stun.map(|addr| addr.to_string()).join(",");
    let aux = (ground.hosts.len() - 1).to_string();
    let primary = spawn(ground, ground.hub(), "primary", &stun, &["primary", "--aux", &aux, "--offload", "none"])?;
    let mut tunnel = Tunnel { daemons: vec![primary], addrs: vec![inner(0)], ..Tunnel::default() };
    for (index, host) in (0..).zip(&ground.hosts[1..]) {
        let args = ["aux", "--index", &format!("{index}")];
        tunnel.daemons.push(spawn(ground, host, &format!("aux{index}"), &stun, &args)?);
        tunnel.addrs.push(inner(1 + index));
    }
    let up = format!("mesh is up: {aux} of {aux}");
    interrupt.wait_until(DEADLINE, &up, || Ok(tunnel.daemons[0].output().contains(&up).then_some(())))?;
    Ok(tunnel)
}

fn inner(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 1 + index)
}

fn spawn(ground: &Ground, host: &Netns, name: &str, stun: &str, args: &[&str]) -> Result<Process> {
    let folder = ground.folder.path();
    let mut command = host.command(binary()?);
    command.env_clear().envs(std::env::vars().filter(|(name, _)| name == "PATH" || name == "HOME"));
    command.env("MESH_KEY", KEY).env("MESH_STUN", stun).env("MESH_CONTROL", folder.join(format!("{name}.sock")));
    command.args(args).args(["--run-id", "tunnel", "--rendezvous"]);
    command.arg(format!("dir:{}", folder.join("meeting").display()));
    Process::spawn(command, &folder.join(format!("{name}.log")))
}
