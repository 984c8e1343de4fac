//! Where the contenders meet: hosts that one veth pair joins, or a cable with delay and loss, or a switch; and a tunnel over that. Not here:
//! how each sets its tunnel up ([`super::others`], [`super::ours`]).

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{Contender, Plan, iperf, others, ours};
use crate::interrupt::Interrupt;
use crate::lab::{Cable, Lab, Netns};
use crate::stage::Process;

/// How many hosts a hub serves.
pub(super) const SPOKES: u16 = 8;

/// What joins the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Two, by a veth pair.
    Pair,
    /// Two, by a cable in user space.
    Cable,
    /// A hub and its spokes, each by a veth pair to the hub's bridge.
    Star,
}

impl Shape {
    fn hosts(self) -> u16 {
        if self == Self::Star { 1 + SPOKES } else { 2 }
    }
}

/// Hosts without a tunnel. Dropping it ends every process inside.
#[derive(Debug)]
pub(super) struct Ground {
    /// The first is the hub.
    pub(super) hosts: Vec<Netns>,
    pub(super) cable: Option<Cable>,
    /// For what programs say.
    pub(super) folder: TempDir,
    pub(super) lab: Lab,
}

impl Ground {
    fn new(shape: Shape) -> Result<Self> {
        let lab = Lab::new("tunnel")?;
        let hosts = (0..shape.hosts()).map(|index| lab.host(&format!("host{index}"))).collect::<Result<Vec<_>>>()?;
        let folder = tempfile::tempdir().context("make a folder for logs")?;
        let mut ground = Self { hosts, cable: None, folder, lab };
        ground.connect(shape)?;
        Ok(ground)
    }

    fn connect(&mut self, shape: Shape) -> Result<()> {
        let ends: Vec<(Netns, Ipv4Addr)> = self.hosts.iter().cloned().zip((0..).map(outer)).collect();
        let [(hub, here), rest @ ..] = &ends[..] else { return Ok(()) };
        let (other, there) = &rest[0];
        match shape {
            Shape::Pair => self.lab.join((hub, *here), (other, *there)),
            Shape::Cable => self.lab.cable((hub, *here), (other, *there)).map(|cable| self.cable = Some(cable)),
            Shape::Star => self.lab.switch((hub, *here), rest),
        }
    }

    pub(super) fn hub(&self) -> &Netns {
        &self.hosts[0]
    }
}

/// Of the network below the tunnel (RFC 5737).
pub(super) fn outer(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 1 + index)
}

/// What carries the packets. Dropping it ends the daemons, and then removes what they leave behind.
#[derive(Debug, Default)]
pub(super) struct Tunnel {
    /// One for each host, or none.
    pub(super) daemons: Vec<Process>,
    /// The hosts' addresses inside.
    pub(super) addrs: Vec<Ipv4Addr>,
    pub(super) sockets: Vec<Socket>,
}

/// A daemon's socket in the file system, which a daemon that is killed does not remove.
#[derive(Debug)]
pub(super) struct Socket(pub(super) PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Hosts with a tunnel that has carried something already.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) tunnel: Tunnel,
    pub(super) ground: Ground,
}

impl Arena {
    /// # Errors
    /// If the network or the tunnel does not come up.
    pub(super) fn new(shape: Shape, contender: Contender, plan: &Plan, interrupt: &Interrupt) -> Result<Self> {
        let ground = Ground::new(shape)?;
        let tunnel = match (contender, contender.daemon(plan)) {
            (Contender::Mesh, _) => ours::start(&ground, interrupt)?,
            (_, Some((program, args))) => others::start(&ground, &program, args, interrupt)?,
            (_, None) => Tunnel { addrs: (0..ground.hosts.len() as u8).map(outer).collect(), ..Tunnel::default() },
        };
        let arena = Self { tunnel, ground };
        iperf::warm_up(&arena, interrupt).context("the first stream, which is not counted")?;
        Ok(arena)
    }

    pub(super) fn folder(&self) -> &Path {
        self.ground.folder.path()
    }
}
