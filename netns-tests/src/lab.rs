//! Runners, NATs and routers in network namespaces: a real kernel, a real NAT for each runner, a real STUN server.
//! Not here: anything of GitHub ([`crate::fake_github`]), and anything of `mesh` itself.
//!
//! ```text
//! runner --- NAT ~~~ edge --- core --- edge ~~~ NAT --- runner
//! 192.168.i  198.18.i          |                        ~~~ the wire with delay and loss
//!                              +--- stun, servers (198.19.j)
//! ```
//!
//! Every runner has an edge router of its own, so there are three router hops between two NATs, and two between a NAT and a server.
//! A packet sent with TTL 4 leaves its own NAT and dies before the other one, which is what an opening packet is for.
//! Needs root, and the commands `ip`, `nft`, `tc`, `conntrack` and, for [`Lab::stun_servers`], `turnserver`.

mod command;
mod nat;
mod netns;
mod plan;
mod runner;
mod stun;
mod wait;
mod wire;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};

pub use nat::Nat;
pub use netns::{Netns, sweep};
pub use runner::{Runner, Server};
pub use stun::{Reply, binding, mapped_addr};
pub use wait::wait_until;
pub use wire::Link;

use plan::{RunnerPlan, ServerPlan};
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
    runners: usize,
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
        netns::check_name(name)?;
        let plan = self.next_runner()?;
        self.build_runner(name, nat, link, plan).with_context(|| format!("add runner {name} behind {nat:?}"))
    }

    /// Adds a host with a public address, no NAT and an unshaped link.
    ///
    /// # Errors
    /// If the name is taken, the lab has 128 servers, or a command fails.
    pub fn server(&self, name: &str) -> Result<Server> {
        netns::check_name(name)?;
        let plan = self.next_server()?;
        self.build_server(name, plan).with_context(|| format!("add server {name}"))
    }

    /// Two addresses of one STUN server (coturn, RFC 8489, with the second port 3479 of RFC 5780 on each), started at the first call.
    ///
    /// # Errors
    /// If `turnserver` is missing, or does not answer Binding requests within ten seconds.
    pub fn stun_servers(&self) -> Result<[SocketAddr; 2]> {
        let mut running = self.stun.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            *running = Some(StunServer::start(&self.server("stun")?, &self.core)?);
        }
        running.as_ref().map(StunServer::addrs).context("no STUN server")
    }

    fn build_runner(&self, name: &str, nat: Nat, link: Link, plan: RunnerPlan) -> Result<Runner> {
        let edge = self.make_edge(name, plan)?;
        let host = self.make_netns(name)?;
        let router = if nat == Nat::None { None } else { Some(self.make_router(&format!("{name}-nat"))?) };
        let outside = router.as_ref().unwrap_or(&host);
        let wire = Arc::new(Wire::connect((outside, "wan"), (&edge, "downlink"), self.netem, link)?);
        self.state().wires.push(Arc::clone(&wire));
        edge.ip(&format!("addr add {}/24 dev downlink\nlink set downlink up\n", plan.public_gateway()))?;
        let (addr, gateway) = (plan.public_addr(), plan.public_gateway());
        outside.ip(&format!("addr add {addr}/24 dev wan\nlink set wan up\nroute add default via {gateway}\n"))?;
        Runner::build(name, nat, plan, host, router, edge, wire)
    }

    fn make_edge(&self, name: &str, plan: RunnerPlan) -> Result<Netns> {
        let edge = self.make_router(&format!("{name}-edge"))?;
        let (here, there) = (plan.edge_addr(), plan.core_addr());
        let dev = plan.core_dev();
        edge.ip(&format!(
            "link add uplink type veth peer name {dev} netns {}\naddr add {here}/30 dev uplink\nlink set uplink up\nroute add default via {there}\n",
            self.core.name()
        ))?;
        let prefix = plan.public_prefix();
        self.core.ip(&format!(
            "addr add {there}/30 dev {dev}\nlink set {dev} up\nroute add {}/{} via {here}\n",
            prefix.0, prefix.1
        ))?;
        Ok(edge)
    }

    fn build_server(&self, name: &str, plan: ServerPlan) -> Result<Server> {
        let netns = self.make_netns(name)?;
        let ([first, second], gateway, dev) = (plan.addrs(), plan.gateway(), plan.core_dev());
        netns.ip(&format!(
            "link add eth0 type veth peer name {dev} netns {}\naddr add {first}/24 dev eth0\naddr add {second}/24 dev eth0\nlink set eth0 up\n",
            self.core.name()
        ))?;
        self.core.ip(&format!("addr add {gateway}/24 dev {dev}\nlink set {dev} up\n"))?;
        netns.ip(&format!("route add default via {gateway}\n"))?;
        Ok(Server::new(netns, plan.addrs()))
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

    fn next_runner(&self) -> Result<RunnerPlan> {
        let mut state = self.state();
        let plan = RunnerPlan::new(state.runners)?;
        state.runners += 1;
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
        let state = std::mem::take(&mut *self.state());
        for wire in &state.wires {
            wire.close();
        }
        for netns in state.namespaces.iter().rev() {
            if let Err(error) = netns.remove() {
                tracing::warn!(netns = netns.name(), "cannot remove a namespace: {error:#}");
            }
        }
        if let Some(stun) = &mut *self.stun.lock().unwrap_or_else(PoisonError::into_inner) {
            stun.reap();
        }
    }
}
