//! The life of a path: opening, selecting, measuring, falling silent. On real NATs it is looked at in `tests/it`.

use super::super::role::Role;
use super::*;

type Numbered = (Transaction, (Route, Reach));

const HOST: &str = "192.168.1.2:7";
const MAPPED: &str = "198.51.100.1:1024";

#[test]
fn a_peer_that_has_not_acknowledged_us_gets_only_low_ttl() {
    let now = Instant::now();
    let mut path = agent(now, false);
    for ms in (0..60_000).step_by(25) {
        assert!(pings(&mut path, now + Duration::from_millis(ms)).iter().all(|(_, reach)| *reach == Reach::Opening));
    }
}

#[test]
fn opening_reaches_every_candidate_at_once_and_again_every_four_seconds() {
    let now = Instant::now();
    let mut path = agent(now, false);
    assert_eq!(pings(&mut path, now).len(), 2);
    pings(&mut path, now + Duration::from_millis(800));
    assert_eq!(pings(&mut path, now + Duration::from_millis(4799)), []);
    assert_eq!(pings(&mut path, now + Duration::from_millis(4800)).len(), 2);
}

#[test]
fn an_acknowledgement_allows_full_ttl_to_every_candidate() {
    let now = Instant::now();
    let sent = pings(&mut agent(now, true), now);
    assert!(sent.len() == 2 && sent.iter().all(|(_, reach)| *reach == Reach::Full));
}

#[test]
fn being_heard_allows_full_ttl_to_that_address_alone() {
    let now = Instant::now();
    let mut path = agent(now, false);
    path.handle_heard(now, to(MAPPED));
    let sent: BTreeMap<_, _> = pings(&mut path, now).into_iter().collect();
    assert_eq!(sent[&to(MAPPED)], Reach::Full);
    assert_eq!(sent[&to(HOST)], Reach::Opening);
}

#[test]
fn a_new_address_of_ours_is_opened_from_at_once_and_at_low_ttl() {
    let now = Instant::now();
    let mut path = agent(now, true);
    path.handle_heard(now, to(MAPPED));
    pings(&mut path, now);
    path.reopen(now);
    let sent = pings(&mut path, now);
    assert!(sent.len() == 2 && sent.iter().all(|(_, reach)| *reach == Reach::Opening));
}

#[test]
fn the_first_route_to_answer_is_selected_and_measured() {
    let now = Instant::now();
    let mut path = agent(now, true);
    answer(&mut path, now, to(MAPPED), 30);
    assert_eq!((path.selected(), path.rtt()), (Some(to(MAPPED)), Some(Duration::from_millis(30))));
}

#[test]
fn an_answer_to_nothing_or_from_elsewhere_selects_nothing() {
    let now = Instant::now();
    let mut path = agent(now, true);
    path.handle_timeout(now, true);
    path.poll_ping(now, 1);
    path.handle_pong(now, 2, to(MAPPED));
    path.handle_pong(now, 1, to("203.0.113.9:9"));
    assert_eq!(path.selected(), None);
}

#[test]
fn a_local_route_is_preferred_to_a_mapped_one_and_a_relay_comes_last() {
    let now = Instant::now();
    let mut path = agent(now, true);
    let relay = Relay::Server(0);
    path.set_relays(now, &BTreeSet::from([relay]), BTreeSet::from([relay]));
    let sent = numbered(&mut path, now);
    for (route, milliseconds) in [(Route::Relayed(relay), 5), (to(MAPPED), 50), (to(HOST), 60)] {
        answer_one(&mut path, now, &sent, route, milliseconds);
        assert_eq!(path.selected(), Some(route));
    }
}

#[test]
fn of_two_relays_the_one_that_is_much_faster_carries() {
    let now = Instant::now();
    let mut path = agent(now, false);
    let (slow, fast) = (Relay::Peer(Role::Primary), Relay::Server(0));
    let both = BTreeSet::from([slow, fast]);
    path.set_relays(now, &both, both.clone());
    let sent = numbered(&mut path, now);
    answer_one(&mut path, now, &sent, Route::Relayed(slow), 80);
    answer_one(&mut path, now, &sent, Route::Relayed(fast), 20);
    assert_eq!(path.selected(), Some(Route::Relayed(fast)));
    path.set_relays(now, &BTreeSet::from([slow]), BTreeSet::from([slow]));
    assert_eq!(path.selected(), Some(Route::Relayed(slow)), "who cannot relay any more is not used");
}

#[test]
fn a_path_that_carries_nothing_but_keepalives_is_pinged_less_often() {
    let (now, mut times) = (Instant::now(), vec![]);
    let mut path = agent(now, true);
    answer(&mut path, now, to(MAPPED), 1);
    path.handle_sent(now);
    for half in 0..240 {
        let at = now + Duration::from_millis(500 * half);
        for (transaction, (route, _)) in numbered(&mut path, at) {
            times.push(half / 2);
            path.handle_pong(at, transaction, route);
            path.handle_tunnelled(at, route, false);
        }
    }
    let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.contains(&2), "{times:?}");
    assert_eq!(pauses.last(), Some(&5), "{times:?}");
}

#[test]
fn a_path_that_does_not_answer_is_suspected_within_six_seconds_and_searched_for_anew() {
    let now = Instant::now();
    let mut path = agent(now, true);
    answer(&mut path, now, to(MAPPED), 1);
    path.handle_sent(now);
    let suspected = (0..60).map(|tenth| now + Duration::from_millis(100 * tenth)).find(|at| {
        pings(&mut path, *at);
        path.is_suspect()
    });
    assert!(suspected.is_some());
    answer(&mut path, now + Duration::from_secs(7), to(MAPPED), 1);
    assert!(!path.is_suspect());
}

#[test]
fn a_direct_route_that_fails_again_and_again_is_left_for_a_relay_less_and_less_often() {
    let start = Instant::now();
    let relay = Relay::Peer(Role::Primary);
    let mut path = agent(start, true);
    path.set_relays(start, &BTreeSet::from([relay]), BTreeSet::from([relay]));
    let (mut changes, mut before) = (vec![], None);
    for ms in (0..60_000).step_by(10) {
        let now = start + Duration::from_millis(ms);
        path.handle_sent(now);
        for (transaction, (route, _)) in numbered(&mut path, now) {
            // It fails for 0.9 of every 1.5 s.
            if !route.is_direct() || route == to(MAPPED) && (ms < 3000 || ms % 1500 < 600) {
                path.handle_pong(now, transaction, route);
            }
        }
        if path.selected() != before {
            before = path.selected();
            changes.push((ms, before.is_some_and(|route| route.is_direct())));
        }
    }
    assert!((3..=14).contains(&changes.len()), "{changes:?}");
    assert!(changes.windows(2).all(|pair| pair[0].1 != pair[1].1), "{changes:?}");
}

fn to(text: &str) -> Route {
    Route::to(text.parse().expect("an address"))
}

fn agent(now: Instant, acknowledged: bool) -> PathAgent {
    PathAgent::new(now, [HOST, MAPPED].map(|text| text.parse().expect("an address")), acknowledged)
}

/// Sends what is due, and answers the ping over `route` after so many milliseconds.
fn answer(path: &mut PathAgent, now: Instant, route: Route, milliseconds: u64) {
    let sent = numbered(path, now);
    answer_one(path, now, &sent, route, milliseconds);
}

fn answer_one(path: &mut PathAgent, now: Instant, sent: &[Numbered], route: Route, milliseconds: u64) {
    let (transaction, _) = sent.iter().find(|(_, (asked, _))| *asked == route).expect("it is pinged");
    path.handle_pong(now + Duration::from_millis(milliseconds), *transaction, route);
}

fn pings(path: &mut PathAgent, now: Instant) -> Vec<(Route, Reach)> {
    numbered(path, now).into_iter().map(|(_, ping)| ping).collect()
}

fn numbered(path: &mut PathAgent, now: Instant) -> Vec<Numbered> {
    path.handle_timeout(now, true);
    let mut sent: Vec<Numbered> = vec![];
    loop {
        let transaction = path.in_flight.next();
        let Some(ping) = path.poll_ping(now, transaction) else { return sent };
        sent.push((transaction, (ping.route, ping.reach)));
    }
}
