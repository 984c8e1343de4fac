//! What pairs of hosts must come to on the simulated internet: up, in parallel, in the right order, and apart again. The internet itself
//! is not here but in [`super::sim`].

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh::proto::probe::Farewell;
use mesh::proto::role::Role;
use mesh::proto::transmit::Event;
use proptest::prelude::*;

use crate::packet::{is_reset, segment, segment_to_port};
use crate::sim::nat::{AZURE, EIM_ADF, EIM_APDF, EIM_EIF, Kind, MASQ, SYMMETRIC};
use crate::sim::{Internet, Weather};
use crate::stories::{deliver_both_ways, star, story, weathers};

const KINDS: [Kind; 3] = [MASQ, AZURE, EIM_APDF];

/// From the start to the last announcement: STUN, and twice the way through the rendezvous.
const FORMING: Duration = Duration::from_secs(5);

/// Three pings without an answer, a fresh socket, and three times the way through the rendezvous, each with time for the unlucky.
const REPAIRED: Duration = Duration::from_secs(30);

/// Longer than a silent peer may pass for present.
const GONE: Duration = Duration::from_secs(15);

const PRIMARY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const AUX_0: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

// --- coming up

#[test]
fn a_star_behind_clash_prone_nats_is_up_within_a_second_of_its_last_announcement() {
    let mut net = Internet::new(1, Weather::default());
    star(&mut net, &[MASQ, AZURE, MASQ, AZURE]);
    assert_up_within(&mut net, FORMING);
    assert!(net.now - net.last_reading < Duration::from_secs(1));
}

#[test]
fn all_aux_come_up_in_parallel() {
    let mut net = Internet::new(2, Weather::default());
    let hosts = star(&mut net, &[AZURE; 4]);
    assert_up_within(&mut net, FORMING);
    let ups = net.noticed(hosts[0], is_up);
    assert_eq!(ups.len(), 3);
    assert!(ups[2] - ups[0] < Duration::from_millis(100), "{ups:?}");
}

#[test]
fn every_pair_of_nats_comes_up_with_either_side_as_primary() {
    for primary in KINDS {
        for aux in KINDS {
            let mut net = Internet::new(3, Weather::default());
            star(&mut net, &[primary, aux]);
            assert_up_within(&mut net, FORMING);
            assert!(net.now - net.last_reading < Duration::from_secs(1), "{primary:?} {aux:?}");
        }
    }
}

#[test]
fn a_mesh_forms_while_its_key_is_rotated() {
    let (old, new) = (1, 2);
    let rings: [&[u8]; 4] = [&[old], &[new], &[new, old], &[old, new]];
    for primary in [&[new, old], &[old, new]] {
        let mut net = Internet::new(3, Weather::default());
        net.host_with_keys(Role::Primary, AZURE, primary);
        for (index, ring) in (0..).zip(rings) {
            net.host_with_keys(Role::Aux(index), MASQ, ring);
        }
        assert_up_within(&mut net, FORMING);
    }
}

#[test]
fn who_has_neither_of_the_keys_stays_outside() {
    let mut net = Internet::new(3, Weather::default());
    let primary = net.host_with_keys(Role::Primary, AZURE, &[2, 1]);
    let stranger = net.host_with_keys(Role::Aux(0), MASQ, &[3]);
    net.host_with_keys(Role::Aux(1), MASQ, &[1]);
    net.run_for(FORMING);
    assert_eq!(net.noticed(primary, is_up).len(), 1);
    assert_eq!(net.noticed(stranger, is_up).len(), 0);
}

#[test]
fn an_aux_that_is_twenty_seconds_late_comes_up_as_fast() {
    let mut net = Internet::new(4, Weather::default());
    star(&mut net, &[MASQ, AZURE]);
    net.run_for(Duration::from_secs(20));
    net.host(Role::Aux(1), MASQ);
    assert_up_within(&mut net, FORMING);
    assert!(net.now - net.last_reading < Duration::from_secs(1));
}

#[test]
fn an_aux_whose_primary_is_twenty_seconds_late_waits_for_it() {
    let mut net = Internet::new(5, Weather::default());
    net.host(Role::Aux(0), MASQ);
    net.run_for(Duration::from_secs(20));
    net.host(Role::Primary, AZURE);
    assert_up_within(&mut net, FORMING);
}

#[test]
fn announcements_that_are_read_again_and_again_change_nothing() {
    let weather = Weather { readings: 5, rendezvous_jitter: Duration::from_secs(5), ..Weather::default() };
    let mut net = Internet::new(6, weather);
    let hosts = star(&mut net, &[MASQ, AZURE, MASQ]);
    assert_up_within(&mut net, FORMING * 3);
    net.run_for(Duration::from_secs(10));
    assert_eq!(net.noticed(hosts[0], is_up).len(), 2, "each aux once");
    assert_eq!(net.noticed(hosts[1], is_publication).len(), 1, "one answer to one announcement");
}

#[test]
fn announcements_may_overtake_each_other() {
    for seed in 0..20 {
        let weather = Weather { readings: 2, rendezvous_jitter: Duration::from_secs(8), ..Weather::default() };
        let mut net = Internet::new(seed, weather);
        let hosts = star(&mut net, &[AZURE, MASQ, AZURE]);
        net.run_for(Duration::from_secs(seed % 5));
        net.kill(hosts[1]);
        net.host(Role::Aux(0), MASQ);
        assert_up_within(&mut net, Duration::from_secs(20));
    }
}

#[test]
fn a_lossy_network_delays_a_star_by_seconds_at_most() {
    for (loss, limit) in [(0.1, Duration::from_secs(6)), (0.3, Duration::from_secs(15))] {
        for seed in 0..100 {
            let jitter = Duration::from_millis(50);
            let mut net = Internet::new(seed, Weather { loss, jitter, duplication: 0.05, ..Weather::default() });
            star(&mut net, &[MASQ, AZURE, MASQ, AZURE]);
            assert_up_within(&mut net, limit);
        }
    }
}

#[test]
fn sixty_four_aux_come_up_within_fifteen_seconds_and_two_hundred_datagrams_for_each() {
    let weather = Weather { rendezvous_jitter: Duration::from_secs(3), ..Weather::default() };
    let mut net = Internet::new(8, weather);
    star(&mut net, &[AZURE; 65]);
    assert_up_within(&mut net, Duration::from_secs(15));
    let sent: usize = net.hosts.iter().map(|host| host.sent).sum();
    assert!(sent < 64 * 200, "{sent} datagrams");
}

// --- the clash: these show that the simulated internet has what the order guards against

#[test]
fn when_the_first_opening_datagrams_are_lost_a_clash_keeps_the_pair_apart_until_a_fresh_socket() {
    for (kind, up) in [(MASQ, false), (AZURE, false), (EIM_APDF, true)] {
        let mut net = Internet::new(9, Weather::default());
        let hosts = star(&mut net, &[AZURE, kind]);
        net.hosts[hosts[1]].loses_openings = true;
        net.run_for(Duration::from_secs(4));
        net.hosts[hosts[1]].loses_openings = false;
        assert_eq!(net.run_until(Duration::from_secs(10), Internet::all_up), up, "{kind:?}");
        assert_up_within(&mut net, Duration::from_secs(20));
        assert_eq!(net.noticed(hosts[1], is_rebinding).len(), usize::from(!up));
    }
}

#[test]
fn opening_datagrams_that_reach_the_peer_keep_the_pair_apart_and_count_as_too_early() {
    for (kind, up) in [(MASQ, false), (AZURE, false), (EIM_APDF, true)] {
        let mut net = Internet::new(10, Weather::default());
        let hosts = star(&mut net, &[kind, MASQ]);
        net.input(hosts[1], |node, now| node.handle_hops(now, Some(64)));
        assert_eq!(net.run_until(Duration::from_secs(25), Internet::all_up), up, "{kind:?}");
        assert_ne!(net.violations, [""; 0]);
    }
}

#[test]
fn the_last_of_the_quick_opening_datagrams_is_enough() {
    let mut net = Internet::new(18, Weather::default());
    let hosts = star(&mut net, &[AZURE, MASQ]);
    net.hosts[hosts[1]].loses_openings = true;
    assert!(net.run_until(FORMING, |net| !net.noticed(hosts[1], is_publication).is_empty()));
    net.run_for(Duration::from_millis(700));
    net.hosts[hosts[1]].loses_openings = false;
    assert_up_within(&mut net, FORMING);
}

// --- changes on the way

#[test]
fn a_primary_whose_mapping_moves_before_it_is_acknowledged_is_found_at_the_new_one() {
    let mut net = Internet::new(11, Weather { rendezvous: Duration::from_secs(6), ..Weather::default() });
    let hosts = star(&mut net, &[AZURE, MASQ, AZURE]);
    net.run_for(Duration::from_secs(2));
    net.nat(hosts[0]).rebind();
    assert_up_within(&mut net, Duration::from_secs(40));
}

#[test]
fn a_mapping_that_moves_in_mid_flow_is_repaired_whosever_it_is() {
    for (primary, aux) in KINDS.into_iter().flat_map(|one| KINDS.map(|other| (one, other))) {
        for moved in [&[0][..], &[1], &[0, 1]] {
            let mut net = Internet::new(17, Weather::default());
            let hosts = star(&mut net, &[primary, aux, AZURE]);
            assert_up_within(&mut net, FORMING);
            net.run_for(Duration::from_secs(10));
            moved.iter().for_each(|host| net.nat(hosts[*host]).rebind());
            net.run_for(REPAIRED);
            assert!(net.all_up(), "{primary:?} {aux:?} {moved:?}: {}", story(&net));
            deliver_both_ways(&mut net, hosts[0], hosts[1]);
            deliver_both_ways(&mut net, hosts[0], hosts[2]);
            assert_eq!(net.violations, [""; 0]);
        }
    }
}

#[test]
fn a_mapping_that_moves_again_right_after_its_repair_is_repaired_again() {
    for (kind, moved) in [(MASQ, 0), (MASQ, 1), (AZURE, 0), (AZURE, 1)] {
        for pause in 0..12 {
            let mut net = Internet::new(21, Weather::default());
            let hosts = star(&mut net, &[kind, kind]);
            assert_up_within(&mut net, FORMING);
            for _ in 0..2 {
                net.nat(hosts[moved]).rebind();
                net.run_for(Duration::from_secs(pause));
            }
            net.run_for(REPAIRED);
            deliver_both_ways(&mut net, hosts[0], hosts[1]);
            assert_eq!(net.violations, [""; 0]);
        }
    }
}

#[test]
fn a_repair_of_one_aux_leaves_the_others_alone() {
    let mut net = Internet::new(18, Weather::default());
    let hosts = star(&mut net, &[MASQ, AZURE, AZURE]);
    assert_up_within(&mut net, FORMING);
    net.nat(hosts[1]).rebind();
    net.run_for(REPAIRED);
    assert_eq!(net.noticed(hosts[1], is_rebinding).len(), 1);
    assert_eq!(net.noticed(hosts[0], is_rebinding).len() + net.noticed(hosts[2], is_rebinding).len(), 0);
    assert_eq!(net.noticed(hosts[2], |event| matches!(event, Event::Gone { .. } | Event::Suspect { .. })).len(), 0);
}

#[test]
fn an_aux_that_loses_its_primary_right_after_a_repair_takes_a_fresh_socket_again() {
    for pause in 0..20 {
        let mut net = Internet::new(22, Weather::default());
        let hosts = star(&mut net, &[MASQ, AZURE]);
        assert_up_within(&mut net, FORMING);
        net.nat(hosts[1]).rebind();
        assert!(net.run_until(REPAIRED, |net| !net.noticed(hosts[1], is_recovery).is_empty()), "{}", story(&net));
        net.run_for(Duration::from_secs(pause));
        let before = net.noticed(hosts[1], is_rebinding).len();
        net.kill(hosts[0]);
        net.run_for(Duration::from_secs(120));
        let taken = net.noticed(hosts[1], is_rebinding).len() - before;
        assert!((2..=4).contains(&taken), "{pause}: {taken} {}", story(&net));
    }
}

#[test]
fn a_minute_without_a_network_is_survived() {
    let mut net = Internet::new(20, Weather::default());
    let hosts = star(&mut net, &[MASQ, AZURE, EIM_APDF]);
    assert_up_within(&mut net, FORMING);
    net.black_out(Duration::from_secs(60));
    assert!(!net.all_up());
    assert_up_within(&mut net, REPAIRED);
    deliver_both_ways(&mut net, hosts[0], hosts[1]);
    deliver_both_ways(&mut net, hosts[0], hosts[2]);
}

#[test]
fn a_network_that_fails_in_the_middle_of_a_handshake_is_survived() {
    let mut smooth = Internet::new(22, Weather::default());
    smooth.add_relay();
    let hosts = star(&mut smooth, &[MASQ, AZURE]);
    assert_up_within(&mut smooth, FORMING);
    let up = smooth.noticed(hosts[0], is_up)[0];
    for before in (0..150).step_by(10).map(Duration::from_millis) {
        let mut net = Internet::new(22, Weather::default());
        net.add_relay();
        star(&mut net, &[MASQ, AZURE]);
        net.run_for(up - before);
        net.black_out(Duration::from_secs(12));
        assert_up_within(&mut net, REPAIRED);
    }
}

#[test]
fn a_primary_that_reaches_nobody_takes_a_few_fresh_sockets_and_one_that_reaches_somebody_none() {
    for (kinds, taken) in [(&[MASQ, AZURE][..], 3), (&[MASQ, AZURE, AZURE], 0)] {
        let mut net = Internet::new(23, Weather::default());
        let hosts = star(&mut net, kinds);
        net.cut.insert((hosts[0], hosts[1]));
        net.run_for(Duration::from_secs(200));
        assert_eq!(net.noticed(hosts[0], is_rebinding).len(), taken, "{}", story(&net));
    }
}

#[test]
fn an_aux_whose_primary_is_dead_takes_few_sockets() {
    let mut net = Internet::new(19, Weather::default());
    let hosts = star(&mut net, &[MASQ, AZURE]);
    assert_up_within(&mut net, FORMING);
    net.kill(hosts[0]);
    net.run_for(Duration::from_secs(120));
    assert!((2..=4).contains(&net.noticed(hosts[1], is_rebinding).len()), "{}", story(&net));
}

#[test]
fn a_restarted_aux_takes_the_place_of_the_one_before() {
    let mut net = Internet::new(13, Weather::default());
    let hosts = star(&mut net, &[MASQ, AZURE]);
    assert_up_within(&mut net, FORMING);
    net.kill(hosts[1]);
    let again = net.host(Role::Aux(0), MASQ);
    assert!(net.run_until(FORMING, |net| net.hosts[again].up.contains(&Role::Primary)));
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.noticed(hosts[0], is_up).len(), 2);
    deliver_both_ways(&mut net, hosts[0], again);
}

#[test]
fn a_second_aux_of_the_same_index_sends_the_first_one_home() {
    let mut net = Internet::new(14, Weather::default());
    let hosts = star(&mut net, &[MASQ, AZURE]);
    assert_up_within(&mut net, FORMING);
    net.host(Role::Aux(0), MASQ);
    net.run_for(FORMING);
    assert_eq!(net.noticed(hosts[1], |event| *event == Event::Replaced).len(), 1);
}

#[test]
fn a_restarted_primary_gets_every_aux_back() {
    let mut net = Internet::new(15, Weather::default());
    let hosts = star(&mut net, &[MASQ, AZURE, MASQ]);
    assert_up_within(&mut net, FORMING);
    net.kill(hosts[0]);
    let again = net.host(Role::Primary, AZURE);
    assert!(net.run_until(FORMING, |net| net.hosts[again].up.len() == 2), "{}", story(&net));
    assert_eq!(net.violations, [""; 0]);
    deliver_both_ways(&mut net, again, hosts[1]);
}

#[test]
fn announcements_read_before_the_own_address_is_known_count_by_age_and_not_by_order() {
    for seed in 0..20 {
        let weather =
            Weather { rendezvous_jitter: Duration::from_millis(30), rendezvous: Duration::ZERO, ..Weather::default() };
        let mut net = Internet::new(seed, weather);
        let hosts = star(&mut net, &[MASQ, AZURE]);
        assert_up_within(&mut net, FORMING);
        net.close(hosts[0], Farewell::Released);
        net.run_for(FORMING);
        net.kill(hosts[0]);
        let late = net.host(Role::Aux(1), AZURE);
        net.run_for(FORMING);
        assert_eq!(net.noticed(late, is_release).len(), 1, "seed {seed}: {}", story(&net));
        assert_eq!(net.noticed(late, is_publication).len(), 0, "seed {seed}: nobody is there to read it");
    }
}

// --- going apart

#[test]
fn a_goodbye_releases_everybody_in_two_seconds_though_three_in_ten_datagrams_are_lost() {
    for seed in 0..20 {
        let mut net =
            Internet::new(seed, Weather { loss: 0.3, rendezvous: Duration::from_secs(3), ..Weather::default() });
        let hosts = star(&mut net, &[MASQ, AZURE, MASQ, AZURE]);
        assert_up_within(&mut net, Duration::from_secs(20));
        net.close(hosts[0], Farewell::Released);
        assert!(net.run_until(Duration::from_secs(2), |net| net.hosts[hosts[0]].node.is_closed()));
        for aux in &hosts[1..] {
            assert_eq!(net.noticed(*aux, is_release).len(), 1, "seed {seed}: {}", story(&net));
        }
    }
}

#[test]
fn a_primary_is_told_when_an_aux_leaves() {
    let mut net = Internet::new(16, Weather::default());
    let hosts = star(&mut net, &[MASQ, AZURE, MASQ]);
    assert_up_within(&mut net, FORMING);
    net.close(hosts[1], Farewell::Leaving);
    assert!(net.run_until(Duration::from_secs(1), |net| net.hosts[hosts[1]].node.is_closed()));
    assert_eq!(net.noticed(hosts[0], |event| *event == Event::Left { role: Role::Aux(0) }).len(), 1);
    assert!(net.hosts[hosts[0]].up.contains(&Role::Aux(1)));
}

#[test]
fn a_silent_peer_is_gone_and_its_connections_are_reset() {
    let mut net = Internet::new(17, Weather::default());
    let hosts = star(&mut net, &[MASQ, AZURE]);
    assert_up_within(&mut net, FORMING);
    net.send_inner(hosts[0], &segment(PRIMARY, AUX_0, 4711));
    net.kill(hosts[1]);
    net.run_for(GONE);
    assert_eq!(net.noticed(hosts[0], |event| matches!(event, Event::Gone { role: Role::Aux(0), .. })).len(), 1);
    assert_eq!(net.hosts[hosts[0]].inner.len(), 1);
    assert!(is_reset(&net.hosts[hosts[0]].inner[0], AUX_0, 4711));
}

#[test]
fn a_connection_that_is_no_job_is_reset_only_after_two_minutes_of_silence() {
    let mut net = Internet::new(17, Weather::default());
    let hosts = star(&mut net, &[MASQ, AZURE]);
    assert_up_within(&mut net, FORMING);
    let send = |net: &mut Internet, packet: Vec<u8>| net.send_inner(hosts[0], &packet);
    send(&mut net, segment_to_port(22, PRIMARY, AUX_0, 4711));
    net.kill(hosts[1]);
    net.run_for(Duration::from_secs(100));
    send(&mut net, segment_to_port(22, PRIMARY, AUX_0, 4712));
    assert_eq!(net.hosts[hosts[0]].inner, [[0; 0]; 0]);
    net.run_for(Duration::from_secs(25));
    assert_eq!(net.hosts[hosts[0]].inner.len(), 1);
    send(&mut net, segment_to_port(22, PRIMARY, AUX_0, 4712));
    assert_eq!(net.hosts[hosts[0]].inner.len(), 2);
}

#[test]
fn a_late_aux_of_a_closed_primary_is_released_at_once_in_whatever_order_it_reads() {
    for seed in 0..20 {
        let rendezvous_jitter = Duration::from_secs(seed % 4);
        let mut net = Internet::new(seed, Weather { rendezvous_jitter, ..Weather::default() });
        let hosts = star(&mut net, &[MASQ, AZURE]);
        assert_up_within(&mut net, FORMING * 2);
        net.close(hosts[0], Farewell::Released);
        net.run_until(FORMING, |net| net.hosts[hosts[0]].node.is_closed());
        net.kill(hosts[0]);
        let late = net.host(Role::Aux(1), AZURE);
        let released = |net: &Internet| !net.noticed(late, is_release).is_empty();
        assert!(net.run_until(FORMING, released), "seed {seed}: {}", story(&net));
    }
}

// --- whatever happens

proptest! {
    #![proptest_config(crate::cases::of_stories())]

    #[test]
    fn no_full_ttl_datagram_leaves_for_a_peer_that_has_neither_acknowledged_us_nor_been_heard(
        seed: u64,
        weather in weathers(),
        kinds in prop::collection::vec(kinds(), 2..5),
        moves in prop::collection::vec((0..4usize, 0..15u64), 0..3),
    ) {
        let mut net = Internet::new(seed, weather);
        let hosts = star(&mut net, &kinds);
        for (host, after) in moves {
            net.run_for(Duration::from_secs(after));
            net.nat(hosts[host % hosts.len()]).rebind();
        }
        net.run_for(Duration::from_secs(12));
        prop_assert_eq!(&net.violations, &[""; 0]);
    }

    #[test]
    fn every_star_of_punchable_nats_comes_up(
        seed: u64,
        weather in weathers(),
        kinds in prop::collection::vec(punchable_kinds(), 2..5),
    ) {
        let mut net = Internet::new(seed, weather);
        star(&mut net, &kinds);
        prop_assert!(net.run_until(Duration::from_secs(40), Internet::all_up), "{}", story(&net));
        prop_assert_eq!(&net.violations, &[""; 0]);
    }
}

fn punchable_kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![MASQ, AZURE, EIM_APDF, EIM_ADF, EIM_EIF])
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![MASQ, AZURE, EIM_APDF, EIM_ADF, EIM_EIF, SYMMETRIC])
}

fn assert_up_within(net: &mut Internet, limit: Duration) {
    assert!(net.run_until(limit, Internet::all_up), "{}", story(net));
    assert_eq!(net.violations, [""; 0]);
}

fn is_up(event: &Event) -> bool {
    matches!(event, Event::Up { .. })
}

fn is_publication(event: &Event) -> bool {
    matches!(event, Event::Publish(_))
}

fn is_rebinding(event: &Event) -> bool {
    matches!(event, Event::Rebind(_))
}

fn is_recovery(event: &Event) -> bool {
    matches!(event, Event::Recovered { .. })
}

fn is_release(event: &Event) -> bool {
    *event == Event::Released
}
