//! Exit codes, and the failures that end a process with one of them. Nothing here prints.
//!
//! COMMAND's own exit code passes through `mesh primary` unchanged, so the codes of `mesh` itself lie where build tools
//! have none.

use std::fmt;

/// How a `mesh` process ends. The README lists the same codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or released.
    Ok = 0,
    /// Something unexpected: a bug, or an operating system that refused.
    Failure = 1,
    /// A flag, a variable or a value that `mesh` cannot use.
    Usage = 2,
    /// No key was given, or it cannot be used (M101).
    NoKey = 81,
    /// The rendezvous cannot be reached or refuses us (M106).
    NoRendezvous = 82,
    /// No STUN server answered (M201).
    NoStun = 83,
    /// Fewer aux than `--min-aux` at the deadline, or no announcement of the primary that can be read (M102 to M104).
    Missing = 84,
    /// Both sides published, and no path came up (M301).
    NoPath = 85,
    /// No TUN device could be made (M601).
    NoTun = 86,
    /// The primary was gone for `--idle-timeout` (M503).
    PeerGone = 87,
    /// Another process took our index (M105).
    DuplicateIndex = 88,
    /// A program that the build needs is not installed (M701).
    NoTool = 89,
    /// The overlay prefix is taken by a route of this machine (M603).
    RouteConflict = 90,
    /// The UDP port or the control socket is taken (M206).
    InUse = 91,
    /// No mesh is running behind the control socket (M107).
    NotRunning = 92,
    /// The cache has nothing of this name (M804).
    NotCached = 93,
}

impl Exit {
    /// The code as the operating system takes it.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// A failure with a name of its own: what was attempted and with which value, a code of the failure taxonomy, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How the process ends if nobody handles this.
    pub exit: Exit,
    /// The code users search for: `M` and three digits, listed in `docs/failures.md`.
    pub code: &'static str,
    /// A phrase without a full stop that names the attempt and the value.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

impl Failure {
    /// A failure that ends the process with `exit`.
    pub fn new(exit: Exit, code: &'static str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit, code, what: what.into(), hint: hint.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.what)
    }
}

impl std::error::Error for Failure {}
