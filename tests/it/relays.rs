//! What happens when there is no direct path, or none any more: relays, and the way back. Direct paths are in [`super::punch`] and
//! [`super::matrix`].

use std::time::Duration;

use mesh::proto::role::Role;
use mesh::proto::route::{Relay, Route};
use mesh::proto::transmit::Event;

use crate::packet::is_reset;
use crate::sim::nat::{AZURE, EIM_APDF, EIM_EIF, MASQ, SYMMETRIC};
use crate::sim::{HostId, Internet, Weather};
use crate::stories::{address, between, deliver_both_ways, star, story};

const FORMING: Duration = Duration::from_secs(8);

// --- a relay of the user's own

#[test]
fn a_pair_that_nothing_crosses_is_up_over_the_user_s_relay_within_a_second_of_its_announcements() {
    let mut net = Internet::new(1, Weather::default());
    net.add_relay();
    let hosts = [net.host(Role::Primary, SYMMETRIC), net.host(Role::Aux(0), SYMMETRIC)];
    assert!(net.run_until(FORMING, Internet::all_up));
    assert!(net.now - net.last_reading < Duration::from_secs(1));
    assert_eq!(net.route(hosts[0], Role::Aux(0)), Some(Route::Relayed(Relay::Server(0))));
    deliver_both_ways(&mut net, hosts[0], hosts[1]);
}

#[test]
fn a_relay_carries_until_a_direct_path_is_found_and_no_longer() {
    let mut net = Internet::new(2, Weather::default());
    net.add_relay();
    let hosts = [net.host(Role::Primary, AZURE), net.host(Role::Aux(0), MASQ)];
    net.hosts[hosts[1]].loses_openings = true;
    assert!(net.run_until(FORMING, Internet::all_up));
    net.hosts[hosts[1]].loses_openings = false;
    let direct = |net: &Internet| net.route(hosts[0], Role::Aux(0)).is_some_and(|route| route.is_direct());
    assert!(net.run_until(Duration::from_secs(30), direct));
    assert_eq!(net.noticed(hosts[0], |event| matches!(event, Event::Rerouted { to, .. } if to.is_direct())).len(), 1);
    assert_eq!(net.violations, [""; 0]);
}

#[test]
fn a_mapping_that_moves_is_noticed_within_six_seconds_relayed_within_one_more_and_direct_again_within_ten() {
    for moved in [&[0][..], &[1], &[0, 1]] {
        for seed in 0..5 {
            let mut net = Internet::new(seed, Weather::default());
            net.add_relay();
            let hosts = [net.host(Role::Primary, AZURE), net.host(Role::Aux(0), AZURE), net.host(Role::Aux(1), MASQ)];
            assert!(net.run_until(FORMING, Internet::all_up));
            net.run_for(Duration::from_secs(6) + Duration::from_millis(300 * seed));
            talk(&mut net, hosts[0], hosts[1]);
            moved.iter().for_each(|host| net.nat(hosts[*host]).rebind());
            let start = net.now;
            let works = |net: &mut Internet| {
                net.hosts[hosts[1]].inner.clear();
                talk(net, hosts[0], hosts[1]);
                net.run_for(Duration::from_millis(200));
                !net.hosts[hosts[1]].inner.is_empty()
            };
            while !works(&mut net) {
                assert!(net.now - start < Duration::from_secs(7), "{moved:?} seed {seed}: {}", story(&net));
            }
            let direct = |net: &Internet| {
                let is = |id: HostId, role| net.route(id, role).is_some_and(|route: Route| route.is_direct());
                is(hosts[0], Role::Aux(0)) && is(hosts[1], Role::Primary)
            };
            net.run_for(Duration::from_secs(1));
            assert!(net.run_until(Duration::from_secs(10), direct), "{moved:?} seed {seed}: {}", story(&net));
            assert_eq!(net.violations, [""; 0]);
        }
    }
}

#[test]
fn data_that_flows_stands_still_for_a_second_when_a_mapping_moves_and_there_is_a_relay() {
    for (moved, seed) in [&[0][..], &[1], &[0, 1]].into_iter().flat_map(|moved| (0..10).map(move |seed| (moved, seed)))
    {
        let mut net = Internet::new(seed, Weather::default());
        net.add_relay();
        let hosts = [net.host(Role::Primary, AZURE), net.host(Role::Aux(0), AZURE)];
        assert!(net.run_until(FORMING, Internet::all_up));
        // Packets both ways, twenty times a second: whether those of the last twentieth have come.
        let flows = |net: &mut Internet| {
            hosts.iter().for_each(|host| net.hosts[*host].inner.clear());
            talk(net, hosts[0], hosts[1]);
            talk(net, hosts[1], hosts[0]);
            net.run_for(Duration::from_millis(50));
            hosts.iter().all(|host| !net.hosts[*host].inner.is_empty())
        };
        let before = net.now + Duration::from_secs(8) + Duration::from_millis(170 * seed);
        while net.now < before {
            flows(&mut net);
        }
        moved.iter().for_each(|host| net.nat(hosts[*host]).rebind());
        let start = net.now;
        while !flows(&mut net) {
            assert!(net.now - start < Duration::from_millis(1100), "{moved:?} seed {seed}: {}", story(&net));
        }
        assert_eq!(net.violations, [""; 0]);
    }
}

#[test]
fn where_stun_does_not_answer_the_relay_tells_us_our_address() {
    let mut net = Internet::new(9, Weather::default());
    net.add_relay();
    net.stun_down = true;
    let hosts = [net.host(Role::Primary, AZURE), net.host(Role::Aux(0), MASQ)];
    let direct = |net: &Internet| net.route(hosts[0], Role::Aux(0)).is_some_and(|route| route.is_direct());
    assert!(net.run_until(Duration::from_secs(15), direct), "{}", story(&net));
    assert_eq!(net.violations, [""; 0]);
}

// --- between aux

#[test]
fn two_aux_reach_each_other_through_the_primary_at_once_and_directly_soon_after() {
    let mut net = Internet::new(3, Weather::default());
    let hosts = star(&mut net, &[MASQ, AZURE, AZURE]);
    assert!(net.run_until(FORMING, Internet::all_up));
    let packet = between(1, 2, 1);
    net.send_inner(hosts[1], &packet);
    assert!(
        net.run_until(Duration::from_secs(1), |net| net.hosts[hosts[2]].inner.contains(&packet)),
        "{}",
        story(&net)
    );
    let direct = |net: &Internet| net.route(hosts[1], Role::Aux(1)).is_some_and(|route| route.is_direct());
    assert!(net.run_until(Duration::from_secs(2), direct), "{}", story(&net));
    assert_eq!(net.violations, [""; 0]);
}

#[test]
fn two_aux_that_nothing_crosses_stay_relayed_through_the_primary() {
    let mut net = Internet::new(4, Weather::default());
    let hosts = star(&mut net, &[AZURE, SYMMETRIC, SYMMETRIC]);
    assert!(net.run_until(Duration::from_secs(20), Internet::all_up));
    let packet = between(1, 2, 1);
    net.send_inner(hosts[1], &packet);
    assert!(
        net.run_until(Duration::from_secs(1), |net| net.hosts[hosts[2]].inner.contains(&packet)),
        "{}",
        story(&net)
    );
    net.run_for(Duration::from_secs(20));
    assert_eq!(net.route(hosts[1], Role::Aux(1)), Some(Route::Relayed(Relay::Peer(Role::Primary))));
    assert!(net.hosts[hosts[0]].node.relayed().0 > 4);
    assert_eq!(net.violations, [""; 0]);
}

#[test]
fn a_packet_for_an_aux_that_nobody_knows_is_refused_within_ten_seconds() {
    let mut net = Internet::new(5, Weather::default());
    let hosts = star(&mut net, &[MASQ, AZURE]);
    assert!(net.run_until(FORMING, Internet::all_up));
    for second in 0..10 {
        let packet = between(1, 9, second);
        net.send_inner(hosts[1], &packet);
        net.run_for(Duration::from_secs(1));
    }
    assert!(net.hosts[hosts[1]].inner.iter().any(|packet| is_reset(packet, address(9), 9)), "{}", story(&net));
}

// --- an aux as relay

#[test]
fn an_aux_that_cannot_reach_the_primary_comes_in_through_another_aux() {
    for (primary, lost, helper) in [(SYMMETRIC, SYMMETRIC, EIM_APDF), (SYMMETRIC, SYMMETRIC, EIM_EIF)] {
        let mut net = Internet::new(6, Weather::default());
        let hosts = star(&mut net, &[primary, lost, helper]);
        assert!(net.run_until(Duration::from_secs(40), Internet::all_up), "{}", story(&net));
        assert_eq!(net.route(hosts[1], Role::Primary), Some(Route::Relayed(Relay::Peer(Role::Aux(1)))));
        deliver_both_ways(&mut net, hosts[0], hosts[1]);
        assert_eq!(net.violations, [""; 0]);
    }
}

#[test]
fn an_aux_that_the_network_parts_from_the_primary_alone_comes_back_through_another() {
    let mut net = Internet::new(7, Weather::default());
    let hosts = star(&mut net, &[AZURE, AZURE, MASQ]);
    assert!(net.run_until(FORMING, Internet::all_up));
    net.cut.insert((hosts[0], hosts[1]));
    net.run_for(Duration::from_secs(3));
    let relayed = |net: &Internet| net.route(hosts[0], Role::Aux(0)) == Some(Route::Relayed(Relay::Peer(Role::Aux(1))));
    assert!(net.run_until(Duration::from_secs(60), relayed), "{}", story(&net));
    deliver_both_ways(&mut net, hosts[0], hosts[1]);
    net.cut.clear();
    let direct = |net: &Internet| net.route(hosts[0], Role::Aux(0)).is_some_and(|route| route.is_direct());
    assert!(net.run_until(Duration::from_secs(60), direct), "{}", story(&net));
}

#[test]
fn a_relay_that_dies_is_replaced_by_another() {
    let mut net = Internet::new(8, Weather::default());
    let hosts = star(&mut net, &[SYMMETRIC, SYMMETRIC, EIM_EIF, EIM_EIF]);
    assert!(net.run_until(Duration::from_secs(40), Internet::all_up), "{}", story(&net));
    net.run_for(Duration::from_secs(5));
    let Some(Route::Relayed(Relay::Peer(helper))) = net.route(hosts[1], Role::Primary) else {
        panic!("{}", story(&net))
    };
    let dead = if helper == Role::Aux(1) { hosts[2] } else { hosts[3] };
    net.kill(dead);
    net.run_for(Duration::from_secs(20));
    deliver_both_ways(&mut net, hosts[0], hosts[1]);
}

#[test]
fn a_relay_of_the_user_s_that_dies_is_told_of_and_replaced_by_an_aux() {
    let mut net = Internet::new(11, Weather::default());
    net.add_relay();
    let hosts = star(&mut net, &[SYMMETRIC, SYMMETRIC, AZURE]);
    assert!(net.run_until(FORMING * 2, Internet::all_up), "{}", story(&net));
    net.run_for(Duration::from_secs(70));
    net.relay = None;
    let relayed = |net: &Internet| net.route(hosts[0], Role::Aux(0)) == Some(Route::Relayed(Relay::Peer(Role::Aux(1))));
    assert!(net.run_until(Duration::from_secs(40), relayed), "{}", story(&net));
    deliver_both_ways(&mut net, hosts[0], hosts[1]);
    net.run_for(Duration::from_secs(20));
    let missed = |event: &Event| matches!(event, Event::Relay { takes_us: false, .. });
    assert!(hosts.iter().all(|host| net.noticed(*host, missed).len() == 1), "{}", story(&net));
}

fn talk(net: &mut Internet, from: HostId, to: HostId) {
    let packet = between(net.hosts[from].role.number(), net.hosts[to].role.number(), 1);
    net.send_inner(from, &packet);
}
