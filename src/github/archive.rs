//! What is inside a downloaded artifact: the bytes themselves, or a zip that holds them as its one file. Nothing is written to
//! disk, and names inside a zip are not used.

use std::io::{Cursor, Read as _};

use zip::ZipArchive;
use zip::result::ZipError;

/// A local file header, with which every zip that holds a file begins (APPNOTE.TXT 4.3.7).
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// Why a zip did not give its file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the zip cannot be read: {0}")]
    Damaged(String),
    #[error("the zip holds {0} entries instead of one file")]
    NotOneFile(usize),
    #[error("the file in the zip is longer than {0} bytes")]
    TooLong(usize),
}

/// The payload of an artifact, at most `max` bytes. What does not begin like a zip is the payload itself.
pub fn unpack(artifact: Vec<u8>, max: usize) -> Result<Vec<u8>, Error> {
    if artifact.starts_with(ZIP_MAGIC) { unzip(&artifact, max) } else { raw(artifact, max) }
}

fn raw(artifact: Vec<u8>, max: usize) -> Result<Vec<u8>, Error> {
    if artifact.len() > max { Err(Error::TooLong(max)) } else { Ok(artifact) }
}

fn unzip(archive: &[u8], max: usize) -> Result<Vec<u8>, Error> {
    let mut zip = ZipArchive::new(Cursor::new(archive))?;
    if zip.len() != 1 {
        return Err(Error::NotOneFile(zip.len()));
    }
    let file = zip.by_index(0)?;
    if !file.is_file() {
        return Err(Error::NotOneFile(1));
    }
    let mut payload = Vec::new();
    // What the zip claims its size to be is not trusted.
    file.take(max as u64 + 1).read_to_end(&mut payload).map_err(|e| Error::Damaged(e.to_string()))?;
    raw(payload, max)
}

impl From<ZipError> for Error {
    fn from(error: ZipError) -> Self {
        Self::Damaged(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;
    use zip::write::{SimpleFileOptions, ZipWriter};
    use zip::{CompressionMethod, CompressionMethod::Deflated, CompressionMethod::Stored};

    use super::*;

    const MAX: usize = 4096;

    #[test]
    fn raw_bytes_and_either_kind_of_zip_give_the_payload() {
        let payload = b"an announcement".repeat(9);
        assert_eq!(unpack(payload.clone(), MAX).expect("raw"), payload);
        for method in [Stored, Deflated] {
            assert_eq!(unpack(zip(&[("a", &payload)], method), MAX).expect("a zip"), payload, "{method}");
        }
    }

    #[test]
    fn a_zip_with_anything_but_one_file_is_refused() {
        let two = unpack(zip(&[("a", b"x"), ("b", b"y")], Stored), MAX).expect_err("two files");
        assert_eq!(two.to_string(), "the zip holds 2 entries instead of one file");
        let mut folder = ZipWriter::new(Cursor::new(Vec::new()));
        folder.add_directory("d", SimpleFileOptions::default()).expect("in memory");
        let folder = folder.finish().expect("in memory").into_inner();
        assert!(matches!(unpack(folder, MAX), Err(Error::NotOneFile(1))));
    }

    #[test]
    fn a_zip_bomb_is_left_at_the_bound() {
        let bomb = zip(&[("a", &vec![0; 64 * 1024 * 1024])], Deflated);
        assert!(bomb.len() < 128 * 1024, "the case must be small on the wire");
        assert!(matches!(unpack(bomb, MAX), Err(Error::TooLong(MAX))));
        assert!(matches!(unpack(vec![0; MAX + 1], MAX), Err(Error::TooLong(MAX))));
    }

    #[test]
    fn a_changed_payload_and_a_cut_zip_are_noticed() {
        let whole = zip(&[("a", b"payload")], Stored);
        let at = whole.windows(7).position(|part| part == b"payload").expect("stored as it is");
        let mut changed = whole.clone();
        changed[at] ^= 1;
        assert!(matches!(unpack(changed, MAX), Err(Error::Damaged(_))));
        assert!(matches!(unpack(whole[..whole.len() - 1].to_vec(), MAX), Err(Error::Damaged(_))));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(tail in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = unpack(tail.clone(), MAX);
            let _ = unpack([ZIP_MAGIC, tail.as_slice()].concat(), MAX);
        }

        #[test]
        fn a_mutated_zip_never_panics_nor_outgrows_the_bound(
            payload in prop::collection::vec(any::<u8>(), 0..200),
            deflated in any::<bool>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut mutated = zip(&[("a", &payload)], if deflated { Deflated } else { Stored });
            for (at, byte) in changes {
                let at = at.index(mutated.len());
                mutated[at] = byte;
            }
            let cut = cut.index(mutated.len() + 1);
            for case in [mutated.clone(), mutated[..cut].to_vec()] {
                if let Ok(payload) = unpack(case, MAX) {
                    prop_assert!(payload.len() <= MAX);
                }
            }
        }
    }

    fn zip(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            let options = SimpleFileOptions::default().compression_method(method);
            zip.start_file(*name, options).expect("in memory");
            zip.write_all(content).expect("in memory");
        }
        zip.finish().expect("in memory").into_inner()
    }
}
