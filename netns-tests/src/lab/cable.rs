//! Hosts with nothing but a cable between them: no router, no NAT, no edge. For comparisons, in which everything else on the way would be measured too.
//! Not here: the internet of the lab ([`super::builder`]).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::stun::StunServer;
use super::wire::Wire;
use super::{Lab, Link, Netns, netns};

/// What each host calls its end: `mesh` and others take `veth...` for one of a container.
const DEV: &str = "eth0";

/// A cable in user space, whose delay and loss can be set. It stays until the [`Lab`] goes.
#[derive(Debug, Clone)]
pub struct Cable(Arc<Wire>);

impl Cable {
    /// Changes delay and loss from the next packet on; the same for both ways.
    ///
    /// # Errors
    /// If the loss is not within 0 to 100 %.
    pub fn set_link(&self, link: Link) -> Result<()> {
        self.0.set_link(link)
    }
}

/// Such hosts, beside the lab's internet.
impl Lab {
    /// Adds a host that is connected to nothing.
    ///
    /// # Errors
    /// If the name is taken, or a command fails.
    pub fn host(&self, name: &str) -> Result<Netns> {
        netns::check_name(name)?;
        self.make_netns(name).with_context(|| format!("add host {name}"))
    }

    /// Joins two hosts, that have no other connection, by a veth pair. Each gets its address, of a /24.
    ///
    /// # Errors
    /// If a command fails.
    pub fn join(&self, (near, here): (&Netns, Ipv4Addr), (far, there): (&Netns, Ipv4Addr)) -> Result<()> {
        near.ip(&format!("link add {DEV} type veth peer name {DEV} netns {}\n", far.name()))?;
        raise(near, here)?;
        raise(far, there)
    }

    /// As [`Lab::join`], by a cable in user space, which at first neither delays nor loses anything.
    ///
    /// # Errors
    /// If a command fails.
    pub fn cable(&self, (near, here): (&Netns, Ipv4Addr), (far, there): (&Netns, Ipv4Addr)) -> Result<Cable> {
        let wire = Arc::new(Wire::cable((near, DEV), (far, DEV))?);
        self.state().wires.push(Arc::clone(&wire));
        raise(near, here)?;
        raise(far, there)?;
        Ok(Cable(wire))
    }

    /// Joins `hub` with others by a switch, which is a bridge of the hub.
    ///
    /// # Errors
    /// If a command fails.
    pub fn switch(&self, (hub, here): (&Netns, Ipv4Addr), spokes: &[(Netns, Ipv4Addr)]) -> Result<()> {
        hub.ip(&format!("link add {DEV} type bridge\n"))?;
        for (index, (spoke, there)) in spokes.iter().enumerate() {
            let port = format!("port{index}");
            hub.ip(&format!(
                "link add {port} type veth peer name {DEV} netns {}\nlink set {port} master {DEV}\nlink set {port} up\n",
                spoke.name()
            ))?;
            raise(spoke, *there)?;
        }
        raise(hub, here)
    }

    /// Two addresses of one STUN server, as [`Lab::stun_servers`], on a host itself: what is connected to nothing else reaches no other.
    /// `second` becomes an address of the host too.
    ///
    /// # Errors
    /// As there.
    pub fn stun_on(&self, host: &Netns, first: Ipv4Addr, second: Ipv4Addr) -> Result<[SocketAddr; 2]> {
        host.ip(&format!("addr add {second}/24 dev {DEV}\n"))?;
        let server = StunServer::start(host, [first, second], host)?;
        let addrs = server.addrs();
        self.state().stun.push(server);
        Ok(addrs)
    }
}

fn raise(host: &Netns, addr: Ipv4Addr) -> Result<()> {
    host.ip(&format!("addr add {addr}/24 dev {DEV}\nlink set {DEV} up\n"))
}
