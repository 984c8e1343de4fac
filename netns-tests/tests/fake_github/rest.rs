//! The REST routes of artifacts, and what REST demands of every request.

use netns_tests::fake_github::{Options, Route};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, JOB, RUN, Rig};

const LIST: &str = "runs/4711/artifacts";

#[tokio::test]
async fn a_list_has_the_shape_of_githubs() {
    let rig = Rig::start().await;
    let id = rig.publish("ep-0", b"hello").await;

    let listed = rig.rest_get(LIST).await.json();

    assert_eq!(listed["total_count"], 1);
    let artifact = &listed["artifacts"][0];
    let url = format!("{}/repos/o/r/actions/artifacts/{id}", rig.fake.url());
    assert_eq!(artifact["id"], id, "the id of the artifact service");
    assert_eq!(artifact["url"], url);
    assert_eq!(artifact["archive_download_url"], format!("{url}/zip"));
    assert_eq!((&artifact["name"], &artifact["size_in_bytes"]), (&json!("ep-0"), &json!(5)));
    assert_eq!((&artifact["expired"], &artifact["workflow_run"]["id"]), (&json!(false), &json!(4711)));
    assert!(artifact["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")));
    assert_eq!(rig.rest_get(&format!("artifacts/{id}")).await.json(), *artifact);
}

#[tokio::test]
async fn pages_are_linked_newest_first() {
    let rig = Rig::start().await;
    for number in 0..5 {
        rig.publish(&format!("ep-{number}"), b"x").await;
    }
    let url = format!("{}/repos/o/r/actions/{LIST}?per_page=2", rig.fake.url());
    let link = |page: u32, relation: &str| format!("<{url}&page={page}>; rel=\"{relation}\"");

    let first = rig.rest_get(&format!("{LIST}?per_page=2")).await;
    let second = rig.rest_get(&format!("{LIST}?per_page=2&page=2")).await;
    let third = rig.rest_get(&format!("{LIST}?per_page=2&page=3")).await;
    let beyond = rig.rest_get(&format!("{LIST}?per_page=2&page=9")).await;

    assert_eq!(
        (names(&first), names(&second)),
        (vec!["ep-4".into(), "ep-3".into()], vec!["ep-2".into(), "ep-1".into()])
    );
    assert_eq!((names(&third), names(&beyond)), (vec!["ep-0".to_owned()], vec![]));
    assert_eq!(first.json()["total_count"], 5);
    assert_eq!(first.header("link"), format!("{}, {}", link(2, "next"), link(3, "last")));
    let around = [link(1, "prev"), link(1, "first"), link(3, "next"), link(3, "last")].join(", ");
    assert_eq!(second.header("link"), around);
    assert_eq!(rig.rest_get(LIST).await.header("link"), "");
}

#[tokio::test]
async fn a_list_may_be_of_one_name_and_oldest_first() {
    let rig = Rig::start().await;
    for name in ["ep-1", "ep-10", "ep-2"] {
        rig.publish(name, b"x").await;
    }

    assert_eq!(names(&rig.rest_get(&format!("{LIST}?name=ep-1")).await), ["ep-1"]);
    assert_eq!(names(&rig.rest_get(&format!("{LIST}?direction=asc")).await), ["ep-1", "ep-10", "ep-2"]);
}

#[tokio::test]
async fn numbers_that_make_no_sense_count_as_absent() {
    let rig = Rig::start().await;
    rig.publish("ep", b"x").await;
    for query in ["per_page=0", "per_page=-1", "per_page=x", "page=0", "per_page=1000000", "page=18446744073709551615"]
    {
        let answer = rig.rest_get(&format!("{LIST}?{query}")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["total_count"]), (200, &json!(1)), "{query}");
    }
}

#[tokio::test]
async fn an_unchanged_answer_is_not_sent_again_and_costs_nothing() {
    let rig = Rig::start().await;
    rig.publish("ep-0", b"x").await;
    let first = rig.rest_get(LIST).await;
    let etag = first.header("etag").to_owned();
    let ask = async || {
        let request = rig.rest(Method::GET, LIST).header("if-none-match", &etag);
        Answer::read(request.send().await.expect("the server answers")).await
    };

    let unchanged = ask().await;
    rig.publish("ep-1", b"x").await;
    let changed = ask().await;

    assert!(etag.starts_with("W/\""), "{etag}");
    assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0));
    assert_eq!(unchanged.header("x-ratelimit-used"), first.header("x-ratelimit-used"));
    assert_eq!((changed.status.as_u16(), changed.header("x-ratelimit-used")), (200, "2"));
}

#[tokio::test]
async fn the_budget_is_told_and_ends() {
    let rig = Rig::start_with(Options { rest_limit: 2, ..Options::default() }).await;

    let told = [rig.rest_get(LIST).await, rig.rest_get(LIST).await, rig.rest_get(LIST).await]
        .map(|answer| (answer.status.as_u16(), answer.header("x-ratelimit-remaining").to_owned()));

    assert_eq!(told, [(200, "1".to_owned()), (200, "0".to_owned()), (403, "0".to_owned())]);
}

#[tokio::test]
async fn a_request_needs_a_user_agent_and_a_token() {
    let rig = Rig::start_with(Options { rest_token: Some("ghs_right".to_owned()), ..Options::default() }).await;
    let url = format!("{}/repos/o/r/actions/{LIST}", rig.fake.url());
    let agent = || rig.http.get(&url).header("user-agent", "tests");

    let cases = [
        (rig.http.get(&url).bearer_auth("ghs_right"), 403),
        (agent(), 401),
        (agent().bearer_auth("ghs_wrong"), 401),
        (agent().header("authorization", "token ghs_right"), 200),
    ];

    for (request, status) in cases {
        let answer = Answer::read(request.send().await.expect("the server answers")).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        if status == 401 {
            assert_eq!((&answer.json()["status"], answer.json()["message"].is_string()), (&json!("401"), true));
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let rig = Rig::start_with(Options { strict: true, ..Options::default() }).await;
    for path in ["artifacts/9", "artifacts/x", "artifacts/9/zip", "runs/9/artifacts", "runs/x/artifacts", "runs/9/jobs"]
    {
        let answer = rig.rest_get(path).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["message"]), (404, &json!("Not Found")), "{path}");
    }
}

#[tokio::test]
async fn a_run_that_nobody_has_seen_yet_has_no_artifacts() {
    let rig = Rig::start().await;
    assert_eq!(rig.rest_get("runs/9/artifacts").await.json(), json!({"total_count": 0, "artifacts": []}));
}

#[tokio::test]
async fn a_download_is_a_redirect_that_needs_no_token() {
    let rig = Rig::start().await;
    let id = rig.publish("ep", b"hello").await;

    let redirect = rig.rest_get(&format!("artifacts/{id}/zip")).await;
    let download = rig.fetch(redirect.header("location")).await;

    assert_eq!(redirect.status, 302);
    assert_eq!((download.status.as_u16(), download.body.as_slice()), (200, b"hello".as_slice()));
    let entry = rig.fake.log().pop().expect("requests were logged");
    assert_eq!((entry.route, entry.authorization, entry.job.as_deref()), (Route::Download, false, Some(JOB)));
}

#[tokio::test]
async fn an_expired_artifact_is_listed_and_gone() {
    let rig = Rig::start().await;
    let fields = json!({"name": "ep", "version": 7, "expires_at": "2020-01-01T00:00:00Z"});
    let created = rig.call("CreateArtifact", fields).await.json();
    rig.put(created["signed_upload_url"].as_str().expect("a URL"), b"hello").await;
    let finalized = rig.finalize("ep", 5).await.json();

    let id = finalized["artifact_id"].as_str().expect("an id");
    assert_eq!(rig.rest_get(&format!("artifacts/{id}/zip")).await.status, 410);
    assert_eq!(rig.rest_get(LIST).await.json()["artifacts"][0]["expired"], true);
}

#[tokio::test]
async fn a_deleted_artifact_is_gone_from_both_sides() {
    let rig = Rig::start().await;
    let id = rig.publish("ep", b"hello").await;
    let path = format!("artifacts/{id}");

    let deleted = rig.rest(Method::DELETE, &path).send().await.expect("the server answers");

    assert_eq!(deleted.status(), 204);
    assert_eq!(rig.rest_get(&path).await.status, 404);
    assert_eq!(rig.names().await, Vec::<String>::new());
    assert_eq!(rig.fake.artifacts(RUN).len(), 0);
}

fn names(answer: &Answer) -> Vec<String> {
    let json: Value = answer.json();
    let artifacts = json["artifacts"].as_array().expect("a list");
    artifacts.iter().map(|artifact| artifact["name"].as_str().expect("a name").to_owned()).collect()
}
