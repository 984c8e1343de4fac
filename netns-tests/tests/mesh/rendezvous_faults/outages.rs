//! The artifact service fails: for a moment, for long, for ever.

use std::thread;
use std::time::{Duration, Instant};

use netns_tests::fake_github::{Route, Rule};
use netns_tests::lab::Nat;

use super::{ROUTES, RUN, pair, stage, survives};
use crate::common::{assert_ends, assert_fails, aux, has_line, primary};

/// A process that is refused for good says so long before the join time-out of minutes.
const PROMPTLY: Duration = Duration::from_secs(15);

#[test]
fn every_route_may_ask_for_patience() {
    let asked = Duration::from_secs(2);
    let limited = |route| Rule { status: Some(429), retry_after: Some(asked), times: Some(1), ..Rule::on(route) };
    let (_, took) = survives("patience", ROUTES.map(limited));
    assert!(took >= asked, "nobody was asked to wait");
}

#[test]
fn a_wait_that_a_listing_asks_for_is_kept() {
    let asked = Duration::from_secs(6);
    let limited =
        Rule { status: Some(429), retry_after: Some(asked), times: Some(1), ..Rule::on(Route::ListArtifacts) };
    let stage = stage("retry-after", [limited]);
    let (_, mut aux) = aux(&stage, Nat::None, 0, &["--join-timeout", "4s"]);
    assert_fails(&mut aux, 82, "M106");
    let listed = stage.github.log().iter().filter(|entry| entry.route == Route::ListArtifacts).count();
    assert_eq!(listed, 1, "asked again before the {asked:?} were over");
}

#[test]
fn every_route_may_fail_with_500_twice() {
    let failing = |route| Rule { status: Some(500), times: Some(2), ..Rule::on(route) };
    survives("status-500", ROUTES.map(failing));
}

#[test]
fn every_route_may_fail_with_503() {
    let failing = |route| Rule { status: Some(503), times: Some(1), ..Rule::on(route) };
    survives("status-503", ROUTES.map(failing));
}

#[test]
fn every_route_may_drop_a_connection() {
    let dropping = |route| Rule { drop: true, times: Some(1), ..Rule::on(route) };
    survives("dropped", ROUTES.map(dropping));
}

#[test]
fn every_route_may_do_its_work_and_lose_the_answer() {
    let losing = |route| Rule { drop: true, after: true, times: Some(1), ..Rule::on(route) };
    survives("lost-answer", ROUTES.map(losing));
}

#[test]
fn every_route_may_be_slow() {
    let slow = |route| Rule { delay: Some(Duration::from_millis(700)), ..Rule::on(route) };
    survives("slow", ROUTES.map(slow));
}

#[test]
fn artifacts_may_become_visible_late() {
    let delay = Duration::from_secs(3);
    let late = Rule { visible_after: Some(delay), ..Rule::on(Route::ListArtifacts) };
    let (_, took) = survives("late", [late]);
    assert!(took >= delay, "{took:?}");
}

#[test]
fn a_name_that_a_failed_finalize_has_burnt_is_left_for_a_fresh_one() {
    let burning = Rule { burn: true, times: Some(3), ..Rule::on(Route::FinalizeArtifact) };
    let (stage, _) = survives("burnt", [burning]);
    let log = stage.github.log();
    let taken = log.iter().filter(|entry| entry.route == Route::CreateArtifact && entry.status == Some(409)).count();
    assert_eq!(taken, 0, "a burnt name was tried again");
}

#[test]
fn a_403_at_finalize_is_about_the_name_and_the_next_name_passes() {
    survives("finalize-403", [Rule { status: Some(403), times: Some(2), ..Rule::on(Route::FinalizeArtifact) }]);
}

#[test]
fn downloads_that_fail_for_many_seconds_lose_no_peer() {
    // Both sides read what the primary published, so each fails five times; the pauses between grow.
    survives("outage", [Rule { status: Some(503), times: Some(10), ..Rule::on(Route::Download) }]);
}

#[test]
fn a_publication_that_never_passes_ends_with_the_code_of_the_rendezvous() {
    // The aux publishes nothing before it has read the primary: for it, that is missing.
    end_with_m106(&ROUTES[..3], 403, (84, "M104"));
}

#[test]
fn reading_that_never_passes_ends_with_the_code_of_the_rendezvous_on_either_side() {
    end_with_m106(&ROUTES[3..], 503, (82, "M106"));
}

#[test]
fn an_aux_that_alone_cannot_publish_names_the_rendezvous_and_not_its_path() {
    let job = Some("aux0".to_owned());
    let stage = stage("mute", [Rule { status: Some(503), job, ..Rule::on(Route::CreateArtifact) }]);
    let (mut primary, mut aux) = pair(&stage, "5s");
    assert_fails(&mut aux, 82, "M106");
    assert_fails(&mut primary, 84, "M104");
}

#[test]
fn a_refused_listing_ends_at_once_with_the_permission_that_is_missing() {
    let stage = stage("list-403", [Rule { status: Some(403), ..Rule::on(Route::ListArtifacts) }]);
    let started = Instant::now();
    let (mut primary, mut aux) = pair(&stage, "120s");
    for process in [&mut primary, &mut aux] {
        assert_fails(process, 82, "M106");
        assert!(process.output().contains("actions: read"), "{}", process.output());
    }
    assert!(started.elapsed() < PROMPTLY, "{:?}", started.elapsed());
}

#[test]
fn a_used_up_quota_ends_at_once_with_what_to_do() {
    let message = Some("Failed to CreateArtifact: insufficient usage to create artifact".to_owned());
    let stage = stage("quota", [Rule { status: Some(403), message, ..Rule::on(Route::CreateArtifact) }]);
    let started = Instant::now();
    let args = ["--aux", "1", "--min-aux", "1", "--offload", "none", "--", "true"];
    let (_, mut primary) = primary(&stage, Nat::None, &args);
    assert_fails(&mut primary, 82, "M106");
    assert!(primary.output().contains("delete old artifacts"), "{}", primary.output());
    assert!(started.elapsed() < PROMPTLY, "{:?}", started.elapsed());
}

#[test]
fn a_build_that_did_not_insist_goes_on_alone_when_the_rendezvous_refuses() {
    let stage = stage("alone", [Rule { status: Some(403), ..Rule::on(Route::ListArtifacts) }]);
    let started = Instant::now();
    let args = ["--aux", "1", "--offload", "none", "--", "sh", "-c", "exit 7"];
    let (home, mut primary) = primary(&stage, Nat::None, &args);
    assert_ends(&mut primary, 7);
    assert!(has_line(&primary.output(), "M106"), "{}", primary.output());
    assert!(primary.output().contains("goes on alone"), "{}", primary.output());
    assert_eq!(stage.report(&home).unwrap()["command"]["exit"], 7);
    assert!(started.elapsed() < PROMPTLY, "{:?}", started.elapsed());
}

#[test]
fn where_there_is_a_token_rest_lists_while_the_service_does_not() {
    let stage = stage("rest", [Rule { status: Some(500), ..Rule::on(Route::ListArtifacts) }]);
    let token = [("GITHUB_TOKEN", "ghs_rest")];
    let (home, runner) = (stage.runner("primary", Nat::None).unwrap(), stage.runner("aux0", Nat::None).unwrap());
    let args = ["primary", "--aux", "1", "--min-aux", "1", "--offload", "none", "--", "true"];
    let mut primary = stage.mesh_with(&home, &args, &token).unwrap();
    let mut aux = stage.mesh_with(&runner, &["aux", "--index", "0"], &token).unwrap();
    assert_ends(&mut primary, 0);
    assert_ends(&mut aux, 0);
    assert!(stage.github.log().iter().any(|entry| entry.route == Route::RestList && entry.status == Some(200)));
    assert!(!stage.github.artifacts(RUN).is_empty(), "the closing announcement stays");
}

/// Each of `routes` always answers `status`, on a stage of its own; all stages at once, since they mostly wait. The primary ends with M106.
fn end_with_m106(routes: &[Route], status: u16, (exit, code): (i32, &str)) {
    thread::scope(|scope| {
        for route in routes {
            scope.spawn(move || {
                let name = format!("{route:?}").to_lowercase();
                let stage = stage(&name, [Rule { status: Some(status), ..Rule::on(*route) }]);
                let (mut primary, mut aux) = pair(&stage, "6s");
                assert_fails(&mut primary, 82, "M106");
                assert_fails(&mut aux, exit, code);
            });
        }
    });
}
