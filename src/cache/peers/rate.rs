//! How fast a peer's blobs come, compressed and not, and which is better. Pure.

use std::time::Duration;

/// Over a link that is faster than this, in bytes a second, nothing is compressed: level 1 of zstd makes 200 MB/s and more of one core, which a build needs.
const FAST: f64 = 40e6;

/// Once in so many blobs the worse way is tried again: links and loads change.
const TRIAL: u32 = 16;

/// Of what is smaller nothing can be learned about a link.
pub(super) const LEAST_SAMPLE: u64 = 1 << 20;

/// In bytes of blobs a second.
#[derive(Debug, Default)]
pub(super) struct Rates {
    plain: Option<f64>,
    compressed: Option<f64>,
    blobs: u32,
}

impl Rates {
    /// So much of a blob came within this time.
    pub(super) fn note(&mut self, compressed: bool, bytes: u64, took: Duration) {
        if bytes < LEAST_SAMPLE {
            return;
        }
        let rate = bytes as f64 / took.as_secs_f64().max(1e-6);
        let known = if compressed { &mut self.compressed } else { &mut self.plain };
        *known = Some(known.map_or(rate, |before| before + (rate - before) / 2.0));
        self.blobs += 1;
    }

    /// Whether the next blob should come compressed.
    pub(super) fn compress(&self) -> bool {
        let Some(plain) = self.plain.filter(|plain| *plain < FAST) else { return false };
        let is_better = self.compressed.is_none_or(|compressed| compressed > plain);
        let is_trial = self.compressed.is_some() && self.blobs % TRIAL == TRIAL - 1;
        is_better != is_trial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_fast_or_unknown_is_not_compressed() {
        let mut rates = Rates::default();
        assert!(!rates.compress());
        rates.note(false, 100 << 20, SECOND);
        assert!(!rates.compress());
    }

    #[test]
    fn over_a_slow_link_the_better_way_is_taken_and_the_other_tried_now_and_then() {
        let mut rates = Rates::default();
        rates.note(false, 10 << 20, SECOND);
        assert!(rates.compress(), "it is tried");
        rates.note(true, 25 << 20, SECOND);
        assert!(rates.compress(), "it is better");
        let mut plain = 0;
        for _ in 0..2 * TRIAL {
            let compress = rates.compress();
            plain += u32::from(!compress);
            rates.note(compress, if compress { 25 << 20 } else { 10 << 20 }, SECOND);
        }
        assert_eq!(plain, 2);

        let mut busy = Rates::default();
        busy.note(false, 10 << 20, SECOND);
        busy.note(true, 5 << 20, SECOND);
        assert!(!busy.compress(), "where the processor is the limit it is worse");
    }

    #[test]
    fn short_blobs_teach_nothing() {
        let mut rates = Rates::default();
        rates.note(false, LEAST_SAMPLE - 1, SECOND);
        assert!(!rates.compress());
    }
}
