//! Names under which compilers are called: `cc`, `g++-12`, `x86_64-linux-gnu-gcc`, `clang++-14`. Where they are is not here.

/// What a compiler takes a `.c` file for, and what it links with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// `cc`, `gcc`, `clang`.
    C,
    /// `c++`, `g++`, `clang++`.
    Cxx,
}

/// A compiler's name in its parts, `[TRIPLET-]BASE[-VERSION]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// The machine, `x86_64-linux-gnu`.
    pub triplet: Option<&'a str>,
    /// By the family's name.
    pub language: Language,
    /// `12`, `4.8`.
    pub version: Option<&'a str>,
}

impl<'a> Name<'a> {
    /// The parts of `name`, or `None` for what is no compiler's name. A prefix of one word (`musl-gcc`, `afl-gcc`) is a wrapper with
    /// ideas of its own, not a compiler for another machine.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (rest, version) = match name.rsplit_once('-') {
            Some((rest, version)) if is_version(version) => (rest, Some(version)),
            _ => (name, None),
        };
        let (triplet, base) = match rest.rsplit_once('-') {
            Some((triplet, base)) => (Some(triplet), base),
            None => (None, rest),
        };
        let language = language(base)?;
        triplet.is_none_or(is_triplet).then_some(Self { triplet, language, version })
    }
}

fn language(base: &str) -> Option<Language> {
    match base {
        "cc" | "gcc" | "clang" => Some(Language::C),
        "c++" | "g++" | "clang++" => Some(Language::Cxx),
        _ => None,
    }
}

fn is_version(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_digit()) && word.chars().all(|c| c.is_ascii_digit() || c == '.')
}

fn is_triplet(prefix: &str) -> bool {
    let words = prefix.split('-');
    words.clone().count() >= 2
        && words.into_iter().all(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_are_told_from_other_programs() {
        let names = "cc c++ gcc g++ clang clang++ gcc-12 g++-4.8 clang++-14 x86_64-linux-gnu-gcc arm-none-eabi-g++-12";
        for name in names.split(' ') {
            assert!(Name::parse(name).is_some(), "{name}");
        }
        let others = "mesh gcc-ar gcc-nm-12 clang-cpp clang-format-14 clang-tidy musl-gcc c99-gcc g++-mapper-server -gcc --cc gcc- ";
        for name in others.split(' ') {
            assert_eq!(Name::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_falls_into_its_parts() {
        let name = Name { triplet: Some("x86_64-linux-gnu"), language: Language::Cxx, version: Some("12") };
        assert_eq!(Name::parse("x86_64-linux-gnu-g++-12"), Some(name));
        let name = Name { triplet: None, language: Language::C, version: None };
        assert_eq!(Name::parse("cc"), Some(name));
    }
}
