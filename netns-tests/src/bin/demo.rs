//! `demo`: shows a mesh that builds the project in the current folder. Needs root; `scripts/demo` calls it.
//!
//! Not here: the show itself ([`netns_tests::demo`]).

#![expect(clippy::print_stderr, reason = "says why it ends")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use netns_tests::demo::{Plan, run};
use netns_tests::interrupt::Interrupted;

/// Shows a mesh of runners behind NATs that builds the project in the current folder.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many runners help the primary
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    aux: u16,
    /// Where to keep the primary's report
    #[arg(long)]
    report: PathBuf,
    /// Where to keep the output of the build
    #[arg(long)]
    log: PathBuf,
    /// A shell's command that tells whether the program that was built works
    #[arg(long)]
    self_test: Option<String>,
    /// What builds the project
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let Arguments { aux, report, log, self_test, command } = Arguments::parse();
    match run(&Plan { aux, command, self_test, report, log }) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.is::<Interrupted>() => ExitCode::from(130),
        Err(error) => {
            eprintln!("demo: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
