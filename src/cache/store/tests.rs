//! The store against a simple model of it, and against what disks and crashes do.

mod damage;

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::*;

const BUDGET: u64 = 64 << 20;

fn open(folder: &Path, budget: u64) -> Arc<Store> {
    Store::open(folder, budget).expect("opened").into()
}

/// `len` bytes that nobody else has.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn name(text: &str) -> Name {
    Name::new("test", text).expect("a name")
}

fn record(digest: Digest, metadata: &[u8]) -> Record {
    Record { digest, version: 1, cost_ms: 0, holders: Holders::default(), metadata: Bytes::copy_from_slice(metadata) }
}

/// All bytes of a blob; `None` where it is not there or turns out damaged.
fn all(store: &Store, digest: &Digest) -> Option<Vec<u8>> {
    let blob = store.blob(digest)?;
    let mut bytes = vec![];
    loop {
        match blob.read(bytes.len() as u64) {
            Ok(more) if more.is_empty() => return Some(bytes),
            Ok(more) => bytes.extend_from_slice(&more),
            Err(_) => {
                store.forget(&blob);
                return None;
            }
        }
    }
}

/// Every file below `folder`, with its length.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let len = path.metadata().expect("a file").len();
            found.push((path, len));
        }
    }
    found
}

/// Sizes around every border.
const SIZES: [usize; 9] = [0, 1, 4096, INLINE - 1, INLINE, INLINE + 1, 256 << 10, (256 << 10) + 1, 900_000];

#[test]
fn blobs_of_every_size_come_back_whole_and_so_they_do_for_the_next_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), BUDGET);
    let stored: Vec<(Digest, Vec<u8>)> =
        (0..).zip(SIZES).map(|(seed, len)| (Digest::EMPTY, content(seed, len))).collect();
    let stored: Vec<_> = stored.into_iter().map(|(_, bytes)| (store.put(&bytes).expect("stored"), bytes)).collect();

    let whole = |store: &Store| {
        stored.iter().all(|(digest, bytes)| store.has(digest) && all(store, digest).as_ref() == Some(bytes))
    };
    assert!(whole(&store));
    drop(store);
    assert!(whole(&open(folder.path(), BUDGET)));
}

#[test]
fn a_blob_that_comes_in_pieces_is_the_same_blob() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), BUDGET);
    let bytes = content(1, 700_001);
    let mut incoming = store.incoming();

    bytes.chunks(1000).for_each(|piece| incoming.write(piece).expect("taken"));
    let digest = incoming.finish(Some(&sha256::digest(&bytes))).expect("stored");

    assert_eq!(all(&store, &digest), Some(bytes));
}

#[test]
fn other_bytes_than_were_named_leave_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), BUDGET);
    let before = files(folder.path());

    for len in [10, 1_000_000] {
        let mut incoming = store.incoming();
        incoming.write(&content(1, len)).expect("taken");
        let refused = incoming.finish(Some(&sha256::digest(b"another")));
        assert!(matches!(refused, Err(Error::Mismatch { .. })), "{refused:?}");
    }
    drop(store.incoming());

    assert_eq!(files(folder.path()), before);
    assert_eq!(store.usage().bytes, 0);
}

#[test]
fn a_blob_that_is_given_up_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), BUDGET);
    let before = files(folder.path());

    let mut incoming = store.incoming();
    incoming.write(&content(1, 1_000_000)).expect("taken");
    assert_ne!(files(folder.path()), before, "it is on its way");
    drop(incoming);

    assert_eq!((files(folder.path()), store.usage().bytes), (before, 0));
}

#[test]
fn a_name_is_of_what_was_set_last_and_of_nothing_once_it_is_removed_also_for_the_next_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second] = [1, 2].map(|seed| record(sha256::digest(&content(seed, 10)), b"said"));
    {
        let store = open(folder.path(), BUDGET);
        store.set_record(&name("kept"), &first).expect("set");
        store.set_record(&name("kept"), &second).expect("set");
        store.set_record(&name("removed"), &first).expect("set");
        assert!(store.remove_record(&name("removed")));
        assert!(!store.remove_record(&name("removed")));
        assert_eq!((store.record(&name("kept")), store.record(&name("removed"))), (Some(second.clone()), None));
    }

    let store = open(folder.path(), BUDGET);

    assert_eq!((store.record(&name("kept")), store.record(&name("removed"))), (Some(second), None));
    assert_eq!(store.record(&Name::new("other", "kept").expect("a name")), None, "of another namespace");
}

#[test]
fn a_folder_is_of_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), BUDGET);

    assert!(matches!(Store::open(folder.path(), BUDGET), Err(Error::InUse(_))));
    let waiting = std::thread::spawn({
        let folder = folder.path().to_path_buf();
        move || Store::open(&folder, BUDGET).is_ok()
    });
    drop(store);
    assert!(waiting.join().expect("ended"), "who ends is waited for");
    assert!(Store::open(folder.path(), BUDGET).is_ok());
}

#[test]
fn the_budget_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), LEAST_BUDGET);

    for seed in 0..600 {
        store.put(&content(seed, if seed % 10 == 0 { 500_000 } else { 50_000 })).expect("stored");
        let on_disk: u64 = files(folder.path()).iter().map(|(_, len)| len).sum();
        assert!(on_disk <= LEAST_BUDGET && on_disk == store.usage().bytes, "{on_disk} bytes, {:?}", store.usage());
    }

    let kept = (0..600).filter(|seed| store.has(&sha256::digest(&content(*seed, 50_000)))).count();
    assert!(kept > 50, "only {kept} blobs were kept");
}

#[test]
fn what_is_read_outlives_a_scan() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), LEAST_BUDGET);
    let read: Vec<Digest> = (0..50).map(|seed| store.put(&content(seed, 20_000)).expect("stored")).collect();
    assert!(read.iter().all(|digest| all(&store, digest).is_some()));

    for seed in 1000..4000 {
        store.put(&content(seed, 20_000)).expect("stored");
        // In use, now and then.
        if seed % 100 == 0 {
            read.iter().for_each(|digest| drop(store.blob(digest)));
        }
    }

    let kept = read.iter().filter(|digest| all(&store, digest).is_some()).count();
    assert_eq!(kept, read.len(), "of {}", read.len());
}

#[test]
fn what_is_pinned_stays_and_where_nothing_else_can_go_the_rest_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), LEAST_BUDGET);
    let pinned: Vec<Digest> = (0..12).map(|seed| store.put(&content(seed, 1_000_000)).expect("stored")).collect();
    pinned.iter().for_each(|digest| store.pin(digest));

    let outcomes: Vec<bool> = (100..120).map(|seed| store.put(&content(seed, 1_000_000)).is_ok()).collect();

    assert!(pinned.iter().all(|digest| all(&store, digest).is_some()));
    assert!(outcomes[0], "{outcomes:?}");
    let more: Vec<Digest> = (200..210).filter_map(|seed| store.put(&content(seed, 1_000_000)).ok()).collect();
    more.iter().for_each(|digest| store.pin(digest));
    assert!(matches!(store.put(&content(300, 3_900_000)), Err(Error::Full { .. })));
    pinned.iter().chain(&more).for_each(|digest| store.unpin(digest));
    assert!(store.put(&content(300, 3_900_000)).is_ok(), "it can go now");
}

#[test]
fn a_name_that_is_set_again_and_again_does_not_push_out_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), LEAST_BUDGET);
    let kept: Vec<Digest> = (0..100).map(|seed| store.put(&content(seed, 10_000)).expect("stored")).collect();

    for seed in 0..3000 {
        store.set_record(&name("one"), &record(Digest::EMPTY, &content(seed, 20_000))).expect("set");
    }

    assert!(kept.iter().all(|digest| all(&store, digest).is_some()));
}

#[test]
fn what_is_too_large_is_refused_before_it_has_all_come() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), LEAST_BUDGET);
    let mut incoming = store.incoming();

    let refused = (0..100).find_map(|_| incoming.write(&content(1, 1 << 20)).err());

    assert!(matches!(refused, Some(Error::TooLarge { .. })), "{refused:?}");
    assert!(incoming.len() <= store.largest() + (1 << 20));
}

#[test]
fn two_writers_of_one_name_and_of_one_blob_leave_one_of_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), LEAST_BUDGET);
    let large = content(7, 400_000);
    let records = [1, 2].map(|seed| record(sha256::digest(&content(seed, 10)), &[seed as u8]));

    std::thread::scope(|scope| {
        for record in &records {
            scope.spawn(|| {
                for _ in 0..200 {
                    store.set_record(&name("one"), record).expect("set");
                    let digest = store.put(&large).expect("stored");
                    assert_eq!(all(&store, &digest).as_ref(), Some(&large));
                    assert!(store.record(&name("one")).is_some_and(|found| records.contains(&found)));
                }
            });
        }
    });

    let stored: u64 = files(folder.path()).iter().map(|(_, len)| len).sum();
    assert!(stored < 2_000_000, "{stored} bytes for one blob and one record");
}

/// What may be done to a store.
#[derive(Debug, Clone)]
enum Step {
    Put { content: u8, size: usize },
    Name { name: u8, content: u8, size: usize },
    Remove { name: u8 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop::sample::select(vec![0, 1, 100, 5000, INLINE, INLINE + 1, 300_000]);
    prop_oneof![
        4 => (any::<u8>(), size.clone()).prop_map(|(content, size)| Step::Put { content, size }),
        4 => (0..8_u8, any::<u8>(), size).prop_map(|(name, content, size)| Step::Name { name, content, size }),
        1 => (0..8_u8).prop_map(|name| Step::Remove { name }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn with_room_for_all_it_is_a_map_that_survives(steps in prop::collection::vec(step(), 1..40)) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = open(folder.path(), BUDGET);
        let (mut blobs, mut names) = (BTreeMap::new(), BTreeMap::new());
        for step in steps {
            match step {
                Step::Put { content: seed, size } => {
                    let bytes = content(seed.into(), size);
                    blobs.insert(store.put(&bytes).expect("stored"), bytes);
                }
                Step::Name { name: of, content: seed, size } => {
                    let bytes = content(seed.into(), size);
                    let record = record(store.put(&bytes).expect("stored"), &[seed]);
                    blobs.insert(record.digest, bytes);
                    store.set_record(&name(&of.to_string()), &record).expect("set");
                    names.insert(of, record);
                }
                Step::Remove { name: of } => {
                    prop_assert_eq!(store.remove_record(&name(&of.to_string())), names.remove(&of).is_some());
                }
                Step::Reopen => {
                    drop(store);
                    store = open(folder.path(), BUDGET);
                }
            }
            prop_assert!((0..8).all(|of| store.record(&name(&of.to_string())).as_ref() == names.get(&of)));
            prop_assert!(blobs.iter().all(|(digest, bytes)| store.has(digest) && all(&store, digest).as_ref() == Some(bytes)));
            let entries = names.len() + blobs.keys().filter(|digest| digest.size > 0).count();
            prop_assert_eq!((store.usage().entries, store.usage().damaged), (entries, 0));
        }
    }

    #[test]
    fn without_room_for_all_what_it_has_is_right(
        steps in prop::collection::vec((any::<u8>(), 1..1_200_000_usize, 0..4_u8), 1..120),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = open(folder.path(), LEAST_BUDGET);
        let mut named = BTreeMap::new();
        for (seed, size, of) in steps {
            let bytes = content(seed.into(), size);
            let record = record(store.put(&bytes).expect("stored"), &[seed]);
            prop_assert_eq!(all(&store, &record.digest), Some(bytes.clone()), "just stored");
            store.set_record(&name(&of.to_string()), &record).expect("set");
            named.insert(of, (record, bytes));
            for (of, (record, bytes)) in &named {
                prop_assert!(store.record(&name(&of.to_string())).is_none_or(|found| found == *record));
                prop_assert!(all(&store, &record.digest).is_none_or(|found| found == *bytes));
            }
            if size % 16 == 0 {
                drop(store);
                store = open(folder.path(), LEAST_BUDGET);
            }
            let on_disk: u64 = files(folder.path()).iter().map(|(_, len)| len).sum();
            prop_assert_eq!((on_disk, store.usage().damaged), (store.usage().bytes, 0));
            prop_assert!(on_disk <= LEAST_BUDGET);
        }
    }
}
