//! Publishing, listing, fetching and removing while everything works, or works late.

use std::io::{Cursor, Write as _};
use std::time::{Duration, Instant};

use mesh::rendezvous::{Error, MAX_LEN, Rendezvous as _};
use netns_tests::fake_github::{Route, Rule};
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::support::{break_with, entries, entry, github, is_again, member, names};

#[tokio::test]
async fn what_one_job_publishes_another_lists_and_fetches() {
    let fake = github().await;
    let (primary, aux) = (member(&fake, "primary"), member(&fake, "aux-0"));
    primary.publish("mesh-1-p", b"sealed").await.expect("published");
    let listed = entry(&aux, "mesh-1-p").await;
    assert_eq!(listed.len, Some(6));
    assert_eq!(aux.fetch(&listed).await.expect("fetched"), b"sealed");
    let artifact = &fake.artifacts("4242")[0];
    assert_eq!((artifact.version, artifact.mime_type.as_str()), (7, "application/octet-stream"));
    let lifetime = artifact.expires_at - artifact.created_at;
    assert!(lifetime.whole_hours() >= 23 && lifetime.whole_hours() <= 24, "{lifetime}");
}

#[tokio::test]
async fn no_token_of_ours_reaches_the_blob_host() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    primary.publish("mesh-1-p", b"sealed").await.expect("published");
    primary.fetch(&entry(&primary, "mesh-1-p").await).await.expect("fetched");
    let log = fake.log();
    let blobs: Vec<_> = log.iter().filter(|entry| matches!(entry.route, Route::Upload | Route::Download)).collect();
    assert_eq!(blobs.len(), 3, "a block, a block list, a download");
    assert!(blobs.iter().all(|entry| !entry.authorization), "{blobs:?}");
    let service = log.iter().filter(|entry| entry.path.starts_with("/twirp/")).all(|entry| entry.authorization);
    assert!(service, "the service is asked with the token: {log:?}");
}

#[tokio::test]
async fn a_zip_gives_the_one_file_in_it_and_nothing_else_is_taken_from_one() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    primary.publish("mesh-1-zip", &zip(&[("mesh-1-zip", b"sealed")])).await.expect("published");
    primary.publish("mesh-1-two", &zip(&[("a", b"x"), ("b", b"y")])).await.expect("published");
    primary.publish("mesh-1-bomb", &zip(&[("a", &vec![0; MAX_LEN + 1])])).await.expect("published");
    primary.publish("mesh-1-damaged", b"PK\x03\x04 and no more").await.expect("published");
    assert_eq!(primary.fetch(&entry(&primary, "mesh-1-zip").await).await.expect("fetched"), b"sealed");
    for name in ["mesh-1-two", "mesh-1-bomb", "mesh-1-damaged"] {
        let error = primary.fetch(&entry(&primary, name).await).await.expect_err("not one small file");
        assert!(matches!(&error, Error::Refused { what, .. } if what.contains(name)), "{error:?}");
    }
}

#[tokio::test]
async fn artifacts_of_the_users_own_workflow_are_left_alone() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    for name in ["build-logs", "meshwork", "mesh-1-p"] {
        primary.publish(name, b"x").await.expect("published");
    }
    assert_eq!(names(&primary).await, ["mesh-1-p"]);
}

#[tokio::test]
async fn order_grows_with_the_time_of_publication() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    for name in ["mesh-1-c", "mesh-1-a", "mesh-1-b"] {
        primary.publish(name, b"x").await.expect("published");
    }
    let mut listed = entries(&primary).await;
    listed.sort_by_key(|entry| entry.order);
    let names: Vec<_> = listed.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["mesh-1-c", "mesh-1-a", "mesh-1-b"]);
}

#[tokio::test]
async fn what_becomes_visible_late_is_found_by_listing_again() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    let late = Some(Duration::from_millis(400));
    break_with(&fake, Rule { visible_after: late, ..Rule::on(Route::ListArtifacts) });
    let started = Instant::now();
    primary.publish("mesh-1-p", b"sealed").await.expect("published");
    while entries(&primary).await.is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20), "it never became visible");
        tokio::task::yield_now().await;
    }
    assert!(started.elapsed() >= Duration::from_millis(400), "the fault was not in force");
}

#[tokio::test]
async fn what_is_too_long_is_neither_published_nor_downloaded() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    let error = primary.publish("mesh-1-p", &vec![0; MAX_LEN + 1]).await.expect_err("too long");
    assert!(!is_again(&error), "{error:?}");
    assert_eq!(fake.log(), [], "nothing was sent");
    primary.publish("mesh-1-p", &vec![7; MAX_LEN]).await.expect("just fits");
    let mut listed = entry(&primary, "mesh-1-p").await;
    assert_eq!(primary.fetch(&listed).await.expect("just fits").len(), MAX_LEN);
    listed.len = Some(MAX_LEN as u64 + 1);
    let requests = fake.log().len();
    let error = primary.fetch(&listed).await.expect_err("too long by its listing");
    assert!(!is_again(&error), "{error:?}");
    assert_eq!(fake.log().len(), requests, "nothing was sent");
}

#[tokio::test]
async fn a_name_that_is_taken_asks_for_a_fresh_one() {
    let fake = github().await;
    let (primary, aux) = (member(&fake, "primary"), member(&fake, "aux-0"));
    primary.publish("mesh-1-p", b"first").await.expect("published");
    let error = aux.publish("mesh-1-p", b"second").await.expect_err("taken");
    assert!(is_again(&error), "{error:?}");
    assert_eq!(aux.fetch(&entry(&aux, "mesh-1-p").await).await.expect("fetched"), b"first");
}

#[tokio::test]
async fn a_job_removes_its_own_artifacts_and_only_those() {
    let fake = github().await;
    let (primary, aux) = (member(&fake, "primary"), member(&fake, "aux-0"));
    primary.publish("mesh-1-p", b"x").await.expect("published");
    aux.remove("mesh-1-p").await.expect("not there, as far as this job goes");
    assert_eq!(names(&aux).await, ["mesh-1-p"]);
    primary.remove("mesh-1-p").await.expect("removed");
    assert_eq!(names(&aux).await, [] as [&str; 0]);
    primary.remove("mesh-1-p").await.expect("removed already");
}

#[tokio::test]
async fn an_entry_of_another_rendezvous_is_not_fetched() {
    let fake = github().await;
    let primary = member(&fake, "primary");
    primary.publish("mesh-1-p", b"x").await.expect("published");
    let mut listed = entry(&primary, "mesh-1-p").await;
    for locator in ["", "mesh-1-p", "rest 7 -", "service a b"] {
        listed.locator = locator.to_owned();
        let error = primary.fetch(&listed).await.expect_err("not of this rendezvous");
        assert!(!is_again(&error), "{locator}: {error:?}");
    }
}

fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, SimpleFileOptions::default()).expect("in memory");
        zip.write_all(content).expect("in memory");
    }
    zip.finish().expect("in memory").into_inner()
}
