//! Every kind of NAT against every other, with real processes on a real kernel: one test for each cell of the table. What bare sockets come to
//! without a search or a relay is measured in the lab's own tests; what `can_punch` says of each pair, in `tests/it/matrix.rs`.
//!
//! `MESH_ROUNDS` says how often each cell is run; once without it.

use netns_tests::lab::{Nat, Runner};
use netns_tests::stage::{Process, Stage};
use serde_json::Value;

use crate::common::{SOON, assert_ends, assert_fails, aux, primary, relay, rounds};

macro_rules! cells {
    ($($name:ident: $primary:ident and $aux:ident are $outcome:ident;)*) => {$(
        #[test]
        fn $name() {
            for round in 0..rounds() {
                $outcome(&format!("{}-{round}", stringify!($name).replace('_', "")), Nat::$primary, Nat::$aux);
            }
        }
    )*};
}

cells! {
    masq_masq: Masq and Masq are direct;
    masq_azure: Masq and Azure are direct;
    masq_eim_eif: Masq and EimEif are direct;
    masq_eim_adf: Masq and EimAdf are direct;
    masq_eim_apdf: Masq and EimApdf are direct;
    masq_azure_adm: Masq and AzureAdm are found;
    masq_masq_rand: Masq and MasqRand are found;
    masq_masq_frand: Masq and MasqFrand are found;
    masq_block: Masq and Block are blocked;
    azure_azure: Azure and Azure are direct;
    azure_eim_eif: Azure and EimEif are direct;
    azure_eim_adf: Azure and EimAdf are direct;
    azure_eim_apdf: Azure and EimApdf are direct;
    azure_azure_adm: Azure and AzureAdm are found;
    azure_masq_rand: Azure and MasqRand are found;
    azure_masq_frand: Azure and MasqFrand are found;
    azure_block: Azure and Block are blocked;
    eim_eif_eim_eif: EimEif and EimEif are direct;
    eim_eif_eim_adf: EimEif and EimAdf are direct;
    eim_eif_eim_apdf: EimEif and EimApdf are direct;
    eim_eif_azure_adm: EimEif and AzureAdm are found;
    eim_eif_masq_rand: EimEif and MasqRand are found;
    eim_eif_masq_frand: EimEif and MasqFrand are found;
    eim_eif_block: EimEif and Block are blocked;
    eim_adf_eim_adf: EimAdf and EimAdf are direct;
    eim_adf_eim_apdf: EimAdf and EimApdf are direct;
    eim_adf_azure_adm: EimAdf and AzureAdm are found;
    eim_adf_masq_rand: EimAdf and MasqRand are found;
    eim_adf_masq_frand: EimAdf and MasqFrand are found;
    eim_adf_block: EimAdf and Block are blocked;
    eim_apdf_eim_apdf: EimApdf and EimApdf are direct;
    eim_apdf_azure_adm: EimApdf and AzureAdm are found;
    eim_apdf_masq_rand: EimApdf and MasqRand are found;
    eim_apdf_masq_frand: EimApdf and MasqFrand are found;
    eim_apdf_block: EimApdf and Block are blocked;
    azure_adm_azure_adm: AzureAdm and AzureAdm are relayed;
    azure_adm_masq_rand: AzureAdm and MasqRand are relayed;
    azure_adm_masq_frand: AzureAdm and MasqFrand are relayed;
    azure_adm_block: AzureAdm and Block are blocked;
    masq_rand_masq_rand: MasqRand and MasqRand are relayed;
    masq_rand_masq_frand: MasqRand and MasqFrand are relayed;
    masq_rand_block: MasqRand and Block are blocked;
    masq_frand_masq_frand: MasqFrand and MasqFrand are relayed;
    masq_frand_block: MasqFrand and Block are blocked;
    block_block: Block and Block are blocked;
    // The other way about, where the two sides have different parts.
    masq_rand_azure: MasqRand and Azure are found;
    masq_frand_eim_apdf: MasqFrand and EimApdf are found;
    azure_adm_masq: AzureAdm and Masq are found;
    masq_rand_eim_eif: MasqRand and EimEif are found;
}

const PAIR: [&str; 9] = ["--aux", "1", "--min-aux", "1", "--join-timeout", "30s", "--offload", "none", "--"];

/// Both open, and then reach each other.
fn direct(name: &str, of_primary: Nat, of_aux: Nat) {
    let peer = peer(name, of_primary, of_aux);
    assert_eq!(peer["path"]["kind"], "direct", "{peer:#}");
    assert_eq!(peer["path"]["crossing"], "direct", "{peer:#}");
}

/// One of the NATs has another port for everyone, and that port is found. From the moment when both know of each other it may take eight
/// seconds; before that, what they know goes twice through the rendezvous.
fn found(name: &str, of_primary: Nat, of_aux: Nat) {
    let peer = peer(name, of_primary, of_aux);
    assert_eq!(peer["path"]["kind"], "direct", "{peer:#}");
    let crossing = peer["path"]["crossing"].as_str().unwrap();
    assert!(crossing.starts_with("direct once"), "{peer:#}");
    assert!(peer["connect_ms"].as_u64().unwrap() < 12_000, "{peer:#}");
}

/// Nothing crosses both: over a relay of the user's own, within a second of being announced.
fn relayed(name: &str, of_primary: Nat, of_aux: Nat) {
    let stage = Stage::new(name).unwrap();
    let (server, _relay) = relay(&stage);
    let at = ["--relay", &server];
    let (home, mut primary) = primary(&stage, of_primary, &[&at, &PAIR[..], &["true"]].concat());
    let (_, mut aux) = aux(&stage, of_aux, 0, &at);
    let peer = up(&stage, &home, &mut primary, &mut aux);
    assert_eq!((&peer["path"]["kind"], &peer["path"]["via"]), (&"relay".into(), &"relay".into()), "{peer:#}");
    assert!(peer["path"]["why"].as_str().unwrap().starts_with("M203"), "{peer:#}");
    assert!(peer["connect_ms"].as_u64().unwrap() < 1_000, "{peer:#}");
}

/// No UDP passes on one side: both say so, and what to do.
fn blocked(name: &str, of_primary: Nat, of_aux: Nat) {
    let stage = Stage::new(name).unwrap();
    let (_, mut primary) =
        primary(&stage, of_primary, &["--aux", "1", "--join-timeout", "6s", "--offload", "none", "--", "true"]);
    let (_, mut aux) = aux(&stage, of_aux, 0, &["--join-timeout", "6s"]);
    let is_blocked = |nat| nat == Nat::Block;
    let codes = |nat| if is_blocked(nat) { (83, "M201") } else { (84, "M104") };
    assert_ends(&mut primary, 0);
    let said = if is_blocked(of_primary) { "M201" } else { "M104" };
    assert!(primary.output().contains(said), "{}", primary.output());
    let (exit, code) = codes(of_aux);
    assert_fails(&mut aux, exit, code);
}

/// What the primary's report says of the aux.
fn peer(name: &str, of_primary: Nat, of_aux: Nat) -> Value {
    let stage = Stage::new(name).unwrap();
    let (home, mut primary) = primary(&stage, of_primary, &[&PAIR[..], &["true"]].concat());
    let (_, mut aux) = aux(&stage, of_aux, 0, &[]);
    up(&stage, &home, &mut primary, &mut aux)
}

fn up(stage: &Stage, home: &Runner, primary: &mut Process, aux: &mut Process) -> Value {
    assert_eq!(primary.wait(SOON).unwrap(), 0, "{}\n---\n{}", primary.output(), aux.output());
    assert_ends(aux, 0);
    stage.report(home).unwrap()["peers"][0].clone()
}
