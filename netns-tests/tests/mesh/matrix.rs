//! Every kind of NAT against every other, with real processes on a real kernel: one test for each cell of the table. What bare sockets come to
//! without a search or a relay is measured in the lab's own tests; what `can_punch` says of each pair, in `tests/it/matrix.rs`.
//!
//! `MESH_ROUNDS` says how often each cell is run; once without it.

use netns_tests::lab::Nat;
use netns_tests::stage::Stage;
use serde_json::Value;

use crate::common::{SOON, assert_ends, assert_fails, aux, primary, relay};

macro_rules! cells {
    ($outcome:ident; $($name:ident: $primary:ident and $aux:ident;)*) => {$(
        #[test]
        fn $name() {
            let name = stringify!($name).replace('_', "");
            let rounds = (0..crate::common::rounds()).map(|round| format!("{name}-{round}"));
            super::$outcome(rounds.collect(), Nat::$primary, Nat::$aux);
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

const PAIR: [&str; 7] = ["--aux", "1", "--join-timeout", "30s", "--offload", "none", "--"];

/// Of so many searches one may find nothing: it is a matter of chance.
const SEARCHES: usize = 50;

/// Both open, and then reach each other.
fn direct(rounds: Vec<String>, of_primary: Nat, of_aux: Nat) {
    for name in rounds {
        let (peer, story) = meet(&name, of_primary, of_aux);
        let path = &peer["path"];
        assert_eq!((&path["kind"], &path["crossing"]), (&"direct".into(), &"direct".into()), "{peer:#}\n{story}");
    }
}

/// One of the NATs has another port for everyone, and that port is found. From the moment when both know of each other it may take eight
/// seconds; before that, what they know goes twice through the rendezvous.
fn found(rounds: Vec<String>, of_primary: Nat, of_aux: Nat) {
    let count = rounds.len();
    let missed = rounds.into_iter().filter_map(|name| {
        let (peer, story) = meet(&name, of_primary, of_aux);
        let crossing = peer["path"]["crossing"].as_str().unwrap_or_default();
        assert!(crossing.starts_with("direct once"), "{peer:#}\n{story}");
        let found = peer["path"]["kind"] == "direct" && peer["connect_ms"].as_u64().is_some_and(|ms| ms < 12_000);
        (!found).then(|| format!("{peer:#}\n{story}"))
    });
    let missed: Vec<_> = missed.collect();
    assert!(missed.len() <= count / SEARCHES, "{} of {count}:\n{}", missed.len(), missed.join("\n"));
}

/// Nothing crosses both: over a relay of the user's own, within a second of being announced.
fn relayed(rounds: Vec<String>, of_primary: Nat, of_aux: Nat) {
    for name in rounds {
        let stage = Stage::new(&name).unwrap();
        let (server, _relay) = relay(&stage);
        let (peer, story) = meet_on(&stage, of_primary, of_aux, &["--relay", &server]);
        let path = &peer["path"];
        assert_eq!((&path["kind"], &path["via"]), (&"relay".into(), &"relay".into()), "{peer:#}\n{story}");
        assert!(path["why"].as_str().unwrap().starts_with("M203"), "{peer:#}");
        assert!(peer["connect_ms"].as_u64().unwrap() < 1_000, "{peer:#}");
    }
}

/// No UDP passes on one side: both say so, and what to do.
fn blocked(rounds: Vec<String>, of_primary: Nat, of_aux: Nat) {
    for name in rounds {
        let stage = Stage::new(&name).unwrap();
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
}

/// What the primary's report says of the aux, and what both said.
fn meet(name: &str, of_primary: Nat, of_aux: Nat) -> (Value, String) {
    meet_on(&Stage::new(name).unwrap(), of_primary, of_aux, &[])
}

fn meet_on(stage: &Stage, of_primary: Nat, of_aux: Nat, args: &[&str]) -> (Value, String) {
    let (home, mut primary) = primary(stage, of_primary, &[args, &PAIR, &["true"]].concat());
    let (_, mut aux) = aux(stage, of_aux, 0, args);
    assert_ends(&mut primary, 0);
    let exit = aux.wait(SOON).unwrap();
    let peer = stage.report(&home).unwrap()["peers"][0].clone();
    let story = format!("{}\n--- aux\n{}", primary.output(), aux.output());
    assert!(exit == 0 || peer["connect_ms"].is_null(), "{exit} {peer:#}\n{story}");
    (peer, story)
}
