//! What became of each compile, for the report: the links note it, the primary counts it. One line for each in a file of the run's distcc
//! folder. Losing a line costs a figure, never a compile.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use super::environment::{DISTCC_DIR, HOSTS_FILE};
use super::launcher::Variables;

/// Done by distcc, which chose an aux or one of this machine's own slots.
pub const TRIED: &str = "by distcc";

/// Tried by distcc, refused or failed there, and done here.
pub const FAILED_OVER: &str = "failed over";

const FILE: &str = "tally";

/// A build of a million files is counted; a file that somebody else made larger is not read on.
const LONGEST: u64 = 32 << 20;

/// Notes `outcome`, in a run of mesh alone.
pub fn note(variables: &Variables, outcome: &str) {
    let folder = variables.get(OsStr::new(DISTCC_DIR)).filter(|_| variables.contains_key(OsStr::new(HOSTS_FILE)));
    let Some(folder) = folder else { return };
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(Path::new(folder).join(FILE)) {
        // One short write of a file opened for appending is whole among those of others.
        let _ = file.write_all(format!("{outcome}\n").as_bytes());
    }
}

/// How often each outcome was noted. The folder belongs to the user who builds: only a plain file is read, without waiting.
pub fn read(folder: &Path) -> BTreeMap<String, u64> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let mut text = String::new();
    let mut counts = BTreeMap::new();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(folder.join(FILE));
    if let Ok(file) = file
        && file.metadata().is_ok_and(|found| found.is_file())
        && file.take(LONGEST).read_to_string(&mut text).is_ok()
    {
        text.lines().for_each(|outcome| *counts.entry(outcome.to_string()).or_default() += 1);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_in_a_run_is_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = [(DISTCC_DIR, folder.path().as_os_str()), (HOSTS_FILE, OsStr::new("hosts"))];
        let run: Variables = run.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        [TRIED, "does not compile", TRIED].into_iter().for_each(|outcome| note(&run, outcome));
        assert_eq!(read(folder.path()), BTreeMap::from([(TRIED.into(), 2), ("does not compile".into(), 1)]));
    }

    #[test]
    fn outside_of_a_run_nothing_is_noted_and_nothing_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let elsewhere = Variables::from([(DISTCC_DIR.into(), folder.path().into())]);
        note(&elsewhere, TRIED);
        assert_eq!(read(folder.path()), BTreeMap::new());
    }

    #[test]
    fn a_pipe_in_place_of_the_file_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        nix::unistd::mkfifo(&folder.path().join(FILE), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert_eq!(read(folder.path()), BTreeMap::new());
    }
}
