//! The distributed build with Debian's real distcc, distccd and compilers, on loopback addresses. Networks, NATs and tunnels are
//! not here.

#![expect(clippy::disallowed_methods, reason = "a test reads the environment that it runs in")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mesh::exit::Exit;
use mesh::offload::distccd::{Config, Distccd, Event, PORT, STATS_PORT, search_path};
use mesh::offload::environment::{Environment, Layout};
use mesh::offload::hosts::{Aux, Hosts};
use mesh::offload::{hosts_file, links, processes, stats};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc;

const MESH: &str = env!("CARGO_BIN_EXE_mesh");
const DEADLINE: Duration = Duration::from_secs(20);

const SOURCE: &str = "#include <stdio.h>\n#include \"a.h\"\nint twice(int x) { int unused; return 2 * x + A; }\n\
                      int main(void) { printf(\"%d\\n\", twice(20)); return 0; }\n";

// --- what a compile gives

#[tokio::test]
async fn an_object_and_its_dependencies_made_by_distccd_are_those_made_here() {
    let run = Run::new([127, 0, 70, 1]);
    let aux = run.distccd().await;
    let compilers: Vec<_> = ["cc", "gcc", "g++", "clang", "clang++"].into_iter().filter(|name| run.has(name)).collect();
    let lines = [
        "-MMD -c sub/a.c -o sub/a.x.o",
        "-MD -MF sub/q.d -c sub/a.c -o sub/a.o",
        "-MMD -MP -c sub/a.c -g -O2",
        "-c sub/a.c -MD -MT t -oa.o",
    ];
    for (compiler, line) in compilers.iter().flat_map(|compiler| lines.map(|line| (compiler, line))) {
        let line = if compiler.ends_with("++") { line.replace("a.c ", "a.cc ") } else { line.to_owned() };
        let args: Vec<_> = line.split(' ').chain(["-Wall"]).collect();
        let there = run.link(compiler, &args);
        let made = run.take_outputs();
        let here = run.plain(compiler, &args);
        assert_eq!(without_quoted_source(&there), without_quoted_source(&here), "{compiler} {line}");
        assert!(there.status.success() && !there.stderr.is_empty(), "{compiler} {line} warns");
        assert!(!made.is_empty() && made == run.take_outputs(), "{compiler} {line}: other files");
    }
    assert_eq!(stats::fetch(aux.stats).await.unwrap().jobs, (compilers.len() * lines.len()) as u64);
    aux.stop().await;
}

#[tokio::test]
async fn what_does_not_travel_or_fails_gives_the_code_and_output_of_the_plain_compiler() {
    let run = Run::new([127, 0, 70, 2]);
    let aux = run.distccd().await;
    run.write("broken.c", "#include <stdio.h>\nint f( {\n");
    run.write("warns.c", "int f(void) { return g(); }\n");
    run.write("missing_header.c", "#include <no/such/header.h>\n");
    run.plain("cc", &["-c", "a.c", "-o", "a.o"]);
    for args in [
        &["--version"][..],
        &["a.o", "-o", "prog"],
        &["-E", "a.c"],
        &["-M", "a.c"],
        &["-c", "broken.c"],
        &["-Werror", "-c", "warns.c"],
        &["-c", "gone.c"],
        &["-c", "a.c", "--no-such-option"],
        &["-c", "missing_header.c"],
        &[],
        &["-x", "c", "-c", "-", "-o", "stdin.o"],
    ] {
        for compiler in ["cc", run.layout.links.join("gcc").to_str().unwrap()] {
            let plain = Path::new(compiler).file_name().and_then(OsStr::to_str).unwrap();
            assert_eq!(seen(&run.link(compiler, args)), seen(&run.plain(plain, args)), "{compiler} {args:?}");
        }
    }
    let prog = Command::new(run.work().join("prog")).output().unwrap();
    assert_eq!(prog.stdout, b"41\n");
    aux.stop().await;
}

#[test]
fn a_signal_that_ends_a_job_elsewhere_ends_distcc_and_then_the_link() {
    let run = Run::new([127, 0, 70, 3]);
    let frozen = TcpListener::bind((run.address, PORT)).unwrap();
    let mut child = run.command("cc", &["-c", "a.c"]).spawn().unwrap();
    let (_connection, _) = frozen.accept().unwrap();
    let link = Pid::from_raw(child.id() as i32);
    let below = processes::descendants(link);
    assert!(!below.is_empty(), "distcc waits below the link");
    kill(link, Signal::SIGTERM).unwrap();
    wait_until("the link has ended", || child.try_wait().unwrap().is_some());
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGTERM as i32));
    wait_until("a preprocessor that was still at work has ended too", || !below.iter().any(|&pid| lives(pid)));
    assert!(!run.work().join("a.o").exists(), "nothing comes late");
}

// --- who compiles

#[tokio::test]
async fn the_next_compile_follows_the_hosts_file() {
    let run = Run::new([127, 0, 70, 4]);
    let aux = run.distccd().await;
    for (hosts, jobs) in [(run.hosts(0), 0), (run.hosts(2), 1), (run.hosts(0), 1), (run.hosts(2), 2)] {
        hosts_file::write(&run.layout.hosts_file, &hosts).unwrap();
        assert!(run.link("cc", &["-c", "a.c"]).status.success());
        assert_eq!(stats::fetch(aux.stats).await.unwrap().jobs, jobs);
    }
    fs::remove_file(&run.layout.hosts_file).unwrap();
    assert!(run.link("cc", &["-c", "a.c"]).status.success(), "no hosts file");
    assert_eq!(stats::fetch(aux.stats).await.unwrap().jobs, 2);
    aux.stop().await;
}

#[test]
fn a_dead_host_or_an_unusable_folder_for_locks_costs_no_build() {
    let run = Run::new([127, 0, 70, 5]);
    let here = run.plain("cc", &["-c", "a.c"]);
    let object = run.object("a.o");
    for folder in [run.layout.distcc_dir.clone(), "/proc/nowhere".into()] {
        run.remove("a.o");
        let there = run.command("cc", &["-c", "a.c"]).env("DISTCC_DIR", folder).output().unwrap();
        assert_eq!(seen(&there), seen(&here));
        assert!(object == run.object("a.o"));
    }
}

#[test]
fn without_distcc_the_link_is_the_compiler() {
    let run = Run::new([127, 0, 70, 6]);
    let bare = run.dir.path().join("bare");
    fs::create_dir(&bare).unwrap();
    for tool in ["cc", "as", "ld"] {
        std::os::unix::fs::symlink(which(tool), bare.join(tool)).unwrap();
    }
    let path = format!("{}:{}", run.layout.links.display(), bare.display());
    let output = run.command("cc", &["-c", "a.c"]).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

// --- the daemon

#[tokio::test]
async fn distccd_listens_on_the_overlay_address_only_and_admits_the_prefix_only() {
    let run = Run::new([127, 0, 70, 8]);
    let mut config = run.config();
    let other = Ipv4Addr::new(127, 0, 71, 8);
    config.allow = "127.0.0.0/24".to_owned();
    let (events, _) = mpsc::unbounded_channel();
    let aux = Distccd::start(config, events).await.unwrap();
    for port in [PORT, STATS_PORT] {
        TcpListener::bind((other, port)).expect("not bound to every address");
    }
    assert!(stats::fetch(aux.stats).await.is_ok());
    let outside = tokio::net::TcpSocket::new_v4().unwrap();
    outside.bind((other, 0).into()).unwrap();
    let mut outside = outside.connect(aux.stats).await.unwrap();
    let _ = tokio::io::AsyncWriteExt::write_all(&mut outside, b"GET / HTTP/1.0\r\n\r\n").await;
    let mut page = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut outside, &mut page).await;
    assert_eq!(page, b"", "closed without a word");
    aux.stop().await;
}

#[tokio::test]
async fn a_killed_distccd_is_reported_and_started_again() {
    let run = Run::new([127, 0, 70, 9]);
    let (events, mut told) = mpsc::unbounded_channel();
    let aux = Distccd::start(run.config(), events).await.unwrap();
    kill(run.daemon(), Signal::SIGKILL).unwrap();
    let Some(Event::Died { status }) = next(&mut told).await else { panic!("first its death") };
    assert_eq!(status.code(), Some(128 + 9));
    assert_eq!(next(&mut told).await, Some(Event::Restarted { count: 1 }));
    assert!(run.link("cc", &["-c", "a.c"]).status.success());
    assert_eq!(stats::fetch(aux.stats).await.unwrap().jobs, 1);

    kill(run.guard().unwrap(), Signal::SIGKILL).unwrap();
    let Some(Event::Died { status }) = next(&mut told).await else { panic!("its guard's death too") };
    assert_eq!(status.code(), None);
    assert_eq!(next(&mut told).await, Some(Event::Restarted { count: 2 }));
    aux.stop().await;
    assert!(told.recv().await.is_none(), "a stop is no death");
}

#[tokio::test]
async fn a_distccd_that_dies_five_times_in_a_minute_stays_down_and_that_is_said() {
    let run = Run::new([127, 0, 70, 15]);
    let (events, mut told) = mpsc::unbounded_channel();
    let aux = Distccd::start(run.config(), events).await.unwrap();
    for count in 1..=4 {
        kill(run.daemon(), Signal::SIGKILL).unwrap();
        assert!(matches!(next(&mut told).await, Some(Event::Died { .. })));
        assert_eq!(next(&mut told).await, Some(Event::Restarted { count }));
    }
    kill(run.daemon(), Signal::SIGKILL).unwrap();
    assert!(matches!(next(&mut told).await, Some(Event::Died { .. })));
    assert_eq!(next(&mut told).await, Some(Event::GaveUp { deaths: 5 }));
    assert_eq!(run.guard(), None);
    aux.stop().await;
}

#[tokio::test]
async fn stopping_ends_the_compiles_too_within_a_second() {
    let run = Run::new([127, 0, 70, 10]);
    let aux = run.distccd().await;
    let mut client = Guarded(run.endless_compile());
    let below = run.compiling().await;
    let start = Instant::now();
    aux.stop().await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(below.into_iter().filter(|&pid| lives(pid)).collect::<Vec<_>>(), []);
    drop(client.0.stdin.take());
    client.wait_timeout();
}

#[tokio::test]
async fn a_dropped_handle_takes_distccd_along() {
    let run = Run::new([127, 0, 70, 11]);
    let aux = run.distccd().await;
    let guard = run.guard().expect("it runs");
    drop(aux);
    let start = Instant::now();
    while lives(guard) {
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_missing_package_is_named() {
    let run = Run::new([127, 0, 70, 12]);
    let config = Config { path: "/nowhere".into(), ..run.config() };
    let failure = Distccd::start(config, mpsc::unbounded_channel().0).await.expect_err("no distccd there");
    assert_eq!((failure.exit, failure.code), (Exit::NoTool, "M701"));
    assert!(failure.hint.contains("`distcc`"), "{}", failure.hint);
}

#[tokio::test]
async fn a_taken_port_and_a_foreign_address_are_named() {
    let run = Run::new([127, 0, 70, 13]);
    for port in [PORT, STATS_PORT] {
        let _taken = TcpListener::bind((run.address, port)).unwrap();
        let failure = Distccd::start(run.config(), mpsc::unbounded_channel().0).await.expect_err("taken");
        assert_eq!((failure.exit, failure.code), (Exit::InUse, "M702"));
        assert!(failure.what.contains(&format!("127.0.70.13:{port}")), "{failure}");
    }
    let config = Config { listen: Ipv4Addr::new(203, 0, 113, 1), ..run.config() };
    let failure = Distccd::start(config, mpsc::unbounded_channel().0).await.expect_err("not ours");
    assert!(failure.hint.contains("overlay address"), "{}", failure.hint);
}

#[tokio::test]
async fn a_distccd_that_refuses_its_options_says_why() {
    let run = Run::new([127, 0, 70, 14]);
    let config = Config { allow: "nonsense".to_owned(), ..run.config() };
    let failure = Distccd::start(config, mpsc::unbounded_channel().0).await.expect_err("no prefix");
    assert_eq!(failure.code, "M703");
    assert!(failure.what.contains("nonsense"), "{failure}");
}

// --- the guard

#[test]
fn killing_the_parent_leaves_nothing_of_what_is_guarded() {
    let dir = tempfile::tempdir().unwrap();
    let stubborn = "trap '' TERM; setsid sh -c \"trap '' TERM; sleep 300; sleep 300\" & sleep 300; sleep 300";
    let parent = format!("cd {}; mkfifo in; {MESH} guard -- sh -c \"$1\" <in & exec 3>in; wait", dir.path().display());
    let mut parent = Command::new("sh").args(["-c", &parent, "sh", stubborn]).spawn().unwrap();
    let pid = Pid::from_raw(parent.id() as i32);
    wait_until("guard, program, its session leader and two sleeps", || processes::descendants(pid).len() == 5);
    let below = processes::descendants(pid);
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_until("all of them are gone", || !below.iter().any(|&pid| lives(pid)));
}

#[test]
fn the_guard_passes_the_exit_code_and_ends_what_was_left() {
    let mut guard = guard("(setsid sleep 300 &) ; exit 7");
    assert_eq!(guard.wait_timeout().code(), Some(7));
    assert_eq!(guard_code("kill -KILL $$"), Some(128 + 9));
    assert_eq!(Command::new(MESH).args(["guard", "--", "/nowhere"]).output().unwrap().status.code(), Some(127));
    assert_eq!(Command::new(MESH).args(["guard"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn a_signal_to_the_guard_ends_the_program_first() {
    let mut guard = guard("trap 'exit 3' TERM; while :; do sleep 0.05; done");
    let pid = Pid::from_raw(guard.0.id() as i32);
    wait_until("the program sleeps, so its trap is set", || processes::descendants(pid).len() == 2);
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(guard.wait_timeout().code(), Some(3));
}

// --- helpers

struct Guarded(Child);

impl Guarded {
    fn wait_timeout(&mut self) -> std::process::ExitStatus {
        wait_until("the guard has ended", || self.0.try_wait().unwrap().is_some());
        self.0.try_wait().unwrap().unwrap()
    }
}

fn guard(script: &str) -> Guarded {
    Guarded(Command::new(MESH).args(["guard", "--", "sh", "-c", script]).stdin(Stdio::piped()).spawn().unwrap())
}

fn guard_code(script: &str) -> Option<i32> {
    guard(script).wait_timeout().code()
}

struct Run {
    dir: tempfile::TempDir,
    address: Ipv4Addr,
    layout: Layout,
}

impl Run {
    /// A run whose one aux is `address`, with a source to compile.
    fn new(address: [u8; 4]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let layout =
            Layout { links: at("bin"), hosts_file: at("hosts"), distcc_dir: at("distcc"), control: at("control") };
        fs::create_dir_all(at("work/sub")).unwrap();
        fs::create_dir(&layout.distcc_dir).unwrap();
        links::create(&layout.links, Path::new(MESH), &std::env::var_os("PATH").unwrap()).unwrap();
        let run = Self { dir, address: address.into(), layout };
        hosts_file::write(&run.layout.hosts_file, &run.hosts(2)).unwrap();
        for folder in ["", "sub/"] {
            run.write(&format!("{folder}a.h"), "#define A 1\n");
            run.write(&format!("{folder}a.c"), SOURCE);
            run.write(&format!("{folder}a.cc"), SOURCE);
        }
        run
    }

    fn hosts(&self, slots: u16) -> Hosts {
        Hosts::new(1, [Aux { address: SocketAddrV4::new(self.address, PORT), slots }])
    }

    fn config(&self) -> Config {
        Config {
            guard: MESH.into(),
            listen: self.address,
            port: PORT,
            stats_port: STATS_PORT,
            allow: "127.0.0.0/8".to_owned(),
            slots: 2,
            log: self.dir.path().join("distccd.log"),
            path: search_path(std::env::var_os("PATH").as_deref()),
        }
    }

    async fn distccd(&self) -> Distccd {
        Distccd::start(self.config(), mpsc::unbounded_channel().0).await.unwrap()
    }

    fn link(&self, compiler: &str, args: &[&str]) -> Output {
        self.command(compiler, args).output().unwrap()
    }

    fn command(&self, compiler: &str, args: &[&str]) -> Command {
        let environment = Environment::new(&self.layout, &self.hosts(2), std::env::var_os("PATH").as_deref());
        let mut command = Command::new("/usr/bin/env");
        command.arg(compiler).args(args).envs(environment.variables()).current_dir(self.work()).stdin(Stdio::null());
        command
    }

    fn plain(&self, compiler: &str, args: &[&str]) -> Output {
        Command::new("/usr/bin/env")
            .arg(compiler)
            .args(args)
            .current_dir(self.work())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn has(&self, compiler: &str) -> bool {
        self.layout.links.join(compiler).is_symlink()
    }

    /// A C++ source that keeps a compiler busy for minutes, guarded: a link answers the end of its try with a compile here.
    fn endless_compile(&self) -> Child {
        let source = "constexpr long f() { long s = 0; for (long i = 0; i < 4000000000; i++) s += i & 1; return s; }\n\
                      static_assert(f() > 0);\n";
        self.write("endless.cc", source);
        let limits = ["-fconstexpr-ops-limit=1000000000000", "-fconstexpr-loop-limit=2147483647"];
        let plain = self.command("g++", &["-std=c++17", limits[0], limits[1], "-c", "endless.cc"]);
        let mut guarded = Command::new(MESH);
        guarded.args(["guard", "--"]).arg(plain.get_program()).args(plain.get_args()).current_dir(self.work());
        guarded
            .envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// All below the guard, once a compiler proper is among them.
    async fn compiling(&self) -> Vec<Pid> {
        let guard = self.guard().expect("it runs");
        let start = Instant::now();
        loop {
            let below = processes::descendants(guard);
            if below.iter().any(|&pid| command_line(pid).is_some_and(|line| line.contains("cc1plus"))) {
                return below;
            }
            assert!(start.elapsed() < DEADLINE, "no compile began");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The guard of this run's distccd, by its listen address.
    fn guard(&self) -> Option<Pid> {
        let ours = format!("\0--listen\0{}\0", self.address);
        let guards = processes::children(Pid::this());
        guards.into_iter().find(|&pid| command_line(pid).is_some_and(|line| line.contains(&ours)))
    }

    fn daemon(&self) -> Pid {
        processes::children(self.guard().expect("it runs"))[0]
    }

    fn object(&self, name: &str) -> Vec<u8> {
        let stripped = self.dir.path().join("stripped.o");
        let status =
            Command::new("objcopy").arg("--strip-debug").args([&self.work().join(name), &stripped]).status().unwrap();
        assert!(status.success());
        fs::read(stripped).unwrap()
    }

    /// All objects (without debug information, which preprocessing changes) and dependency files, which then are removed.
    fn take_outputs(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut outputs = BTreeMap::new();
        for folder in [self.work(), self.work().join("sub")] {
            for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                let name = file.strip_prefix(self.work()).unwrap().to_path_buf();
                let content = match file.extension().and_then(OsStr::to_str) {
                    Some("o") => self.object(name.to_str().unwrap()),
                    Some("d") => fs::read(&file).unwrap(),
                    _ => continue,
                };
                fs::remove_file(file).unwrap();
                outputs.insert(name, content);
            }
        }
        outputs
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn write(&self, name: &str, text: &str) {
        fs::File::create(self.work().join(name)).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.work().join(name)).unwrap();
    }
}

fn seen(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Compilers quote the source under a warning: distccd has only what the preprocessor made of it.
fn without_quoted_source(output: &Output) -> (Option<i32>, String, Vec<String>) {
    let (code, out, err) = seen(output);
    let err = err.lines().filter(|line| line.contains("warning: ")).map(str::to_owned).collect();
    (code, out, err)
}

async fn next(told: &mut mpsc::UnboundedReceiver<Event>) -> Option<Event> {
    tokio::time::timeout(DEADLINE, told.recv()).await.expect("an event before the deadline")
}

fn which(tool: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|file| file.is_file()).unwrap()
}

fn command_line(pid: Pid) -> Option<String> {
    fs::read(format!("/proc/{pid}/cmdline")).ok().map(|line| String::from_utf8_lossy(&line).into_owned())
}

/// A zombie that nobody has waited for yet is dead.
fn lives(pid: Pid) -> bool {
    command_line(pid).is_some_and(|line| !line.is_empty())
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
