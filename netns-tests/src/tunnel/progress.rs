//! Where the run is, on stderr: what begins, and what came of it. Not here: the figures, which go to stdout.

#![expect(clippy::print_stderr, reason = "the room of the benchmark that speaks to the user")]

use std::time::Instant;

use anyhow::Result;

/// Says what happens, with the time since the beginning.
#[derive(Debug)]
pub(super) struct Progress(Instant);

impl Default for Progress {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Progress {
    /// A line of its own.
    pub(super) fn note(&self, text: &str) {
        eprintln!("bench tunnel: {text}");
    }

    /// The beginning of a line, which [`Progress::end`] ends.
    pub(super) fn begin(&self, whose: &str, what: &str) {
        eprint!("{:>5} s  {whose}: {what} ... ", self.0.elapsed().as_secs());
    }

    /// What came of what has begun; of an error, why.
    pub(super) fn end<T>(&self, outcome: Result<T>, shown: impl FnOnce(&T) -> String) -> Option<T> {
        match outcome {
            Ok(value) => {
                eprintln!("{}", shown(&value));
                Some(value)
            }
            Err(error) => {
                eprintln!("failed: {error:#}");
                None
            }
        }
    }
}
