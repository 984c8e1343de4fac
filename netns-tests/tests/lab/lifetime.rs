//! Nothing of a lab stays: not after it is dropped, not after its process was killed. Not here: what it does while it lives.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use netns_tests::lab::{Lab, Link, Nat, Runner, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{SOON, lab_with_server, runner};

/// Set for the child process that [`leftovers_of_a_killed_process_are_swept_by_the_next_lab`] kills.
const DOOMED: &str = "LAB_TEST_DOOMED";

#[test]
fn dropping_a_lab_removes_its_namespaces_and_ends_the_processes_inside() {
    let (lab, _server) = lab_with_server("drop");
    lab.stun_servers().expect("coturn answers");
    let runner = runner(&lab, "runner", Nat::Azure);
    let mut sleeper = sleeper(&runner);
    let prefix = lab.prefix().to_owned();
    assert_eq!(namespaces(&prefix).len(), 6, "core, server, stun, edge, NAT and runner");

    drop(lab);

    assert_eq!(namespaces(&prefix), Vec::<String>::new());
    let status = sleeper.wait().expect("the child can be waited for");
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
}

#[test]
fn a_lab_that_failed_half_way_leaves_nothing() {
    let lab = Lab::new("half").expect("the lab comes up");
    let prefix = lab.prefix().to_owned();
    lab.runner("twin", Nat::Masq, Link::default()).expect("the first is added");

    lab.runner("twin", Nat::Masq, Link::default()).expect_err("the name is taken");
    drop(lab);

    assert_eq!(namespaces(&prefix), Vec::<String>::new());
}

#[test]
fn a_name_that_is_no_part_of_a_namespaces_name_is_refused() {
    for name in ["", "a/b", "../x", "Upper", "white space"] {
        let error = Lab::new(name).expect_err("a bad name");
        assert!(error.to_string().contains("the name"), "{error}");
    }
}

#[test]
fn a_new_lab_leaves_a_living_one_alone() {
    let (lab, _server) = lab_with_server("elder");
    let before = namespaces(lab.prefix());

    drop(Lab::new("younger").expect("the lab comes up"));

    assert_eq!(namespaces(lab.prefix()), before);
}

#[test]
fn leftovers_of_a_killed_process_are_swept_by_the_next_lab() {
    if is_doomed() {
        return be_doomed();
    }
    let mut doomed = doomed_process();
    let mut lines = BufReader::new(doomed.stdout.take().expect("stdout is piped")).lines().map_while(Result::ok);
    let mut told = |what: &str| {
        let marked = lines.find_map(|line| line.split_once(what).map(|(_, value)| value.trim().to_owned()));
        marked.unwrap_or_else(|| panic!("the doomed process tells its {what}"))
    };
    let (prefix, sleeper) = (told("prefix="), told("sleeper="));
    assert_eq!(namespaces(&prefix).len(), 4, "core, edge, NAT and runner");

    kill(Pid::from_raw(doomed.id().cast_signed()), Signal::SIGKILL).expect("the child runs");
    doomed.wait().expect("the child can be waited for");
    let _lab = Lab::new("heir").expect("the lab comes up");

    assert_eq!(namespaces(&prefix), Vec::<String>::new());
    wait_until(SOON, "the orphan to end", || (!is_running(&sleeper)).then_some(())).expect("the sweep killed it");
}

fn doomed_process() -> Child {
    Command::new(env::current_exe().expect("this test has a path"))
        .args(["--exact", "lifetime::leftovers_of_a_killed_process_are_swept_by_the_next_lab", "--nocapture"])
        .env(DOOMED, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test can be started again")
}

#[expect(clippy::disallowed_methods, reason = "the test runner takes no arguments of ours")]
fn is_doomed() -> bool {
    env::var_os(DOOMED).is_some()
}

/// Builds a lab, tells what is in it, and waits for its end: by a signal, or by stdin closing if the parent died.
fn be_doomed() {
    let lab = Lab::new("doomed").expect("the lab comes up");
    let mut sleeper = sleeper(&runner(&lab, "runner", Nat::Azure));
    let mut stdout = std::io::stdout();
    writeln!(stdout, "prefix={}\nsleeper={}", lab.prefix(), sleeper.id()).expect("the parent listens");
    stdout.flush().expect("the parent listens");
    let _ = std::io::stdin().read_line(&mut String::new());
    drop(lab);
    sleeper.wait().expect("the lab killed it");
}

/// A process inside that would outlive the test, but not the night.
fn sleeper(runner: &Runner) -> Child {
    let child = runner.command("sleep").arg("600").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let child = child.expect("sleep can be started");
    let pid = child.id().to_string();
    wait_until(SOON, "the process to be inside", || (comm(&pid)? == "sleep").then_some(())).expect("it starts");
    child
}

fn is_running(pid: &str) -> bool {
    comm(pid).is_some_and(|name| name == "sleep")
}

fn comm(pid: &str) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())
}

fn namespaces(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir("/run/netns").expect("a lab was made");
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}
