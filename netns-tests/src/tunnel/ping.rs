//! Round trips, by `ping` of iputils. Not here: what is on the way meanwhile.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::ground::Arena;
use crate::interrupt::Interrupt;
use crate::stage::Process;

/// Between two requests: 50 in a second.
const PAUSE: &str = "0.02";

/// Requests in a second.
pub(super) const RATE: u16 = 50;

/// For late answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests that run.
#[derive(Debug)]
pub(super) struct Ping {
    process: Process,
    within: Duration,
}

impl Ping {
    /// From the hub to `addr`.
    ///
    /// # Errors
    /// If it cannot start.
    pub(super) fn start(arena: &Arena, addr: Ipv4Addr, count: u16) -> Result<Self> {
        let mut command = arena.ground.hub().command("ping");
        command.env("LC_ALL", "C").args(["-q", "-n", "-i", PAUSE, "-c", &count.to_string(), &addr.to_string()]);
        let process = Process::spawn(command, &arena.folder().join("ping.log"))?;
        Ok(Self { process, within: Duration::from_secs(u64::from(count / RATE)) + PATIENCE })
    }

    /// The average in milliseconds.
    ///
    /// # Errors
    /// If none was answered.
    pub(super) fn finish(mut self, interrupt: &Interrupt) -> Result<f64> {
        interrupt.wait_until(self.within, "the end of ping", || Ok(self.process.ended()))?;
        let said = self.process.output();
        let average = average_ms(&said).with_context(|| format!("ping said: {}", said.trim()))?;
        ensure!(average.is_finite(), "ping has no average: {}", said.trim());
        Ok(average)
    }
}

/// `rtt min/avg/max/mdev = 0.020/0.035/0.086/0.010 ms`; with answers that overlap it goes on.
fn average_ms(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "))?;
    line.split('/').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of iputils 20221126.
    const ANSWERED: &str = "PING 192.0.2.2 (192.0.2.2) 56(84) bytes of data.\n\n--- 192.0.2.2 ping statistics ---\n\
        50 packets transmitted, 50 received, 0% packet loss, time 1243ms\nrtt min/avg/max/mdev = 0.020/0.035/0.086/0.010 ms\n";
    const OVERLAPPING: &str = "PING 192.0.2.2 (192.0.2.2) 56(84) bytes of data.\n\n--- 192.0.2.2 ping statistics ---\n\
        10 packets transmitted, 10 received, 0% packet loss, time 183ms\nrtt min/avg/max/mdev = 80.181/80.207/80.307/0.034 ms, pipe 5\n";
    const UNANSWERED: &str = "PING 192.0.2.9 (192.0.2.9) 56(84) bytes of data.\n\n--- 192.0.2.9 ping statistics ---\n\
        3 packets transmitted, 0 received, 100% packet loss, time 46ms\n\n";

    #[test]
    fn the_average_is_the_second_figure() {
        assert_eq!((average_ms(ANSWERED), average_ms(OVERLAPPING)), (Some(0.035), Some(80.207)));
    }

    #[test]
    fn without_an_answer_there_is_no_average() {
        assert_eq!(average_ms(UNANSWERED), None);
    }
}
