//! Where the cache is and how large, and how the user writes a size: `10GB`.

use std::path::PathBuf;

use clap::Args;

/// What `primary` and `aux` take about the cache.
#[derive(Debug, Clone, Args)]
pub struct CacheArgs {
    /// Keep a cache in this folder, for ccache, sccache, Bazel and what else `mesh cache env` tells of
    #[arg(long, env = "MESH_CACHE", value_name = "PATH")]
    pub cache: Option<PathBuf>,
    /// What the cache may take of the disk
    #[arg(long, env = "MESH_CACHE_SIZE", value_name = "SIZE", default_value = "10GB", value_parser = size)]
    pub cache_size: u64,
}

/// Bytes of each unit: decimal as disks are sold, or binary.
const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A number and a unit.
pub fn size(text: &str) -> Result<u64, String> {
    let form = || format!("`{text}` is no size; use a number and a unit, such as 500MB or 10GB");
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, bytes) = unit.ok_or_else(form)?;
    let number: u64 = number.trim_end().parse().map_err(|_| form())?;
    number.checked_mul(bytes).ok_or_else(form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(size("10GB"), Ok(10_000_000_000));
        assert_eq!(size("512 MiB"), Ok(512 << 20));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "10", "GB", "-1GB", "1.5GB", "10gb", "99999999999TB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
