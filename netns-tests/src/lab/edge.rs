//! The edge router of a site, and how it spoils what passes: it drops UDP, what another site sends or gets, or what is too large. Not here:
//! delay and loss ([`super::wire`]).

use anyhow::{Result, ensure};

use super::Netns;
use super::plan::{Net6, SitePlan};

/// What an Ethernet carries, and the least an IPv4 link may (RFC 791).
const MTU: std::ops::RangeInclusive<u16> = 68..=1500;

/// What an IPv6 link has to carry (RFC 8200, section 5).
const LEAST_MTU6: u16 = 1280;

#[derive(Debug)]
pub(super) struct Edge {
    netns: Netns,
    plan: SitePlan,
    ipv6: bool,
}

impl Edge {
    pub(super) fn new(netns: Netns, plan: SitePlan, ipv6: bool) -> Self {
        Self { netns, plan, ipv6 }
    }

    pub(super) fn block_udp(&self, block: bool) -> Result<()> {
        self.set_table("block", block, "type filter hook forward priority 0; meta l4proto udp drop;")
    }

    /// A table for each of the others: one may be cut off while another is let through again.
    pub(super) fn cut_from(&self, other: SitePlan, cut: bool) -> Result<()> {
        let ((net, len), (net6, len6)) = (other.public_prefix(), other.prefix6());
        let rules = format!(
            "type filter hook forward priority 0; ip saddr {net}/{len} drop; ip daddr {net}/{len} drop; \
             ip6 saddr {net6}/{len6} drop; ip6 daddr {net6}/{len6} drop;"
        );
        self.set_table(&format!("cut_{}", other.core_dev()), cut, &rules)
    }

    /// By routes, not by the MTU of the devices: these drop what is too large for them without a word.
    pub(super) fn set_path_mtu(&self, bytes: u16, icmp: bool) -> Result<()> {
        ensure!(MTU.contains(&bytes), "a path MTU of {bytes} is not within {MTU:?}");
        let mute = "type filter hook output priority 0; \
                    icmp type destination-unreachable icmp code frag-needed drop; icmpv6 type packet-too-big drop;";
        self.set_table("mute", !icmp, mute)?;
        let (prefix, len) = self.plan.public_prefix();
        let (core, gateway) = (self.plan.core_addr(), self.plan.public_gateway());
        self.netns.ip(&format!(
            "route replace default via {core} mtu lock {bytes}\n\
             route replace {prefix}/{len} dev downlink proto kernel scope link src {gateway} mtu lock {bytes}\n"
        ))?;
        if self.ipv6 { self.set_path_mtu6(bytes.max(LEAST_MTU6)) } else { Ok(()) }
    }

    fn set_path_mtu6(&self, bytes: u16) -> Result<()> {
        let (prefix, len) = self.plan.prefix6();
        let (core, site) = (self.plan.addr6(Net6::Uplink, 1), self.plan.addr6(Net6::Public, 2));
        self.netns.ip(&format!(
            "route replace default via {core} mtu lock {bytes}\nroute replace {prefix}/{len} via {site} mtu lock {bytes}\n"
        ))
    }

    fn set_table(&self, name: &str, present: bool, chain: &str) -> Result<()> {
        let table =
            if present { format!("table inet {name} {{ chain rules {{ {chain} }}\n}}\n") } else { String::new() };
        self.netns.nft(&format!("add table inet {name}\ndelete table inet {name}\n{table}"))
    }
}
