//! The file through which running compiler links learn who takes jobs now. What stands in it is made in `hosts`.
//!
//! One line, the value of `DISTCC_HOSTS`. Replaced as a whole, so a reader sees the old line or the new one: an aux that joins
//! late is used by the next compile, and one that is gone is asked no more.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::hosts::Hosts;

/// Longer is not ours: 65,536 aux at 20 bytes are a mesh that does not exist.
const MAX_LEN: u64 = 1 << 20;

/// Puts `hosts` into the file at `path`, readable by everyone. Not synced to the disk: the file means nothing after a crash.
pub fn write(path: &Path, hosts: &Hosts) -> io::Result<()> {
    let fresh = fresh(path);
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&fresh)?;
    writeln!(file, "{}", hosts.line())?;
    fs::rename(&fresh, path)
}

/// The line at `path`; `None` where there is none that can be read, which means that this machine compiles alone.
pub fn read(path: &Path) -> Option<String> {
    let small = fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_LEN);
    let text = small.then(|| fs::read_to_string(path).ok()).flatten()?;
    Some(text.trim().to_owned()).filter(|line| !line.is_empty())
}

fn fresh(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::super::hosts::Aux;
    use super::*;

    #[test]
    fn a_reader_sees_a_whole_line_at_every_moment() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("hosts");
        let few = Hosts::new(2, []);
        let many = Hosts::new(
            2,
            (2..200).map(|last| Aux { address: SocketAddrV4::new([10, 77, 0, last].into(), 3632), slots: 4 }),
        );
        write(&path, &few).expect("writable");
        let writer = std::thread::spawn({
            let (path, few, many) = (path.clone(), few.clone(), many.clone());
            move || {
                (0..200).for_each(|round| write(&path, if round % 2 == 0 { &many } else { &few }).expect("writable"))
            }
        });
        while !writer.is_finished() {
            let line = read(&path).expect("there is always one");
            assert!(line == few.line() || line == many.line(), "{line}");
        }
        writer.join().expect("it wrote");
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1, "no leftovers");
    }

    #[test]
    fn a_missing_an_empty_and_a_foreign_file_say_nothing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("hosts");
        assert_eq!(read(&path), None);
        for text in [&b"\n"[..], b"\xff\xfe"] {
            fs::write(&path, text).expect("writable");
            assert_eq!(read(&path), None);
        }
        assert_eq!(read(dir.path()), None);
    }
}
