//! `mesh status`: the running mesh of this machine, as a table or as the report's JSON.

use clap::Args;

use super::Outcome;
use super::actions::put;
use super::control::{done, path};
use crate::config::ControlArgs;
use crate::control::{self, Request, Response};
use crate::exit::Exit;
use crate::report::{Network, Report};

/// What `status` takes.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: ControlArgs,
}

fn for_people(report: &Report) -> String {
    let Report { role, run, network, .. } = report;
    let seconds = report.wall_ms / 1000;
    let Network { mapping, ports, egress, mtu, relays, device, moves, .. } = network;
    let relays = if *relays == 0 { String::new() } else { format!(", relays: {relays}") };
    let moves = if *moves == 0 { String::new() } else { format!(", the mapping has moved: {moves}") };
    let cache = report.cache.as_ref().map_or(String::new(), |cache| format!("\n{}", cache.line()));
    format!(
        "{role} of run {run}, up for {seconds} s\nnetwork: {mapping} mapping, {ports}, egress addresses: {egress}, MTU {mtu}, device: {device}{relays}{moves}\n{}{}{cache}\n",
        report.table(),
        report.losses()
    )
}

/// Runs the verb.
pub(super) async fn run(args: StatusArgs) -> Outcome {
    let response = control::ask(&path(&args.control), &Request::Status).await?;
    let Response::Status(report) = response else { return done(response) };
    let text = if args.json { report.to_json() } else { for_people(&report) };
    put(text.as_bytes()).map(|()| Exit::Ok.code())
}
