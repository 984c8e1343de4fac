//! Medians and other ranks. Not here: what is measured.

use std::time::Duration;

/// The middle one, or the upper of two; not a number where there is none.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    rank(values, 0.5)
}

/// The value that this part of all does not exceed.
pub(super) fn rank(values: impl IntoIterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * part) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// The least and the most.
pub(super) fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(*value), most.max(*value)))
}

/// `median (least-most)`.
pub(super) fn spread(values: &[f64], decimals: usize) -> String {
    let (least, most) = range(values);
    format!("{:.decimals$} ({least:.decimals$}-{most:.decimals$})", median(values.iter().copied()))
}

/// Microseconds.
pub(super) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Milliseconds.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_of_the_values_in_order() {
        let values = (0..100).rev().map(f64::from);

        assert_eq!((median(values.clone()), rank(values.clone(), 0.99), rank(values, 1.0)), (50.0, 99.0, 99.0));
        assert!(median([]).is_nan());
        assert_eq!(spread(&[3.0, 1.0, 2.0], 1), "2.0 (1.0-3.0)");
    }
}
