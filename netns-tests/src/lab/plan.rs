//! Which address every interface of the lab has. Not here: who configures them ([`super::Lab`]).
//!
//! Public addresses come from 198.18.0.0/15 (RFC 2544, benchmarks): no host has a route to it, and no code takes it for private.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

/// The addresses of the runner with this index.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunnerPlan(u8);

impl RunnerPlan {
    pub(super) fn new(index: usize) -> Result<Self> {
        ensure!(index < 256, "the lab is full at 256 runners");
        Ok(Self(index as u8))
    }

    pub(super) const fn lan_addr(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, self.0, 2)
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

    pub(super) const fn public_addr(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.0, 2)
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

    pub(super) fn core_dev(self) -> String {
        format!("server{}", self.0)
    }
}
