//! Keeps what the report tells that nobody else remembers: changes of paths, and the report file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use super::actions::{say, warn};
use super::device;
use super::diagnosis::why;
use super::network::{path_words, tell_relay, warn_one_by_one};
use super::session::Session;
use crate::exit::{Exit, Failure};
use crate::link::{Snapshot, clock};
use crate::privilege::Caller;
use crate::proto::overlay::{MTU, Prefix};
use crate::proto::peer::{PeerView, State};
use crate::proto::role::Role;
use crate::proto::route::Route;
use crate::proto::transmit::Event;
use crate::rendezvous::board::Tally;
use crate::report::{self, Change, Network, Report};

/// Changes kept for each peer; a path that flaps must not fill the memory.
const MOST_CHANGES: usize = 100;

/// What happened to the paths.
#[derive(Debug, Default)]
pub(super) struct Journal {
    kinds: BTreeMap<Role, &'static str>,
    changes: BTreeMap<Role, Vec<Change>>,
}

impl Journal {
    /// Notes what `event` changed, `at` since the start, and tells the user; `why` explains a path that is not direct. What else a verb makes of
    /// it is its own matter.
    pub(super) fn follow(&mut self, at: Duration, event: &Event, why: &str) {
        match event {
            Event::Up { role, route, .. } => self.note(*role, at, kind(*route), why),
            Event::Back { role, route } => {
                say(&format!("{role} is back, {}", path_words(*route, why)));
                self.note(*role, at, kind(*route), if route.is_direct() { "heard again" } else { why });
            }
            Event::Gone { role, silent } => {
                let why = format!("M503 nothing heard for {} s", silent.as_secs());
                self.note(*role, at, "none", &why);
            }
            Event::Left { role } => self.note(*role, at, "none", "it said goodbye"),
            Event::Recovered { role, took } => {
                let why = format!("M501 it did not answer or had moved, and is back after {} ms", took.as_millis());
                say(&format!("{role}: {why}"));
                let same = self.kinds.get(role).copied().unwrap_or("direct");
                self.note(*role, at, same, &why);
            }
            Event::Rerouted { role, to, .. } => {
                let how = if to.is_direct() { "direct again".into() } else { path_words(*to, why) };
                say(&format!("{role} is now reached {how}"));
                self.note(*role, at, kind(*to), if to.is_direct() { "a direct path was found" } else { why });
            }
            Event::Mtu { role, mtu, narrower: false } => {
                say(&format!("{role}: packets of up to {mtu} bytes get through again"));
            }
            Event::Mtu { role, mtu, narrower: true } => {
                warn(&format!(
                    "M402 {role}: packets above {mtu} bytes do not get through, so shorter ones are sent; hint: an MTU of 1500 on the way is faster"
                ));
            }
            Event::OneByOne => warn_one_by_one("this system or its network card takes datagrams"),
            Event::Relay { server, takes_us } => tell_relay(*server, *takes_us),
            _ => {}
        }
    }

    /// How many peers are reached without a relay.
    pub(super) fn direct(&self) -> usize {
        self.kinds.values().filter(|kind| **kind == "direct").count()
    }

    fn note(&mut self, role: Role, at: Duration, to: &'static str, why: &str) {
        let from = self.kinds.insert(role, to).unwrap_or("none");
        let changes = self.changes.entry(role).or_default();
        if changes.len() < MOST_CHANGES {
            let at_ms = at.as_millis() as u64;
            changes.push(Change { at_ms, from: from.into(), to: to.into(), why: why.into() });
        }
    }

    /// The report as of now, about `expected` peers and whoever else came. `jobs` tells how many jobs a peer ran.
    pub(super) async fn report(
        &self,
        session: &Session,
        role: Role,
        overlay: Prefix,
        expected: impl Iterator<Item = Role>,
        jobs: impl Fn(Role) -> u64,
    ) -> Report {
        let (snapshot, tally) = (session.snapshot().await, session.tally());
        let mut roles: Vec<Role> = expected.chain(snapshot.peers.iter().map(|peer| peer.role)).collect();
        roles.sort();
        roles.dedup();
        let peer = |role: Role| {
            let view = snapshot.peers.iter().find(|peer| peer.role == role);
            let changes = self.changes.get(&role).cloned().unwrap_or_default();
            report::Peer { changes, jobs: jobs(role), ..describe(role, overlay, view, &tally) }
        };
        Report {
            version: env!("CARGO_PKG_VERSION").into(),
            role: if role == Role::Primary { "primary" } else { "aux" }.into(),
            run: session.run.clone(),
            started: session.started_at.clone(),
            wall_ms: (clock::now() - session.started).as_millis() as u64,
            network: network(&snapshot, device::name(session.forwards.ports())),
            peers: roles.into_iter().map(peer).collect(),
            offload: None,
            cache: session.cached(),
            command: None,
            skipped: skipped(&tally),
            dropped: snapshot.dropped.iter().map(|(cause, count)| ((*cause).to_string(), *count)).collect(),
        }
    }
}

fn network(snapshot: &Snapshot, device: &str) -> Network {
    let Snapshot { nat, peers, relays, relayed, moves, .. } = snapshot;
    Network {
        mapping: nat.mapping.to_string(),
        ports: nat.ports.to_string(),
        egress: nat.egress.into(),
        mtu: peers.iter().map(|peer| peer.mtu).min().unwrap_or(MTU),
        relays: relays.iter().filter(|(_, registered)| *registered).count(),
        relayed_bytes: relayed.1,
        moves: *moves,
        device: device.into(),
    }
}

/// As the report's contract has it.
fn kind(route: Route) -> &'static str {
    if route.is_direct() { "direct" } else { "relay" }
}

/// Who relays.
fn via(route: Route) -> Option<String> {
    match route {
        Route::Direct { .. } => None,
        Route::Relayed(relay) => Some(relay.to_string()),
    }
}

fn skipped(tally: &Tally) -> BTreeMap<String, u64> {
    let rejected = tally.rejected.iter().map(|(cause, count)| (cause.to_string(), *count));
    let others = [("of another attempt", tally.other_attempts), ("cannot be fetched", tally.unreadable)];
    let others = others.into_iter().filter(|(_, count)| *count > 0).map(|(cause, count)| (cause.to_string(), count));
    rejected.chain(others).collect()
}

fn describe(role: Role, overlay: Prefix, view: Option<&PeerView>, tally: &Tally) -> report::Peer {
    let index = match role {
        Role::Primary => None,
        Role::Aux(index) => Some(index),
    };
    let was_up = view.is_some_and(|peer| peer.connect.is_some());
    let state = match view.map(|peer| peer.state) {
        Some(State::Up) => "up",
        _ if was_up => "gone",
        _ => "never",
    };
    let route = view.and_then(|peer| peer.route).filter(|_| was_up);
    // What it was before it said goodbye.
    let has_left = was_up && view.is_some_and(|peer| peer.state == State::Left);
    let path = report::Path {
        kind: route.map_or(if has_left { "direct" } else { "none" }, kind).into(),
        via: route.and_then(via),
        crossing: view.map(|peer| peer.crossing.to_string()).unwrap_or_default(),
        nat: view.map(|peer| peer.nat.to_string()).unwrap_or_default(),
        rtt_ms: view.and_then(|peer| peer.rtt).map_or(0.0, |rtt| (rtt.as_secs_f64() * 1e4).round() / 10.0),
        why: why(view, tally),
    };
    report::Peer {
        index,
        overlay: overlay.address(role).map(|addr| addr.to_string()).unwrap_or_default(),
        state: state.into(),
        connect_ms: view.and_then(|peer| peer.connect).map(|connect| connect.as_millis() as u64),
        path,
        changes: vec![],
        tx_bytes: view.map_or(0, |peer| peer.tx_bytes),
        rx_bytes: view.map_or(0, |peer| peer.rx_bytes),
        slots: view.map_or(0, |peer| peer.slots),
        jobs: 0,
    }
}

/// The file for the report, made at the start: a path that cannot be written is said then, and while we still have the rights.
#[derive(Debug)]
pub(super) struct ReportFile(Option<File>);

impl ReportFile {
    /// Makes the file at `path`, and gives it to `caller`.
    pub(super) fn create(path: Option<&Path>, caller: Option<&Caller>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self(None)) };
        let failed = |error: std::io::Error| {
            let what = format!("cannot write the report to {}: {error}", path.display());
            Failure::new(
                Exit::Usage,
                "M109",
                what,
                "check --report (MESH_REPORT): its folder must exist and be writable",
            )
        };
        let file = File::create(path).map_err(failed)?;
        if let Some(caller) = caller {
            caller.own_file(&file).map_err(|errno| failed(errno.into()))?;
        }
        Ok(Self(Some(file)))
    }

    /// Writes the report. Too late to fail a build for it: a warning.
    pub(super) fn write(&mut self, report: &Report) {
        let Some(file) = &mut self.0 else { return };
        let written = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.set_len(0))
            .and_then(|()| file.write_all(report.to_json().as_bytes()));
        if let Err(error) = written {
            warn(&format!("M109 the report could not be written: {error}; hint: check the free space there"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::proto::crossing::Crossing;
    use crate::proto::nat::Behaviour;
    use crate::proto::route::Relay;

    #[test]
    fn a_peer_that_is_back_over_a_relay_is_not_called_direct() {
        let (mut journal, role) = (Journal::default(), Role::Aux(0));
        for (route, direct) in [(Route::Relayed(Relay::Server(0)), 0), (Route::to(([192, 0, 2, 1], 7).into()), 1)] {
            journal.follow(Duration::ZERO, &Event::Gone { role, silent: Duration::from_secs(12) }, "");
            journal.follow(Duration::ZERO, &Event::Back { role, route }, "M203 both NATs map by destination");
            assert_eq!(journal.direct(), direct, "{route:?}");
        }
    }

    #[test]
    fn a_peer_without_a_route_is_not_called_direct() {
        let kind = |state| {
            let view = PeerView {
                role: Role::Aux(0),
                overlay: Ipv4Addr::new(10, 77, 0, 2),
                state,
                connect: Some(Duration::from_millis(80)),
                route: None,
                rtt: None,
                mtu: MTU,
                nat: Behaviour::default(),
                crossing: Crossing::Direct,
                heard_directly: true,
                silent: Duration::ZERO,
                tx_bytes: 0,
                rx_bytes: 0,
                slots: 4,
                offload: None,
            };
            let overlay = Prefix::new(Ipv4Addr::new(10, 77, 0, 0), 16);
            describe(Role::Aux(0), overlay, Some(&view), &Tally::default()).path.kind
        };
        assert_eq!([State::Up, State::Gone, State::Left].map(kind), ["none", "none", "direct"]);
    }
}
