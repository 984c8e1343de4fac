//! The five methods of the artifact service, their checks and their errors.

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use netns_tests::fake_github::{FakeGithub, Options};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{JOB, RUN, Rig, loopback};

#[tokio::test]
async fn what_one_job_publishes_another_job_of_the_run_downloads() {
    let rig = Rig::start().await;
    rig.publish("ep-0", b"hello").await;

    let listed = rig.call_as("job-b", "ListArtifacts", json!({})).await.json();
    let named =
        json!({"workflow_job_run_backend_id": listed["artifacts"][0]["workflow_job_run_backend_id"], "name": "ep-0"});
    let signed = rig.call_as("job-b", "GetSignedArtifactURL", named).await.json();

    let download = rig.fetch(signed["signed_url"].as_str().expect("a URL")).await;
    assert_eq!((download.status.as_u16(), download.body.as_slice()), (200, b"hello".as_slice()));
}

#[tokio::test]
async fn a_list_has_the_fields_and_types_of_proto3_json() {
    let rig = Rig::start().await;
    let id = rig.publish("ep-0", b"hello").await;

    let listed = rig.call("ListArtifacts", json!({})).await.json();

    let artifact = &listed["artifacts"][0];
    let created_at = artifact["created_at"].as_str().expect("a timestamp");
    assert_eq!(created_at.len(), "2026-11-22T01:13:53.540Z".len(), "three digits of a second: {created_at}");
    let expected = json!({
        "workflow_run_backend_id": RUN, "workflow_job_run_backend_id": JOB, "database_id": id.to_string(),
        "name": "ep-0", "size": "5", "created_at": created_at, "digest": digest(b"hello"),
    });
    assert_eq!(*artifact, expected);
}

#[tokio::test]
async fn filters_choose_by_exact_name_and_by_id() {
    let rig = Rig::start().await;
    let first = rig.publish("ep-1", b"1").await;
    rig.publish("ep-10", b"10").await;

    for filter in [json!({"name_filter": "ep-1"}), json!({"id_filter": first.to_string()}), json!({"id_filter": first})]
    {
        let listed = rig.call("ListArtifacts", filter.clone()).await.json();
        assert_eq!(names(&listed), ["ep-1"], "{filter}");
    }
}

#[tokio::test]
async fn requests_may_spell_fields_in_camel_case_and_int64_as_numbers() {
    let rig = Rig::start().await;
    let token = rig.fake.runtime_token(RUN, JOB);
    let create = json!({"workflowRunBackendId": RUN, "workflowJobRunBackendId": JOB, "name": "ep", "version": 7,
        "mimeType": "text/plain", "expiresAt": null, "unknownField": [1]});

    let created = rig.post("CreateArtifact", Some(&token), &create.to_string()).await;
    rig.put(created.json()["signed_upload_url"].as_str().expect("a URL"), b"hello").await;
    let finalize = json!({"workflowRunBackendId": RUN, "workflowJobRunBackendId": JOB, "name": "ep", "size": 5});
    let finalized = rig.post("FinalizeArtifact", Some(&token), &finalize.to_string()).await;

    assert_eq!(finalized.json(), json!({"ok": true, "artifact_id": "1"}));
}

#[tokio::test]
async fn a_name_is_unique_in_its_run_but_not_beyond() {
    let rig = Rig::start().await;
    rig.publish("ep-0", b"hello").await;

    let again = rig.call_as("job-b", "CreateArtifact", json!({"name": "ep-0", "version": 7})).await;
    let other_run = rig.fake.runtime_token("4712", JOB);
    let body =
        json!({"workflow_run_backend_id": "4712", "workflow_job_run_backend_id": JOB, "name": "ep-0", "version": 7});
    let elsewhere = rig.post("CreateArtifact", Some(&other_run), &body.to_string()).await;

    assert_eq!(again.status, 409);
    let message = "an artifact with this name already exists on the workflow run";
    assert_eq!(again.json(), json!({"code": "already_exists", "msg": message}));
    assert_eq!(elsewhere.status, 200);
    assert_eq!(rig.fake.artifacts("4712").len(), 0, "created there, and not finalized");
}

#[tokio::test]
async fn a_created_name_is_invisible_until_finalized_and_taken_all_the_same() {
    let rig = Rig::start().await;
    let url = rig.create("ep-0").await;
    rig.put(&url, b"hello").await;

    assert_eq!(rig.names().await, Vec::<String>::new());
    assert_eq!(rig.call("CreateArtifact", json!({"name": "ep-0", "version": 7})).await.status, 409);
    assert_eq!(rig.call("GetSignedArtifactURL", json!({"name": "ep-0"})).await.status, 404);
    assert_eq!(rig.call("DeleteArtifact", json!({"name": "ep-0"})).await.status, 404);
    assert_eq!(rig.finalize("ep-0", 5).await.status, 200);
    assert_eq!(rig.names().await, ["ep-0"]);
}

#[tokio::test]
async fn finalize_checks_size_and_hash_against_what_was_uploaded() {
    let rig = Rig::start().await;
    let url = rig.create("ep-0").await;
    let finalize = async |size: i64, hash: Value| {
        rig.call("FinalizeArtifact", json!({"name": "ep-0", "size": size, "hash": hash})).await.status.as_u16()
    };

    assert_eq!(finalize(5, Value::Null).await, 400, "nothing is uploaded");
    rig.put(&url, b"hello").await;
    assert_eq!(finalize(4, Value::Null).await, 400, "another size");
    assert_eq!(finalize(-5, Value::Null).await, 400, "no size");
    assert_eq!(finalize(5, json!(digest(b"hullo"))).await, 400, "another hash");
    assert_eq!(finalize(5, json!(digest(b"hello"))).await, 200);
    assert_eq!(finalize(5, json!(digest(b"hello"))).await, 409, "finalized already");
}

#[tokio::test]
async fn only_the_job_that_created_an_artifact_finalizes_it() {
    let rig = Rig::start().await;
    let url = rig.create("ep-0").await;
    rig.put(&url, b"hello").await;

    let stranger = rig.call_as("job-b", "FinalizeArtifact", json!({"name": "ep-0", "size": "5"})).await;

    assert_eq!((stranger.status.as_u16(), &stranger.json()["code"]), (404, &json!("not_found")));
}

#[tokio::test]
async fn an_artifact_of_version_4_must_be_a_zip() {
    let rig = Rig::start().await;
    for (name, content, status) in [("zip", b"PK\x05\x06".as_slice(), 200), ("raw", b"hello", 400)] {
        let created = rig.call("CreateArtifact", json!({"name": name, "version": 4})).await.json();
        rig.put(created["signed_upload_url"].as_str().expect("a URL"), content).await;

        assert_eq!(rig.finalize(name, content.len()).await.status, status, "{name}");
    }
}

#[tokio::test]
async fn a_deleted_name_is_free_and_its_successor_has_a_higher_id() {
    let rig = Rig::start().await;
    let first = rig.publish("ep-0", b"one").await;

    let deleted = rig.call("DeleteArtifact", json!({"name": "ep-0"})).await.json();
    let second = rig.publish("ep-0", b"two").await;

    assert_eq!(deleted, json!({"ok": true, "artifact_id": first.to_string()}));
    assert!(second > first, "{second} follows {first}");
    let artifact = &rig.fake.artifacts(RUN)[0];
    assert_eq!(rig.fake.content(artifact), Some(Bytes::from_static(b"two")));
}

#[tokio::test]
async fn a_signed_url_needs_the_job_that_created_the_artifact() {
    let rig = Rig::start().await;
    rig.publish("ep-0", b"hello").await;

    let own_job = rig.call_as("job-b", "GetSignedArtifactURL", json!({"name": "ep-0"})).await;

    assert_eq!(own_job.status, 404);
}

#[tokio::test]
async fn names_that_clients_refuse_are_refused() {
    let rig = Rig::start().await;
    for name in ["", "a/b", "a\\b", "a:b", "a\"b", "a*b", "a?b", "a|b", "a<b", "a>b", "a\nb", "a\rb"] {
        let answer = rig.call("CreateArtifact", json!({"name": name, "version": 7})).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (400, &json!("invalid_argument")), "{name:?}");
    }
}

#[tokio::test]
async fn fields_that_make_no_sense_are_refused() {
    let rig = Rig::start().await;
    let bad = [
        (json!({"name": "ep", "version": 3}), "invalid_argument"),
        (json!({"name": "ep", "version": 7, "expires_at": "tomorrow"}), "malformed"),
        (json!({"name": 5, "version": 7}), "malformed"),
    ];
    for (fields, code) in bad {
        let answer = rig.call("CreateArtifact", fields.clone()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (400, &json!(code)), "{fields}");
    }
}

#[tokio::test]
async fn a_token_is_demanded_and_must_be_whole() {
    let rig = Rig::start().await;
    let expired = token(&json!({"scp": format!("Actions.Results:{RUN}:{JOB}"), "exp": 1}));
    let other_scope = token(&json!({"scp": "Actions.GenericRead:1"}));
    let short_scope = token(&json!({"scp": "Actions.Results:1"}));
    for bad in [None, Some("x"), Some(&*expired), Some(&*other_scope), Some(&*short_scope)] {
        let answer = rig.post("ListArtifacts", bad, "{}").await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (401, &json!("unauthenticated")), "{bad:?}");
    }
}

#[tokio::test]
async fn a_token_speaks_for_its_own_run_and_job_alone() {
    let rig = Rig::start().await;
    let other_run = json!({"workflow_run_backend_id": "4712"});
    let other_job = json!({"workflow_job_run_backend_id": "job-b", "name": "ep", "version": 7});

    for (method, fields) in [("ListArtifacts", other_run), ("CreateArtifact", other_job)] {
        let answer = rig.call(method, fields).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (403, &json!("permission_denied")), "{method}");
    }
}

#[tokio::test]
async fn a_strict_server_knows_only_the_runs_it_gave_tokens_for() {
    let rig = Rig::start_with(Options { strict: true, ..Options::default() }).await;
    let foreign = token(&json!({"scp": "Actions.Results:99:job"}));
    let body = json!({"workflow_run_backend_id": "99", "workflow_job_run_backend_id": "job"}).to_string();

    assert_eq!(rig.post("ListArtifacts", Some(&foreign), &body).await.status, 401);
    rig.fake.runtime_token("99", "any");
    assert_eq!(rig.post("ListArtifacts", Some(&foreign), &body).await.status, 200);
}

#[tokio::test]
async fn envelopes_that_are_no_twirp_are_named_as_such() {
    let rig = Rig::start().await;
    let token = rig.fake.runtime_token(RUN, JOB);
    let url = format!("{}/twirp/github.actions.results.api.v1.ArtifactService/ListArtifacts", rig.fake.url());

    let unknown = rig.post("MigrateArtifact", Some(&token), "{}").await;
    let got = rig.fetch(&url).await;
    let protobuf = rig.http.post(&url).bearer_auth(&token).header("content-type", "application/protobuf").send().await;
    let broken = rig.post("ListArtifacts", Some(&token), "{").await;
    let list = rig.post("ListArtifacts", Some(&token), "[]").await;

    for answer in [&unknown, &got] {
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (404, &json!("bad_route")));
    }
    assert_eq!(protobuf.expect("the server answers").status(), 404);
    for answer in [&broken, &list] {
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (400, &json!("malformed")));
    }
}

#[tokio::test]
async fn urls_name_the_host_by_which_the_client_came() {
    let rig = Rig::start().await;
    let token = rig.fake.runtime_token(RUN, JOB);
    let url = format!("{}/twirp/github.actions.results.api.v1.ArtifactService/CreateArtifact", rig.fake.url());
    let body = json!({"workflow_run_backend_id": RUN, "workflow_job_run_backend_id": JOB, "name": "ep", "version": 7});

    let request = rig.http.post(url).bearer_auth(token).header("host", "github.lab:80").json(&body);
    let created: Value = request.send().await.expect("the server answers").json().await.expect("JSON");

    let upload = created["signed_upload_url"].as_str().expect("a URL");
    assert!(upload.starts_with("http://github.lab:80/actions-results/"), "{upload}");
}

#[tokio::test]
async fn a_public_url_takes_the_place_of_the_host() {
    let options = Options { public_url: Some("http://192.0.2.1:8080".to_owned()), ..Options::default() };
    let fake = FakeGithub::start_with(loopback(), options).await.expect("a free port on loopback");

    assert_eq!(fake.url(), "http://192.0.2.1:8080");
}

fn names(listed: &Value) -> Vec<&str> {
    let artifacts = listed["artifacts"].as_array().expect("a list");
    artifacts.iter().map(|artifact| artifact["name"].as_str().expect("a name")).collect()
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn token(claims: &Value) -> String {
    format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims.to_string()))
}
