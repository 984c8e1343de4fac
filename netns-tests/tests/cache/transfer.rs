//! `mesh cache put` and `get`, as a script uses them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use mesh::control::Response;
use netns_tests::lab::wait_until;
use netns_tests::stage::{Home, Process, binary};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

const MEGABYTE: usize = 1_000_000;
const SOON: Duration = Duration::from_secs(40);

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(len as u64).fill_bytes(&mut bytes);
    bytes
}

/// `mesh cache` with these arguments, and with this on stdin.
fn piped(home: &Home, args: &[&str], stdin: &[u8]) -> Output {
    let mut command = home.cache_command(args).unwrap();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Who refuses does not read to the end.
            let _ = pipe.write_all(stdin);
        });
        child.wait_with_output().unwrap()
    })
}

fn code_and_words(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_put_from_a_file_or_a_pipe_is_got_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(folder.path()).unwrap();
    let (bytes, out) = (noise(50 * MEGABYTE), folder.path().join("out"));
    let (file, got) = (folder.path().join("file"), out.join("got"));
    std::fs::write(&file, &bytes).unwrap();
    std::fs::create_dir(&out).unwrap();

    let put = home.cache(&["put", "from/a file", file.to_str().unwrap()]).unwrap();
    let piped = piped(&home, &["put", "from a pipe"], &bytes);

    for put in [put, piped] {
        let (code, told) = code_and_words(&put);
        assert_eq!((code, put.stdout.len()), (0, 0), "{told}");
        assert!(told.starts_with("mesh: `from") && told.contains("is in the cache: 50.0 MB"), "{told}");
    }
    let get = home.cache(&["get", "from/a file"]).unwrap();
    assert!(get.status.success() && get.stdout == bytes, "{:?}", code_and_words(&get));
    let get = home.cache(&["get", "from a pipe", "-o", got.to_str().unwrap()]).unwrap();
    assert_eq!((get.status.success(), get.stdout.len(), names(&out)), (true, 0, vec!["got".to_owned()]));
    assert!(std::fs::read(&got).unwrap() == bytes);
}

#[test]
fn what_is_not_there_has_an_exit_code_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(folder.path()).unwrap();
    let file = folder.path().join("got");

    let (code, told) = code_and_words(&home.cache(&["get", "none", "-o", file.to_str().unwrap()]).unwrap());

    assert_eq!(code, 93, "{told}");
    assert!(told.contains("M804") && told.contains("`none`") && told.contains("hint: "), "{told}");
    assert!(!file.exists());
}

#[test]
fn two_namespaces_are_apart() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(folder.path()).unwrap();
    let get = |namespace: &[&str]| home.cache(&[&["get", "x"], namespace].concat()).unwrap();

    assert!(piped(&home, &["put", "x"], b"of main").status.success());
    assert_eq!(get(&["--namespace", "other"]).status.code(), Some(93));
    assert!(piped(&home, &["put", "x", "--namespace", "other"], b"of other").status.success());

    assert_eq!((get(&[]).stdout, get(&["--namespace", "other"]).stdout), (b"of main".into(), b"of other".into()));
    let (code, told) = code_and_words(&get(&["--namespace", "a/b"]));
    assert!(code == 2 && told.contains("M803"), "{told}");
}

#[test]
fn what_cannot_be_kept_or_written_is_told_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(folder.path()).unwrap();
    assert!(piped(&home, &["put", "x"], b"content").status.success());
    let nowhere = folder.path().join("none/got").display().to_string();
    let told = |args: &[&str], stdin: &[u8], code, words: [&str; 2]| {
        let (found, told) = code_and_words(&piped(&home, args, stdin));
        assert_eq!(found, code, "{args:?}: {told}");
        assert!(words.iter().all(|word| told.contains(word)) && told.contains("hint: "), "{args:?}: {told}");
    };

    told(&["get", "x", "-o", &nowhere], b"", 1, ["M109", &nowhere]);
    told(&["put", "x", &nowhere], b"", 2, ["M806", &nowhere]);
    told(&["put", "x"], b"", 2, ["M806", "nothing in stdin"]);
    told(&["put", "../x"], b"content", 2, ["M806", "../x"]);
    told(&["get", ""], b"", 2, ["M806", "name"]);
    told(&["put", &"x".repeat(5000)], b"content", 2, ["M806", "too long"]);
}

#[test]
fn what_is_too_large_for_the_cache_is_told_from_a_file_and_from_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start_with(folder.path(), &["--cache-size", "40MB"]).unwrap();
    let (bytes, file) = (noise(20 * MEGABYTE), folder.path().join("file"));
    std::fs::write(&file, &bytes).unwrap();

    for output in [home.cache(&["put", "x", file.to_str().unwrap()]).unwrap(), piped(&home, &["put", "x"], &bytes)] {
        let (code, told) = code_and_words(&output);
        assert_eq!(code, 1, "{told}");
        assert!(told.contains("M805") && told.contains("413") && told.contains("--cache-size"), "{told}");
    }
}

#[test]
fn without_a_mesh_nothing_is_put_and_the_code_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock").display().to_string();
    for verb in ["put", "get"] {
        let output = Command::new(binary().unwrap()).args(["cache", verb, "x", "--control", &socket]).output().unwrap();
        let (code, told) = code_and_words(&output);
        assert!(code == 92 && told.contains("M107") && told.contains(&socket), "{verb}: {told}");
    }
}

/// What tells of a cache whose every answer is these bytes. It breaks off when nobody waits for its end any more.
fn half_a_mesh(socket: &Path, answer: Vec<u8>) -> JoinHandle<TcpStream> {
    let (control, door) = (UnixListener::bind(socket).unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let told = Response::Door { addr: door.local_addr().unwrap(), token: "token".into() };
    std::thread::spawn(move || {
        let (mut asked, _) = control.accept().unwrap();
        writeln!(asked, "{}", serde_json::to_string(&told).unwrap()).unwrap();
        let (mut asked, _) = door.accept().unwrap();
        let _ = asked.read(&mut [0; 4096]).unwrap();
        asked.write_all(&answer).unwrap();
        asked
    })
}

fn half_an_answer() -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n", &noise(MEGABYTE)[..]].concat()
}

fn get_from(socket: &Path) -> Command {
    let mut command = Command::new(binary().unwrap());
    command.args(["cache", "get", "x", "--control"]).arg(socket);
    command
}

#[test]
fn an_answer_that_breaks_off_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, out) = (folder.path().join("mesh.sock"), folder.path().join("out"));
    std::fs::create_dir(&out).unwrap();
    drop(half_a_mesh(&socket, half_an_answer()));

    let (code, told) = code_and_words(&get_from(&socket).arg("-o").arg(out.join("got")).output().unwrap());

    assert!(code == 1 && told.contains("M805") && told.contains("broke off"), "{told}");
    assert_eq!(names(&out), Vec::<String>::new());
}

#[test]
fn a_signal_in_mid_answer_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, out) = (folder.path().join("mesh.sock"), folder.path().join("out"));
    std::fs::create_dir(&out).unwrap();
    let _open = half_a_mesh(&socket, half_an_answer());
    let mut command = get_from(&socket);
    command.arg("-o").arg(out.join("got"));
    let mut getting = Process::spawn(command, &folder.path().join("get.log")).unwrap();
    wait_until(SOON, "half of the file", || {
        let part = out.read_dir().unwrap().next()?.unwrap();
        (part.metadata().unwrap().len() >= MEGABYTE as u64).then_some(())
    })
    .unwrap();

    getting.signal(Signal::SIGTERM).unwrap();

    assert_eq!(getting.wait(SOON).unwrap(), 128 + 15);
    assert_eq!(names(&out), Vec::<String>::new());
}

#[test]
fn a_mesh_that_is_killed_in_mid_answer_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let mut home = Home::start(folder.path()).unwrap();
    assert!(piped(&home, &["put", "x"], &noise(50 * MEGABYTE)).status.success());
    let mut getting = home.cache_command(&["get", "x"]).unwrap();
    let mut getting = getting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // More than this does not fit into what lies between, so most of it is still in the cache.
    let mut stdout = getting.stdout.take().unwrap();
    stdout.read_exact(&mut vec![0; MEGABYTE]).unwrap();

    home.process.signal(Signal::SIGKILL).unwrap();
    home.process.wait(SOON).unwrap();

    let rest = std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    let (code, told) = code_and_words(&getting.wait_with_output().unwrap());
    assert!(code == 1 && told.contains("M805"), "{told}");
    assert!(rest < 49 * MEGABYTE as u64, "{rest} bytes came from the dead");
}
