//! What the tests share: starting the processes of a run.

use std::time::Duration;

use netns_tests::lab::{Nat, Runner};
use netns_tests::stage::{Process, Stage};

/// For what must come on a machine whose two cores run several labs at once.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// A primary behind `nat`, with `args` after `primary`.
pub(crate) fn primary(stage: &Stage, nat: Nat, args: &[&str]) -> (Runner, Process) {
    let home = stage.runner("primary", nat).unwrap();
    let process = stage.mesh(&home, &[&["primary"], args].concat()).unwrap();
    (home, process)
}

/// Aux `index` behind `nat`, with `args` after `aux --index I`.
pub(crate) fn aux(stage: &Stage, nat: Nat, index: u16, args: &[&str]) -> (Runner, Process) {
    let runner = stage.runner(&format!("aux{index}"), nat).unwrap();
    let process = stage.mesh(&runner, &[&["aux", "--index", &index.to_string()], args].concat()).unwrap();
    (runner, process)
}

/// Waits for the end of a process that fails with `exit`, and says so with `code` and a hint.
#[track_caller]
pub(crate) fn assert_fails(process: &mut Process, exit: i32, code: &str) {
    let ended = process.wait(SOON).unwrap();
    let output = process.output();
    assert_eq!(ended, exit, "{output}");
    assert!(has_line(&output, code), "no line with {code} and a hint:\n{output}");
}

/// Waits for the end of a process that ends with `exit`.
#[track_caller]
pub(crate) fn assert_ends(process: &mut Process, exit: i32) {
    assert_eq!(process.wait(SOON).unwrap(), exit, "{}", process.output());
}

/// Whether there is a line of the form `mesh: CODE ...; hint: ...`.
pub(crate) fn has_line(output: &str, code: &str) -> bool {
    output.lines().any(|line| line.starts_with(&format!("mesh: {code} ")) && line.contains("; hint: "))
}
