//! How a run ends: by COMMAND, by a signal, by a crash on either side.

use std::fs;
use std::time::{Duration, Instant};

use netns_tests::lab::{Nat, Runner, wait_until};
use netns_tests::stage::{Process, Stage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{SOON, aux, primary};

/// Between the end of COMMAND and the end of every aux.
const RELEASED_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn the_aux_end_within_two_seconds_of_command_with_its_exit_code_passed_on() {
    let stage = Stage::new("release").unwrap();
    let ended = stage.folder.path().join("ended");
    let script = format!("touch {}; exit 7", ended.display());
    let (_, mut primary) = primary(&stage, Nat::Azure, &["--aux", "2", "--min-aux", "2", "--", "sh", "-c", &script]);
    let mut aux: Vec<_> = (0..2).map(|index| aux(&stage, Nat::Azure, index, &[])).collect();
    for (_, aux) in &mut aux {
        assert_eq!(aux.wait(SOON).unwrap(), 0, "{}", aux.output());
    }
    let since = fs::metadata(&ended).unwrap().modified().unwrap().elapsed().unwrap();
    assert!(since < RELEASED_WITHIN, "{since:?}");
    assert_eq!(primary.wait(SOON).unwrap(), 7, "{}", primary.output());
}

#[test]
fn an_interrupt_of_the_primary_ends_command_and_releases_the_aux() {
    ends_by(Signal::SIGINT, 130);
}

#[test]
fn a_termination_of_the_primary_ends_command_and_releases_the_aux() {
    ends_by(Signal::SIGTERM, 143);
}

fn ends_by(signal: Signal, code: i32) {
    let (stage, mut primary, mut aux) = running(&format!("ends-{code}"), &["--offload", "none"]);
    let grandchild = stage.folder.path().join("grandchild");
    let pid = wait_until(SOON, "the process that COMMAND started", || {
        fs::read_to_string(&grandchild).ok()?.trim().parse::<i32>().ok()
    });
    let pid = Pid::from_raw(pid.unwrap());
    let asked = Instant::now();
    primary.signal(signal).unwrap();
    assert_eq!(aux.1.wait(SOON).unwrap(), 0, "{}", aux.1.output());
    assert!(asked.elapsed() < RELEASED_WITHIN, "{:?}", asked.elapsed());
    assert_eq!(primary.wait(SOON).unwrap(), code, "{}", primary.output());
    wait_until(SOON, "the end of what COMMAND started", || kill(pid, None).is_err().then_some(())).unwrap();
}

#[test]
fn aux_whose_primary_was_killed_leave_with_their_own_code() {
    let (_stage, primary, mut aux) = running("orphan", &["--offload", "none"]);
    let killed = Instant::now();
    primary.signal(Signal::SIGKILL).unwrap();
    assert_eq!(aux.1.wait(SOON).unwrap(), 87, "{}", aux.1.output());
    assert!(killed.elapsed() >= Duration::from_secs(4), "not before its idle time-out");
    assert!(aux.1.output().contains("M503"), "{}", aux.1.output());
}

#[test]
fn nothing_outlives_an_aux_that_was_killed() {
    let (_stage, _primary, aux) = running("killed-aux", &[]);
    let listening =
        || aux.0.enter(|| fs::read_to_string("/proc/thread-self/net/tcp")).unwrap().unwrap().contains(":0E30 ");
    assert!(listening(), "distccd listens on port 3632 (0x0E30)");
    aux.1.signal(Signal::SIGKILL).unwrap();
    wait_until(SOON, "the end of distccd", || (!listening()).then_some(())).unwrap();
}

#[test]
fn an_aux_that_is_asked_to_leave_says_goodbye_and_the_build_goes_on() {
    let (_stage, primary, mut aux) = running("leaver", &["--offload", "none"]);
    aux.1.signal(Signal::SIGTERM).unwrap();
    primary.wait_for("aux 0 has left", SOON).unwrap();
    assert_eq!(aux.1.wait(SOON).unwrap(), 143, "{}", aux.1.output());
}

/// A primary whose COMMAND sleeps, and an aux with an idle time-out of 5 s.
fn running(name: &str, options: &[&str]) -> (Stage, Process, (Runner, Process)) {
    let stage = Stage::new(name).unwrap();
    let script = format!("sh -c 'echo $$ > {}/grandchild; exec sleep 600'; true", stage.folder.path().display());
    let args = [&["--aux", "1", "--min-aux", "1"], options, &["--", "sh", "-c", &script]].concat();
    let (_, primary) = primary(&stage, Nat::Azure, &args);
    let aux = aux(&stage, Nat::Azure, 0, &["--idle-timeout", "5s"]);
    primary.wait_for("mesh is up: 1 of 1 aux", SOON).unwrap();
    (stage, primary, aux)
}
