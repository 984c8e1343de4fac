//! Which version of a name was told of lately: a home that has not heard of it yet may still give an earlier one, which must not be kept. Two generations, so that what is
//! forgotten was told of at least [`GENERATION`] names ago.

use std::collections::HashMap;

use crate::cache::store::Key;

/// Names of a generation.
const GENERATION: usize = 8192;

/// The latest versions that were told of.
#[derive(Debug, Default)]
pub(super) struct Recent {
    young: HashMap<Key, u64>,
    old: HashMap<Key, u64>,
}

impl Recent {
    /// The name of this key has this version.
    pub(super) fn note(&mut self, key: Key, version: u64) {
        let version = version.max(self.version(key));
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, version);
    }

    /// No earlier version should be kept.
    pub(super) fn version(&self, key: Key) -> u64 {
        [&self.young, &self.old].iter().filter_map(|known| known.get(&key)).max().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_version_is_known_for_thousands_of_names() {
        let mut recent = Recent::default();
        recent.note(1, 7);
        recent.note(1, 5);
        (2..GENERATION as u64).for_each(|key| recent.note(key, 1));

        assert_eq!((recent.version(1), recent.version(u64::MAX)), (7, 0));
        (0..3 * GENERATION as u64).for_each(|key| recent.note(1000 + key, 1));
        assert!(recent.young.len() + recent.old.len() <= 2 * GENERATION);
    }
}
