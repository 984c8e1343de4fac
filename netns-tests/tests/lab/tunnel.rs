//! The benchmark of tunnels measures: what it says of two hosts without any. Not here: tunnels, whose figures nothing passes or fails by.

use netns_tests::interrupt::Interrupt;
use netns_tests::tunnel::{self, Contender, Kind, Plan, Section};

#[test]
fn without_a_tunnel_streams_are_fast_and_round_trips_short() {
    let plan = Plan {
        peers: vec![Contender::Veth],
        only: vec![Kind::Rtt, Kind::Star],
        rounds: 1,
        seconds: 1,
        delay: vec![],
        loss: vec![],
        congestion: None,
        wireguard_go: "wireguard-go".into(),
    };

    let outcome = tunnel::run(&plan, &Interrupt::never()).expect("the benchmark runs");

    assert_eq!((outcome.failures, outcome.interrupted), (0, false));
    let median = |section, column: &str| {
        outcome.figures.summary(section, column, Contender::Veth).expect("it was measured").median
    };
    assert!((0.001..10.0).contains(&median(Section::RoundTrip, "idle")), "{}", tunnel::markdown(&outcome.figures));
    assert!(median(Section::Star, "hub to 8") > 0.1, "{}", tunnel::markdown(&outcome.figures));
}
