//! The `Range` header of one byte range (RFC 9110, section 14.1.2), as far as Azure reads it.
//!
//! Not here: several ranges at once and suffix ranges (`bytes=-5`), which Azure ignores.

use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteRange {
    first: usize,
    last: Option<usize>,
}

/// `bytes=<first>-[<last>]`; anything else is no range, and the whole content is meant.
pub(super) fn parse(header: &str) -> Option<ByteRange> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let first = first.parse().ok()?;
    let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
    last.is_none_or(|last| last >= first).then_some(ByteRange { first, last })
}

impl ByteRange {
    /// The part of `length` bytes that is meant; none when it begins behind the end.
    pub(super) fn within(self, length: usize) -> Option<Range<usize>> {
        let end = self.last.map_or(length, |last| last.saturating_add(1).min(length));
        (self.first < length).then_some(self.first..end)
    }
}
