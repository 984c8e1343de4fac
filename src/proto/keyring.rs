//! The shared keys that a process takes: the current one, and while keys are rotated the one before it. A mesh forms across the
//! change, since every process seals for each of its keys and a pair uses one that both have.

use super::key::{Context, KeyError, KeyId, MasterKey, RunKeys};

/// The most keys at once: the current one and the previous one.
pub const MAX_KEYS: usize = 2;

/// Why a text is not one key or two.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// Nothing but white space.
    #[error("it is empty")]
    Empty,
    /// More lines than keys that are taken at once.
    #[error("it has {0} lines, and at most {MAX_KEYS} keys are taken: the current one and the previous one")]
    TooMany(usize),
    /// One of them is no key.
    #[error("line {line}: {error}")]
    Line {
        /// Counted from 1, without empty ones.
        line: usize,
        /// What is wrong with it.
        error: KeyError,
    },
}

#[derive(Debug, Clone)]
struct Entry {
    keys: RunKeys,
    passphrase: bool,
}

/// A run's keys from each shared key, the current one first.
///
/// INVARIANT: from 1 to [`MAX_KEYS`] keys, all different.
#[derive(Debug, Clone)]
pub struct KeyRing(Vec<Entry>);

impl KeyRing {
    /// Reads one key on each line as [`MasterKey::parse`] does, the current one first. White space around, a byte order mark, empty lines
    /// and repetitions do not count.
    pub fn parse(text: &str, context: &Context) -> Result<Self, KeyRingError> {
        let blank = |letter: char| letter.is_whitespace() || letter == '\u{feff}';
        let mut lines: Vec<&str> = vec![];
        for line in text.lines().map(|line| line.trim_matches(blank)).filter(|line| !line.is_empty()) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        match lines.len() {
            0 => return Err(KeyRingError::Empty),
            1..=MAX_KEYS => {}
            many => return Err(KeyRingError::TooMany(many)),
        }
        let entry = |(at, line): (usize, &&str)| {
            let (master, passphrase) = MasterKey::parse(line, &context.repository)
                .map_err(|error| KeyRingError::Line { line: at + 1, error })?;
            Ok(Entry { keys: RunKeys::new(&master, context), passphrase })
        };
        lines.iter().enumerate().map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// Every key, the current one first.
    pub fn iter(&self) -> impl Iterator<Item = &RunKeys> {
        self.0.iter().map(|entry| &entry.keys)
    }

    /// Which keys are passphrases: `key`, or `current key` and `previous key` where there are two.
    pub fn passphrases(&self) -> impl Iterator<Item = &'static str> {
        let names: &[_] = if self.0.len() == 1 { &["key"] } else { &["current key", "previous key"] };
        self.0.iter().zip(names).filter(|(entry, _)| entry.passphrase).map(|(_, name)| *name)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(keys: &[u8]) -> KeyRing {
        let text = keys.iter().map(|key| MasterKey::from_bytes([*key; 32]).to_text() + "\n").collect::<String>();
        KeyRing::parse(&text, &context()).expect("good keys")
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
            let read = KeyRing::parse(&text, &context()).expect("two keys");
            assert_eq!(read.ids(), ring(&[1, 2]).ids(), "{text:?}");
            assert_eq!(read.passphrases().count(), 0);
        }
        assert_eq!(KeyRing::parse(&format!("\u{feff}{one}\n\n"), &context()).expect("one key").ids().len(), 1);
    }

    #[test]
    fn a_passphrase_is_told_and_which_of_the_two_it_is() {
        let passphrases = |text: &str| KeyRing::parse(text, &context()).expect(text).passphrases().collect::<Vec<_>>();
        let text = format!("{}\ncorrect horse battery", MasterKey::from_bytes([1; 32]).to_text());
        assert_eq!(passphrases(&text), ["previous key"]);
        assert_eq!(passphrases("correct horse battery"), ["key"]);
    }

    #[test]
    fn no_key_three_keys_and_a_bad_one_of_two_are_refused() {
        let refused = |text: &str| KeyRing::parse(text, &context()).expect_err(text);
        assert_eq!(refused(" \n\n"), KeyRingError::Empty);
        assert_eq!(refused("a passphrase of 1\na passphrase of 2\na passphrase of 3"), KeyRingError::TooMany(3));
        let error = KeyError::Short(5);
        assert_eq!(refused("a passphrase of 1\nshort"), KeyRingError::Line { line: 2, error });
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
