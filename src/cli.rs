//! The verbs, and the wiring of everything else. The only room that prints: data on stdout, everything else on stderr.

mod actions;
mod aux;
mod build;
mod cache;
mod command;
mod control;
mod device;
mod diagnosis;
mod doctor;
mod journal;
mod network;
mod primary;
mod relay;
mod resolve;
mod services;
mod session;
mod signals;
mod status;
mod waiting;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use rand::Rng;

use crate::config::{AuxArgs, ControlArgs, LogArgs, PrimaryArgs, RelayArgs, process_env};
use crate::exit::{Exit, Failure};
use crate::proto::key::MasterKey;
use crate::{config, log, offload, privilege};

/// Turns the CI runners of one workflow run into one build machine
#[derive(Debug, Parser)]
#[command(name = "mesh", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print a fresh key
    Keygen,
    /// Form the mesh, run COMMAND over it, release the aux
    Primary(PrimaryArgs),
    /// Join as an auxiliary and serve until released
    Aux(AuxArgs),
    /// Relay for runners that nothing else connects, on a machine of your own with a public address
    Relay(RelayArgs),
    /// Wait until this machine's mesh is up; the exit code says whether it is
    Wait(control::WaitArgs),
    /// Print what COMMAND would be given, for `eval`
    Env(control::EnvArgs),
    /// Release the aux and end this machine's mesh
    Leave(ControlArgs),
    /// Show the mesh on this machine
    Status(status::StatusArgs),
    /// The cache beside the mesh on this machine
    Cache(cache::CacheVerb),
    /// Show what network this is, and what is missing for a mesh
    Doctor(doctor::DoctorArgs),
}

/// How a verb ends: with a code, which may be COMMAND's own.
type Outcome = Result<u8, Failure>;

/// What a process does that was not started as `mesh VERB` by a user: stand in for a compiler, guard a daemon, or become COMMAND.
/// `None`: none of these, go on with [`main`]. Called before threads, tokio and logging.
pub fn early(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|verb| verb == privilege::AS_CALLER) {
        let (code, why) = privilege::become_caller(&args[2..]);
        actions::say(&why);
        return Some(ExitCode::from(code));
    }
    offload::early(args)
}

/// Parses the command line and runs its verb.
pub fn main() -> ExitCode {
    let overruled = config::overruled(std::env::args_os());
    let matches = without_void_variables(Cli::command(), overruled).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(cli.verb) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            actions::fail(&failure);
            ExitCode::from(failure.exit.code())
        }
    }
}

/// A variable that is set and empty counts as absent: so workflows pass inputs that nobody gave.
fn without_void_variables(command: Command, overruled: Option<&str>) -> Command {
    let ignore = |arg: clap::Arg| match arg.get_env() {
        Some(name)
            if overruled.is_some_and(|overruled| name == overruled)
                || config::is_void_variable(name, matches!(arg.get_action(), clap::ArgAction::SetTrue)) =>
        {
            arg.env("MESH_NO_VARIABLE").hide_env(true)
        }
        _ => arg,
    };
    command.mut_args(ignore).mut_subcommands(|verb| without_void_variables(verb, overruled))
}

fn run(verb: Verb) -> Outcome {
    match verb {
        Verb::Keygen => keygen(),
        Verb::Primary(args)
            if args.command.is_empty() && std::env::args_os().next_back().is_some_and(|last| last == "--") =>
        {
            let hint = "give a command after `--`, or leave `--` out to stay up until `mesh leave`";
            Err(Failure::new(Exit::Usage, "M110", "there is no COMMAND after `--`", hint))
        }
        Verb::Primary(args) => start(&args.common.logging.clone(), async || primary::run(args).await),
        Verb::Aux(args) => start(&args.common.logging.clone(), async || aux::run(args).await),
        Verb::Relay(args) => start(&args.logging.clone(), async || relay::run(args).await),
        Verb::Wait(args) => block_on(async || control::wait(args).await),
        Verb::Env(args) => block_on(async || control::env(args).await),
        Verb::Leave(args) => block_on(async || control::leave(args).await),
        Verb::Status(args) => block_on(async || status::run(args).await),
        Verb::Cache(args) => block_on(async || cache::run(args).await),
        Verb::Doctor(args) => {
            log::start("warn", log::Format::Human);
            block_on(async || doctor::run(args).await)
        }
    }
}

fn keygen() -> Outcome {
    let key = MasterKey::from_bytes(rand::rng().random()).to_text();
    actions::put(format!("{key}\n").as_bytes()).map(|()| Exit::Ok.code())
}

/// For the verbs that stay: logging, and no look into our memory for others.
fn start(logging: &LogArgs, verb: impl AsyncFnOnce() -> Outcome) -> Outcome {
    log::start(&logging.log, logging.log_format);
    privilege::hide_process();
    block_on(verb)
}

/// One thread: the driver of the mesh is one task, and everything else waits most of the time.
fn block_on(verb: impl AsyncFnOnce() -> Outcome) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        let what = format!("cannot start: the system refuses an event loop: {error}");
        Failure::new(Exit::Failure, "M199", what, "check the limits on open files (ulimit -n)")
    })?;
    let outcome = runtime.block_on(verb());
    runtime.shutdown_background();
    outcome
}

/// Looks variables up in this process's environment.
fn env() -> config::Env<'static> {
    &process_env
}
