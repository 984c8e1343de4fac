//! Where `mesh cache get` writes to: stdout, or a file that is there as a whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};

/// Takes the pieces, in order.
#[derive(Debug)]
pub(super) enum Sink {
    Stdout,
    /// What is no ordinary file, such as a pipe, is written to as it is: nothing may take its place.
    Device(PathBuf, File),
    Whole(Whole),
}

/// A file under a name of its own, beside the one that it becomes.
#[derive(Debug)]
pub(super) struct Whole {
    path: PathBuf,
    part: PathBuf,
    file: File,
}

impl Drop for Whole {
    fn drop(&mut self) {
        // Once it has its name, nothing is here.
        let _ = std::fs::remove_file(&self.part);
    }
}

impl Sink {
    /// To this file; to stdout without one, or for `-`.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        match path {
            Some(path) if path != Path::new("-") => Self::file(path).map_err(|error| not_written(path, &error)),
            _ => Ok(Self::Stdout),
        }
    }

    fn file(path: &Path) -> io::Result<Self> {
        // A link stays one.
        let path = path.canonicalize().unwrap_or_else(|_| path.into());
        match path.metadata() {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => Ok(Self::Device(path.clone(), OpenOptions::new().write(true).open(path)?)),
            _ => Whole::beside(path).map(Self::Whole),
        }
    }

    /// Whether something would be left if the process just ended.
    pub(super) fn leaves_something(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stdout => super::put(bytes),
            Self::Device(path, file) => file.write_all(bytes).map_err(|error| not_written(path, &error)),
            Self::Whole(whole) => whole.file.write_all(bytes).map_err(|error| not_written(&whole.path, &error)),
        }
    }

    /// All has come.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Whole(whole) => {
                std::fs::rename(&whole.part, &whole.path).map_err(|error| not_written(&whole.path, &error))
            }
            Self::Stdout | Self::Device(..) => Ok(()),
        }
    }
}

impl Whole {
    fn beside(path: PathBuf) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let part = path.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&part)?;
        Ok(Self { path, part, file })
    }
}

fn not_written(path: &Path, error: &io::Error) -> Failure {
    let what = format!("cannot write to {}: {error}", path.display());
    Failure::new(Exit::Failure, "M109", what, "check that the folder is there, its rights and the free space")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_file_is_there_when_all_has_come_and_not_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let mut sink = Sink::open(Some(&path)).expect("opened");

        sink.write(b"con").expect("written");
        assert!(!path.exists() && sink.leaves_something());
        sink.write(b"tent").expect("written");
        sink.finish().expect("all is there");

        assert_eq!(std::fs::read(&path).expect("read"), b"content");
        assert_eq!(files(folder.path()), ["file"]);
    }

    #[test]
    fn what_breaks_off_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "old").expect("written");
        let mut sink = Sink::open(Some(&path)).expect("opened");
        sink.write(b"new").expect("written");

        drop(sink);

        assert_eq!(std::fs::read(&path).expect("read"), b"old");
        assert_eq!(files(folder.path()), ["file"]);
    }

    #[test]
    fn a_link_stays_a_link_and_a_device_a_device() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&path, "old").expect("written");
        std::os::unix::fs::symlink(&path, &link).expect("a link");

        let mut sink = Sink::open(Some(&link)).expect("opened");
        sink.write(b"new").expect("written");
        sink.finish().expect("all is there");

        assert_eq!(std::fs::read(&path).expect("read"), b"new");
        assert!(link.is_symlink());
        assert!(matches!(Sink::open(Some(Path::new("/dev/null"))), Ok(Sink::Device(..))));
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in [folder.path().join("none/file"), folder.path().into(), "/proc/none/file".into()] {
            let failure = Sink::open(Some(&path)).expect_err("no place for a file");
            assert_eq!(failure.code, "M109");
            assert!(failure.what.contains(&path.display().to_string()), "{}", failure.what);
        }
    }
}
