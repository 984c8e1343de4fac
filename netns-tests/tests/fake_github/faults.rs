//! Every switch for faults: what it breaks, for whom, how often, and what it leaves whole.

use std::time::{Duration, Instant};

use netns_tests::fake_github::{BadRule, Route, Rule, Tamper};
use reqwest::Method;
use serde_json::json;

use crate::support::{JOB, RUN, Rig};

#[tokio::test]
async fn a_status_is_answered_in_the_language_of_its_route() {
    let rig = Rig::start().await;
    let id = rig.publish("ep", b"hello").await;
    let url = rig.signed_url("ep").await;
    let unavailable = |route| Rule { status: Some(503), retry_after: Some(Duration::from_secs(7)), ..Rule::on(route) };
    add(&rig, [Route::ListArtifacts, Route::Download, Route::RestGet].map(unavailable));

    let twirp = rig.call("ListArtifacts", json!({})).await;
    let blob = rig.fetch(&url).await;
    let rest = rig.rest_get(&format!("artifacts/{id}")).await;

    for answer in [&twirp, &blob, &rest] {
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "7"));
    }
    assert_eq!(twirp.json()["code"], "unavailable");
    assert_eq!(blob.header("x-ms-error-code"), "ServerBusy");
    assert_eq!(rest.json()["status"], "503");
}

#[tokio::test]
async fn a_rule_is_spent_after_its_times_and_the_next_one_follows() {
    let rig = Rig::start().await;
    let rule = |status, times| Rule { status: Some(status), times, ..Rule::on(Route::ListArtifacts) };
    add(&rig, [rule(500, Some(2)), rule(429, None)]);

    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(rig.call("ListArtifacts", json!({})).await.status.as_u16());
    }
    rig.fake.faults().clear();
    seen.push(rig.call("ListArtifacts", json!({})).await.status.as_u16());

    assert_eq!(seen, [500, 500, 429, 429, 200]);
}

#[tokio::test]
async fn a_rule_may_be_for_one_job_and_have_its_own_text() {
    let rig = Rig::start().await;
    let (job, message) = (Some("job-b".to_owned()), Some("insufficient usage".to_owned()));
    add(&rig, [Rule { status: Some(403), job, message, ..Rule::on(Route::CreateArtifact) }]);
    let fields = |name| json!({"name": name, "version": 7});

    let broken = rig.call_as("job-b", "CreateArtifact", fields("b")).await;
    let whole = rig.call_as(JOB, "CreateArtifact", fields("a")).await;

    assert_eq!(broken.json(), json!({"code": "permission_denied", "msg": "insufficient usage"}));
    assert_eq!(whole.status, 200);
}

#[tokio::test]
async fn every_route_can_be_broken() {
    let rig = Rig::start().await;
    let id = rig.publish("ep", b"hello").await;
    let (upload, download) = (rig.create("other").await, rig.signed_url("ep").await);
    let twirp = [
        (Route::CreateArtifact, "CreateArtifact"),
        (Route::FinalizeArtifact, "FinalizeArtifact"),
        (Route::ListArtifacts, "ListArtifacts"),
        (Route::GetSignedArtifactUrl, "GetSignedArtifactURL"),
        (Route::DeleteArtifact, "DeleteArtifact"),
    ];
    let others =
        [Route::Upload, Route::Download, Route::RestList, Route::RestGet, Route::RestDelete, Route::RestDownload];
    let routes = twirp.iter().map(|(route, _)| *route).chain(others);
    add(&rig, routes.map(|route| Rule { status: Some(502), ..Rule::on(route) }));

    for (_, method) in twirp {
        assert_eq!(rig.call(method, json!({"name": "ep"})).await.status, 502, "{method}");
    }
    assert_eq!(rig.put(&upload, b"x").await.status, 502);
    assert_eq!(rig.fetch(&download).await.status, 502);
    for path in [format!("runs/{RUN}/artifacts"), format!("artifacts/{id}"), format!("artifacts/{id}/zip")] {
        assert_eq!(rig.rest_get(&path).await.status, 502, "{path}");
    }
    let delete = rig.rest(Method::DELETE, &format!("artifacts/{id}")).send().await;
    assert_eq!(delete.expect("the server answers").status(), 502);
    assert_eq!(rig.fake.artifacts(RUN).len(), 1, "nothing was done");
}

#[tokio::test]
async fn a_delay_comes_before_the_usual_answer() {
    let rig = Rig::start().await;
    let delay = Duration::from_millis(200);
    add(&rig, [Rule { delay: Some(delay), ..Rule::on(Route::ListArtifacts) }]);

    let begin = Instant::now();
    let answer = rig.call("ListArtifacts", json!({})).await;

    assert_eq!(answer.status, 200);
    assert!(begin.elapsed() >= delay, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_dropped_request_is_neither_answered_nor_done() {
    let rig = Rig::start().await;
    rig.publish("ep", b"hello").await;
    add(&rig, [Rule { drop: true, ..Rule::on(Route::DeleteArtifact) }]);

    let error = attempt(&rig, "DeleteArtifact").await.expect_err("the connection closes without an answer");

    assert!(!error.is_timeout(), "{error:?}");
    assert_eq!(rig.fake.artifacts(RUN).len(), 1);
    assert_eq!(rig.fake.log().last().map(|entry| (entry.route, entry.status)), Some((Route::DeleteArtifact, None)));
}

#[tokio::test]
async fn a_request_dropped_afterwards_is_done() {
    let rig = Rig::start().await;
    rig.publish("ep", b"hello").await;
    add(&rig, [Rule { drop: true, after: true, ..Rule::on(Route::DeleteArtifact) }]);

    attempt(&rig, "DeleteArtifact").await.expect_err("the connection closes without an answer");

    assert_eq!(rig.fake.artifacts(RUN).len(), 0);
}

#[tokio::test]
async fn a_dropped_upload_closes_the_connection() {
    let rig = Rig::start().await;
    let url = rig.create("ep").await;
    add(&rig, [Rule { drop: true, times: Some(1), ..Rule::on(Route::Upload) }]);
    let upload = || rig.http.put(&url).header("x-ms-blob-type", "BlockBlob").body(vec![0; 1 << 20]).send();

    upload().await.expect_err("the connection closes without an answer");

    assert_eq!(upload().await.expect("the rule is spent").status(), 201);
}

#[tokio::test]
async fn a_burnt_name_is_taken_for_ever_and_never_visible() {
    let rig = Rig::start().await;
    add(&rig, [Rule { burn: true, times: Some(1), ..Rule::on(Route::FinalizeArtifact) }]);
    let url = rig.create("ep").await;
    rig.put(&url, b"hello").await;

    let burnt = rig.finalize("ep", 5).await;

    assert_eq!((burnt.status.as_u16(), &burnt.json()["code"]), (500, &json!("internal")));
    assert_eq!(rig.finalize("ep", 5).await.status, 404);
    assert_eq!(rig.call("CreateArtifact", json!({"name": "ep", "version": 7})).await.status, 409);
    assert_eq!(rig.call("DeleteArtifact", json!({"name": "ep"})).await.status, 404);
    assert_eq!(rig.names().await, Vec::<String>::new());
    rig.publish("ep-again", b"hello").await;
}

#[tokio::test]
async fn a_name_may_burn_with_another_status() {
    let rig = Rig::start().await;
    add(&rig, [Rule { burn: true, status: Some(403), ..Rule::on(Route::FinalizeArtifact) }]);
    rig.create("ep").await;

    assert_eq!(rig.finalize("ep", 5).await.status, 403);
    rig.fake.faults().clear();
    assert_eq!(rig.finalize("ep", 5).await.status, 404, "burnt all the same");
}

#[tokio::test]
async fn tampered_downloads_differ_in_one_bit_or_end_early() {
    let rig = Rig::start().await;
    rig.publish("ep", b"hello").await;
    let url = rig.signed_url("ep").await;
    let tamper = |tamper| Rule { tamper: Some(tamper), times: Some(1), ..Rule::on(Route::Download) };
    add(&rig, [tamper(Tamper::Flip), tamper(Tamper::Truncate)]);

    let bodies = [rig.fetch(&url).await, rig.fetch(&url).await, rig.fetch(&url).await].map(|answer| answer.body);

    assert_eq!(bodies, [b"hemlo".to_vec(), b"he".to_vec(), b"hello".to_vec()]);
}

#[tokio::test]
async fn late_visibility_hides_the_young_from_lists_alone() {
    let rig = Rig::start().await;
    let late = |route, age| Rule { visible_after: Some(age), times: Some(1), ..Rule::on(route) };
    let (hour, nothing) = (Duration::from_secs(3600), Duration::ZERO);
    let rest = format!("runs/{RUN}/artifacts");
    let rules = [Route::ListArtifacts, Route::RestList].map(|route| [late(route, hour), late(route, nothing)]);
    add(&rig, rules.into_iter().flatten());
    rig.publish("ep", b"hello").await;

    assert_eq!(rig.rest_get(&rest).await.json()["total_count"], 0);
    assert_eq!(rig.rest_get(&rest).await.json()["total_count"], 1);
    assert_eq!(rig.names().await, Vec::<String>::new());
    assert_eq!(rig.fetch(&rig.signed_url("ep").await).await.status, 200);
    assert_eq!(rig.names().await, ["ep"]);
}

#[tokio::test]
async fn rules_that_could_never_act_are_refused_whole() {
    let rig = Rig::start().await;
    let list = Route::ListArtifacts;
    let good = Rule { status: Some(500), ..Rule::on(list) };
    let bad = [
        (Rule { status: Some(200), ..Rule::on(list) }, BadRule::Status(200)),
        (Rule { burn: true, ..Rule::on(list) }, BadRule::Burn(list)),
        (Rule { tamper: Some(Tamper::Flip), ..Rule::on(list) }, BadRule::Tamper(list)),
        (Rule { visible_after: Some(Duration::ZERO), ..Rule::on(Route::Upload) }, BadRule::VisibleAfter(Route::Upload)),
        (Rule { after: true, delay: Some(Duration::ZERO), ..Rule::on(list) }, BadRule::After(list)),
        (Rule { times: Some(1), ..Rule::on(list) }, BadRule::Nothing(list)),
    ];

    for (rule, error) in bad {
        assert_eq!(rig.fake.faults().add([good.clone(), rule]), Err(error));
    }
    assert_eq!(rig.call("ListArtifacts", json!({})).await.status, 200);
}

fn add(rig: &Rig, rules: impl IntoIterator<Item = Rule>) {
    rig.fake.faults().add(rules).expect("the rules are good");
}

/// A call about the artifact `ep`, of which the connection may not survive.
async fn attempt(rig: &Rig, method: &str) -> reqwest::Result<reqwest::Response> {
    let url = format!("{}/twirp/github.actions.results.api.v1.ArtifactService/{method}", rig.fake.url());
    let body = json!({"workflow_run_backend_id": RUN, "workflow_job_run_backend_id": JOB, "name": "ep"});
    rig.http.post(url).bearer_auth(rig.fake.runtime_token(RUN, JOB)).json(&body).send().await
}
