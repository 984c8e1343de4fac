//! Which compiler command lines may go to another machine. Where and how they go is not here.
//!
//! distcc decides this too, but it believes more than is so: it sends what reads or writes files beside the source and the object
//! (`-gsplit-dwarf`, `-fstack-usage`, response files, plugins), and a job that distccd refuses makes it shun the host for a
//! minute. So this is the narrower gate. **Whatever is in doubt stays here**: that costs time, never a wrong object.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// C and C++. Assembler and preprocessed sources take longer to send than to compile, or name files of their own (`.incbin`).
const SOURCES: [&str; 7] = ["c", "cc", "cpp", "cxx", "cp", "c++", "C"];

/// Options whose value is the next argument, and that distcc or the preprocessor here deals with.
const WITH_VALUE: [&str; 18] = [
    "-D",
    "-U",
    "-I",
    "-L",
    "-l",
    "-MF",
    "-MT",
    "-MQ",
    "-include",
    "-imacros",
    "-iprefix",
    "-iwithprefix",
    "-isystem",
    "-iquote",
    "-idirafter",
    "-isysroot",
    "--param",
    "-target",
];

/// Dependency files are written by the preprocessor here; of `-M...` only these go with a compile.
const DEPENDENCIES: [&str; 3] = ["-MD", "-MMD", "-MP"];

const LOCAL: [(&str, &str); 8] = [
    ("-E", "preprocesses only"),
    ("-", "reads standard input"),
    ("-v", "asks the compiler about itself"),
    ("-Q", "asks the compiler about itself"),
    ("-I-", "an include path that distcc does not know"),
    ("-gsplit-dwarf", "writes a second file"),
    ("-frepo", "writes a second file"),
    ("-aux-info", "writes a second file"),
];

const LOCAL_PREFIXES: [(&str, &str); 50] = [
    ("@", "arguments in a file"),
    ("-###", "asks the compiler about itself"),
    ("--help", "asks the compiler about itself"),
    ("--version", "asks the compiler about itself"),
    ("--verbose", "asks the compiler about itself"),
    ("-print", "asks the compiler about itself"),
    ("--print", "asks the compiler about itself"),
    ("-d", "asks the compiler about itself"),
    ("-ftime-", "asks the compiler about itself"),
    ("-fmem-report", "asks the compiler about itself"),
    ("-march=native", "means this machine's processor"),
    ("-mtune=native", "means this machine's processor"),
    ("-mcpu=native", "means this machine's processor"),
    ("-save-temps", "writes a second file"),
    ("--save-temps", "writes a second file"),
    ("-fdump-", "writes a second file"),
    ("-fstack-usage", "writes a second file"),
    ("-fcallgraph-info", "writes a second file"),
    ("-fopt-info", "writes a second file"),
    ("-fsave-optimization-record", "writes a second file"),
    ("-foptimization-record", "writes a second file"),
    ("-ftest-coverage", "writes a second file"),
    ("-fcoverage", "writes a second file"),
    ("--coverage", "writes a second file"),
    ("-fdiagnostics-add-output", "writes a second file"),
    ("-fdiagnostics-set-output", "writes a second file"),
    ("-fdiagnostics-format", "diagnostics for a program"),
    ("-fcompare-debug", "compiles twice"),
    ("-frecord-gcc-switches", "keeps the command line in the object"),
    ("-fprofile", "reads or writes a profile"),
    ("-fauto-profile", "reads or writes a profile"),
    ("-fbranch-probabilities", "reads or writes a profile"),
    ("-fplugin", "loads a plugin"),
    ("-fpass-plugin", "loads a plugin"),
    ("-specs", "changes the compiler"),
    ("--specs", "changes the compiler"),
    ("-B", "changes the compiler"),
    ("-wrapper", "changes the compiler"),
    ("--config", "changes the compiler"),
    ("-X", "passes options through"),
    ("-mllvm", "passes options through"),
    ("-x", "names the language"),
    ("-arch", "compiles twice"),
    ("-fmodule", "modules"),
    ("-fcxx-modules", "modules"),
    ("-fthinlto-index", "reads a second file"),
    ("-include-pch", "a precompiled header"),
    ("-fpch", "a precompiled header"),
    ("-fdirectives-only", "preprocessed in part"),
    ("-fpreprocessed", "preprocessed already"),
];

/// Folders in which configure steps try things out. Such a compile is tiny, often meant to fail, and its verdict must be this
/// machine's.
const SCRATCH: [&str; 3] = ["CMakeScratch", "CMakeTmp", "meson-private"];

/// Whether `args` (without the compiler's name), run in `folder`, may be compiled elsewhere; else why not, as a phrase.
pub fn sendable(args: &[OsString], folder: &Path) -> Result<(), &'static str> {
    let mut compiles = false;
    let mut source = None;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let bytes = arg.as_bytes();
        if bytes == b"-o" {
            output(rest.next().ok_or("an option without its value")?)?;
        } else if is_any(bytes, &WITH_VALUE) {
            rest.next().ok_or("an option without its value")?;
        } else if is_any(bytes, &["-c", "-S"]) {
            compiles = true;
        } else if bytes.starts_with(b"-") || bytes.starts_with(b"@") {
            option(bytes)?;
        } else if source.replace(Path::new(arg)).is_some() {
            return Err("more than one input");
        }
    }
    if !compiles {
        return Err("does not compile");
    }
    input(source.ok_or("no input")?, folder)
}

fn option(bytes: &[u8]) -> Result<(), &'static str> {
    if let Some(output) = bytes.strip_prefix(b"-o") {
        return self::output(OsStr::from_bytes(output));
    }
    if bytes.starts_with(b"-M")
        && !is_any(bytes, &DEPENDENCIES)
        && ![b"-MF", b"-MT", b"-MQ"].iter().any(|of| bytes.starts_with(*of))
    {
        return Err("prints dependencies");
    }
    if bytes.starts_with(b"-Wa,") && bytes != b"-Wa,--noexecstack" {
        return Err("passes options through");
    }
    if bytes.starts_with(b"-Wp,") && !(bytes.starts_with(b"-Wp,-D") || bytes.starts_with(b"-Wp,-U")) {
        return Err("passes options through");
    }
    if contains(bytes, b"list=") || contains(bytes, b"-file=") {
        return Err("reads a second file");
    }
    let exact = LOCAL.iter().find(|(name, _)| bytes == name.as_bytes());
    let prefix = || LOCAL_PREFIXES.iter().find(|(prefix, _)| bytes.starts_with(prefix.as_bytes()));
    exact.or_else(prefix).map_or(Ok(()), |&(_, reason)| Err(reason))
}

fn output(file: &OsStr) -> Result<(), &'static str> {
    let bytes = file.as_bytes();
    let ordinary =
        !bytes.is_empty() && !bytes.starts_with(b"-") && !bytes.starts_with(b"/dev/") && !bytes.starts_with(b"/proc/");
    ordinary.then_some(()).ok_or("no ordinary output file")
}

fn input(source: &Path, folder: &Path) -> Result<(), &'static str> {
    if !source.extension().is_some_and(|extension| SOURCES.iter().any(|known| extension == *known)) {
        return Err("not C or C++");
    }
    if source.file_stem().is_some_and(|stem| stem == "conftest" || stem == "tmp.conftest")
        || is_scratch(&folder.join(source))
    {
        return Err("a configure step");
    }
    if !folder.join(source).is_file() {
        return Err("no such source file");
    }
    Ok(())
}

fn is_scratch(source: &Path) -> bool {
    source
        .components()
        .any(|part| matches!(part, Component::Normal(name) if SCRATCH.iter().any(|scratch| name == *scratch)))
}

fn is_any(bytes: &[u8], names: &[&str]) -> bool {
    names.iter().any(|name| bytes == name.as_bytes())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_compiles_may_go() {
        for line in [
            "-c a.c",
            "-O2 -g -Wall -DX=1 -I. -c a.c -o a.o",
            "-c a.c -oa.o -MD -MP -MF a.d -MT a.o -fPIC -march=x86-64-v2",
            "-D c -I inc -include b.h -isystem /x -c a.c",
            "-S a.c -o a.s -Wa,--noexecstack -Wp,-D_FORTIFY_SOURCE=2",
            "-std=c11 -ffile-prefix-map=/a=/b -fdata-sections --param x=1 -pipe -c a.c",
        ] {
            assert_eq!(check(line), Ok(()), "{line}");
        }
    }

    #[test]
    fn what_is_no_compile_or_touches_other_files_stays() {
        for line in [
            "",
            "--version",
            "-v",
            "a.c",
            "a.o b.o -o prog",
            "-E a.c",
            "-c -E a.c",
            "-c -",
            "-c -x c -",
            "-c @args a.c",
            "-M a.c",
            "-c -MM a.c",
            "-c -MJ x a.c",
            "-c a.c b.c",
            "-c a.c b.o",
            "-c",
            "-c gone.c",
            "-c a.s",
            "-c a.h",
            "-c a.c -o",
            "-c a.c -o -",
            "-c a.c -o /dev/null",
            "-c a.c -march=native",
            "-c a.c -mtune=native",
            "-c a.c -gsplit-dwarf",
            "-c a.c --coverage",
            "-c a.c -fprofile-use=x",
            "-c a.c -save-temps=obj",
            "-c a.c -fplugin=x",
            "-c a.c -specs=x",
            "-c a.c -Wa,-ahl=x",
            "-c a.c -Wp,-MD,x",
            "-c a.c -Xclang -load",
            "-c a.c -fsanitize-ignorelist=x",
            "-c a.c -B/x",
            "-c a.c -dM",
            "-c a.c -fstack-usage",
            "-c conftest.c",
            "-c CMakeScratch/a.c",
        ] {
            assert!(check(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_configure_step_is_known_by_its_folder_too() {
        let dir = folder();
        assert_eq!(sendable(&words("-c a.c"), &dir.path().join("CMakeScratch")), Err("a configure step"));
    }

    proptest! {
        #[test]
        fn any_arguments_get_a_verdict(args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..8)) {
            let args: Vec<OsString> = args.into_iter().map(OsString::from_vec).collect();
            let _ = sendable(&args, Path::new("/"));
        }
    }

    fn check(line: &str) -> Result<(), &'static str> {
        sendable(&words(line), folder().path())
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("CMakeScratch")).expect("writable");
        for name in ["a.c", "b.c", "a.s", "a.h", "conftest.c", "CMakeScratch/a.c"] {
            std::fs::write(dir.path().join(name), "").expect("writable");
        }
        dir
    }
}
