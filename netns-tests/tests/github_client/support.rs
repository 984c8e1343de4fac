//! A GitHub with one run, and members of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mesh::github::config::Config;
use mesh::rendezvous::github::Github;
use mesh::rendezvous::{Entry, Error, Rendezvous};
use netns_tests::fake_github::{FakeGithub, Route, Rule};

/// The run of every test: REST knows it by the same number.
pub const RUN: &str = "4242";

/// What every single call keeps to, with a margin for a busy machine.
pub const BOUND: Duration = Duration::from_secs(23);

pub async fn github() -> FakeGithub {
    let fake = FakeGithub::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
    fake.expect("loopback has a free port")
}

/// A job that has the runtime token and no `GITHUB_TOKEN`.
pub fn member(fake: &FakeGithub, job: &str) -> Github {
    Github::member(config(fake, Some(job), false)).expect("all variables are set")
}

/// A job that has the runtime token and a `GITHUB_TOKEN`.
pub fn member_with_rest(fake: &FakeGithub, job: &str) -> Github {
    Github::member(config(fake, Some(job), true)).expect("all variables are set")
}

/// A `run:` step with a `GITHUB_TOKEN`: it has no runtime token.
pub fn reader(fake: &FakeGithub) -> Github {
    Github::reader(config(fake, None, true)).expect("REST is set up")
}

pub fn config(fake: &FakeGithub, job: Option<&str>, rest: bool) -> Config {
    let runtime = job.map(|job| fake.runtime_token(RUN, job));
    Config::from_lookup(move |name| match name {
        "ACTIONS_RUNTIME_TOKEN" => runtime.clone(),
        "ACTIONS_RESULTS_URL" => runtime.as_ref().map(|_| format!("{}/", fake.url())),
        "GITHUB_TOKEN" => rest.then(|| "ghs_of_a_test".to_owned()),
        "GITHUB_API_URL" => Some(fake.url()),
        "GITHUB_REPOSITORY" => Some("octo/cat".to_owned()),
        "GITHUB_RUN_ID" => Some(RUN.to_owned()),
        _ => None,
    })
}

/// A fault, in force at once.
pub fn break_with(fake: &FakeGithub, rule: Rule) {
    fake.faults().add([rule]).expect("a rule that can do what it says");
}

pub fn status(route: Route, status: u16) -> Rule {
    Rule { status: Some(status), ..Rule::on(route) }
}

/// How many requests of `route` were made so far.
pub fn count(fake: &FakeGithub, route: Route) -> usize {
    fake.log().iter().filter(|entry| entry.route == route).count()
}

/// The names listed, in alphabetical order.
pub async fn names(rendezvous: &Github) -> Vec<String> {
    let mut names: Vec<_> = entries(rendezvous).await.into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
}

pub async fn entries(rendezvous: &Github) -> Vec<Entry> {
    rendezvous.list().await.expect("listed")
}

/// The one entry of that name.
pub async fn entry(rendezvous: &Github, name: &str) -> Entry {
    let mut found: Vec<_> = entries(rendezvous).await.into_iter().filter(|entry| entry.name == name).collect();
    assert_eq!(found.len(), 1, "entries of the name {name}");
    found.remove(0)
}

pub fn is_again(error: &Error) -> bool {
    matches!(error, Error::Again { .. })
}

/// Runs `call`, and fails when it takes longer than a call may.
pub async fn in_time<T>(call: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let outcome = tokio::time::timeout(BOUND * 2, call).await.expect("it hangs");
    assert!(started.elapsed() < BOUND, "it took {:?}", started.elapsed());
    outcome
}
