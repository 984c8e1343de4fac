//! This machine's own addresses, as host candidates.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// More are not worth a peer's packets.
const MAX_HOSTS: usize = 4;

/// Interfaces that lead nowhere a peer could be: bridges of containers and other tunnels.
const INWARD: [&str; 7] = ["docker", "br-", "veth", "virbr", "mesh", "tun", "wg"];

/// Unicast IPv4 addresses of interfaces that are up, with `port`. Nothing when the system does not tell.
pub fn host_addresses(port: u16) -> Vec<SocketAddr> {
    let Ok(interfaces) = getifaddrs() else { return vec![] };
    let usable = interfaces.filter(|interface| {
        let outward = !INWARD.iter().any(|prefix| interface.interface_name.starts_with(prefix));
        let up = interface.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
        outward && up && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    let addresses = usable.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    addresses
        .filter(|ip: &Ipv4Addr| !ip.is_link_local())
        .take(MAX_HOSTS)
        .map(|ip| (IpAddr::V4(ip), port).into())
        .collect()
}
