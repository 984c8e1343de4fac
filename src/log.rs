//! Logging. The levels, by what a reader wants:
//!
//! - `trace`: one packet
//! - `debug`: a decision, "I would want to know that this happened"
//! - `info`: a change that a user sees
//! - `warn`: unusual, and working
//! - `error`: giving up
//!
//! Secrets are never logged; addresses of runners only from `debug` on, since the logs of public repositories are public.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Starts logging to stderr. `level` is a level or a filter such as `mesh=debug`.
pub fn start(level: &str, format: Format) {
    // boringtun warns of every unanswered handshake without saying whose; we say when a peer is gone.
    let quiet = "boringtun=off".parse().expect("a constant directive");
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info")).add_directive(quiet);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .log_internal_errors(false);
    match format {
        Format::Human => builder.with_ansi(false).with_timer(SystemTime).compact().init(),
        Format::Json => builder.with_timer(SystemTime).json().init(),
    }
}

/// Whether `start` understands a level.
pub fn check_level(level: &str) -> Result<String, String> {
    let understood = EnvFilter::builder().parse(level).is_ok() && !level.trim().is_empty();
    understood.then(|| level.to_string()).ok_or_else(|| "use trace, debug, info, warn or error".into())
}
