//! `mesh wait`, `mesh env` and `mesh leave`: the verbs that ask a running mesh.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Outcome, env as environment};
use crate::config::ControlArgs;
use crate::control::{self, Request, Response};
use crate::exit::{Exit, Failure};
use crate::link::clock;
use crate::offload::environment::Environment;

/// How often a mesh that does not listen yet is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// What `wait` takes.
#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// Be content with so many aux
    #[arg(long, value_name = "M")]
    aux: Option<u16>,
    /// Count direct paths only
    #[arg(long)]
    direct: bool,
    /// Give up after this
    #[arg(long, value_name = "D", default_value = "5m", value_parser = crate::config::duration)]
    timeout: Duration,
    #[command(flatten)]
    control: ControlArgs,
}

/// What `env` takes.
#[derive(Debug, Args)]
pub(super) struct EnvArgs {
    /// Write to the files named by $GITHUB_ENV and $GITHUB_PATH, for later steps
    #[arg(long)]
    github: bool,
    #[command(flatten)]
    control: ControlArgs,
}

/// Where the mesh of this machine listens.
pub(super) fn path(args: &ControlArgs) -> PathBuf {
    args.control.clone().unwrap_or_else(|| control::find(environment()))
}

/// Waits until the mesh is up. A mesh that is about to start is waited for too.
pub(super) async fn wait(args: WaitArgs) -> Outcome {
    let deadline = clock::now() + args.timeout.min(Duration::from_secs(86_400));
    loop {
        let left = deadline.saturating_duration_since(clock::now());
        let request = Request::Wait { aux: args.aux, direct: args.direct, timeout_ms: left.as_millis() as u64 };
        match control::ask(&path(&args.control), &request).await {
            Err(failure) if failure.exit == Exit::NotRunning && !left.is_zero() => tokio::time::sleep(LOOK).await,
            Err(failure) => return Err(failure),
            Ok(response) => return done(response),
        }
    }
}

/// Prints, or hands to later steps, what COMMAND would be given.
pub(super) async fn env(args: EnvArgs) -> Outcome {
    let response = control::ask(&path(&args.control), &Request::Env).await?;
    let Response::Env { shell, github_env, github_path } = response else { return done(response) };
    if !args.github {
        return super::actions::put(&shell).map(|()| Exit::Ok.code());
    }
    append("GITHUB_ENV", &github_env)?;
    append("GITHUB_PATH", &github_path)?;
    Ok(Exit::Ok.code())
}

/// Ends the mesh.
pub(super) async fn leave(args: ControlArgs) -> Outcome {
    done(control::ask(&path(&args), &Request::Leave).await?)
}

/// What COMMAND and later steps get.
pub(super) fn response(environment: &Environment) -> Response {
    Response::Env {
        shell: environment.shell(),
        github_env: environment.github_env(),
        github_path: environment.github_path(),
    }
}

fn append(variable: &str, lines: &[u8]) -> Result<(), Failure> {
    let path = environment()(variable).ok_or_else(|| {
        let what = format!("{variable} is not set");
        Failure::new(
            Exit::Usage,
            "M111",
            what,
            "`mesh env --github` works in a step of a workflow; elsewhere use eval \"$(mesh env)\"",
        )
    })?;
    let file = OpenOptions::new().append(true).create(true).open(&path);
    file.and_then(|mut file| file.write_all(lines)).map_err(|error| not_written(&path, &error))
}

fn not_written(place: &str, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Failure,
        "M109",
        format!("cannot write to {place}: {error}"),
        "check the rights and the free space there",
    )
}

/// An answer that is no data.
pub(super) fn done(response: Response) -> Outcome {
    match response {
        Response::Failed { exit, code, what, hint } => {
            super::actions::say(&format!("{code} {what}; hint: {hint}"));
            Ok(exit)
        }
        Response::Done | Response::Status(_) | Response::Env { .. } | Response::Door { .. } => Ok(Exit::Ok.code()),
    }
}
