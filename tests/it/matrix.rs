//! Every kind of NAT against every other on the simulated internet, and what must come of it: what `can_punch` says. Stories of single pairs
//! are in [`super::punch`], relays in [`super::relays`].

use std::time::Duration;

use mesh::proto::crossing::Crossing;
use mesh::proto::peer::PeerView;
use mesh::proto::role::Role;

use crate::sim::nat::{ADM, AZURE, EIM_ADF, EIM_APDF, EIM_EIF, Kind, MASQ, SEQUENTIAL, SYMMETRIC};
use crate::sim::{HostId, Internet, Weather};

const KINDS: [(&str, Kind); 8] = [
    ("masq", MASQ),
    ("azure", AZURE),
    ("eim_eif", EIM_EIF),
    ("eim_adf", EIM_ADF),
    ("eim_apdf", EIM_APDF),
    ("adm", ADM),
    ("sequential", SEQUENTIAL),
    ("symmetric", SYMMETRIC),
];

/// Both have read each other's announcement, and answered it once more where a NAT has another port for everyone.
const FORMING: Duration = Duration::from_secs(8);

/// From there on, for the search of a port.
const SEARCHING: Duration = Duration::from_secs(8);

#[test]
fn every_pair_of_kinds_comes_to_what_can_punch_says() {
    let mut wrong = vec![];
    for (primary, kind) in KINDS {
        for (aux, other) in KINDS {
            let mut net = Internet::new(3, Weather::default());
            let hosts = [net.host(Role::Primary, kind), net.host(Role::Aux(0), other)];
            let up = net.run_until(FORMING + SEARCHING, Internet::all_up);
            let view = view(&net, hosts[0], Role::Aux(0));
            let direct = view.route.is_some_and(|route| route.is_direct());
            let promised = matches!(view.crossing, Crossing::Direct | Crossing::Spray | Crossing::Predict);
            if (up, direct) != (promised, promised) || !net.violations.is_empty() {
                wrong.push(format!("{primary} {aux}: {:?}, up {up}, {:?}", view.crossing, net.violations));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn a_port_that_may_be_any_is_found_within_eight_seconds_in_ninety_eight_of_a_hundred_runs() {
    for (easy, hard) in [(AZURE, SYMMETRIC), (SYMMETRIC, MASQ)] {
        let found = (0..20).filter(|seed| {
            let mut net = Internet::new(*seed, Weather::default());
            net.host(Role::Primary, easy);
            net.host(Role::Aux(0), hard);
            net.run_until(FORMING, |net| {
                net.now - net.last_reading > Duration::from_millis(500) && net.hosts.len() > 1
            });
            net.run_until(SEARCHING, Internet::all_up)
        });
        assert!(found.count() >= 19, "{easy:?} {hard:?}");
    }
}

#[test]
fn a_port_that_can_be_predicted_is_found_with_few_datagrams() {
    for kind in [SEQUENTIAL, ADM] {
        let mut net = Internet::new(5, Weather::default());
        let hosts = [net.host(Role::Primary, AZURE), net.host(Role::Aux(0), kind)];
        assert!(net.run_until(FORMING + SEARCHING, Internet::all_up), "{kind:?}");
        assert!(net.hosts[hosts[0]].sent < 400, "{kind:?}: {}", net.hosts[hosts[0]].sent);
    }
}

#[test]
fn a_search_that_finds_nothing_ends_within_its_budget() {
    // A port outside of what is probed: the hard side's sockets are all lost.
    let mut net = Internet::new(6, Weather::default());
    let hosts = [net.host(Role::Primary, AZURE), net.host(Role::Aux(0), SYMMETRIC)];
    net.hosts[hosts[1]].loses_openings = true;
    net.run_for(Duration::from_secs(120));
    let sent: Vec<usize> = hosts.iter().map(|host| net.hosts[*host].sent).collect();
    assert!(sent[0] < 3000 && sent[1] < 4000, "{sent:?}");
}

#[test]
fn twenty_runners_behind_nats_that_must_be_searched_are_up_within_half_a_minute() {
    let mut net = Internet::new(7, Weather::default());
    net.host(Role::Primary, AZURE);
    for index in 0..20 {
        net.host(Role::Aux(index), SYMMETRIC);
    }
    let up = net.run_until(Duration::from_secs(40), Internet::all_up);
    assert!(up, "{:?} {:?}", net.hosts[0].up, net.hosts[0].node.peers(net.now));
    assert_eq!(net.violations, [""; 0]);
}

#[test]
fn mappings_that_live_five_seconds_are_kept() {
    let short = (Duration::from_secs(5), Duration::from_secs(20));
    for (one, other) in [(MASQ, AZURE), (AZURE, SYMMETRIC), (EIM_APDF, AZURE)] {
        let mut net = Internet::new(8, Weather { rendezvous: Duration::from_secs(4), ..Weather::default() });
        net.host(Role::Primary, Kind { lifetimes: short, ..one });
        net.host(Role::Aux(0), Kind { lifetimes: short, ..other });
        assert!(net.run_until(Duration::from_secs(30), Internet::all_up), "{one:?} {other:?}");
        net.run_for(Duration::from_secs(20));
        assert!(net.all_up());
    }
}

// --- short ways

#[test]
fn two_runners_on_one_lan_take_the_lan() {
    let mut net = Internet::new(9, Weather::default());
    let site = net.site(MASQ);
    let hosts = [net.host_at(Role::Primary, site, &[7]), net.host_at(Role::Aux(0), site, &[7])];
    assert!(net.run_until(FORMING, Internet::all_up));
    net.run_for(Duration::from_secs(3));
    for (host, peer) in [(hosts[0], Role::Aux(0)), (hosts[1], Role::Primary)] {
        let addr = net.route(host, peer).and_then(|route| route.addr()).expect("a direct route");
        assert!(addr.to_string().starts_with("192.168."), "{addr}");
    }
}

#[test]
fn two_runners_that_a_lan_keeps_apart_meet_at_their_nat_if_it_turns_datagrams_round() {
    for (hairpin, up) in [(true, true), (false, false)] {
        let mut net = Internet::new(10, Weather::default());
        let site = net.site(Kind { hairpin, ..EIM_EIF });
        net.sites[site].isolated = true;
        net.host_at(Role::Primary, site, &[7]);
        net.host_at(Role::Aux(0), site, &[7]);
        assert_eq!(net.run_until(FORMING, Internet::all_up), up, "hairpin {hairpin}");
    }
}

fn view(net: &Internet, id: HostId, peer: Role) -> PeerView {
    let views = net.hosts[id].node.peers(net.now);
    views.into_iter().find(|view| view.role == peer).expect("it was announced")
}
