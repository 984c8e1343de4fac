//! The load: wrk over HTTP, and what it is asked to send. Not here: whom it is for.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// One thread with so many connections, for so long.
#[derive(Debug)]
pub(super) struct Wrk {
    pub(super) clients: u16,
    pub(super) time: Duration,
}

/// `len` bytes that no compression makes smaller.
pub(super) fn content(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(len as u64).fill_bytes(&mut bytes);
    bytes
}

/// Puts `bytes` there.
pub(super) fn upload(url: &str, token: &str, bytes: &[u8]) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), bytes)?;
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--fail", "--header", &bearer(token), "--upload-file"])
        .arg(file.path())
        .arg(url);
    let output = command.output().context("start curl")?;
    ensure!(output.status.success(), "curl to {url}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

impl Wrk {
    fn run(&self, url: &str, token: Option<&str>, script: Option<&Path>) -> Result<f64> {
        let mut command = Command::new("wrk");
        command.args(["-t1", &format!("-c{}", self.clients), &format!("-d{}s", self.time.as_secs())]);
        if let Some(token) = token {
            command.args(["-H", &bearer(token)]);
        }
        if let Some(script) = script {
            command.arg("-s").arg(script);
        }
        let output = command.arg(url).output().context("start wrk")?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "wrk to {url}: {}", String::from_utf8_lossy(&output.stderr));
        ensure!(!told.contains("Non-2xx") && !told.contains("Socket errors"), "wrk to {url}: {told}");
        let rate = told.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
        rate.and_then(|rate| rate.trim().parse().ok()).with_context(|| format!("wrk to {url} tells no rate: {told}"))
    }

    /// The same again and again: requests a second.
    pub(super) fn get(&self, url: &str, token: Option<&str>) -> Result<f64> {
        self.run(url, token, None)
    }

    /// Another name below `url` each time, and other bytes.
    pub(super) fn put(&self, url: &str, token: Option<&str>, len: usize, folder: &Path) -> Result<f64> {
        let script = folder.join("put.lua");
        let text = format!(
            "local count = 0\nlocal rest = string.rep(\"x\", {})\nfunction request()\n  count = count + 1\n  \
             local name = string.format(\"%08d\", count)\n  return wrk.format(\"PUT\", wrk.path .. name, nil, name .. wrk.path:sub(-8) .. rest)\nend\n",
            len.saturating_sub(16)
        );
        std::fs::write(&script, text)?;
        self.run(url, token, Some(&script))
    }
}
