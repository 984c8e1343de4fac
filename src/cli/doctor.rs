//! `mesh doctor`: what network is this, and what is missing for a mesh? Each check stands alone, so that all of them are seen at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use serde::Serialize;

use super::actions::put;
use super::session::resolve;
use super::{Outcome, device, env};
use crate::config::CommonArgs;
use crate::exit::{Exit, Failure};
use crate::link::socket::Socket;
use crate::link::{clock, hops, interfaces, routes};
use crate::offload::{distccd, search};
use crate::proto::filtering::{Filtering, FilteringTest};
use crate::proto::hops::opening_ttl;
use crate::proto::nat::{Mapping, egress_addresses, mapping};
use crate::proto::route::SocketId;
use crate::proto::stun::StunClient;
use crate::proto::transmit::Transmit;

/// STUN settles after 3 s; a bound on top, in case the clock jumps.
const DEADLINE: Duration = Duration::from_secs(5);

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
    filtering: Filtering,
    egress: usize,
    reflexive: Vec<String>,
    hosts: Vec<String>,
    routers: BTreeMap<u8, IpAddr>,
    opening_ttl: u8,
    findings: &'a [Finding],
}

/// Runs the verb. The exit code is that of the first thing without which there is no mesh.
pub(super) async fn run(args: DoctorArgs) -> Outcome {
    let socket = Socket::bind(args.common.listen)?;
    let servers = resolve(&args.common.stun_servers()).await;
    let hosts = interfaces::host_addresses(socket.port(), None);
    let target = servers.first().map(SocketAddr::ip);
    let (samples, filtering, routers) = tokio::join!(ask(&socket, &servers), filtering(&servers), async {
        match target {
            Some(IpAddr::V4(target)) => hops::routers(target).await,
            _ => BTreeMap::new(),
        }
    });
    let mut reflexive: Vec<SocketAddr> = samples.iter().map(|sample| sample.mapped).collect();
    reflexive.sort();
    reflexive.dedup();
    let (mapping, egress) = (mapping(&samples), egress_addresses(&samples));
    let tun = tun(&args.common);
    let findings = [
        key(&args.common),
        meeting_place(&args.common),
        stun(samples.len(), servers.len(), &args.common),
        nat(mapping, filtering, egress, &reflexive, &hosts),
        overlay(&args.common, tun.verdict == Verdict::Good && !args.common.no_tun),
        tun,
        sudo(),
        distcc(),
        fuse(),
    ];
    let show = |addr: &SocketAddr| if args.show_ips { addr.to_string() } else { hide(addr) };
    let diagnosis = Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        mapping,
        filtering,
        egress,
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
    text + &format!("      seen as {seen}; opening packets travel {} hops\n", diagnosis.opening_ttl)
}

/// The port and the first half of the address: enough to compare, too little to publish.
fn hide(addr: &SocketAddr) -> String {
    match addr.ip() {
        IpAddr::V4(ip) => format!("{}.{}.x.x:{}", ip.octets()[0], ip.octets()[1], addr.port()),
        IpAddr::V6(_) => format!("[..]:{}", addr.port()),
    }
}

async fn ask(socket: &Socket, servers: &[SocketAddr]) -> Vec<crate::proto::nat::Sample> {
    let mut rng = ChaCha20Rng::from_os_rng();
    let mut client = StunClient::new(clock::now(), servers, socket.port(), &mut rng);
    let mut buffer = [0; 2048];
    let rounds = async {
        loop {
            while let Some((id, to, bytes)) = client.poll_transmit(clock::now()) {
                let _ = socket.send(&Transmit { socket: id, to, ttl: None, bytes });
            }
            if client.handle_timeout(clock::now(), &mut rng) {
                return;
            }
            tokio::select! {
                () = super::primary::until(client.poll_timeout()) => {}
                _ = socket.readable() => {
                    while let Ok(Some((len, from))) = socket.try_receive(&mut buffer) {
                        client.handle_response(clock::now(), SocketId::MAIN, from, &buffer[..len]);
                    }
                }
            }
        }
    };
    let _ = tokio::time::timeout(DEADLINE, rounds).await;
    client.samples()
}

/// How often the questions about filtering are put, and how far apart.
const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_millis(400);

/// The first server that can tell decides. Each is asked from a socket of its own.
async fn filtering(servers: &[SocketAddr]) -> Filtering {
    let asked = servers.iter().map(|server| ask_filtering(*server));
    let mut verdicts = tokio::task::JoinSet::new();
    asked.for_each(|verdict| drop(verdicts.spawn(verdict)));
    let verdicts = verdicts.join_all().await;
    verdicts.into_iter().find(|verdict| *verdict != Filtering::Unknown).unwrap_or_default()
}

async fn ask_filtering(server: SocketAddr) -> Filtering {
    let Ok(socket) = Socket::bind(0) else { return Filtering::Unknown };
    let mut test = FilteringTest::new(server, &mut ChaCha20Rng::from_os_rng());
    let mut buffer = [0; 2048];
    for _ in 0..ROUNDS {
        for (to, bytes) in test.questions() {
            let _ = socket.send(&Transmit { socket: SocketId::MAIN, to, ttl: None, bytes });
        }
        let answers = async {
            while !test.is_done() && socket.readable().await.is_ok() {
                while let Ok(Some((len, _))) = socket.try_receive(&mut buffer) {
                    test.handle_response(&buffer[..len]);
                }
            }
        };
        let _ = tokio::time::timeout(ROUND, answers).await;
        if test.is_done() {
            break;
        }
    }
    test.verdict()
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
    match common.rendezvous(env()).and_then(|choice| super::session::open(&choice)) {
        Ok(rendezvous) => good("rendezvous", rendezvous.describe()),
        Err(failure) => bad("rendezvous", failure),
    }
}

fn stun(answers: usize, asked: usize, common: &CommonArgs) -> Finding {
    match answers {
        0 => bad("stun", super::session::no_stun(common)),
        1 => note(
            "stun",
            format!("1 of {asked} servers answered"),
            "the NAT's mapping cannot be told from one answer: name more with --stun",
        ),
        _ => good("stun", format!("{answers} of {asked} servers answered")),
    }
}

fn nat(
    mapping: Mapping,
    filtering: Filtering,
    egress: usize,
    reflexive: &[SocketAddr],
    hosts: &[SocketAddr],
) -> Finding {
    let preserved = reflexive.iter().any(|seen| hosts.iter().any(|host| host.port() == seen.port()));
    let port = if preserved { "port preserved" } else { "port not preserved" };
    let what = format!("{mapping} mapping, {filtering} filtering, {port}, {egress} egress address(es)");
    match mapping {
        _ if reflexive.iter().any(|seen| hosts.contains(seen)) => {
            good("nat", "none: this machine has a public address")
        }
        Mapping::EndpointIndependent if egress == 1 => good("nat", what),
        Mapping::Unknown => {
            note("nat", "unknown: too few STUN answers", "name servers on two addresses with --stun (MESH_STUN)")
        }
        Mapping::EndpointIndependent => note("nat", format!("M205 {what}"), "direct paths may fail"),
        Mapping::AddressDependent | Mapping::AddressAndPortDependent => {
            note("nat", format!("M202 {what}"), "direct paths to runners behind a NAT of this kind do not come up")
        }
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
        let seen = ["198.51.100.7:1024".parse().expect("an address")];
        let finding = nat(Mapping::AddressDependent, Filtering::Unknown, 1, &seen, &[]);
        assert_eq!(finding.verdict, Verdict::Note);
        assert!(finding.what.starts_with("M202"), "{}", finding.what);
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
