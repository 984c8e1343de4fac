//! Started through sudo: whose COMMAND, whose files, and which rights are left.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use netns_tests::lab::Nat;
use netns_tests::stage::{Stage, binary};

use crate::common::{SOON, assert_ends, primary};

/// `nobody` of Debian: a user that every machine has.
const CALLER: u32 = 65534;

/// Homes are closed to others on Ubuntu, and root without its rights over files is such another.
#[test]
fn a_daemon_of_root_s_own_finds_its_binary_in_a_closed_home() {
    let stage = Stage::new("closed-home").unwrap();
    let home = stage.folder.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::copy(binary().unwrap(), home.join("mesh")).unwrap();
    for path in [home.join("mesh"), home.clone()] {
        std::os::unix::fs::chown(path, Some(CALLER), Some(CALLER)).unwrap();
    }
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let args = ["--aux", "1", "--min-aux", "1", "--join-timeout", "30s", "--", "true"];
    let (_, mut primary) = primary(&stage, Nat::None, &args);
    let runner = stage.runner("aux0", Nat::None).unwrap();
    let script = format!("shift; exec {}/mesh \"$@\"", home.display());
    let mut aux = stage.mesh_under(&runner, &["sh", "-c", &script, "sh"], &["aux", "--index", "0"], &[]).unwrap();
    assert_ends(&mut primary, 0);
    assert_ends(&mut aux, 0);
}

#[test]
fn command_and_files_belong_to_the_user_who_called_sudo_and_the_daemon_keeps_few_rights() {
    let stage = Stage::new("sudo").unwrap();
    fs::set_permissions(stage.folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let home = stage.runner("primary", Nat::Azure).unwrap();
    let said = stage.folder.path().join("said");
    let script = format!(
        "{{ id -u; id -g; id -G; echo $HOME; echo ${{MESH_KEY-unset}}; touch $DISTCC_DIR/mine; }} > {}; sleep 600",
        said.display()
    );
    let args = ["primary", "--aux", "0", "--", "sh", "-c", &script];
    let caller = CALLER.to_string();
    let mut primary = stage.mesh_with(&home, &args, &[("SUDO_UID", &caller), ("SUDO_GID", &caller)]).unwrap();
    let lines = || fs::read_to_string(&said).ok().filter(|text| text.lines().count() == 5);
    let text = netns_tests::lab::wait_until(SOON, "COMMAND's words", lines).unwrap();

    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines[0], lines[1], lines[2], lines[4]), ("65534", "65534", "65534", "unset"), "{text}");
    assert_eq!(fs::metadata(stage.control(&home)).unwrap().uid(), CALLER);
    assert_eq!(fs::metadata(stage.control(&home)).unwrap().permissions().mode() & 0o777, 0o600);
    let status = fs::read_to_string(format!("/proc/{}/status", primary.pid())).unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    // CAP_DAC_OVERRIDE 1, CAP_FOWNER 3, CAP_KILL 5, CAP_SETGID 6, CAP_SETUID 7.
    assert_eq!(u64::from_str_radix(effective, 16).unwrap(), 0b1110_1010, "{effective}");

    primary.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(primary.wait(SOON).unwrap(), 143, "{}", primary.output());
    let report = fs::metadata(stage.folder.path().join("primary.json")).unwrap();
    assert_eq!((report.uid(), report.len() > 0), (CALLER, true));
    assert!(!stage.control(&home).exists(), "the socket is gone with its mesh");
}
