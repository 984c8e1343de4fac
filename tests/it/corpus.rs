//! What the fuzzers of `fuzz/` have found worth keeping, and their seeds, run once more through the same bodies: with a stable compiler, and
//! at every change. Finding more is not here but in `scripts/nightly`.

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use self::targets::{ALL, Target};

/// The committed corpora are read by people and cloned by everybody.
const MOST_FILES: usize = 400;
const LONGEST_FILE: u64 = 2048;

#[test]
fn every_committed_input_holds() {
    for target in ALL {
        let files = corpus(&target);
        assert!(!files.is_empty(), "fuzz/corpus/{} is empty", target.name);
        for file in files {
            let data = fs::read(&file).unwrap();
            run(&target, &data, &file.display().to_string());
        }
    }
}

/// They are also written, for `scripts/nightly` to begin with: the committed inputs of an older wire format lead nowhere.
#[test]
fn every_seed_holds() {
    for target in ALL {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("seeds").join(target.name);
        fs::remove_dir_all(&folder).unwrap_or_default();
        fs::create_dir_all(&folder).unwrap();
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:02}")), seed).unwrap();
            run(&target, seed, &format!("seed {number}"));
        }
    }
}

#[test]
fn the_corpora_stay_small() {
    for target in ALL {
        let files = corpus(&target);
        assert!(files.len() <= MOST_FILES, "fuzz/corpus/{} has {} files", target.name, files.len());
        for file in files {
            let len = fs::metadata(&file).unwrap().len();
            assert!(len <= LONGEST_FILE, "{} has {len} bytes", file.display());
        }
    }
}

#[test]
fn every_target_has_its_fuzzer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for Target { name, .. } in ALL {
        assert!(manifest.contains(&format!("fuzz_targets/{name}.rs")), "fuzz/Cargo.toml does not know {name}");
    }
}

/// A panic of a body does not say on what.
fn run(target: &Target, data: &[u8], what: &str) {
    let outcome = std::panic::catch_unwind(|| (target.run)(data));
    assert!(outcome.is_ok(), "{}: {what} does not hold", target.name);
}

fn corpus(target: &Target) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
