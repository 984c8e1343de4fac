//! `mesh primary`: forms the mesh, runs COMMAND over it, releases the aux, exits with COMMAND's code.
//!
//! **A build is never failed by the mesh**: where the network fails and `--min-aux` did not insist, COMMAND runs here alone, and the user
//! is told. What the user got wrong (key, prefix, flags) ends the process before COMMAND starts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Outcome;
use super::actions::{self, StepSummary, group, say, warn};
use super::build::Build;
use super::command::{self, Running};
use super::device::device_gone;
use super::diagnosis::{too_few, why};
use super::journal::{Journal, ReportFile};
use super::network::{path_words, tell_network};
use super::session::{Happening, Session, no_stun};
use super::signals::{Signals, exit_code};
use super::waiting::{Formation, Waiters};
use crate::config::{Offload, PrimaryArgs};
use crate::control::{Request, Response};
use crate::exit::{Exit, Failure};
use crate::link::clock;
use crate::offload::environment::Environment;
use crate::offload::tally;
use crate::privilege;
use crate::proto::probe::Farewell;
use crate::proto::role::Role;
use crate::proto::transmit::Event;
use crate::report::{self, Report};

/// How often a user who waits is told so.
const PROGRESS: Duration = Duration::from_secs(10);

/// What COMMAND may take to end once it was asked to: less than the 7.5 s that a cancelled GitHub job has.
const GRACE: Duration = Duration::from_secs(5);

/// What ends a phase early.
enum Stop {
    /// `mesh leave`.
    Leave,
    /// A signal.
    Signal(Signal),
    /// The mesh cannot do what was asked.
    Failure(Failure),
}

/// Runs the verb.
pub(super) async fn run(args: PrimaryArgs) -> Outcome {
    if args.min_aux > args.aux {
        let what = format!("--min-aux {} is more than --aux {}", args.min_aux, args.aux);
        return Err(Failure::new(Exit::Usage, "M110", what, "at most all aux can be insisted on"));
    }
    let last = Role::Aux(args.aux.saturating_sub(1).min(Role::MAX_INDEX));
    if args.common.overlay.address(last).is_none() {
        let what = format!("the overlay {} has no address for {last}", args.common.overlay);
        return Err(Failure::new(Exit::Usage, "M604", what, "choose a larger prefix with --overlay (MESH_OVERLAY)"));
    }
    let signals = Signals::listen()?;
    match Primary::start(&args).await {
        Ok(primary) => primary.live(signals).await,
        Err(failure) if may_go_on_alone(&args, &failure) => {
            warn_alone(&failure, 0);
            alone(&args, signals).await
        }
        Err(failure) => Err(failure),
    }
}

fn warn_alone(failure: &Failure, up: usize) {
    let with = if up == 0 { "alone, on this machine".into() } else { format!("with the {up} aux that are up") };
    warn(&format!("{}; the build goes on {with}", actions::line(failure)));
}

/// Only the network's and the machine's failures, and only where the user did not insist.
fn may_go_on_alone(args: &PrimaryArgs, failure: &Failure) -> bool {
    !args.command.is_empty() && args.min_aux == 0 && (failure.exit == Exit::NoStun || is_refusal(failure))
}

/// Whether the rendezvous service itself refused, rather than the configuration being incomplete.
fn is_refusal(failure: &Failure) -> bool {
    failure.exit == Exit::NoRendezvous && failure.what.starts_with("the rendezvous cannot be used")
}

async fn alone(args: &PrimaryArgs, signals: Signals) -> Outcome {
    let caller = privilege::Caller::from_env(super::env());
    let mut report = ReportFile::create(args.common.report.as_deref(), caller.as_ref())?;
    let started = clock::now();
    let ended = match command::start(&args.command, [], caller.as_ref()) {
        Err((code, what)) => {
            say(&what);
            report::Command { exit: code.into(), wall_ms: 0 }
        }
        Ok(running) => wait_alone(running, signals).await,
    };
    report.write(&Report {
        version: env!("CARGO_PKG_VERSION").into(),
        role: "primary".into(),
        started: clock::rfc3339_now(),
        wall_ms: (clock::now() - started).as_millis() as u64,
        command: Some(ended.clone()),
        ..Report::default()
    });
    Ok(ended.exit as u8)
}

async fn wait_alone(mut running: Running, mut signals: Signals) -> report::Command {
    loop {
        tokio::select! {
            ended = running.wait() => return ended,
            signal = signals.next() => running.signal(signal),
        }
    }
}

struct Primary<'a> {
    args: &'a PrimaryArgs,
    session: Session,
    build: Option<Build>,
    journal: Journal,
    waiters: Waiters,
    up: BTreeSet<Role>,
    formed: bool,
    command: Option<report::Command>,
    report: ReportFile,
    summary: StepSummary,
}

impl<'a> Primary<'a> {
    async fn start(args: &'a PrimaryArgs) -> Result<Self, Failure> {
        let offload = Some(args.offload.name().to_string());
        let session = Session::start(&args.common, &args.services, Role::Primary, 0, offload).await?;
        let caller = session.caller.as_ref();
        let report = ReportFile::create(args.common.report.as_deref(), caller)?;
        let build = match args.offload {
            Offload::Distcc => match Build::prepare(session.control.clone(), caller) {
                // A full disk is no reason to fail a build; a missing program is the user's to install.
                Err(failure) if failure.code == "M704" && args.min_aux == 0 && !args.command.is_empty() => {
                    warn(&format!("{}; every compile stays on this machine", actions::line(&failure)));
                    None
                }
                prepared => Some(prepared?),
            },
            Offload::None => None,
        };
        let summary = StepSummary::open();
        privilege::keep_few_capabilities();
        let (journal, waiters) = (Journal::default(), Waiters::default());
        Ok(Self {
            args,
            session,
            build,
            journal,
            waiters,
            up: BTreeSet::new(),
            formed: false,
            command: None,
            report,
            summary,
        })
    }

    async fn live(mut self, mut signals: Signals) -> Outcome {
        let handle = self.session.handle.clone();
        if let Some(build) = &mut self.build {
            build.count(handle, self.session.forwards.ports().clone());
        }
        let outcome = match self.form(&mut signals).await {
            Ok(()) if self.args.command.is_empty() => self.serve(&mut signals).await,
            Ok(()) => self.run_command(signals).await,
            Err(Stop::Leave) => Ok(Exit::Ok.code()),
            Err(Stop::Signal(signal)) => Ok(exit_code(signal)),
            Err(Stop::Failure(failure)) => Err(failure),
        };
        if let Err(failure) = &outcome {
            self.waiters.fail(failure);
        }
        self.finish().await;
        outcome
    }

    /// Waits for the aux, as long as was asked.
    async fn form(&mut self, signals: &mut Signals) -> Result<(), Stop> {
        let deadline = clock::now() + self.args.join_timeout;
        let mut progress = tokio::time::interval(PROGRESS);
        progress.tick().await;
        let patience = humantime::format_duration(self.args.join_timeout);
        say(&format!("waiting for {} aux at {}, at most {patience}", self.args.aux, self.session.place));
        while self.expected_up() < usize::from(self.args.aux) {
            let handled = tokio::select! {
                happening = self.session.next() => self.handle(happening).await,
                signal = signals.next() => Err(Stop::Signal(signal)),
                () = tokio::time::sleep_until(deadline.into()) => break,
                _ = progress.tick() => { say(&self.progress()); Ok(()) }
                () = until(self.waiters.deadline()) => { self.settle(); Ok(()) }
            };
            match handled {
                Err(Stop::Failure(failure)) if !self.insists() => {
                    warn_alone(&failure, self.up.len());
                    self.formed = true;
                    return Ok(());
                }
                other => other?,
            }
        }
        if self.up.len() < usize::from(self.args.min_aux) {
            let reasons = self.missing().await;
            return Err(Stop::Failure(too_few(self.up.len(), self.args.min_aux, &reasons, &self.session.tally())));
        }
        self.tell_formed().await;
        Ok(())
    }

    /// Whether a mesh that fails must fail the process: the user asked for aux, or for nothing but the mesh.
    fn insists(&self) -> bool {
        self.args.min_aux > 0 || self.args.command.is_empty()
    }

    async fn tell_formed(&mut self) {
        self.formed = true;
        for reason in self.missing().await {
            warn(&format!("{reason}; the build goes on without it"));
        }
        let slots = self.build.as_ref().map_or(0, |build| build.slots());
        let engine = self.args.offload.name();
        say(&format!("mesh is up: {} of {} aux, {slots} slots ({engine})", self.up.len(), self.args.aux));
        self.await_missing();
        self.settle();
    }

    /// Without COMMAND: stays until somebody says so.
    async fn serve(&mut self, signals: &mut Signals) -> Outcome {
        loop {
            let handled = tokio::select! {
                happening = self.session.next() => self.handle(happening).await,
                signal = signals.next() => Err(Stop::Signal(signal)),
                () = until(self.waiters.deadline()) => { self.settle(); Ok(()) }
            };
            match handled {
                Ok(()) => {}
                Err(Stop::Failure(failure)) => warn(&actions::line(&failure)),
                Err(Stop::Leave) => return Ok(Exit::Ok.code()),
                Err(Stop::Signal(signal)) => return Ok(exit_code(signal)),
            }
        }
    }

    async fn run_command(&mut self, mut signals: Signals) -> Outcome {
        let environment = self.environment();
        let variables = environment.variables().map(|(name, value)| (name, value.to_owned()));
        let running = command::start(&self.args.command, variables, self.session.caller.as_ref());
        let ended = match running {
            Err((code, what)) => {
                say(&what);
                report::Command { exit: code.into(), wall_ms: 0 }
            }
            Ok(running) => self.watch(running, &mut signals).await,
        };
        let code = ended.exit as u8;
        self.command = Some(ended);
        Ok(code)
    }

    /// Until COMMAND ends, or has been asked to and does not.
    async fn watch(&mut self, mut running: Running, signals: &mut Signals) -> report::Command {
        let mut asked_to_end: Option<Instant> = None;
        loop {
            let handled = tokio::select! {
                ended = running.wait() => return ended,
                happening = self.session.next() => self.handle(happening).await,
                signal = signals.next() => Err(Stop::Signal(signal)),
                () = until(self.waiters.deadline()) => { self.settle(); Ok(()) }
                () = until(asked_to_end.map(|at| at + GRACE)) => {
                    warn("COMMAND does not end, killing it");
                    running.kill();
                    return running.wait().await;
                }
            };
            match handled {
                Ok(()) => {}
                Err(Stop::Failure(failure)) => warn(&actions::line(&failure)),
                Err(Stop::Leave) => {
                    say("asked to leave: ending COMMAND");
                    running.signal(Signal::SIGTERM);
                    asked_to_end.get_or_insert(clock::now());
                }
                Err(Stop::Signal(_)) if asked_to_end.is_some() => running.kill(),
                Err(Stop::Signal(signal)) => {
                    running.signal(signal);
                    asked_to_end = Some(clock::now());
                }
            }
        }
    }

    async fn handle(&mut self, happening: Happening) -> Result<(), Stop> {
        match happening {
            Happening::Node(event) => self.handle_event(event).await.map_err(Stop::Failure)?,
            Happening::Collected(collected) => self.session.admit(collected),
            Happening::Duplicate => {
                warn("M105 another process is primary of this run; hint: start `mesh primary` in one job only")
            }
            Happening::Refused(failure) => return Err(Stop::Failure(failure)),
            Happening::Asked((request, reply)) => return self.answer(request, reply).await,
        }
        Ok(())
    }

    async fn handle_event(&mut self, event: Event) -> Result<(), Failure> {
        let why = self.session.why_indirect(&event).await;
        self.journal.follow(clock::now() - self.session.started, &event, &why);
        match event {
            Event::Settled { answers: 0, .. } => return Err(no_stun(&self.args.common)),
            Event::Settled { nat, reflexive, .. } => tell_network(nat, &reflexive),
            Event::Publish(announcement) => self.session.publish(*announcement),
            Event::Up { role, connect, route } => {
                self.session.hide(route);
                self.up.insert(role);
                let (ms, up, aux) = (connect.as_millis(), self.up.len(), self.args.aux);
                say(&format!("{role} is up, {}, in {ms} ms ({up} of {aux})", path_words(route, &why)));
                if role.number() > aux {
                    warn(&format!("{role} is more than --aux {aux} promised; it helps all the same"));
                }
                self.follow().await;
            }
            Event::Gone { role, silent } => {
                self.up.remove(&role);
                warn(&format!("{role} is gone: M503 nothing heard for {} s; its jobs run elsewhere", silent.as_secs()));
                self.follow().await;
            }
            Event::Back { role, .. } => {
                self.up.insert(role);
                self.follow().await;
            }
            Event::Rebind(reason) => self.session.rebind(reason),
            Event::Doubt(doubt) => self.session.doubt(doubt),
            Event::Suspect { role } => self.session.suspect(role),
            Event::Rerouted { to, .. } => {
                self.session.hide(to);
                self.await_missing();
                self.settle();
            }
            Event::Recovered { .. } => self.await_missing(),
            Event::Left { role } => {
                self.up.remove(&role);
                warn(&format!("{role} has left"));
                self.follow().await;
            }
            Event::Unusable { role, why } => {
                warn(&format!("M604 {role} cannot join: {why}; hint: use the same --overlay on every runner"))
            }
            Event::DeviceGone => {
                self.up.clear();
                self.follow().await;
                return Err(device_gone(&self.args.common));
            }
            Event::Mtu { .. } | Event::OneByOne | Event::Relay { .. } | Event::Stranded => {}
            Event::Released | Event::Replaced => tracing::debug!("a goodbye that is not for a primary"),
        }
        Ok(())
    }

    async fn answer(&mut self, request: Request, reply: tokio::sync::oneshot::Sender<Response>) -> Result<(), Stop> {
        match request {
            Request::Status => {
                let _ = reply.send(Response::Status(Box::new(self.as_of_now().await)));
            }
            Request::Env => {
                let _ = reply.send(super::control::response(&self.environment()));
            }
            Request::Door { namespace, read_only } => {
                let _ = reply.send(self.session.door(namespace.as_deref(), read_only));
            }
            Request::Wait { aux, timeout_ms, direct } => {
                self.waiters.add(clock::now(), (aux, direct), Duration::from_millis(timeout_ms), reply);
                self.settle();
            }
            Request::Leave => {
                let _ = reply.send(Response::Done);
                return Err(Stop::Leave);
            }
        }
        Ok(())
    }

    fn environment(&self) -> Environment {
        match &self.build {
            Some(build) => build.environment().with(self.session.cache_variables()),
            None => self.session.environment(),
        }
    }

    fn await_missing(&self) {
        self.session.await_peers(self.up.len() < usize::from(self.args.aux));
    }

    /// Whatever depends on who is up.
    async fn follow(&mut self) {
        let peers = self.session.snapshot().await.peers;
        if let Some(build) = &mut self.build {
            build.follow(&peers, &mut self.session.forwards);
        }
        self.await_missing();
        self.settle();
    }

    /// How many of the aux that were promised are up; others may have come too.
    fn expected_up(&self) -> usize {
        self.up.iter().filter(|role| role.number() <= self.args.aux).count()
    }

    fn settle(&mut self) {
        let (up, direct) = (self.up.len(), self.journal.direct());
        let formation = Formation { up, direct, expected: self.args.aux.into(), formed: self.formed };
        self.waiters.settle(clock::now(), formation);
    }

    fn progress(&self) -> String {
        let since = (clock::now() - self.session.started).as_secs();
        format!("waiting for aux: {} of {} up after {since} s", self.up.len(), self.args.aux)
    }

    fn expected(&self) -> impl Iterator<Item = Role> + use<> {
        (0..self.args.aux).map(Role::Aux)
    }

    async fn missing(&self) -> Vec<String> {
        let (peers, tally) = (self.session.snapshot().await.peers, self.session.tally());
        let missing = self.expected().filter(|role| !self.up.contains(role));
        let reason = |role: Role| format!("{role}: {}", why(peers.iter().find(|peer| peer.role == role), &tally));
        missing.map(reason).collect()
    }

    async fn as_of_now(&self) -> Report {
        if let Some(build) = &self.build {
            build.count_now(&self.session.handle, self.session.forwards.ports()).await;
        }
        let jobs = |role| self.build.as_ref().map_or(0, |build| build.jobs(role));
        let mut report =
            self.journal.report(&self.session, Role::Primary, self.args.common.overlay, self.expected(), jobs).await;
        let remote = report.peers.iter().map(|peer| peer.jobs).sum();
        let local_reasons = self.build.as_ref().map(|build| build.local_reasons(remote)).unwrap_or_default();
        report.offload = Some(report::Offload {
            engine: self.args.offload.name().into(),
            remote,
            local: local_reasons.values().sum(),
            cached: 0,
            duplicated: 0,
            failed_over: local_reasons.get(tally::FAILED_OVER).copied().unwrap_or_default(),
            local_reasons,
            primary_cpu_ms: command::children_cpu().as_millis() as u64,
        });
        report.command = self.command.clone();
        report
    }

    /// The report, and goodbye. The aux are released before anything is printed.
    async fn finish(mut self) {
        let report = self.as_of_now().await;
        self.report.write(&report);
        self.session.end(Farewell::Released).await;
        if !report.peers.is_empty() {
            let cache = report.cache.as_ref().map_or(String::new(), |cache| format!("\n{}", cache.line()));
            group("summary", &format!("{}{}{cache}", report.table(), report.compiles()));
            self.summary.write(&format!("### mesh\n\n{}{cache}\n", report.markdown()));
        }
    }
}

/// Sleeps until a moment, or for ever.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
