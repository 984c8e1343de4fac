//! What COMMAND gets beside its own environment, and how a shell and GitHub read it. Nothing here touches this process's own.
//!
//! No `CMAKE_C_COMPILER_LAUNCHER`: CMake finds our `cc` in PATH when it configures and keeps its absolute path, so every compile
//! already passes through a link; `distcc` as a launcher on top would wait for two slots for one job.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::hosts::Hosts;
use super::search;

/// Names the file of `hosts_file` to the compiler links.
pub const HOSTS_FILE: &str = "MESH_HOSTS_FILE";
/// distcc's folder for locks and the memory of hosts that failed.
pub const DISTCC_DIR: &str = "DISTCC_DIR";
/// The machines that take jobs, for scripts that call `distcc` themselves. As of the start: only the links follow the file.
pub const DISTCC_HOSTS: &str = "DISTCC_HOSTS";
/// A good `-j`.
pub const SLOTS_TOTAL: &str = "MESH_SLOTS_TOTAL";
/// The control socket of this machine's mesh.
pub const CONTROL: &str = "MESH_CONTROL";

/// Where one run keeps its things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The folder of compiler links.
    pub links: PathBuf,
    /// The hosts file.
    pub hosts_file: PathBuf,
    /// distcc's folder, writable by the user who runs COMMAND.
    pub distcc_dir: PathBuf,
    /// The control socket.
    pub control: PathBuf,
}

/// Variables in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Where no engine runs there are none.
    links: Option<PathBuf>,
    variables: Vec<(&'static str, OsString)>,
}

impl Environment {
    /// For a COMMAND whose search path is `path` (the standard one where it has none).
    pub fn new(layout: &Layout, hosts: &Hosts, path: Option<&OsStr>) -> Self {
        let path = path.filter(|path| !path.is_empty()).unwrap_or(OsStr::new(search::STANDARD));
        let rest = search::folders(path).filter(|folder| *folder != layout.links);
        let path = search::join(std::iter::once(layout.links.clone()).chain(rest));
        let variables = vec![
            ("PATH", path),
            (DISTCC_HOSTS, hosts.line().into()),
            (DISTCC_DIR, layout.distcc_dir.clone().into()),
            (SLOTS_TOTAL, hosts.total().to_string().into()),
            (CONTROL, layout.control.clone().into()),
            (HOSTS_FILE, layout.hosts_file.clone().into()),
        ];
        Self { links: Some(layout.links.clone()), variables }
    }

    /// Where no engine runs: the way to the mesh.
    pub fn bare(control: &Path) -> Self {
        Self { links: None, variables: vec![(CONTROL, control.into())] }
    }

    /// With these variables too.
    #[must_use]
    pub fn with(mut self, more: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.variables.extend(more.into_iter().map(|(name, value)| (name, value.into())));
        self
    }

    /// The variables, as `Command::envs` takes them.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &OsStr)> {
        self.variables.iter().map(|(name, value)| (*name, value.as_os_str()))
    }

    /// Lines for `eval` in any POSIX shell.
    pub fn shell(&self) -> Vec<u8> {
        self.variables()
            .flat_map(|(name, value)| [b"export ", name.as_bytes(), b"=", &quoted(value), b"\n"].concat())
            .collect()
    }

    /// Lines to append to `$GITHUB_ENV`. PATH is not among them: see [`Environment::github_path`].
    pub fn github_env(&self) -> Vec<u8> {
        self.variables().filter(|(name, _)| *name != "PATH").flat_map(|(name, value)| github(name, value)).collect()
    }

    /// The line to append to `$GITHUB_PATH`, if any; the runner puts it before the PATH of every later step.
    pub fn github_path(&self) -> Vec<u8> {
        self.links.iter().flat_map(|links| [links.as_os_str().as_bytes(), b"\n"].concat()).collect()
    }
}

/// In single quotes a shell takes every byte for itself, except the quote.
fn quoted(value: &OsStr) -> Vec<u8> {
    let parts: Vec<&[u8]> = value.as_bytes().split(|&byte| byte == b'\'').collect();
    [b"'", parts.join(&br"'\''"[..]).as_slice(), b"'"].concat()
}

/// `NAME=VALUE`, or a heredoc where the value has more than one line ("Workflow commands for GitHub Actions", multiline strings).
fn github(name: &str, value: &OsStr) -> Vec<u8> {
    let value = value.as_bytes();
    if !value.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return [name.as_bytes(), b"=", value, b"\n"].concat();
    }
    let end = delimiter(value);
    [name.as_bytes(), b"<<", &end, b"\n", value, b"\n", &end, b"\n"].concat()
}

/// A word that the value does not contain anywhere.
fn delimiter(value: &[u8]) -> Vec<u8> {
    let mut end = b"MESH_END".to_vec();
    while value.windows(end.len()).any(|window| window == end) {
        end.push(b'_');
    }
    end
}

impl From<Environment> for Vec<(OsString, OsString)> {
    fn from(environment: Environment) -> Self {
        environment
            .variables
            .into_iter()
            .map(|(name, value)| (name.into(), OsString::from_vec(value.into_vec())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_links_come_first_in_path_and_only_once() {
        let environment =
            Environment::new(&layout(), &Hosts::new(2, []), Some(OsStr::new("/bin:/run/mesh/bin:/usr/bin")));
        let variables: Vec<_> = environment.variables().collect();
        assert_eq!(variables[0], ("PATH", OsStr::new("/run/mesh/bin:/bin:/usr/bin")));
        assert_eq!(variables[1], ("DISTCC_HOSTS", OsStr::new("localhost/2")));
        assert_eq!(environment.github_path(), b"/run/mesh/bin\n");
    }

    #[test]
    fn later_steps_get_everything_but_path() {
        let environment = Environment::new(&layout(), &Hosts::new(2, []), None);
        let text = String::from_utf8(environment.github_env()).expect("all ours");
        assert_eq!(
            text,
            "DISTCC_HOSTS=localhost/2\nDISTCC_DIR=/run/mesh/distcc\nMESH_SLOTS_TOTAL=2\nMESH_CONTROL=/run/mesh/control\n\
             MESH_HOSTS_FILE=/run/mesh/hosts\n"
        );
    }

    #[test]
    fn without_an_engine_there_is_the_way_to_the_mesh_and_what_else_is_asked_for() {
        let environment = Environment::bare(Path::new("/run/it's")).with([("MESH_CACHE_URL", "http://x".into())]);

        assert_eq!(
            String::from_utf8(environment.shell()).expect("all ours"),
            "export MESH_CONTROL='/run/it'\\''s'\nexport MESH_CACHE_URL='http://x'\n"
        );
        assert_eq!(environment.github_path(), b"");
    }

    #[test]
    fn a_value_of_several_lines_gets_a_delimiter_of_its_own() {
        let text = github("A", OsStr::new("x\nMESH_END\ny"));
        assert_eq!(String::from_utf8_lossy(&text), "A<<MESH_END_\nx\nMESH_END\ny\nMESH_END_\n");
    }

    proptest! {
        #[test]
        fn a_shell_reads_back_every_byte(value in prop::collection::vec(1..=255u8, 0..40)) {
            let value = OsString::from_vec(value);
            let script = [b"printf %s ", quoted(&value).as_slice()].concat();
            let output = Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output().expect("sh is everywhere");
            prop_assert_eq!(output.stdout, value.into_vec());
        }
    }

    fn layout() -> Layout {
        Layout {
            links: "/run/mesh/bin".into(),
            hosts_file: "/run/mesh/hosts".into(),
            distcc_dir: "/run/mesh/distcc".into(),
            control: "/run/mesh/control".into(),
        }
    }
}
