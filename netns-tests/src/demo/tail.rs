//! Follows the lines that a process writes to its log. Not here: the process.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};

/// A log that is being written.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    rest: Vec<u8>,
}

impl Tail {
    /// From its beginning.
    pub(super) fn open(log: &Path) -> Result<Self> {
        let file = File::open(log).with_context(|| format!("read {}", log.display()))?;
        Ok(Self { file, rest: vec![] })
    }

    /// The whole lines that were written since.
    pub(super) fn lines(&mut self) -> Vec<String> {
        // A log that cannot be read for a moment is read at the next look.
        let _ = self.file.read_to_end(&mut self.rest);
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else { return vec![] };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_line_is_given_once_and_only_when_it_is_whole() {
        let mut log = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut tail = Tail::open(log.path()).expect("it is there");

        log.write_all(b"one\ntw").expect("writable");
        assert_eq!(tail.lines(), ["one"]);
        log.write_all(b"o\n").expect("writable");
        assert_eq!(tail.lines(), ["two"]);
        assert!(tail.lines().is_empty());
    }
}
