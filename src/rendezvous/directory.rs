//! A rendezvous in a directory: for tests, one machine, and machines that share a file system. Each publication is a file that
//! appears whole; nothing is ever overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};

use super::{Entry, Error, MAX_LEN, Rendezvous, bounded, check, is_legal};

/// A folder as rendezvous.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Uses the folder at `path`, which is made if its parent is there: a mistyped path is to be an error, not a lonely mesh.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = std::path::absolute(path.as_ref()).map_err(|e| failure("open directory", path.as_ref(), &e))?;
        match fs::create_dir(&path) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(failure("make directory", &path, &e)),
            _ => fs::read_dir(&path).map_err(|e| failure("open directory", &path, &e))?,
        };
        Ok(Self { path })
    }

    /// Runs `work`, which may hang on a network file system, where it blocks nobody.
    async fn run<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Path) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let path = self.path.clone();
        let job = tokio::task::spawn_blocking(move || work(&path));
        bounded(&format!("{what} in {}", self.path.display()), async {
            job.await.unwrap_or_else(|e| Err(Error::again(format!("reading a directory was cut short: {e}"))))
        })
        .await
    }
}

#[async_trait]
impl Rendezvous for Directory {
    async fn publish(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        check(name, bytes)?;
        let (name, bytes) = (name.to_owned(), bytes.to_vec());
        self.run(&format!("publish {name}"), move |folder| publish(folder, &name, &bytes)).await
    }

    async fn list(&self) -> Result<Vec<Entry>, Error> {
        self.run("list", list).await
    }

    async fn fetch(&self, entry: &Entry) -> Result<Vec<u8>, Error> {
        let name = entry.locator.clone();
        if !is_legal(&name) {
            return Err(Error::refused(format!("fetch {name:?}"), "it is not a name that this rendezvous lists"));
        }
        self.run(&format!("fetch {name}"), move |folder| fetch(&folder.join(name))).await
    }

    async fn remove(&self, name: &str) -> Result<(), Error> {
        check(name, &[])?;
        let name = name.to_owned();
        self.run(&format!("remove {name}"), move |folder| remove(&folder.join(name))).await
    }

    fn describe(&self) -> String {
        format!("dir:{}", self.path.display())
    }
}

fn publish(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let target = folder.join(name);
    let hidden = folder.join(format!(".{:016x}", rand::random::<u64>()));
    let published = write(&hidden, bytes).and_then(|()| place(&hidden, &target));
    if let Err(e) = published {
        // It is there only if writing it or placing it failed; either failure is what the caller hears of.
        let _ = fs::remove_file(&hidden);
        return Err(failure("publish", &target, &e));
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| failure("sync", folder, &e))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives a finished file its name unless that is taken. Where the file system cannot rename so, a hard link does the same.
fn place(hidden: &Path, target: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, hidden, AT_FDCWD, target, RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::ENOTSUP) => {
            fs::hard_link(hidden, target)?;
            fs::remove_file(hidden)
        }
        renamed => Ok(renamed?),
    }
}

fn list(folder: &Path) -> Result<Vec<Entry>, Error> {
    let files = fs::read_dir(folder).map_err(|e| failure("list directory", folder, &e))?;
    let mut entries = Vec::new();
    let mut foreign = 0_usize;
    for file in files {
        let file = file.map_err(|e| failure("list directory", folder, &e))?;
        match entry(&file) {
            Some(entry) => entries.push(entry),
            None => foreign += 1,
        }
    }
    tracing::trace!(listed = entries.len(), foreign, "listed directory");
    Ok(entries)
}

/// A plain file with a legal name; `None` for everything else, and for what vanished since.
fn entry(file: &fs::DirEntry) -> Option<Entry> {
    let name = file.file_name().into_string().ok().filter(|name| is_legal(name))?;
    let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
    let nanoseconds = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    let order = u64::try_from(nanoseconds.max(0)).unwrap_or(u64::MAX);
    Some(Entry { locator: name.clone(), name, order, len: Some(metadata.len()) })
}

fn fetch(path: &Path) -> Result<Vec<u8>, Error> {
    // Neither a FIFO nor a device can hold the open up, and a symbolic link leads nowhere.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = file.map_err(|e| failure("fetch", path, &e))?;
    let metadata = file.metadata().map_err(|e| failure("fetch", path, &e))?;
    if !metadata.is_file() {
        return Err(Error::refused(format!("fetch {}: not a plain file", path.display()), FOREIGN));
    }
    let mut bytes = Vec::new();
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(|e| failure("fetch", path, &e))?;
    if bytes.len() > MAX_LEN {
        return Err(Error::refused(format!("fetch {}: longer than {MAX_LEN} bytes", path.display()), FOREIGN));
    }
    Ok(bytes)
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failure("remove", path, &e)),
        _ => Ok(()),
    }
}

const FOREIGN: &str = "something else put it there: give the mesh a folder of its own";

fn failure(what: &str, path: &Path, error: &io::Error) -> Error {
    let fetching = what == "fetch";
    let what = format!("{what} {}: {error}", path.display());
    match error.kind() {
        ErrorKind::NotFound if fetching => Error::again(what),
        ErrorKind::NotFound => Error::refused(what, "make its parent folder first"),
        ErrorKind::NotADirectory => Error::refused(what, "dir:PATH needs a folder"),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Error::refused(what, "every runner's user must be able to read and write the folder")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::refused(what, "free some space there"),
        _ if error.raw_os_error() == Some(Errno::ELOOP as i32) => Error::refused(what, FOREIGN),
        _ => Error::again(what),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::{Duration, SystemTime};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn what_is_published_is_listed_and_fetched_by_everyone() {
        let (folder, mine) = rendezvous();
        let theirs = Directory::open(folder.path()).expect("an existing folder");
        mine.publish("mesh-a", b"hello").await.expect("published");
        let entries = theirs.list().await.expect("listed");
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].name.as_str(), entries[0].len), ("mesh-a", Some(5)));
        assert_eq!(theirs.fetch(&entries[0]).await.expect("fetched"), b"hello");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1, "nothing is left beside it");
    }

    #[tokio::test]
    async fn a_taken_name_is_never_overwritten() {
        let (folder, directory) = rendezvous();
        directory.publish("mesh-a", b"first").await.expect("published");
        let error = directory.publish("mesh-a", b"second").await.expect_err("taken");
        assert!(matches!(error, Error::Again { .. }), "{error:?}");
        assert_eq!(fs::read(folder.path().join("mesh-a")).expect("still there"), b"first");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1, "nothing is left beside it");
    }

    #[tokio::test]
    async fn a_hard_link_places_as_a_rename_does() {
        let (folder, _) = rendezvous();
        let (hidden, target) = (folder.path().join(".x"), folder.path().join("mesh-a"));
        fs::write(&hidden, b"whole").expect("writable");
        place(&hidden, &target).expect("placed");
        fs::write(&hidden, b"other").expect("writable");
        assert_eq!(place(&hidden, &target).expect_err("taken").kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&target).expect("placed"), b"whole");
    }

    #[tokio::test]
    async fn order_follows_the_time_of_publication() {
        let (folder, directory) = rendezvous();
        for (name, seconds) in [("mesh-b", 2), ("mesh-a", 1), ("mesh-c", 3)] {
            directory.publish(name, b"x").await.expect("published");
            let file = File::options().write(true).open(folder.path().join(name)).expect("published");
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(seconds, 5)).expect("our own file");
        }
        let mut entries = directory.list().await.expect("listed");
        entries.sort_by_key(|entry| entry.order);
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["mesh-a", "mesh-b", "mesh-c"]);
        assert_eq!(entries[0].order, 1_000_000_005);
    }

    #[tokio::test]
    async fn what_is_no_plain_file_is_neither_listed_nor_waited_for() {
        let (folder, directory) = rendezvous();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("mesh-folder")).expect("writable");
        mkfifo(&path("mesh-fifo"), Mode::S_IRWXU).expect("writable");
        symlink("/nowhere", path("mesh-dangling")).expect("writable");
        symlink("/etc/passwd", path("mesh-link")).expect("writable");
        fs::write(path(".mesh-hidden"), b"x").expect("writable");
        fs::write(path("mesh with spaces"), b"x").expect("writable");
        assert_eq!(directory.list().await.expect("listed"), []);
        for name in ["mesh-folder", "mesh-fifo", "mesh-dangling", "mesh-link"] {
            let error = directory.fetch(&entry_of(name)).await.expect_err("no plain file");
            assert!(matches!(error, Error::Refused { .. }), "{name}: {error:?}");
        }
    }

    #[tokio::test]
    async fn no_name_leads_out_of_the_folder() {
        let (_folder, directory) = rendezvous();
        for name in ["../x", "/etc/passwd", "..", ".hidden", "a/b", ""] {
            assert!(matches!(directory.publish(name, b"x").await, Err(Error::Refused { .. })), "{name}");
            assert!(matches!(directory.fetch(&entry_of(name)).await, Err(Error::Refused { .. })), "{name}");
            assert!(matches!(directory.remove(name).await, Err(Error::Refused { .. })), "{name}");
        }
    }

    #[tokio::test]
    async fn what_is_too_long_is_neither_taken_nor_read_to_its_end() {
        let (folder, directory) = rendezvous();
        let error = directory.publish("mesh-a", &vec![0; MAX_LEN + 1]).await.expect_err("too long");
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        let grown = File::create(folder.path().join("mesh-grown")).expect("writable");
        grown.set_len(1 << 40).expect("sparse");
        let error = directory.fetch(&entry_of("mesh-grown")).await.expect_err("too long");
        assert_eq!(error.to_string(), format!("fetch {}/mesh-grown: longer than 65536 bytes", folder.path().display()));
        directory.publish("mesh-b", &vec![7; MAX_LEN]).await.expect("just fits");
        assert_eq!(directory.fetch(&entry_of("mesh-b")).await.expect("just fits").len(), MAX_LEN);
    }

    #[tokio::test]
    async fn removing_twice_is_no_error_and_a_vanished_entry_is_worth_another_look() {
        let (_folder, directory) = rendezvous();
        directory.publish("mesh-a", b"x").await.expect("published");
        directory.remove("mesh-a").await.expect("removed");
        directory.remove("mesh-a").await.expect("gone already");
        let error = directory.fetch(&entry_of("mesh-a")).await.expect_err("gone");
        assert!(matches!(error, Error::Again { .. }), "{error:?}");
    }

    #[test]
    fn a_folder_is_made_but_not_its_parents_and_a_file_is_no_folder() {
        let folder = TempDir::new().expect("a scratch folder");
        Directory::open(folder.path().join("new")).expect("made");
        let error = Directory::open(folder.path().join("no/such")).expect_err("no parent");
        assert!(matches!(&error, Error::Refused { hint, .. } if hint.contains("parent")), "{error:?}");
        fs::write(folder.path().join("file"), b"x").expect("writable");
        let error = Directory::open(folder.path().join("file")).expect_err("a file");
        assert!(matches!(&error, Error::Refused { hint, .. } if hint.contains("folder")), "{error:?}");
    }

    fn rendezvous() -> (TempDir, Directory) {
        let folder = TempDir::new().expect("a scratch folder");
        let directory = Directory::open(folder.path()).expect("an existing folder");
        (folder, directory)
    }

    fn entry_of(name: &str) -> Entry {
        Entry { name: name.to_owned(), order: 0, len: None, locator: name.to_owned() }
    }
}
