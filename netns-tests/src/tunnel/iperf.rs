//! Streams, by `iperf3`: a server and a client on two hosts, and what the client says at the end. Not here: which streams.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::ground::Arena;
use crate::interrupt::Interrupt;
use crate::lab::Netns;
use crate::stage::Process;

/// A server listens within milliseconds; this much on a loaded machine.
const READY: Duration = Duration::from_secs(10);

/// Beyond the time that the streams run: to connect, and to exchange results over a path with losses.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client waits for its server, in milliseconds.
const CONNECT_TIMEOUT: &str = "10000";

/// The first server's port; iperf3's own.
pub(super) const PORT: u16 = 5201;

/// Which way the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the client.
    Forth,
    /// From the server.
    Back,
    Both,
}

/// Streams between a client and a server, at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams<'a> {
    pub(super) client: &'a Netns,
    pub(super) server: &'a Netns,
    /// The server's, inside the tunnel.
    pub(super) addr: Ipv4Addr,
    pub(super) port: u16,
    pub(super) count: u16,
    pub(super) direction: Direction,
    pub(super) seconds: u16,
    /// Of TCP, on both ends; `None` is the machine's.
    pub(super) congestion: Option<&'a str>,
}

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Flow {
    pub(super) gigabits: f64,
    pub(super) gigabits_per_second: f64,
    pub(super) retransmits: u64,
}

/// Streams that run.
#[derive(Debug)]
pub(super) struct Running {
    client: Process,
    _server: Process,
    within: Duration,
}

impl Streams<'_> {
    /// Starts the server, which serves this one client, and then the client.
    ///
    /// # Errors
    /// If one of them does not start.
    pub(super) fn start(&self, folder: &Path, interrupt: &Interrupt) -> Result<Running> {
        let (port, log) = (self.port.to_string(), |who: &str| folder.join(format!("iperf3-{who}-{}.log", self.port)));
        let mut command = self.server.command("iperf3");
        command.args(["--server", "--one-off", "--forceflush", "--port", &port]);
        let server = Process::spawn(command, &log("server"))?;
        interrupt
            .wait_until(READY, "a listening iperf3", || Ok(server.output().contains("listening").then_some(())))?;
        let mut command = self.client.command("iperf3");
        let (addr, seconds, count) = (self.addr.to_string(), self.seconds.to_string(), self.count.to_string());
        command.args(["--json", "--client", &addr, "--port", &port, "--time", &seconds, "--parallel", &count]);
        command.args(["--connect-timeout", CONNECT_TIMEOUT]).args(self.direction.option());
        command.args(self.congestion.map(|name| format!("--congestion={name}")));
        let client = Process::spawn(command, &log("client"))?;
        Ok(Running { client, _server: server, within: Duration::from_secs(self.seconds.into()) + PATIENCE })
    }

    /// As [`Streams::start`], to the end.
    ///
    /// # Errors
    /// As there, and if the streams break.
    pub(super) fn run(&self, folder: &Path, interrupt: &Interrupt) -> Result<Flow> {
        self.start(folder, interrupt)?.finish(interrupt)
    }
}

impl Running {
    /// # Errors
    /// If the streams break, or do not end in time.
    pub(super) fn finish(mut self, interrupt: &Interrupt) -> Result<Flow> {
        interrupt.wait_until(self.within, "the end of iperf3", || Ok(self.client.ended()))?;
        parse(&self.client.output())
    }
}

impl Direction {
    fn option(self) -> Option<&'static str> {
        match self {
            Self::Forth => None,
            Self::Back => Some("--reverse"),
            Self::Both => Some("--bidir"),
        }
    }
}

/// A second of a stream from the hub to each of the others, all at once: opens every tunnel.
///
/// # Errors
/// If one does not carry it.
pub(super) fn warm_up(arena: &Arena, interrupt: &Interrupt) -> Result<()> {
    let (client, direction) = (arena.ground.hub(), Direction::Forth);
    let others = arena.ground.hosts.iter().zip(&arena.tunnel.addrs).skip(1);
    let start = |(port, (server, addr)): (u16, (&Netns, &Ipv4Addr))| {
        let streams = Streams { client, server, addr: *addr, port, count: 1, direction, seconds: 1, congestion: None };
        streams.start(arena.folder(), interrupt)
    };
    let running = (PORT..).zip(others).map(start).collect::<Result<Vec<_>>>()?;
    running.into_iter().try_for_each(|running| running.finish(interrupt).map(drop))
}

#[derive(Deserialize)]
struct Output {
    #[serde(default)]
    end: End,
    error: Option<String>,
}

/// The sums of all streams; those of the other direction have names of their own.
#[derive(Deserialize, Default)]
struct End {
    sum_sent: Option<Sum>,
    sum_received: Option<Sum>,
    sum_sent_bidir_reverse: Option<Sum>,
    sum_received_bidir_reverse: Option<Sum>,
}

#[derive(Deserialize)]
struct Sum {
    bytes: f64,
    bits_per_second: f64,
    #[serde(default)]
    retransmits: u64,
}

fn parse(said: &str) -> Result<Flow> {
    let output: Output = serde_json::from_str(said).with_context(|| format!("iperf3 said: {}", said.trim()))?;
    if let Some(error) = output.error {
        bail!("iperf3 failed: {error}");
    }
    let End { sum_sent, sum_received, sum_sent_bidir_reverse, sum_received_bidir_reverse } = output.end;
    let received: Vec<Sum> = [sum_received, sum_received_bidir_reverse].into_iter().flatten().collect();
    let sent = [sum_sent, sum_sent_bidir_reverse];
    if !received.iter().any(|sum| sum.bytes > 0.0) {
        bail!("iperf3 says that nothing was received");
    }
    Ok(Flow {
        gigabits: received.iter().map(|sum| sum.bytes).sum::<f64>() * 8.0 / 1e9,
        gigabits_per_second: received.iter().map(|sum| sum.bits_per_second).sum::<f64>() / 1e9,
        retransmits: sent.iter().flatten().map(|sum| sum.retransmits).sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of iperf3 3.12, over a veth pair.
    const ONE_WAY: &str = include_str!("samples/iperf3-one-way.json");
    const BOTH_WAYS: &str = include_str!("samples/iperf3-both-ways.json");
    const REFUSED: &str = r#"{
	"start":	{
		"connected":	[],
		"version":	"iperf 3.12",
		"system_info":	"Linux vm 6.18.44 #1 SMP PREEMPT_DYNAMIC @0 x86_64"
	},
	"intervals":	[],
	"end":	{
	},
	"error":	"unable to connect to server: Connection refused"
}
"#;

    #[test]
    fn of_a_stream_what_was_received_counts() {
        let Flow { gigabits, gigabits_per_second, retransmits } = parse(ONE_WAY).expect("it is complete");

        assert!((gigabits - 19.396_559).abs() < 1e-5, "{gigabits}");
        assert!((gigabits_per_second - 19.374_278).abs() < 1e-5, "{gigabits_per_second}");
        assert_eq!(retransmits, 0);
    }

    #[test]
    fn both_directions_are_added_up() {
        let Flow { gigabits_per_second, retransmits, .. } = parse(BOTH_WAYS).expect("it is complete");

        assert!((gigabits_per_second - 7.353_046 - 6.850_781).abs() < 1e-5, "{gigabits_per_second}");
        assert_eq!(retransmits, 1 + 226);
    }

    #[test]
    fn a_client_that_is_refused_says_so() {
        let error = parse(REFUSED).expect_err("there was no stream");

        assert!(error.to_string().contains("Connection refused"), "{error:#}");
    }

    #[test]
    fn what_is_no_json_is_quoted() {
        assert!(format!("{:#}", parse("iperf3: oh no").expect_err("no JSON")).contains("oh no"));
    }
}
