//! A host with public addresses and no NAT. Not here: the STUN server that may run on one ([`super::stun`]).

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::Command;

use anyhow::Result;

use super::Netns;
use super::plan::ServerPlan;

/// A host with public addresses, reachable by every runner.
#[derive(Debug, Clone)]
pub struct Server {
    netns: Netns,
    core: Netns,
    plan: ServerPlan,
}

impl Server {
    /// Wires `netns` to the core.
    pub(super) fn connect(netns: Netns, core: &Netns, plan: ServerPlan) -> Result<Self> {
        let ([first, second], gateway, dev) = (plan.addrs(), plan.gateway(), plan.core_dev());
        netns.ip(&format!(
            "link add eth0 type veth peer name {dev} netns {}\naddr add {first}/24 dev eth0\naddr add {second}/24 dev eth0\nlink set eth0 up\n",
            core.name()
        ))?;
        core.ip(&format!("addr add {gateway}/24 dev {dev}\nlink set {dev} up\n"))?;
        netns.ip(&format!("route add default via {gateway}\n"))?;
        Ok(Self { netns, core: core.clone(), plan })
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The address to reach it by.
    pub fn addr(&self) -> Ipv4Addr {
        self.addrs()[0]
    }

    /// Both its addresses; the first is [`Server::addr`].
    pub fn addrs(&self) -> [Ipv4Addr; 2] {
        self.plan.addrs()
    }

    /// Both its global IPv6 addresses, which it has from the first call on.
    ///
    /// # Errors
    /// If a command fails.
    pub fn ipv6_addrs(&self) -> Result<[Ipv6Addr; 2]> {
        let ([first, second], gateway, dev) = (self.plan.addrs6(), self.plan.gateway6(), self.plan.core_dev());
        self.core.enable_ipv6()?;
        self.netns.enable_ipv6()?;
        self.core.ip(&format!("addr replace {gateway}/64 dev {dev} nodad\n"))?;
        self.netns.ip(&format!(
            "addr replace {first}/64 dev eth0 nodad\naddr replace {second}/64 dev eth0 nodad\nroute replace default via {gateway}\n"
        ))?;
        Ok([first, second])
    }

    /// See [`Netns::command`].
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.netns.command(program)
    }

    /// See [`Netns::enter`].
    ///
    /// # Errors
    /// As there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.netns.enter(work)
    }

    /// See [`Netns::udp_socket`].
    ///
    /// # Errors
    /// As there.
    pub fn udp_socket(&self, port: u16) -> Result<UdpSocket> {
        self.netns.udp_socket(port)
    }
}
