//! Builds a site: its NATs, its LAN, and the way to the core. Not here: its runners ([`super::site`]).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::access::Access;
use super::edge::Edge;
use super::nat::rules::Setting;
use super::nat::{Nat, Ports};
use super::plan::{Net6, SitePlan};
use super::router::Router;
use super::runner::Runner;
use super::site::{Ground, Site};
use super::wire::Wire;
use super::{Lab, Netns};

/// How long a NAT's table keeps a silent mapping (RFC 4787, section 4.3).
const KEEP: Duration = Duration::from_secs(300);

pub(super) struct Builder<'lab, 'name> {
    pub(super) lab: &'lab Lab,
    pub(super) name: &'name str,
    pub(super) access: Access,
    pub(super) plan: SitePlan,
}

impl<'lab> Builder<'lab, '_> {
    /// A host that has the public address itself.
    pub(super) fn public_host(&self) -> Result<Runner> {
        let edge = self.edge()?;
        let host = self.prepare(self.lab.make_netns(self.name)?)?;
        let wire = self.connect_to_edge(&host, &edge)?;
        Ok(Runner::new(self.name, 0, host, Arc::new(self.ground(edge, wire, None, None))))
    }

    pub(super) fn site(&self) -> Result<Site<'lab>> {
        ensure!(self.access.nat != Nat::None, "a site needs a NAT");
        let edge = self.edge()?;
        let home = self.router("nat")?;
        let carrier = self.access.carrier.map(|nat| anyhow::Ok((nat, self.router("carrier")?))).transpose()?;
        let wire = self.connect_to_edge(carrier.as_ref().map_or(&home, |(_, netns)| netns), &edge)?;
        if let Some((_, carrier)) = &carrier {
            self.connect_to_carrier(&home, carrier)?;
        }
        self.make_lan(&home)?;
        let addrs = if carrier.is_some() { [self.plan.carrier_addr(); 2] } else { self.plan.public_addrs() };
        let home = start(home, self.access.nat, addrs, self.access.hairpin)?;
        let carrier = carrier.map(|(nat, netns)| start(netns, nat, self.plan.public_addrs(), false)).transpose()?;
        Ok(Site::new(self.lab, self.ground(edge, wire, Some(home), carrier)))
    }

    fn ground(&self, edge: Netns, wire: Arc<Wire>, home: Option<Router>, carrier: Option<Router>) -> Ground {
        let edge = Edge::new(edge, self.plan, self.access.ipv6);
        Ground { access: self.access, plan: self.plan, home, carrier, edge, wire }
    }

    /// The edge router, with its way to the core.
    fn edge(&self) -> Result<Netns> {
        let (edge, core) = (self.router("edge")?, &self.lab.core);
        let (here, there, dev) = (self.plan.edge_addr(), self.plan.core_addr(), self.plan.core_dev());
        edge.ip(&format!(
            "link add uplink type veth peer name {dev} netns {}\naddr add {here}/30 dev uplink\nlink set uplink up\nroute add default via {there}\n",
            core.name()
        ))?;
        let (prefix, len) = self.plan.public_prefix();
        core.ip(&format!("addr add {there}/30 dev {dev}\nlink set {dev} up\nroute add {prefix}/{len} via {here}\n"))?;
        if self.access.ipv6 {
            core.enable_ipv6()?;
            let (here, there) = self.join6(Net6::Uplink, (&edge, "uplink"), (core, &dev))?;
            let (prefix, len) = self.plan.prefix6();
            edge.ip(&format!("route add default via {there}\n"))?;
            core.ip(&format!("route add {prefix}/{len} via {here}\n"))?;
        }
        Ok(edge)
    }

    /// The wire with delay and loss, and the public addresses at its near end.
    fn connect_to_edge(&self, outside: &Netns, edge: &Netns) -> Result<Arc<Wire>> {
        let wire = Arc::new(Wire::connect((outside, "wan"), (edge, "downlink"), self.lab.netem, self.access.link)?);
        self.lab.state().wires.push(Arc::clone(&wire));
        let ([first, second], gateway) = (self.plan.public_addrs(), self.plan.public_gateway());
        edge.ip(&format!("addr add {gateway}/24 dev downlink\nlink set downlink up\n"))?;
        outside.ip(&format!("addr add {first}/24 dev wan\nlink set wan up\nroute add default via {gateway}\n"))?;
        if self.outermost() == Nat::TwoEgress {
            outside.ip(&format!("addr add {second}/24 dev wan\n"))?;
        }
        if self.access.ipv6 {
            let (here, there) = self.join6(Net6::Public, (outside, "wan"), (edge, "downlink"))?;
            let (prefix, len) = self.plan.prefix6();
            outside.ip(&format!("route add default via {there}\n"))?;
            edge.ip(&format!("route add {prefix}/{len} via {here}\n"))?;
        }
        Ok(wire)
    }

    fn connect_to_carrier(&self, home: &Netns, carrier: &Netns) -> Result<()> {
        let (addr, gateway) = (self.plan.carrier_addr(), self.plan.carrier_gateway());
        carrier.ip(&format!(
            "link add lan type veth peer name wan netns {}\naddr add {gateway}/24 dev lan\nlink set lan up\n",
            home.name()
        ))?;
        home.ip(&format!("addr add {addr}/24 dev wan\nlink set wan up\nroute add default via {gateway}\n"))?;
        if self.access.ipv6 {
            let (here, there) = self.join6(Net6::Carrier, (home, "wan"), (carrier, "lan"))?;
            home.ip(&format!("route add default via {there}\n"))?;
            carrier.ip(&format!("route add {}/64 via {here}\n", self.plan.addr6(Net6::Lan, 0)))?;
        }
        Ok(())
    }

    /// A bridge, to which each runner will be connected.
    fn make_lan(&self, home: &Netns) -> Result<()> {
        let gateway = self.plan.lan_gateway();
        home.ip(&format!("link add lan type bridge\naddr add {gateway}/24 dev lan\nlink set lan up\n"))?;
        if self.access.ipv6 {
            home.ip(&format!("addr add {}/64 dev lan nodad\n", self.plan.addr6(Net6::Lan, 1)))?;
        }
        Ok(())
    }

    /// Gives both ends of a link an IPv6 address, `far` the one that is nearer to the core. Both addresses come back, `near` first.
    fn join6(
        &self,
        net: Net6,
        (near, near_dev): (&Netns, &str),
        (far, far_dev): (&Netns, &str),
    ) -> Result<(Ipv6Addr, Ipv6Addr)> {
        let (here, there) = (self.plan.addr6(net, 2), self.plan.addr6(net, 1));
        near.ip(&format!("addr add {here}/64 dev {near_dev} nodad\n"))?;
        far.ip(&format!("addr add {there}/64 dev {far_dev} nodad\n"))?;
        Ok((here, there))
    }

    fn outermost(&self) -> Nat {
        self.access.carrier.unwrap_or(self.access.nat)
    }

    fn router(&self, what: &str) -> Result<Netns> {
        self.prepare(self.lab.make_router(&format!("{}-{what}", self.name))?)
    }

    fn prepare(&self, netns: Netns) -> Result<Netns> {
        if self.access.ipv6 {
            netns.enable_ipv6()?;
        }
        Ok(netns)
    }
}

fn start(netns: Netns, nat: Nat, addrs: [Ipv4Addr; 2], hairpin: bool) -> Result<Router> {
    Router::start(netns, nat, Setting { addrs, ports: Ports::default(), hairpin, keep: KEEP })
}
