//! The shared keys that a process takes: the current one, and while keys are rotated the one before it. A mesh forms across the
//! change, since every process seals for each of its keys and a pair uses one that both have.

use serde::{Deserialize, Serialize};

use super::base64url;
use super::key::{Context, KeyError, MasterKey, RunKeys};

/// The most keys at once: the current one and the previous one.
pub const MAX_KEYS: usize = 2;

/// Tells which shared key something was made with, without telling the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyId(#[serde(with = "base64url")] pub [u8; 4]);

/// A run's keys from each shared key, the current one first.
///
/// INVARIANT: from 1 to [`MAX_KEYS`] keys, all different.
#[derive(Debug, Clone)]
pub struct KeyRing(Vec<RunKeys>);

impl KeyRing {
    /// Reads one key on each line as [`MasterKey::parse`] does, the current one first; empty lines and repetitions do not count.
    /// Tells whether one of them was a passphrase.
    pub fn parse(text: &str, context: &Context) -> Result<(Self, bool), KeyError> {
        let mut lines: Vec<&str> = vec![];
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        match lines.len() {
            0 => return Err(KeyError::Empty),
            1..=MAX_KEYS => {}
            many => return Err(KeyError::TooMany(many)),
        }
        let parsed: Vec<_> =
            lines.iter().map(|line| MasterKey::parse(line, &context.repository)).collect::<Result<_, _>>()?;
        let passphrase = parsed.iter().any(|(_, passphrase)| *passphrase);
        Ok((Self(parsed.iter().map(|(master, _)| RunKeys::new(master, context)).collect()), passphrase))
    }

    /// Every key, the current one first.
    pub fn iter(&self) -> impl Iterator<Item = &RunKeys> {
        self.0.iter()
    }

    /// The ids of all keys, the current one's first.
    pub fn ids(&self) -> Vec<KeyId> {
        self.iter().map(RunKeys::key_id).collect()
    }

    /// The key with this id.
    pub fn get(&self, id: KeyId) -> Option<&RunKeys> {
        self.iter().find(|keys| keys.key_id() == id)
    }

    /// The key of the pair with a peer that has `theirs`: of those that both have, the one that the leading side has first. Both sides
    /// come to the same one when exactly one of them leads. `None` where they have none in common.
    pub fn shared_with(&self, theirs: &[KeyId], lead: bool) -> Option<&RunKeys> {
        if lead {
            self.iter().find(|keys| theirs.contains(&keys.key_id()))
        } else {
            theirs.iter().find_map(|id| self.get(*id))
        }
    }
}

impl From<RunKeys> for KeyRing {
    fn from(keys: RunKeys) -> Self {
        Self(vec![keys])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(keys: &[u8]) -> KeyRing {
        let text = keys.iter().map(|key| MasterKey::from_bytes([*key; 32]).to_text() + "\n").collect::<String>();
        KeyRing::parse(&text, &context()).expect("good keys").0
    }

    fn context() -> Context {
        Context { repository: "1".into(), run: "2".into(), attempt: 1 }
    }

    #[test]
    fn one_key_or_two_are_read_each_from_its_line() {
        let one = MasterKey::from_bytes([1; 32]).to_text();
        let two = MasterKey::from_bytes([2; 32]).to_text();
        for text in
            [format!("{one}\n{two}"), format!("\r\n {one} \r\n\r\n{two}\r\n\r\n"), format!("{one}\n{two}\n{one}")]
        {
            let (read, passphrase) = KeyRing::parse(&text, &context()).expect("two keys");
            assert_eq!(read.ids(), ring(&[1, 2]).ids(), "{text:?}");
            assert!(!passphrase);
        }
        assert_eq!(KeyRing::parse(&format!("{one}\n\n"), &context()).expect("one key").0.ids().len(), 1);
    }

    #[test]
    fn a_passphrase_beside_a_key_is_told() {
        let text = format!("{}\ncorrect horse battery", MasterKey::from_bytes([1; 32]).to_text());
        assert!(KeyRing::parse(&text, &context()).expect("two keys").1);
    }

    #[test]
    fn no_key_three_keys_and_a_bad_one_of_two_are_refused() {
        let refused = |text: &str| KeyRing::parse(text, &context()).expect_err(text);
        assert_eq!(refused(" \n\n"), KeyError::Empty);
        assert_eq!(refused("a passphrase of 1\na passphrase of 2\na passphrase of 3"), KeyError::TooMany(3));
        assert_eq!(refused("a passphrase of 1\nshort"), KeyError::Short(5));
    }

    #[test]
    fn both_sides_of_a_pair_choose_the_same_key() {
        for (lead, other, shared) in [
            (&[1][..], &[1][..], Some(1)),
            (&[2, 1], &[1], Some(1)),
            (&[2, 1], &[2], Some(2)),
            (&[2, 1], &[2, 1], Some(2)),
            (&[2, 1], &[1, 2], Some(2)),
            (&[3, 2], &[2, 1], Some(2)),
            (&[2], &[1], None),
        ] {
            let (lead, other) = (ring(lead), ring(other));
            let expected = shared.map(|key| ring(&[key]).ids()[0]);
            assert_eq!(lead.shared_with(&other.ids(), true).map(RunKeys::key_id), expected);
            assert_eq!(other.shared_with(&lead.ids(), false).map(RunKeys::key_id), expected);
        }
    }
}
