//! The store over a folder in which somebody else has written: segments of any bytes, real ones that are damaged, and such as only an enemy writes, with
//! every sum right. Whatever was there, the store opens, gives out no wrong byte of what only a disk has damaged, and keeps what it acknowledges.
//!
//! Input: which of these in one byte; then the bytes, how to alter a segment and its file, or entries. Not here: budgets, which take too many bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use mesh::cache::sha256;
use mesh::cache::store::{Blob, Holders, LEAST_BUDGET, Name, Record, Store};
use mesh::proto::digest::Digest;
use tempfile::TempDir;
use twox_hash::XxHash3_64;

use super::input::{Input, alter, fingerprint, piece};
use super::stage;

/// Where segments lie below the store's folder.
const SEGMENTS: &str = "segments";

/// Largest of what is an entry; one byte more is a file.
const INLINE: usize = 128 << 10;

thread_local! {
    /// Made once: a store's hundreds of folders take longer than what is tried in them.
    static FOLDER: TempDir = stage::folder();
}

pub fn run(data: &[u8]) {
    FOLDER.with(|folder| {
        // A blob's file that no segment knows is removed by the store itself.
        let _ = fs::remove_dir_all(folder.path().join(SEGMENTS));
        let mut input = Input::new(data);
        match input.byte() % 3 {
            0 => of_any_bytes(input.rest(), folder.path()),
            1 => damaged(&mut input, folder.path()),
            _ => forged(&mut input, folder.path()),
        }
    });
}

/// No sum is right by chance: nothing is found.
fn of_any_bytes(bytes: &[u8], folder: &Path) {
    let name = format!("{:016x}-{:016x}.small", 0, fingerprint(bytes));
    write(&folder.join(SEGMENTS).join(name), bytes);
    // Beside it what has such a name, or almost.
    let text = bytes.escape_ascii().to_string().replace('/', "");
    write(&folder.join(SEGMENTS).join(format!("x{}", &text[..text.len().min(100)])), bytes);
    let store = open(folder);
    assert_eq!(store.usage().entries, 0);
    lives_on(store, folder);
}

/// Blobs and records that a store has written, and its files as they then lay there.
struct Written {
    blobs: Vec<Digest>,
    names: Vec<(Name, Vec<Digest>)>,
    files: Vec<(PathBuf, Vec<u8>)>,
}

/// Small blobs, an empty and a large one, a record that was replaced, one of nothing that is there, and one that was removed.
static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    let folder = stage::folder();
    let store = open(folder.path());
    let put = |bytes: &[u8]| store.put(bytes).expect("there is room");
    let blobs = vec![put(b"one"), put(&[2; 700]), put(b""), put(&[3; INLINE + 1]), put(b"four")];
    let set = |text: &str, digests: &[Digest]| {
        for (version, digest) in digests.iter().enumerate() {
            store.set_record(&name(text), &record(*digest, version as u64)).expect("there is room");
        }
        (name(text), digests.to_vec())
    };
    let absent = Digest { hash: [9; 32], size: 9 };
    let names =
        vec![set("a", &[blobs[0], blobs[1]]), set("b", &[blobs[3]]), set("c", &[absent]), set("d", &[blobs[4]])];
    assert!(store.remove_record(&name("d")));
    drop(store);
    let files = all(folder.path()).into_iter().map(|path| {
        let bytes = fs::read(&path).expect("it was just written");
        (path.strip_prefix(folder.path()).expect("below it").to_owned(), bytes)
    });
    Written { blobs, names, files: files.collect() }
});

/// Its files are altered, cut, or followed by something: what is given out is what was written.
fn damaged(input: &mut Input<'_>, folder: &Path) {
    for (path, bytes) in &WRITTEN.files {
        let mut bytes = bytes.clone();
        let how = input.byte();
        if how & 1 != 0 {
            alter(&mut bytes, input);
        }
        if how & 2 != 0 {
            bytes.extend_from_slice(input.piece());
        }
        if how & 4 == 0 {
            write(&folder.join(path), &bytes);
        } else {
            // An input before this one may have left it.
            let _ = fs::remove_file(folder.join(path));
        }
    }
    let store = open(folder);
    sound(&store);
    sound(&lives_on(store, folder));
}

fn sound(store: &Store) {
    for digest in &WRITTEN.blobs {
        let bytes = store.blob(digest).and_then(|blob| whole(&blob));
        assert!(bytes.is_none_or(|bytes| sha256::digest(&bytes) == *digest), "another blob than its name says");
    }
    for (name, digests) in &WRITTEN.names {
        let found = store.record(name);
        assert!(found.is_none_or(|found| digests.contains(&found.digest)), "a record that nobody has set");
    }
}

/// Entries with good sums, whatever they say.
fn forged(input: &mut Input<'_>, folder: &Path) {
    let orders = [0, 1, (1 << 63) - 1, u64::MAX];
    let mut digests = vec![sha256::digest(b"new"), sha256::digest(&[7; INLINE + 1])];
    let mut paths = vec![];
    while !input.is_empty() && paths.len() < 4 {
        let how = usize::from(input.byte());
        let (order, queue) = (orders[how % 4], ["small", "main"][how / 4 % 2]);
        let mut segment = vec![];
        for _ in 0..how / 8 % 8 {
            let (entry, digest) = entry(input);
            segment.extend_from_slice(&entry);
            digests.push(digest);
        }
        let path = folder.join(SEGMENTS).join(format!("{order:016x}-{SEED:016x}.{queue}"));
        write(&path, &segment);
        paths.push(path);
    }
    let store = open(folder);
    for digest in &digests {
        let known = store.has(digest);
        if let Some(bytes) = store.blob(digest).and_then(|blob| whole(&blob)) {
            assert!(known && bytes.len() as u64 == digest.size, "a blob of another size than its name says");
        }
    }
    let _ = (store.usage(), store.record(&name("a")));
    lives_on(store, folder);
}

const SEED: u64 = 0x5eed;

/// As `src/cache/store/entry.rs` describes it, written a second time: any kind, flag, length, number and size, of a blob or of a record that a name is found by.
fn entry(input: &mut Input<'_>) -> (Vec<u8>, Digest) {
    let numbers = [0, 1, 0xffff, u64::MAX - 1, u64::MAX];
    let (kind, how) = (input.byte() % 5, input.byte());
    let (sequence, size) = (numbers[usize::from(how) % 5], u64::from(input.byte()));
    let body = input.piece();
    let hash = match input.byte() % 4 {
        0 => sha256::digest(body).hash,
        1 => sha256::digest(b"new").hash,
        2 => name("new").hash(),
        _ => [input.byte(); 32],
    };
    let size = match how / 5 % 4 {
        0 => size,
        1 => body.len() as u64,
        2 => INLINE as u64 + size,
        _ => numbers[usize::from(size as u8) % 5],
    };
    // Who can write sums can also write other bytes of the same length: nothing but digesting all would show that.
    let body = if hash == sha256::digest(b"new").hash && body.len() == 3 { b"new" } else { body };
    let mut head = [&b"mBlb"[..], &[kind, 0, 0, 0], &(body.len() as u32).to_le_bytes(), &[0; 4]].concat();
    head.extend_from_slice(&sequence.to_le_bytes());
    head.extend_from_slice(&size.to_le_bytes());
    head.extend_from_slice(&hash);
    head.extend_from_slice(&XxHash3_64::oneshot(body).to_le_bytes());
    head.extend_from_slice(&XxHash3_64::oneshot_with_seed(SEED, &head).to_le_bytes());
    head[5] = if how >= 200 { how } else { 0 };
    head.extend_from_slice(body);
    head.resize(head.len().next_multiple_of(8), 0);
    (head, Digest { hash, size })
}

/// What is stored from now on is there, now and for the next process, which it gives.
fn lives_on(store: Arc<Store>, folder: &Path) -> Arc<Store> {
    let large = vec![7; INLINE + 1];
    let put = |bytes: &[u8]| store.put(bytes).expect("there is room");
    let digests = [put(b"new"), put(&large)];
    let of_new = record(digests[1], 1 << 40);
    store.set_record(&name("new"), &of_new).expect("there is room");
    let there = |store: &Store| {
        for (digest, bytes) in digests.iter().zip([b"new", &large[..]]) {
            let found = store.blob(digest).and_then(|blob| whole(&blob));
            assert!(found.as_deref() == Some(bytes), "a blob of {} bytes that was acknowledged", bytes.len());
        }
        assert_eq!(store.record(&name("new")).as_ref(), Some(&of_new), "a record that was acknowledged");
    };
    there(&store);
    drop(store);
    let store = open(folder);
    there(&store);
    store
}

fn open(folder: &Path) -> Arc<Store> {
    Store::open(folder, LEAST_BUDGET).expect("a folder of our own").into()
}

/// `None` where it turns out damaged.
fn whole(blob: &Blob) -> Option<Vec<u8>> {
    let mut bytes = vec![];
    loop {
        let next = blob.read(bytes.len() as u64).ok()?;
        if next.is_empty() {
            return Some(bytes);
        }
        bytes.extend_from_slice(&next);
    }
}

fn name(text: &str) -> Name {
    Name::new("fuzz.main", text).expect("a short name")
}

fn record(digest: Digest, version: u64) -> Record {
    Record { digest, version, cost_ms: 0, holders: Holders::default(), metadata: Bytes::from_static(b"metadata") }
}

fn write(path: &Path, bytes: &[u8]) {
    let folder = path.parent().expect("it is below a folder");
    fs::create_dir_all(folder).and_then(|()| fs::write(path, bytes)).expect("a folder of our own");
}

/// Every file below `folder`, the lock aside.
fn all(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for path in fs::read_dir(folder).expect("a folder of our own").map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            found.extend(all(&path));
        } else if path.file_name().is_some_and(|name| name != "lock") {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub fn seeds() -> Vec<Vec<u8>> {
    let segment =
        |how: u8, entries: &[Vec<u8>]| [&[2, how | (entries.len() as u8) << 3][..], &entries.concat()].concat();
    let of =
        |kind: u8, how: u8, size: u8, body: &[u8], hash: u8| [&[kind, how, size][..], &piece(body), &[hash]].concat();
    let (blob, file) = (of(1, 5, 0, b"new", 0), of(2, 10, 1, &[1; 24], 1));
    vec![
        vec![0],
        [&[0][..], b"mBlb\x01", &[0; 90]].concat(),
        // The files as they were, altered, cut, with something behind, not there.
        vec![1],
        vec![1, 0, 1, 0, 0, 5, 0xff],
        vec![1, 1, 0, 0, 0, 1, 1, 3, 0, 5, 0xff, 0, 90, 1, 1, 0, 4],
        vec![1, 0, 1, 0x80, 0, 0, 0, 1, 0],
        vec![1, 0, 2, 90, b'm', b'B', b'l', b'b', 1],
        vec![1, 4, 0],
        vec![1, 0, 4],
        segment(0, std::slice::from_ref(&blob)),
        segment(4, &[blob.clone(), of(1, 9, 0, b"new", 0), file]),
        segment(3, &[of(3, 0, 0, b"\x09\x03\x00fuzz.mainnew", 2), of(1, 255, 3, b"void", 3), of(4, 0, 0, b"", 0)]),
        [segment(0, std::slice::from_ref(&blob)), vec![13, 1, 9, 0, 3, b'n', b'e', b'w', 0]].concat(),
        segment(0, &[of(1, 19, 4, b"of another size", 0), of(2, 19, 4, b"", 0)]),
    ]
}
