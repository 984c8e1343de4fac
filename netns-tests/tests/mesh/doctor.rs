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
fn without_udp_it_says_so_and_ends_with_the_code() {
    let stage = Stage::new("doctor-blocked").unwrap();
    let runner = stage.runner("blocked", Nat::Azure).unwrap();
    runner.block_udp(true).unwrap();
    let (found, code) = doctor(&stage, &runner);
    assert_eq!((found["mapping"].as_str(), code), (Some("unknown"), Some(83)), "{found:#}");
}
