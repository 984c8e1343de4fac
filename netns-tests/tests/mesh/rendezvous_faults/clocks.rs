//! Runners whose clocks differ. `libfaketime` moves the clock of one process; its monotonic clock stays, as on a real machine.

use std::path::PathBuf;

use netns_tests::lab::Nat;
use netns_tests::stage::{Process, Stage};

use crate::common::{assert_ends, assert_fails};

#[test]
fn a_clock_ten_minutes_ahead_is_no_obstacle() {
    let (_stage, mut primary, mut aux) = pair_with("ahead", "+10m", "60s");
    assert_ends(&mut primary, 0);
    assert_ends(&mut aux, 0);
}

#[test]
fn a_clock_ten_minutes_behind_is_no_obstacle() {
    let (_stage, mut primary, mut aux) = pair_with("behind", "-10m", "60s");
    assert_ends(&mut primary, 0);
    assert_ends(&mut aux, 0);
}

#[test]
fn a_clock_hours_ahead_is_named_on_both_sides() {
    let (_stage, mut primary, mut aux) = pair_with("hours-ahead", "+8h", "6s");
    assert_fails(&mut aux, 84, "M103");
    assert!(aux.output().contains("clock"), "{}", aux.output());
    // The aux could not read the primary, so it never published.
    assert_fails(&mut primary, 84, "M104");
}

#[test]
fn a_clock_hours_behind_is_named_on_the_side_that_sees_it() {
    let (_stage, mut primary, mut aux) = pair_with("hours-behind", "-8h", "6s");
    assert_fails(&mut aux, 84, "M103");
    assert_fails(&mut primary, 84, "M104");
}

#[test]
fn a_primary_that_reads_announcements_of_hours_ago_names_the_clocks() {
    // Five hours ahead, the aux can read the primary, whose announcements are good for six; what it publishes lies in the future.
    let (_stage, mut primary, mut aux) = pair_with("five-ahead", "+5h", "6s");
    assert_fails(&mut primary, 84, "M103");
    assert!(primary.output().contains("clock"), "{}", primary.output());
    assert_fails(&mut aux, 85, "M301");
}

/// A primary with the right time, and an aux whose clock is `offset` away.
fn pair_with(name: &str, offset: &str, patience: &str) -> (Stage, Process, Process) {
    let library = library().display().to_string();
    let stage = Stage::new(name).unwrap();
    let (home, runner) = (stage.runner("primary", Nat::None).unwrap(), stage.runner("aux0", Nat::None).unwrap());
    let args =
        ["primary", "--aux", "1", "--min-aux", "1", "--offload", "none", "--join-timeout", patience, "--", "true"];
    let primary = stage.mesh(&home, &args).unwrap();
    let moved = [("LD_PRELOAD", library.as_str()), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    let aux = stage.mesh_with(&runner, &["aux", "--index", "0", "--join-timeout", patience], &moved).unwrap();
    (stage, primary, aux)
}

/// Debian keeps it in a folder that the architecture names.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut found = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).filter(|path| path.exists());
    found.next().expect("install the package faketime")
}
