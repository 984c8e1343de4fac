//! A primary, an aux and a transfer between them, and how long after a disturbance what happens. Not here: the disturbances.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::{Duration, Instant};

use netns_tests::lab::{Link, Nat, Runner, wait_until};
use netns_tests::stage::{DELAY, Process, Stage};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::{SOON, assert_ends, relay, status, transfer};
use crate::transfer::Transfer;

const AUX: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// More bytes than the queues between two runners hold.
const AFRESH: u64 = 500_000;

/// How much of the transfer, in bytes, goes before the disturbance. For five seconds a path is compared with others, and silence is noticed
/// sooner than later; what comes then is left to chance, or each disturbance would fall on the same moment between two pings.
const SETTLED: Range<u64> = 5_000_000..8_000_000;

/// What another connection brings, in bytes.
const LITTLE: usize = 10_000;

/// What either says that has noticed.
const NOTICED: [&str; 3] = ["it does not answer", "begin anew from a fresh socket", RELAYED];
const RELAYED: &str = "is now reached over relay";
const DIRECT: &str = "is now reached direct again";

/// Both are behind NATs as Azure has, and have met directly; the transfer goes from the primary to the aux.
#[derive(Debug)]
pub(super) struct Run {
    transfer: Transfer,
    primary: Process,
    aux: Process,
    home: Runner,
    away: Runner,
    relay: Option<(String, Process)>,
    stage: Stage,
    /// When the last disturbance began or ended, and how much the two had said by then.
    since: Instant,
    before: [usize; 2],
    /// What happened how long after.
    figures: String,
}

impl Run {
    pub(super) fn without_relay(name: &str) -> Self {
        Self::start(name, Stage::new(name).unwrap(), None, 0.0).settled()
    }

    pub(super) fn with_relay(name: &str) -> Self {
        Self::with_relay_and_loss(name, 0.0).settled()
    }

    pub(super) fn with_relay_and_loss(name: &str, loss_percent: f32) -> Self {
        let stage = Stage::new(name).unwrap();
        let relay = relay(&stage);
        Self::start(name, stage, Some(relay), loss_percent)
    }

    fn start(name: &str, stage: Stage, relay: Option<(String, Process)>, loss_percent: f32) -> Self {
        let link = Link { delay: DELAY, loss_percent, ..Link::default() };
        let [home, away] = ["primary", "aux0"].map(|name| stage.lab.runner(name, Nat::Azure, link).unwrap());
        let at = relay.as_ref();
        let primary = mesh(&stage, &home, &["primary", "--aux", "1", "--offload", "none"], at);
        let aux = mesh(&stage, &away, &["aux", "--index", "0"], at);
        let direct = wait_until(SOON, "direct paths", || are_direct(&stage, [&home, &away]).then_some(()));
        direct.unwrap_or_else(|error| panic!("{error:#}\n{}\n--- aux\n{}", primary.output(), aux.output()));
        let transfer = Transfer::start(&home, &away, AUX);
        transfer.assert_brings(AFRESH, SOON);
        let (since, before, figures) = (Instant::now(), [0; 2], format!("{name}:"));
        Self { transfer, primary, aux, home, away, relay, stage, since, before, figures }
    }

    fn settled(self) -> Self {
        self.transfer.assert_brings(rand::random_range(SETTLED), SOON);
        self
    }

    /// Does something to the primary's runner and the aux's. From now on time counts.
    pub(super) fn disturb(&mut self, how: impl FnOnce(&Runner, &Runner)) {
        self.before = [&self.primary, &self.aux].map(|process| process.output().len());
        self.since = Instant::now();
        how(&self.home, &self.away);
    }

    /// Likewise, to the aux itself.
    pub(super) fn signal_aux(&mut self, signal: Signal) {
        self.disturb(|_, _| ());
        self.aux.signal(signal).unwrap();
    }

    /// Another aux of the same index, on the same runner, and another transfer to it.
    pub(super) fn replace_aux(&mut self) {
        self.disturb(|_, _| ());
        self.aux = mesh(&self.stage, &self.away, &["aux", "--index", "0"], self.relay.as_ref());
        self.before[1] = 0;
        self.assert_primary_says("aux 0 is up", SOON);
        self.assert_comes("the old transfer reset", SOON, |run| !run.transfer.stands());
        self.transfer = Transfer::start(&self.home, &self.away, AUX);
    }

    #[track_caller]
    pub(super) fn assert_is_noticed(&mut self, within: Duration) {
        self.assert_comes("noticed", within, |run| {
            run.news().iter().any(|new| NOTICED.iter().any(|text| new.contains(text)))
        });
    }

    #[track_caller]
    pub(super) fn assert_primary_says(&mut self, text: &str, within: Duration) {
        self.assert_comes(text, within, |run| run.news()[0].contains(text));
    }

    #[track_caller]
    pub(super) fn assert_both_say(&mut self, text: &str, within: Duration) {
        self.assert_comes(text, within, |run| run.news().iter().all(|new| new.contains(text)));
    }

    /// Data that was not on its way before comes through.
    #[track_caller]
    pub(super) fn assert_goes_on(&mut self, within: Duration) {
        self.assert_brings(AFRESH, within);
    }

    #[track_caller]
    pub(super) fn assert_brings(&mut self, bytes: u64, within: Duration) {
        self.transfer.assert_brings(bytes, within);
        self.note("data");
    }

    /// Whoever moves reaches the other over the relay first, and tells it so. Where that answers at once, it may go direct at once.
    #[track_caller]
    pub(super) fn assert_is_relayed(&mut self, within: Duration) {
        self.assert_comes("over the relay", within, |run| run.news().iter().any(|new| new.contains(RELAYED)));
    }

    #[track_caller]
    pub(super) fn assert_is_direct(&mut self, within: Duration) {
        let is_back = |new: &String| new.rfind(DIRECT) >= new.rfind(RELAYED);
        self.assert_comes("direct", within, |run| {
            run.news().iter().all(is_back) && are_direct(&run.stage, [&run.home, &run.away])
        });
    }

    /// Another connection, which has not waited for as long as the transfer.
    #[track_caller]
    pub(super) fn assert_connects(&mut self) {
        assert_eq!(transfer(&self.home, &self.away, &AUX.to_string(), LITTLE), LITTLE, "{}", self.story());
        self.note("another connection");
    }

    /// Waits until the disturbance has lasted so long. That time passes is the event; all the while the transfer must stand.
    #[track_caller]
    pub(super) fn assert_stands_for(&mut self, time: Duration) {
        self.assert_comes("over", time + SOON, |run| {
            assert!(run.transfer.stands(), "{}", run.story());
            run.since.elapsed() >= time
        });
    }

    /// Either, since the disturbance.
    #[track_caller]
    pub(super) fn assert_says_at_most(&self, times: usize, text: &str) {
        assert!(self.news().iter().all(|new| new.matches(text).count() <= times), "{text}: {}", self.story());
    }

    /// Ends the transfer, and the run.
    #[track_caller]
    pub(super) fn assert_ends_whole(mut self, within: Duration) -> Duration {
        let stall = self.transfer.assert_ends_whole(within);
        show(&format!("{} stood still for {:.1} s", self.figures, stall.as_secs_f64()));
        self.primary.signal(Signal::SIGTERM).unwrap();
        assert_ends(&mut self.primary, 143);
        assert_ends(&mut self.aux, 0);
        stall
    }

    #[track_caller]
    fn assert_comes(&mut self, what: &str, within: Duration, has_come: impl Fn(&Self) -> bool) {
        let waited = wait_until(within, what, || has_come(self).then_some(()));
        waited.unwrap_or_else(|error| panic!("{error:#}\n{}", self.story()));
        self.note(what);
    }

    fn note(&mut self, what: &str) {
        write!(self.figures, " {what} after {:.1} s,", self.since.elapsed().as_secs_f64()).unwrap();
    }

    /// What both have said since the disturbance.
    fn news(&self) -> [String; 2] {
        let new = |process: &Process, before: usize| process.output().get(before..).unwrap_or_default().to_owned();
        [new(&self.primary, self.before[0]), new(&self.aux, self.before[1])]
    }

    fn story(&self) -> String {
        format!("{}\n{}\n--- aux\n{}", self.figures, self.primary.output(), self.aux.output())
    }
}

fn mesh(stage: &Stage, runner: &Runner, args: &[&str], relay: Option<&(String, Process)>) -> Process {
    let at = relay.map(|(addr, _)| ["--relay", addr.as_str()]);
    stage.mesh(runner, &[args, &["--log", "info"], at.as_ref().map_or(&[][..], |at| &at[..])].concat()).unwrap()
}

/// As both see it; a round trip tells that the path is there, and not only the last that was.
fn are_direct(stage: &Stage, runners: [&Runner; 2]) -> bool {
    let is_direct = |path: &Value| path["kind"] == "direct" && path["rtt_ms"].as_f64().is_some_and(|rtt| rtt > 0.0);
    runners.iter().all(|runner| is_direct(&status(stage, runner)["path"]))
}

#[expect(clippy::print_stderr, reason = "with --nocapture, for whoever wants to know")]
fn show(figures: &str) {
    eprintln!("{figures}");
}
