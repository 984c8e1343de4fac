//! `mesh wait` from the side of the running mesh: who waits for what, and whether it has come. Pure but for the answers it sends.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::control::Response;
use crate::exit::{Exit, Failure};

/// How far this machine's mesh has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Formation {
    /// Peers that are up.
    pub(super) up: usize,
    /// Those of them that are reached without a relay.
    pub(super) direct: usize,
    /// How many are expected.
    pub(super) expected: usize,
    /// Whether it is what the command line asked for.
    pub(super) formed: bool,
}

#[derive(Debug)]
struct Waiter {
    aux: Option<u16>,
    direct: bool,
    deadline: Instant,
    reply: oneshot::Sender<Response>,
}

/// Everybody who waits.
#[derive(Debug, Default)]
pub(super) struct Waiters(Vec<Waiter>);

impl Waiters {
    /// Somebody waits for `aux` peers, or for the mesh to be formed, over direct paths alone where that is asked for, until `timeout` has
    /// passed.
    pub(super) fn add(
        &mut self,
        now: Instant,
        (aux, direct): (Option<u16>, bool),
        timeout: Duration,
        reply: oneshot::Sender<Response>,
    ) {
        // A deadline beyond what the clock can count is none; a day is longer than any job.
        let deadline = now + timeout.min(Duration::from_secs(86_400));
        self.0.push(Waiter { aux, direct, deadline, reply });
    }

    /// Answers those whose wish has come true, and those whose time is up.
    pub(super) fn settle(&mut self, now: Instant, formation: Formation) {
        for waiter in std::mem::take(&mut self.0) {
            let up = if waiter.direct { formation.direct } else { formation.up };
            let formed = formation.formed && up == formation.up;
            let done = waiter.aux.map_or(formed, |aux| up >= usize::from(aux));
            if done {
                let _ = waiter.reply.send(Response::Done);
            } else if waiter.deadline <= now {
                let failure = late(formation, &waiter);
                let _ = waiter.reply.send(Response::failed(&failure));
            } else {
                self.0.push(waiter);
            }
        }
    }

    /// Tells everybody that it will not come.
    pub(super) fn fail(&mut self, failure: &Failure) {
        for waiter in self.0.drain(..) {
            let _ = waiter.reply.send(Response::failed(failure));
        }
    }

    /// When the next one's time is up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|waiter| waiter.deadline).min()
    }
}

fn late(formation: Formation, waiter: &Waiter) -> Failure {
    let wanted = waiter.aux.map_or(formation.expected, usize::from);
    let (up, how) = if waiter.direct { (formation.direct, " directly") } else { (formation.up, "") };
    let what = format!("the mesh is not up in time: {up} of {wanted} peers{how}");
    Failure::new(Exit::Missing, "M104", what, "`mesh status` says why each is missing; --timeout gives more time")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formation(up: usize, formed: bool) -> Formation {
        Formation { up, direct: 1, expected: 3, formed }
    }

    fn waiting(aux: Option<u16>, direct: bool) -> (Waiters, oneshot::Receiver<Response>, Instant) {
        let (now, mut waiters) = (Instant::now(), Waiters::default());
        let (reply, answer) = oneshot::channel();
        waiters.add(now, (aux, direct), Duration::from_secs(5), reply);
        (waiters, answer, now)
    }

    #[test]
    fn a_number_of_aux_is_enough_even_when_more_are_expected() {
        let (mut waiters, mut answer, now) = waiting(Some(2), false);
        waiters.settle(now, formation(1, false));
        assert!(answer.try_recv().is_err());
        waiters.settle(now, formation(2, false));
        assert_eq!(answer.try_recv(), Ok(Response::Done));
    }

    #[test]
    fn a_mesh_that_is_formed_without_all_aux_counts_as_up() {
        let (mut waiters, mut answer, now) = waiting(None, false);
        waiters.settle(now, formation(1, true));
        assert_eq!(answer.try_recv(), Ok(Response::Done));
    }

    #[test]
    fn who_waits_for_direct_paths_is_not_content_with_relayed_ones() {
        let (mut waiters, mut answer, now) = waiting(None, true);
        waiters.settle(now, formation(2, true));
        assert!(answer.try_recv().is_err());
        waiters.settle(now, formation(1, true));
        assert_eq!(answer.try_recv(), Ok(Response::Done));
    }

    #[test]
    fn whose_time_is_up_learns_how_far_it_came() {
        let (mut waiters, mut answer, now) = waiting(None, false);
        assert_eq!(waiters.deadline(), Some(now + Duration::from_secs(5)));
        waiters.settle(now + Duration::from_secs(5), formation(1, false));
        let Ok(Response::Failed { exit, what, .. }) = answer.try_recv() else { panic!("a failure") };
        assert_eq!(exit, Exit::Missing.code());
        assert!(what.contains("1 of 3"));
    }
}
