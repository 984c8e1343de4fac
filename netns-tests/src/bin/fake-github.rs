//! `fake-github`: serves a small GitHub until SIGTERM or SIGINT, and prints its base URL when it is ready.
//!
//! Not here: the server itself ([`netns_tests::fake_github`]).

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;
use netns_tests::fake_github::{FakeGithub, Options, Rule};
use tokio::signal::unix::{SignalKind, signal};

/// A small GitHub: the artifact service, its blobs, and the REST routes of artifacts, on one port.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address and port to serve on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Base of the URLs that are handed out, in place of each request's Host
    #[arg(long)]
    public_url: Option<String>,
    /// JSON list of faults to begin with
    #[arg(long)]
    faults: Option<PathBuf>,
    /// Refuse runs for which no token was asked at /_fake/token
    #[arg(long)]
    strict: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let fake = start(&arguments).await?;
    writeln!(std::io::stdout(), "{}", fake.url()).context("cannot print the base URL")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn start(arguments: &Arguments) -> anyhow::Result<FakeGithub> {
    let public_url = arguments.public_url.as_ref().map(|url| url.trim_end_matches('/').to_owned());
    let options = Options { public_url, strict: arguments.strict, ..Options::default() };
    let rules = arguments.faults.as_deref().map(read_faults).transpose()?.unwrap_or_default();
    let fake = FakeGithub::start_with(arguments.listen, options).await;
    let fake = fake.with_context(|| format!("cannot serve on {}", arguments.listen))?;
    fake.faults().add(rules).context("cannot use the faults of --faults")?;
    Ok(fake)
}

fn read_faults(path: &Path) -> anyhow::Result<Vec<Rule>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON list of faults", path.display()))
}
