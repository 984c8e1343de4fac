//! A large blob, as a file of its own beside the segments, and the sums of its chunks, which are the body of its entry. Not here: the entry.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::entry::{LONGEST_BODY, sum};
use super::index::Key;
use crate::proto::digest::Digest;

/// Read and checked at once: while it is sent it is still in the processor's cache.
pub(super) const CHUNK: usize = 64 << 10;

/// Of a sum.
const SUM: usize = size_of::<u64>();

/// The largest blob, whose sums just fit into an entry: 8 GiB.
pub const LARGEST: u64 = (LONGEST_BODY / SUM * CHUNK) as u64;

/// Where the blob of this digest lies below `folder`.
pub(super) fn path(folder: &Path, digest: &Digest) -> PathBuf {
    let name = digest.hex();
    folder.join(&name[..2]).join(name)
}

/// The folders that files lie in, made once.
pub(super) fn prepare(folder: &Path) -> io::Result<()> {
    (0..=u8::MAX).try_for_each(|first| fs::create_dir_all(folder.join(format!("{first:02x}"))))
}

/// Removes all that `is_known` does not know: what a process had not yet entered when it was killed. What cannot be removed stays, and is told of.
pub(super) fn sweep(folder: &Path, is_known: impl Fn(&Path) -> bool) {
    for inner in listed(folder) {
        for path in listed(&inner).into_iter().filter(|path| !is_known(path)) {
            remove(&path);
        }
    }
}

/// Removes the blob whose entry is lost: all that is left of its name is its key.
pub(super) fn remove_by_key(folder: &Path, key: Key) {
    let name: String = key.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|found| found.to_string_lossy().starts_with(&name));
    listed(&folder.join(&name[..2])).iter().filter(|path| is_it(path)).for_each(|path| remove(path));
}

/// What is in a folder; nothing where it is none.
pub(super) fn listed(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map(|found| found.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "cannot remove what the cache does not need");
    }
}

/// The sums of chunks, as bytes.
#[derive(Debug, Default, Clone)]
pub(super) struct Sums(Vec<u8>);

impl Sums {
    /// The next chunk: of [`CHUNK`] bytes, or the last.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.0.extend_from_slice(&sum(chunk).to_le_bytes());
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A blob's file, open: it may be removed while it is read.
#[derive(Debug, Clone)]
pub(super) struct Chunks {
    file: std::sync::Arc<File>,
    sums: Bytes,
    size: u64,
}

impl Chunks {
    /// `None` where the file is gone or has another size than its entry says.
    pub(super) fn open(path: &Path, size: u64, sums: Bytes) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let whole = file.metadata()?.len() == size && sums.len() as u64 == size.div_ceil(CHUNK as u64) * SUM as u64;
        Ok(whole.then(|| Self { file: file.into(), sums, size }))
    }

    /// The bytes from `at` to the end of their chunk, undamaged; `None` where they are not. `at` is within the blob.
    pub(super) fn read(&self, at: u64) -> io::Result<Option<Bytes>> {
        let index = (at / CHUNK as u64) as usize;
        let start = (index * CHUNK) as u64;
        let len = (self.size - start).min(CHUNK as u64) as usize;
        let chunk = read(&self.file, len, start)?;
        let expected = self.sums.get(index * SUM..(index + 1) * SUM);
        let sound = chunk.len() == len && expected == Some(&sum(&chunk).to_le_bytes()[..]);
        Ok(sound.then(|| Bytes::from(chunk).slice((at - start) as usize..)))
    }
}

/// As many of the `most` bytes from `at` as there are. Writes no zeros first, as they would cost half of what the reading does.
pub(super) fn read(file: &File, most: usize, at: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(most);
    while bytes.len() < most {
        let here = at + bytes.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut bytes), here) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(most);
    Ok(bytes)
}
