//! Runs one of the system's commands and turns its failure into an error. Not here: in which namespace it runs ([`super::netns`]).

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `program` with `args`, feeds it `input`, and gives what it wrote to stdout.
///
/// # Errors
/// If it cannot start, or ends with another code than 0; the error holds its stderr.
pub(super) fn run(program: &str, args: &[&str], input: &str) -> Result<String> {
    let shown = || format!("run `{program} {}`", args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| {
            format!("{}\n\nhint: install the packages iproute2, nftables, conntrack and coturn", shown())
        })?;
    // A program that ends before it read everything says why on stderr, which is the better error.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().with_context(shown)?;
    if !output.status.success() {
        bail!("{}: {}: {}", shown(), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
