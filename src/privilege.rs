//! Whose build this is. A TUN device and low TTLs need root; a build must not run as root. So the daemon keeps the few capabilities it
//! still needs, and COMMAND runs as the user who called sudo.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid, User, chown, fchown, getgrouplist, setgid, setgroups, setuid};

use crate::config::Env;

/// The hidden verb that becomes COMMAND after giving up root: `mesh as-caller UID GID -- COMMAND...`.
pub const AS_CALLER: &str = "as-caller";

/// The user who called sudo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// From SUDO_UID.
    pub uid: Uid,
    /// From SUDO_GID.
    pub gid: Gid,
    /// Its name and home directory, where the system knows them.
    pub account: Option<(String, std::path::PathBuf)>,
}

impl Caller {
    /// The caller, when we are root by way of sudo; `None` when we are not root, or root itself called.
    pub fn from_env(env: Env<'_>) -> Option<Self> {
        let id = |name: &str| env(name)?.parse::<u32>().ok();
        let (uid, gid) = (Uid::from_raw(id("SUDO_UID")?), Gid::from_raw(id("SUDO_GID")?));
        if !Uid::effective().is_root() || uid.is_root() {
            return None;
        }
        let account = User::from_uid(uid).ok().flatten().map(|user| (user.name, user.dir));
        Some(Self { uid, gid, account })
    }

    /// Whether sudo's variables are there and make no sense. COMMAND then runs as root, which the user should know.
    pub fn is_garbled(env: Env<'_>) -> bool {
        let set = env("SUDO_UID").is_some() || env("SUDO_GID").is_some();
        let number = |name: &str| env(name).is_some_and(|text| text.parse::<u32>().is_ok());
        set && Uid::effective().is_root() && !(number("SUDO_UID") && number("SUDO_GID"))
    }

    /// Gives a file or folder to the caller.
    pub fn own(&self, path: &Path) -> nix::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
    }

    /// Gives an open file to the caller.
    pub fn own_file(&self, file: impl AsFd) -> nix::Result<()> {
        fchown(file, Some(self.uid), Some(self.gid))
    }

    /// `command` as the arguments of our own binary that will run it as the caller.
    pub fn wrap(&self, command: &[OsString]) -> Vec<OsString> {
        let ids = [self.uid.to_string(), self.gid.to_string()].map(OsString::from);
        let own = [OsString::from(AS_CALLER)].into_iter().chain(ids).chain([OsString::from("--")]);
        own.chain(command.iter().cloned()).collect()
    }
}

/// What the hidden verb does: gives up root for good, and becomes the command. Returns only when that fails: the exit code of a shell, and why.
pub fn become_caller(args: &[OsString]) -> (u8, String) {
    let id = |at: usize| args.get(at).and_then(|text| text.to_str()).and_then(|text| text.parse::<u32>().ok());
    let (Some(uid), Some(gid), Some(program)) = (id(0), id(1), args.get(3)) else {
        return (2, format!("`{AS_CALLER}` is for mesh itself"));
    };
    if let Err(error) = give_up_root(Uid::from_raw(uid), Gid::from_raw(gid)) {
        return (
            126,
            format!("M112 cannot become user {uid}, who called sudo: {error}; hint: check SUDO_UID and SUDO_GID"),
        );
    }
    not_started(program, &Command::new(program).args(&args[4..]).exec())
}

/// The exit code of a shell for a command that could not be started, and why.
pub fn not_started(program: &OsStr, error: &std::io::Error) -> (u8, String) {
    let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    let program = program.to_string_lossy();
    (code, format!("M112 cannot run `{program}`: {error}; hint: check its name and rights, and PATH"))
}

fn give_up_root(uid: Uid, gid: Gid) -> nix::Result<()> {
    let name = User::from_uid(uid)?.and_then(|user| CString::new(user.name).ok());
    let groups = name.map_or(Ok(vec![gid]), |name| getgrouplist(&name, gid))?;
    setgroups(&groups)?;
    setgid(gid)?;
    setuid(uid)
}

/// Gives up every capability but those that a running mesh needs: to end and to start programs of other users, and to reach files of other
/// users (the caller's runtime folder, a directory as rendezvous, this binary in somebody's home). Threads started later inherit this.
pub fn keep_few_capabilities() {
    use Capability::{CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_KILL, CAP_SETGID, CAP_SETUID};
    keep_only([CAP_KILL, CAP_SETUID, CAP_SETGID, CAP_DAC_OVERRIDE, CAP_FOWNER]);
}

/// Gives up every capability but that to make large buffers for a socket: for the thread that reads what comes from the network.
pub fn keep_sockets_capability() {
    keep_only([Capability::CAP_NET_ADMIN]);
}

fn keep_only<const N: usize>(keep: [Capability; N]) {
    let keep = CapsHashSet::from(keep);
    let Ok(held) = caps::read(None, CapSet::Permitted) else { return };
    let keep: CapsHashSet = held.intersection(&keep).copied().collect();
    for set in [CapSet::Effective, CapSet::Permitted] {
        if let Err(error) = caps::set(None, set, &keep) {
            tracing::debug!(%error, "capabilities stay as they are");
        }
    }
}

/// Gives up every capability: for a process that has opened all that it needs.
pub fn drop_all_capabilities() {
    for set in [CapSet::Effective, CapSet::Permitted] {
        if let Err(error) = caps::clear(None, set) {
            tracing::debug!(%error, "capabilities stay as they are");
        }
    }
}

/// Hides this process's memory and environment, where the keys are, from other processes of its user (prctl(2), PR_SET_DUMPABLE).
pub fn hide_process() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::debug!(%error, "other processes of this user can read our memory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_sudo_there_is_no_caller() {
        assert_eq!(Caller::from_env(&|_| None), None);
        assert_eq!(Caller::from_env(&|_| Some("0".into())), None);
        assert_eq!(Caller::from_env(&|_| Some("nonsense".into())), None);
    }

    #[test]
    fn a_command_is_wrapped_whole() {
        let caller = Caller { uid: Uid::from_raw(1000), gid: Gid::from_raw(100), account: None };
        let command = ["make", "--", "-j4"].map(OsString::from);
        assert_eq!(caller.wrap(&command), ["as-caller", "1000", "100", "--", "make", "--", "-j4"]);
    }
}
