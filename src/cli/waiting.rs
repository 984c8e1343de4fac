//! `mesh wait` from the side of the running mesh: who waits for what, and whether it has come. Pure but for the answers it sends.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::control::Response;
use crate::exit::{Exit, Failure};

/// How far this machine's mesh has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Formation {
    /// Peers that are up. All their paths are direct.
    pub(super) up: usize,
    /// How many are expected.
    pub(super) expected: usize,
    /// Whether it is what the command line asked for.
    pub(super) formed: bool,
}

#[derive(Debug)]
struct Waiter {
    aux: Option<u16>,
    deadline: Instant,
    reply: oneshot::Sender<Response>,
}

/// Everybody who waits.
#[derive(Debug, Default)]
pub(super) struct Waiters(Vec<Waiter>);

impl Waiters {
    /// Somebody waits for `aux` peers, or for the mesh to be formed, until `timeout` has passed.
    pub(super) fn add(&mut self, now: Instant, aux: Option<u16>, timeout: Duration, reply: oneshot::Sender<Response>) {
        // A deadline beyond what the clock can count is none; a day is longer than any job.
        let deadline = now + timeout.min(Duration::from_secs(86_400));
        self.0.push(Waiter { aux, deadline, reply });
    }

    /// Answers those whose wish has come true, and those whose time is up.
    pub(super) fn settle(&mut self, now: Instant, formation: Formation) {
        for waiter in std::mem::take(&mut self.0) {
            let done = waiter.aux.map_or(formation.formed, |aux| formation.up >= usize::from(aux));
            if done {
                let _ = waiter.reply.send(Response::Done);
            } else if waiter.deadline <= now {
                let _ = waiter.reply.send(Response::failed(&late(formation, waiter.aux)));
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

fn late(formation: Formation, aux: Option<u16>) -> Failure {
    let wanted = aux.map_or(formation.expected, usize::from);
    let what = format!("the mesh is not up in time: {} of {wanted} peers", formation.up);
    Failure::new(Exit::Missing, "M104", what, "`mesh status` says why each is missing; --timeout gives more time")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(aux: Option<u16>) -> (Waiters, oneshot::Receiver<Response>, Instant) {
        let (now, mut waiters) = (Instant::now(), Waiters::default());
        let (reply, answer) = oneshot::channel();
        waiters.add(now, aux, Duration::from_secs(5), reply);
        (waiters, answer, now)
    }

    #[test]
    fn a_number_of_aux_is_enough_even_when_more_are_expected() {
        let (mut waiters, mut answer, now) = waiting(Some(2));
        waiters.settle(now, Formation { up: 1, expected: 3, formed: false });
        assert!(answer.try_recv().is_err());
        waiters.settle(now, Formation { up: 2, expected: 3, formed: false });
        assert_eq!(answer.try_recv(), Ok(Response::Done));
    }

    #[test]
    fn a_mesh_that_is_formed_without_all_aux_counts_as_up() {
        let (mut waiters, mut answer, now) = waiting(None);
        waiters.settle(now, Formation { up: 1, expected: 3, formed: true });
        assert_eq!(answer.try_recv(), Ok(Response::Done));
    }

    #[test]
    fn whose_time_is_up_learns_how_far_it_came() {
        let (mut waiters, mut answer, now) = waiting(None);
        assert_eq!(waiters.deadline(), Some(now + Duration::from_secs(5)));
        waiters.settle(now + Duration::from_secs(5), Formation { up: 1, expected: 3, formed: false });
        let Ok(Response::Failed { exit, what, .. }) = answer.try_recv() else { panic!("a failure") };
        assert_eq!(exit, Exit::Missing.code());
        assert!(what.contains("1 of 3"));
    }
}
