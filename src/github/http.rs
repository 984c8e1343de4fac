//! The one HTTP client for GitHub, and how its answers are read: bounded, and never showing a secret. What an answer means is
//! not decided here.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, redirect};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::error::{Error, Kind};

/// A host that does not accept a connection in this time is down or filtered: TCP repeats a SYN after 1 and 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One request with its answer. The official client gives up after 5 s, and its users complain of that.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Nothing of ours outlives a wait of this length, and adding more to a clock might overflow.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// As much of a foreign text as a message shows.
const MAX_EXCERPT: usize = 200;

/// A client without redirects, so that nothing we send is sent on; the system's proxy variables count.
pub fn client() -> Result<Client, Error> {
    // A second installation is refused, and then the first one serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(concat!("mesh/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .build()
        .map_err(|e| Error::new(Kind::Unusable, format!("cannot set up HTTPS: {}", chain(&e))))
}

/// The body of an answer, at most `max` bytes. A longer one is an error before it is read to its end.
pub async fn body(mut response: Response, max: usize, what: &str) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| network(what, e))? {
        if body.len() + chunk.len() > max {
            return Err(Error::new(Kind::Unusable, format!("{what}: the answer is longer than {max} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An answer that is no success. A body is read for what `explain` finds in it, and an unreadable one does not hide the status.
pub async fn failure(response: Response, what: &str, explain: fn(&HeaderMap, &[u8]) -> String) -> Error {
    let status = response.status();
    let headers = response.headers().clone();
    let text = body(response, 16 * 1024, what).await.unwrap_or_default();
    let why = excerpt(&explain(&headers, &text));
    let separator = if why.is_empty() { "" } else { ": " };
    Error {
        what: format!("{what}: {status}{separator}{why}"),
        kind: Kind::of_status(status.as_u16()),
        after: retry_after(&headers, OffsetDateTime::now_utc()),
    }
}

/// A failure below HTTP: no connection, a time-out, a connection that broke.
pub fn network(what: &str, error: reqwest::Error) -> Error {
    Error::passing(format!("{what}: {}", excerpt(&chain(&error.without_url()))))
}

/// How long the headers ask us to wait: `Retry-After` in seconds or as a date (RFC 9110 section 10.2.3), at most an hour.
pub fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => until(OffsetDateTime::parse(text, &Rfc2822).ok()?, now),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// From `now` to `then`; nothing if that has passed, and at most an hour.
pub fn until(then: OffsetDateTime, now: OffsetDateTime) -> Duration {
    Duration::try_from(then - now).unwrap_or_default().min(MAX_RETRY_AFTER)
}

/// The start of a foreign text as one line, without signatures of signed URLs.
pub fn excerpt(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    mask(line.trim()).chars().take(MAX_EXCERPT).collect()
}

/// `text` with the value of every `sig=` replaced, plain or percent-encoded: it is the whole authority of a signed URL.
pub fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = signature(rest) {
        masked.push_str(&rest[..start]);
        masked.push_str("***");
        rest = &rest[start..];
        rest = rest.find(ends_value).map_or("", |end| &rest[end..]);
    }
    masked.push_str(rest);
    masked
}

fn signature(text: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    ["sig=", "sig%3d"].iter().filter_map(|key| lower.find(key).map(|at| at + key.len())).min()
}

fn ends_value(c: char) -> bool {
    c.is_whitespace() || matches!(c, '&' | '"' | '\'' | '<' | '>' | ')' | ';')
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let cases = [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 2094 08:00:00 GMT", Some(3600)),
            ("18446744073709551615", Some(3600)),
            ("soon", None),
            ("-3", None),
            ("", None),
        ];
        let now = OffsetDateTime::from_unix_timestamp(784_111_747).expect("1994-11-06T08:49:07Z");
        for (text, want) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            assert_eq!(retry_after(&headers, now), want.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), OffsetDateTime::UNIX_EPOCH), None);
    }

    #[test]
    fn signatures_are_masked_wherever_they_stand() {
        let cases = [
            ("https://h/p?se=1&sig=abc%2F&sp=r", "https://h/p?se=1&sig=***&sp=r"),
            ("SIG=abc", "SIG=***"),
            ("u=https%3A%2F%2Fh%3Fsig%3Dabc then", "u=https%3A%2F%2Fh%3Fsig%3D*** then"),
            ("sig=a sig=b", "sig=*** sig=***"),
            ("<Url>x?sig=a</Url>", "<Url>x?sig=***</Url>"),
            ("no signature", "no signature"),
        ];
        for (text, want) in cases {
            assert_eq!(mask(text), want);
        }
    }

    #[test]
    fn a_foreign_text_becomes_one_short_line() {
        assert_eq!(excerpt("a\n::error::b\u{7}"), "a ::error::b");
        assert_eq!(excerpt(&"x".repeat(5000)).len(), MAX_EXCERPT);
    }

    proptest! {
        #[test]
        fn no_signature_outlives_the_mask(before in "\\PC{0,20}", secret in "[A-Z0-9%+/]{20}", after in "\\PC{0,20}") {
            let masked = mask(&format!("{before}sig={secret}&{after}"));
            prop_assert!(!masked.contains(&secret), "{}", masked);
        }
    }
}
