//! How fast one TCP stream passes through a mesh, with TUN devices and over the userspace stack, in one run. Figures, no verdict.

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::lab::{Link, Nat, Runner};
use crate::stage::{Process, Stage, binary};

/// The service's port on the aux.
const PORT: u16 = 5001;

const DEADLINE: Duration = Duration::from_secs(60);
const AUX: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// What carries the overlay on both machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A TUN device, and the kernel's TCP from end to end.
    Tun,
    /// The userspace stack, and a forward on each side.
    Userspace,
}

/// A primary and an aux that are up, and the service's socket.
#[derive(Debug)]
pub struct Rig {
    device: Device,
    home: Runner,
    port: u16,
    service: TcpListener,
    primary: Process,
    aux: Process,
    stage: Stage,
}

impl Rig {
    /// Brings a mesh up over a network with this delay, one way.
    ///
    /// # Errors
    /// If the lab or the mesh cannot be made.
    pub fn new(device: Device, delay: Duration) -> Result<Self> {
        let stage = Stage::new("throughput")?;
        let link = Link { delay, ..Link::default() };
        let home = stage.lab.runner("primary", Nat::Azure, link)?;
        let away = stage.lab.runner("aux0", Nat::Azure, link)?;
        let (exposed, forward) = (PORT.to_string(), format!("0:aux0:{PORT}"));
        let (of_primary, of_aux): (&[&str], &[&str]) = match device {
            Device::Tun => (&[], &[]),
            Device::Userspace => (&["--no-tun", "--forward", &forward], &["--no-tun", "--expose", &exposed]),
        };
        let primary = stage.mesh(&home, &[&["primary", "--aux", "1", "--offload", "none"], of_primary].concat())?;
        let aux = stage.mesh(&away, &[&["aux", "--index", "0"], of_aux].concat())?;
        primary.wait_for("mesh is up: 1", DEADLINE)?;
        let service = away.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
        let port = if device == Device::Tun { PORT } else { forwarded(&primary)? };
        Ok(Self { device, home, port, service, primary, aux, stage })
    }

    /// Megabytes a second of a stream of so many from primary to aux, or back, until its last byte was read.
    ///
    /// # Errors
    /// If the stream breaks.
    pub fn measure(&self, megabytes: usize, back: bool) -> Result<f64> {
        let address = if self.device == Device::Tun { AUX } else { Ipv4Addr::LOCALHOST };
        let mut client = self.home.enter(|| TcpStream::connect((address, self.port)))??;
        let (mut server, _) = self.service.accept()?;
        let (sender, receiver) = if back { (&mut server, &mut client) } else { (&mut client, &mut server) };
        let started = Instant::now();
        let received = thread::scope(|scope| {
            let sending = scope.spawn(|| send(sender, megabytes));
            let received = drain(receiver)?;
            sending.join().map_err(|_| anyhow!("the sender panicked"))??;
            anyhow::Ok(received)
        })?;
        let took = started.elapsed().as_secs_f64();
        ensure!(received == megabytes as u64 * 1_000_000, "only {received} bytes arrived");
        Ok(megabytes as f64 / took)
    }

    /// User and system time that both processes of the mesh have used so far.
    ///
    /// # Errors
    /// If one has ended.
    pub fn cpu(&self) -> Result<Duration> {
        Ok(self.primary.cpu()? + self.aux.cpu()?)
    }

    /// Ends the mesh.
    ///
    /// # Errors
    /// If one of them does not end well.
    pub fn end(mut self) -> Result<()> {
        let mut leave = self.home.command(binary()?);
        leave.arg("leave").env("MESH_CONTROL", self.stage.control(&self.home)).status()?;
        ensure!(self.primary.wait(DEADLINE)? == 0, "the primary failed: {}", self.primary.output());
        ensure!(self.aux.wait(DEADLINE)? == 0, "the aux failed: {}", self.aux.output());
        Ok(())
    }
}

fn send(stream: &mut TcpStream, megabytes: usize) -> Result<()> {
    let chunk = vec![0x5a; 1_000_000];
    (0..megabytes).try_for_each(|_| stream.write_all(&chunk))?;
    stream.shutdown(Shutdown::Write).context("say that it was all")
}

fn drain(stream: &mut TcpStream) -> Result<u64> {
    Ok(io::copy(&mut BufReader::with_capacity(1 << 17, stream), &mut io::sink())?)
}

/// What it says of its one forward: `127.0.0.1:PORT leads to ...`.
fn forwarded(process: &Process) -> Result<u16> {
    let said = process.output();
    let port = said.lines().find_map(|line| line.split_once("127.0.0.1:")?.1.split_once(" leads to")?.0.parse().ok());
    port.with_context(|| format!("it names no forward:\n{said}"))
}
