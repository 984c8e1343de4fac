//! `mesh doctor`: what network is this, and what is missing for a mesh? Each check stands alone, so that all of them are seen at once. What is
//! asked over the network is in [`questions`].

mod questions;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use clap::Args;
use serde::Serialize;

use super::actions::put;
use super::network;
use super::resolve::resolve;
use super::session;
use super::{Outcome, device, env};
use crate::config::CommonArgs;
use crate::exit::{Exit, Failure};
use crate::link::sockets::Sockets;
use crate::link::{hops, routes};
use crate::offload::{distccd, search};
use crate::proto::crossing::{Side, can_punch};
use crate::proto::filtering::Filtering;
use crate::proto::hops::{opening_ttl, too_low};
use crate::proto::nat::ports::Ports;
use crate::proto::nat::{Behaviour, Mapping};

/// What `doctor` takes.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    /// Show addresses in full
    #[arg(long)]
    show_ips: bool,
    #[command(flatten)]
    common: CommonArgs,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Good,
    /// A mesh works without it, or works less well.
    Note,
    /// No mesh without it.
    Bad,
}

/// One check.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    what: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
    #[serde(skip)]
    exit: Exit,
}

/// The whole, as JSON.
#[derive(Debug, Serialize)]
struct Diagnosis<'a> {
    version: &'static str,
    mapping: Mapping,
    ports: Ports,
    filtering: Filtering,
    egress: u8,
    crossings: BTreeMap<&'static str, String>,
    relays: BTreeMap<String, bool>,
    reflexive: Vec<String>,
    hosts: Vec<String>,
    routers: BTreeMap<u8, IpAddr>,
    opening_ttl: u8,
    findings: &'a [Finding],
}

/// Runs the verb. The exit code is that of the first thing without which there is no mesh.
pub(super) async fn run(args: DoctorArgs) -> Outcome {
    let mut sockets = Sockets::bind(args.common.listen)?;
    let servers = resolve(&args.common.stun_servers()).await;
    let hosts = sockets.host_addresses();
    let target = servers.first().map(SocketAddr::ip);
    let (samples, filtering, routers, relays) = tokio::join!(
        questions::mapping(&mut sockets, &servers, hosts.first().map_or(0, SocketAddr::port)),
        questions::filtering(&servers),
        async {
            match target {
                Some(IpAddr::V4(target)) => hops::routers(target).await,
                _ => BTreeMap::new(),
            }
        },
        questions::relays(&args.common),
    );
    let mut reflexive: Vec<SocketAddr> = samples.iter().map(|sample| sample.mapped).collect();
    reflexive.sort();
    reflexive.dedup();
    let behaviour = Behaviour::classify(&samples);
    let side = side(behaviour, filtering, &reflexive, &hosts);
    let tun = tun(&args.common);
    let mut findings = vec![
        key(&args.common),
        meeting_place(&args.common),
        stun(samples.iter().map(|sample| sample.server).collect::<BTreeSet<_>>().len(), servers.len(), &args.common),
        nat(behaviour, filtering, &side),
        overlay(&args.common, tun.verdict == Verdict::Good && !args.common.no_tun),
        tun,
        sudo(),
        distcc(),
        fuse(),
    ];
    findings.extend(too_low(&routers).map(|what| note("opening", what, network::A_RELAY)));
    findings.extend(relays.iter().map(|(name, answers)| relay(name, *answers)));
    let show = |addr: &SocketAddr| if args.show_ips { addr.to_string() } else { hide(addr) };
    let diagnosis = Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        mapping: behaviour.mapping,
        ports: behaviour.ports,
        filtering,
        egress: behaviour.egress,
        crossings: crossings(&side),
        relays,
        reflexive: reflexive.iter().map(show).collect(),
        hosts: hosts.iter().map(show).collect(),
        opening_ttl: opening_ttl(&routers),
        routers: if args.show_ips { routers } else { BTreeMap::new() },
        findings: &findings,
    };
    let text = if args.json {
        serde_json::to_string_pretty(&diagnosis).expect("plain data with text keys always serialises") + "\n"
    } else {
        for_people(&diagnosis)
    };
    put(text.as_bytes())?;
    let bad = findings.iter().find(|finding| finding.verdict == Verdict::Bad);
    Ok(bad.map_or(Exit::Ok, |finding| finding.exit).code())
}

fn for_people(diagnosis: &Diagnosis<'_>) -> String {
    let mut text = String::new();
    for finding in diagnosis.findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok  ",
            Verdict::Note => "note",
            Verdict::Bad => "BAD ",
        };
        text.push_str(&format!("{mark}  {:<11} {}\n", finding.check, finding.what));
        if !finding.hint.is_empty() {
            text.push_str(&format!("      {:<11} hint: {}\n", "", finding.hint));
        }
    }
    let seen = if diagnosis.reflexive.is_empty() { "nobody".into() } else { diagnosis.reflexive.join(", ") };
    text.push_str(&format!("      seen as {seen}; opening packets travel {} hops\n\n", diagnosis.opening_ttl));
    for (peer, crossing) in &diagnosis.crossings {
        text.push_str(&format!("      a runner behind {peer:<34} {crossing}\n"));
    }
    text
}

/// Between this machine and the internet.
fn side(behaviour: Behaviour, filtering: Filtering, reflexive: &[SocketAddr], hosts: &[SocketAddr]) -> Side {
    if reflexive.is_empty() {
        Side::Blocked
    } else if reflexive.iter().any(|seen| hosts.contains(seen)) {
        Side::Public
    } else {
        Side::Nat(behaviour, filtering)
    }
}

/// How this machine and one behind each kind of NAT would meet, by [`can_punch`].
fn crossings(side: &Side) -> BTreeMap<&'static str, String> {
    let nat = |mapping, ports| Side::Nat(Behaviour { mapping, ports, egress: 1 }, Filtering::Unknown);
    let peers = [
        ("no NAT", Side::Public),
        ("an endpoint-independent NAT", nat(Mapping::EndpointIndependent, Ports::Unknown)),
        ("a NAT that maps by destination", nat(Mapping::AddressAndPortDependent, Ports::Random)),
    ];
    peers.into_iter().map(|(name, peer)| (name, can_punch(side, &peer).to_string())).collect()
}

fn relay(name: &str, answers: bool) -> Finding {
    if answers {
        return good("relay", format!("{name} takes us"));
    }
    let what = format!("M207 the relay {name} does not take us");
    note("relay", what, network::IS_IT_THERE)
}

/// The port and the first half of the address: enough to compare, too little to publish.
fn hide(addr: &SocketAddr) -> String {
    match addr.ip() {
        IpAddr::V4(ip) => format!("{}.{}.x.x:{}", ip.octets()[0], ip.octets()[1], addr.port()),
        IpAddr::V6(_) => format!("[..]:{}", addr.port()),
    }
}

fn good(check: &'static str, what: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Good, what: what.into(), hint: String::new(), exit: Exit::Ok }
}

fn note(check: &'static str, what: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Note, what: what.into(), hint: hint.into(), exit: Exit::Ok }
}

fn bad(check: &'static str, failure: Failure) -> Finding {
    let what = failure.to_string();
    Finding { check, verdict: Verdict::Bad, what, hint: failure.hint, exit: failure.exit }
}

fn key(common: &CommonArgs) -> Finding {
    let keys = match common.keys(env()) {
        Ok(keys) => keys,
        Err(failure) => return bad("key", failure),
    };
    if let Some(name) = keys.passphrases().next() {
        return note("key", format!("the {name} is a passphrase"), "`mesh keygen` prints a key that nobody can guess");
    }
    good(
        "key",
        if keys.ids().len() == 1 { "there, of 32 random bytes" } else { "two: the current one and the previous one" },
    )
}

fn meeting_place(common: &CommonArgs) -> Finding {
    match common.rendezvous(env()).and_then(|choice| session::open(&choice)) {
        Ok(rendezvous) => good("rendezvous", rendezvous.describe()),
        Err(failure) => bad("rendezvous", failure),
    }
}

fn stun(answers: usize, asked: usize, common: &CommonArgs) -> Finding {
    match answers {
        0 => bad("stun", session::no_stun(common)),
        1 => note(
            "stun",
            format!("1 of {asked} servers answered"),
            "the NAT's mapping cannot be told from one answer: name more with --stun",
        ),
        _ => good("stun", format!("{answers} of {asked} servers answered")),
    }
}

fn nat(behaviour: Behaviour, filtering: Filtering, side: &Side) -> Finding {
    let what = format!("{behaviour}, {filtering} filtering");
    match behaviour.mapping {
        _ if *side == Side::Public => good("nat", "none: this machine has a public address"),
        Mapping::EndpointIndependent if behaviour.egress == 1 => good("nat", what),
        Mapping::Unknown => {
            note("nat", "unknown: too few STUN answers", "name servers on two addresses with --stun (MESH_STUN)")
        }
        Mapping::EndpointIndependent => note("nat", format!("M205 {what}"), "a NAT with one egress address is surer"),
        Mapping::AddressDependent | Mapping::AddressAndPortDependent => note(
            "nat",
            format!("M202 {what}"),
            "a path to another runner behind such a NAT needs a relay: --relay, or another aux behind a simpler NAT",
        ),
    }
}

fn tun(common: &CommonArgs) -> Finding {
    if common.no_tun {
        return good("tun", "none, as asked: a userspace stack carries the build and --forward");
    }
    match device::trial() {
        Ok(()) => good("tun", "a TUN device can be made"),
        Err(refused) if device::may_do_without(common, &refused) => {
            let without = device::without(&refused);
            note("tun", without.to_string(), without.hint)
        }
        Err(refused) => bad("tun", refused),
    }
}

fn overlay(common: &CommonArgs, has_device: bool) -> Finding {
    if !has_device {
        return good(
            "overlay",
            format!("{}, and no route of this machine matters without a TUN device", common.overlay),
        );
    }
    match routes::check_free(common.overlay) {
        Ok(()) => good("overlay", format!("{} is free", common.overlay)),
        Err(failure) => bad("overlay", failure),
    }
}

fn sudo() -> Finding {
    if nix::unistd::Uid::effective().is_root() {
        return good("sudo", "running as root");
    }
    let asked = Command::new("sudo").args(["-n", "true"]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    match asked {
        Ok(status) if status.success() => good("sudo", "works without a password"),
        _ => note(
            "sudo",
            "does not work without a password",
            "a TUN device needs root or CAP_NET_ADMIN; a mesh does not",
        ),
    }
}

fn distcc() -> Finding {
    let path = distccd::search_path(env()("PATH").as_deref().map(AsRef::as_ref));
    let missing: Vec<_> = ["distcc", "distccd"]
        .into_iter()
        .filter(|name| search::find(name.as_ref(), search::folders(&path)).is_none())
        .collect();
    if missing.is_empty() {
        return good("distcc", "distcc and distccd are installed");
    }
    note(
        "distcc",
        format!("M701 {} not installed", missing.join(" and ")),
        "apt-get install distcc, or choose --offload none",
    )
}

fn fuse() -> Finding {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => good("fuse", "/dev/fuse can be opened"),
        Err(error) => note("fuse", format!("/dev/fuse cannot be opened: {error}"), "nothing needs it yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hidden_by_half() {
        assert_eq!(hide(&"198.51.100.7:1024".parse().expect("an address")), "198.51.x.x:1024");
    }

    #[test]
    fn a_symmetric_nat_is_noted_with_its_code() {
        let behaviour = Behaviour { mapping: Mapping::AddressDependent, egress: 1, ..Behaviour::default() };
        let side = Side::Nat(behaviour, Filtering::Unknown);
        let finding = nat(behaviour, Filtering::Unknown, &side);
        assert_eq!(finding.verdict, Verdict::Note);
        assert!(finding.what.starts_with("M202"), "{}", finding.what);
    }

    #[test]
    fn it_says_how_each_kind_of_peer_is_met() {
        let hard = Behaviour { mapping: Mapping::AddressDependent, egress: 1, ..Behaviour::default() };
        let met = crossings(&Side::Nat(hard, Filtering::Unknown));
        assert_eq!(met["no NAT"], "direct");
        assert!(met["an endpoint-independent NAT"].starts_with("direct once"));
        assert!(met["a NAT that maps by destination"].starts_with("relayed"));
        assert!(crossings(&Side::Blocked).values().all(|crossing| crossing.starts_with("no path")));
    }

    #[test]
    fn no_answer_is_bad_and_one_answer_a_note() {
        use clap::Parser;
        #[derive(Parser)]
        struct Parsed {
            #[command(flatten)]
            common: CommonArgs,
        }
        let common = Parsed::parse_from(["mesh"]).common;
        assert_eq!(stun(0, 4, &common).exit, Exit::NoStun);
        assert_eq!(stun(1, 4, &common).verdict, Verdict::Note);
        assert_eq!(stun(2, 4, &common).verdict, Verdict::Good);
    }
}
