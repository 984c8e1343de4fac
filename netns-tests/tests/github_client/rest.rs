//! Reading by REST: when there is no runtime token, and while the artifact service does not list.

use std::time::Duration;

use mesh::rendezvous::github::Github;
use mesh::rendezvous::{Error, Rendezvous as _};
use netns_tests::fake_github::{Route, Rule};

use crate::support::{
    break_with, config, count, entries, entry, github, in_time, is_again, member, member_with_rest, names, reader,
    status,
};

#[tokio::test]
async fn a_step_without_a_runtime_token_reads_and_does_not_publish() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    primary.publish("mesh-1-p", b"sealed").await.expect("published");
    let reader = reader(&fake);
    let listed = entry(&reader, "mesh-1-p").await;
    assert_eq!(listed.order, entry(&primary, "mesh-1-p").await.order, "both sides have the same ids");
    assert_eq!(reader.fetch(&listed).await.expect("fetched"), b"sealed");
    let error = reader.publish("mesh-1-q", b"x").await.expect_err("no runtime token");
    assert!(matches!(&error, Error::Refused { hint, .. } if hint.contains("`run:` steps")), "{error:?}");
    let redirected = fake.log().into_iter().filter(|entry| entry.route == Route::Download).collect::<Vec<_>>();
    assert!(redirected.len() == 1 && !redirected[0].authorization, "{redirected:?}");
}

#[tokio::test]
async fn a_member_needs_the_runtime_token_and_a_reader_either() {
    let fake = github().await;
    let error = Github::member(config(&fake, None, true)).expect_err("no runtime token");
    assert!(matches!(&error, Error::Refused { what, .. } if what.contains("ACTIONS_RUNTIME_TOKEN")), "{error:?}");
    let error = Github::reader(config(&fake, None, false)).expect_err("no token at all");
    assert!(matches!(&error, Error::Refused { what, .. } if what.contains("ACTIONS_RUNTIME_TOKEN")), "{error:?}");
}

#[tokio::test]
async fn rest_lists_after_the_service_failed_three_times() {
    let fake = github().await;
    let primary = member_with_rest(&fake, "primary");
    primary.publish("mesh-1-p", b"sealed").await.expect("published");
    break_with(&fake, status(Route::ListArtifacts, 503));
    for _ in 0..2 {
        let error = primary.list().await.expect_err("the service is busy");
        assert!(is_again(&error), "{error:?}");
    }
    assert_eq!(count(&fake, Route::RestList), 0, "REST costs a budget");
    for _ in 0..3 {
        assert_eq!(names(&primary).await, ["mesh-1-p"]);
    }
    assert_eq!(count(&fake, Route::ListArtifacts), 3, "the service is left alone for a while");
    assert_eq!(primary.fetch(&entry(&primary, "mesh-1-p").await).await.expect("fetched"), b"sealed");
}

#[tokio::test]
async fn a_service_that_refuses_is_not_asked_three_times() {
    let fake = github().await;
    let primary = member_with_rest(&fake, "primary");
    primary.publish("mesh-1-p", b"sealed").await.expect("published");
    break_with(&fake, status(Route::ListArtifacts, 401));
    assert_eq!(names(&primary).await, ["mesh-1-p"]);
}

#[tokio::test]
async fn a_silent_service_leaves_time_for_rest() {
    let fake = github().await;
    let primary = member_with_rest(&fake, "primary");
    primary.publish("mesh-1-p", b"sealed").await.expect("published");
    break_with(&fake, Rule { times: Some(2), ..status(Route::ListArtifacts, 500) });
    break_with(&fake, Rule { delay: Some(Duration::from_secs(60)), ..Rule::on(Route::ListArtifacts) });
    for _ in 0..2 {
        primary.list().await.expect_err("the service fails");
    }
    assert_eq!(in_time(names(&primary)).await, ["mesh-1-p"]);
}

#[tokio::test]
async fn a_listing_that_both_sides_refuse_says_what_both_said() {
    let fake = github().await;
    let primary = member_with_rest(&fake, "primary");
    break_with(&fake, status(Route::ListArtifacts, 401));
    break_with(&fake, status(Route::RestList, 403));
    let error = primary.list().await.expect_err("refused by both");
    let Error::Refused { what, .. } = &error else { panic!("{error:?}") };
    assert!(what.contains("401") && what.contains("403"), "{what}");
    fake.faults().clear();
    break_with(&fake, status(Route::RestList, 500));
    let error = primary.list().await.expect_err("REST fails for now");
    assert!(is_again(&error), "{error:?}");
}

#[tokio::test]
async fn every_page_is_read() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    for number in 0..130 {
        primary.publish(&format!("mesh-1-{number:03}"), b"x").await.expect("published");
    }
    let mut listed = names(&reader(&fake)).await;
    listed.dedup();
    assert_eq!(listed.len(), 130);
    assert_eq!(count(&fake, Route::RestList), 2, "100 to a page");
}

#[tokio::test]
async fn an_unchanged_listing_costs_nothing_of_the_budget() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    let reader = reader(&fake);
    primary.publish("mesh-1-p", b"x").await.expect("published");
    let first = entries(&reader).await;
    assert_eq!(entries(&reader).await, first);
    primary.publish("mesh-1-q", b"x").await.expect("published");
    assert_eq!(names(&reader).await, ["mesh-1-p", "mesh-1-q"], "a change is seen at once");
    let log = fake.log();
    let statuses: Vec<_> =
        log.iter().filter(|entry| entry.route == Route::RestList).map(|entry| entry.status).collect();
    assert_eq!(statuses, [Some(200), Some(304), Some(200)]);
}

#[tokio::test]
async fn a_failure_of_rest_is_passing_or_a_refusal() {
    let cases = [(401, false), (403, false), (404, true), (429, true), (500, true), (502, true), (503, true)];
    let fake = github().await;
    member(&fake, "primary").publish("mesh-1-p", b"x").await.expect("published");
    let reader = reader(&fake);
    let listed = entry(&reader, "mesh-1-p").await;
    for (code, again) in cases {
        for route in [Route::RestList, Route::RestDownload] {
            break_with(&fake, status(route, code));
            let error = match route {
                Route::RestList => in_time(reader.list()).await.expect_err("a fault"),
                _ => in_time(reader.fetch(&listed)).await.expect_err("a fault"),
            };
            assert_eq!(is_again(&error), again, "{code} at {route:?}: {error:?}");
            fake.faults().clear();
        }
    }
    let wait = Some(Duration::from_secs(9));
    break_with(&fake, Rule { retry_after: wait, ..status(Route::RestList, 403) });
    let error = reader.list().await.expect_err("a limit");
    assert!(matches!(&error, Error::Again { after, .. } if *after == wait), "{error:?}");
}

#[tokio::test]
async fn a_dropped_or_silent_rest_is_worth_another_try() {
    let fake = github().await;
    member(&fake, "primary").publish("mesh-1-p", b"x").await.expect("published");
    let reader = reader(&fake);
    for rule in [
        Rule { drop: true, times: Some(1), ..Rule::on(Route::RestList) },
        Rule { delay: Some(Duration::from_secs(60)), times: Some(1), ..Rule::on(Route::RestList) },
    ] {
        break_with(&fake, rule);
        let error = in_time(reader.list()).await.expect_err("a fault");
        assert!(is_again(&error), "{error:?}");
    }
    assert_eq!(names(&reader).await, ["mesh-1-p"]);
}
