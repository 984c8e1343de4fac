//! What the tests share: starting the processes of a run.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use netns_tests::lab::{Nat, Runner, Server};
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

/// A `mesh relay` on a public address, and what `--relay` takes to reach it.
pub(crate) fn relay(stage: &Stage) -> (String, Process) {
    let server = stage.lab.server("relay").unwrap();
    (format!("{}:3479", server.addr()), relay_on(stage, &server))
}

/// A `mesh relay` on that server.
pub(crate) fn relay_on(stage: &Stage, server: &Server) -> Process {
    let mut command = server.command(netns_tests::stage::binary().unwrap());
    command.args(["relay", "--listen", "3479"]).env("MESH_KEY", netns_tests::stage::KEY);
    let process = Process::spawn(command, &stage.folder.path().join("relay.log")).unwrap();
    process.wait_for("relay on UDP port 3479", SOON).unwrap();
    process
}

/// How often a test that depends on chance is run: once, or as `MESH_ROUNDS` says.
pub(crate) fn rounds() -> usize {
    std::env::var("MESH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// What `mesh status` on a runner says of its first peer; null while there is none.
pub(crate) fn status(stage: &Stage, runner: &Runner) -> serde_json::Value {
    let mesh = netns_tests::stage::binary().unwrap();
    let said =
        runner.command(mesh).args(["status", "--json"]).env("MESH_CONTROL", stage.control(runner)).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
    report["peers"][0].clone()
}

/// Sends so many bytes over TCP to an address of `to`; how many of them came, each as it was sent.
pub(crate) fn transfer(from: &Runner, to: &Runner, addr: &str, bytes: usize) -> usize {
    let listener = to.enter(|| TcpListener::bind((addr, 0))).unwrap().unwrap();
    let there = listener.local_addr().unwrap();
    let mut sender = from.enter(|| TcpStream::connect_timeout(&there, SOON)).unwrap().unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(SOON)).unwrap();
    let data: Vec<u8> = (0..bytes).map(|at| ((at * 31) >> 3) as u8).collect();
    let expected = data.clone();
    let writer = thread::spawn(move || sender.write_all(&data));
    let mut received = vec![];
    let _ = receiver.read_to_end(&mut received);
    let _ = writer.join();
    received.iter().zip(&expected).take_while(|(got, sent)| got == sent).count()
}
