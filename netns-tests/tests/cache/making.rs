//! What is not there is made once, however many runners want it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netns_tests::lab::wait_until;
use netns_tests::stage::{Crew, Member, binary};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Nothing beside the usual.
const NONE: &[&str] = &[];

const SOON: Duration = Duration::from_secs(40);

fn get(member: &Member, name: &str, script: &str) -> Child {
    let mut command: Command = member.command(binary().unwrap()).unwrap();
    command.args(["cache", "get", name, "--", "sh", "-c", script]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn of_four_runners_one_makes_what_all_want() {
    let crew = Crew::start("making", &[NONE; 4]).unwrap();
    let tally = crew.stage.folder.path().join("tally");
    let script = format!("echo once >> {}; sleep 1; echo made", tally.display());

    let asked: Vec<Child> = crew.members.iter().map(|member| get(member, "expensive", &script)).collect();

    for child in asked {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "made\n");
    }
    assert_eq!(std::fs::read_to_string(&tally).unwrap(), "once\n");
    for member in &crew.members {
        let output = get(member, "expensive", "echo not again; exit 1").wait_with_output().unwrap();
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"made\n"[..]));
    }
}

#[test]
fn when_who_makes_it_is_killed_the_next_one_does() {
    let crew = Crew::start("made", &[NONE; 3]).unwrap();
    let begun = crew.stage.folder.path().join("begun");
    let mut first = get(&crew.members[1], "abandoned", &format!("touch {}; exec sleep 8", begun.display()));
    wait_until(SOON, "the first to begin", || begun.exists().then_some(())).unwrap();

    let second = get(&crew.members[2], "abandoned", "echo made");
    kill(Pid::from_raw(first.id() as i32), Signal::SIGKILL).unwrap();

    let output = second.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"made\n"[..]));
    let failing = get(&crew.members[0], "failing", "echo half; exit 7").wait_with_output().unwrap();
    assert_eq!((failing.status.code(), &failing.stdout[..]), (Some(7), &b""[..]), "what fails is not kept");
    let again = get(&crew.members[1], "failing", "echo whole").wait_with_output().unwrap();
    assert_eq!((again.status.code(), &again.stdout[..]), (Some(0), &b"whole\n"[..]));
    first.wait().unwrap();
}
