//! Uploads by whatever messages come: none panics, and none stores a wrong blob.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{TestCaseError, TestRunner};
use tokio::runtime::Runtime;

use super::*;
use crate::cache::reapi::Reapi;

const BYTES: &[u8] = b"some bytes of a blob, some bytes of a blob";

/// A message that nearly follows the others: mostly what is due, now and then something else.
fn message(form: Form) -> impl Strategy<Value = (usize, WriteRequest)> {
    let digest = sha256::digest(BYTES);
    let name = |digest, form| Resource { instance: String::new(), upload: Some("u".into()), form, digest }.to_string();
    let other = Digest { size: 3, ..digest };
    let names = vec![name(digest, form), name(digest, form), String::new(), name(other, form), "blobs/x".into()];
    (select(names), 0..60_usize, prop::bool::weighted(0.1), -1..2_i64, prop::bool::weighted(0.2), any::<Vec<u8>>())
        .prop_map(|(resource_name, len, garbage, skew, finish_write, data)| {
            let skew = if garbage { skew } else { 0 };
            let data = if garbage { data } else { vec![] };
            (len, WriteRequest { resource_name, write_offset: skew, finish_write, data })
        })
}

/// Gives each message the bytes and the offset that are due, unless it has its own.
fn in_order(plan: Vec<(usize, WriteRequest)>, sent: &[u8]) -> Vec<WriteRequest> {
    let mut at = 0;
    let due = |(len, mut message): (usize, WriteRequest)| {
        let start = at.min(sent.len());
        if message.data.is_empty() {
            message.data = sent[start..(start + len).min(sent.len())].to_vec();
        }
        message.write_offset += at as i64;
        at += message.data.len();
        message
    };
    plan.into_iter().map(due).collect()
}

/// One namespace, in which nothing is stored yet.
fn check(reapi: &Reapi, namespace: &str, messages: Vec<WriteRequest>, sent: &[u8]) -> Result<(), TestCaseError> {
    let first = messages.first().cloned().unwrap_or_default();
    let whole: Vec<u8> = messages.iter().flat_map(|message| message.data.clone()).collect();
    let before = (reapi.cache.stats().puts, reapi.cache.usage());

    let (told, stored) = Runtime::new()?.block_on(async {
        let desk = reapi.desk(Stage::grant(namespace, true)).await.expect("a place");
        let told = desk.upload(tokio_stream::iter(messages.into_iter().map(Ok))).await;
        let named: Option<Resource> = first.resource_name.parse().ok();
        (
            told,
            match named {
                Some(named) => desk.content(&named.digest).await,
                None => None,
            },
        )
    });

    prop_assert_eq!(told.is_ok(), stored.is_some());
    if let Ok(committed) = told {
        prop_assert_eq!(stored.expect("stored"), BYTES);
        prop_assert!(whole.starts_with(sent) && committed as usize == sent.len());
    } else {
        prop_assert_eq!((reapi.cache.stats().puts, reapi.cache.usage()), before);
    }
    Ok(())
}

#[test]
fn whatever_comes_no_wrong_blob_is_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Arc::new(Cache::new(Store::open(folder.path(), BUDGET).expect("a store").into(), None));
    let (reapi, case) = (Reapi::new(cache, 1, PATIENCE), Cell::new(0));
    for (form, sent) in [(Form::Plain, BYTES.to_vec()), (Form::Zstd, packed(BYTES))] {
        let plans = prop::collection::vec(message(form), 0..12);
        let checked = TestRunner::default().run(&plans, |plan| {
            case.set(case.get() + 1);
            check(&reapi, &format!("n{}", case.get()), in_order(plan, &sent), &sent)
        });
        checked.expect("it holds");
    }
    assert!(reapi.cache.stats().puts > 0, "some of them are whole");
}

#[test]
fn an_upload_by_the_rules_is_among_them() {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Arc::new(Cache::new(Store::open(folder.path(), BUDGET).expect("a store").into(), None));
    let reapi = Reapi::new(cache, 1, PATIENCE);
    let digest = sha256::digest(BYTES);
    let named = Resource { instance: String::new(), upload: Some("u".into()), form: Form::Plain, digest }.to_string();
    let upload = |messages: Vec<WriteRequest>| {
        runtime.block_on(async {
            let desk = reapi.desk(Stage::grant("main", true)).await.expect("a place");
            desk.upload(tokio_stream::iter(messages.into_iter().map(Ok))).await.map_err(|status| status.code())
        })
    };
    let good = messages(&named, BYTES, 10);
    let changed = |change: fn(&mut Vec<WriteRequest>)| {
        let mut messages = good.clone();
        change(&mut messages);
        messages
    };

    assert_eq!(upload(vec![]), Err(Code::InvalidArgument));
    assert_eq!(upload(changed(|all| all[0].resource_name.clear())), Err(Code::InvalidArgument));
    assert_eq!(upload(changed(|all| all[2].resource_name = "other".into())), Err(Code::InvalidArgument));
    assert_eq!(upload(changed(|all| all[0].write_offset = 1)), Err(Code::InvalidArgument));
    assert_eq!(upload(changed(|all| all[2].write_offset = 0)), Err(Code::InvalidArgument));
    assert_eq!(upload(changed(|all| all[2].finish_write = true)), Err(Code::InvalidArgument));
    assert_eq!(upload(changed(|all| all[4].finish_write = false)), Err(Code::InvalidArgument));
    assert_eq!(upload(changed(|all| drop(all.pop()))), Err(Code::InvalidArgument));
    assert_eq!(upload(good.clone()), Ok(BYTES.len() as i64));
}
