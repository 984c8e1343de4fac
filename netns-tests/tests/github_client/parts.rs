//! The parts below the rendezvous, one by one: the artifact service and the blob client. Not here: how a rendezvous puts them together.

use mesh::github::artifacts::ArtifactService;
use mesh::github::error::Kind;
use mesh::github::token::BackendIds;
use mesh::github::{blob, http};
use netns_tests::fake_github::FakeGithub;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::support::{RUN, config, github};

const PAYLOAD: &[u8] = &[7; 1000];

#[tokio::test]
async fn a_body_beyond_the_bound_is_an_error_and_not_a_part_of_it() {
    let fake = github().await;
    let (client, service) = service(&fake);
    let upload = service.create("mesh-1-p", tomorrow()).await.expect("a fresh name");
    blob::upload(&client, &upload, PAYLOAD).await.expect("uploaded");
    service.finalize("mesh-1-p", 1000, &sha256(PAYLOAD)).await.expect("size and digest are right");
    let owner = BackendIds { run: RUN.to_owned(), job: "primary".to_owned() };
    let url = service.signed_url(&owner, "mesh-1-p").await.expect("finalized");
    assert_eq!(blob::download(&client, &url, 1000).await.expect("just fits"), PAYLOAD);
    let long = blob::download(&client, &url, 999).await.expect_err("one byte too many");
    assert_eq!(long.kind, Kind::Unusable, "{long:?}");
}

#[tokio::test]
async fn a_signed_url_permits_what_it_was_signed_for() {
    let fake = github().await;
    let (client, service) = service(&fake);
    let upload = service.create("mesh-1-p", tomorrow()).await.expect("a fresh name");
    blob::upload(&client, &upload, PAYLOAD).await.expect("uploaded");
    let denied = blob::download(&client, &upload, 1000).await.expect_err("a URL to upload");
    assert_eq!(denied.kind, Kind::Forbidden, "{denied:?}");
    assert!(denied.what.contains("AuthorizationPermissionMismatch"), "{denied}");
}

#[tokio::test]
async fn what_was_not_uploaded_cannot_be_finalized() {
    let fake = github().await;
    let (_, service) = service(&fake);
    service.create("mesh-1-p", tomorrow()).await.expect("a fresh name");
    service.finalize("mesh-1-p", 1000, &sha256(PAYLOAD)).await.expect_err("no bytes");
    assert_eq!(service.list().await.expect("listed"), []);
}

fn service(fake: &FakeGithub) -> (reqwest::Client, ArtifactService) {
    let client = http::client().expect("a client");
    let config = config(fake, Some("primary"), false);
    (client.clone(), ArtifactService::new(client, config.service.expect("all variables are set")))
}

fn tomorrow() -> OffsetDateTime {
    OffsetDateTime::now_utc() + time::Duration::DAY
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
