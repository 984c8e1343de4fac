//! A runner at its site: what a test does with it. Not here: how it is wired up ([`super::site`]).

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Netns;
use super::nat::Nat;
use super::plan::Net6;
use super::router::Router;
use super::site::Ground;
use super::wire::Link;

/// A host at a site. Cheap to clone; it stays until the [`super::Lab`] goes. What it changes of its NAT or its link, it changes for
/// all runners of its site.
#[derive(Debug, Clone)]
pub struct Runner {
    name: Arc<str>,
    index: u8,
    host: Netns,
    ground: Arc<Ground>,
}

impl Runner {
    pub(super) fn new(name: &str, index: u8, host: Netns, ground: Arc<Ground>) -> Self {
        Self { name: name.into(), index, host, ground }
    }

    /// Its name, as given to [`super::Lab::runner`] or [`super::Site::runner`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kind of the NAT next to it.
    pub fn nat(&self) -> Nat {
        self.ground.access.nat
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
        let plan = self.ground.plan;
        if self.ground.home.is_some() { plan.lan_addr(self.index) } else { plan.public_addrs()[0] }
    }

    /// The address that the internet sees; of [`Nat::TwoEgress`] the first.
    pub fn public_addr(&self) -> Ipv4Addr {
        self.public_addrs()[0]
    }

    /// The addresses that the internet sees: of [`Nat::TwoEgress`] both, else one.
    pub fn public_addrs(&self) -> Vec<Ipv4Addr> {
        let count = if self.ground.outermost() == Nat::TwoEgress { 2 } else { 1 };
        self.ground.plan.public_addrs()[..count].to_vec()
    }

    /// The network of [`Runner::public_addrs`], with the length of its prefix. Nobody else has addresses of it but the edge router.
    pub fn public_prefix(&self) -> (Ipv4Addr, u8) {
        self.ground.plan.public_prefix()
    }

    /// Its global address, if the site has IPv6 ([`super::Access::ipv6`]).
    pub fn ipv6_addr(&self) -> Option<Ipv6Addr> {
        let net = if self.ground.home.is_some() { Net6::Lan } else { Net6::Public };
        self.ground.access.ipv6.then(|| self.ground.plan.addr6(net, 2 + self.index))
    }

    /// Changes delay and loss from the next packet on.
    ///
    /// # Errors
    /// If the loss is not within 0 to 100 %.
    pub fn set_link(&self, link: Link) -> Result<()> {
        self.ground.wire.set_link(link)
    }

    /// From now on so many megabits pass in a second, each way, on the cable between the host and its NAT, with a queue of 50 ms.
    ///
    /// # Errors
    /// If there is no NAT, or the kernel has no token buckets (tc-tbf(8)).
    pub fn limit(&self, mbit: u16) -> Result<()> {
        let (router, port) = (self.home()?.netns(), format!("host{}", self.index));
        for (netns, dev) in [(&self.host, "eth0"), (router, port.as_str())] {
            let line = format!("qdisc replace dev {dev} root tbf rate {mbit}mbit burst 128kb latency 50ms");
            netns.run("tc", &line.split(' ').collect::<Vec<_>>(), "")?;
        }
        Ok(())
    }

    /// Moves every mapping of the NAT next to it to other ports and forgets all flows, as a NAT does that was restarted.
    ///
    /// # Errors
    /// If there is no NAT, or it is [`Nat::Masq`], which keeps the port so that nothing would move, or [`Nat::Block`].
    pub fn rebind(&self) -> Result<()> {
        self.home()?.rebind().with_context(|| format!("cannot rebind {}", self.name))
    }

    /// As [`Runner::rebind`], of the carrier's NAT.
    ///
    /// # Errors
    /// As there.
    pub fn rebind_carrier(&self) -> Result<()> {
        self.carrier()?.rebind().with_context(|| format!("cannot rebind the carrier of {}", self.name))
    }

    /// Drops all UDP at the edge router, both ways, or lets it pass again.
    ///
    /// # Errors
    /// If nft fails.
    pub fn block_udp(&self, block: bool) -> Result<()> {
        self.ground.edge.block_udp(block)
    }

    /// Drops at the edge router everything between this site and `other`'s, both ways, or lets it pass again. Whoever reaches both is left alone.
    ///
    /// # Errors
    /// If both are at one site, or nft fails.
    pub fn cut_from(&self, other: &Self, cut: bool) -> Result<()> {
        ensure!(!Arc::ptr_eq(&self.ground, &other.ground), "{} and {} are at one site", self.name, other.name);
        self.ground.edge.cut_from(other.ground.plan, cut)
    }

    /// From now on the edge router forwards no packet larger than this many bytes, IP header included, either way; 1500 is the end of that. It
    /// fragments those that allow it and drops the others, of which it tells the sender by ICMP, or with `icmp` false it does not,
    /// which makes a black hole. IPv6 packets of up to 1280 bytes always pass.
    ///
    /// # Errors
    /// If it is not within 68 to 1500, or a command fails.
    pub fn set_path_mtu(&self, bytes: u16, icmp: bool) -> Result<()> {
        self.ground.edge.set_path_mtu(bytes, icmp)
    }

    /// How long its NATs keep a silent mapping: one that was never answered, and one that was. In whole seconds; Linux has 30 and 120, and a NAT
    /// that [keeps a table](Nat::keeps_a_table) 300 in there. Such a table is emptied by this call, and fills with the next packets.
    ///
    /// # Errors
    /// If there is no NAT, or a time is under a second.
    pub fn set_udp_timeouts(&self, unreplied: Duration, replied: Duration) -> Result<()> {
        let routers = [Some(self.home()?), self.ground.carrier.as_ref()];
        routers.into_iter().flatten().try_for_each(|router| router.set_udp_timeouts(unreplied, replied))
    }

    /// The UDP flows that the NAT next to it knows, one to a line, as `conntrack -L` writes them.
    ///
    /// # Errors
    /// If there is no NAT, or `conntrack` is missing.
    pub fn nat_flows(&self) -> Result<String> {
        self.home()?.flows()
    }

    /// As [`Runner::nat_flows`], of the NAT that is outermost: the carrier's if there is one.
    ///
    /// # Errors
    /// As there.
    pub fn outermost_flows(&self) -> Result<String> {
        if self.ground.carrier.is_some() { self.carrier()?.flows() } else { self.nat_flows() }
    }

    fn home(&self) -> Result<&Router> {
        self.ground.home.as_ref().with_context(|| format!("runner {} has no NAT", self.name))
    }

    fn carrier(&self) -> Result<&Router> {
        self.ground.carrier.as_ref().with_context(|| format!("runner {} is behind no carrier", self.name))
    }
}
