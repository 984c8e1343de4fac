//! Whatever the rendezvous does, a run ends in success, or in the documented code with a hint; nothing hangs. Not here: what one
//! request makes of one answer, which the tests of the GitHub client know.

mod artifacts;
mod clocks;
mod directory;
mod outages;

use std::time::{Duration, Instant};

use netns_tests::fake_github::{Route, Rule};
use netns_tests::lab::Nat;
use netns_tests::stage::{Process, Stage};

use crate::common::{assert_ends, aux, primary};

/// The run of every stage, as fake GitHub knows it.
const RUN: &str = "42";

/// The routes that a publication takes, then those that a look takes.
const ROUTES: [Route; 6] = [
    Route::CreateArtifact,
    Route::Upload,
    Route::FinalizeArtifact,
    Route::ListArtifacts,
    Route::GetSignedArtifactUrl,
    Route::Download,
];

/// A primary that insists on one aux, and that aux; both give up after `patience`.
fn pair(stage: &Stage, patience: &str) -> (Process, Process) {
    let args = ["--aux", "1", "--min-aux", "1", "--offload", "none", "--join-timeout", patience, "--", "true"];
    let (_, primary) = primary(stage, Nat::None, &args);
    let (_, aux) = aux(stage, Nat::None, 0, &["--join-timeout", patience]);
    (primary, aux)
}

/// A stage with these faults.
fn stage(name: &str, rules: impl IntoIterator<Item = Rule>) -> Stage {
    let stage = Stage::new(name).unwrap();
    stage.github.faults().add(rules).unwrap();
    stage
}

/// A pair comes up in spite of these faults. Returns the stage, for its logs, and how long it took.
fn survives(name: &str, rules: impl IntoIterator<Item = Rule>) -> (Stage, Duration) {
    let stage = stage(name, rules);
    let started = Instant::now();
    let (mut primary, mut aux) = pair(&stage, "60s");
    assert_ends(&mut primary, 0);
    assert_ends(&mut aux, 0);
    (stage, started.elapsed())
}
