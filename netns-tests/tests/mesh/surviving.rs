//! A build goes on whatever happens to its aux.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use netns_tests::lab::{Nat, wait_until};
use netns_tests::stage::Stage;
use nix::sys::signal::Signal;

use crate::common::{SOON, aux, primary};

const FILES: usize = 40;

/// A job that waits for a machine which does not answer any more would wait 300 s in plain distcc.
const BUILD: Duration = Duration::from_secs(120);

#[test]
fn an_aux_that_is_killed_in_mid_build_does_not_fail_it() {
    lost_in_mid_build("killed", Signal::SIGKILL);
}

#[test]
fn an_aux_that_freezes_in_mid_build_does_not_fail_it() {
    lost_in_mid_build("frozen", Signal::SIGSTOP);
}

fn lost_in_mid_build(name: &str, signal: Signal) {
    let stage = Stage::new(name).unwrap();
    let project = stage.folder.path().join("project");
    generate(&project);
    let folder = project.display().to_string();
    let args = ["--aux", "2", "--min-aux", "2", "--", "make", "-C", &folder, "-j6"];
    let (home, mut primary) = primary(&stage, Nat::Azure, &args);
    let lost = aux(&stage, Nat::Azure, 0, &["--slots", "2"]);
    let (_, mut kept) = aux(&stage, Nat::Azure, 1, &["--slots", "2"]);

    wait_until(SOON, "the first objects", || (objects(&project) >= 4).then_some(())).unwrap();
    lost.1.signal(signal).unwrap();

    assert_eq!(primary.wait(BUILD).unwrap(), 0, "{}", primary.output());
    assert_eq!(objects(&project), FILES);
    assert!(project.join("program").is_file());
    let report = stage.report(&home).unwrap();
    assert_eq!(report["peers"][0]["state"], "gone", "{report:#}");
    let offload = &report["offload"];
    let calls = offload["remote"].as_u64().unwrap() + offload["local"].as_u64().unwrap();
    assert!(calls > FILES as u64, "every compile and the link are accounted for: {offload:#}");
    assert_eq!(offload["local_reasons"]["more than one input"], 1, "the link: {offload:#}");
    assert!(report["peers"][1]["jobs"].as_u64().unwrap() > 0, "{report:#}");
    assert_eq!(kept.wait(SOON).unwrap(), 0, "{}", kept.output());
    lost.1.signal(Signal::SIGCONT).ok();
}

/// Files that take about half a second each, so that a loss meets running jobs.
fn generate(project: &Path) {
    fs::create_dir(project).unwrap();
    for file in 0..FILES {
        let mut text = String::new();
        for function in 0..150 {
            writeln!(text, "int f{file}_{function}(int *p, int n) {{ int s = 0; for (int i = 0; i < n; i++) {{ switch (p[i] % 7) {{").unwrap();
            (0..7).for_each(|case| writeln!(text, "case {case}: s += p[i] * {case} + (s >> {case}); break;").unwrap());
            writeln!(text, "}} }} return s; }}").unwrap();
        }
        fs::write(project.join(format!("f{file}.c")), text).unwrap();
    }
    fs::write(project.join("main.c"), "int main(void) { return 0; }\n").unwrap();
    let objects: Vec<_> = (0..FILES).map(|file| format!("f{file}.o")).collect();
    let makefile = format!(
        "CC = cc\nCFLAGS = -O2 -g\nprogram: main.c {0}\n\tcc -o $@ main.c {0}\n%.o: %.c\n\t$(CC) $(CFLAGS) -c -o $@ $<\n",
        objects.join(" ")
    );
    fs::write(project.join("Makefile"), makefile).unwrap();
}

fn objects(project: &Path) -> usize {
    let entries = fs::read_dir(project).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "o")).count()
}
