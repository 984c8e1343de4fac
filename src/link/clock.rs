//! The only file that reads the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970, by this machine's clock, which may be wrong.
pub fn unix_now() -> u64 {
    since_1970().as_secs()
}

/// Microseconds since 1970, by the same clock.
pub fn unix_micros() -> u64 {
    since_1970().as_micros() as u64
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the time of day")]
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time of day in UTC as RFC 3339, whole seconds.
pub fn rfc3339_now() -> String {
    let now = OffsetDateTime::from_unix_timestamp(unix_now() as i64).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    now.format(&Rfc3339).unwrap_or_default()
}
