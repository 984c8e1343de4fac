//! The hourly budget of REST and the headers that tell of it.
//!
//! Not here: what is charged ([`super::rest`]).

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;

const WINDOW_SECONDS: i64 = 3600;

#[derive(Debug)]
pub(super) struct Rate {
    limit: u32,
    used: u32,
    reset: i64,
}

impl Rate {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, used: 0, reset: OffsetDateTime::now_utc().unix_timestamp() + WINDOW_SECONDS }
    }

    /// Whether a request may be charged now.
    pub(super) fn has_left(&mut self) -> bool {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        if now >= self.reset {
            *self = Self::new(self.limit);
        }
        self.used < self.limit
    }

    pub(super) fn charge(&mut self) {
        self.used = self.used.saturating_add(1);
    }

    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let remaining = self.limit.saturating_sub(self.used);
        let numbers = [
            ("x-ratelimit-limit", i64::from(self.limit)),
            ("x-ratelimit-remaining", i64::from(remaining)),
            ("x-ratelimit-used", i64::from(self.used)),
            ("x-ratelimit-reset", self.reset),
        ];
        for (name, number) in numbers {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(number));
        }
        headers.insert(HeaderName::from_static("x-ratelimit-resource"), HeaderValue::from_static("core"));
    }
}
