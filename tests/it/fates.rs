//! What becomes of every pair in the end, whatever the network did to it: a direct path, a relay, or the code of the obstacle between them,
//! which `docs/failures.md` explains. And what that costs in datagrams. How fast it goes is in [`super::matrix`] and [`super::relays`].

use std::time::Duration;

use mesh::proto::peer::{PeerView, State};
use mesh::proto::role::Role;
use mesh::proto::transmit::Event;
use proptest::prelude::*;

use crate::sim::nat::{ADM, AZURE, Dependence, EIM_ADF, EIM_APDF, EIM_EIF, Kind, MASQ, SEQUENTIAL, SYMMETRIC};
use crate::sim::{HostId, Internet};
use crate::stories::{star, story, weathers};

/// After the last trouble: for a fresh socket, another way through a slow rendezvous, and a search.
const CALM: Duration = Duration::from_secs(60);

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// A host's NAT forgets its mappings, and draws others.
    Moves(usize),
    /// Nothing arrives anywhere for so many seconds.
    Outage(u64),
    /// For so many seconds nothing passes between two hosts.
    Cut(usize, usize, u64),
    /// A host vanishes, and another process takes its place.
    Restarts(usize),
}

proptest! {
    #![proptest_config(crate::cases::of_stories())]

    #[test]
    fn every_aux_is_in_the_end_direct_relayed_or_told_the_code_of_its_obstacle(
        seed: u64,
        weather in weathers(),
        kinds in prop::collection::vec(kinds(), 2..5),
        has_relay: bool,
        troubles in prop::collection::vec((troubles(), 0..10u64), 0..4),
    ) {
        let mut net = Internet::new(seed, weather);
        if has_relay {
            net.add_relay();
        }
        let mut hosts = star(&mut net, &kinds);
        for (trouble, after) in troubles {
            net.run_for(Duration::from_secs(after));
            befall(&mut net, &mut hosts, &kinds, trouble);
        }
        let settled = |net: &Internet| (1..kinds.len()).all(|aux| is_settled(net, &hosts, aux, &kinds, has_relay));
        prop_assert!(net.run_until(CALM, settled), "{}", story(&net));
        prop_assert_eq!(&net.violations, &[""; 0]);
        let most = budget(&net, &kinds);
        prop_assert!(net.hosts.iter().all(|host| host.sent <= most), "more than {most}: {}", story(&net));
    }
}

fn befall(net: &mut Internet, hosts: &mut [HostId], kinds: &[Kind], trouble: Trouble) {
    let count = hosts.len();
    match trouble {
        Trouble::Moves(host) => net.nat(hosts[host % count]).rebind(),
        Trouble::Outage(seconds) => net.black_out(Duration::from_secs(seconds)),
        Trouble::Cut(one, other, seconds) => {
            let cut = (hosts[one % count], hosts[other % count]);
            net.cut.insert(cut);
            net.run_for(Duration::from_secs(seconds));
            net.cut.remove(&cut);
        }
        Trouble::Restarts(host) => {
            let host = host % count;
            net.kill(hosts[host]);
            hosts[host] = net.host(net.hosts[hosts[host]].role, kinds[host]);
        }
    }
}

/// Why there may be no direct path between two NATs, by what they do and not by what their hosts make of it.
fn obstacle(one: Kind, other: Kind) -> Option<&'static str> {
    let depends = |kind: Kind| kind.mapping != Dependence::EndpointIndependent;
    let lets_in_one_port = |kind: Kind| kind.filtering == Dependence::AddressAndPort;
    match (depends(one), depends(other)) {
        (true, true) => Some("M203"),
        (true, false) if lets_in_one_port(other) => Some("M202"),
        (false, true) if lets_in_one_port(one) => Some("M202"),
        _ => None,
    }
}

/// Whether the primary and this aux have each other, or may not and are told why, or one has ended, as a process does that no STUN server
/// answers when it starts (M201).
fn is_settled(net: &Internet, hosts: &[HostId], aux: usize, kinds: &[Kind], has_relay: bool) -> bool {
    if !net.is_alive(hosts[0]) || !net.is_alive(hosts[aux]) {
        return true;
    }
    let (Some(view), Some(back)) =
        (view(net, hosts[0], net.hosts[hosts[aux]].role), view(net, hosts[aux], Role::Primary))
    else {
        return false;
    };
    let obstacle = obstacle(kinds[0], kinds[aux]).filter(|_| !has_relay);
    is_up(&view) && is_up(&back) || obstacle.is_some_and(|obstacle| view.crossing.code() == Some(obstacle))
}

/// How many datagrams a host may have sent by now: to each peer a few when it comes, and so many a second; and for each time that somebody
/// was new or took a fresh socket, one search.
fn budget(net: &Internet, kinds: &[Kind]) -> usize {
    const FIRST: usize = 50;
    const EACH_SECOND: usize = 15;
    const SEARCH: usize = 4000;
    let peers = kinds.len() - 1;
    let fresh = |event: &Event| matches!(event, Event::Settled { .. });
    let searches = match kinds.iter().any(|kind| kind.mapping != Dependence::EndpointIndependent) {
        true => net.hosts.iter().flat_map(|host| &host.events).filter(|(_, event)| fresh(event)).count(),
        false => 0,
    };
    peers * (FIRST + EACH_SECOND * (net.elapsed().as_secs() as usize + 1) + SEARCH * searches)
}

fn is_up(view: &PeerView) -> bool {
    view.state == State::Up && view.route.is_some()
}

fn view(net: &Internet, host: HostId, peer: Role) -> Option<PeerView> {
    net.hosts[host].node.peers(net.now).into_iter().find(|view| view.role == peer)
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![MASQ, AZURE, EIM_APDF, EIM_ADF, EIM_EIF, ADM, SEQUENTIAL, SYMMETRIC])
}

fn troubles() -> impl Strategy<Value = Trouble> {
    let host = || 0..4usize;
    prop_oneof![
        host().prop_map(Trouble::Moves),
        (1..20u64).prop_map(Trouble::Outage),
        (host(), host(), 1..20u64).prop_map(|(one, other, seconds)| Trouble::Cut(one, other, seconds)),
        host().prop_map(Trouble::Restarts),
    ]
}
