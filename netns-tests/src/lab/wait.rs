//! Waits for an event with a deadline. Not here: anything that sleeps instead.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks; short beside the 100 ms that a person or a test budget would notice.
const PAUSE: Duration = Duration::from_millis(20);

/// Calls `poll` until it gives `Some`, and gives that.
///
/// # Errors
/// If that does not happen `within` this time; the error names `what` was awaited.
pub fn wait_until<T>(within: Duration, what: &str, mut poll: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = poll() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {within:?} in vain for {what}");
        }
        thread::sleep(PAUSE);
    }
}
