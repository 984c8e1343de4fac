//! A segment: a file to which entries are appended until it is full, and which is removed as a whole. Not here: which entries count
//! ([`super::index`]), when it goes ([`super::queue`]).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::entry::{ALIGNMENT, HEAD, Head, VOID, VOID_AT};
use super::file;

/// Read at once when a segment is read through: heads are near each other.
const WINDOW: usize = 64 << 10;

/// Whose turn a segment waits for ([`super::queue`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// For what is new.
    Small,
    /// For what was read.
    Main,
}

impl Queue {
    /// As a segment's name has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Main => "main",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Small, Self::Main].into_iter().find(|queue| queue.name() == text)
    }
}

/// A segment's name: all that is known of it from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    /// A later one has a higher one.
    pub(super) order: u64,
    /// Of the sums of its heads.
    pub(super) seed: u64,
    pub(super) queue: Queue,
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}-{:016x}.{}", self.order, self.seed, self.queue.name())
    }
}

impl Name {
    /// `None` for what is not a segment.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (numbers, queue) = text.split_once('.')?;
        let (order, seed) = numbers.split_once('-')?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let name = Self { order: number(order)?, seed: number(seed)?, queue: Queue::parse(queue)? };
        (name.to_string() == text).then_some(name)
    }
}

/// What a segment was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scan {
    /// Nothing in it is damaged.
    pub(super) is_sound: bool,
    /// Of the last whole entry.
    pub(super) end: u64,
}

/// One file of entries.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    /// Of the sums of its heads.
    pub(super) seed: u64,
}

impl Segment {
    /// A new one. A later one has a higher `order`.
    pub(super) fn create(folder: &Path, name: Name) -> io::Result<Self> {
        let (path, seed) = (folder.join(name.to_string()), name.seed);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(Self { path, file, seed })
    }

    /// One that an earlier process has left.
    pub(super) fn open(folder: &Path, name: Name) -> io::Result<Self> {
        let (path, seed) = (folder.join(name.to_string()), name.seed);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self { path, file, seed })
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Writes a whole entry; of one that does not fit on the disk nothing stays.
    pub(super) fn write(&self, at: u64, entry: &[u8]) -> io::Result<()> {
        self.file.write_all_at(entry, at).inspect_err(|_| {
            // The next entry is written over what stays, if anything does.
            let _ = self.file.set_len(at);
        })
    }

    /// The entry at `at` with its body, `None` where there is no sound one. It is known to take `most` bytes at most.
    pub(super) fn read(&self, at: u64, most: usize) -> io::Result<Option<(Head, Bytes)>> {
        let bytes = file::read(&self.file, most, at)?;
        let Some(head) = Head::read(self.seed, &bytes) else { return Ok(None) };
        let bytes = Bytes::from(bytes);
        let body = (bytes.len() >= HEAD + head.body as usize).then(|| bytes.slice(HEAD..HEAD + head.body as usize));
        Ok(body.filter(|body| head.fits(body)).map(|body| (head, body)))
    }

    /// The head at `at`, if there is a sound one.
    pub(super) fn head(&self, at: u64) -> io::Result<Option<Head>> {
        Ok(Head::read(self.seed, &file::read(&self.file, HEAD, at)?))
    }

    /// Makes the entry at `at` void for every process to come.
    pub(super) fn void(&self, at: u64) -> io::Result<()> {
        self.file.write_all_at(&[VOID], at + VOID_AT)
    }

    /// Every sound head, and where. What is damaged is passed over, as far as the next head; what a crash has torn at the
    /// end too.
    pub(super) fn scan(&self, mut found: impl FnMut(u64, Head)) -> io::Result<Scan> {
        let (mut at, mut window, mut end, len) = (0, Window::default(), 0, self.len()?);
        let mut is_sound = true;
        while let Some(bytes) = window.at(&self.file, at)? {
            match Head::read(self.seed, bytes) {
                Some(head) if at + head.stride() <= len => {
                    found(at, head);
                    at += head.stride();
                    end = at;
                }
                _ => {
                    at += ALIGNMENT as u64;
                    is_sound = false;
                }
            }
        }
        Ok(Scan { is_sound: is_sound && end == len, end })
    }

    /// Cuts off what follows the last entry.
    pub(super) fn cut(&self, end: u64) -> io::Result<()> {
        self.file.set_len(end)
    }

    /// Removes the file; who reads from it still may.
    pub(super) fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    /// Where it is, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// A part of a file, read ahead.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// At least a head's bytes from `at`; `None` where the file ends before.
    fn at(&mut self, of: &File, at: u64) -> io::Result<Option<&[u8]>> {
        let held = at.checked_sub(self.start).map_or(0, |skip| (self.bytes.len() as u64).saturating_sub(skip));
        if held < HEAD as u64 {
            self.start = at;
            self.bytes = file::read(of, WINDOW, at)?;
        }
        let skip = (at - self.start) as usize;
        Ok(self.bytes.get(skip..).filter(|bytes| bytes.len() >= HEAD))
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Kind;
    use super::*;

    const MOST: usize = 2000;
    const NAME: Name = Name { order: 1, seed: 0x5eed, queue: Queue::Small };

    fn three(folder: &Path) -> (Segment, Vec<(u64, Head)>) {
        let segment = Segment::create(folder, NAME).expect("a segment");
        let mut at = 0;
        let mut written = vec![];
        for body in [&b"one"[..], b"", &[3; 1000]] {
            let head = Head::of(Kind::Blob, [body.len() as u8; 32], body.len() as u64, at, body);
            segment.write(at, &head.write(segment.seed, body)).expect("written");
            written.push((at, head));
            at += head.stride();
        }
        (segment, written)
    }

    fn scanned(segment: &Segment) -> Vec<(u64, Head)> {
        let mut found = vec![];
        segment.scan(|at, head| found.push((at, head))).expect("read");
        found
    }

    #[test]
    fn all_entries_are_found_again_by_the_next_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let (segment, written) = three(folder.path());

        let name = segment.path().file_name().and_then(|name| Name::parse(name.to_str()?)).expect("its own name");
        let again = Segment::open(folder.path(), name).expect("opened");

        assert_eq!(name, NAME);
        assert_eq!(scanned(&again), written);
    }

    #[test]
    fn a_damaged_head_costs_its_own_entry_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (segment, written) = three(folder.path());

        segment.file.write_all_at(&[0xff], written[1].0 + 20).expect("damaged");

        assert_eq!(scanned(&segment), [written[0], written[2]]);
    }

    #[test]
    fn a_torn_tail_is_passed_over_and_a_damaged_body_not_given_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let (segment, written) = three(folder.path());

        segment.file.write_all_at(b"!", written[0].0 + HEAD as u64).expect("damaged");
        segment.file.set_len(written[2].0 + HEAD as u64 + 10).expect("torn");

        assert_eq!(segment.read(written[0].0, MOST).expect("read"), None);
        assert_eq!(segment.read(written[2].0, MOST).expect("read"), None, "its body is not all there");
        assert_eq!(segment.read(written[1].0, MOST).expect("read"), Some((written[1].1, Bytes::new())));
    }

    #[test]
    fn what_is_void_stays_void() {
        let folder = tempfile::tempdir().expect("a folder");
        let (segment, written) = three(folder.path());

        segment.void(written[1].0).expect("voided");

        let void: Vec<bool> = scanned(&segment).into_iter().map(|(_, head)| head.void).collect();
        assert_eq!(void, [false, true, false]);
    }

    #[test]
    fn a_blob_that_looks_like_entries_is_not_read_as_such_where_the_head_before_it_is_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let (segment, forged) = (Segment::create(folder.path(), NAME).expect("a segment"), b"not of this name");
        let inner = Head::of(Kind::Blob, [9; 32], 16, 1, forged).write(0, forged);
        segment.write(0, &Head::of(Kind::Blob, [1; 32], 96, 2, &inner).write(segment.seed, &inner)).expect("written");

        segment.file.write_all_at(&[0xff], 0).expect("damaged");

        assert_eq!(scanned(&segment), []);
    }
}
