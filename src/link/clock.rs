//! The only file that reads the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970, by this machine's clock, which may be wrong.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the time of day")]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}

/// The time of day in UTC as RFC 3339, whole seconds.
pub fn rfc3339_now() -> String {
    let now = OffsetDateTime::from_unix_timestamp(unix_now() as i64).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    now.format(&Rfc3339).unwrap_or_default()
}
