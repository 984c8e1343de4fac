//! This machine's own addresses, as host candidates.

use std::net::{Ipv6Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// More are not worth a peer's packets.
const MAX_HOSTS: usize = 4;
const MAX_HOSTS_V6: usize = 2;

/// Interfaces that lead nowhere a peer could be: bridges of containers and other tunnels.
const INWARD: [&str; 7] = ["docker", "br-", "veth", "virbr", "mesh", "tun", "wg"];

/// Unicast IPv4 addresses of interfaces that are up, with `port`, and where `port_v6` is given global IPv6 addresses with that. Nothing when
/// the system does not tell.
pub fn host_addresses(port: u16, port_v6: Option<u16>) -> Vec<SocketAddr> {
    let Ok(interfaces) = getifaddrs() else { return vec![] };
    let usable = interfaces.filter(|interface| {
        let outward = !INWARD.iter().any(|prefix| interface.interface_name.starts_with(prefix));
        let up = interface.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
        outward && up && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    let (mut v4, mut v6) = (vec![], vec![]);
    for address in usable.filter_map(|interface| interface.address) {
        v4.extend(address.as_sockaddr_in().map(|address| address.ip()).filter(|ip| !ip.is_link_local()));
        v6.extend(address.as_sockaddr_in6().map(|address| address.ip()).filter(is_global));
    }
    let v4 = v4.into_iter().take(MAX_HOSTS).map(|ip| SocketAddr::from((ip, port)));
    let v6 = v6.into_iter().take(MAX_HOSTS_V6).filter_map(|ip| Some(SocketAddr::from((ip, port_v6?))));
    v4.chain(v6).collect()
}

/// Whether peers elsewhere may reach it, or those of one site (unique local addresses, RFC 4193).
fn is_global(ip: &Ipv6Addr) -> bool {
    !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_multicast() && !ip.is_unspecified()
}
