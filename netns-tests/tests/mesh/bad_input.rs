//! What a user can get wrong, and what a machine may lack: each ends with its documented code and says what to do. Where only the
//! network or a right is missing, a build that did not insist on aux goes on alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use netns_tests::lab::{Nat, Runner};
use netns_tests::stage::{KEY, Process, Stage, binary};

use crate::common::{SOON, assert_ends, assert_fails, has_line};

/// STUN gives up after three seconds.
const PROMPTLY: Duration = Duration::from_secs(15);

/// An ordinary user, without any capability.
const USER: [&str; 5] = ["setpriv", "--reuid", "65534", "--regid", "65534"];

#[test]
fn flags_and_values_that_make_no_sense_are_named_before_anything_starts() {
    let cases: [(&[&str], &str); 22] = [
        (&[], "Usage"),
        (&["frobnicate"], "frobnicate"),
        (&["primary"], "--aux"),
        (&["primary", "--aux", "1", "--frobnicate"], "--frobnicate"),
        (&["primary", "--aux", "many"], "--aux"),
        (&["primary", "--aux", "1", "--offload", "magic"], "--offload"),
        (&["primary", "--aux", "1", "--join-timeout", "soon"], "--join-timeout"),
        (&["aux"], "--index"),
        (&["aux", "--index", "-1"], "-1"),
        (&["aux", "--index", "70000"], "--index"),
        (&["aux", "--index", "0", "--slots", "0"], "--slots"),
        (&["aux", "--index", "0", "--stun", "stun.example.org"], "HOST:PORT"),
        (&["aux", "--index", "0", "--stun", "300.1.2.3:3478"], "300.1.2.3"),
        (&["aux", "--index", "0", "--stun", "192.0.2.1:0"], "port from 1"),
        (&["aux", "--index", "0", "--listen", "65536"], "--listen"),
        (&["aux", "--index", "0", "--overlay", "10.77.0.0"], "--overlay"),
        (&["aux", "--index", "0", "--overlay", "10.77.0.1/16"], "10.77.0.0/16"),
        (&["aux", "--index", "0", "--overlay", "10.77.0.0/31"], "8 to 29"),
        (&["aux", "--index", "0", "--rendezvous", "ftp:somewhere"], "dir:PATH"),
        (&["aux", "--index", "0", "--tun", "mesh1", "--no-tun"], "--no-tun"),
        (&["aux", "--index", "0", "--forward", "80:primary"], "8080:aux0:80"),
        (&["aux", "--index", "0", "--expose", "0"], "--expose"),
    ];
    for (args, named) in cases {
        let (code, output) = run(args, &[]);
        assert_eq!(code, 2, "{args:?}: {output}");
        assert!(output.contains(named), "{args:?}: {output}");
        assert!(output.contains("--help") || output.contains("Usage"), "{args:?}: {output}");
    }
}

#[test]
fn variables_are_checked_as_flags_are() {
    for (name, value) in
        [("MESH_OVERLAY", "10.77.0.1/16"), ("MESH_STUN", "nowhere"), ("MESH_PORT", "x"), ("MESH_LOG", "")]
    {
        let value = if value.is_empty() { "lo=ud=er" } else { value };
        let (code, output) = run(&["aux", "--index", "0"], &[(name, value)]);
        assert_eq!(code, 2, "{name}: {output}");
    }
}

#[test]
fn empty_variables_count_as_absent_as_a_workflow_passes_inputs_that_nobody_gave() {
    let empty = ["MESH_STUN", "MESH_PORT", "MESH_OVERLAY", "MESH_REPORT", "MESH_MIN_AUX", "MESH_LOG", "MESH_KEY"]
        .map(|name| (name, ""));
    let (code, output) = run(&["primary", "--aux", "1", "--rendezvous", "dir:/tmp", "--", "true"], &empty);
    assert_eq!(code, 81, "{output}");
}

#[test]
fn a_stderr_that_takes_nothing_does_not_fail_a_build() {
    let rig = Rig::new("deaf");
    let script = "exec \"$0\" \"$@\" 2>/dev/full";
    let args = ["primary", "--aux", "0", "--offload", "none", "--", "sh", "-c", "exit 9"];
    let mut primary = rig.stage.mesh_under(&rig.home, &["sh", "-c", script], &args, &[]).unwrap();
    assert_eq!(primary.wait(SOON).unwrap(), 9, "{}", primary.output());
}

#[test]
fn a_stdout_that_takes_nothing_is_told() {
    let output =
        Command::new("sh").args(["-c", "exec \"$0\" keygen >/dev/full"]).arg(binary().unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("M109"), "{output:?}");
}

#[test]
fn a_command_that_does_not_exist_is_told_through_sudo_too() {
    let rig = Rig::new("sudo-typo");
    let caller = [("SUDO_UID", "65534"), ("SUDO_GID", "65534")];
    let args = ["primary", "--aux", "0", "--offload", "none", "--", "no-such-command"];
    let mut primary = rig.stage.mesh_with(&rig.home, &args, &caller).unwrap();
    // 126 where a folder of PATH is closed to the caller: the command might be in there.
    assert!([126, 127].contains(&primary.wait(SOON).unwrap()), "{}", primary.output());
    assert!(has_line(&primary.output(), "M112"), "{}", primary.output());
}

#[test]
fn dashes_without_a_command_are_no_wish_to_stay_up() {
    refuses(&["primary", "--aux", "1", "--rendezvous", "dir:/tmp", "--"], &[("MESH_KEY", KEY)], 2, "M110");
}

#[test]
fn a_key_file_that_never_ends_or_never_speaks_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in ["/dev/zero", &pipe.display().to_string()] {
        let args = ["primary", "--aux", "1", "--rendezvous", "dir:/tmp", "--key-file", path, "--", "true"];
        refuses(&args, &[], 81, "M101");
    }
}

#[test]
fn an_overlay_that_cannot_hold_the_aux_is_refused_before_they_are_waited_for() {
    let args = ["primary", "--aux", "9", "--overlay", "10.5.5.0/29", "--rendezvous", "dir:/tmp", "--", "true"];
    refuses(&args, &[("MESH_KEY", KEY)], 2, "M604");
}

#[test]
fn a_folder_of_links_that_somebody_else_owns_is_not_used() {
    let rig = Rig::new("foreign-links");
    let folder = rig.stage.control(&rig.home).with_extension("build");
    fs::create_dir_all(folder.join("bin")).unwrap();
    nix::unistd::chown(&folder.join("bin"), Some(65534.into()), None).unwrap();
    let args = ["primary", "--aux", "0", "--", "sh", "-c", "echo path=$PATH"];
    let mut primary = rig.stage.mesh(&rig.home, &args).unwrap();
    assert_eq!(primary.wait(SOON).unwrap(), 0, "{}", primary.output());
    let output = primary.output();
    assert!(output.contains("M704") && !output.contains("path=/tmp"), "{output}");
}

#[test]
fn values_that_contradict_each_other_have_a_code_and_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let rendezvous = format!("dir:{}", folder.path().display());
    let key = [("MESH_KEY", KEY), ("MESH_RENDEZVOUS", rendezvous.as_str())];
    refuses(&["primary", "--aux", "1", "--min-aux", "2", "--", "true"], &key, 2, "M110");
    refuses(&["aux", "--index", "300", "--overlay", "10.77.0.0/24"], &key, 2, "M604");
}

#[test]
fn without_a_usable_key_there_is_no_mesh_and_no_build() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("binary"), [0xff, 0xfe, 0x00]).unwrap();
    fs::write(path("empty"), "\n").unwrap();
    let build = ["primary", "--aux", "1", "--rendezvous", "dir:/nonexistent/parent/folder"];
    for file in ["missing", "binary", "empty", "."] {
        let file = path(file);
        refuses(&[&build[..], &["--key-file", &file, "--", "true"]].concat(), &[], 81, "M101");
    }
    let three = "a passphrase of one\na passphrase of two\na passphrase of three";
    for key in ["", " ", "short", "mesh1_AAAA", &format!("{KEY}x"), &KEY.replace('A', "*"), three] {
        let output = refuses(&[&build[..], &["--", "true"]].concat(), &[("MESH_KEY", key)], 81, "M101");
        assert!(output.contains(if key == three { "previous one" } else { "mesh keygen" }), "{output}");
        assert!(key.trim().len() < 6 || !output.contains(key), "the key is printed: {output}");
    }
}

#[test]
fn a_key_file_of_somebody_else_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("key");
    fs::write(&file, KEY).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(USER[0]);
    command.args(&USER[1..]).arg("--clear-groups").arg(binary().unwrap());
    command.args(["aux", "--index", "0", "--key-file"]).arg(&file);
    let mut process = Process::spawn(command, &folder.path().join("log")).unwrap();
    assert_fails(&mut process, 81, "M101");
    assert!(process.output().contains("--key-file"), "{}", process.output());
}

#[test]
fn without_a_rendezvous_there_is_nothing_to_do() {
    let output = refuses(&["primary", "--aux", "1", "--", "true"], &[("MESH_KEY", KEY)], 82, "M106");
    assert!(output.contains("dir:PATH"), "{output}");
    let github = [("MESH_KEY", KEY), ("MESH_RENDEZVOUS", "github")];
    let output = refuses(&["aux", "--index", "0"], &github, 82, "M106");
    assert!(output.contains("ACTIONS_RUNTIME_TOKEN"), "{output}");
    let garbled =
        [&github[..], &[("ACTIONS_RUNTIME_TOKEN", "not-a-token"), ("ACTIONS_RESULTS_URL", "http://x/")]].concat();
    let output = refuses(&["aux", "--index", "0"], &garbled, 82, "M106");
    assert!(!output.contains("not-a-token"), "the token is printed: {output}");
}

#[test]
fn without_a_stun_answer_a_mesh_fails_and_a_build_goes_on_alone() {
    let rig = Rig::new("no-stun");
    for runner in [&rig.home, &rig.runner] {
        runner.block_udp(true).unwrap();
    }
    let started = Instant::now();
    rig.fails_unless_it_may_go_on_alone(&[], 83, "M201", &[]);
    assert!(started.elapsed() < PROMPTLY * 4, "{:?}", started.elapsed());
}

#[test]
fn stun_servers_without_an_address_are_no_stun_answer() {
    let rig = Rig::new("no-names");
    let started = Instant::now();
    let args = ["aux", "--index", "0", "--stun", "stun.invalid:3478"];
    let mut aux = rig.stage.mesh(&rig.runner, &args).unwrap();
    assert_fails(&mut aux, 83, "M201");
    assert!(aux.output().contains("stun.invalid:3478"), "{}", aux.output());
    assert!(started.elapsed() < PROMPTLY, "{:?}", started.elapsed());
}

#[test]
fn without_the_right_to_a_tun_device_only_who_insists_on_one_fails() {
    let rig = Rig::new("no-right");
    let user = [&USER[..], &["--clear-groups"]].concat();
    let started = |runner: &Runner, args: &[&str]| rig.stage.mesh_under(runner, &user, args, &[]).unwrap();
    assert_fails(&mut started(&rig.runner, &["aux", "--index", "0", "--tun", "mesh0"]), 86, "M601");
    let primary = ["primary", "--aux", "1", "--offload", "none", "--tun", "mesh0", "--", "true"];
    assert_fails(&mut started(&rig.home, &primary), 86, "M601");
}

#[test]
fn what_is_led_where_nothing_can_be_led_is_told_at_the_start() {
    let rig = Rig::new("forwards");
    let _taken = rig.home.enter(|| std::net::TcpListener::bind("127.0.0.1:8080").unwrap()).unwrap();
    let primary = |option: &[&str], exit, code| {
        let args = [&["primary", "--aux", "1", "--no-tun", "--offload", "none"], option, &["--", "true"]].concat();
        assert_fails(&mut rig.stage.mesh(&rig.home, &args).unwrap(), exit, code);
    };
    primary(&["--forward", "8080:aux0:80"], 91, "M605");
    primary(&["--forward", "0:primary:80"], 2, "M110");
    primary(&["--expose", "80", "--expose", "80"], 91, "M605");
    for option in [["--forward", "0:aux1:80"], ["--expose", "3632"]] {
        let args = [&["aux", "--index", "0", "--no-tun"], &option[..]].concat();
        assert_fails(&mut rig.stage.mesh(&rig.runner, &args).unwrap(), 2, "M110");
    }
}

#[test]
fn a_tun_device_that_was_asked_for_by_name_is_insisted_on() {
    let rig = Rig::new("by-name");
    ip(&rig.home, "link add mesh0 type veth peer name other");
    let args = ["primary", "--aux", "1", "--offload", "none", "--tun", "mesh0", "--", "true"];
    let mut primary = rig.stage.mesh(&rig.home, &args).unwrap();
    assert_fails(&mut primary, 86, "M601");
    let said = primary.output();
    assert!(said.contains("mesh0") && said.contains("choose another with --tun"), "{said}");
}

#[test]
fn a_tun_name_that_is_taken_or_no_name_is_told() {
    let rig = Rig::new("tun-name");
    ip(&rig.runner, "link add mesh0 type veth peer name other");
    for (name, hint) in [("mesh0", "choose another with --tun"), ("a-name-much-too-long", "at most 15 characters")] {
        let mut aux = rig.stage.mesh(&rig.runner, &["aux", "--index", "0", "--tun", name]).unwrap();
        assert_fails(&mut aux, 86, "M601");
        assert!(aux.output().contains(hint), "{name}: {}", aux.output());
    }
}

#[test]
fn an_overlay_over_a_route_of_this_machine_names_the_route_and_the_flag() {
    let rig = Rig::new("conflict");
    ip(&rig.home, "link add office type veth peer name other");
    ip(&rig.home, "link set other up");
    ip(&rig.home, "link set office up");
    ip(&rig.home, "route add 10.77.3.0/24 dev office");
    let args = ["primary", "--aux", "1", "--offload", "none", "--", "true"];
    let mut primary = rig.stage.mesh(&rig.home, &args).unwrap();
    assert_fails(&mut primary, 90, "M603");
    let said = primary.output();
    assert!(["10.77.3.0/24", "office", "--overlay"].iter().all(|part| said.contains(part)), "{said}");

    let elsewhere =
        [&args[..3], &["--overlay", "10.78.0.0/16", "--join-timeout", "1s", "--offload", "none", "--", "true"]];
    assert_ends(&mut rig.stage.mesh(&rig.home, &elsewhere.concat()).unwrap(), 0);
}

#[test]
fn runners_with_different_overlays_are_told_so() {
    let rig = Rig::new("overlays");
    let args = ["primary", "--aux", "1", "--offload", "none", "--join-timeout", "20s", "--", "sleep", "20"];
    let _primary = rig.stage.mesh(&rig.home, &args).unwrap();
    let args = ["aux", "--index", "0", "--overlay", "10.78.0.0/16"];
    let mut aux = rig.stage.mesh(&rig.runner, &args).unwrap();
    assert_fails(&mut aux, 2, "M604");
}

#[test]
fn a_udp_port_in_use_is_named_also_where_a_build_could_go_on() {
    let rig = Rig::new("port");
    let _taken = [&rig.home, &rig.runner].map(|runner| runner.udp_socket(5000).unwrap());
    let args = ["primary", "--aux", "1", "--listen", "5000", "--offload", "none", "--", "true"];
    let mut primary = rig.stage.mesh(&rig.home, &args).unwrap();
    assert_fails(&mut primary, 91, "M206");
    let mut aux = rig.stage.mesh(&rig.runner, &["aux", "--index", "0", "--listen", "5000"]).unwrap();
    assert_fails(&mut aux, 91, "M206");
    assert!(aux.output().contains("5000") && aux.output().contains("--listen"), "{}", aux.output());
}

#[test]
fn a_control_socket_in_use_is_named() {
    let rig = Rig::new("socket");
    let control = rig.stage.control(&rig.runner).display().to_string();
    let first = rig.stage.mesh(&rig.runner, &["aux", "--index", "0"]).unwrap();
    first.wait_for("looking for the primary", SOON).unwrap();
    let second = ["aux", "--index", "1", "--tun", "mesh1", "--overlay", "10.78.0.0/16", "--control", &control];
    let mut second = rig.stage.mesh(&rig.home, &second).unwrap();
    assert_fails(&mut second, 91, "M206");
    assert!(second.output().contains("--control"), "{}", second.output());
}

#[test]
fn a_report_that_cannot_be_written_is_told_at_the_start() {
    let rig = Rig::new("report");
    let args = ["primary", "--aux", "1", "--offload", "none", "--report", "/nonexistent/report.json", "--", "true"];
    assert_fails(&mut rig.stage.mesh(&rig.home, &args).unwrap(), 2, "M109");
}

#[test]
fn a_command_that_does_not_exist_ends_as_in_a_shell() {
    let rig = Rig::new("no-command");
    let args = ["primary", "--aux", "0", "--offload", "none", "--", "/nonexistent/make"];
    let mut primary = rig.stage.mesh(&rig.home, &args).unwrap();
    assert_ends(&mut primary, 127);
    assert!(primary.output().contains("/nonexistent/make"), "{}", primary.output());
}

#[test]
fn the_verbs_that_ask_a_mesh_say_where_none_is() {
    for verb in [&["status"][..], &["env"], &["leave"], &["wait", "--timeout", "200ms"]] {
        refuses(&[verb, &["--control", "/nonexistent/mesh.sock"]].concat(), &[], 92, "M107");
    }
}

/// Two runners.
struct Rig {
    stage: Stage,
    home: Runner,
    runner: Runner,
}

impl Rig {
    fn new(name: &str) -> Self {
        let stage = Stage::new(name).unwrap();
        // For those who run as an ordinary user.
        fs::set_permissions(stage.folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let (home, runner) = (stage.runner("primary", Nat::None).unwrap(), stage.runner("aux0", Nat::None).unwrap());
        Self { stage, home, runner }
    }

    /// An aux, a primary without COMMAND and one that insists fail with `exit`; one that does not insist runs COMMAND.
    fn fails_unless_it_may_go_on_alone(&self, wrapper: &[&str], exit: i32, code: &str, variables: &[(&str, &str)]) {
        let started = |runner: &Runner, args: &[&str]| self.stage.mesh_under(runner, wrapper, args, variables).unwrap();
        assert_fails(&mut started(&self.runner, &["aux", "--index", "0"]), exit, code);
        let primary = ["primary", "--aux", "1", "--offload", "none"];
        assert_fails(&mut started(&self.home, &primary), exit, code);
        let command = ["--", "sh", "-c", "exit 7"];
        assert_fails(&mut started(&self.home, &[&primary[..], &["--min-aux", "1"], &command].concat()), exit, code);

        let mut alone = started(&self.home, &[&primary[..], &command].concat());
        assert_ends(&mut alone, 7);
        assert!(has_line(&alone.output(), code), "{}", alone.output());
        assert!(alone.output().contains("goes on alone"), "{}", alone.output());
        assert_eq!(self.stage.report(&self.home).unwrap()["command"]["exit"], 7);
    }
}

fn ip(runner: &Runner, args: &str) {
    assert!(runner.command("ip").args(args.split(' ')).status().unwrap().success(), "ip {args}");
}

/// `mesh` with these variables alone, where it ends before it needs a network.
fn run(args: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary().unwrap());
    command.args(args).env_clear().envs(variables.iter().copied());
    let mut process = Process::spawn(command, &folder.path().join("log")).unwrap();
    (process.wait(SOON).unwrap(), process.output())
}

#[track_caller]
fn refuses(args: &[&str], variables: &[(&str, &str)], exit: i32, code: &str) -> String {
    let (ended, output) = run(args, variables);
    assert_eq!(ended, exit, "{args:?}: {output}");
    assert!(has_line(&output, code), "{args:?}: {output}");
    output
}
