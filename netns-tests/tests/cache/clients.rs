//! Clients that nobody here wrote, unchanged.

use std::path::Path;
use std::process::Command;

use netns_tests::stage::{Home, alone, binary};

fn ccache(home: &Home, folder: &Path, layout: &str) -> (u64, u64) {
    let dir = folder.join("ccache");
    let storage = format!("{}|layout={layout}", home.variable("CCACHE_REMOTE_STORAGE").unwrap());
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(folder).env("CCACHE_DIR", &dir).env("CCACHE_REMOTE_STORAGE", &storage);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run("ccache", &["gcc", "-O2", "-c", "hello.c", "-o", "hello.o"]);
    let stats = run("ccache", &["--print-stats"]);
    // What is found on this disk would prove nothing.
    std::fs::remove_dir_all(&dir).unwrap();
    let count = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        line.and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    (count("remote_storage_hit"), count("remote_storage_error"))
}

#[test]
fn ccache_hits_in_each_of_its_layouts() {
    for layout in ["subdirs", "flat", "bazel"] {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::start(folder.path()).unwrap();
        std::fs::write(folder.path().join("hello.c"), "int main(void) { return 0; }\n").unwrap();

        assert_eq!(ccache(&home, folder.path(), layout), (0, 0), "{layout}: nothing is there yet");
        let compiled = std::fs::read(folder.path().join("hello.o")).unwrap();
        std::fs::remove_file(folder.path().join("hello.o")).unwrap();
        assert_eq!(ccache(&home, folder.path(), layout), (1, 0), "{layout}");

        assert_eq!(std::fs::read(folder.path().join("hello.o")).unwrap(), compiled, "{layout}");
    }
}

/// Its server is ours alone, on a port of its own, and ends with the test.
struct Sccache<'a> {
    folder: &'a Path,
    env: Vec<(String, String)>,
}

impl Sccache<'_> {
    fn run(&self, args: &[&str]) -> String {
        let mut command = Command::new("sccache");
        command.args(args).current_dir(self.folder).envs(self.env.clone());
        let output = command.output().unwrap();
        assert!(output.status.success(), "sccache {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Sccache<'_> {
    fn drop(&mut self) {
        let _ = Command::new("sccache").arg("--stop-server").envs(self.env.clone()).output();
    }
}

#[test]
fn sccache_hits_over_webdav() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(folder.path()).unwrap();
    std::fs::write(folder.path().join("hello.c"), "int main(void) { return 0; }\n").unwrap();
    let mut env = home.env().unwrap();
    env.push(("SCCACHE_SERVER_UDS".into(), folder.path().join("sccache.sock").display().to_string()));
    let sccache = Sccache { folder: folder.path(), env };

    sccache.run(&["gcc", "-O2", "-c", "hello.c", "-o", "hello.o"]);
    sccache.run(&["gcc", "-O2", "-c", "hello.c", "-o", "hello.o"]);

    let stats: serde_json::Value =
        serde_json::from_str(&sccache.run(&["--show-stats", "--stats-format", "json"])).unwrap();
    assert_eq!(stats["stats"]["cache_hits"]["counts"]["C/C++"], 1, "{stats}");
    assert_eq!(stats["stats"]["cache_writes"], 1, "{stats}");
    assert!(stats["cache_location"].as_str().unwrap().starts_with("webdav"), "{stats}");
}

fn curl(args: &[&str]) -> String {
    let output = Command::new("curl").args(["--silent", "--max-time", "30"]).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn curl_stores_and_reads_as_bazel_does() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(folder.path()).unwrap();
    let (url, file) = (home.variable("MESH_BAZEL_CACHE").unwrap(), folder.path().join("content"));
    std::fs::write(&file, "content\n").unwrap();
    let (file, hash) = (file.display().to_string(), "434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53");
    let code = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    let told = |args: &[&str]| curl(&[&code[..], args].concat());

    for path in [format!("{url}/ac/{hash}"), format!("{url}/cas/{hash}"), format!("{url}/of/us/ac/{hash}")] {
        assert_eq!(told(&[&path]), "404", "{path}");
        assert_eq!(told(&["--upload-file", &file, &path]), "201", "{path}");
        assert_eq!(told(&["--head", &path]), "200", "{path}");
        assert_eq!(curl(&[&path]), "content\n", "{path}");
    }
    let other = format!("{url}/cas/{}", "0".repeat(64));
    assert_eq!(told(&["--upload-file", &file, &other]), "400", "these are not the bytes of that name");
    assert_eq!(told(&[&url.replace("rw.main", "rw.mine")]), "401");
}

#[test]
fn a_reader_of_one_namespace_gets_nothing_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(folder.path()).unwrap();
    let (url, file) = (home.variable("MESH_CACHE_URL").unwrap() + "/webdav/x", folder.path().join("content"));
    std::fs::write(&file, "content\n").unwrap();
    let bearer = |args: &[&str]| {
        let text = String::from_utf8(home.cache(&[&["env"], args].concat()).unwrap().stdout).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("export MESH_CACHE_TOKEN=")).unwrap().to_owned();
        format!("Authorization: Bearer {}", line.trim_matches('\''))
    };
    let (writer, reader, stranger) = (bearer(&[]), bearer(&["--read-only"]), bearer(&["--namespace", "other"]));
    let code = |header: &str, args: &[&str]| {
        curl(&[&["--output", "/dev/null", "--write-out", "%{http_code}", "--header", header, &url], args].concat())
    };
    let upload = ["--upload-file", &*file.display().to_string()];

    assert_eq!(code(&reader, &upload), "403");
    assert_eq!(code(&writer, &upload), "201");
    assert_eq!((code(&reader, &[]), code(&stranger, &[])), ("200".into(), "404".into()));
}

#[test]
fn what_was_asked_and_stored_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(folder.path()).unwrap();
    std::fs::write(folder.path().join("hello.c"), "int main(void) { return 0; }\n").unwrap();
    ccache(&home, folder.path(), "flat");
    ccache(&home, folder.path(), "flat");

    let stats = home.stats().unwrap();

    assert!(
        stats["hits"].as_u64() >= Some(1) && stats["misses"].as_u64() >= Some(1) && stats["puts"].as_u64() >= Some(1),
        "{stats}"
    );
    let line = String::from_utf8(home.cache(&["stats"]).unwrap().stdout).unwrap();
    assert!(line.starts_with("cache: ") && line.contains("look-ups answered"), "{line}");
}

/// What Prometheus' own client library reads in a page of metrics: one line for each number, with its type.
const READ_METRICS: &str = "
import sys
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation, family
    for sample in family.samples:
        print(family.type, sample.name, int(sample.value))
";

#[test]
fn prometheus_reads_what_was_counted() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(folder.path()).unwrap();
    let (url, token) = (home.variable("MESH_CACHE_METRICS").unwrap(), home.variable("MESH_CACHE_TOKEN").unwrap());
    home.cache(&["get", "none"]).unwrap();

    let page = curl(&["--user", &format!("prometheus:{token}"), &url]);
    std::fs::write(folder.path().join("page"), page).unwrap();
    // The system's, whatever others there are: the library is its package.
    let mut python = Command::new("/usr/bin/python3");
    let page = std::fs::File::open(folder.path().join("page")).unwrap();
    let output = python.args(["-c", READ_METRICS]).stdin(page).output().unwrap();

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = String::from_utf8(output.stdout).unwrap();
    let known = ["counter mesh_cache_misses_total 1", "counter mesh_cache_hits_total 0", "gauge mesh_cache_entries 0"];
    assert!(known.iter().all(|line| read.lines().any(|read| read == *line)), "{read}");
    assert_eq!(read.lines().count(), 15, "{read}");
    assert_eq!(curl(&["--output", "/dev/null", "--write-out", "%{http_code}", &url]), "401");
}

#[test]
fn a_mesh_without_a_cache_says_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cache"), "a file is no folder").unwrap();
    let mut command = alone(folder.path()).unwrap();
    let output = command
        .args(["--", "sh", "-c", "\"$MESH\" cache env; echo code $?"])
        .env("MESH", binary().unwrap())
        .env("MESH_CONTROL", folder.path().join("mesh.sock"))
        .output()
        .unwrap();

    let (told, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the build goes on: {warned}");
    assert!(
        warned.contains("M801")
            && warned.contains(&folder.path().join("cache").display().to_string())
            && warned.contains("M802"),
        "{warned}"
    );
    assert_eq!(told, "code 2\n");
}
