//! A place with runners on one LAN. Not here: how it is built ([`super::builder`]), and what one does with a runner ([`super::runner`]).

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use super::access::Access;
use super::edge::Edge;
use super::nat::Nat;
use super::plan::{HOSTS, Net6, SitePlan};
use super::router::Router;
use super::runner::Runner;
use super::wire::Wire;
use super::{Lab, netns};

/// A NAT and the LAN behind it, with up to eight runners.
#[derive(Debug)]
pub struct Site<'lab> {
    lab: &'lab Lab,
    hosts: Mutex<u8>,
    ground: Arc<Ground>,
}

/// What all runners of a site share.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) access: Access,
    pub(super) plan: SitePlan,
    pub(super) home: Option<Router>,
    pub(super) carrier: Option<Router>,
    pub(super) edge: Edge,
    pub(super) wire: Arc<Wire>,
}

impl Ground {
    /// The kind of the NAT that the internet sees.
    pub(super) fn outermost(&self) -> Nat {
        self.carrier.as_ref().map_or(self.access.nat, Router::nat)
    }
}

impl<'lab> Site<'lab> {
    pub(super) fn new(lab: &'lab Lab, ground: Ground) -> Self {
        Self { lab, hosts: Mutex::default(), ground: Arc::new(ground) }
    }

    /// Adds a runner on the LAN, with the next address.
    ///
    /// # Errors
    /// If the name is taken, the site is full, or a command fails.
    pub fn runner(&self, name: &str) -> Result<Runner> {
        netns::check_name(name)?;
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(*hosts < HOSTS, "cannot add runner {name}: the site is full at {HOSTS}");
        let runner = self.build_runner(name, *hosts).with_context(|| format!("add runner {name}"))?;
        *hosts += 1;
        Ok(runner)
    }

    fn build_runner(&self, name: &str, index: u8) -> Result<Runner> {
        let host = self.lab.make_netns(name)?;
        let ground = Arc::clone(&self.ground);
        let router = ground.home.as_ref().context("a site has a NAT")?.netns();
        let (addr, gateway) = (ground.plan.lan_addr(index), ground.plan.lan_gateway());
        router.ip(&format!(
            "link add host{index} type veth peer name eth0 netns {}\nlink set host{index} master lan\n\
             link set host{index} type bridge_slave isolated {}\nlink set host{index} up\n",
            host.name(),
            if ground.access.isolated { "on" } else { "off" }
        ))?;
        host.ip(&format!("addr add {addr}/24 dev eth0\nlink set eth0 up\nroute add default via {gateway}\n"))?;
        if ground.access.ipv6 {
            let (addr, gateway) = (ground.plan.addr6(Net6::Lan, 2 + index), ground.plan.addr6(Net6::Lan, 1));
            host.enable_ipv6()?;
            host.ip(&format!("addr add {addr}/64 dev eth0 nodad\nroute add default via {gateway}\n"))?;
        }
        Ok(Runner::new(name, index, host, ground))
    }
}
