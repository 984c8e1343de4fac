//! What disks, crashes and other programs do to the folder of a store.

use std::os::unix::fs::FileExt;

use super::*;

/// What a disk may do to a file. Whether it only flipped a bit.
fn damage(path: &Path, len: u64, chance: &mut StdRng) -> bool {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("opened");
    let at = chance.random_range(0..len);
    let flips = chance.random_bool(0.7);
    if !flips {
        file.set_len(at).expect("truncated");
    } else {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[byte[0] ^ 1 << chance.random_range(0..8)], at).expect("flipped");
    }
    flips
}

#[test]
fn no_damage_makes_a_wrong_byte_nor_an_error() {
    for seed in 0..60 {
        let folder = tempfile::tempdir().expect("a folder");
        let mut chance = StdRng::seed_from_u64(seed);
        let (mut stored, mut flips) = (vec![], 0);
        {
            let store = open(folder.path(), BUDGET);
            for (at, len) in [3000, 10, 300_000, 50_000, 600_000, 1].into_iter().enumerate() {
                let bytes = content(seed * 100 + at as u64, len);
                let digest = store.put(&bytes).expect("stored");
                store.set_record(&name(&at.to_string()), &record(digest, &bytes[..1])).expect("set");
                stored.push((name(&at.to_string()), digest, bytes));
            }
            flips += usize::from(spoil(folder.path(), &mut chance));
        }
        flips += usize::from(spoil(folder.path(), &mut chance));
        let store = open(folder.path(), BUDGET);
        let mut lost = 0;
        for (name, digest, bytes) in &stored {
            let found = store.record(name);
            assert!(found.as_ref().is_none_or(|found| *found == record(*digest, &bytes[..1])));
            let read = all(&store, digest);
            assert!(read.as_ref().is_none_or(|read| read == bytes), "a wrong byte, seed {seed}");
            lost += usize::from(read.is_none());
            assert_eq!(store.put(bytes).expect("stored again"), *digest);
            assert_eq!(all(&store, digest).as_ref(), Some(bytes), "seed {seed}");
        }
        assert!(flips < 2 || lost <= 2, "a flipped bit costs what it lies in alone, {lost} are lost, seed {seed}");
    }
}

fn spoil(folder: &Path, chance: &mut StdRng) -> bool {
    let files: Vec<_> = files(folder).into_iter().filter(|(_, len)| *len > 0).collect();
    let (path, len) = &files[chance.random_range(0..files.len())];
    damage(path, *len, chance)
}

#[test]
fn a_folder_full_of_other_things_is_no_obstacle() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = open(folder.path(), BUDGET).put(b"kept").expect("stored");
    for path in ["segments/zzz", "segments/0000000000000001-0000000000000002.small.bak", "files/00/zzz", "incoming/zzz"]
    {
        fs::write(folder.path().join(path), b"zzz").expect("written");
    }
    fs::write(folder.path().join("segments/0000000000000009-0000000000000009.main"), b"").expect("written");

    let store = open(folder.path(), BUDGET);

    assert_eq!(all(&store, &stored), Some(b"kept".to_vec()));
    assert!(!folder.path().join("incoming/zzz").exists() && !folder.path().join("files/00/zzz").exists());
}

#[test]
fn strange_things_in_the_folder_do_not_keep_it_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = open(folder.path(), BUDGET).put(b"kept").expect("stored");
    for path in ["files/00/folder", "incoming/folder", "segments/0000000000000008-0000000000000008.main"] {
        fs::create_dir(folder.path().join(path)).expect("made");
    }
    for path in ["files/file", "segments/ffffffffffffffff-0000000000000001.small"] {
        fs::write(folder.path().join(path), b"zzz").expect("written");
    }

    let store = open(folder.path(), BUDGET);

    assert_eq!(all(&store, &stored), Some(b"kept".to_vec()));
    assert!(store.put(b"more").is_ok());
}

#[test]
fn many_short_lives_make_few_segments() {
    let folder = tempfile::tempdir().expect("a folder");
    let lives: Vec<Digest> =
        (0..30).map(|seed| open(folder.path(), BUDGET).put(&content(seed, 50)).expect("stored")).collect();

    let store = open(folder.path(), BUDGET);

    assert!(lives.iter().all(|digest| all(&store, digest).is_some()));
    assert_eq!(files(&folder.path().join("segments")).len(), 1);
}

#[test]
fn folders_that_are_taken_away_are_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), LEAST_BUDGET);
    let inner = ["segments", "files", "incoming"];
    inner.iter().for_each(|name| fs::remove_dir_all(folder.path().join(name)).expect("removed"));

    let stored = (0..60)
        .map(|seed| (seed, store.put(&content(seed, 300_000)).and_then(|_| store.put(&content(1000 + seed, 50_000)))));

    assert!(stored.into_iter().all(|(_, put)| put.is_ok()));
    assert!(all(&store, &sha256::digest(&content(59, 300_000))).is_some());
}

#[test]
fn no_single_bit_brings_back_what_was_removed() {
    for bit in 0..8 {
        let folder = tempfile::tempdir().expect("a folder");
        {
            let store = open(folder.path(), BUDGET);
            store.set_record(&name("removed"), &record(Digest::EMPTY, b"said")).expect("set");
            assert!(store.remove_record(&name("removed")));
        }
        let (path, _) = &files(&folder.path().join("segments"))[0];
        let mut bytes = fs::read(path).expect("read");
        bytes[entry::VOID_AT as usize] ^= 1 << bit;
        fs::write(path, bytes).expect("flipped");

        assert_eq!(open(folder.path(), BUDGET).record(&name("removed")), None, "bit {bit}");
    }
}

#[test]
fn who_still_reads_a_damaged_blob_does_not_take_the_new_one_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, bytes) = (open(folder.path(), BUDGET), content(1, 900_000));
    let digest = store.put(&bytes).expect("stored");
    let old = store.blob(&digest).expect("there");
    let path = store.file(&digest);
    OpenOptions::new().write(true).open(&path).expect("opened").set_len(10).expect("cut");

    assert_eq!(store.put(&bytes).expect("stored again"), digest);
    assert!(old.read(500_000).is_err());
    store.forget(&old);

    assert_eq!(all(&store, &digest), Some(bytes));
}

#[test]
fn storing_a_large_blob_again_mends_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, bytes) = (open(folder.path(), BUDGET), content(1, 900_000));
    let digest = store.put(&bytes).expect("stored");
    let file = OpenOptions::new().write(true).open(store.file(&digest)).expect("opened");
    file.write_all_at(&[!bytes[7]], 7).expect("flipped");

    store.put(&bytes).expect("stored again");

    assert_eq!(all(&store, &digest), Some(bytes));
}

#[test]
fn a_lost_entry_takes_its_file_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), LEAST_BUDGET);
    for round in 0..5_u64 {
        let blobs: Vec<Digest> =
            (0..4).map(|at| store.put(&content(100 * round + at, 1_500_000)).expect("stored")).collect();
        for (path, len) in files(&folder.path().join("segments")) {
            OpenOptions::new()
                .write(true)
                .open(path)
                .expect("opened")
                .write_all_at(&vec![0xff; len as usize], 0)
                .expect("spoilt");
        }
        assert!(blobs.iter().all(|digest| all(&store, digest).is_none()));
    }

    let left: u64 = files(&folder.path().join("files")).iter().map(|(_, len)| len).sum();
    assert_eq!(left, 0);
}

#[test]
fn what_never_comes_whole_does_not_push_out_what_is_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), LEAST_BUDGET);
    let kept: Vec<Digest> = (0..40).map(|seed| store.put(&content(seed, 50_000)).expect("stored")).collect();
    let mut coming: Vec<Incoming> = (0..20).map(|_| store.incoming()).collect();

    let refused =
        coming.iter_mut().filter_map(|incoming| (0..3).find_map(|_| incoming.write(&content(1, 1_000_000)).err()));
    let refused = refused.filter(|error| matches!(error, Error::Full { .. })).count();

    assert!(refused > 10, "{refused}");
    assert!(kept.iter().all(|digest| all(&store, digest).is_some()));
}

#[test]
fn a_torn_entry_at_the_end_hides_nothing_that_comes_after() {
    for cut in [1, 40, entry::HEAD as u64, 500, 3000] {
        let folder = tempfile::tempdir().expect("a folder");
        open(folder.path(), BUDGET).put(&content(1, 5000)).expect("stored");
        let (path, len) = files(&folder.path().join("segments")).remove(0);
        OpenOptions::new().write(true).open(path).expect("opened").set_len(len - cut).expect("torn");

        let stored = [2, 3].map(|seed| {
            let store = open(folder.path(), BUDGET);
            let digests: Vec<Digest> =
                (0..20).map(|at| store.put(&content(100 * seed + at, 100)).expect("stored")).collect();
            digests
        });

        let store = open(folder.path(), BUDGET);
        assert!(stored.iter().flatten().all(|digest| all(&store, digest).is_some()), "{cut} bytes are torn off");
        assert_eq!(store.usage().bytes, files(folder.path()).iter().map(|(_, len)| len).sum::<u64>());
    }
}

#[test]
fn what_cannot_be_read_today_is_left_for_tomorrow() {
    let folder = tempfile::tempdir().expect("a folder");
    let large = open(folder.path(), BUDGET).put(&content(1, 900_000)).expect("stored");
    let (segment, _) = files(&folder.path().join("segments")).remove(0);
    let aside = folder.path().join("aside");
    fs::rename(&segment, &aside).expect("moved");
    fs::create_dir(&segment).expect("in its place");
    assert!(!open(folder.path(), BUDGET).has(&large));

    fs::remove_dir(&segment).expect("removed");
    fs::rename(&aside, &segment).expect("moved back");

    assert_eq!(all(&open(folder.path(), BUDGET), &large), Some(content(1, 900_000)));
}

#[test]
fn the_highest_number_that_an_entry_can_have_is_not_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path(), BUDGET));
    let segment = segment::Name { order: 0, seed: 7, queue: segment::Queue::Small };
    let entry = Head::of(Kind::Record, name("x").hash(), 0, u64::MAX, b"no record").write(segment.seed, b"no record");
    fs::write(folder.path().join(SEGMENTS).join(segment.to_string()), entry).expect("written");

    let store = open(folder.path(), BUDGET);
    let record = record(store.put(b"content").expect("stored"), b"");
    store.set_record(&name("x"), &record).expect("set");
    assert_eq!(store.record(&name("x")), Some(record.clone()));
    drop(store);

    assert_eq!(open(folder.path(), BUDGET).record(&name("x")), Some(record));
}

#[test]
fn a_segment_after_which_nobody_could_count_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path(), BUDGET));
    let numbers = [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1, MOST_SKIPPED, MOST_SKIPPED - 1];
    for order in numbers {
        let name = segment::Name { order, seed: 7, queue: segment::Queue::Small };
        fs::write(folder.path().join(SEGMENTS).join(name.to_string()), b"").expect("written");
    }

    // More than a segment holds, so each process makes others.
    for seed in 0..3 {
        let stored: Vec<_> = (0..20).map(|at| content(100 * seed + at, INLINE)).collect();
        let store = open(folder.path(), BUDGET);
        let digests: Vec<_> = stored.iter().map(|bytes| store.put(bytes).expect("stored")).collect();
        drop(store);
        let store = open(folder.path(), BUDGET);
        assert!(digests.iter().zip(&stored).all(|(digest, bytes)| all(&store, digest).as_ref() == Some(bytes)));
    }
}
