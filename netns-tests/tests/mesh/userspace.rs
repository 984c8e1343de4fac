//! Without a TUN device, on one side or both, and without any privilege: the build, forwards and exposed ports work as with one.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use netns_tests::lab::{Nat, Runner};
use netns_tests::stage::{Process, Stage, binary};
use nix::sys::signal::Signal;
use rand::{RngCore, SeedableRng, rngs::SmallRng};
use sha2::{Digest, Sha256};

use crate::building::{BUILD, generate, passes_its_test};
use crate::common::{SOON, assert_ends, has_line};

/// An ordinary user, without any capability, and without the groups that a device node might let in.
const USER: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
const UID: u32 = 65534;

/// Passed through a mesh each way, checked by its digest.
const BULK: usize = 50_000_000;

/// Two cores carry it both ways in less, while others work on them.
const TRANSFER: Duration = Duration::from_secs(90);

const PORT: u16 = 5432;
const NO_TUN: &[&str] = &["--no-tun"];

/// A project and where it lies, for whoever compiles it.
fn project(stage: &Stage) -> PathBuf {
    let project = stage.folder.path().join("project");
    generate(&project);
    project
}

/// Builds it over a mesh of a primary and two aux with these options.
fn builds(name: &str, of_primary: &[&str], of_aux: &[&str]) {
    let stage = Stage::new(name).unwrap();
    let project = project(&stage);
    let home = stage.runner("primary", Nat::Azure).unwrap();
    let runners: Vec<_> = (0..2).map(|i| stage.runner(&format!("aux{i}"), Nat::Azure).unwrap()).collect();
    let start = |(index, runner)| {
        let args = [&["aux", "--slots", "2", "--index", index], of_aux].concat();
        stage.mesh(runner, &args).unwrap()
    };
    let mut aux: Vec<_> = ["0", "1"].into_iter().zip(&runners).map(start).collect();
    let make = ["--", "make", "-C", project.to_str().unwrap(), "-j6"];
    let args = [&["primary", "--aux", "2", "--min-aux", "2"], of_primary, &make].concat();
    let mut primary = stage.mesh(&home, &args).unwrap();
    assert_eq!(primary.wait(BUILD).unwrap(), 0, "{}", primary.output());
    aux.iter_mut().for_each(|aux| assert_ends(aux, 0));

    assert!(passes_its_test(&project));
    let report = stage.report(&home).unwrap();
    assert_eq!(report["network"]["device"], device(of_primary), "{report:#}");
    assert_eq!(stage.report(&runners[0]).unwrap()["network"]["device"], device(of_aux));
    assert_worked(&report);
}

fn device(options: &[&str]) -> &'static str {
    if options == NO_TUN { "userspace" } else { "tun" }
}

/// Every aux ran jobs, and none of them had to be done again here.
fn assert_worked(report: &serde_json::Value) {
    for peer in report["peers"].as_array().unwrap() {
        assert!(peer["jobs"].as_u64().unwrap() > 0, "{report:#}");
    }
    assert_eq!(report["offload"]["failed_over"], 0, "{report:#}");
}

#[test]
fn a_build_needs_no_tun_device_on_either_side() {
    builds("build-neither", NO_TUN, NO_TUN);
}

#[test]
fn a_primary_with_a_device_uses_an_aux_without() {
    builds("build-aux-without", &[], NO_TUN);
}

#[test]
fn a_primary_without_a_device_uses_an_aux_with_one() {
    builds("build-primary-without", NO_TUN, &[]);
}

#[test]
fn an_ordinary_user_builds_over_a_mesh_and_is_told_how() {
    let stage = Stage::new("ordinary").unwrap();
    fs::set_permissions(stage.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let project = project(&stage);
    for path in [project.join("src"), project.clone()] {
        std::os::unix::fs::chown(&path, Some(UID), Some(UID)).unwrap();
    }
    let (home, runner) = (stage.runner("primary", Nat::Azure).unwrap(), stage.runner("aux0", Nat::Azure).unwrap());
    let mut aux = stage.mesh_under(&runner, &USER, &["aux", "--index", "0", "--slots", "2"], &[]).unwrap();
    let make = ["--", "make", "-C", project.to_str().unwrap(), "-j4"];
    let args = [&["primary", "--aux", "1", "--min-aux", "1"], &make[..]].concat();
    let mut primary = stage.mesh_under(&home, &USER, &args, &[]).unwrap();
    assert_eq!(primary.wait(BUILD).unwrap(), 0, "{}", primary.output());
    assert_ends(&mut aux, 0);

    for (process, runner) in [(&primary, &home), (&aux, &runner)] {
        let said = process.output();
        assert!(has_line(&said, "M601") && said.contains("userspace stack"), "{said}");
        assert_eq!(said.matches("M601").count(), 1, "{said}");
        assert_eq!(stage.report(runner).unwrap()["network"]["device"], "userspace");
    }
    assert!(passes_its_test(&project));
    assert_worked(&stage.report(&home).unwrap());
}

/// Where the system gives a user no runtime folder, as in many containers.
#[test]
fn an_ordinary_user_finds_its_mesh_without_being_told_where() {
    let stage = Stage::new("found").unwrap();
    fs::set_permissions(stage.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let home = stage.runner("primary", Nat::None).unwrap();
    let unset = [("MESH_CONTROL", ""), ("MESH_REPORT", "")];
    let mut primary = stage.mesh_under(&home, &USER, &["primary", "--aux", "0"], &unset).unwrap();
    primary.wait_for("mesh is up", SOON).unwrap();
    let ask = |verb: &str| {
        let mut command = home.command(USER[0]);
        command.args(&USER[1..]).arg(binary().unwrap()).arg(verb).env_clear().output().unwrap()
    };
    let status = ask("status");
    assert!(String::from_utf8_lossy(&status.stdout).contains("device: userspace"), "{status:?}");
    assert!(ask("leave").status.success());
    assert_ends(&mut primary, 0);
    fs::remove_dir_all(format!("/tmp/mesh-{UID}")).unwrap();
}

#[test]
fn a_doctor_without_rights_notes_what_that_means_and_finds_nothing_bad() {
    let stage = Stage::new("doctor-user").unwrap();
    let runner = stage.runner("user", Nat::Azure).unwrap();
    let ask = |options: &[&str]| {
        let mut command = runner.command(USER[0]);
        command.args(&USER[1..]).arg(binary().unwrap()).args(["doctor", "--json"]).args(options);
        let output = command.envs(stage.variables(&runner)).output().unwrap();
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = found["findings"].as_array().unwrap().clone();
        (findings.into_iter().find(|finding| finding["check"] == "tun").unwrap(), output.status.code())
    };
    let (tun, code) = ask(&[]);
    assert_eq!((tun["verdict"].as_str(), code), (Some("note"), Some(0)), "{tun:#}");
    assert!(tun["what"].as_str().unwrap().contains("userspace stack"), "{tun:#}");
    let (tun, code) = ask(&["--tun", "mesh0"]);
    assert_eq!((tun["verdict"].as_str(), code), (Some("bad"), Some(86)), "{tun:#}");
}

/// A mesh of two, and on each a service that the other reaches by a forward.
struct Pair {
    stage: Stage,
    home: Runner,
    away: Runner,
    primary: Process,
    aux: Process,
}

impl Pair {
    fn new(name: &str, of_primary: &[&str], of_aux: &[&str]) -> Self {
        let stage = Stage::new(name).unwrap();
        let (home, away) = (stage.runner("primary", Nat::Azure).unwrap(), stage.runner("aux0", Nat::Azure).unwrap());
        let port = PORT.to_string();
        let (to_aux, to_primary) = (format!("0:aux0:{PORT}"), format!("0:primary:{PORT}"));
        let primary = ["primary", "--aux", "1", "--offload", "none", "--expose", &port, "--forward", &to_aux];
        let aux = ["aux", "--index", "0", "--expose", &port, "--forward", &to_primary, "--forward", "0:primary:81"];
        let primary = stage.mesh(&home, &[&primary[..], of_primary].concat()).unwrap();
        let aux = stage.mesh(&away, &[&aux[..], of_aux].concat()).unwrap();
        primary.wait_for("mesh is up: 1", SOON).unwrap();
        aux.wait_for("primary is up", SOON).unwrap();
        Self { stage, home, away, primary, aux }
    }

    /// The end of a connection on `from`, and what arrives of it at the other's service.
    fn connect(&self, from: &Runner, process: &Process, to: &Runner) -> (TcpStream, TcpStream) {
        let service = to.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap()).unwrap();
        let client = connect(from, forwarded(process, PORT));
        (client, service.accept().unwrap().0)
    }

    fn leave(mut self) {
        let mut command = self.home.command(binary().unwrap());
        command.arg("leave").env("MESH_CONTROL", self.stage.control(&self.home));
        assert!(command.status().unwrap().success());
        assert_ends(&mut self.primary, 0);
        assert_ends(&mut self.aux, 0);
    }
}

/// The port of this machine that it says leads to `port` of the peer.
fn forwarded(process: &Process, port: u16) -> u16 {
    let (said, end) = (process.output(), format!(" leads to port {port} of "));
    let line = said.lines().find(|line| line.contains(&end)).unwrap();
    line.split(&end).next().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

fn connect(from: &Runner, port: u16) -> TcpStream {
    let stream = from.enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()).unwrap();
    stream.set_read_timeout(Some(TRANSFER)).unwrap();
    stream.set_write_timeout(Some(TRANSFER)).unwrap();
    stream
}

/// How a connection ends of which nothing more is to be read.
fn end(stream: &mut TcpStream) -> ErrorKind {
    stream.read_exact(&mut [0; 1]).expect_err("nothing is left to read").kind()
}

/// Says so many bytes and then that they are all; hears the other's to their end. Digests of both.
fn exchange(mut stream: TcpStream, seed: u64) -> [Vec<u8>; 2] {
    let mut speaker = stream.try_clone().unwrap();
    let speaking = thread::spawn(move || {
        let mut data = vec![0; BULK];
        SmallRng::seed_from_u64(seed).fill_bytes(&mut data);
        speaker.write_all(&data).unwrap();
        speaker.shutdown(Shutdown::Write).unwrap();
        Sha256::digest(&data).to_vec()
    });
    let mut heard = Sha256::new();
    assert_eq!(io::copy(&mut stream, &mut heard).unwrap(), BULK as u64);
    [speaking.join().unwrap(), heard.finalize().to_vec()]
}

/// Both ways at once, over a forward of each side.
fn passes_bulk(name: &str, of_primary: &[&str], of_aux: &[&str]) {
    let pair = Pair::new(name, of_primary, of_aux);
    let connections =
        [pair.connect(&pair.home, &pair.primary, &pair.away), pair.connect(&pair.away, &pair.aux, &pair.home)];
    for (client, server) in connections {
        let serving = thread::spawn(move || exchange(server, 2));
        let [said, heard] = exchange(client, 1);
        assert_eq!(serving.join().unwrap(), [heard, said], "every byte, in its order");
    }
    let mut refused = connect(&pair.away, forwarded(&pair.aux, 81));
    assert_eq!(end(&mut refused), ErrorKind::ConnectionReset, "nobody exposes it");
    pair.leave();
}

#[test]
fn forwards_and_exposed_ports_pass_everything_without_a_device() {
    passes_bulk("bulk-neither", NO_TUN, NO_TUN);
}

#[test]
fn forwards_and_exposed_ports_are_the_same_with_a_device_on_one_side() {
    passes_bulk("bulk-one", &[], NO_TUN);
}

#[test]
fn a_kernel_with_a_device_reaches_what_a_machine_without_exposes_and_its_echo() {
    let pair = Pair::new("kernel", &[], NO_TUN);
    let service = pair.away.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap()).unwrap();
    let reach = |port| pair.home.enter(|| TcpStream::connect(("10.77.0.2", port))).unwrap();
    let mut client = reach(PORT).unwrap();
    client.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    service.accept().unwrap().0.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    assert_eq!(reach(PORT + 1).expect_err("nobody exposes it").kind(), ErrorKind::ConnectionRefused);
    let ping = pair.home.command("ping").args(["-q", "-c", "2", "-W", "5", "10.77.0.2"]).output().unwrap();
    assert!(ping.status.success(), "{ping:?}");
    pair.leave();
}

#[test]
fn forwards_and_exposed_ports_are_the_same_with_a_device_on_both() {
    passes_bulk("bulk-both", &[], &[]);
}

#[test]
fn a_mesh_that_is_killed_leaves_no_client_with_half_that_looks_whole() {
    for (name, options) in [("killed-without", NO_TUN), ("killed-with", &[][..])] {
        let pair = Pair::new(name, options, options);
        let (mut client, mut server) = pair.connect(&pair.home, &pair.primary, &pair.away);
        server.write_all(b"half").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        pair.primary.signal(Signal::SIGKILL).unwrap();
        assert_eq!(end(&mut client), ErrorKind::ConnectionReset);
    }
}

/// A client that only listens learns that its peer's process was replaced as one that speaks.
#[test]
fn a_peer_that_dies_and_is_started_again_resets_the_client() {
    for (name, speaks) in [("dies-heard", false), ("dies-spoken-to", true)] {
        let pair = Pair::new(name, NO_TUN, NO_TUN);
        let (mut client, mut server) = pair.connect(&pair.home, &pair.primary, &pair.away);
        let (sender, receiver) = if speaks { (&mut client, &mut server) } else { (&mut server, &mut client) };
        sender.write_all(&[7; 100_000]).unwrap();
        receiver.read_exact(&mut [0; 100_000]).unwrap();
        pair.aux.signal(Signal::SIGKILL).unwrap();
        if speaks {
            client.write_all(&[7; 100_000]).unwrap();
        }
        let _again = pair.stage.mesh(&pair.away, &[&["aux", "--index", "0"], NO_TUN].concat()).unwrap();
        assert_eq!(end(&mut client), ErrorKind::ConnectionReset);
    }
}
