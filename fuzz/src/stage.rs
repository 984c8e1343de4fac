//! A folder for one run, in memory where that can be had: a store makes hundreds of folders in it.

use std::path::Path;

use tempfile::TempDir;

/// Where Linux keeps files in memory.
const MEMORY: &str = "/dev/shm";

/// An empty one, gone at the end.
pub fn folder() -> TempDir {
    let made = tempfile::Builder::new().prefix("mesh-fuzz-").tempdir_in(Path::new(MEMORY));
    made.or_else(|_| tempfile::tempdir()).expect("the machine takes a folder")
}
