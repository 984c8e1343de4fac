//! Keys, tokens and signatures stay where they belong: a run at the loudest log level is searched for them, in every form.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use netns_tests::fake_github::{Route, Rule};
use netns_tests::lab::{Nat, Runner};
use netns_tests::stage::{KEY, Process, Stage};

use crate::common::{SOON, assert_ends};

const REST_TOKEN: &str = "ghs_0123456789abcdefghijklmnopqrstuvwxyz";

#[test]
fn keys_tokens_and_signatures_appear_nowhere() {
    let stage = Stage::new("secrets").unwrap();
    // Failures are logged with what was asked; and a listing by REST has its own way to a signed URL.
    let failing = [Route::Upload, Route::FinalizeArtifact, Route::Download];
    let faults = failing.map(|route| Rule { status: Some(500), times: Some(1), ..Rule::on(route) });
    let no_listing = Rule { status: Some(500), ..Rule::on(Route::ListArtifacts) };
    stage.github.faults().add(faults.into_iter().chain([no_listing])).unwrap();
    let go = stage.folder.path().join("go");
    let (environment, runner_folder) = (stage.folder.path().join("env"), stage.folder.path().join("runner"));
    fs::create_dir(&runner_folder).unwrap();
    let script = format!("env > {}; while ! [ -e {} ]; do sleep 0.1; done", environment.display(), go.display());
    let summary = stage.folder.path().join("summary.md").display().to_string();
    let temp = runner_folder.display().to_string();
    let variables = [
        ("GITHUB_TOKEN", REST_TOKEN),
        ("ENCRYPTION_KEY", KEY),
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_STEP_SUMMARY", summary.as_str()),
        ("RUNNER_TEMP", temp.as_str()),
    ];
    let (home, runner) = (stage.runner("primary", Nat::Azure).unwrap(), stage.runner("aux0", Nat::Azure).unwrap());
    let args = ["primary", "--aux", "1", "--min-aux", "1", "--log", "trace", "--", "sh", "-c", &script];
    let mut primary = stage.mesh_with(&home, &args, &variables).unwrap();
    let mut aux = stage.mesh_with(&runner, &["aux", "--index", "0", "--log", "trace"], &variables).unwrap();
    primary.wait_for("mesh is up", SOON).unwrap();
    netns_tests::lab::wait_until(SOON, "COMMAND", || environment.exists().then_some(())).unwrap();

    let secrets = secrets(&stage);
    let mut seen = command_lines();
    seen.extend(control_answers(&stage, &[&home, &runner]));
    seen.extend(environments_of_children(&[&primary, &aux]));
    let announced = stage.github.artifacts("42");
    seen.extend(
        announced.iter().map(|artifact| (artifact.name.clone(), stage.github.content(artifact).unwrap().to_vec())),
    );
    fs::write(&go, "").unwrap();
    assert_ends(&mut primary, 0);
    assert_ends(&mut aux, 0);
    let left = stage.github.artifacts("42");
    seen.extend(left.iter().map(|artifact| (artifact.name.clone(), stage.github.content(artifact).unwrap().to_vec())));
    seen.extend(files(stage.folder.path()));

    for name in ["primary.log", "aux0.log", "primary.json", "aux0.json", "env", "summary.md"] {
        assert!(
            seen.iter().any(|(place, bytes)| place.ends_with(name) && !bytes.is_empty()),
            "{name} was not searched"
        );
    }
    assert!(announced.len() >= 2 && !left.is_empty(), "artifacts were searched");
    assert!(primary.output().contains("TRACE"), "the log is at its loudest");
    for (place, bytes) in &seen {
        for (what, secret) in &secrets {
            let own = what.ends_with("token") && !is_of_mesh(place);
            assert!(own || !holds(bytes, secret), "{what} in {place}:\n{}", around(bytes, secret));
        }
    }
}

#[test]
fn a_fresh_key_is_printed_to_stdout_alone_and_never_twice() {
    let keys: Vec<String> = (0..2)
        .map(|_| {
            let output =
                std::process::Command::new(netns_tests::stage::binary().unwrap()).arg("keygen").output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty());
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    assert!(keys.iter().all(|key| key.starts_with("mesh1_") && key.trim_end().len() == 49), "{keys:?}");
    assert_ne!(keys[0], keys[1]);
}

/// What must not be seen, in each form that a program might print it in.
fn secrets(stage: &Stage) -> Vec<(String, Vec<u8>)> {
    let encoded = KEY.strip_prefix("mesh1_").unwrap();
    let raw = URL_SAFE_NO_PAD.decode(encoded).unwrap();
    let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{raw:?}");
    let forms = [
        ("the key", KEY.to_string()),
        ("the key without its prefix", encoded.to_string()),
        ("the key in base64", STANDARD_NO_PAD.encode(&raw)),
        ("the key in padded base64", STANDARD.encode(&raw)),
        ("the key in padded base64url", URL_SAFE.encode(&raw)),
        ("the key in hexadecimal", hex.clone()),
        ("the key in capital hexadecimal", hex.to_uppercase()),
        ("the key as numbers", list[1..list.len() - 1].to_string()),
        ("the REST token", REST_TOKEN.to_string()),
        ("a signature", "sig=".to_string()),
    ];
    let mut secrets: Vec<_> = forms.map(|(what, text)| (what.to_string(), text.into_bytes())).into();
    secrets.push(("the raw key".into(), raw));
    for job in ["primary", "aux0"] {
        // Header and claims; the time in the claims differs from token to token, the header and the scope's start do not.
        let token = stage.github.runtime_token("42", job);
        secrets.push(("the runtime token".into(), token.as_bytes()[..80].to_vec()));
    }
    secrets
}

/// COMMAND and its children keep the tokens that the step was given: a build may need them.
fn is_of_mesh(place: &str) -> bool {
    !place.ends_with("/env") && !place.starts_with("environ of sh") && !place.starts_with("environ of sleep")
}

fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    bytes
        .windows(secret.len())
        .enumerate()
        .any(|(at, window)| window == secret && !is_masked(&bytes[at + secret.len()..], secret))
}

/// `sig=***` shows that there was a signature, and not which.
fn is_masked(rest: &[u8], secret: &[u8]) -> bool {
    secret == b"sig=" && rest.starts_with(b"***")
}

fn around(bytes: &[u8], secret: &[u8]) -> String {
    let at = bytes.windows(secret.len()).position(|window| window == secret).unwrap_or_default();
    String::from_utf8_lossy(&bytes[at.saturating_sub(200)..(at + secret.len() + 20).min(bytes.len())]).into_owned()
}

/// What `ps` would show of every process of this machine but the tests themselves.
fn command_lines() -> Vec<(String, Vec<u8>)> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers =
        processes.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()));
    let read =
        |entry: fs::DirEntry| Some((format!("{:?}", entry.path()), fs::read(entry.path().join("cmdline")).ok()?));
    numbers.filter_map(read).collect()
}

/// The environments of everything that the two processes have started.
fn environments_of_children(parents: &[&Process]) -> Vec<(String, Vec<u8>)> {
    let mut found = vec![];
    let mut open: Vec<i32> = parents.iter().map(|process| process.pid().as_raw()).collect();
    while let Some(pid) = open.pop() {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace() {
            let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
            let bytes = fs::read(format!("/proc/{child}/environ")).unwrap_or_default();
            found.push((format!("environ of {} {child}", name.trim()), bytes));
            open.push(child.parse().unwrap());
        }
    }
    assert!(found.len() >= 2, "COMMAND and distccd are there: {found:?}");
    found
}

fn control_answers(stage: &Stage, runners: &[&Runner]) -> Vec<(String, Vec<u8>)> {
    let ask = |runner: &Runner, request: &str| {
        let mut stream = UnixStream::connect(stage.control(runner)).unwrap();
        writeln!(stream, "{request}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert!(answer.len() > 10, "{request}: {answer}");
        (format!("the answer of {} to {request}", runner.name()), answer.into_bytes())
    };
    let requests = [r#"{"verb":"status"}"#, r#"{"verb":"env"}"#, "nonsense"];
    runners.iter().flat_map(|runner| requests.map(|request| ask(runner, request))).collect()
}

/// Without links, which lead to our own binary.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            kind if kind.is_file() => {
                found.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap()));
            }
            _ => {}
        }
    }
    found
}
