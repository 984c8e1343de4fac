//! `mesh doctor` behind NATs whose behaviour the lab knows.

use netns_tests::lab::{Nat, Runner};
use netns_tests::stage::{Stage, binary};

fn doctor(stage: &Stage, runner: &Runner) -> (serde_json::Value, Option<i32>) {
    let variables = stage.variables(runner);
    let output = runner.command(binary().unwrap()).args(["doctor", "--json"]).envs(variables).output().unwrap();
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.code())
}

#[test]
fn it_tells_mapping_filtering_and_how_far_to_open() {
    let stage = Stage::new("doctor").unwrap();
    for nat in [Nat::Masq, Nat::Azure, Nat::EimApdf] {
        let runner = stage.runner(&format!("{nat:?}").to_lowercase(), nat).unwrap();
        let (found, code) = doctor(&stage, &runner);
        assert_eq!(found["mapping"], "endpoint-independent", "{nat:?}: {found:#}");
        assert_eq!(found["filtering"], "address-and-port-dependent", "{nat:?}: {found:#}");
        assert_eq!((&found["egress"], &found["opening_ttl"]), (&1.into(), &2.into()), "{nat:?}: {found:#}");
        assert_eq!(code, Some(0), "{nat:?}: {found:#}");
    }
}

#[test]
fn it_tells_how_a_nat_that_maps_by_destination_can_be_crossed_and_whether_the_relay_answers() {
    let stage = Stage::new("doctor-hard").unwrap();
    let (server, _relay) = crate::common::relay(&stage);
    let runner = stage.runner("hard", Nat::MasqRand).unwrap();
    let silent = stage.lab.server("silent").unwrap();
    let relays = format!("{server},{}:3479", silent.addr());
    let variables = stage.variables(&runner);
    let mut command = runner.command(binary().unwrap());
    let output = command.args(["doctor", "--json", "--relay", &relays]).envs(variables).output().unwrap();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["mapping"].as_str().unwrap().starts_with("address-"), "{found:#}");
    assert_eq!(found["ports"]["kind"], "random", "{found:#}");
    assert_eq!(found["crossings"]["no NAT"], "direct", "{found:#}");
    assert!(found["crossings"]["an endpoint-independent NAT"].as_str().unwrap().starts_with("direct once"));
    assert!(found["crossings"]["a NAT that maps by destination"].as_str().unwrap().starts_with("relayed"));
    let answers: Vec<_> = found["relays"].as_object().unwrap().values().cloned().collect();
    assert!(answers.contains(&true.into()) && answers.contains(&false.into()), "{found:#}");
    assert!(found.to_string().contains("M207"), "{found:#}");
}

#[test]
fn without_udp_it_says_so_and_ends_with_the_code() {
    let stage = Stage::new("doctor-blocked").unwrap();
    let runner = stage.runner("blocked", Nat::Azure).unwrap();
    runner.block_udp(true).unwrap();
    let (found, code) = doctor(&stage, &runner);
    assert_eq!((found["mapping"].as_str(), code), (Some("unknown"), Some(83)), "{found:#}");
}
