//! Who fetches a large blob from whom, as its home sees it: everyone who asks is led to whoever serves the fewest, be it one that has only a part as yet. So a blob goes
//! to many in a chain, in little more time than to one, and its origin sends it once. Pure: time comes in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::proto::digest::Digest;
use crate::proto::role::Role;

/// A fetch that nobody reported the end of is forgotten after this.
const PATIENCE: Duration = Duration::from_secs(600);

/// Sources that one is told of.
const MOST_SOURCES: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Fetch {
    child: Role,
    source: Role,
    since: Instant,
}

/// The fetches under way.
#[derive(Debug, Default)]
pub(super) struct Swarm {
    fetches: BTreeMap<Digest, Vec<Fetch>>,
}

impl Swarm {
    /// From whom `child` should fetch, best first, given who has all of it. It is taken to do so from the first.
    pub(super) fn lead(&mut self, now: Instant, digest: &Digest, child: Role, holders: &[Role]) -> Vec<Role> {
        let fetches = self.fetches.entry(*digest).or_default();
        fetches.retain(|fetch| fetch.child != child && now.saturating_duration_since(fetch.since) < PATIENCE);
        let below = descendants(fetches, child);
        let partial = fetches.iter().map(|fetch| fetch.child).filter(|role| !holders.contains(role));
        let candidates = holders.iter().copied().chain(partial).filter(|role| *role != child && !below.contains(role));
        let load = |role: &Role| fetches.iter().filter(|fetch| fetch.source == *role).count();
        let mut sources: Vec<Role> = candidates.collect();
        sources.sort_by_key(|role| (load(role), !holders.contains(role)));
        // Someone who has all of it stays within reach.
        if let Some(at) = sources.iter().position(|role| holders.contains(role)).filter(|at| *at >= MOST_SOURCES) {
            sources.swap(at, MOST_SOURCES - 1);
        }
        sources.truncate(MOST_SOURCES);
        match sources.first() {
            Some(source) => fetches.push(Fetch { child, source: *source, since: now }),
            None if fetches.is_empty() => drop(self.fetches.remove(digest)),
            None => {}
        }
        sources
    }

    /// It fetches no longer: it has all of it, or has given up.
    pub(super) fn end(&mut self, digest: &Digest, child: Role) {
        if let Some(fetches) = self.fetches.get_mut(digest) {
            fetches.retain(|fetch| fetch.child != child);
            if fetches.is_empty() {
                self.fetches.remove(digest);
            }
        }
    }
}

/// Everyone who gets it from `role`, by however many steps.
fn descendants(fetches: &[Fetch], role: Role) -> Vec<Role> {
    let mut found = vec![role];
    let mut at = 0;
    while let Some(source) = found.get(at).copied() {
        let children = fetches.iter().filter(|fetch| fetch.source == source).map(|fetch| fetch.child);
        let fresh: Vec<Role> = children.filter(|child| !found.contains(child)).collect();
        found.extend(fresh);
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOB: Digest = Digest { hash: [1; 32], size: 1 << 30 };

    fn aux(index: u16) -> Role {
        Role::Aux(index)
    }

    #[test]
    fn eight_that_ask_at_once_form_a_chain() {
        let (mut swarm, now) = (Swarm::default(), Instant::now());

        let first: Vec<_> = (0..8).map(|index| swarm.lead(now, &BLOB, aux(index), &[Role::Primary])[0]).collect();

        assert_eq!(first[0], Role::Primary);
        assert!(first[1..].iter().all(|source| *source != Role::Primary));
        assert_eq!(first.iter().collect::<std::collections::BTreeSet<_>>().len(), 8, "each serves one: {first:?}");
    }

    #[test]
    fn who_asks_again_is_not_led_to_who_waits_for_it() {
        let (mut swarm, now) = (Swarm::default(), Instant::now());
        swarm.lead(now, &BLOB, aux(0), &[Role::Primary]);
        assert_eq!(swarm.lead(now, &BLOB, aux(1), &[Role::Primary])[0], aux(0));

        assert_eq!(swarm.lead(now, &BLOB, aux(0), &[Role::Primary]), [Role::Primary]);
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let (mut swarm, now) = (Swarm::default(), Instant::now());
        swarm.lead(now, &BLOB, aux(0), &[Role::Primary]);
        swarm.lead(now, &BLOB, aux(1), &[Role::Primary]);
        swarm.end(&BLOB, aux(0));
        swarm.lead(now + PATIENCE, &BLOB, aux(2), &[]);

        assert!(swarm.fetches.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_happens_nobody_waits_for_itself(steps in proptest::collection::vec((0_u16..12, 0_u16..12, any::<bool>()), 1..80)) {
            let (mut swarm, now) = (Swarm::default(), Instant::now());
            for (child, holder, ends) in steps {
                if ends {
                    swarm.end(&BLOB, aux(child));
                } else {
                    let sources = swarm.lead(now, &BLOB, aux(child), &[aux(holder)]);
                    prop_assert!(!sources.contains(&aux(child)));
                    prop_assert!(sources.len() <= MOST_SOURCES);
                    prop_assert_eq!(sources.contains(&aux(holder)), sources.contains(&aux(holder)) && child != holder);
                }
                let fetches = swarm.fetches.get(&BLOB).cloned().unwrap_or_default();
                for fetch in &fetches {
                    let above = |role: Role| fetches.iter().find(|other| other.child == role).map(|other| other.source);
                    let chain = std::iter::successors(Some(fetch.child), |role| above(*role)).take(20);
                    prop_assert!(chain.count() < 20, "a circle: {:?}", fetches);
                }
            }
        }
    }
}
