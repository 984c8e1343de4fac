//! The `mesh` binary: what has to happen before anything else, then the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    match mesh::cli::early(std::env::args_os()) {
        Some(code) => code,
        None => mesh::cli::main(),
    }
}
