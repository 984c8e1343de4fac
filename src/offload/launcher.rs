//! What a compiler link does: become the real compiler, after a try by distcc with the hosts of this moment where that may be.
//! Which command lines may travel is decided in `sendable`, what a name stands for in `links`.
//!
//! **Every doubt ends in the original command line with the real compiler, by exec**: no hosts file, no remote host, no distcc,
//! another compiler in PATH than when the links were made, a compiler that distcc itself started, and a try that failed, for
//! whatever reason. So exit code, signals and messages of a failing compile are the compiler's own, given once; a link prints
//! nothing itself. Only the warnings of a compile that succeeded come from elsewhere, and there gcc cannot quote source lines.
//! No link finds a link again: their folders are not in the PATH of what is executed.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{AccessFlags, access};

use super::attempt::Program;
use super::environment::{DISTCC_DIR, DISTCC_HOSTS, HOSTS_FILE};
use super::name::Name;
use super::{attempt, dependencies, hosts, hosts_file, links, search, sendable, tally};

/// Set by distcc for whatever it starts.
const SAFEGUARD: &str = "_DISTCC_SAFEGUARD";

/// Variables by which a compiler reads or writes files that distcc knows nothing of (gcc(1), ENVIRONMENT).
const MEDDLING: [&str; 5] =
    ["GCC_EXEC_PREFIX", "COMPILER_PATH", "DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES", "CCC_OVERRIDE_OPTIONS"];

/// How long a job waits before it looks for a free slot again. distcc's own second is longer than most compiles.
const PAUSE_MS: &str = "50";

/// How long distcc shuns a host that failed. distcc's minute is for hosts nobody watches; `mesh` takes a dead one out of the list.
const BACKOFF_SECONDS: &str = "5";

/// As a shell says it.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// An environment.
pub type Variables = BTreeMap<OsString, OsString>;

/// A program to run: all that execve(2) takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The file to execute.
    pub program: PathBuf,
    /// What it is told that it is called.
    pub arg0: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The environment, whole.
    pub variables: Variables,
}

impl Step {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0(&self.arg0).args(&self.args).env_clear().envs(&self.variables);
        command
    }

    /// `None` where something holds a zero byte, which no program can be given.
    fn program(&self) -> Option<Program<'_>> {
        let variable = |(name, value): (&OsString, &OsString)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        };
        let args = std::iter::once(&self.arg0).chain(&self.args).map(|arg| CString::new(arg.as_bytes()).ok());
        let environment = self.variables.iter().map(variable).collect::<Option<_>>()?;
        Some(Program { file: &self.program, args: args.collect::<Option<_>>()?, environment })
    }
}

/// What a link does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The try by distcc, for what may travel.
    pub first: Option<Step>,
    /// Why there is no such try, in a few words; empty where there is one.
    pub why_here: &'static str,
    /// The real compiler.
    pub compiler: Step,
}

/// Where `argv0` is a compiler's name: does what that compiler does. Returns the exit code, unless it has become the compiler.
/// `None` for every other name.
pub fn dispatch(argv0: &OsStr, args: &[OsString]) -> Option<u8> {
    let name = Path::new(argv0).file_name()?;
    Name::parse(name.to_str()?)?;
    let folder = std::env::current_dir().unwrap_or_default();
    let Some(plan) = plan(argv0, args, std::env::vars_os().collect(), &folder) else {
        let _ = writeln!(io::stderr(), "{}: command not found", name.to_string_lossy());
        return Some(NOT_FOUND);
    };
    match &plan.first {
        Some(first) if first.program().is_some_and(|program| attempt::succeeds(&program)) => {
            tally::note(&plan.compiler.variables, tally::TRIED);
            return Some(0);
        }
        Some(_) => tally::note(&plan.compiler.variables, tally::FAILED_OVER),
        None => tally::note(&plan.compiler.variables, plan.why_here),
    }
    let error = plan.compiler.command().exec();
    let _ = writeln!(io::stderr(), "{}: {error}", plan.compiler.program.display());
    Some(NOT_RUN)
}

/// What a link called as `argv0` with `args` in `folder` does; `None` where no such compiler is in PATH. Reads the links' table and
/// the hosts file, changes nothing.
pub fn plan(argv0: &OsStr, args: &[OsString], mut variables: Variables, folder: &Path) -> Option<Plan> {
    let name = Path::new(argv0).file_name()?;
    let path = variables.get(OsStr::new("PATH")).cloned().unwrap_or_else(|| search::STANDARD.into());
    let visible = links::visible(&path);
    let program = search::find(name, visible.iter().cloned())?;
    variables.insert("PATH".into(), search::join(visible.iter().cloned()));
    let first = travelling(argv0, args, &path, &program, folder)
        .and_then(|remote| distcc(remote, args, &variables, visible).ok_or("no aux takes it"));
    let why_here = first.as_ref().err().copied().unwrap_or_default();
    let arg0 = if is_path(argv0) { program.clone().into_os_string() } else { argv0.to_owned() };
    Some(Plan { first: first.ok(), why_here, compiler: Step { program, arg0, args: args.to_vec(), variables } })
}

/// The compiler's name on the other side, where the command may travel; else why not.
fn travelling(
    argv0: &OsStr,
    args: &[OsString],
    path: &OsStr,
    program: &Path,
    folder: &Path,
) -> Result<String, &'static str> {
    sendable::sendable(args, folder)?;
    let known = compiler(argv0, path).filter(|compiler| compiler.program == program);
    known.and_then(|compiler| compiler.remote).ok_or("not the compiler that the aux have")
}

fn distcc(remote: String, args: &[OsString], variables: &Variables, visible: Vec<PathBuf>) -> Option<Step> {
    let hosts = live_hosts(variables)?;
    let folder = variables.get(OsStr::new(DISTCC_DIR)).map(Path::new).filter(|folder| is_writable(folder))?;
    let program = search::find(OsStr::new("distcc"), visible)?;
    let args = std::iter::once(remote.into()).chain(dependencies::explicit(args)?).collect();
    let variables = for_distcc(variables.clone(), hosts, folder);
    Some(Step { program, arg0: "distcc".into(), args, variables })
}

fn live_hosts(variables: &Variables) -> Option<String> {
    let off_limits = MEDDLING.iter().chain([&SAFEGUARD]).any(|name| variables.contains_key(OsStr::new(name)));
    let file = variables.get(OsStr::new(HOSTS_FILE)).filter(|_| !off_limits)?;
    hosts_file::read(Path::new(file)).filter(|line| hosts::has_remote(line))
}

fn is_writable(folder: &Path) -> bool {
    folder.is_dir() && access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

/// By the folder the link was called in, or, called by its bare name, by the first folder of links in PATH.
fn compiler(argv0: &OsStr, path: &OsStr) -> Option<links::Compiler> {
    let called_in = is_path(argv0).then(|| Path::new(argv0).parent()).flatten().map(Path::to_path_buf);
    let folder = called_in.or_else(|| search::folders(path).find(|folder| links::is_links(folder)))?;
    links::lookup(&folder, Path::new(argv0).file_name()?)
}

/// The name we give is the exact one, so distcc must not replace it (NO_REWRITE_CROSS). Its messages go into a file: tools read
/// the compiler's standard error. A job that did not arrive is done by distcc here, under its local slots (FALLBACK), so that
/// losing all aux does not start all jobs at once; one that the compiler refused there is left to us (SKIP_LOCAL_RETRY).
fn for_distcc(mut variables: Variables, hosts: String, folder: &Path) -> Variables {
    variables.remove(OsStr::new("INCLUDE_SERVER_PORT"));
    let always = [
        (DISTCC_HOSTS, hosts.as_str()),
        ("DISTCC_NO_REWRITE_CROSS", "1"),
        ("DISTCC_FALLBACK", "1"),
        ("DISTCC_SKIP_LOCAL_RETRY", "1"),
    ];
    variables.extend(always.map(|(name, value)| (name.into(), value.into())));
    variables.insert("DISTCC_LOG".into(), folder.join("distcc.log").into());
    for (name, value) in [("DISTCC_PAUSE_TIME_MSEC", PAUSE_MS), ("DISTCC_BACKOFF_PERIOD", BACKOFF_SECONDS)] {
        variables.entry(name.into()).or_insert_with(|| value.into());
    }
    variables
}

fn is_path(argv0: &OsStr) -> bool {
    argv0.as_encoded_bytes().contains(&b'/')
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_compile_is_tried_by_distcc_with_the_hosts_of_the_file_and_the_exact_compiler() {
        let run = Run::new("10.77.0.2/4 localhost/1");
        let first = run.plan("cc", &["-c", "a.c"]).first.expect("it may travel");
        assert_eq!(first.program, Path::new("/usr/bin/distcc"));
        assert_eq!(first.args[1..], [OsString::from("-c"), "a.c".into()]);
        let exact = first.args[0].to_str().and_then(Name::parse).expect("a compiler");
        assert!(exact.version.is_some(), "{exact:?}");
        assert_eq!(first.variables[OsStr::new("DISTCC_HOSTS")], "10.77.0.2/4 localhost/1");
        assert_eq!(first.variables[OsStr::new("PATH")], "/usr/bin:/bin");
    }

    #[test]
    fn without_a_remote_host_or_a_compile_it_is_the_compiler_itself() {
        let alone = Run::new("localhost/2");
        assert_eq!(alone.plan("cc", &["-c", "a.c"]).first, None);
        let run = Run::new("10.77.0.2/4");
        for args in [&["--version"][..], &["a.o", "-o", "a"], &["-E", "a.c"]] {
            let Plan { first, compiler, .. } = run.plan("cc", args);
            assert_eq!(first, None, "{args:?}");
            assert_eq!((compiler.program.as_path(), compiler.arg0.to_str()), (Path::new("/usr/bin/cc"), Some("cc")));
            assert_eq!(compiler.args, args);
        }
    }

    #[test]
    fn below_distcc_and_under_meddling_variables_it_is_the_compiler_itself() {
        for name in MEDDLING.iter().chain([&SAFEGUARD]) {
            let mut run = Run::new("10.77.0.2/4");
            run.variables.insert(name.into(), "1".into());
            assert_eq!(run.plan("cc", &["-c", "a.c"]).first, None, "{name}");
        }
    }

    #[test]
    fn without_a_folder_that_distcc_can_write_to_nothing_travels() {
        let mut run = Run::new("10.77.0.2/4");
        for folder in ["/proc/nowhere", "/dev/null"] {
            run.variables.insert(DISTCC_DIR.into(), folder.into());
            assert_eq!(run.plan("cc", &["-c", "a.c"]).first, None, "{folder}");
        }
        run.variables.remove(OsStr::new(DISTCC_DIR));
        assert_eq!(run.plan("cc", &["-c", "a.c"]).first, None);
    }

    #[test]
    fn a_link_called_by_its_path_tells_the_compiler_the_compilers_path() {
        let run = Run::new("localhost/2");
        let link = run.links().join("gcc");
        let plan = run.plan(link.to_str().expect("ours"), &["--version"]);
        assert_eq!(plan.compiler.arg0, "/usr/bin/gcc");
    }

    #[test]
    fn a_compiler_put_first_in_path_later_is_used_and_stays_here() {
        let mut run = Run::new("10.77.0.2/4");
        let own = run.dir.path().join("own");
        fs::create_dir(&own).expect("writable");
        fs::copy("/bin/true", own.join("gcc")).expect("copied");
        run.variables.insert("PATH".into(), search::join([run.links(), own.clone(), "/usr/bin".into()]));
        let plan = run.plan("gcc", &["-c", "a.c"]);
        assert_eq!((plan.first, plan.compiler.program), (None, own.join("gcc")));
    }

    #[test]
    fn two_folders_of_links_do_not_send_a_compile_round_in_circles() {
        let mut run = Run::new("10.77.0.2/4");
        let second = run.dir.path().join("second");
        links::create(&second, Path::new("/opt/mesh"), OsStr::new("/usr/bin")).expect("writable");
        run.variables
            .insert("PATH".into(), search::join([second, run.links(), "/usr/lib/distcc".into(), "/usr/bin".into()]));
        let plan = run.plan("cc", &["--version"]).compiler;
        assert_eq!(plan.program, Path::new("/usr/bin/cc"));
        assert_eq!(plan.variables[OsStr::new("PATH")], "/usr/bin");
    }

    #[test]
    fn bytes_that_are_no_text_come_through() {
        let run = Run::new("10.77.0.2/4");
        let odd = OsStr::from_bytes(b"-DX=\xff\xfe");
        let plan =
            plan(OsStr::new("cc"), &["-c".into(), "a.c".into(), odd.into()], run.variables.clone(), run.dir.path());
        let plan = plan.expect("cc is in PATH");
        assert_eq!(plan.first.expect("it may travel").args.last().expect("four"), odd);
        assert_eq!(plan.compiler.args.last().expect("three"), odd);
    }

    #[test]
    fn a_compiler_that_is_nowhere_is_not_found() {
        let run = Run::new("10.77.0.2/4");
        assert_eq!(plan(OsStr::new("gcc-1"), &[], run.variables.clone(), run.dir.path()), None);
    }

    struct Run {
        dir: tempfile::TempDir,
        variables: Variables,
    }

    impl Run {
        fn new(hosts: &str) -> Self {
            let dir = tempfile::tempdir().expect("a temporary folder");
            fs::write(dir.path().join("a.c"), "").expect("writable");
            fs::write(dir.path().join("hosts"), hosts).expect("writable");
            let links = dir.path().join("bin");
            links::create(&links, Path::new("/opt/mesh"), OsStr::new("/usr/bin:/bin")).expect("writable");
            let path = search::join([links, "/usr/bin".into(), "/bin".into()]);
            let variables = [
                ("PATH".into(), path),
                (HOSTS_FILE.into(), dir.path().join("hosts").into()),
                (DISTCC_DIR.into(), dir.path().into()),
            ];
            let variables = variables.into_iter().collect();
            Self { dir, variables }
        }

        fn links(&self) -> PathBuf {
            self.dir.path().join("bin")
        }

        fn plan(&self, argv0: &str, args: &[&str]) -> Plan {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            plan(OsStr::new(argv0), &args, self.variables.clone(), self.dir.path()).expect("the compiler is in PATH")
        }
    }
}
