//! Why nobody came, or why nobody was reached: turns what was seen into one failure with a code of the taxonomy. Pure.

use std::time::Duration;

use crate::exit::{Exit, Failure};
use crate::proto::announcement::Rejected;
use crate::proto::crossing::{Crossing, Obstacle};
use crate::proto::peer::{PeerView, State};
use crate::rendezvous::board::Tally;

/// Why a peer is not up, in the words of a table cell: the code and a phrase. Empty when it is up.
pub(super) fn why(peer: Option<&PeerView>, tally: &Tally) -> String {
    match peer {
        None => format!("{} {}", absent(tally).0, absent(tally).1),
        Some(peer) => match (peer.state, peer.route) {
            (State::Up, Some(route)) if !route.is_direct() => indirect(peer),
            (State::Up, _) => String::new(),
            (State::Joining, None) => indirect(peer),
            (State::Joining, Some(_)) => "M401 probes pass, the WireGuard handshake does not".into(),
            (State::Gone, _) => format!("M503 nothing heard for {} s", peer.silent.as_secs()),
            (State::Left, _) => "it said goodbye".into(),
        },
    }
}

/// Why there is no direct path.
fn indirect(peer: &PeerView) -> String {
    match peer.crossing {
        Crossing::Direct if peer.state == State::Up && peer.heard_directly => "M502 the direct path is lost".into(),
        Crossing::Direct if peer.heard_directly => "M302 it is heard, and does not hear us".into(),
        Crossing::Direct => "M301 opened, and heard nothing".into(),
        Crossing::Spray | Crossing::Predict => {
            format!("M202 one NAT maps by destination ({}), and its port was not found", peer.nat)
        }
        Crossing::Relay(Obstacle::BothDependent) => "M203 both NATs map by destination".into(),
        Crossing::Relay(Obstacle::EgressAddresses) => "M205 one NAT maps by destination over many addresses".into(),
        Crossing::Blocked => "M201 UDP does not pass".into(),
    }
}

/// Why an aux was not in the mesh `after` so long.
pub(super) fn not_joined(primary: Option<&PeerView>, tally: &Tally, after: Duration) -> Failure {
    let after = humantime::format_duration(Duration::from_secs(after.as_secs()));
    if let Some(trouble) = &tally.unpublished {
        let what = format!("not in the mesh after {after}: our announcement cannot be published: {trouble}");
        return Failure::new(Exit::NoRendezvous, "M106", what, SERVICES);
    }
    let Some(primary) = primary else {
        let (code, what, hint) = absent(tally);
        return Failure::new(exit_of(code), code, format!("no primary after {after}: {what}"), hint);
    };
    let why = why(Some(primary), tally);
    let (code, what) = why.split_once(' ').unwrap_or(("M301", "no path"));
    let hint = match code {
        "M202" | "M203" | "M205" => {
            "use runners behind another NAT, or give all of them a relay of your own with --relay (MESH_RELAY)"
        }
        _ => "run `mesh doctor` on both machines; a relay of your own (--relay) works where nothing can be punched",
    };
    let code = INDIRECT.into_iter().find(|known| *known == code).unwrap_or("M301");
    let others = Some(foreign(tally)).filter(|count| *count > 0).map(|count| format!(" ({})", unopened(count)));
    let what = format!("no path to the primary after {after}: {what}{}", others.unwrap_or_default());
    Failure::new(Exit::NoPath, code, what, hint)
}

/// Why fewer than `wanted` aux are up at the deadline: where nobody is, and one cause says it all, by that cause.
pub(super) fn too_few(up: usize, wanted: u16, reasons: &[String], tally: &Tally) -> Failure {
    let mut what = format!("{up} of at least {wanted} aux are up: {}", reasons.join("; "));
    if let Some(trouble) = &tally.unpublished {
        what = format!("{up} of at least {wanted} aux are up: our announcement cannot be published: {trouble}");
        return Failure::new(Exit::NoRendezvous, "M106", what, SERVICES);
    }
    let code = ["M106", "M102", "M103"].into_iter().find(|code| reasons.iter().any(|reason| reason.contains(code)));
    let code = code.unwrap_or("M104");
    let hint = match code {
        "M104" => "look at the logs of the aux jobs, raise --join-timeout, or lower --min-aux",
        _ => absent(tally).2,
    };
    Failure::new(exit_of(code), code, what, hint)
}

fn exit_of(code: &str) -> Exit {
    if code == "M106" { Exit::NoRendezvous } else { Exit::Missing }
}

/// How many announcements could not be read.
fn foreign(tally: &Tally) -> u64 {
    let causes = [Rejected::OtherKey, Rejected::Unauthentic, Rejected::Malformed, Rejected::Foreign];
    causes.iter().filter_map(|cause| tally.rejected.get(cause)).sum()
}

fn unopened(count: u64) -> String {
    match count {
        1 => "1 announcement does not open: sealed with another key, or altered".into(),
        _ => format!("{count} announcements do not open: sealed with another key, or altered"),
    }
}

/// The codes that an aux without a path ends with.
const INDIRECT: [&str; 6] = ["M201", "M202", "M203", "M205", "M302", "M401"];

const SERVICES: &str = "GitHub's services may be down; the next try may pass";

/// Code, phrase and hint for somebody whose announcement was never read.
fn absent(tally: &Tally) -> (&'static str, String, &'static str) {
    let count = |cause| tally.rejected.get(&cause).copied().unwrap_or_default();
    let foreign = foreign(tally);
    let stale = count(Rejected::Stale) + tally.other_attempts;
    if let Some(trouble) = &tally.trouble {
        ("M106", format!("the rendezvous fails: {trouble}"), SERVICES)
    } else if count(Rejected::Version) > 0 {
        ("M102", "its announcement is of another version of mesh".into(), "use one version of mesh in all jobs")
    } else if foreign > 0 {
        ("M102", unopened(foreign), "give all jobs the same key (MESH_KEY) and, outside of Actions, the same --run-id")
    } else if tally.unreadable > 0 {
        ("M106", format!("{} announcements cannot be fetched", tally.unreadable), "the next try may pass")
    } else if stale > 0 {
        (
            "M103",
            format!("it never published; {stale} announcements are of another attempt or expired"),
            "is its job still queued? if it runs, compare the clocks of both machines (date -u)",
        )
    } else {
        (
            "M104",
            "it never published".into(),
            "is its job still queued, or did it fail? its own log says so, also of a wrong key or clock",
        )
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::proto::nat::Behaviour;
    use crate::proto::role::Role;
    use crate::proto::route::{Relay, Route};

    #[test]
    fn a_primary_that_never_published_is_missing() {
        let failure = not_joined(None, &Tally::default(), Duration::from_secs(90));
        assert_eq!((failure.exit, failure.code), (Exit::Missing, "M104"));
        assert_eq!(failure.what, "no primary after 1m 30s: it never published");
    }

    #[test]
    fn announcements_that_do_not_open_point_to_the_key() {
        let mut tally = Tally::default();
        tally.rejected.insert(Rejected::OtherKey, 2);
        let failure = not_joined(None, &tally, Duration::from_secs(5));
        assert_eq!(failure.code, "M102");
        assert!(failure.hint.contains("MESH_KEY"));
    }

    #[test]
    fn a_failing_rendezvous_has_a_code_of_its_own() {
        let tally = Tally { trouble: Some("GitHub answered 503".into()), ..Tally::default() };
        let failure = not_joined(None, &tally, Duration::from_secs(5));
        assert_eq!((failure.exit, failure.code), (Exit::NoRendezvous, "M106"));
        assert!(failure.what.contains("503"));
    }

    #[test]
    fn leftovers_of_another_attempt_are_named() {
        let tally = Tally { other_attempts: 3, ..Tally::default() };
        assert_eq!(not_joined(None, &tally, Duration::from_secs(5)).code, "M103");
    }

    #[test]
    fn a_primary_that_was_read_and_not_reached_means_no_path() {
        let failure = not_joined(Some(&primary(None)), &Tally::default(), Duration::from_secs(5));
        assert_eq!((failure.exit, failure.code), (Exit::NoPath, "M301"));
        let answered = primary(Some(Route::to("192.0.2.1:5".parse().expect("an address"))));
        assert_eq!(not_joined(Some(&answered), &Tally::default(), Duration::from_secs(5)).code, "M401");
    }

    #[test]
    fn too_few_aux_are_listed_with_their_reasons() {
        let failure = too_few(1, 2, &["aux 1: M104 it never published".into()], &Tally::default());
        assert_eq!(failure.code, "M104");
        assert_eq!(failure.what, "1 of at least 2 aux are up: aux 1: M104 it never published");
    }

    #[test]
    fn an_announcement_of_ours_that_nobody_could_read_is_the_cause_even_where_we_read_theirs() {
        let tally = Tally { unpublished: Some("GitHub answered 503".into()), ..Tally::default() };
        let failure = not_joined(Some(&primary(None)), &tally, Duration::from_secs(5));
        assert_eq!((failure.exit, failure.code), (Exit::NoRendezvous, "M106"));
        let failure = too_few(0, 1, &["aux 0: M104 it never published".into()], &tally);
        assert_eq!((failure.exit, failure.code), (Exit::NoRendezvous, "M106"));
        assert!(failure.what.contains("503"));
    }

    #[test]
    fn a_peer_behind_a_relay_says_why() {
        let relayed = PeerView {
            state: State::Up,
            crossing: Crossing::Relay(Obstacle::BothDependent),
            ..primary(Some(Route::Relayed(Relay::Server(0))))
        };
        assert!(why(Some(&relayed), &Tally::default()).starts_with("M203"));
        let lost = PeerView { crossing: Crossing::Direct, heard_directly: true, ..relayed };
        assert!(why(Some(&lost), &Tally::default()).starts_with("M502"));
        let failure = not_joined(
            Some(&PeerView { state: State::Joining, route: None, ..lost }),
            &Tally::default(),
            Duration::ZERO,
        );
        assert_eq!(failure.code, "M302");
    }

    fn primary(route: Option<Route>) -> PeerView {
        PeerView {
            role: Role::Primary,
            overlay: Ipv4Addr::new(10, 77, 0, 1),
            state: State::Joining,
            connect: None,
            route,
            rtt: None,
            mtu: 1420,
            nat: Behaviour::default(),
            crossing: Crossing::Direct,
            heard_directly: false,
            silent: Duration::ZERO,
            tx_bytes: 0,
            rx_bytes: 0,
            slots: 0,
            offload: None,
        }
    }
}
