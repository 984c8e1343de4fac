//! `mesh aux`: joins, serves, and leaves when it is released, when the primary is gone, or when it is asked to.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use super::actions::{StepSummary, say, warn};
use super::device::device_gone;
use super::diagnosis::not_joined;
use super::journal::{Journal, ReportFile};
use super::network::{path_words, tell_network};
use super::session::{Happening, Session, no_stun};
use super::signals::{Signals, exit_code};
use super::waiting::{Formation, Waiters};
use super::{Outcome, env};
use crate::config::{AuxArgs, Offload};
use crate::control::{Request, Response};
use crate::exit::{Exit, Failure};
use crate::link::clock;
use crate::offload::distccd::{self, Distccd};
use crate::offload::stats;
use crate::privilege;
use crate::proto::peer::PeerView;
use crate::proto::probe::Farewell;
use crate::proto::role::Role;
use crate::proto::transmit::Event;
use crate::rendezvous::board::Collected;

/// How often an aux looks whether it is needed.
const LOOK: Duration = Duration::from_millis(500);

/// How long an aux that leaves may hand on what only its cache has: when it was asked to, and by a signal, which GitHub follows up
/// after 7.5 s: saying goodbye takes up to 4 of them.
const HAND_OVER: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(2));

/// Less would take a lost ping for the end of the build.
const LEAST_IDLE: Duration = Duration::from_secs(5);

/// Why an aux ends.
enum End {
    Released,
    Asked,
    Signal(nix::sys::signal::Signal),
    Failure(Failure),
}

struct Aux<'a> {
    args: &'a AuxArgs,
    slots: u16,
    session: Session,
    distccd: Option<Distccd>,
    distccd_events: (mpsc::UnboundedSender<distccd::Event>, mpsc::UnboundedReceiver<distccd::Event>),
    journal: Journal,
    waiters: Waiters,
    up: bool,
    report: ReportFile,
}

/// Runs the verb.
pub(super) async fn run(args: AuxArgs) -> Outcome {
    let mut signals = Signals::listen()?;
    let mut aux = Aux::start(&args).await?;
    let end = aux.serve(&mut signals).await;
    aux.finish(end).await
}

impl<'a> Aux<'a> {
    async fn start(args: &'a AuxArgs) -> Result<Self, Failure> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u16);
        let slots = args.slots.unwrap_or(cores);
        let session = Session::start(&args.common, &args.services, Role::Aux(args.index), slots, None).await?;
        let report = ReportFile::create(args.common.report.as_deref(), session.caller.as_ref())?;
        privilege::keep_few_capabilities();
        Ok(Self {
            args,
            slots,
            session,
            distccd: None,
            distccd_events: mpsc::unbounded_channel(),
            journal: Journal::default(),
            waiters: Waiters::default(),
            up: false,
            report,
        })
    }

    async fn serve(&mut self, signals: &mut Signals) -> End {
        let place = &self.session.place;
        say(&format!("{} with {} slots, looking for the primary at {place}", Role::Aux(self.args.index), self.slots));
        if let Err(failure) = super::build::check_distcc("distccd") {
            warn(&super::actions::line(&failure));
        }
        let mut look = tokio::time::interval(LOOK);
        loop {
            let end = tokio::select! {
                happening = self.session.next() => self.handle(happening).await,
                Some(event) = self.distccd_events.1.recv() => { warn(&format!("M702 {event}")); None }
                signal = signals.next() => Some(End::Signal(signal)),
                _ = look.tick() => self.look().await,
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn handle(&mut self, happening: Happening) -> Option<End> {
        match happening {
            Happening::Node(event) => self.handle_event(event).await,
            Happening::Collected(collected) => self.meet(collected).await.err().map(End::Failure),
            Happening::Duplicate => Some(End::Failure(self.replaced())),
            Happening::Refused(failure) if !self.up => Some(End::Failure(failure)),
            Happening::Refused(failure) => {
                warn(&super::actions::line(&failure));
                None
            }
            Happening::Asked((request, reply)) => self.answer(request, reply).await,
        }
    }

    /// The primary is there: what it asks of us must work before we say that we are ready.
    async fn meet(&mut self, collected: Collected) -> Result<(), Failure> {
        let wants_distcc = collected.announcement.offload.as_deref() == Some(Offload::Distcc.name());
        if wants_distcc && self.distccd.is_none() {
            self.distccd = Some(if self.session.forwards.ports().are_ours_alone() {
                self.start_distccd_behind_stack().await?
            } else {
                // INVARIANT: the session was started with an address for this role.
                let overlay = self.args.common.overlay;
                let own = overlay.address(Role::Aux(self.args.index)).unwrap_or(overlay.base());
                self.start_distccd(own, [distccd::PORT, distccd::STATS_PORT], overlay.to_string()).await?
            });
        }
        self.session.admit(collected);
        Ok(())
    }

    /// The kernel has no overlay address to listen on: peers come through the stack, and to distccd from this machine itself.
    async fn start_distccd_behind_stack(&mut self) -> Result<Distccd, Failure> {
        let ports = distccd::free_ports()?;
        let here = Ipv4Addr::LOCALHOST;
        let distccd = self.start_distccd(here, ports, here.to_string()).await?;
        for (overlay, port) in [distccd::PORT, distccd::STATS_PORT].into_iter().zip(ports) {
            self.session.forwards.expose(overlay, SocketAddrV4::new(here, port)).map_err(|error| {
                let what = format!("cannot take connections on the overlay's port {overlay} for distccd: {error}");
                Failure::new(Exit::InUse, "M702", what, "this is a bug: please report it")
            })?;
        }
        Ok(distccd)
    }

    async fn start_distccd(&self, listen: Ipv4Addr, ports: [u16; 2], allow: String) -> Result<Distccd, Failure> {
        let config = distccd::Config {
            guard: std::env::current_exe().map_err(|error| {
                let what = format!("cannot find our own binary: {error}");
                Failure::new(Exit::Failure, "M199", what, "start mesh from a file that stays where it is")
            })?,
            listen,
            port: ports[0],
            stats_port: ports[1],
            allow,
            slots: self.slots,
            log: distccd_log(),
            path: distccd::search_path(env()("PATH").as_deref().map(AsRef::as_ref)),
        };
        Distccd::start(config, self.distccd_events.0.clone()).await
    }

    async fn handle_event(&mut self, event: Event) -> Option<End> {
        let why = self.session.why_indirect(&event).await;
        self.journal.follow(clock::now() - self.session.started, &event, &why);
        match event {
            Event::Settled { answers: 0, .. } => return Some(End::Failure(no_stun(&self.args.common))),
            Event::Settled { nat, reflexive, .. } => tell_network(nat, &reflexive),
            Event::Publish(announcement) => self.session.publish(*announcement),
            Event::Up { role, connect, route } => {
                self.session.hide(route);
                say(&format!("{role} is up, {}, in {} ms", path_words(route, &why), connect.as_millis()));
                self.set_up(role, true);
            }
            Event::Gone { role: Role::Primary, silent } => {
                let idle = humantime::format_duration(self.args.idle_timeout());
                let silent = silent.as_secs();
                warn(&format!(
                    "the primary is gone: M503 nothing heard for {silent} s; leaving when it has been gone for {idle}"
                ));
                self.set_up(Role::Primary, false);
            }
            Event::Gone { role, .. } => say(&format!("{role} is gone")),
            Event::Back { role, .. } | Event::Recovered { role, .. } => self.set_up(role, true),
            Event::Rebind(reason) => self.session.rebind(reason),
            Event::Doubt(doubt) => self.session.doubt(doubt),
            Event::Suspect { role } => self.session.suspect(role),
            Event::Stranded => self.session.look_for_aux(),
            Event::Rerouted { to, .. } => {
                self.session.hide(to);
                self.settle();
            }
            Event::Left { role: Role::Primary } | Event::Released => return Some(End::Released),
            Event::Left { role } => say(&format!("{role} has left")),
            Event::DeviceGone => return Some(End::Failure(device_gone(&self.args.common))),
            Event::Mtu { .. } | Event::OneByOne | Event::Relay { .. } => {}
            Event::Replaced => return Some(End::Failure(self.replaced())),
            Event::Unusable { role, why } => {
                let what = format!("the {role} cannot be joined: {why}");
                let hint = "use the same --overlay (MESH_OVERLAY) on every runner";
                return Some(End::Failure(Failure::new(Exit::Usage, "M604", what, hint)));
            }
        }
        None
    }

    /// Only the primary counts: without it there is nothing to do.
    fn set_up(&mut self, role: Role, up: bool) {
        if role != Role::Primary {
            return;
        }
        self.up = up;
        self.session.await_peers(!up);
        self.settle();
    }

    fn settle(&mut self) {
        let up = usize::from(self.up);
        let formation = Formation { up, direct: up.min(self.journal.direct()), expected: 1, formed: self.up };
        self.waiters.settle(clock::now(), formation);
    }

    /// Whether to go on: joined in time, and the primary not gone for too long.
    async fn look(&mut self) -> Option<End> {
        self.settle();
        let primary = self.primary().await;
        let since = clock::now() - self.session.started;
        match primary.as_ref().filter(|primary| primary.connect.is_some()) {
            None if since >= self.args.join_timeout() => {
                Some(End::Failure(not_joined(primary.as_ref(), &self.session.tally(), since)))
            }
            Some(primary) if primary.silent >= self.args.idle_timeout().max(LEAST_IDLE) => {
                let what = format!("nothing heard of the primary for {} s", primary.silent.as_secs());
                let hint = "its job ended without releasing the aux, or the network failed; look at the primary's log";
                Some(End::Failure(Failure::new(Exit::PeerGone, "M503", what, hint)))
            }
            _ => None,
        }
    }

    async fn primary(&self) -> Option<PeerView> {
        self.session.snapshot().await.peers.into_iter().find(|peer| peer.role == Role::Primary)
    }

    async fn answer(&mut self, request: Request, reply: tokio::sync::oneshot::Sender<Response>) -> Option<End> {
        match request {
            Request::Status => {
                let _ = reply.send(Response::Status(Box::new(self.as_of_now().await)));
            }
            Request::Env => {
                let _ = reply.send(super::control::response(&self.session.environment()));
            }
            Request::Door { namespace, read_only } => {
                let _ = reply.send(self.session.door(namespace.as_deref(), read_only));
            }
            Request::Wait { timeout_ms, direct, .. } => {
                self.waiters.add(clock::now(), (None, direct), Duration::from_millis(timeout_ms), reply);
                self.settle();
            }
            Request::Leave => {
                let _ = reply.send(Response::Done);
                return Some(End::Asked);
            }
        }
        None
    }

    async fn as_of_now(&self) -> crate::report::Report {
        let jobs = match &self.distccd {
            Some(distccd) => stats::fetch(distccd.stats).await.map_or(0, |stats| stats.jobs),
            None => 0,
        };
        let (role, overlay) = (Role::Aux(self.args.index), self.args.common.overlay);
        self.journal.report(&self.session, role, overlay, std::iter::once(Role::Primary), |_| jobs).await
    }

    fn replaced(&self) -> Failure {
        let what = format!("another process took the index {}", self.args.index);
        Failure::new(Exit::DuplicateIndex, "M105", what, "give every aux an --index (MESH_INDEX) of its own, from 0")
    }

    async fn finish(mut self, end: End) -> Outcome {
        let report = self.as_of_now().await;
        self.report.write(&report);
        if let End::Failure(failure) = &end {
            self.waiters.fail(failure);
        }
        let distccd = self.distccd.take();
        let stop = async {
            if let Some(distccd) = distccd {
                distccd.stop().await;
            }
        };
        match end {
            End::Asked => self.session.hand_over(HAND_OVER.0).await,
            End::Signal(_) => self.session.hand_over(HAND_OVER.1).await,
            End::Released | End::Failure(_) => {}
        }
        tokio::join!(stop, self.session.end(Farewell::Leaving));
        if !matches!(end, End::Failure(_)) {
            let _ = std::fs::remove_file(distccd_log());
        }
        let jobs = report.peers.iter().map(|peer| peer.jobs).sum::<u64>();
        StepSummary::open().write(&format!(
            "### mesh aux {}\n\n{jobs} jobs\n\n{}\n",
            self.args.index,
            report.markdown()
        ));
        match end {
            End::Released => Ok(said(&format!("released after {jobs} jobs"), Exit::Ok.code())),
            End::Asked => Ok(said("left, as asked", Exit::Ok.code())),
            End::Signal(signal) => Ok(said(&format!("ended by {signal}"), exit_code(signal))),
            End::Failure(failure) => Err(failure),
        }
    }
}

fn distccd_log() -> PathBuf {
    let temp = env()("RUNNER_TEMP").map_or_else(std::env::temp_dir, PathBuf::from);
    temp.join(format!("mesh-distccd-{}.log", std::process::id()))
}

fn said(text: &str, code: u8) -> u8 {
    say(text);
    code
}
