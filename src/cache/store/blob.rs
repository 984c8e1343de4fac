//! A blob as it is given out. Not here: how it is found ([`super::Store::blob`]).

use std::io;

use bytes::Bytes;

use super::file::Chunks;
use super::index::Place;
use crate::proto::digest::Digest;

/// A blob's bytes, to be read piece by piece.
#[derive(Debug, Clone)]
pub struct Blob {
    pub(super) digest: Digest,
    pub(super) bytes: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Whole(Bytes),
    Chunks(Chunks, Place),
}

/// Why a blob is not given out after all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes on the disk are no longer those that were written.
    #[error("a blob is damaged on the disk")]
    Damaged,
    /// The system refused; the blob may be sound.
    #[error("a blob cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl Blob {
    /// Its name.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// All bytes, if it is so small that they are in memory.
    pub fn whole(&self) -> Option<&Bytes> {
        match &self.bytes {
            Content::Whole(bytes) => Some(bytes),
            Content::Chunks(..) => None,
        }
    }

    /// The next bytes from `at`, as many as are read at once, empty at the end. Reads a file: up to 64 KiB.
    ///
    /// # Errors
    /// If they are damaged, or cannot be read.
    pub fn read(&self, at: u64) -> Result<Bytes, ReadError> {
        if at >= self.digest.size {
            return Ok(Bytes::new());
        }
        match &self.bytes {
            Content::Whole(bytes) => Ok(bytes.slice(at as usize..)),
            Content::Chunks(chunks, _) => chunks.read(at)?.ok_or(ReadError::Damaged),
        }
    }
}
