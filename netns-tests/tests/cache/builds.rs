//! Build tools that nobody here wrote, by way of the Remote Execution API: each builds, forgets all, and gets the same from the cache.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use netns_tests::stage::Home;

/// What a tool said, and whether it was content.
pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl From<Output> for Told {
    fn from(output: Output) -> Self {
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        Self { code: output.status.code(), text }
    }
}

/// What is built, by its path.
pub(crate) type Built = BTreeMap<String, Vec<u8>>;

/// Paths below the folder, and what is there.
fn files(folder: &Path) -> Built {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// Another token than the one that is good.
fn damaged(token: &str) -> String {
    token.replacen("rw.main", "rw.mine", 1)
}

/// A few small files that become a small and a large one, with words on both outputs.
const SCRIPT: &str = "echo to-stdout; echo to-stderr >&2; tr a-z A-Z < in.txt > out.txt; seq 1 900000 > big.bin";

pub(crate) struct Moon<'a> {
    pub(crate) folder: &'a Path,
    /// Empty where a variable tells it.
    pub(crate) host: String,
    pub(crate) compression: &'a str,
}

impl Moon<'_> {
    pub(crate) fn prepare(&self) {
        let Self { folder, host, compression } = self;
        let host = if host.is_empty() { String::new() } else { format!("  host: '{host}'\n") };
        let workspace = format!(
            "projects:\n  app: 'app'\ntelemetry: false\nremote:\n{host}  auth:\n    token: 'CACHE_TOKEN'\n  cache:\n    instanceName: 'my/inst'\n    compression: '{compression}'\n"
        );
        let script = SCRIPT.replace("out.txt", "out/out.txt").replace("big.bin", "out/big.bin");
        let project = format!(
            "tasks:\n  build:\n    script: 'mkdir -p out; {script}'\n    inputs: ['in.txt']\n    outputs: ['out']\n    options: {{ runInCI: true }}\n"
        );
        write(
            folder,
            &[
                (".moon/workspace.yml", &workspace),
                ("app/moon.yml", &project),
                ("app/in.txt", "hello\n"),
                (".gitignore", ".moon/cache\nout\n"),
            ],
        );
        // It asks git what has changed since the last commit.
        let identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"];
        for args in [&["init", "--quiet"][..], &["commit", "--quiet", "--allow-empty", "--message=begin"]] {
            let git = Command::new("git").args(identity).args(args).current_dir(folder).status().unwrap();
            assert!(git.success(), "git {args:?}");
        }
    }

    /// Builds, and forgets all that is on this disk. What it told, and what it built.
    fn build(&self, token: &str) -> (Told, Built) {
        self.build_by(Command::new("moon"), token)
    }

    /// The same, started as `command` says.
    pub(crate) fn build_by(&self, mut command: Command, token: &str) -> (Told, Built) {
        command.args(["run", "app:build"]).current_dir(self.folder);
        command.env("MOON_HOME", self.folder.with_file_name("moon")).env("CACHE_TOKEN", token).env_remove("CI");
        let told = Told::from(command.output().unwrap());
        assert_eq!(told.code, Some(0), "{}", told.text);
        let built = files(&self.folder.join("app/out"));
        for folder in ["app/out", ".moon/cache"] {
            std::fs::remove_dir_all(self.folder.join(folder)).unwrap();
        }
        (told, built)
    }
}

#[test]
fn moon_hits_with_and_without_compression() {
    for compression in ["none", "zstd"] {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::start(folder.path()).unwrap();
        let (host, token) = (home.variable("MESH_REMOTE_CACHE").unwrap(), home.variable("MESH_CACHE_TOKEN").unwrap());
        let workspace = folder.path().join("workspace");
        let moon = Moon { folder: &workspace, host, compression };
        moon.prepare();

        let (first, built) = moon.build(&token);
        let (second, cached) = moon.build(&token);

        assert!(!first.text.contains("cached"), "{compression}: {}", first.text);
        assert!(second.text.contains("cached from remote"), "{compression}: {}", second.text);
        assert!(second.text.contains("to-stdout") && second.text.contains("to-stderr"), "{}", second.text);
        assert!(![first.text, second.text].concat().contains("WARN"));
        assert_eq!(built.keys().map(String::as_str).collect::<Vec<_>>(), ["big.bin", "out.txt"]);
        assert!(cached == built && built["out.txt"] == b"HELLO\n" && built["big.bin"].len() > 6_000_000);
    }
}

#[test]
fn moon_builds_by_itself_with_a_damaged_token() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(folder.path()).unwrap();
    let (host, token) = (home.variable("MESH_REMOTE_CACHE").unwrap(), home.variable("MESH_CACHE_TOKEN").unwrap());
    let workspace = folder.path().join("workspace");
    let moon = Moon { folder: &workspace, host, compression: "none" };
    moon.prepare();
    moon.build(&token);

    let (told, built) = moon.build(&damaged(&token));

    assert!(told.text.contains("Failed to connect"), "{}", told.text);
    assert!(!told.text.contains("cached from remote") && built["out.txt"] == b"HELLO\n", "{}", told.text);
}

/// A folder as an output is described by a message of its own, a tree.
const TREE: &str = r#"
def _impl(ctx):
    d = ctx.actions.declare_directory(ctx.label.name + ".d")
    ctx.actions.run_shell(outputs = [d], command = "cd %s; mkdir -p a/b; for i in 1 2 3; do echo f$i > a/b/$i; done; echo x > top" % d.path)
    return [DefaultInfo(files = depset([d]))]
tree = rule(implementation = _impl)
"#;

pub(crate) struct Bazel<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) host: String,
    pub(crate) instance: &'a str,
}

impl Bazel<'_> {
    pub(crate) fn prepare(&self) {
        let script = SCRIPT.replace("in.txt", "$(SRCS)").replace("out.txt", "$(location out.txt)");
        let script = script.replace("big.bin", "$(location big.bin)");
        let rules = format!(
            "load(\"//:tree.bzl\", \"tree\")\n\
             genrule(name = \"gen\", srcs = [\"in.txt\"], outs = [\"out.txt\", \"big.bin\"], cmd = \"{script}\")\n\
             tree(name = \"tree\")\n\
             genrule(name = \"use\", srcs = [\":tree\", \":out.txt\"], outs = [\"use.txt\"], cmd = \"cat $(location :tree)/a/b/* $(location :out.txt) > $@\")\n\
             [genrule(name = \"n%d\" % i, outs = [\"n%d.txt\" % i], cmd = \"echo %d > $@\" % i) for i in range(20)]\n"
        );
        write(self.folder, &[("WORKSPACE", ""), ("BUILD", &rules), ("tree.bzl", TREE), ("in.txt", "hello\n")]);
    }

    /// Builds where nothing has been built before. What it told, and what it built.
    fn build(&self, root: &str, token: &str) -> (Told, Built) {
        self.build_by(Command::new("bazel-4"), root, token)
    }

    /// The same, started as `command` says.
    pub(crate) fn build_by(&self, mut command: Command, root: &str, token: &str) -> (Told, Built) {
        let root = self.folder.with_file_name(root);
        command.args(["--batch", "--nohome_rc", &format!("--output_user_root={}", root.display()), "build"]);
        command.args(["remote_cache", "remote_instance_name"].iter().zip([&*self.host, self.instance]).map(option));
        if self.host.starts_with("grpc:") {
            command.arg(format!("--remote_header=authorization=Bearer {token}"));
        }
        command.args(["--remote_upload_local_results=true", "--spawn_strategy=local", "--jobs=8"]);
        command.args(["--color=no", "--curses=no", "--noshow_progress", "//:all"]);
        let told = Told::from(command.current_dir(self.folder).env("HOME", self.folder).output().unwrap());
        let bin = self.folder.join("bazel-bin");
        let mut built = if told.code == Some(0) { files(&bin) } else { BTreeMap::new() };
        // Beside what was built there is what it took to build it.
        built.retain(|path, _| path.ends_with(".txt") || path.ends_with(".bin") || path.starts_with("tree.d/"));
        // It takes the right to write away, which a folder needs to be removed.
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(&root).status();
        (told, built)
    }
}

fn option((name, value): (&&str, &str)) -> String {
    format!("--{name}={value}")
}

#[test]
fn bazel_hits_over_grpc_and_says_so_of_a_damaged_token() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(folder.path()).unwrap();
    let (host, token) = (home.variable("MESH_REMOTE_CACHE").unwrap(), home.variable("MESH_CACHE_TOKEN").unwrap());
    let workspace = folder.path().join("workspace");
    let bazel = Bazel { folder: &workspace, host, instance: "my/inst" };
    bazel.prepare();

    let (first, built) = bazel.build("first", &token);
    let (second, cached) = bazel.build("second", &token);
    let (refused, _) = bazel.build("third", &damaged(&token));

    assert!(first.code == Some(0) && !first.text.contains("remote cache hit"), "{}", first.text);
    assert!(second.code == Some(0) && second.text.contains(" 23 remote cache hit"), "{}", second.text);
    assert!(!second.text.contains(" local") && second.text.contains("to-stdout"), "{}", second.text);
    assert!(![first.text, second.text].concat().contains("WARNING: "));
    assert!(cached == built && built["use.txt"] == b"f1\nf2\nf3\nHELLO\n" && built["tree.d/a/b/3"] == b"f3\n");
    assert_eq!(built.len(), 3 + 4 + 20, "{:?}", built.keys());
    assert!(refused.code == Some(34) && refused.text.contains("UNAUTHENTICATED"), "{}", refused.text);
}

#[test]
fn bazel_finds_over_grpc_what_came_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(folder.path()).unwrap();
    let token = home.variable("MESH_CACHE_TOKEN").unwrap();
    let workspace = folder.path().join("workspace");
    let over = |host: &str| Bazel { folder: &workspace, host: home.variable(host).unwrap(), instance: "" };
    let bazel = over("MESH_BAZEL_CACHE");
    bazel.prepare();

    let (first, built) = bazel.build("first", &token);
    let (second, cached) = over("MESH_REMOTE_CACHE").build("second", &token);

    assert!(first.code == Some(0) && !first.text.contains("remote cache hit"), "{}", first.text);
    assert!(second.code == Some(0) && second.text.contains(" 23 remote cache hit"), "{}", second.text);
    assert!(cached == built);
}
