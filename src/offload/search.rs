//! Programs in a search path, as execvp(3) finds them. Nothing here runs them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where programs are on every Debian and Ubuntu; what a PATH that was not set stands for.
pub const STANDARD: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The folders of a search path, in order. An empty entry means the current folder and stays empty.
pub fn folders(path: &OsStr) -> impl Iterator<Item = PathBuf> {
    path.as_bytes().split(|&byte| byte == b':').map(|folder| PathBuf::from(OsStr::from_bytes(folder)))
}

/// The inverse of [`folders`].
pub fn join(folders: impl IntoIterator<Item = PathBuf>) -> OsString {
    let folders: Vec<Vec<u8>> = folders.into_iter().map(|folder| folder.into_os_string().into_vec()).collect();
    OsString::from_vec(folders.join(&b':'))
}

/// The first executable file called `name`. A relative folder counts, as it does for a shell.
pub fn find(name: &OsStr, folders: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    folders.into_iter().map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_and_a_file_that_cannot_run_are_passed_over() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir_all(dir.path().join("a/cc")).expect("a folder called cc");
        std::fs::create_dir_all(dir.path().join("b")).expect("a folder");
        std::fs::write(dir.path().join("b/cc"), "").expect("a file without the x bit");
        let path = join([dir.path().join("a"), dir.path().join("b")]);
        assert_eq!(find(OsStr::new("cc"), folders(&path)), None);
        std::fs::set_permissions(dir.path().join("b/cc"), PermissionsExt::from_mode(0o755)).expect("chmod");
        assert_eq!(find(OsStr::new("cc"), folders(&path)), Some(dir.path().join("b/cc")));
    }

    #[test]
    fn splitting_and_joining_keep_every_byte() {
        let path = OsStr::from_bytes(b"/a::/b\xff:rel");
        assert_eq!(join(folders(path)), path);
    }
}
