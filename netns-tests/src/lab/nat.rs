//! The kinds of NAT and the nftables rules that make them. Not here: on which router they are loaded ([`super::runner`]).
//!
//! Words of RFC 4787: EIM, endpoint-independent mapping: one inside port has one outside port, whoever is spoken to.
//! APDF, address- and port-dependent filtering: only an address and port that was spoken to may answer.
//! In each recipe the inside is `lan`, the outside `wan`.

use std::net::Ipv4Addr;

/// How a runner is connected to the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nat {
    /// Not at all by a NAT: the runner has a public address of its own.
    None,
    /// Linux `masquerade`: EIM, keeps the port, APDF. A packet that comes before the runner has sent binds its port
    /// (the null binding), after which the runner gets another one.
    Masq,
    /// What GitHub's runners on Azure have shown: EIM, does not keep the port, APDF. Clashes like [`Nat::Masq`].
    Azure,
    /// A good home router: EIM, keeps the port, APDF, and what comes too early leaves no trace.
    EimApdf,
}

/// A block of outside ports for [`Nat::Azure`]. Rebinding changes to the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Ports {
    #[default]
    First,
    Second,
}

impl Ports {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    const fn range(self) -> &'static str {
        match self {
            Self::First => "1024-1999",
            Self::Second => "3000-3999",
        }
    }
}

impl Nat {
    /// The whole ruleset of the NAT's namespace; it replaces what was loaded before in one step.
    pub(super) fn ruleset(self, public: Ipv4Addr, ports: Ports) -> String {
        let rules = match self {
            Self::None => String::new(),
            Self::Masq => masq(),
            Self::Azure => azure(public, ports),
            Self::EimApdf => eim_apdf(public),
        };
        format!("flush ruleset\n{rules}")
    }
}

/// The empty chain is needed: without it replies would not be translated back on older kernels.
fn masq() -> String {
    "table ip nat {
  chain pre { type nat hook prerouting priority dstnat; }
  chain post {
    type nat hook postrouting priority srcnat;
    oifname \"wan\" masquerade
  }
}
"
    .to_owned()
}

/// No `random`: conntrack then uses a source's mapping again for its next destination, which is what makes it EIM.
fn azure(public: Ipv4Addr, ports: Ports) -> String {
    format!(
        "table ip nat {{
  chain pre {{ type nat hook prerouting priority dstnat; }}
  chain post {{
    type nat hook postrouting priority srcnat;
    oifname \"wan\" meta l4proto udp snat to {public}:{}
    oifname \"wan\" masquerade
  }}
}}
",
        ports.range()
    )
}

/// Mappings live in a map of their own, not in conntrack, so a stranger's packet is translated, then dropped before conntrack keeps it.
fn eim_apdf(public: Ipv4Addr) -> String {
    format!(
        "table ip nat {{
  map fullcone {{
    type inet_service : ipv4_addr . inet_service
    flags dynamic,timeout
    timeout 300s
    size 65536
  }}
  chain pre {{
    type nat hook prerouting priority dstnat;
    iifname \"wan\" meta l4proto udp dnat to udp dport map @fullcone
  }}
  chain post {{
    type nat hook postrouting priority srcnat;
    oifname \"wan\" meta l4proto udp update @fullcone {{ udp sport timeout 300s : ip saddr . udp sport }}
    oifname \"wan\" snat to {public}
  }}
}}
table ip flt {{
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname \"wan\" ct state established,related accept
    iifname \"wan\" drop
  }}
}}
"
    )
}
