//! The tunnels of others: one daemon on each host, told by `wg` what a peer is. Not here: ours ([`super::ours`]).

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mesh::proto::overlay::MTU;

use super::ground::{Ground, Socket, Tunnel, outer};
use crate::interrupt::Interrupt;
use crate::lab::Netns;
use crate::stage::Process;

/// A daemon makes its device at once; this much on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(15);

/// For one call of `wg`, which waits for its daemon, in seconds.
const WG_DEADLINE: &str = "10";

const PORT: u16 = 51_820;

/// Where daemons in user space listen for `wg`.
const SOCKETS: &str = "/var/run/wireguard";

/// A daemon on each host, and every host a peer of the hub.
///
/// # Errors
/// If a daemon does not come up, or `wg` refuses.
pub(super) fn start(ground: &Ground, program: &OsStr, args: &[&str], interrupt: &Interrupt) -> Result<Tunnel> {
    let mut tunnel = Tunnel::default();
    let mut nodes = vec![];
    for (index, netns) in (0..).zip(&ground.hosts) {
        let node = Node::new(index, netns)?;
        // Known before the daemon makes it, so that it goes in any case.
        tunnel.sockets.push(Socket(node.socket()));
        let mut command = netns.command(program);
        command.args(args).arg(&node.dev).env("LOG_LEVEL", "error");
        tunnel.daemons.push(Process::spawn(command, &ground.folder.path().join(format!("daemon{index}.log")))?);
        tunnel.addrs.push(inner(index));
        nodes.push(node);
    }
    for (node, daemon) in nodes.iter().zip(&mut tunnel.daemons) {
        interrupt.wait_until(DEADLINE, "the daemon's device", || node.look(daemon))?;
    }
    let (hub, spokes) = nodes.split_first().context("a tunnel has a hub")?;
    hub.raise(spokes, 32)?;
    spokes.iter().try_for_each(|spoke| spoke.raise(std::slice::from_ref(hub), 24))?;
    Ok(tunnel)
}

/// Of the network inside the tunnel (RFC 5737).
fn inner(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, 1 + index)
}

struct Node<'a> {
    index: u8,
    netns: &'a Netns,
    /// Like nobody else's on this machine: the sockets of all namespaces lie in one folder.
    dev: String,
    secret: String,
    public: String,
}

impl<'a> Node<'a> {
    fn new(index: u8, netns: &'a Netns) -> Result<Self> {
        let secret = netns.run("wg", &["genkey"], "")?;
        let public = netns.run("wg", &["pubkey"], &secret)?.trim().to_owned();
        Ok(Self { index, netns, dev: format!("wg{}x{index}", std::process::id()), secret, public })
    }

    fn socket(&self) -> PathBuf {
        Path::new(SOCKETS).join(format!("{}.sock", self.dev))
    }

    /// Whether its daemon is ready.
    fn look(&self, daemon: &mut Process) -> Result<Option<()>> {
        if let Some(code) = daemon.ended() {
            bail!("the daemon ended with {code}: {}", daemon.output().trim());
        }
        let ready = self.socket().exists() && self.netns.run("ip", &["link", "show", &self.dev], "").is_ok();
        Ok(ready.then_some(()))
    }

    /// Configures it and brings it up. `len` is of the prefix that is behind each peer.
    fn raise(&self, peers: &[Node<'_>], len: u8) -> Result<()> {
        let port = PORT.to_string();
        let mut args = [WG_DEADLINE, "wg", "set", &self.dev, "listen-port", &port, "private-key", "/dev/stdin"]
            .map(String::from)
            .to_vec();
        for peer in peers {
            let behind =
                format!("{}/{len}", if len == 32 { inner(peer.index) } else { Ipv4Addr::new(198, 51, 100, 0) });
            let endpoint = format!("{}:{PORT}", outer(peer.index));
            args.extend(["peer", &peer.public, "allowed-ips", &behind, "endpoint", &endpoint].map(String::from));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.netns.run("timeout", &args, &self.secret)?;
        let (dev, addr, mtu) = (&self.dev, inner(self.index), MTU.to_string());
        self.netns.run("ip", &["addr", "add", &format!("{addr}/24"), "dev", dev], "")?;
        self.netns.run("ip", &["link", "set", dev, "mtu", &mtu, "up"], "").map(drop)
    }
}
