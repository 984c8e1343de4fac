//! Forming a mesh: who connects, how fast, and over what.

use netns_tests::lab::Nat;
use netns_tests::stage::Stage;

use crate::common::{SOON, aux, primary};

#[test]
fn four_runners_behind_azure_nats_are_up_directly_and_in_parallel() {
    let stage = Stage::new("four").unwrap();
    let (home, mut primary) = primary(&stage, Nat::Azure, &["--aux", "3", "--min-aux", "3", "--", "true"]);
    let aux: Vec<_> = (0..3).map(|index| aux(&stage, Nat::Azure, index, &[])).collect();

    assert_eq!(primary.wait(SOON).unwrap(), 0, "{}", primary.output());
    for (_, mut aux) in aux {
        assert_eq!(aux.wait(SOON).unwrap(), 0, "{}", aux.output());
    }
    let report = stage.report(&home).unwrap();
    assert_eq!(report["network"]["mapping"], "endpoint-independent");
    assert_eq!(report["peers"].as_array().unwrap().len(), 3);
    for peer in report["peers"].as_array().unwrap() {
        assert_eq!((&peer["state"], &peer["path"]["kind"]), (&"up".into(), &"direct".into()), "{report:#}");
    }
}

macro_rules! pairs {
    ($($name:ident: $primary:ident, $aux:ident;)*) => {$(
        #[test]
        fn $name() {
            connects(stringify!($name), Nat::$primary, Nat::$aux);
        }
    )*};
}

pairs! {
    masq_reaches_masq: Masq, Masq;
    masq_reaches_azure: Masq, Azure;
    masq_reaches_eim_apdf: Masq, EimApdf;
    azure_reaches_masq: Azure, Masq;
    azure_reaches_azure: Azure, Azure;
    azure_reaches_eim_apdf: Azure, EimApdf;
    eim_apdf_reaches_masq: EimApdf, Masq;
    eim_apdf_reaches_azure: EimApdf, Azure;
    eim_apdf_reaches_eim_apdf: EimApdf, EimApdf;
}

/// A primary behind one kind of NAT and an aux behind another come up without a relay.
fn connects(name: &str, of_primary: Nat, of_aux: Nat) {
    let stage = Stage::new(&name.replace('_', "-")).unwrap();
    let options = ["--aux", "1", "--min-aux", "1", "--join-timeout", "30s", "--offload", "none", "--", "true"];
    let (_, mut primary) = primary(&stage, of_primary, &options);
    let (_, mut aux) = aux(&stage, of_aux, 0, &[]);
    assert_eq!(primary.wait(SOON).unwrap(), 0, "{}", primary.output());
    assert_eq!(aux.wait(SOON).unwrap(), 0, "{}", aux.output());
}

#[test]
fn a_late_aux_joins_while_command_runs_and_is_released_with_it() {
    let stage = Stage::new("late").unwrap();
    let script = "until test -e $0; do sleep 0.05; done";
    let gate = stage.folder.path().join("gate");
    let gate_text = gate.display().to_string();
    let args = ["--aux", "1", "--join-timeout", "1s", "--offload", "none", "--", "sh", "-c", script, &gate_text];
    let (_, mut primary) = primary(&stage, Nat::Azure, &args);
    primary.wait_for("the build goes on without it", SOON).unwrap();
    let (_, mut aux) = aux(&stage, Nat::Azure, 0, &[]);
    primary.wait_for("aux 0 is up", SOON).unwrap();
    std::fs::write(&gate, "").unwrap();
    assert_eq!(primary.wait(SOON).unwrap(), 0);
    assert_eq!(aux.wait(SOON).unwrap(), 0, "{}", aux.output());
}

#[test]
fn an_aux_that_comes_when_the_build_is_over_is_released_at_once() {
    let stage = Stage::new("over").unwrap();
    let args = ["--aux", "1", "--join-timeout", "1s", "--offload", "none", "--", "true"];
    let (_, mut primary) = primary(&stage, Nat::Azure, &args);
    assert_eq!(primary.wait(SOON).unwrap(), 0);
    let (_, mut aux) = aux(&stage, Nat::Azure, 0, &[]);
    assert_eq!(aux.wait(SOON).unwrap(), 0, "{}", aux.output());
    assert!(aux.output().contains("released"), "{}", aux.output());
}

#[test]
fn wait_env_status_and_leave_speak_to_a_primary_without_command() {
    let stage = Stage::new("verbs").unwrap();
    let (home, mut primary) = primary(&stage, Nat::Azure, &["--aux", "1"]);
    let (_, mut aux) = aux(&stage, Nat::Azure, 0, &["--slots", "3"]);
    let ask = |verb: &[&str]| {
        home.command(netns_tests::stage::binary().unwrap())
            .args(verb)
            .env("MESH_CONTROL", stage.control(&home))
            .output()
            .unwrap()
    };

    assert!(ask(&["wait", "--aux", "1", "--direct", "--timeout", "30s"]).status.success());
    let status: serde_json::Value = serde_json::from_slice(&ask(&["status", "--json"]).stdout).unwrap();
    assert_eq!((&status["peers"][0]["slots"], &status["peers"][0]["state"]), (&3.into(), &"up".into()));
    let env = String::from_utf8(ask(&["env"]).stdout).unwrap();
    assert!(env.contains("10.77.0.2/3") && env.contains("export MESH_SLOTS_TOTAL="), "{env}");
    assert_eq!(ask(&["wait", "--aux", "2", "--timeout", "300ms"]).status.code(), Some(84));
    assert!(ask(&["leave"]).status.success());
    assert_eq!(primary.wait(SOON).unwrap(), 0, "{}", primary.output());
    assert_eq!(aux.wait(SOON).unwrap(), 0, "{}", aux.output());
    assert_eq!(ask(&["status"]).status.code(), Some(92));
}
