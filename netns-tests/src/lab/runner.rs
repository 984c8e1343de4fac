//! A runner behind its NAT, and a server without one: what a test does with them. Not here: how they are wired up ([`super::Lab`]).

use std::ffi::OsStr;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Netns;
use super::nat::{Nat, Ports};
use super::plan::RunnerPlan;
use super::wire::{Link, Wire};

/// A host behind a NAT of its own. Cheap to clone; it stays until the [`super::Lab`] goes.
#[derive(Debug, Clone)]
pub struct Runner {
    name: Arc<str>,
    nat: Nat,
    plan: RunnerPlan,
    host: Netns,
    router: Option<Netns>,
    edge: Netns,
    wire: Arc<Wire>,
    ports: Arc<Mutex<Ports>>,
}

impl Runner {
    pub(super) fn build(
        name: &str,
        nat: Nat,
        plan: RunnerPlan,
        host: Netns,
        router: Option<Netns>,
        edge: Netns,
        wire: Arc<Wire>,
    ) -> Result<Self> {
        let runner = Self { name: name.into(), nat, plan, host, router, edge, wire, ports: Arc::default() };
        if let Some(router) = &runner.router {
            runner.connect_lan(router)?;
            runner.load_nat(router, Ports::default())?;
        }
        Ok(runner)
    }

    /// Its name, as given to [`super::Lab::runner`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kind of its NAT.
    pub fn nat(&self) -> Nat {
        self.nat
    }

    /// The namespace of the host itself.
    pub fn netns(&self) -> &Netns {
        &self.host
    }

    /// See [`Netns::command`].
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.host.command(program)
    }

    /// See [`Netns::enter`].
    ///
    /// # Errors
    /// As there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.host.enter(work)
    }

    /// See [`Netns::udp_socket`].
    ///
    /// # Errors
    /// As there.
    pub fn udp_socket(&self, port: u16) -> Result<UdpSocket> {
        self.host.udp_socket(port)
    }

    /// The host's own address: private behind a NAT, else public.
    pub fn lan_addr(&self) -> Ipv4Addr {
        if self.router.is_some() { self.plan.lan_addr() } else { self.plan.public_addr() }
    }

    /// The address that the internet sees.
    pub fn public_addr(&self) -> Ipv4Addr {
        self.plan.public_addr()
    }

    /// The network of [`Runner::public_addr`], with the length of its prefix. Nobody else has addresses of it but the edge router.
    pub fn public_prefix(&self) -> (Ipv4Addr, u8) {
        self.plan.public_prefix()
    }

    /// Changes delay and loss from the next packet on.
    ///
    /// # Errors
    /// If the loss is not within 0 to 100 %.
    pub fn set_link(&self, link: Link) -> Result<()> {
        self.wire.set_link(link)
    }

    /// Moves every mapping to another block of ports and forgets all flows, as a NAT does that was restarted.
    ///
    /// # Errors
    /// If the NAT is not [`Nat::Azure`]: the others keep the port, so that nothing would move.
    pub fn rebind(&self) -> Result<()> {
        ensure!(self.nat == Nat::Azure, "cannot rebind {}: only Nat::Azure hands out ports of its own", self.name);
        let router = self.router()?;
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        *ports = ports.other();
        self.load_nat(router, *ports)?;
        router.run("conntrack", &["-F"], "").map(drop)
    }

    /// Drops all UDP at the edge router, both ways, or lets it pass again.
    ///
    /// # Errors
    /// If nft fails.
    pub fn block_udp(&self, block: bool) -> Result<()> {
        let rule =
            "table ip block { chain forward { type filter hook forward priority 0; meta l4proto udp drop; }\n}\n";
        self.edge.nft(&format!("flush ruleset\n{}", if block { rule } else { "" }))
    }

    /// How long the NAT keeps a silent mapping: one that was never answered, and one that was. In whole seconds; Linux has 30 and 120.
    ///
    /// # Errors
    /// If there is no NAT, or a time is under a second.
    pub fn set_udp_timeouts(&self, unreplied: Duration, replied: Duration) -> Result<()> {
        ensure!(unreplied.as_secs() > 0 && replied.as_secs() > 0, "a NAT keeps a mapping for a second at least");
        let router = self.router()?;
        router.sysctl("netfilter/nf_conntrack_udp_timeout", &unreplied.as_secs().to_string())?;
        router.sysctl("netfilter/nf_conntrack_udp_timeout_stream", &replied.as_secs().to_string())
    }

    /// The UDP flows that the NAT knows, one to a line, as `conntrack -L` writes them.
    ///
    /// # Errors
    /// If there is no NAT, or `conntrack` is missing.
    pub fn nat_flows(&self) -> Result<String> {
        self.router()?.run("conntrack", &["-L", "-p", "udp"], "")
    }

    fn connect_lan(&self, router: &Netns) -> Result<()> {
        let (addr, gateway) = (self.plan.lan_addr(), self.plan.lan_gateway());
        router.ip(&format!(
            "link add lan type veth peer name eth0 netns {}\naddr add {gateway}/24 dev lan\nlink set lan up\n",
            self.host.name()
        ))?;
        self.host.ip(&format!("addr add {addr}/24 dev eth0\nlink set eth0 up\nroute add default via {gateway}\n"))
    }

    fn load_nat(&self, router: &Netns, ports: Ports) -> Result<()> {
        router.nft(&self.nat.ruleset(self.public_addr(), ports))
    }

    fn router(&self) -> Result<&Netns> {
        self.router.as_ref().with_context(|| format!("runner {} has no NAT", self.name))
    }
}

/// A host with public addresses, reachable by every runner.
#[derive(Debug, Clone)]
pub struct Server {
    netns: Netns,
    addrs: [Ipv4Addr; 2],
}

impl Server {
    pub(super) fn new(netns: Netns, addrs: [Ipv4Addr; 2]) -> Self {
        Self { netns, addrs }
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The address to reach it by.
    pub fn addr(&self) -> Ipv4Addr {
        self.addrs[0]
    }

    /// Both its addresses; the first is [`Server::addr`].
    pub fn addrs(&self) -> [Ipv4Addr; 2] {
        self.addrs
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
