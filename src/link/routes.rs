//! Is the overlay prefix free on this machine? Reads the kernel's table; sets nothing.

use std::net::Ipv4Addr;

use crate::exit::{Exit, Failure};
use crate::proto::overlay::Prefix;

/// A route of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub prefix: Prefix,
    /// Through which interface.
    pub interface: String,
}

/// Fails when a route other than a default one overlaps `overlay`: packets for peers would go there, or the other way about.
pub fn check_free(overlay: Prefix) -> Result<(), Failure> {
    let table = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    match conflict(overlay, &table) {
        None => Ok(()),
        Some(Route { prefix, interface }) => Err(Failure::new(
            Exit::RouteConflict,
            "M603",
            format!("the overlay {overlay} overlaps the route {prefix} of interface {interface}"),
            "choose a free prefix with --overlay (MESH_OVERLAY), the same on every runner; or --no-tun, which needs no route",
        )),
    }
}

/// The first route in the text of `/proc/net/route` that overlaps `overlay`. Lines that cannot be read are skipped.
pub fn conflict(overlay: Prefix, table: &str) -> Option<Route> {
    let routes = table.lines().skip(1).filter_map(parse);
    routes.into_iter().find(|route| !route.prefix.is_empty() && route.prefix.overlaps(&overlay))
}

/// Interface, destination, gateway, flags, ..., mask in the eighth column; addresses in hexadecimal, in the machine's byte order.
fn parse(line: &str) -> Option<Route> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let address = |text: &str| Some(Ipv4Addr::from(u32::from_str_radix(text, 16).ok()?.to_ne_bytes()));
    let (destination, mask) = (address(columns.get(1)?)?, address(columns.get(7)?)?);
    let len = mask.to_bits().leading_ones() as u8;
    Some(Route { prefix: Prefix::new(destination, len), interface: (*columns.first()?).to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        nonsense\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn an_overlapping_route_is_named_and_a_default_route_is_none() {
        let overlay = "172.17.4.0/24".parse().expect("a prefix");
        let found = conflict(overlay, TABLE).expect("a conflict");
        assert_eq!((found.interface.as_str(), found.prefix.to_string()), ("docker0", "172.17.0.0/16".into()));
        assert_eq!(conflict("10.77.0.0/16".parse().expect("a prefix"), TABLE), None);
    }
}
