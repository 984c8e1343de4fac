//! The blob side: Azure's rules, which are stricter than they look.

use std::time::Duration;

use netns_tests::fake_github::Options;
use serde_json::json;

use crate::support::{Answer, Rig};

#[tokio::test]
async fn put_blob_demands_a_blob_type() {
    let rig = Rig::start().await;
    let url = rig.create("ep").await;

    let without = rig.put_part(&url, b"hello").await;
    let page_blob = rig.http.put(&url).header("x-ms-blob-type", "PageBlob").body("hello").send().await;

    assert_error(&without, 400, "MissingRequiredHeader");
    assert_error(&Answer::read(page_blob.expect("the server answers")).await, 400, "InvalidHeaderValue");
    let put = rig.put(&url, b"hello").await;
    assert_eq!((put.status.as_u16(), put.header("x-ms-request-id").is_empty()), (201, false));
}

#[tokio::test]
async fn blocks_become_content_in_the_order_of_the_list() {
    let rig = Rig::start().await;
    let url = rig.create("ep").await;
    for (id, content) in [("QUE=", b"world".as_slice()), ("QUI=", b"hello "), ("QUM=", b"lost")] {
        assert_eq!(rig.put_part(&block(&url, id), content).await.status, 201);
    }

    let xml = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n<BlockList>\n <Latest>QUI=</Latest><Uncommitted>QUE=</Uncommitted></BlockList>";
    let committed = rig.put_part(&format!("{url}&comp=blocklist"), xml.as_bytes()).await;
    rig.finalize("ep", 11).await;

    assert_eq!(committed.status, 201);
    assert_eq!(rig.fetch(&rig.signed_url("ep").await).await.body, b"hello world");
}

#[tokio::test]
async fn a_block_list_may_name_committed_blocks_again_and_no_block_that_is_gone() {
    let rig = Rig::start().await;
    let url = rig.create("ep").await;
    for id in ["QUE=", "QUI="] {
        rig.put_part(&block(&url, id), id.as_bytes()).await;
    }
    let commit = async |xml: &str| rig.put_part(&format!("{url}&comp=blocklist"), xml.as_bytes()).await;

    assert_error(&commit("<BlockList><Committed>QUE=</Committed></BlockList>").await, 400, "InvalidBlockList");
    assert_eq!(commit("<BlockList><Latest>QUE=</Latest></BlockList>").await.status, 201);
    assert_error(&commit("<BlockList><Latest>QUI=</Latest></BlockList>").await, 400, "InvalidBlockList");
    assert_eq!(commit("<BlockList><Committed>QUE=</Committed></BlockList>").await.status, 201);
    assert_error(&commit("<BlockList><Latest>QUE=").await, 400, "InvalidXmlDocument");
}

#[tokio::test]
async fn block_ids_are_short_base64_of_one_length() {
    let rig = Rig::start().await;
    let url = rig.create("ep").await;
    let too_long = format!("{}%3D%3D", "QUFB".repeat(21) + "QU");

    assert_error(&rig.put_part(&format!("{url}&comp=block"), b"x").await, 400, "MissingRequiredQueryParameter");
    for bad in ["", "%21%21", &too_long] {
        assert_error(&rig.put_part(&block(&url, bad), b"x").await, 400, "InvalidQueryParameterValue");
    }
    assert_eq!(rig.put_part(&block(&url, "QUE="), b"x").await.status, 201);
    assert_error(&rig.put_part(&block(&url, "QUFBQUE="), b"x").await, 400, "InvalidBlobOrBlock");
}

#[tokio::test]
async fn an_upload_tells_its_length_and_a_block_is_not_empty() {
    let rig = Rig::start().await;
    let url = block(&rig.create("ep").await, "QUE=");
    let put = async |length: Option<&str>| {
        let request = rig.http.put(&url);
        let request = length.into_iter().fold(request, |request, length| request.header("content-length", length));
        Answer::read(request.send().await.expect("the server answers")).await
    };

    assert_error(&put(None).await, 411, "MissingContentLengthHeader");
    assert_error(&put(Some("0")).await, 400, "InvalidHeaderValue");
}

#[tokio::test]
async fn a_link_permits_one_thing_to_one_blob() {
    let rig = Rig::start().await;
    let upload = rig.create("ep").await;
    rig.put(&upload, b"hello").await;
    rig.finalize("ep", 5).await;
    let download = rig.signed_url("ep").await;

    assert_error(&rig.fetch(&upload).await, 403, "AuthorizationPermissionMismatch");
    assert_error(&rig.put(&download, b"other").await, 403, "AuthorizationPermissionMismatch");
    let foreign = download.replace("/artifacts/", "/artifacts/0");
    assert_error(&rig.fetch(&foreign).await, 403, "AuthenticationFailed");
    let guessed = download.replace("sig=", "sig=0");
    assert_error(&rig.fetch(&guessed).await, 403, "AuthenticationFailed");
    let bare = download.split('?').next().expect("a path");
    assert_error(&rig.fetch(bare).await, 403, "AuthenticationFailed");
}

#[tokio::test]
async fn a_link_expires() {
    let rig = Rig::start_with(Options { link_lifetime: Some(Duration::ZERO), ..Options::default() }).await;
    let upload = rig.create("ep").await;
    assert_error(&rig.put(&upload, b"hello").await, 403, "AuthenticationFailed");
}

#[tokio::test]
async fn a_blob_that_was_deleted_is_not_found() {
    let rig = Rig::start().await;
    rig.publish("ep", b"hello").await;
    let download = rig.signed_url("ep").await;
    rig.call("DeleteArtifact", json!({"name": "ep"})).await;

    assert_error(&rig.fetch(&download).await, 404, "BlobNotFound");
}

#[tokio::test]
async fn a_range_is_answered_with_a_part() {
    let rig = Rig::start().await;
    rig.publish("ep", b"0123456789").await;
    let url = rig.signed_url("ep").await;
    let part = async |range: &str| {
        Answer::read(rig.http.get(&url).header("range", range).send().await.expect("the server answers")).await
    };

    for (range, body, told) in [
        ("bytes=2-4", b"234".as_slice(), "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=8-100", b"89", "bytes 8-9/10"),
    ] {
        let answer = part(range).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_slice()), (206, body), "{range}");
        assert_eq!(answer.header("content-range"), told);
    }
    assert_error(&part("bytes=10-").await, 416, "InvalidRange");
    assert_eq!(part("bytes=4-2").await.status, 200, "a range that is none is ignored");
}

#[tokio::test]
async fn a_raw_artifact_is_saved_under_its_name_and_a_zip_with_its_ending() {
    let rig = Rig::start().await;
    let cases = [
        (json!({"name": "ep 0.bin", "version": 7}), "application/octet-stream", "ep_0.bin", "ep%200.bin"),
        (json!({"name": "notes", "version": 7, "mime_type": "text/plain"}), "text/plain", "notes", "notes"),
        (json!({"name": "new", "version": 7, "mime_type": "application/zip"}), "application/zip", "new.zip", "new.zip"),
        (json!({"name": "old", "version": 4}), "application/zip", "old.zip", "old.zip"),
    ];
    for (fields, media, plain, encoded) in cases {
        let created = rig.call("CreateArtifact", fields.clone()).await.json();
        rig.put(created["signed_upload_url"].as_str().expect("a URL"), b"PK\x05\x06").await;
        let name = fields["name"].as_str().expect("a name");
        rig.finalize(name, 4).await;

        let answer = rig.fetch(&rig.signed_url(name).await).await;

        assert_eq!(answer.header("content-type"), media);
        let disposition = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}");
        assert_eq!(answer.header("content-disposition"), disposition);
    }
}

fn block(url: &str, id: &str) -> String {
    format!("{url}&comp=block&blockid={}", id.replace('=', "%3D"))
}

fn assert_error(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.header("x-ms-error-code")), (status, code), "{}", answer.text());
    assert!(answer.text().contains(&format!("<Code>{code}</Code>")), "{}", answer.text());
}
