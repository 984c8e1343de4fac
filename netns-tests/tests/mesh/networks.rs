//! Networks that are not one plain NAT on each side: a carrier's NAT, one LAN, one NAT for both, two egress addresses, forgetful NATs, narrow
//! paths, IPv6.

use std::time::Duration;

use netns_tests::lab::{Access, Link, Nat, Runner, wait_until};
use netns_tests::stage::{DELAY, Process, Stage};
use serde_json::Value;

use crate::common::{SOON, aux, primary, status, transfer};

const PRIMARY: [&str; 6] = ["primary", "--aux", "1", "--offload", "none", "--log=info"];
const AUX: [&str; 4] = ["aux", "--index", "0", "--log=info"];

fn shaped(nat: Nat) -> Access {
    Access::behind(nat).link(Link { delay: DELAY, ..Link::default() })
}

/// Both are started, and up; what each says of the other.
fn up(stage: &Stage, home: &Runner, away: &Runner) -> (Process, Process, [Value; 2]) {
    // A directory, since TCP to a rendezvous would be tested here too, and not by us.
    let meeting = format!("dir:{}", stage.folder.path().join("meeting").display());
    let variables = [("MESH_RENDEZVOUS", meeting.as_str())];
    let primary = stage.mesh_with(home, &PRIMARY, &variables).unwrap();
    let aux = stage.mesh_with(away, &AUX, &variables).unwrap();
    let is_up = || {
        let said = [home, away].map(|runner| status(stage, runner));
        said.iter().all(|peer| peer["state"] == "up").then_some(said)
    };
    let said = wait_until(SOON, "both are up", is_up);
    let story = || format!("{}\n---\n{}", primary.output(), aux.output());
    let said = said.unwrap_or_else(|error| panic!("{error:#}\n{}", story()));
    (primary, aux, said)
}

#[test]
fn a_runner_behind_two_nats_is_reached_from_behind_one() {
    for (name, carrier_first) in [("carrier-a", true), ("carrier-b", false)] {
        let stage = Stage::new(name).unwrap();
        let link = Link { delay: DELAY, ..Link::default() };
        let behind = stage.lab.runner_behind_carrier("inner", Nat::Masq, Nat::Azure, link).unwrap();
        let plain = stage.runner("plain", Nat::Masq).unwrap();
        let (home, away) = if carrier_first { (&behind, &plain) } else { (&plain, &behind) };
        let (_primary, _aux, said) = up(&stage, home, away);
        assert!(said.iter().all(|peer| peer["path"]["kind"] == "direct"), "{said:#?}");
    }
}

#[test]
fn two_runners_on_one_lan_are_microseconds_apart() {
    let stage = Stage::new("lan").unwrap();
    let site = stage.lab.site_with("office", shaped(Nat::Azure)).unwrap();
    let (home, away) = (site.runner("one").unwrap(), site.runner("two").unwrap());
    let (_primary, _aux, said) = up(&stage, &home, &away);
    assert!(said.iter().all(|peer| peer["path"]["kind"] == "direct"), "{said:#?}");
    let near = || {
        let rtt = status(&stage, &home)["path"]["rtt_ms"].as_f64().unwrap();
        (rtt < 10.0).then_some(())
    };
    wait_until(SOON, "the short way", near).unwrap();
}

#[test]
fn two_runners_that_their_lan_keeps_apart_meet_at_their_nat() {
    for nat in [Nat::EimEif, Nat::EimApdf] {
        let stage = Stage::new(&format!("hairpin-{}", nat.name().replace('_', "-"))).unwrap();
        let site = stage.lab.site_with("office", shaped(nat).isolated().hairpin()).unwrap();
        let (home, away) = (site.runner("one").unwrap(), site.runner("two").unwrap());
        let (_primary, _aux, said) = up(&stage, &home, &away);
        assert!(said.iter().all(|peer| peer["path"]["kind"] == "direct"), "{nat:?} {said:#?}");
    }
}

#[test]
fn a_runner_with_two_egress_addresses_is_found_and_says_so() {
    let stage = Stage::new("egress").unwrap();
    let home = stage.runner("home", Nat::Azure).unwrap();
    let away = stage.runner("away", Nat::TwoEgress).unwrap();
    let (_primary, aux, said) = up(&stage, &home, &away);
    assert!(said.iter().all(|peer| peer["path"]["kind"] == "direct"), "{said:#?}");
    let told = aux.output();
    assert!(told.contains("1 egress address") || told.contains("M205"), "{told}");
}

#[test]
fn nats_that_forget_after_five_seconds_are_held_open() {
    let stage = Stage::new("forgetful").unwrap();
    let (home, away) = (stage.runner("home", Nat::Azure).unwrap(), stage.runner("away", Nat::Masq).unwrap());
    for runner in [&home, &away] {
        runner.set_udp_timeouts(Duration::from_secs(5), Duration::from_secs(20)).unwrap();
    }
    let (primary, aux, _) = up(&stage, &home, &away);
    // Longer than a mapping lives that is not used. What is waited for is that nothing happens, so time itself is the event.
    let start = std::time::Instant::now();
    wait_until(SOON, "half a minute", || (start.elapsed() > Duration::from_secs(30)).then_some(())).unwrap();
    for process in [&primary, &aux] {
        assert!(!process.output().contains("M50"), "{}", process.output());
    }
    assert!(ping(&home, "10.77.0.2", 56), "the path still carries");
}

#[test]
fn a_narrow_path_is_found_with_and_without_icmp_and_packets_fit() {
    for (name, icmp) in [("narrow-told", true), ("narrow-untold", false)] {
        let stage = Stage::new(name).unwrap();
        let (home, away) = (stage.runner("home", Nat::Azure).unwrap(), stage.runner("away", Nat::Azure).unwrap());
        away.set_path_mtu(1400, icmp).unwrap();
        let (primary, _aux, _) = up(&stage, &home, &away);
        primary.wait_for("M402", SOON).unwrap_or_else(|error| panic!("icmp {icmp}: {error:#}"));
        // 1400 less IP, UDP and WireGuard is 1340, of which 1300 is the largest that is tried and fits with a relay's header.
        assert!(!ping(&home, "10.77.0.2", 1372), "a packet of 1400 bytes does not fit");
        assert!(ping(&home, "10.77.0.2", 1200), "one of 1228 bytes does");
        let tcp = transfer(&home, &away, "10.77.0.2", 2_000_000);
        assert_eq!(tcp, 2_000_000, "TCP learns of it");
    }
}

#[test]
fn two_runners_whose_ipv4_nats_nothing_crosses_meet_over_ipv6() {
    let stage = Stage::new("v6").unwrap();
    let access = || shaped(Nat::MasqRand).ipv6();
    let home = stage.lab.runner_with("home", access()).unwrap();
    let away = stage.lab.runner_with("away", access()).unwrap();
    let (_primary, _aux, said) = up(&stage, &home, &away);
    assert!(said.iter().all(|peer| peer["path"]["kind"] == "direct"), "{said:#?}");
}

#[test]
fn an_aux_behind_a_lan_s_nat_and_one_elsewhere_both_come_up() {
    let stage = Stage::new("mixed").unwrap();
    let (home, mut primary) =
        primary(&stage, Nat::Azure, &["--aux", "2", "--min-aux", "2", "--offload", "none", "--", "true"]);
    let _one = aux(&stage, Nat::MasqRand, 0, &[]);
    let _two = aux(&stage, Nat::EimEif, 1, &[]);
    assert_eq!(primary.wait(SOON).unwrap(), 0, "{}", primary.output());
    let peers = stage.report(&home).unwrap()["peers"].clone();
    assert!(peers.as_array().unwrap().iter().all(|peer| peer["path"]["kind"] == "direct"), "{peers:#}");
}

/// Whether an echo request with so many bytes of payload is answered; it may not be cut to pieces.
fn ping(from: &Runner, to: &str, payload: u16) -> bool {
    let payload = payload.to_string();
    let args = ["-c", "3", "-i", "0.3", "-W", "2", "-M", "do", "-s", &payload, to];
    from.command("ping").args(args).output().unwrap().status.success()
}

/// Its openings are near the primary's NAT, and must not go in: Linux would give the primary another port towards everyone.
#[test]
fn an_aux_without_a_nat_does_not_spoil_the_primary_s_port_for_the_next() {
    let stage = Stage::new("near").unwrap();
    let [home, near, far] = [("home", Nat::Azure), ("near", Nat::None), ("far", Nat::Azure)]
        .map(|(name, nat)| stage.runner(name, nat).unwrap());
    // A directory, which is read before any router can have told how near it is.
    let meeting = format!("dir:{}", stage.folder.path().join("meeting").display());
    let mesh = |runner, args: &[&str]| stage.mesh_with(runner, args, &[("MESH_RENDEZVOUS", &meeting)]).unwrap();
    let primary = mesh(&home, &["primary", "--aux", "2", "--offload", "none"]);
    primary.wait_for("network: ", SOON).unwrap();
    let _near = mesh(&near, &["aux", "--index", "1"]);
    primary.wait_for("aux 1 is up, direct", SOON).unwrap();
    let _far = mesh(&far, &["aux", "--index", "0"]);
    primary.wait_for("aux 0 is up, direct", SOON).unwrap();
    assert_eq!(transfer(&home, &far, "10.77.0.2", 100_000), 100_000);
}
