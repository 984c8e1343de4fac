//! nginx and redis, each on a free port of loopback, with two workers or as they come. Not here: what is asked of them.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::lab::wait_until;
use crate::stage::Process;

const SOON: Duration = Duration::from_secs(20);

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn wait_for(port: u16, process: &Process) -> Result<()> {
    let answers = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(drop);
    wait_until(SOON, "a server", answers).with_context(|| format!("it said:\n{}", process.output()))
}

/// nginx with files, and with WebDAV for what is put.
#[derive(Debug)]
pub(super) struct Nginx {
    process: Process,
    folder: PathBuf,
    port: u16,
}

impl Nginx {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let (port, at) = (free_port()?, folder.display());
        for name in ["www", "dav"] {
            std::fs::create_dir(folder.join(name))?;
        }
        // As root it would give its files to nobody.
        let user = if nix::unistd::Uid::effective().is_root() { "user root;" } else { "" };
        let config = format!(
            "{user} daemon off; worker_processes 2; pid {at}/pid; error_log {at}/error.log; events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; client_body_temp_path {at}/body; client_max_body_size 100m;\n\
             server {{ listen 127.0.0.1:{port}; root {at}/www;\n\
             location /dav/ {{ root {at}; dav_methods PUT DELETE; create_full_put_path on; }} }} }}\n"
        );
        let path = folder.join("nginx.conf");
        std::fs::write(&path, config)?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&path).arg("-e").arg(folder.join("error.log"));
        let process = Process::spawn(command, &folder.join("log"))?;
        wait_for(port, &process)?;
        Ok(Self { process, folder: folder.into(), port })
    }

    pub(super) fn store(&self, size: usize, bytes: &[u8]) -> Result<()> {
        Ok(std::fs::write(self.folder.join("www").join(size.to_string()), bytes)?)
    }

    pub(super) fn url(&self, size: usize) -> String {
        format!("http://127.0.0.1:{}/{size}", self.port)
    }

    pub(super) fn dav(&self, round: u16) -> String {
        format!("http://127.0.0.1:{}/dav/{round}/", self.port)
    }
}

impl Drop for Nginx {
    /// Asked to, it takes its workers along; killed, it would leave them.
    fn drop(&mut self) {
        if self.process.signal(Signal::SIGTERM).is_ok() {
            let _ = self.process.wait(SOON);
        }
    }
}

/// redis in memory alone.
#[derive(Debug)]
pub(super) struct Redis {
    _process: Process,
    port: String,
}

impl Redis {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"]);
        command.args(["--port", &port.to_string(), "--dir"]).arg(folder);
        let process = Process::spawn(command, &folder.join("log"))?;
        wait_for(port, &process)?;
        Ok(Self { _process: process, port: port.to_string() })
    }

    pub(super) fn store(&self, size: usize, bytes: &[u8]) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), bytes)?;
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port, "-x", "set", &size.to_string()]).stdin(std::fs::File::open(file.path())?);
        let output = command.output().context("start redis-cli")?;
        ensure!(output.stdout.starts_with(b"OK"), "redis-cli: {}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    }

    /// Requests a second by its own benchmark, which counts requests and not time: a first, short run tells how many.
    fn measure(&self, clients: u16, time: Duration, what: &[&str]) -> Result<f64> {
        let run = |count: u64| {
            let mut command = Command::new("redis-benchmark");
            command.args(["-p", &self.port, "-c", &clients.to_string(), "-n", &count.to_string(), "--csv"]).args(what);
            let output = command.output().context("start redis-benchmark")?;
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            let rate = told.lines().last().and_then(|line| line.split('"').nth(3)?.parse::<f64>().ok());
            rate.with_context(|| format!("redis-benchmark tells no rate: {told}"))
        };
        let rate = run(200)?;
        run((rate * time.as_secs_f64()) as u64)
    }

    pub(super) fn get(&self, size: usize, clients: u16, time: Duration) -> Result<f64> {
        self.measure(clients, time, &["GET", &size.to_string()])
    }

    pub(super) fn set(&self, size: usize, clients: u16, time: Duration) -> Result<f64> {
        self.measure(clients, time, &["-r", "1000000", "-d", &size.to_string(), "-t", "set"])
    }
}
