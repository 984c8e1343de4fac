//! The folder of compiler names that a build has first in its PATH. Each is a symbolic link to `mesh`; what it does is in
//! `launcher`.
//!
//! Beside the links lies a [`TABLE`]: for each name the compiler it stood for when the folder was made, and the name under which an
//! aux knows that very compiler. It also marks the folder, so that a link never finds a link.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::name::Name;
use super::search;

/// The file that makes a folder a folder of links: lines of `NAME TAB COMPILER TAB NAME-AT-AN-AUX`, the last empty where the
/// compiler does not travel.
pub const TABLE: &str = ".mesh-compilers";

/// The folders whose programs distccd runs when it is given a bare name and that are alike on machines of one image.
const SYSTEM: [&str; 2] = ["/usr/bin", "/bin"];

/// A compiler behind a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// The program that the name stood for.
    pub program: PathBuf,
    /// What to ask an aux for. With version and machine where there is such a name: a plain `gcc` may be another one there.
    pub remote: Option<String>,
}

/// Makes `folder` a folder of links to `binary` for every compiler in `path`: cc, c++, gcc, g++, clang, clang++, those with a
/// version, and those of this machine's triplet. Old links in it go. Returns the names.
pub fn create(folder: &Path, binary: &Path, path: &OsStr) -> io::Result<Vec<String>> {
    fs::create_dir_all(folder)?;
    remove_links(folder)?;
    let folders = visible(path);
    let compilers = compilers(&folders);
    for name in compilers.keys() {
        symlink(binary, folder.join(name))?;
    }
    fs::write(folder.join(TABLE), table(&compilers))?;
    Ok(compilers.into_keys().collect())
}

/// The folders of a search path where real compilers are: without folders of links, ours or another run's, and without those
/// of distcc itself, which would send a job on.
pub fn visible(path: &OsStr) -> Vec<PathBuf> {
    search::folders(path).filter(|folder| !is_links(folder) && !is_masquerade(folder)).collect()
}

/// Whether `folder` was made by [`create`].
pub fn is_links(folder: &Path) -> bool {
    folder.join(TABLE).is_file()
}

/// What `name` stood for when `folder` was made.
pub fn lookup(folder: &Path, name: &OsStr) -> Option<Compiler> {
    let table = fs::read(folder.join(TABLE)).ok()?;
    let line = table
        .split(|&byte| byte == b'\n')
        .find(|line| line.split(|&byte| byte == b'\t').next() == Some(name.as_bytes()))?;
    let mut fields = line.split(|&byte| byte == b'\t').skip(1);
    let program = PathBuf::from(OsStr::from_bytes(fields.next()?));
    let remote = std::str::from_utf8(fields.next()?).ok()?;
    Some(Compiler { program, remote: (!remote.is_empty()).then(|| remote.to_owned()) })
}

fn is_masquerade(folder: &Path) -> bool {
    ["cc", "gcc"].iter().any(|name| fs::canonicalize(folder.join(name)).is_ok_and(|file| file.ends_with("distcc")))
}

fn remove_links(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn compilers(folders: &[PathBuf]) -> BTreeMap<String, Compiler> {
    let triplet = triplet(folders);
    let native = |name: &str| {
        Name::parse(name).is_some_and(|parts| parts.triplet.is_none() || parts.triplet == triplet.as_deref())
    };
    let names = folders.iter().flat_map(|folder| names(folder)).filter(|name| native(name));
    let found = names.filter_map(|name| {
        let program = search::find(OsStr::new(&name), folders.iter().cloned())?;
        let remote = remote(&name, &program);
        Some((name, Compiler { program, remote }))
    });
    found.filter(|(_, compiler)| fits_a_line(&compiler.program)).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| Name::parse(name).is_some())
        .collect()
}

/// What `gcc -dumpmachine` says, since Debian's name for a machine differs from that of the kernel and of Rust.
fn triplet(folders: &[PathBuf]) -> Option<String> {
    let compiler = ["gcc", "cc"].iter().find_map(|name| search::find(OsStr::new(name), folders.iter().cloned()))?;
    let output = Command::new(compiler).arg("-dumpmachine").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok().map(|triplet| triplet.trim().to_owned())
}

/// The most telling name of the same file: with triplet and version, else with version, else its own. `update-alternatives` may
/// have made `gcc` another compiler here than at an aux, and a compiler outside the system's folders (or a wrapper) may not be
/// there at all: those stay here.
fn remote(name: &str, program: &Path) -> Option<String> {
    let folder = program.parent()?;
    let language = Name::parse(name)?.language;
    let file = fs::canonicalize(program).ok()?;
    Name::parse(file.file_name()?.to_str()?)?;
    if !SYSTEM.iter().any(|system| folder == Path::new(system)) {
        return None;
    }
    let same = names(folder).into_iter().filter(|other| {
        Name::parse(other).is_some_and(|parts| parts.language == language && parts.version.is_some())
            && fs::canonicalize(folder.join(other)).is_ok_and(|other| other == file)
    });
    same.max_by_key(|other| Name::parse(other).is_some_and(|parts| parts.triplet.is_some()))
        .or_else(|| Some(name.to_owned()))
}

fn fits_a_line(program: &Path) -> bool {
    !program.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b'\t' | b'\n'))
}

fn table(compilers: &BTreeMap<String, Compiler>) -> Vec<u8> {
    let mut table = OsString::new();
    for (name, compiler) in compilers {
        for part in [OsStr::new(name), OsStr::new("\t"), compiler.program.as_os_str(), OsStr::new("\t")] {
            table.push(part);
        }
        table.push(compiler.remote.as_deref().unwrap_or_default());
        table.push("\n");
    }
    table.into_vec()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_compilers_of_this_machine_get_links_and_nothing_else_does() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folder = dir.path().join("bin");
        let names =
            create(&folder, Path::new("/opt/mesh"), OsStr::new("/usr/lib/distcc:/usr/bin:/bin")).expect("writable");
        assert!(["cc", "gcc"].iter().all(|name| names.iter().any(|made| made == name)), "{names:?}");
        assert_eq!(fs::read_link(folder.join("cc")).expect("a link"), Path::new("/opt/mesh"));
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), names.len() + 1);
        let cc = lookup(&folder, OsStr::new("cc")).expect("in the table");
        assert_eq!(cc.program, Path::new("/usr/bin/cc"));
        assert!(cc.remote.is_some_and(|remote| Name::parse(&remote).is_some_and(|parts| parts.version.is_some())));
        assert_eq!(lookup(&folder, OsStr::new("ar")), None);
    }

    #[test]
    fn a_compiler_outside_the_system_folders_gets_a_link_but_does_not_travel() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let own = dir.path().join("own");
        fs::create_dir(&own).expect("writable");
        program(&own.join("clang-99"));
        program(&own.join("clang-format"));
        fs::write(own.join("cc"), "not executable").expect("writable");
        let folder = dir.path().join("bin");
        let names = create(&folder, Path::new("/opt/mesh"), own.as_os_str()).expect("writable");
        assert_eq!(names, ["clang-99"]);
        let compiler = Compiler { program: own.join("clang-99"), remote: None };
        assert_eq!(lookup(&folder, OsStr::new("clang-99")), Some(compiler));
    }

    #[test]
    fn making_the_folder_again_drops_links_of_compilers_that_went() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (own, folder) = (dir.path().join("own"), dir.path().join("bin"));
        fs::create_dir(&own).expect("writable");
        program(&own.join("gcc-1"));
        create(&folder, Path::new("/opt/mesh"), own.as_os_str()).expect("writable");
        fs::remove_file(own.join("gcc-1")).expect("there");
        let path = search::join([folder.clone(), own]);
        assert_eq!(create(&folder, Path::new("/opt/mesh"), &path).expect("writable"), Vec::<String>::new());
        assert!(!folder.join("gcc-1").is_symlink());
    }

    fn program(file: &Path) {
        fs::write(file, "#!/bin/sh\n").expect("writable");
        fs::set_permissions(file, PermissionsExt::from_mode(0o755)).expect("chmod");
    }
}
