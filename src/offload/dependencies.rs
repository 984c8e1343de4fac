//! Says what a compiler would understand about its dependency file, for a preprocessor that is run without the compile. Whether
//! the compile may travel is decided in `sendable`.
//!
//! With `-MD -c a.c -o sub/a.o` gcc and clang write `sub/a.d` about `sub/a.o` (gcc(1), `-MD`). distcc preprocesses with `-E` and
//! without `-o`, which writes `a.d` about `a.o`: the next build would not see that a header changed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// `args` with `-MF` and `-MQ` where they go without saying; `None` where that depends on the compiler.
pub fn explicit(args: &[OsString]) -> Option<Vec<OsString>> {
    let has = |options: &[&str]| {
        args.iter().any(|arg| options.iter().any(|option| arg.as_bytes().starts_with(option.as_bytes())))
    };
    let mut args = args.to_vec();
    let Some(output) = output(&args).filter(|_| has(&["-MD", "-MMD"])) else { return Some(args) };
    if !has(&["-MF"]) {
        args.extend([OsString::from("-MF"), file(&output)?]);
    }
    if !has(&["-MT", "-MQ"]) {
        args.extend([OsString::from("-MQ"), output]);
    }
    Some(args)
}

fn output(args: &[OsString]) -> Option<OsString> {
    let at = args.iter().rposition(|arg| arg.as_bytes().starts_with(b"-o"))?;
    match &args[at].as_bytes()[2..] {
        [] => args.get(at + 1).cloned(),
        joined => Some(OsStr::from_bytes(joined).to_owned()),
    }
}

/// For an output that ends in something else than `.o`, versions of gcc differ.
fn file(output: &OsStr) -> Option<OsString> {
    let stem = output.as_bytes().strip_suffix(b".o").filter(|stem| !stem.is_empty() && !stem.ends_with(b"/"))?;
    Some(OsString::from_vec([stem, b".d"].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_and_target_follow_the_output() {
        for (given, said) in [
            ("-MMD -c a.c -o sub/a.x.o", "-MMD -c a.c -o sub/a.x.o -MF sub/a.x.d -MQ sub/a.x.o"),
            ("-MD -c a.c -osub/a.o", "-MD -c a.c -osub/a.o -MF sub/a.d -MQ sub/a.o"),
            ("-MD -MFq.d -c a.c -o sub/a.o", "-MD -MFq.d -c a.c -o sub/a.o -MQ sub/a.o"),
            ("-MD -MT x -c a.c -o sub/a.o", "-MD -MT x -c a.c -o sub/a.o -MF sub/a.d"),
            ("-MD -MF q.d -MQ x -c a.c -o a", "-MD -MF q.d -MQ x -c a.c -o a"),
            ("-MD -c a.c", "-MD -c a.c"),
            ("-c a.c -o sub/a.o", "-c a.c -o sub/a.o"),
        ] {
            assert_eq!(explicit(&words(given)), Some(words(said)), "{given}");
        }
    }

    #[test]
    fn an_output_of_another_kind_is_left_to_the_compiler() {
        for given in ["-MD -c a.c -o a", "-MD -c a.c -o a.obj", "-MD -c a.c -o sub/.o", "-MMD -S a.c -o a.s"] {
            assert_eq!(explicit(&words(given)), None, "{given}");
        }
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }
}
