//! Blobs and records that the runners of a run share. Not here: what a build makes of them.

pub mod sha256;
pub mod store;
