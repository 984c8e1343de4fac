//! Block blobs in memory, with Azure's rules for blocks that are sent and blocks that are committed.
//!
//! Not here: HTTP ([`super::blob`]) and signatures ([`super::signing`]).

use std::collections::HashMap;

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Azure's limit of a decoded block id.
const MAX_BLOCK_ID_BYTES: usize = 64;

/// Where a block list looks for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Latest,
    Committed,
    Uncommitted,
}

/// Why a block or a list of blocks is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockError {
    /// No base64, or empty, or too long.
    BadId,
    /// Ids of one blob all have one length.
    UnevenId,
    /// The list names a block that is not there.
    Missing,
}

#[derive(Debug, Default)]
struct Blob {
    committed: Option<Vec<(String, Bytes)>>,
    uncommitted: HashMap<String, Bytes>,
}

#[derive(Debug, Default)]
pub(super) struct Blobs(HashMap<String, Blob>);

impl Blobs {
    /// Put Blob: the whole content at once; blocks that were sent and not committed are gone.
    pub(super) fn put(&mut self, path: &str, content: Bytes) {
        let whole = Blob { committed: Some(vec![(String::new(), content)]), uncommitted: HashMap::new() };
        self.0.insert(path.to_owned(), whole);
    }

    /// Put Block: one piece, invisible until a list commits it.
    pub(super) fn put_block(&mut self, path: &str, id: &str, content: Bytes) -> Result<(), BlockError> {
        let decoded = STANDARD.decode(id).map_err(|_| BlockError::BadId)?;
        if decoded.is_empty() || decoded.len() > MAX_BLOCK_ID_BYTES {
            return Err(BlockError::BadId);
        }
        let blob = self.0.entry(path.to_owned()).or_default();
        if blob.uncommitted.keys().any(|other| other.len() != id.len()) {
            return Err(BlockError::UnevenId);
        }
        blob.uncommitted.insert(id.to_owned(), content);
        Ok(())
    }

    /// Put Block List: the content becomes these blocks in this order, and every other block is gone.
    pub(super) fn commit(&mut self, path: &str, list: &[(Source, String)]) -> Result<(), BlockError> {
        let blob = self.0.entry(path.to_owned()).or_default();
        let found = |(source, id): &(Source, String)| Some((id.clone(), blob.find(*source, id)?));
        let committed = list.iter().map(|entry| found(entry).ok_or(BlockError::Missing)).collect::<Result<_, _>>()?;
        *blob = Blob { committed: Some(committed), uncommitted: HashMap::new() };
        Ok(())
    }

    /// The committed content.
    pub(super) fn content(&self, path: &str) -> Option<Bytes> {
        let blocks = self.0.get(path)?.committed.as_ref()?;
        match blocks.as_slice() {
            [(_, whole)] => Some(whole.clone()),
            pieces => Some(pieces.iter().flat_map(|(_, piece)| piece.iter().copied()).collect()),
        }
    }

    pub(super) fn delete(&mut self, path: &str) {
        self.0.remove(path);
    }
}

impl Blob {
    fn find(&self, source: Source, id: &str) -> Option<Bytes> {
        let uncommitted = || self.uncommitted.get(id).cloned();
        let committed =
            || self.committed.iter().flatten().find(|(other, _)| other == id).map(|(_, piece)| piece.clone());
        match source {
            Source::Latest => uncommitted().or_else(committed),
            Source::Committed => committed(),
            Source::Uncommitted => uncommitted(),
        }
    }
}
