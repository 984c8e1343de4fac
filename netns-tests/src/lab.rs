//! Runners, NATs and routers in network namespaces: a real kernel, a real NAT for each runner, a real STUN server.
//! Not here: anything of GitHub ([`crate::fake_github`]), and anything of `mesh` itself.
//!
//! ```text
//! runner --- NAT ~~~ edge --- core --- edge ~~~ NAT --- runner
//! 192.168.i  198.18.i          |                 | \-- runner      ~~~ the wire with delay and loss
//!                              |                 ~
//! stun, servers (198.19.j) ----+              carrier --- NAT --- runner
//!                                              198.18.k  100.64.k
//! ```
//!
//! Every site, which is a NAT with one runner or several, has an edge router of its own, so there are three router hops between two NATs, and two
//! between a NAT and a server. A packet sent with TTL 4 leaves its own NAT, also where a carrier's NAT follows, and dies before the other
//! one, which is what an opening packet is for. Between plain NATs 2, 3 and 4 do that, from behind a carrier 3, 4 and 5.
//! Needs root, and the commands `ip`, `nft`, `tc`, `conntrack` and, for [`Lab::stun_servers`], `turnserver`.

mod access;
mod builder;
mod cable;
mod command;
mod edge;
mod nat;
mod netns;
mod plan;
mod router;
mod runner;
mod server;
mod site;
mod stun;
mod wait;
mod wire;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};

pub use access::Access;
pub use cable::Cable;
pub use nat::Nat;
pub use netns::{Netns, sweep};
pub use runner::Runner;
pub use server::Server;
pub use site::Site;
pub use stun::{Reply, binding, mapped_addr};
pub use wait::wait_until;
pub use wire::Link;

use builder::Builder;
use plan::{ServerPlan, SitePlan};
use stun::StunServer;
use wire::Wire;

static LABS: AtomicUsize = AtomicUsize::new(0);

/// A small internet. Dropping it ends every process inside and removes every namespace.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    core: Netns,
    netem: bool,
    stun: Mutex<Option<StunServer>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    namespaces: Vec<Netns>,
    wires: Vec<Arc<Wire>>,
    stun: Vec<StunServer>,
    sites: usize,
    servers: usize,
}

impl Lab {
    /// Builds the core router, after sweeping what crashed labs left behind. `name` (lower case, digits, `-`) shows in the namespaces' names.
    ///
    /// # Errors
    /// If this is not root, or `ip`, `nft` or `tc` is missing.
    pub fn new(name: &str) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the lab needs root to make network namespaces\n\nhint: run it with sudo"
        );
        netns::check_name(name)?;
        sweep()?;
        let prefix = format!("{}-{}-{name}", netns::own_prefix()?, LABS.fetch_add(1, Ordering::Relaxed));
        let core = Netns::named(&format!("{prefix}-core"));
        let mut lab = Self { prefix, core, netem: false, stun: Mutex::default(), state: Mutex::default() };
        lab.make_router("core")?;
        lab.netem = wire::kernel_has_netem(&lab.core)?;
        tracing::debug!(lab = lab.prefix, netem = lab.netem, "lab is up");
        Ok(lab)
    }

    /// What the names of all namespaces of this lab begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Adds a runner behind a NAT of its own. `link` shapes what leaves the NAT towards the internet; the other way is neither delayed nor lossy,
    /// so the RTT between two runners is the sum of their delays.
    ///
    /// # Errors
    /// If the name is taken, the lab has 256 runners, or a command fails.
    pub fn runner(&self, name: &str, nat: Nat, link: Link) -> Result<Runner> {
        self.runner_with(name, Access::behind(nat).link(link))
    }

    /// Adds a runner behind two NATs, its own and a carrier's. A packet has one hop more to go until it is in the internet.
    ///
    /// # Errors
    /// As [`Lab::runner`].
    pub fn runner_behind_carrier(&self, name: &str, home: Nat, carrier: Nat, link: Link) -> Result<Runner> {
        self.runner_with(name, Access::behind(home).carrier(carrier).link(link))
    }

    /// Adds a runner that is alone at its site.
    ///
    /// # Errors
    /// As [`Lab::runner`], and if no site can be like that.
    pub fn runner_with(&self, name: &str, access: Access) -> Result<Runner> {
        let builder = self.builder(name, access)?;
        let built = if access.nat == Nat::None { builder.public_host() } else { builder.site()?.runner(name) };
        built.with_context(|| format!("add runner {name} behind {:?}", access.nat))
    }

    /// Adds a NAT and a LAN, yet without runners.
    ///
    /// # Errors
    /// As [`Lab::runner`], and for [`Nat::None`].
    pub fn site(&self, name: &str, nat: Nat, link: Link) -> Result<Site<'_>> {
        self.site_with(name, Access::behind(nat).link(link))
    }

    /// As [`Lab::site`], with all that an [`Access`] can say.
    ///
    /// # Errors
    /// As there, and if no site can be like that.
    pub fn site_with(&self, name: &str, access: Access) -> Result<Site<'_>> {
        self.builder(name, access)?.site().with_context(|| format!("add site {name} behind {:?}", access.nat))
    }

    /// Adds a host with a public address, no NAT and an unshaped link.
    ///
    /// # Errors
    /// If the name is taken, the lab has 128 servers, or a command fails.
    pub fn server(&self, name: &str) -> Result<Server> {
        netns::check_name(name)?;
        let plan = self.next_server()?;
        let connected = self.make_netns(name).and_then(|netns| Server::connect(netns, &self.core, plan));
        connected.with_context(|| format!("add server {name}"))
    }

    /// Two addresses of one STUN server (coturn, RFC 8489, with the second port 3479 of RFC 5780 on each), started at the first call.
    ///
    /// # Errors
    /// If `turnserver` is missing, or does not answer Binding requests within ten seconds.
    pub fn stun_servers(&self) -> Result<[SocketAddr; 2]> {
        let mut running = self.stun.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            let server = self.server("stun")?;
            *running = Some(StunServer::start(server.netns(), server.addrs(), &self.core)?);
        }
        running.as_ref().map(StunServer::addrs).context("no STUN server")
    }

    fn make_netns(&self, what: &str) -> Result<Netns> {
        let netns = Netns::named(&format!("{}-{what}", self.prefix));
        self.state().namespaces.push(netns.clone());
        netns.create()?;
        Ok(netns)
    }

    fn make_router(&self, what: &str) -> Result<Netns> {
        let netns = self.make_netns(what)?;
        netns.make_router()?;
        Ok(netns)
    }

    fn builder<'name>(&self, name: &'name str, access: Access) -> Result<Builder<'_, 'name>> {
        netns::check_name(name)?;
        access.check().with_context(|| format!("cannot add {name}"))?;
        Ok(Builder { lab: self, name, access, plan: self.next_site()? })
    }

    fn next_site(&self) -> Result<SitePlan> {
        let mut state = self.state();
        let plan = SitePlan::new(state.sites)?;
        state.sites += 1;
        Ok(plan)
    }

    fn next_server(&self) -> Result<ServerPlan> {
        let mut state = self.state();
        let plan = ServerPlan::new(state.servers)?;
        state.servers += 1;
        Ok(plan)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let mut state = std::mem::take(&mut *self.state());
        for wire in &state.wires {
            wire.close();
        }
        for netns in state.namespaces.iter().rev() {
            if let Err(error) = netns.remove() {
                tracing::warn!(netns = netns.name(), "cannot remove a namespace: {error:#}");
            }
        }
        let mut shared = self.stun.lock().unwrap_or_else(PoisonError::into_inner).take();
        state.stun.iter_mut().chain(&mut shared).for_each(StunServer::reap);
    }
}
