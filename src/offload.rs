//! The distributed build by the real distcc: who compiles where, and what a build's COMMAND is given. Forming the mesh is not
//! here, nor is the decision which aux are alive: the caller says so by the [`hosts`] it writes.
//!
//! - [`distccd`]: the daemon on an aux, watched; [`guard`] ends it when `mesh` dies, [`stats`] counts its jobs
//! - [`hosts`], [`hosts_file`]: who takes jobs now, for the primary
//! - [`links`]: the folder of compiler names, and [`launcher`], what each of them does: [`sendable`] decides, [`dependencies`]
//!   and [`attempt`] help
//! - [`environment`]: what COMMAND gets; [`tally`]: what became of each compile

pub mod attempt;
pub mod dependencies;
pub mod distccd;
pub mod environment;
pub mod guard;
pub mod hosts;
pub mod hosts_file;
pub mod launcher;
pub mod links;
pub mod name;
pub mod processes;
pub mod restarts;
pub mod search;
pub mod sendable;
pub mod stats;
pub mod tally;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::exit::Exit;

/// What a process does that was not started as `mesh VERB` by a user: stand in for a compiler (by `argv[0]`), or guard a daemon
/// (`mesh guard -- PROGRAM ARGS`). `None`: neither, go on with the command line. Called before threads, tokio and logging.
pub fn early(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter();
    let argv0 = args.next()?;
    let rest: Vec<OsString> = args.collect();
    if let Some(code) = launcher::dispatch(&argv0, &rest) {
        return Some(ExitCode::from(code));
    }
    let (verb, rest) = rest.split_first()?;
    (verb == guard::VERB).then(|| ExitCode::from(guarded(rest)))
}

fn guarded(args: &[OsString]) -> u8 {
    match args.split_first() {
        Some((dashes, argv)) if dashes == "--" && !argv.is_empty() => guard::run(argv.to_vec()),
        _ => Exit::Usage.code(),
    }
}
