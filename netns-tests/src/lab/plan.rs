//! Which address every interface of the lab has. Not here: who configures them ([`super::Lab`]).
//!
//! Public addresses come from 198.18.0.0/15 (RFC 2544, benchmarks): no host has a route to it, and no code takes it for private.
//! IPv6 has 2001:db8::/32 (RFC 3849, documentation), of which each site has a /48.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};

/// Runners on one LAN. [`super::nat`] gives each a block of ports.
pub(super) const HOSTS: u8 = 8;

/// The third group of an IPv6 address of a server, where a site has its index.
const SERVERS: u16 = 0xffff;

/// The addresses of the site with this index.
#[derive(Debug, Clone, Copy)]
pub(super) struct SitePlan(u8);

impl SitePlan {
    pub(super) fn new(index: usize) -> Result<Self> {
        ensure!(index < 256, "the lab is full at 256 runners, or sites of several");
        Ok(Self(index as u8))
    }

    pub(super) const fn lan_addr(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, self.0, 2 + host)
    }

    pub(super) const fn lan_gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, self.0, 1)
    }

    pub(super) const fn public_prefix(self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::new(198, 18, self.0, 0), 24)
    }

    pub(super) const fn public_gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.0, 1)
    }

    /// The second one is used by NATs with two.
    pub(super) const fn public_addrs(self) -> [Ipv4Addr; 2] {
        [Ipv4Addr::new(198, 18, self.0, 2), Ipv4Addr::new(198, 18, self.0, 3)]
    }

    /// The carrier's end of the network between it and a home NAT (RFC 6598).
    pub(super) const fn carrier_gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(100, 64, self.0, 1)
    }

    /// What a home NAT has outside where a carrier's NAT follows.
    pub(super) const fn carrier_addr(self) -> Ipv4Addr {
        Ipv4Addr::new(100, 64, self.0, 2)
    }

    /// The core's end of the /30 between core and edge.
    pub(super) const fn core_addr(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, 128 + self.0 / 64, self.0 % 64 * 4 + 1)
    }

    pub(super) const fn edge_addr(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, 128 + self.0 / 64, self.0 % 64 * 4 + 2)
    }

    pub(super) fn core_dev(self) -> String {
        format!("edge{}", self.0)
    }

    pub(super) const fn prefix6(self) -> (Ipv6Addr, u8) {
        (v6(self.0 as u16, 0, 0), 48)
    }

    /// An address in one of the site's /64.
    pub(super) const fn addr6(self, net: Net6, host: u8) -> Ipv6Addr {
        v6(self.0 as u16, net as u16, host as u16)
    }
}

/// The networks of a site that have IPv6. In each, 1 is nearer to the core, and 2 and what follows farther.
#[derive(Debug, Clone, Copy)]
pub(super) enum Net6 {
    /// Between the core and the edge router.
    Uplink = 1,
    /// Between the edge router and what is outermost at the site.
    Public,
    /// Between a carrier's router and a home router.
    Carrier,
    /// Between a router and its hosts.
    Lan,
}

/// The addresses of the server with this index.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerPlan(u8);

impl ServerPlan {
    /// 198.19.128.0/17 is taken by the links between core and edges.
    pub(super) fn new(index: usize) -> Result<Self> {
        ensure!(index < 128, "the lab is full at 128 servers");
        Ok(Self(index as u8))
    }

    pub(super) const fn addrs(self) -> [Ipv4Addr; 2] {
        [Ipv4Addr::new(198, 19, self.0, 10), Ipv4Addr::new(198, 19, self.0, 11)]
    }

    pub(super) const fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, self.0, 1)
    }

    pub(super) const fn addrs6(self) -> [Ipv6Addr; 2] {
        [v6(SERVERS, self.0 as u16, 10), v6(SERVERS, self.0 as u16, 11)]
    }

    pub(super) const fn gateway6(self) -> Ipv6Addr {
        v6(SERVERS, self.0 as u16, 1)
    }

    pub(super) fn core_dev(self) -> String {
        format!("server{}", self.0)
    }
}

const fn v6(site: u16, net: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, site, net, 0, 0, 0, host)
}
