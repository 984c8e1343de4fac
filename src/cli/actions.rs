//! What the user reads: plain lines on a terminal, and GitHub's workflow commands inside of Actions. They go to stderr too: the runner
//! reads them there as well, and stdout is for data.

use std::fs::OpenOptions;
use std::io::{Write, stderr, stdout};
use std::net::IpAddr;

use super::env;
use crate::exit::{Exit, Failure};

/// One line about what is happening. Where nobody reads stderr any more, the build matters more than the line.
pub(super) fn say(text: &str) {
    tell(&format!("mesh: {text}"));
}

fn tell(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

/// Data, for stdout. Unlike a message it is what the verb is for, so it must arrive.
pub(super) fn put(data: &[u8]) -> Result<(), Failure> {
    let mut stdout = stdout();
    stdout.write_all(data).and_then(|()| stdout.flush()).map_err(|error| {
        Failure::new(Exit::Failure, "M109", format!("cannot write to stdout: {error}"), "check where the output goes")
    })
}

/// Something unusual that does not stop the build.
pub(super) fn warn(text: &str) {
    say(text);
    annotate("warning", text);
}

/// The line that ends a process, or that says why a build goes on alone.
pub(super) fn fail(failure: &Failure) {
    let text = line(failure);
    say(&text);
    annotate("error", &text);
}

/// A failure on one line.
pub(super) fn line(failure: &Failure) -> String {
    format!("{failure}; hint: {}", failure.hint)
}

/// Asks the runner to hide an address in all logs of this job.
pub(super) fn mask(ip: IpAddr) {
    if in_actions() {
        tell(&format!("::add-mask::{ip}"));
    }
}

/// A block that can be folded in the log of the job.
pub(super) fn group(title: &str, body: &str) {
    if in_actions() {
        tell(&format!("::group::{title}\n{body}\n::endgroup::"));
    } else {
        say(title);
        body.lines().for_each(|line| tell(&format!("  {line}")));
    }
}

/// The page of the run that GitHub shows, opened while we may still write there.
#[derive(Debug)]
pub(super) struct StepSummary(Option<std::fs::File>);

impl StepSummary {
    /// Opens `$GITHUB_STEP_SUMMARY`, if there is one.
    pub(super) fn open() -> Self {
        Self(env()("GITHUB_STEP_SUMMARY").and_then(|path| OpenOptions::new().append(true).create(true).open(path).ok()))
    }

    /// Adds a section.
    pub(super) fn write(&mut self, markdown: &str) {
        if let Some(file) = &mut self.0
            && let Err(error) = file.write_all(markdown.as_bytes())
        {
            tracing::warn!(%error, "the step summary could not be written");
        }
    }
}

fn in_actions() -> bool {
    env()("GITHUB_ACTIONS").as_deref() == Some("true")
}

fn annotate(kind: &str, text: &str) {
    if in_actions() {
        tell(&format!("::{kind} title=mesh::{}", escape(text)));
    }
}

/// As the runner's own toolkit escapes the data of a workflow command.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_failure_is_one_line_with_its_code_and_a_hint() {
        let failure = Failure::new(Exit::NoStun, "M201", "no STUN server answered", "check UDP");
        assert_eq!(line(&failure), "M201 no STUN server answered; hint: check UDP");
    }

    #[test]
    fn line_breaks_do_not_end_a_workflow_command() {
        assert_eq!(escape("50%\r\nmore"), "50%25%0D%0Amore");
    }
}
