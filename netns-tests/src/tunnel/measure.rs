//! What is measured in an arena, step by step. Not here: who is measured, and how often.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::figures::{Reading, Section};
use super::ground::Arena;
use super::iperf::{Direction, Flow, PORT, Running, Streams};
use super::ping::{Ping, RATE};
use super::{Kind, Plan, machine};
use crate::interrupt::Interrupt;
use crate::lab::{Link, Netns};
use crate::stage::Process;

/// As many streams at once as a build has.
const STREAMS: [u16; 2] = [1, 8];

/// What a stream takes to be at its full speed.
const START: Duration = Duration::from_millis(500);

/// Requests of an idle measurement.
const ECHOES: u16 = 50;

/// One measurement, that is yet to be made.
pub(super) struct Step<'a> {
    pub(super) what: String,
    pub(super) run: Box<dyn FnOnce() -> Result<Vec<Reading>> + 'a>,
}

impl<'a> Step<'a> {
    fn new(what: &str, run: impl FnOnce() -> Result<Vec<Reading>> + 'a) -> Self {
        Self { what: what.to_owned(), run: Box::new(run) }
    }
}

/// All of a kind, in order.
pub(super) fn steps<'a>(kind: Kind, plan: &'a Plan, interrupt: &'a Interrupt, arena: &'a Arena) -> Vec<Step<'a>> {
    let measuring = Measuring { plan, interrupt, arena };
    match kind {
        Kind::Streams => measuring.streams(),
        Kind::Rtt => measuring.round_trips(),
        Kind::Grid => measuring.grid(),
        Kind::Star => measuring.star(),
    }
}

#[derive(Clone, Copy)]
struct Measuring<'a> {
    plan: &'a Plan,
    interrupt: &'a Interrupt,
    arena: &'a Arena,
}

impl<'a> Measuring<'a> {
    fn streams(self) -> Vec<Step<'a>> {
        let ways = [("A to B", Direction::Forth), ("B to A", Direction::Back), ("both", Direction::Both)];
        let cells = STREAMS.into_iter().flat_map(|count| ways.map(|(way, direction)| (count, way, direction)));
        let step = |(count, way, direction): (u16, &str, Direction)| {
            let column = format!("{count}, {way}");
            Step::new(&format!("streams: {column}"), move || {
                let (flow, cost) =
                    self.costed(|| self.pair(count, direction)?.run(self.arena.folder(), self.interrupt))?;
                let speed = Reading::new(Section::Throughput, &column, flow.gigabits_per_second);
                let again = Reading::new(Section::Retransmits, &column, flow.retransmits as f64);
                Ok([vec![speed, again], cost.readings(&column, flow.gigabits)].concat())
            })
        };
        let memory = Step::new("memory", move || self.memory("streams", &self.arena.tunnel.daemons));
        cells.map(step).chain([memory]).collect()
    }

    fn round_trips(self) -> Vec<Step<'a>> {
        let reading = |column, value| Ok(vec![Reading::new(Section::RoundTrip, column, value)]);
        let idle = move || reading("idle", self.ping(ECHOES)?.finish(self.interrupt)?);
        let loaded = move || {
            let stream = self.pair(1, Direction::Forth)?.start(self.arena.folder(), self.interrupt)?;
            self.interrupt.pass(START)?;
            let ping = self.ping((self.plan.seconds * RATE).saturating_sub(RATE).max(RATE / 2))?;
            let average = ping.finish(self.interrupt)?;
            stream.finish(self.interrupt)?;
            reading("beside a stream", average)
        };
        vec![Step::new("round trips, idle", idle), Step::new("round trips beside a stream", loaded)]
    }

    fn grid(self) -> Vec<Step<'a>> {
        let links = self.plan.delay.iter().flat_map(|delay| self.plan.loss.iter().map(move |loss| (*delay, *loss)));
        let step = |(delay, loss): (u16, f32)| {
            let column = format!("{delay} ms {loss} %");
            Step::new(&format!("stream with {column}"), move || {
                let cable = self.arena.ground.cable.as_ref().context("this arena has no cable")?;
                cable.set_link(Link {
                    delay: Duration::from_millis(delay.into()),
                    loss_percent: loss,
                    ..Link::default()
                })?;
                let flow = self.pair(1, Direction::Forth)?.run(self.arena.folder(), self.interrupt)?;
                let speed = Reading::new(Section::Grid, &column, flow.gigabits_per_second);
                Ok(vec![speed, Reading::new(Section::GridRetransmits, &column, flow.retransmits as f64)])
            })
        };
        links.map(step).collect()
    }

    /// The clients are on the spokes, so that the data goes forth to the hub.
    fn star(self) -> Vec<Step<'a>> {
        let step = |(column, direction): (&'static str, Direction)| {
            Step::new(&format!("star: {column}"), move || {
                let (flows, cost) = self.costed(|| self.spokes(direction))?;
                let speeds: Vec<f64> = flows.iter().map(|flow| flow.gigabits_per_second).collect();
                let (slowest, fastest) =
                    (speeds.iter().copied().fold(f64::MAX, f64::min), speeds.iter().copied().fold(0.0, f64::max));
                let again: u64 = flows.iter().map(|flow| flow.retransmits).sum();
                let readings = vec![
                    Reading::new(Section::Star, column, speeds.iter().sum()),
                    Reading::new(Section::Star, &format!("{column}, least"), slowest),
                    Reading::new(Section::Star, &format!("{column}, most"), fastest),
                    Reading::new(Section::Retransmits, column, again as f64),
                ];
                Ok([readings, cost.readings(column, flows.iter().map(|flow| flow.gigabits).sum())].concat())
            })
        };
        let hub = self.arena.tunnel.daemons.get(..1).unwrap_or_default();
        let memory = Step::new("memory of the hub", move || self.memory("hub of 8", hub));
        [("8 to hub", Direction::Forth), ("hub to 8", Direction::Back)].map(step).into_iter().chain([memory]).collect()
    }

    fn spokes(self, direction: Direction) -> Result<Vec<Flow>> {
        let (server, addr) = self.host(0)?;
        let (seconds, congestion) = (self.plan.seconds, self.plan.congestion.as_deref());
        let start = |(port, client): (u16, &'a Netns)| {
            let streams = Streams { client, server, addr, port, count: 1, direction, seconds, congestion };
            streams.start(self.arena.folder(), self.interrupt)
        };
        let all = (PORT..).zip(&self.arena.ground.hosts[1..]).map(start).collect::<Result<Vec<Running>>>()?;
        all.into_iter().map(|running| running.finish(self.interrupt)).collect()
    }

    /// From A, which is the hub, to B.
    fn pair(self, count: u16, direction: Direction) -> Result<Streams<'a>> {
        let (client, (server, addr)) = (self.arena.ground.hub(), self.host(1)?);
        let (seconds, congestion) = (self.plan.seconds, self.plan.congestion.as_deref());
        Ok(Streams { client, server, addr, port: PORT, count, direction, seconds, congestion })
    }

    fn ping(self, count: u16) -> Result<Ping> {
        Ping::start(self.arena, self.host(1)?.1, count)
    }

    fn host(self, index: usize) -> Result<(&'a Netns, Ipv4Addr)> {
        let (hosts, addrs) = (&self.arena.ground.hosts, &self.arena.tunnel.addrs);
        hosts.get(index).zip(addrs.get(index).copied()).with_context(|| format!("there is no host {index}"))
    }

    /// What `work` came to, and what processors did meanwhile.
    fn costed<T>(self, work: impl FnOnce() -> Result<T>) -> Result<(T, Cost)> {
        let (daemons, machine) = (self.daemons_cpu()?, machine::cpu()?);
        let value = work()?;
        let spent = self.daemons_cpu()?.zip(daemons).map(|(after, before)| after.saturating_sub(before));
        Ok((value, Cost { daemons: spent, machine: machine::cpu()?.saturating_sub(machine) }))
    }

    /// `None` where there are none.
    fn daemons_cpu(self) -> Result<Option<Duration>> {
        let daemons = &self.arena.tunnel.daemons;
        let all: Duration = daemons.iter().map(Process::cpu).sum::<Result<_>>()?;
        Ok((!daemons.is_empty()).then_some(all))
    }

    fn memory(self, column: &str, of: &[Process]) -> Result<Vec<Reading>> {
        let each = of.iter().map(|daemon| daemon.memory_mib("VmHWM")).collect::<Result<Vec<_>>>()?;
        let most = each.into_iter().reduce(f64::max);
        Ok(most.map(|most| Reading::new(Section::Memory, column, most)).into_iter().collect())
    }
}

/// Of some streams.
struct Cost {
    daemons: Option<Duration>,
    machine: Duration,
}

impl Cost {
    fn readings(&self, column: &str, gigabits: f64) -> Vec<Reading> {
        let per_gigabit = |section, spent: Duration| Reading::new(section, column, spent.as_secs_f64() / gigabits);
        let daemons = self.daemons.map(|spent| per_gigabit(Section::DaemonCpu, spent));
        daemons.into_iter().chain([per_gigabit(Section::MachineCpu, self.machine)]).collect()
    }
}
