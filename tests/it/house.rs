//! The house rules, each a test that fails with a sentence. What the compiler, rustfmt and clippy keep is not here.
//!
//! They read the text of the sources without comments and without the test modules at the end of a file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mesh::exit::Exit;

/// Which rooms a room may name, itself aside. `cli` is the wiring: it may name all, and nobody names it but `main`.
const MAY_IMPORT: [(&str, &[&str]); 15] = [
    ("exit", &[]),
    ("proto", &[]),
    ("github", &[]),
    ("report", &[]),
    ("log", &[]),
    ("link", &["proto", "exit"]),
    ("rendezvous", &["proto", "link::clock", "github", "exit"]),
    ("build", &["cache::peers"]),
    (
        "cache",
        &[
            "proto::digest",
            "proto::filter",
            "proto::overlay",
            "proto::placement",
            "proto::role",
            "link::clock",
            "link::ports",
            "exit",
        ],
    ),
    ("offload", &["exit"]),
    ("config", &["proto", "exit", "log"]),
    ("privilege", &["config"]),
    ("control", &["config", "exit", "privilege", "report"]),
    (
        "cli",
        &[
            "cache",
            "config",
            "control",
            "exit",
            "github",
            "link",
            "log",
            "offload",
            "privilege",
            "proto",
            "rendezvous",
            "report",
        ],
    ),
    ("main", &["cli"]),
];

/// What would make `proto` depend on the moment or the machine.
const IMPURE: [&str; 22] = [
    "tokio",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "std::os",
    "Instant::now",
    "SystemTime",
    ".elapsed()",
    "OsRng",
    "rand::rng(",
    "rand::random",
    "thread_rng",
    "from_os_rng",
    "from_entropy",
    "getrandom",
    "HashMap",
    "nix::",
];

/// Foreign libraries that one room keeps from all others.
const OWNERS: [(&str, &[&str]); 16] = [
    ("boringtun", &["src/proto/tunnel.rs"]),
    ("stun_codec", &["src/proto/stun.rs", "src/proto/filtering.rs"]),
    ("octocrab", &["src/github/rest.rs"]),
    ("zip", &["src/github/archive.rs"]),
    ("tun_rs", &["src/link/tun.rs"]),
    ("smoltcp", &["src/link/stack/"]),
    ("socket2", &["src/link/socket.rs"]),
    ("caps", &["src/privilege.rs"]),
    (
        "hyper",
        &["src/cache/front.rs", "src/cache/front/", "src/cache/reapi/", "src/cache/peers.rs", "src/cache/peers/"],
    ),
    ("tonic", &["src/cache/reapi.rs", "src/cache/reapi/", "src/cache/peers.rs", "src/cache/peers/"]),
    ("prost", &["src/cache/reapi.rs", "src/cache/reapi/", "src/cache/peers.rs", "src/cache/peers/"]),
    ("bazel_remote_apis", &["src/cache/reapi.rs", "src/cache/reapi/", "src/cache/peers.rs", "src/cache/peers/"]),
    ("zstd", &["src/cache/compression.rs"]),
    ("twox_hash", &["src/cache/store/entry.rs"]),
    ("ring", &["src/cache/sha256.rs"]),
    ("clap", &["src/cli.rs", "src/cli/", "src/config.rs", "src/config/", "src/log.rs"]),
];

/// Lines of a source file, its tests among them.
const LONGEST_FILE: usize = 500;

/// Lines of ARCHITECTURE.md: what is longer is not read.
const LONGEST_OVERVIEW: usize = 150;

#[test]
fn the_pure_wing_names_neither_clock_nor_socket_nor_file_nor_chance() {
    let mut broken = vec![];
    for file in sources("src").iter().filter(|file| file.room() == "proto") {
        let named = IMPURE.iter().filter(|word| file.code().contains(**word));
        broken.extend(named.map(|word| format!("{} names `{word}`: take it as an argument", file.path)));
    }
    assert_kept(&broken);
}

#[test]
fn rooms_import_only_from_rooms_below() {
    let mut broken = vec![];
    for file in sources("src").iter().filter(|file| file.room() != "lib") {
        let room = file.room();
        let Some((_, below)) = MAY_IMPORT.iter().find(|(name, _)| *name == room) else {
            broken.push(format!("the room `{room}` has no line in MAY_IMPORT"));
            continue;
        };
        let allowed = |import: &str| {
            let is =
                |rule: &&str| import == *rule || import.strip_prefix(*rule).is_some_and(|rest| rest.starts_with(':'));
            below.iter().any(is) || is(&room.as_str())
        };
        let upward = file.imports().into_iter().filter(|import| !allowed(import));
        broken.extend(upward.map(|import| format!("{} imports `{import}`, `{room}` may not", file.path)));
    }
    assert_kept(&broken);
}

#[test]
fn a_foreign_library_is_named_in_its_own_room_alone() {
    let mut broken = vec![];
    for file in sources("src") {
        let strangers = OWNERS.iter().filter(|(_, rooms)| !rooms.iter().any(|room| file.path.starts_with(room)));
        let named = strangers.filter(|(library, _)| file.names(&format!("{library}::")));
        broken
            .extend(named.map(|(library, rooms)| format!("{} names {library}, which belongs to {rooms:?}", file.path)));
    }
    assert_kept(&broken);
}

#[test]
fn every_file_opens_with_what_it_is() {
    let silent = rust().into_iter().filter(|file| !file.text.starts_with("//! "));
    assert_kept(&silent.map(|file| format!("{} does not open with `//!`", file.path)).collect::<Vec<_>>());
}

#[test]
fn no_file_is_longer_than_can_be_read_at_once() {
    let lines = |file: &Source| file.text.lines().count();
    let long = sources("src").into_iter().filter(|file| lines(file) > LONGEST_FILE);
    let complaint = |file: Source| format!("{} has {} lines, more than {LONGEST_FILE}", file.path, lines(&file));
    assert_kept(&long.map(complaint).collect::<Vec<_>>());
}

#[test]
fn a_module_is_a_file_of_its_own_name() {
    let mods = rust().into_iter().filter(|file| file.path.ends_with("/mod.rs"));
    assert_kept(
        &mods.map(|file| format!("{} should be named after its folder, beside it", file.path)).collect::<Vec<_>>(),
    );
}

#[test]
fn unsafe_code_is_at_the_link_alone() {
    let broken = sources("src").into_iter().filter(|file| file.room() != "link" && file.names("unsafe "));
    assert_kept(&broken.map(|file| format!("{} has unsafe code", file.path)).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_for_later() {
    let later = [concat!("#[", "ignore"), concat!("todo", "!"), concat!("unimplemented", "!"), concat!("FIX", "ME")];
    let mut broken = vec![];
    for file in rust() {
        let found = later.iter().filter(|word| file.text.contains(**word));
        broken.extend(found.map(|word| format!("{} has `{word}`", file.path)));
    }
    assert_kept(&broken);
}

#[test]
fn the_overview_stays_an_overview() {
    let Ok(text) = fs::read_to_string(root().join("ARCHITECTURE.md")) else { return };
    let lines = text.lines().count();
    assert!(lines <= LONGEST_OVERVIEW, "ARCHITECTURE.md has {lines} lines, more than {LONGEST_OVERVIEW}");
}

#[test]
fn no_file_tells_where_it_was_written() {
    let homes = [concat!("/", "work/"), concat!("/", "root/")];
    let mut broken = vec![];
    for file in texts(&root()) {
        let starts = |at: usize| !file.text[..at].ends_with(|c: char| c.is_alphanumeric() || "/}.-_~*".contains(c));
        let found = homes.iter().filter(|home| file.text.match_indices(**home).any(|(at, _)| starts(at)));
        broken.extend(found.map(|home| format!("{} names a path below {home}", file.path)));
    }
    assert_kept(&broken);
}

#[test]
fn exit_codes_are_distinct_and_lie_where_build_tools_have_none() {
    let codes = exit_codes();
    assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
    assert!(codes.contains(&Exit::Ok.code()) && codes.contains(&Exit::NotRunning.code()), "{codes:?}");
    assert!(codes.iter().all(|code| *code <= 2 || (81..=95).contains(code)), "{codes:?}");
}

#[test]
fn the_readme_lists_every_exit_code() {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let listed = |code: &u8| readme.lines().any(|line| line.starts_with('|') && line.contains(&format!("`{code}`")));
    let missing = exit_codes().into_iter().filter(|code| !listed(code));
    assert_kept(&missing.map(|code| format!("README.md has no row for exit code `{code}`")).collect::<Vec<_>>());
}

#[test]
fn every_failure_code_that_the_source_knows_is_explained() {
    let explained = fs::read_to_string(root().join("docs/failures.md")).expect("the list of failures");
    let codes: BTreeSet<String> = sources("src").iter().flat_map(|source| failure_codes(&source.text)).collect();
    assert!(codes.contains("M201"), "{codes:?}");
    let missing = codes.iter().filter(|code| !explained.contains(code.as_str()));
    assert_kept(&missing.map(|code| format!("docs/failures.md does not explain {code}")).collect::<Vec<_>>());
}

// --- the reader

struct Source {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// `src/link/tun.rs` and `src/link.rs` are of the room `link`.
    fn room(&self) -> String {
        self.modules().swap_remove(0)
    }

    /// `src/link/tun.rs` is `["link", "tun"]`.
    fn modules(&self) -> Vec<String> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inner.split('/').map(str::to_owned).collect()
    }

    /// Without comments, and without the tests at the end.
    fn code(&self) -> String {
        if self.path.starts_with("src/") && self.path.ends_with("/tests.rs") {
            return String::new();
        }
        let end = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let lines = self.text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.map(|line| line.split(" // ").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
    }

    /// Whether the code has `word`, and not as the end of a longer one.
    fn names(&self, word: &str) -> bool {
        let code = self.code();
        code.match_indices(word)
            .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || "_:\"".contains(c)))
    }

    /// Every path from the root of the crate that the code names, as `room` or `room::module`.
    fn imports(&self) -> BTreeSet<String> {
        let code = self.code();
        let from_root = ["crate::", "mesh::"].map(str::to_owned).into_iter();
        let starts = from_root.chain([format!("super::{}", "super::".repeat(self.modules().len() - 1))]);
        let mut imports = BTreeSet::new();
        for start in starts {
            for (at, _) in code.match_indices(&start) {
                let inside = code[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c));
                let rest = &code[at + start.len()..];
                if !inside {
                    imports.extend(paths(rest).into_iter().filter(|path| !path.is_empty()));
                }
            }
        }
        imports
    }
}

/// The first two names of what follows `crate::`; of `{a, b::c}` each.
fn paths(rest: &str) -> Vec<String> {
    let first_two = |path: &str| {
        let end = path.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c))).unwrap_or(path.len());
        path[..end].split("::").filter(|name| !name.is_empty()).take(2).collect::<Vec<_>>().join("::")
    };
    match rest.strip_prefix('{').and_then(|group| group.split_once('}')) {
        Some((group, _)) => group.split(',').map(|path| first_two(path.trim())).collect(),
        None => vec![first_two(rest)],
    }
}

#[test]
fn the_reader_sees_every_way_to_name_another_room() {
    let text = "//! Of crate::a.\nuse crate::link::clock;\nuse crate::{log, exit::Exit};\nlet x = super::super::cli::run();\n\
                // crate::b\n#[cfg(test)]\nmod tests {\n    use crate::c;\n}\n";
    let file = Source { path: "src/github/rest.rs".into(), text: text.into() };
    let expected = ["cli::run", "exit::Exit", "link::clock", "log"].map(str::to_owned);
    assert_eq!(file.imports(), BTreeSet::from(expected));
    assert_eq!((file.room().as_str(), file.names("clock;"), file.names("lock;")), ("github", false, false));
}

fn exit_codes() -> Vec<u8> {
    let text = fs::read_to_string(root().join("src/exit.rs")).expect("the exit codes");
    let number = |line: &str| line.trim().strip_suffix(',')?.split_once(" = ")?.1.parse().ok();
    text.lines().filter_map(number).collect()
}

/// `M` and three digits, as a word.
fn failure_codes(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    let is_code =
        |word: &&str| word.len() == 4 && word.starts_with('M') && word[1..].bytes().all(|digit| digit.is_ascii_digit());
    words.filter(is_code).map(String::from).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<Source> {
    let files = texts(&root().join(folder)).into_iter().filter(|file| file.path.ends_with(".rs")).collect::<Vec<_>>();
    assert!(!files.is_empty(), "there are sources below {folder}");
    files
}

fn rust() -> Vec<Source> {
    ["src", "tests", "benches", "netns-tests", "fuzz"].into_iter().flat_map(sources).collect()
}

/// Every text below `folder` that is ours: nothing that a tool has put there.
fn texts(folder: &Path) -> Vec<Source> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry of it").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if [".git", ".cache", "target", "node_modules"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            found.extend(texts(&path));
        } else if let Ok(text) = fs::read_to_string(&path) {
            let inner = path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
            found.push(Source { path: inner, text });
        }
    }
    found
}

fn assert_kept(broken: &[String]) {
    assert!(broken.is_empty(), "a house rule is broken:\n{}", broken.join("\n"));
}
