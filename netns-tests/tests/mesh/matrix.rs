//! Every kind of NAT against every other, with real processes on a real kernel: one test for each cell of the table. What bare sockets come to
//! without a search or a relay is measured in the lab's own tests; what `can_punch` says of each pair, in `tests/it/matrix.rs`.
//!
//! `MESH_ROUNDS` says how often each cell is run; once without it.

use netns_tests::lab::{Nat, Runner};
use netns_tests::stage::{Process, Stage};
use serde_json::Value;

use crate::common::{SOON, assert_ends, assert_fails, aux, primary, relay};

macro_rules! cells {
    ($outcome:ident; $($name:ident: $primary:ident and $aux:ident;)*) => {$(
        #[test]
        fn $name() {
            for round in 0..crate::common::rounds() {
                super::$outcome(&format!("{}-{round}", stringify!($name).replace('_', "")), Nat::$primary, Nat::$aux);
            }
        }
    )*};
}

/// Both open, and then reach each other.
mod direct {
    use netns_tests::lab::Nat;

    cells! {
        direct;
        masq_masq: Masq and Masq;
        masq_azure: Masq and Azure;
        masq_eim_eif: Masq and EimEif;
        masq_eim_adf: Masq and EimAdf;
        masq_eim_apdf: Masq and EimApdf;
        azure_azure: Azure and Azure;
        azure_eim_eif: Azure and EimEif;
        azure_eim_adf: Azure and EimAdf;
        azure_eim_apdf: Azure and EimApdf;
        eim_eif_eim_eif: EimEif and EimEif;
        eim_eif_eim_adf: EimEif and EimAdf;
        eim_eif_eim_apdf: EimEif and EimApdf;
        eim_adf_eim_adf: EimAdf and EimAdf;
        eim_adf_eim_apdf: EimAdf and EimApdf;
        eim_apdf_eim_apdf: EimApdf and EimApdf;
    }
}

/// One of the NATs has another port for everyone, and that port is found.
mod spray {
    use netns_tests::lab::Nat;

    cells! {
        found;
        masq_azure_adm: Masq and AzureAdm;
        masq_masq_rand: Masq and MasqRand;
        masq_masq_frand: Masq and MasqFrand;
        azure_azure_adm: Azure and AzureAdm;
        azure_masq_rand: Azure and MasqRand;
        azure_masq_frand: Azure and MasqFrand;
        eim_eif_azure_adm: EimEif and AzureAdm;
        eim_eif_masq_rand: EimEif and MasqRand;
        eim_eif_masq_frand: EimEif and MasqFrand;
        eim_adf_azure_adm: EimAdf and AzureAdm;
        eim_adf_masq_rand: EimAdf and MasqRand;
        eim_adf_masq_frand: EimAdf and MasqFrand;
        eim_apdf_azure_adm: EimApdf and AzureAdm;
        eim_apdf_masq_rand: EimApdf and MasqRand;
        eim_apdf_masq_frand: EimApdf and MasqFrand;
        masq_rand_azure: MasqRand and Azure;
        masq_frand_eim_apdf: MasqFrand and EimApdf;
        azure_adm_masq: AzureAdm and Masq;
        masq_rand_eim_eif: MasqRand and EimEif;
    }
}

/// Nothing crosses both.
mod relayed {
    use netns_tests::lab::Nat;

    cells! {
        relayed;
        azure_adm_azure_adm: AzureAdm and AzureAdm;
        azure_adm_masq_rand: AzureAdm and MasqRand;
        azure_adm_masq_frand: AzureAdm and MasqFrand;
        masq_rand_masq_rand: MasqRand and MasqRand;
        masq_rand_masq_frand: MasqRand and MasqFrand;
        masq_frand_masq_frand: MasqFrand and MasqFrand;
    }
}

/// No UDP passes on one side.
mod blocked {
    use netns_tests::lab::Nat;

    cells! {
        blocked;
        masq_block: Masq and Block;
        azure_block: Azure and Block;
        eim_eif_block: EimEif and Block;
        eim_adf_block: EimAdf and Block;
        eim_apdf_block: EimApdf and Block;
        azure_adm_block: AzureAdm and Block;
        masq_rand_block: MasqRand and Block;
        masq_frand_block: MasqFrand and Block;
        block_block: Block and Block;
    }
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
