//! The nftables rules of each kind of NAT. Not here: what the kinds are for ([`super`]).
//!
//! In each ruleset the inside is `lan`, the outside `wan`. They build on what Linux does: conntrack uses a source's outside port again for its
//! next destination if that lies within the rule's range, which is what makes EIM; with `random` it does not, which makes APDM; and it lets in
//! only what answers, which is APDF.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::plan::HOSTS;
use super::{Nat, Ports};

/// What a ruleset depends on besides the kind.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Setting {
    /// The outside addresses. Only [`Nat::TwoEgress`] has the second.
    pub(in super::super) addrs: [Ipv4Addr; 2],
    pub(in super::super) ports: Ports,
    /// Whether a host reaches another one, or itself, by its outside address and port.
    pub(in super::super) hairpin: bool,
    /// How long a table keeps what is not used.
    pub(in super::super) keep: Duration,
}

/// The whole ruleset of the NAT's namespace; it replaces what was loaded before in one step.
pub(in super::super) fn ruleset(nat: Nat, setting: &Setting) -> String {
    let keep = setting.keep.as_secs();
    let table = if nat.keeps_a_table() || setting.hairpin { table(keep) } else { String::new() };
    let (sets, block6) = (sets(keep), if nat == Nat::Block { "meta l4proto udp drop" } else { "" });
    format!(
        "flush ruleset
table ip nat {{
  {table}
  chain pre {{
    type nat hook prerouting priority dstnat;
    {}
  }}
  chain post {{
    type nat hook postrouting priority srcnat;
    {}
  }}
}}
table ip flt {{
  {sets}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    {}
  }}
}}
table ip6 flt {{
  chain forward {{
    type filter hook forward priority 0; policy accept;
    {block6}
    iifname \"wan\" ct state established,related accept
    iifname \"wan\" drop
  }}
}}
",
        inward(nat, setting).join("\n    "),
        outward(nat, setting).join("\n    "),
        filter(nat, setting).join("\n    "),
    )
}

/// Outside ports and whose they are, learned from what leaves. `owned` and `taken` tell whether a port may be kept: conntrack alone would
/// give one to two hosts, as long as they speak to different destinations.
fn table(keep: u64) -> String {
    let learn = "update @inside { udp sport : ct original ip saddr . ct original proto-src }";
    format!(
        "map inside {{ type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout {keep}s; size 65536; }}
  set owned {{ type inet_service . ipv4_addr; flags dynamic; size 65536; }}
  set taken {{ type inet_service; flags dynamic; size 65536; }}
  chain learn {{
    type filter hook postrouting priority srcnat + 10;
    oifname \"wan\" meta l4proto udp ct direction original {learn}
    oifname \"lan\" meta l4proto udp ct direction original ct status snat {learn}
  }}"
    )
}

/// Whom each host has spoken to: which address, and in a hairpin which host.
fn sets(keep: u64) -> String {
    let rest = format!("flags dynamic,timeout; timeout {keep}s; size 65536;");
    format!(
        "set contacted {{ type ipv4_addr . ipv4_addr . inet_service; {rest} }}
  set spoken {{ type ipv4_addr . inet_service . ipv4_addr . inet_service; {rest} }}"
    )
}

/// Where what comes in goes. The chain is needed even if empty: without it replies would not be translated back on older kernels.
fn inward(nat: Nat, setting: &Setting) -> Vec<String> {
    let mut rules = vec![];
    if nat.keeps_a_table() {
        rules.push("iifname \"wan\" meta l4proto udp dnat to udp dport map @inside".into());
    }
    if setting.hairpin {
        let public = setting.addrs[0];
        rules.push(format!("iifname \"lan\" ip daddr {public} meta l4proto udp dnat to udp dport map @inside"));
    }
    rules
}

/// From a host of the LAN to a host of the LAN, by way of an outside port.
const TURNED: &str = "oifname \"lan\" ip saddr 192.168.0.0/16 ct status dnat";

/// From which address and port it leaves, also where it turns back into the LAN.
fn outward(nat: Nat, setting: &Setting) -> Vec<String> {
    let translations = translations(nat, setting);
    let mut rules: Vec<_> = translations.iter().map(|rule| format!("oifname \"wan\" {rule}")).collect();
    if setting.hairpin {
        let any = format!("snat to {}", setting.addrs[0]);
        rules.extend(translations.iter().chain([&any]).map(|rule| format!("{TURNED} {rule}")));
    }
    rules.push("oifname \"wan\" masquerade".into());
    rules
}

/// Of UDP alone; what none of them takes is masqueraded.
fn translations(nat: Nat, setting: &Setting) -> Vec<String> {
    let [first, second] = setting.addrs;
    match nat {
        Nat::None | Nat::Masq | Nat::Block => vec![],
        Nat::Azure => blocks(first, setting.ports),
        Nat::EimEif | Nat::EimAdf | Nat::EimApdf => cone(first, setting.ports),
        Nat::AzureAdm => address_dependent(first, setting.ports),
        Nat::MasqRand => vec!["meta l4proto udp masquerade random".into()],
        Nat::MasqFrand => vec!["meta l4proto udp masquerade fully-random".into()],
        Nat::TwoEgress => two_egress([first, second], setting.ports),
    }
}

/// A block of ports for each host of the LAN, as Azure allocates them. No `random`, for the sake of EIM.
fn blocks(public: Ipv4Addr, ports: Ports) -> Vec<String> {
    let rule = |host: u8| {
        let (from, to) = block(ports, host);
        let low_bits = (host + 2) % HOSTS;
        format!("ip saddr & 0.0.0.{} == 0.0.0.{low_bits} meta l4proto udp snat to {public}:{from}-{to}", HOSTS - 1)
    };
    (0..HOSTS).map(rule).collect()
}

fn block(ports: Ports, host: u8) -> (u16, u16) {
    let from = match (ports, u16::from(host)) {
        (Ports::First, 0) => 1024,
        (Ports::Second, 0) => 3000,
        (Ports::First, host) => 8000 + 2000 * host,
        (Ports::Second, host) => 9000 + 2000 * host,
    };
    (from, from / 1000 * 1000 + 999)
}

/// Keeps the port unless another host has it; then it gets one that hosts seldom choose. After rebinding nobody's port is kept.
fn cone(public: Ipv4Addr, ports: Ports) -> Vec<String> {
    match ports {
        Ports::First => vec![
            format!("udp sport . ip saddr @owned snat to {public}"),
            format!(
                "udp sport != @taken add @taken {{ udp sport }} add @owned {{ udp sport . ip saddr }} snat to {public}"
            ),
            format!("meta l4proto udp snat to {public}:61000-65535"),
        ],
        Ports::Second => blocks(public, ports),
    }
}

/// The address bits in which the public addresses of the lab differ: 198.18 for sites and 198.19 for servers, the index of either
/// up to 16, and the last bit, in which the two addresses of a server differ.
const TELLING: u32 = 0x0001_0F01;
const BUCKETS: u16 = 64;

/// Ports for one destination address.
const BUCKET: u16 = 1000;

/// A block of ports for each destination address. After rebinding each has its neighbour's.
fn address_dependent(public: Ipv4Addr, ports: Ports) -> Vec<String> {
    let shift = u16::from(ports == Ports::Second);
    let rule = |bucket: u16| {
        let from = 1024 + BUCKET * ((bucket + shift) % BUCKETS);
        let (mask, value) = (Ipv4Addr::from(TELLING), telling_bits(bucket));
        format!("ip daddr & {mask} == {value} meta l4proto udp snat to {public}:{from}-{}", from + BUCKET - 1)
    };
    (0..BUCKETS).map(rule).collect()
}

/// Spreads the bits of `bucket` over those of [`TELLING`].
fn telling_bits(bucket: u16) -> Ipv4Addr {
    let bucket = u32::from(bucket);
    Ipv4Addr::from((bucket >> 5 & 1) << 16 | (bucket >> 1 & 0xF) << 8 | bucket & 1)
}

/// The first address for even ports of even addresses and odd ports of odd ones, so that a server's two addresses, and two ports
/// in a row, are spoken to from different ones.
fn two_egress([first, second]: [Ipv4Addr; 2], ports: Ports) -> Vec<String> {
    let (from, to) = block(ports, 0);
    let parity =
        |bit: u8| format!("ip daddr & 0.0.0.1 == 0.0.0.{bit} udp dport & 1 == {bit} snat to {first}:{from}-{to}");
    vec![parity(0), parity(1), format!("meta l4proto udp snat to {second}:{from}-{to}")]
}

/// What may pass of what is translated.
fn filter(nat: Nat, setting: &Setting) -> Vec<String> {
    let mut rules: Vec<&str> = match nat {
        Nat::Block => vec!["meta l4proto udp drop"],
        Nat::EimAdf => vec![
            "iifname \"lan\" oifname \"wan\" meta l4proto udp update @contacted { ip daddr . ip saddr . udp sport }",
            "iifname \"wan\" ip saddr . ip daddr . udp dport @contacted accept",
        ],
        _ => vec![],
    };
    if matches!(nat, Nat::EimAdf | Nat::EimApdf) {
        rules.extend(["iifname \"wan\" ct state established,related accept", "iifname \"wan\" drop"]);
    }
    if setting.hairpin {
        rules.extend(hairpin_filter(nat));
    }
    rules.into_iter().map(str::to_owned).collect()
}

/// In a hairpin, whoever has spoken to a host's outside port has spoken to that host: with EIM one goes with the other.
fn hairpin_filter(nat: Nat) -> &'static [&'static str] {
    match nat {
        Nat::EimEif => &[],
        Nat::EimAdf => &[
            "iifname \"lan\" oifname \"lan\" ct state established,related accept",
            "iifname \"lan\" oifname \"lan\" ct status dnat update @contacted { ct original ip daddr . ip saddr . udp sport }",
            "iifname \"lan\" oifname \"lan\" ct status dnat ct original ip daddr . ip daddr . udp dport @contacted accept",
            "iifname \"lan\" oifname \"lan\" drop",
        ],
        _ => &[
            "iifname \"lan\" oifname \"lan\" ct state established,related accept",
            "iifname \"lan\" oifname \"lan\" ct status dnat update @spoken { ip saddr . udp sport . ip daddr . udp dport }",
            "iifname \"lan\" oifname \"lan\" ip daddr . udp dport . ip saddr . udp sport @spoken accept",
            "iifname \"lan\" oifname \"lan\" drop",
        ],
    }
}
