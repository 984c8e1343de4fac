//! A folder as rendezvous: what an earlier run left there, and what somebody else does with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use netns_tests::lab::{Nat, Runner};
use netns_tests::stage::{Process, Stage};
use nix::sys::signal::Signal;

use crate::common::{SOON, assert_ends, assert_fails, has_line};

#[test]
fn leftovers_of_a_crashed_run_do_not_stop_the_next_one() {
    let rig = Rig::new("leftovers");
    let (mut primary, mut aux) = rig.pair("sleep 60");
    primary.wait_for("mesh is up", SOON).unwrap();
    for process in [&mut primary, &mut aux] {
        process.signal(Signal::SIGKILL).unwrap();
        process.wait(SOON).unwrap();
    }
    assert!(fs::read_dir(&rig.folder).unwrap().count() >= 2, "both left their announcements");

    let mut aux = rig.aux();
    aux.wait_for("looking for the primary", SOON).unwrap();
    let mut primary = rig.primary("exit 7");
    assert_ends(&mut primary, 7);
    assert_ends(&mut aux, 0);
}

#[test]
fn files_that_vanish_while_they_are_read_are_in_nobodys_way() {
    let rig = Rig::new("vanishing");
    fs::create_dir(&rig.folder).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..u32::MAX {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let role = ["aux0", "primary"][number as usize % 2];
                let path = rig.folder.join(format!("mesh-1-{role}-{number}-{number:08x}"));
                fs::write(&path, b"soon gone").unwrap();
                fs::remove_file(&path).unwrap();
            }
        });
        let (mut primary, mut aux) = rig.pair("exit 7");
        let ended = (primary.wait(SOON), aux.wait(SOON));
        done.store(true, Ordering::Relaxed);
        assert_eq!((ended.0.unwrap(), ended.1.unwrap()), (7, 0), "{}\n{}", primary.output(), aux.output());
    });
}

#[test]
fn a_folder_that_vanishes_under_a_running_mesh_does_not_end_the_build() {
    let rig = Rig::new("gone");
    let script = format!("rm -r {} && sleep 4; exit 7", rig.folder.display());
    let (mut primary, mut aux) = rig.pair(&script);
    assert_ends(&mut primary, 7);
    assert_ends(&mut aux, 0);
    let warnings = primary.output().lines().filter(|line| line.contains("M106")).count();
    assert!(warnings <= 1, "said once:\n{}", primary.output());
}

#[test]
fn a_folder_that_is_not_there_and_whose_parent_is_not_either_is_named() {
    let rig = Rig::new("no-parent");
    let missing = format!("dir:{}/missing/folder", rig.folder.display());
    let args = ["aux", "--index", "0", "--rendezvous", &missing];
    let mut aux = rig.stage.mesh(&rig.runner, &args).unwrap();
    assert_fails(&mut aux, 82, "M106");
    assert!(aux.output().contains("missing/folder"), "{}", aux.output());
}

#[test]
fn a_folder_that_may_not_be_read_ends_an_aux_and_lets_a_build_go_on_alone() {
    let rig = Rig::new("unreadable");
    fs::create_dir(&rig.folder).unwrap();
    fs::set_permissions(&rig.folder, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(rig.stage.folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let aux = ["aux", "--index", "0", "--rendezvous", &rig.rendezvous];
    let mut aux = rig.stage.mesh_under(&rig.runner, &user, &aux, &[]).unwrap();
    assert_fails(&mut aux, 82, "M106");
    assert!(aux.output().contains("read and write the folder"), "{}", aux.output());

    let alone =
        ["primary", "--aux", "1", "--rendezvous", &rig.rendezvous, "--offload", "none", "--", "sh", "-c", "exit 7"];
    let mut primary = rig.stage.mesh_under(&rig.home, &user, &alone, &[]).unwrap();
    assert_ends(&mut primary, 7);
    assert!(has_line(&primary.output(), "M106"), "{}", primary.output());
}

#[test]
fn a_folder_full_of_foreign_things_is_no_obstacle() {
    let rig = Rig::new("full");
    fs::create_dir(&rig.folder).unwrap();
    fs::create_dir(rig.folder.join("mesh-1-primary-1-00000001")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", rig.folder.join("mesh-1-primary-1-00000002")).unwrap();
    fs::write(rig.folder.join("mesh-1-aux0-1-00000003"), vec![0; 1 << 20]).unwrap();
    fs::write(rig.folder.join(".0123456789abcdef"), b"half a publication").unwrap();
    let (mut primary, mut aux) = rig.pair("exit 7");
    assert_ends(&mut primary, 7);
    assert_ends(&mut aux, 0);
}

/// Two runners and a folder that both see.
struct Rig {
    stage: Stage,
    home: Runner,
    runner: Runner,
    folder: std::path::PathBuf,
    rendezvous: String,
}

impl Rig {
    fn new(name: &str) -> Self {
        let stage = Stage::new(name).unwrap();
        let folder: &Path = stage.folder.path();
        let folder = folder.join("rendezvous");
        Self {
            home: stage.runner("primary", Nat::None).unwrap(),
            runner: stage.runner("aux0", Nat::None).unwrap(),
            rendezvous: format!("dir:{}", folder.display()),
            folder,
            stage,
        }
    }

    fn pair(&self, script: &str) -> (Process, Process) {
        (self.primary(script), self.aux())
    }

    fn primary(&self, script: &str) -> Process {
        let args = ["primary", "--aux", "1", "--min-aux", "1", "--offload", "none", "--rendezvous", &self.rendezvous];
        self.stage.mesh(&self.home, &[&args[..], &["--", "sh", "-c", script]].concat()).unwrap()
    }

    fn aux(&self) -> Process {
        self.stage.mesh(&self.runner, &["aux", "--index", "0", "--rendezvous", &self.rendezvous]).unwrap()
    }
}
