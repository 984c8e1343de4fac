//! What lies at the rendezvous is not what should lie there: damaged, of another key, attempt, role or project, or twice.

use std::time::{Duration, Instant};

use netns_tests::fake_github::{Route, Rule, Tamper};
use netns_tests::lab::{Nat, wait_until};
use netns_tests::stage::{KEY, Process, Stage};

use super::{RUN, pair, stage, survives};
use crate::common::{SOON, assert_ends, assert_fails, aux, primary};

const OTHER_KEY: &str = "mesh1_4OHi4-Tl5ufo6err7O3u7_Dx8vP09fb3-Pn6-_z9_v8";

#[test]
fn a_download_that_is_altered_or_cut_short_once_is_fetched_again() {
    let damaging = |tamper| Rule { tamper: Some(tamper), times: Some(2), ..Rule::on(Route::Download) };
    survives("damaged-once", [Tamper::Flip, Tamper::Truncate].map(damaging));
}

#[test]
fn downloads_that_are_always_altered_end_with_the_code_of_the_rendezvous() {
    always_damaged("flipped", Tamper::Flip);
}

#[test]
fn downloads_that_are_always_cut_short_end_with_the_code_of_the_rendezvous() {
    always_damaged("truncated", Tamper::Truncate);
}

#[test]
fn an_aux_with_another_key_says_so_within_its_idle_time_out_and_the_build_goes_on_without_it() {
    let stage = Stage::new("other-key").unwrap();
    let args = ["--aux", "1", "--offload", "none", "--join-timeout", "12s", "--", "sh", "-c", "exit 7"];
    let (home, mut primary) = primary(&stage, Nat::None, &args);
    let started = Instant::now();
    let mut aux = stranger(&stage, "5s");
    assert_fails(&mut aux, 84, "M102");
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert!(aux.output().contains("MESH_KEY"), "{}", aux.output());
    assert_ends(&mut primary, 7);
    assert_eq!(stage.report(&home).unwrap()["peers"][0]["state"], "never");
}

#[test]
fn a_run_whose_key_is_changed_in_the_middle_forms_one_mesh() {
    let stage = Stage::new("rotation").unwrap();
    let home = stage.runner("primary", Nat::None).unwrap();
    let both = format!("{OTHER_KEY}\n{KEY}\n");
    let args = ["primary", "--aux", "2", "--min-aux", "2", "--offload", "none", "--join-timeout", "60s", "--", "true"];
    let (_, mut early) = aux(&stage, Nat::None, 0, &[]);
    let mut primary = stage.mesh_with(&home, &args, &[("MESH_KEY", both.as_str())]).unwrap();
    let runner = stage.runner("aux1", Nat::None).unwrap();
    let mut late = stage.mesh_with(&runner, &["aux", "--index", "1"], &[("MESH_KEY", OTHER_KEY)]).unwrap();
    for process in [&mut primary, &mut early, &mut late] {
        assert_ends(process, 0);
    }
}

#[test]
fn a_primary_that_insists_names_the_key_where_the_aux_has_another() {
    let stage = Stage::new("insist-key").unwrap();
    let args = ["--aux", "1", "--min-aux", "1", "--offload", "none", "--join-timeout", "6s", "--", "true"];
    let (_, mut primary) = primary(&stage, Nat::None, &args);
    stage.github.plant(RUN, "aux0", "mesh-1-aux0-1-0000beef", &announcement_of_a_stranger());
    assert_fails(&mut primary, 84, "M102");
    assert!(primary.output().contains("MESH_KEY"), "{}", primary.output());
}

#[test]
fn artifacts_of_an_earlier_attempt_are_skipped() {
    let (stage, _) = survives("attempts", []);
    let (home, runner) = (stage.runner("primary2", Nat::None).unwrap(), stage.runner("aux2", Nat::None).unwrap());
    let second = [("GITHUB_RUN_ATTEMPT", "2")];
    let args = ["aux", "--index", "0", "--join-timeout", "4s"];
    let mut early = stage.mesh_with(&runner, &args, &second).unwrap();
    assert_fails(&mut early, 84, "M103");

    let args = ["primary", "--aux", "1", "--min-aux", "1", "--offload", "none", "--", "true"];
    let mut primary = stage.mesh_with(&home, &args, &second).unwrap();
    let mut aux = stage.mesh_with(&runner, &["aux", "--index", "0"], &second).unwrap();
    assert_ends(&mut primary, 0);
    assert_ends(&mut aux, 0);
    let report = stage.report(&runner).unwrap();
    assert!(report["skipped"]["of another attempt"].as_u64() > Some(0), "{report}");
}

#[test]
fn an_announcement_under_the_name_of_another_index_or_role_opens_nothing() {
    let stage = Stage::new("renamed").unwrap();
    let args = ["--aux", "2", "--min-aux", "1", "--offload", "none", "--join-timeout", "10s", "--", "true"];
    let (home, mut primary) = primary(&stage, Nat::None, &args);
    let (_, mut aux) = aux(&stage, Nat::None, 0, &[]);
    primary.wait_for("aux 0 is up", SOON).unwrap();
    let announced = stage.github.artifacts(RUN);
    for (nonce, artifact) in announced.iter().enumerate() {
        let content = stage.github.content(artifact).unwrap();
        for role in ["aux1", "primary"] {
            stage.github.plant(RUN, "thief", &format!("mesh-1-{role}-9-{nonce:08x}"), &content);
        }
    }
    assert_ends(&mut primary, 0);
    assert_ends(&mut aux, 0);
    let report = stage.report(&home).unwrap();
    assert_eq!((&report["peers"][0]["state"], &report["peers"][1]["state"]), (&"up".into(), &"never".into()));
    assert!(report["skipped"]["altered, or of another run"].as_u64() >= Some(announced.len() as u64), "{report}");
}

#[test]
fn a_thousand_foreign_artifacts_with_odd_names_are_in_nobodys_way() {
    let stage = Stage::new("foreign").unwrap();
    let odd =
        ["ä ö", "mesh-", "mesh-1-aux0", "mesh-1-aux0-1", "..", ".mesh", "mesh-1-aux00-1-0000beef", "%2e%2e", "a b"];
    for (job, name) in (0..).zip(odd) {
        stage.github.plant(RUN, &format!("job {job}"), name, b"foreign");
    }
    (0..1000).for_each(|number| stage.github.plant(RUN, "tests", &format!("test-results-{number}"), b"foreign"));
    let (mut primary, mut aux) = pair(&stage, "60s");
    assert_ends(&mut primary, 0);
    assert_ends(&mut aux, 0);
}

#[test]
fn hundreds_of_foreign_artifacts_under_names_like_ours_are_counted_and_skipped() {
    let stage = Stage::new("forged").unwrap();
    for number in 0..150_u32 {
        for role in ["aux0", "aux7", "primary"] {
            stage.github.plant(RUN, "forger", &format!("mesh-1-{role}-{number}-{number:08x}"), b"MSHE\x01 and noise");
        }
    }
    let args = ["--aux", "1", "--min-aux", "1", "--offload", "none", "--", "true"];
    let (home, mut primary) = primary(&stage, Nat::None, &args);
    let (_, mut aux) = aux(&stage, Nat::None, 0, &[]);
    assert_ends(&mut primary, 0);
    assert_ends(&mut aux, 0);
    assert_eq!(stage.report(&home).unwrap()["skipped"]["not an announcement"], 450);
    assert_eq!(primary.output().matches("skipped").count(), 1, "said once, counted in the report");
}

#[test]
fn of_two_aux_with_one_index_the_later_stays_and_the_build_goes_on() {
    let stage = Stage::new("twins").unwrap();
    let go = stage.folder.path().join("go");
    let script = format!("while ! [ -e {} ]; do sleep 0.1; done; exit 7", go.display());
    let args = ["--aux", "1", "--min-aux", "1", "--offload", "none", "--", "sh", "-c", &script];
    let (home, mut primary) = primary(&stage, Nat::None, &args);
    let (_, mut earlier) = aux(&stage, Nat::None, 0, &[]);
    primary.wait_for("mesh is up", SOON).unwrap();
    let runner = stage.runner("twin", Nat::None).unwrap();
    let mut later = stage.mesh(&runner, &["aux", "--index", "0"]).unwrap();

    assert_fails(&mut earlier, 88, "M105");
    assert!(earlier.output().contains("--index"), "{}", earlier.output());
    let welcomed = || (primary.output().matches("aux 0 is up").count() == 2).then_some(());
    wait_until(SOON, "the primary to take the later one", welcomed).unwrap();
    std::fs::write(&go, "").unwrap();
    assert_ends(&mut primary, 7);
    assert_ends(&mut later, 0);
    assert_eq!(stage.report(&home).unwrap()["peers"][0]["state"], "up");
}

fn always_damaged(name: &str, tamper: Tamper) {
    let stage = stage(name, [Rule { tamper: Some(tamper), ..Rule::on(Route::Download) }]);
    let (mut primary, mut aux) = pair(&stage, "6s");
    assert_fails(&mut aux, 82, "M106");
    // It cannot even read its own.
    assert_fails(&mut primary, 82, "M106");
}

fn stranger(stage: &Stage, patience: &str) -> Process {
    let runner = stage.runner("stranger", Nat::None).unwrap();
    let args = ["aux", "--index", "0", "--idle-timeout", patience];
    stage.mesh_with(&runner, &args, &[("MESH_KEY", OTHER_KEY)]).unwrap()
}

/// The envelope that somebody with another key publishes: its length and the ids of its keys are all that can be seen from outside.
fn announcement_of_a_stranger() -> Vec<u8> {
    assert_ne!(OTHER_KEY, KEY);
    [b"MSHE\x01\x01".as_slice(), &[0; 4], &[7; 24], &[0; 1040]].concat()
}
