//! Every switch for faults: the call ends in a success or in a classified error, in time, and never shows a secret.

use std::time::Duration;

use mesh::rendezvous::{Error, Rendezvous as _};
use netns_tests::fake_github::{Route, Rule, Tamper};

use crate::support::{break_with, count, entry, github, in_time, is_again, member, names, status};

const PUBLISHING: [Route; 3] = [Route::CreateArtifact, Route::Upload, Route::FinalizeArtifact];
const FETCHING: [Route; 2] = [Route::GetSignedArtifactUrl, Route::Download];

#[tokio::test]
async fn a_status_while_publishing_is_worth_a_fresh_name_unless_it_is_a_401_or_makes_no_sense() {
    let cases = [
        (400, false),
        (401, false),
        (403, true),
        (404, true),
        (409, true),
        (429, true),
        (500, true),
        (502, true),
        (503, true),
        (504, true),
    ];
    let fake = github().await;
    let primary = member(&fake, "primary");
    for route in PUBLISHING {
        for (code, again) in cases {
            break_with(&fake, Rule { times: Some(1), ..status(route, code) });
            let error = in_time(primary.publish(&name(route, code), b"x")).await.expect_err("a fault");
            assert_eq!(is_again(&error), again, "{code} at {route:?}: {error:?}");
            assert!(error.to_string().contains(&code.to_string()), "{error}");
        }
    }
    primary.publish("mesh-1-p", b"x").await.expect("the faults have ended");
    assert_eq!(names(&primary).await, ["mesh-1-p"], "nothing of a failed publication is visible");
}

#[tokio::test]
async fn a_status_while_reading_is_passing_or_a_refusal() {
    let cases = [(400, false), (401, false), (403, false), (404, true), (429, true), (500, true), (503, true)];
    let fake = github().await;
    let primary = member(&fake, "primary");
    primary.publish("mesh-1-p", b"x").await.expect("published");
    let listed = entry(&primary, "mesh-1-p").await;
    for (code, again) in cases {
        break_with(&fake, status(Route::ListArtifacts, code));
        let error = in_time(primary.list()).await.expect_err("a fault");
        assert_eq!(is_again(&error), again, "{code}: {error:?}");
        for route in FETCHING {
            fake.faults().clear();
            break_with(&fake, status(route, code));
            let error = in_time(primary.fetch(&listed)).await.expect_err("a fault");
            assert_eq!(is_again(&error), again, "{code} at {route:?}: {error:?}");
        }
        fake.faults().clear();
    }
    assert_eq!(primary.fetch(&listed).await.expect("the faults have ended"), b"x");
}

#[tokio::test]
async fn the_wait_that_github_asks_for_reaches_the_caller() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    let wait = Some(Duration::from_secs(7));
    for route in PUBLISHING {
        break_with(&fake, Rule { retry_after: wait, times: Some(1), ..status(route, 429) });
        let error = primary.publish(&name(route, 429), b"x").await.expect_err("a fault");
        assert!(matches!(&error, Error::Again { after, .. } if *after == wait), "{route:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_used_up_quota_is_told_with_what_to_do() {
    let fake = github().await;
    let message = Some("Artifact storage quota: insufficient usage to create artifact".to_owned());
    break_with(&fake, Rule { message, ..status(Route::CreateArtifact, 403) });
    let error = member(&fake, "primary").publish("mesh-1-p", b"x").await.expect_err("no storage");
    assert!(matches!(&error, Error::Refused { hint, .. } if hint.contains("storage")), "{error:?}");
}

#[tokio::test]
async fn a_dropped_connection_is_worth_another_try() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    for route in PUBLISHING {
        break_with(&fake, Rule { drop: true, ..Rule::on(route) });
        let error = in_time(primary.publish(&name(route, 0), b"x")).await.expect_err("dropped");
        assert!(is_again(&error), "{route:?}: {error:?}");
        fake.faults().clear();
    }
    primary.publish("mesh-1-p", b"x").await.expect("the faults have ended");
    let listed = entry(&primary, "mesh-1-p").await;
    for route in FETCHING {
        break_with(&fake, Rule { drop: true, ..Rule::on(route) });
        let error = in_time(primary.fetch(&listed)).await.expect_err("dropped");
        assert!(is_again(&error), "{route:?}: {error:?}");
        fake.faults().clear();
    }
}

#[tokio::test]
async fn nothing_waits_longer_than_its_bound_for_a_silent_service() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    primary.publish("mesh-1-p", b"x").await.expect("published");
    let listed = entry(&primary, "mesh-1-p").await;
    for route in [Route::Upload, Route::ListArtifacts, Route::Download] {
        break_with(&fake, Rule { delay: Some(Duration::from_secs(60)), ..Rule::on(route) });
    }
    let (published, listing, fetched) =
        in_time(async { tokio::join!(primary.publish("mesh-1-q", b"x"), primary.list(), primary.fetch(&listed)) })
            .await;
    for error in [published.expect_err("silent"), listing.expect_err("silent"), fetched.expect_err("silent")] {
        assert!(is_again(&error), "{error:?}");
    }
}

#[tokio::test]
async fn nobody_listening_is_worth_another_try() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    primary.publish("mesh-1-p", b"x").await.expect("published");
    let listed = entry(&primary, "mesh-1-p").await;
    drop(fake);
    let errors = [
        in_time(primary.publish("mesh-1-q", b"x")).await.expect_err("gone"),
        in_time(primary.list()).await.expect_err("gone"),
        in_time(primary.fetch(&listed)).await.expect_err("gone"),
        in_time(primary.remove("mesh-1-p")).await.expect_err("gone"),
    ];
    assert!(errors.iter().all(is_again), "{errors:?}");
}

#[tokio::test]
async fn a_burnt_name_stays_taken_and_a_fresh_one_works() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    break_with(&fake, Rule { burn: true, times: Some(1), ..Rule::on(Route::FinalizeArtifact) });
    let burnt = primary.publish("mesh-1-p", b"x").await.expect_err("burnt");
    let again = primary.publish("mesh-1-p", b"x").await.expect_err("the name is taken");
    assert!(is_again(&burnt) && is_again(&again), "{burnt:?}, {again:?}");
    primary.publish("mesh-1-p2", b"x").await.expect("a fresh name");
    assert_eq!(names(&primary).await, ["mesh-1-p2"]);
}

#[tokio::test]
async fn a_finalize_whose_answer_is_lost_leaves_two_publications_and_no_harm() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    break_with(&fake, Rule { drop: true, after: true, times: Some(1), ..Rule::on(Route::FinalizeArtifact) });
    let error = primary.publish("mesh-1-p", b"same").await.expect_err("the answer was lost");
    assert!(is_again(&error), "{error:?}");
    primary.publish("mesh-1-p2", b"same").await.expect("a fresh name");
    for name in ["mesh-1-p", "mesh-1-p2"] {
        assert_eq!(primary.fetch(&entry(&primary, name).await).await.expect("fetched"), b"same");
    }
}

#[tokio::test]
async fn bytes_that_do_not_match_their_digest_are_not_given_out() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    primary.publish("mesh-1-p", b"sealed announcement").await.expect("published");
    let listed = entry(&primary, "mesh-1-p").await;
    for tamper in [Tamper::Flip, Tamper::Truncate] {
        break_with(&fake, Rule { tamper: Some(tamper), times: Some(1), ..Rule::on(Route::Download) });
        let error = primary.fetch(&listed).await.expect_err("tampered with");
        assert!(is_again(&error), "{tamper:?}: {error:?}");
        assert_eq!(primary.fetch(&listed).await.expect("whole again"), b"sealed announcement");
    }
}

#[tokio::test]
async fn an_expired_signed_url_is_asked_for_once_again() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    primary.publish("mesh-1-p", b"x").await.expect("published");
    let listed = entry(&primary, "mesh-1-p").await;
    break_with(&fake, Rule { times: Some(1), ..status(Route::Download, 403) });
    assert_eq!(primary.fetch(&listed).await.expect("at the second URL"), b"x");
    assert_eq!(count(&fake, Route::GetSignedArtifactUrl), 2);
    break_with(&fake, status(Route::Download, 403));
    let error = primary.fetch(&listed).await.expect_err("at no URL");
    assert!(!is_again(&error), "{error:?}");
    assert_eq!(count(&fake, Route::GetSignedArtifactUrl), 4, "once again, and no more");
}

#[tokio::test]
async fn a_signature_that_github_repeats_does_not_reach_a_message() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    primary.publish("mesh-1-p", b"x").await.expect("published");
    let listed = entry(&primary, "mesh-1-p").await;
    let message = Some("bad https://blob/x?se=1&sig=TOPSECRET&sp=r\n::error::x".to_owned());
    for route in PUBLISHING.into_iter().chain(FETCHING) {
        break_with(&fake, Rule { message: message.clone(), times: Some(1), ..status(route, 500) });
    }
    let mut errors =
        vec![primary.fetch(&listed).await.expect_err("no URL"), primary.fetch(&listed).await.expect_err("no bytes")];
    for name in ["mesh-1-a", "mesh-1-b", "mesh-1-c"] {
        errors.push(primary.publish(name, b"x").await.expect_err("a fault"));
    }
    for error in errors {
        let text = format!("{error} {error:?}");
        assert!(!text.contains("TOPSECRET") && !error.to_string().contains('\n'), "{text}");
    }
    let state = format!("{primary:?} {listed:?}");
    assert!(!state.contains("eyJ") && !state.contains("sig="), "{state}");
}

fn name(route: Route, code: u16) -> String {
    format!("mesh-1-{route:?}-{code}")
}
