//! What one runner stores, others find: real `mesh` processes behind NATs, and clients that nobody here wrote. Runners freeze, die and leave meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use netns_tests::lab::wait_until;
use netns_tests::stage::{Crew, Member};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use crate::builds::{Bazel, Moon};

const MEGABYTE: usize = 1_000_000;
const SOON: Duration = Duration::from_secs(40);

/// Members by what `mesh` takes more.
const TUN: &[&str] = &[];
const NO_TUN: &[&str] = &["--no-tun"];

/// Members by their place: who stores first, and another.
const PRIMARY: usize = 0;
const WRITER: usize = 1;
const READER: usize = 2;

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

#[track_caller]
fn said(mut command: Command) -> String {
    let output = command.output().unwrap();
    let told = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{command:?}: {} {told:?}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Compiles `source`, and forgets what this disk has of it. The object, how many were found remotely and what failed.
fn ccache(member: &Member, layout: &str, source: &Path) -> (Vec<u8>, u64, u64) {
    let (dir, object) = (member.folder().join("ccache"), member.folder().join("object.o"));
    let storage = format!("{}|layout={layout}", member.variable("CCACHE_REMOTE_STORAGE").unwrap());
    let run = |args: &[&str]| {
        let mut command = member.plain("ccache");
        command.args(args).env("CCACHE_DIR", &dir).env("CCACHE_REMOTE_STORAGE", &storage);
        said(command)
    };
    run(&["gcc", "-O2", "-c", source.to_str().unwrap(), "-o", object.to_str().unwrap()]);
    let stats = run(&["--print-stats"]);
    std::fs::remove_dir_all(&dir).unwrap();
    let count = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        line.and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    (std::fs::read(&object).unwrap(), count("remote_storage_hit"), count("remote_storage_error"))
}

/// `work` finds there what others stored. Some of it may be at home there, and so need nobody's answer.
fn finds<T>(member: &Member, work: impl FnOnce() -> T) -> T {
    let before = member.stats().unwrap();
    let done = work();
    let stats = member.stats().unwrap();
    let is_same = |name: &str| stats[name] == before[name];
    assert!(!is_same("hits") && is_same("misses"), "{}: {before} {stats}", member.runner.name());
    assert_eq!((&stats["wrong"], &stats["late"]), (&0.into(), &before["late"]), "{}", member.runner.name());
    done
}

/// How many look-ups of all were answered by others.
fn peer_hits(crew: &Crew) -> u64 {
    crew.members.iter().map(|member| member.count("peer_hits").unwrap()).sum()
}

fn ccache_is_shared(crew: &Crew) {
    for layout in ["subdirs", "flat", "bazel"] {
        let source = crew.stage.folder.path().join(format!("{layout}.c"));
        std::fs::write(&source, format!("int {layout}(void) {{ return 7; }}\n")).unwrap();
        let (stored, hits, errors) = ccache(&crew.members[WRITER], layout, &source);
        assert_eq!((hits, errors), (0, 0), "{layout}: nothing is there yet");
        for reader in [READER, PRIMARY] {
            crew.settle(WRITER, reader).unwrap();
            let member = &crew.members[reader];
            let (found, hits, errors) = finds(member, || ccache(member, layout, &source));
            assert_eq!((hits, errors, found == stored), (1, 0, true), "{layout}: {}", member.runner.name());
        }
    }
}

/// Its server runs beside a member, on a socket of its own, and ends with this.
struct Sccache<'a>(&'a Member);

impl Sccache<'_> {
    fn command(&self) -> Command {
        let mut command = self.0.command("sccache").unwrap();
        command.env("SCCACHE_SERVER_UDS", self.0.folder().join("sccache.sock"));
        command
    }

    fn run(&self, args: &[&str]) -> String {
        let mut command = self.command();
        command.args(args);
        said(command)
    }

    /// The object, and how many look-ups of all were hits and how many results were stored.
    fn compile(&self, source: &Path) -> (Vec<u8>, u64, u64) {
        let object = self.0.folder().join("hello.o");
        self.run(&["gcc", "-O2", "-c", source.to_str().unwrap(), "-o", object.to_str().unwrap()]);
        let stats = self.run(&["--show-stats", "--stats-format", "json"]);
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        let hits = stats["stats"]["cache_hits"]["counts"]["C/C++"].as_u64().unwrap_or_default();
        (std::fs::read(object).unwrap(), hits, stats["stats"]["cache_writes"].as_u64().unwrap())
    }
}

impl Drop for Sccache<'_> {
    fn drop(&mut self) {
        let mut command = self.0.plain("sccache");
        command.arg("--stop-server").env("SCCACHE_SERVER_UDS", self.0.folder().join("sccache.sock"));
        let _ = command.output();
    }
}

fn sccache_is_shared(crew: &Crew) {
    let source = crew.stage.folder.path().join("hello.c");
    std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
    let (stored, hits, writes) = Sccache(&crew.members[WRITER]).compile(&source);
    assert_eq!((hits, writes), (0, 1));
    for reader in [READER, PRIMARY] {
        crew.settle(WRITER, reader).unwrap();
        let member = &crew.members[reader];
        let (found, hits, writes) = finds(member, || Sccache(member).compile(&source));
        assert_eq!((hits, writes, found == stored), (1, 0, true), "{}", member.runner.name());
    }
}

/// What `curl` gets or puts there: the status and the body. It is answered within half a minute.
fn curl(member: &Member, door: &Door, path: &str, args: &[&str]) -> (String, Vec<u8>) {
    let Output { status, stdout, .. } = member
        .plain("curl")
        .args(["--silent", "--max-time", "30", "--write-out", "\n%{http_code}", "--header", &door.header])
        .args(args)
        .arg(format!("{}{path}", door.url))
        .output()
        .unwrap();
    assert!(status.success(), "curl {path} {args:?} on {}: {status}", member.runner.name());
    let end = stdout.iter().rposition(|byte| *byte == b'\n').unwrap();
    (String::from_utf8_lossy(&stdout[end + 1..]).into_owned(), stdout[..end].to_vec())
}

/// Where a member's cache answers, and what it asks for.
struct Door {
    url: String,
    header: String,
}

fn door(member: &Member) -> Door {
    let env: BTreeMap<_, _> = member.env().unwrap().into_iter().collect();
    Door { url: env["MESH_CACHE_URL"].clone(), header: format!("Authorization: Bearer {}", env["MESH_CACHE_TOKEN"]) }
}

fn bazel_over_http_is_shared(crew: &Crew) {
    let file = crew.stage.folder.path().join("content");
    let hash = "434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53";
    std::fs::write(&file, "content\n").unwrap();
    let upload = ["--upload-file", file.to_str().unwrap()];
    let at = |member: &Member| Door { url: member.variable("MESH_BAZEL_CACHE").unwrap(), header: "X: y".into() };
    for path in [format!("/ac/{hash}"), format!("/cas/{hash}"), format!("/of/us/ac/{hash}")] {
        let writer = &crew.members[WRITER];
        assert_eq!(curl(writer, &at(writer), &path, &upload).0, "201", "{path}");
        for reader in [READER, PRIMARY] {
            crew.settle(WRITER, reader).unwrap();
            let member = &crew.members[reader];
            assert_eq!(curl(member, &at(member), &path, &["--head"]).0, "200", "{path}");
            let (code, found) = finds(member, || curl(member, &at(member), &path, &[]));
            assert_eq!((&*code, &*found), ("200", &b"content\n"[..]), "{path}");
        }
    }
}

#[test]
fn what_compilers_store_on_one_runner_others_find() {
    let crew = Crew::start("compilers", &[TUN; 4]).unwrap();
    ccache_is_shared(&crew);
    sccache_is_shared(&crew);
    bazel_over_http_is_shared(&crew);
    assert!(peer_hits(&crew) > 0);
}

#[test]
fn runners_without_a_device_share_with_those_that_have_one() {
    let crew = Crew::start("without", &[TUN, NO_TUN, TUN, NO_TUN]).unwrap();
    ccache_is_shared(&crew);
    bazel_over_http_is_shared(&crew);
    assert!(peer_hits(&crew) > 0);
}

#[test]
fn what_moon_builds_on_one_runner_others_find() {
    let crew = Crew::start("moon", &[TUN; 4]).unwrap();
    let workspace = crew.stage.folder.path().join("workspace");
    // The file is a part of what it knows results by, so it is the same everywhere.
    let moon = Moon { folder: &workspace, host: String::new(), compression: "zstd" };
    moon.prepare();
    let build = |at: usize| {
        let mut command = crew.members[at].plain("moon");
        command.env("MOON_REMOTE_HOST", crew.members[at].variable("MESH_REMOTE_CACHE").unwrap());
        moon.build_by(command, &crew.members[at].variable("MESH_CACHE_TOKEN").unwrap())
    };
    let (first, built) = build(WRITER);
    assert!(!first.text.contains("cached"), "{}", first.text);
    for reader in [READER, PRIMARY] {
        crew.settle(WRITER, reader).unwrap();
        let (again, found) = finds(&crew.members[reader], || build(reader));
        assert!(again.text.contains("cached from remote") && !again.text.contains("WARN"), "{}", again.text);
        assert!(found == built && found["out.txt"] == b"HELLO\n" && found["big.bin"].len() > 6_000_000);
    }
    assert!(peer_hits(&crew) > 0);
}

#[test]
fn what_bazel_builds_on_one_runner_another_finds() {
    let crew = Crew::start("bazel", &[TUN; 4]).unwrap();
    let workspace = crew.stage.folder.path().join("workspace");
    let build = |at: usize, is_first: bool| {
        let (member, folder) = (&crew.members[at], &*workspace);
        let bazel = Bazel { folder, host: member.variable("MESH_REMOTE_CACHE").unwrap(), instance: "" };
        if is_first {
            bazel.prepare();
        }
        bazel.build_by(member.plain("bazel-4"), &at.to_string(), &member.variable("MESH_CACHE_TOKEN").unwrap())
    };
    let (first, built) = build(WRITER, true);
    assert!(first.code == Some(0) && !first.text.contains("remote cache hit"), "{}", first.text);
    crew.settle(WRITER, READER).unwrap();
    let (again, found) = finds(&crew.members[READER], || build(READER, false));
    assert!(again.code == Some(0) && again.text.contains(" 23 remote cache hit"), "{}", again.text);
    assert!(!again.text.contains(" local") && !again.text.contains("WARNING: "), "{}", again.text);
    assert!(found == built && found["use.txt"] == b"f1\nf2\nf3\nHELLO\n");
    assert!(peer_hits(&crew) > 0);
}

#[track_caller]
fn put(crew: &Crew, at: usize, name: &str, bytes: &[u8]) {
    let file = crew.members[at].folder().join("to-put");
    std::fs::write(&file, bytes).unwrap();
    let put = crew.members[at].cache(&["put", name, file.to_str().unwrap()]).unwrap();
    assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
}

/// What is there under a name, found at once.
#[track_caller]
fn got(member: &Member, name: &str) -> Vec<u8> {
    let get = member.cache(&["get", name]).unwrap();
    let told = String::from_utf8_lossy(&get.stderr);
    assert!(get.status.success(), "{}: {told} {:?}", member.runner.name(), member.stats());
    get.stdout
}

#[test]
fn a_large_file_reaches_everyone_once_and_outlives_who_put_it() {
    let mut crew = Crew::start("large", &[TUN; 5]).unwrap();
    let others = [PRIMARY, 2, 3, 4];
    let (large, other) = (noise(50 * MEGABYTE, 1), noise(20 * MEGABYTE, 2));
    put(&crew, WRITER, "large", &large);
    put(&crew, WRITER, "other", &other);

    others.iter().for_each(|reader| crew.settle(WRITER, *reader).unwrap());
    let before: u64 = others.iter().map(|at| crew.members[*at].count("fetched_bytes").unwrap()).sum();
    std::thread::scope(|scope| {
        let getting: Vec<_> =
            others.map(|at| &crew.members[at]).map(|member| scope.spawn(|| got(member, "large"))).into();
        assert!(getting.into_iter().all(|getting| getting.join().unwrap() == large));
    });
    let fetched: u64 = others.iter().map(|at| crew.members[*at].count("fetched_bytes").unwrap()).sum();
    assert_eq!(fetched - before, 4 * large.len() as u64);

    assert!(got(&crew.members[READER], "other") == other);
    [PRIMARY, 3, 4].iter().for_each(|reader| crew.settle(READER, *reader).unwrap());
    let killed = crew.members.remove(WRITER);
    std::thread::scope(|scope| {
        let members = [PRIMARY, 2, 3].map(|at| &crew.members[at]);
        let getting: Vec<_> = members.map(|member| scope.spawn(|| got(member, "other"))).into();
        killed.process.signal(Signal::SIGKILL).unwrap();
        assert!(getting.into_iter().all(|getting| getting.join().unwrap() == other));
    });
}

#[test]
fn frozen_runners_hold_up_no_look_up() {
    let crew = Crew::start("frozen", &[TUN, TUN, NO_TUN, TUN]).unwrap();
    let names: Vec<String> = (0..20).map(|at| format!("/webdav/frozen/{at}")).collect();
    let (primary, writer) = (&crew.members[PRIMARY], &crew.members[WRITER]);
    let (near, far) = (door(primary), door(writer));
    for name in &names {
        assert_eq!(curl(writer, &far, name, &["--data-binary", name, "--request", "PUT"]).0, "201");
    }
    crew.settle(WRITER, PRIMARY).unwrap();
    let before = primary.count("late").unwrap();

    crew.members[1..].iter().for_each(|aux| aux.process.signal(Signal::SIGSTOP).unwrap());
    let mut left = vec![];
    for name in &names {
        assert_eq!(curl(primary, &near, &format!("{name}/absent"), &[]).0, "404");
        let (code, body) = curl(primary, &near, name, &[]);
        match &*code {
            "200" => assert_eq!(body, name.as_bytes()),
            _ => assert_eq!((&*code, left.push(name)), ("404", ())),
        }
    }
    let late = primary.count("late").unwrap() - before;
    crew.members[1..].iter().for_each(|aux| aux.process.signal(Signal::SIGCONT).unwrap());

    assert!(late <= 12, "{late} of 40 look-ups waited");
    for name in left {
        let found = || (curl(primary, &near, name, &[]) == ("200".into(), name.as_bytes().into())).then_some(());
        wait_until(SOON, name, found).unwrap();
    }
    assert_eq!(primary.count("wrong").unwrap(), 0);
}

#[test]
fn a_frozen_home_keeps_no_other_from_what_is_new() {
    let crew = Crew::start("news", &[TUN; 4]).unwrap();
    let (writer, reader) = (&crew.members[WRITER], &crew.members[READER]);
    let (here, there) = (door(writer), door(reader));
    crew.members[3].process.signal(Signal::SIGSTOP).unwrap();
    // More than are told to their homes at once.
    let names: Vec<String> = (0..60).map(|at| format!("/webdav/news/{at}")).collect();
    for name in &names {
        assert_eq!(curl(writer, &here, name, &["--data-binary", name, "--request", "PUT"]).0, "201");
    }
    for name in &names {
        let found = || (curl(reader, &there, name, &[]) == ("200".into(), name.as_bytes().into())).then_some(());
        wait_until(SOON, name, found).unwrap();
    }
    assert_eq!(curl(writer, &here, &names[0], &["--request", "DELETE"]).0, "204", "it does not wait either");
}

/// What this member's `round`th name holds: short ones and large ones.
fn content(member: usize, round: usize) -> Vec<u8> {
    noise([300, 5_000, 70_000, 300_000][round % 4], (member * 10_000 + round) as u64)
}

/// Stores names and looks up those of `other` until `is_over`. How many it stored, and how many of the other's it found.
fn load(crew: &Crew, own: usize, other: usize, is_over: &(dyn Fn() -> bool + Sync)) -> (usize, usize) {
    let (member, door) = (&crew.members[own], door(&crew.members[own]));
    let file = member.folder().join("body");
    let (mut stored, mut found) = (0, 0);
    while !is_over() || stored < 20 {
        std::fs::write(&file, content(own, stored)).unwrap();
        let path = format!("/webdav/load/{own}/{stored}");
        let (code, told) = curl(member, &door, &path, &["--upload-file", file.to_str().unwrap()]);
        assert_eq!(code, "201", "{path}: {}", String::from_utf8_lossy(&told));
        for round in [stored, stored.saturating_sub(7)] {
            let (code, body) = curl(member, &door, &format!("/webdav/load/{other}/{round}"), &[]);
            assert!(code == "404" || code == "200" && body == content(other, round), "{code}: {round} of {other}");
            found += usize::from(code == "200");
        }
        stored += 1;
    }
    for round in 0..stored {
        let (code, body) = curl(member, &door, &format!("/webdav/load/{own}/{round}"), &[]);
        assert!(code == "200" && body == content(own, round), "{code}: {round} of {own}");
    }
    (stored, found)
}

#[test]
fn runners_that_die_and_come_again_cost_nothing_but_misses() {
    let mut crew = Crew::start("coming", &[TUN, NO_TUN, TUN, NO_TUN]).unwrap();
    let (mut crashing, others) = (crew.members.pop().unwrap(), 3);
    let over = std::sync::atomic::AtomicBool::new(false);
    let is_over = || over.load(std::sync::atomic::Ordering::Relaxed);
    let counts = std::thread::scope(|scope| {
        let loads = [(1, 2), (2, 1)].map(|(own, other)| {
            let (crew, is_over) = (&crew, &is_over);
            scope.spawn(move || load(crew, own, other, is_over))
        });
        for _ in 0..3 {
            crashing.process.signal(Signal::SIGKILL).unwrap();
            crashing.process.wait(SOON).unwrap();
            crashing.restart(&crew.stage).unwrap();
            let back = crashing.wait_for_peers(others);
            over.store(back.is_err(), std::sync::atomic::Ordering::Relaxed);
            back.unwrap();
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        loads.map(|load| load.join().unwrap())
    });
    assert!(counts.iter().all(|(_, found)| *found > 0), "{counts:?}");
    crew.members.push(crashing);
    assert!(crew.members.iter().all(|member| member.count("wrong").unwrap() == 0));
    finds(&crew.members[3], || {
        let (door, path) = (door(&crew.members[3]), "/webdav/load/1/1");
        assert_eq!(curl(&crew.members[3], &door, path, &[]), ("200".into(), content(1, 1)));
    });
}

#[test]
fn who_leaves_hands_on_what_it_alone_has() {
    let mut crew = Crew::start("leaving", &[TUN, TUN, NO_TUN, TUN]).unwrap();
    for (at, name) in [(WRITER, "asked"), (READER, "signalled")] {
        let large = noise(20 * MEGABYTE, at as u64);
        put(&crew, at, name, &large);
        crew.settle(at, PRIMARY).unwrap();
        let leaver = &mut crew.members[at];
        if at == WRITER {
            assert!(leaver.mesh(&["leave"]).unwrap().status.success());
        } else {
            leaver.process.signal(Signal::SIGTERM).unwrap();
        }
        leaver.process.wait(SOON).unwrap();
        assert!(leaver.process.output().contains("1 large blobs of the cache stay"), "{}", leaver.process.output());
        // Its names get new homes, which takes a moment.
        for reader in [PRIMARY, 3].map(|at| &crew.members[at]) {
            let get = || reader.cache(&["get", name]).ok().filter(|get| get.status.success());
            assert!(wait_until(SOON, name, get).unwrap().stdout == large, "{name} on {}", reader.runner.name());
        }
    }
}

/// Addresses and ports of the runner that take connections.
fn listeners(member: &Member) -> Vec<String> {
    let mut command = member.plain("ss");
    command.args(["--listening", "--tcp", "--numeric", "--no-header"]);
    said(command).lines().filter_map(|line| line.split_whitespace().nth(3)).map(String::from).collect()
}

#[test]
fn nobody_but_the_run_is_answered_and_only_on_the_overlay() {
    let crew = Crew::start("closed", &[TUN, TUN, NO_TUN]).unwrap();
    for (at, own) in [Some("10.77.0.1:8980"), Some("10.77.0.2:8980"), None].into_iter().enumerate() {
        let open: Vec<_> =
            listeners(&crew.members[at]).into_iter().filter(|at| !at.starts_with("127.0.0.1:")).collect();
        assert_eq!(open.iter().map(String::as_str).collect::<Vec<_>>(), Vec::from_iter(own), "{at}");
    }
    for (from, to) in [(WRITER, "10.77.0.1"), (PRIMARY, "10.77.0.2"), (PRIMARY, "10.77.0.3")] {
        let member = &crew.members[from];
        let token = member.variable("MESH_CACHE_TOKEN").unwrap();
        for header in ["X: y".to_owned(), format!("Authorization: Bearer {token}")] {
            // Without a body: who is refused in the middle of one may see no more than that.
            for path in ["/mesh.cache.v1.Peers/Watch", "/google.bytestream.ByteStream/Read", "/", "/webdav/x"] {
                let mut command = member.plain("curl");
                command.args(["--silent", "--max-time", "10", "--http2-prior-knowledge", "--include"]);
                command.args(["--header", "Content-Type: application/grpc", "--header", &header]);
                command.arg(format!("http://{to}:8980{path}"));
                let answer = said(command);
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                assert!(head.contains("grpc-status: 16") && body.is_empty(), "{path} of {to}: {answer}");
            }
        }
    }
}
