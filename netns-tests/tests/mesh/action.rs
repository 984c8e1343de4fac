//! The action, run by node as a runner runs it, with the real binary: a primary that later steps build over, and an aux that stays
//! until it is released.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use netns_tests::lab::{Nat, Runner};
use netns_tests::stage::{KEY, Process, Stage, binary};

use crate::common::SOON;

const COMMAND_FILES: [&str; 5] = ["GITHUB_STATE", "GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY"];

#[test]
fn a_workflow_with_the_action_builds_over_the_mesh_and_releases_its_aux() {
    let stage = Stage::new("action").unwrap();
    let (home, away) = (stage.runner("primary", Nat::Azure).unwrap(), stage.runner("aux0", Nat::Azure).unwrap());
    let build = Job::new(&stage, &home, &[("role", "primary"), ("aux", "1"), ("min-aux", "1")]);
    let lend = Job::new(&stage, &away, &[("role", "aux"), ("index", "0"), ("slots", "3")]);

    let mut aux = lend.step("main.js");
    let mut main = build.step("main.js");
    assert_eq!(main.wait(SOON).unwrap(), 0, "{}", main.output());
    let outputs = build.read("main.js", "GITHUB_OUTPUT");
    assert_eq!(outputs["up"], "true", "{}", main.output());
    let later = build.read("main.js", "GITHUB_ENV");
    assert_eq!(later["MESH_SLOTS_TOTAL"], outputs["slots"]);
    assert!(later["DISTCC_HOSTS"].contains("10.77.0.2/3"), "{later:?}");
    build.compile(&home, &later);

    let mut post = build.step("post.js");
    assert_eq!(post.wait(SOON).unwrap(), 0, "{}", post.output());
    assert_eq!(aux.wait(SOON).unwrap(), 0, "{}", aux.output());
    let summary = build.text("post.js", "GITHUB_STEP_SUMMARY");
    assert!(summary.contains("direct"), "{summary}");
    for text in [main.output(), post.output(), aux.output(), build.everything(), lend.everything()] {
        assert!(
            !text
                .replace("::add-mask::", "masked ")
                .lines()
                .any(|line| line.contains(KEY) && !line.starts_with("masked ")),
            "{text}"
        );
    }
}

#[test]
fn an_action_whose_mesh_does_not_come_up_says_why_and_lets_the_job_go_on() {
    let stage = Stage::new("action-alone").unwrap();
    let home = stage.runner("primary", Nat::Azure).unwrap();
    home.block_udp(true).unwrap();
    let build = Job::new(&stage, &home, &[("role", "primary"), ("aux", "1")]);
    let mut main = build.step("main.js");
    assert_eq!(main.wait(SOON).unwrap(), 0, "{}", main.output());
    assert_eq!(build.read("main.js", "GITHUB_OUTPUT")["up"], "false");
    assert!(main.output().contains("::warning title=mesh::"), "{}", main.output());
    assert!(main.output().contains("M201"), "{}", main.output());
    assert_eq!(build.step("post.js").wait(SOON).unwrap(), 0);
}

/// One job with one step that uses the action.
struct Job<'a> {
    stage: &'a Stage,
    runner: &'a Runner,
    inputs: Vec<(String, String)>,
    folder: PathBuf,
}

impl<'a> Job<'a> {
    fn new(stage: &'a Stage, runner: &'a Runner, inputs: &[(&str, &str)]) -> Self {
        let folder = stage.folder.path().join(format!("job-{}", runner.name()));
        fs::create_dir_all(folder.join("temp")).unwrap();
        let fixed =
            [("key", KEY.to_string()), ("mesh", binary().unwrap().display().to_string()), ("stun", stage.stun())];
        let given = inputs.iter().map(|(name, value)| (*name, (*value).to_string()));
        let inputs =
            fixed.into_iter().chain(given).map(|(name, value)| (format!("INPUT_{}", name.to_uppercase()), value));
        Self { stage, runner, inputs: inputs.collect(), folder }
    }

    fn step(&self, script: &str) -> Process {
        let mut command = self.runner.command("node");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../action").join(script)).env_clear();
        for (name, value) in std::env::vars().filter(|(name, _)| name == "PATH" || name == "HOME") {
            command.env(name, value);
        }
        for file in COMMAND_FILES {
            fs::write(self.file(script, file), "").unwrap();
            command.env(file, self.file(script, file));
        }
        if script == "post.js" {
            for (name, value) in self.read("main.js", "GITHUB_STATE") {
                command.env(format!("STATE_{name}"), value);
            }
        }
        let given = self.stage.variables(self.runner).into_iter().filter(|(name, _)| !name.starts_with("MESH_"));
        command.envs(given).envs(self.inputs.iter().cloned());
        command.env("GITHUB_ACTIONS", "true").env("CI", "true").env("RUNNER_TEMP", self.folder.join("temp"));
        Process::spawn(command, &self.folder.join(format!("{script}.log"))).unwrap()
    }

    /// What a later step does with the environment it was given.
    fn compile(&self, runner: &Runner, later: &BTreeMap<String, String>) {
        fs::write(self.folder.join("a.c"), "int answer(void) { return 42; }\n").unwrap();
        let path = self.text("main.js", "GITHUB_PATH").lines().rev().collect::<Vec<_>>().join(":");
        let mut command = runner.command("sh");
        command.args(["-c", "cc -c a.c"]).current_dir(&self.folder).envs(later);
        command.env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap()));
        assert!(command.status().unwrap().success());
        assert!(self.folder.join("a.o").is_file());
        let status = runner.command(binary().unwrap()).args(["status", "--json"]).envs(later).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!(report["peers"][0]["state"], "up", "{report:#}");
    }

    fn read(&self, script: &str, file: &str) -> BTreeMap<String, String> {
        let text = self.text(script, file);
        let mut found = BTreeMap::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some((name, end)) = line.split_once("<<") {
                let value: Vec<_> = lines.by_ref().take_while(|line| *line != end).collect();
                found.insert(name.into(), value.join("\n"));
            } else if let Some((name, value)) = line.split_once('=') {
                found.insert(name.into(), value.into());
            }
        }
        found
    }

    fn text(&self, script: &str, file: &str) -> String {
        fs::read_to_string(self.file(script, file)).unwrap()
    }

    fn everything(&self) -> String {
        COMMAND_FILES.iter().map(|file| self.text("main.js", file)).collect()
    }

    fn file(&self, script: &str, file: &str) -> PathBuf {
        self.folder.join(format!("{script}-{file}"))
    }
}
