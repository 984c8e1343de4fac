//! Which promises were broken. Not here: the figures as such ([`super::table`]).

use super::Plan;
use super::book::{Book, Faults, Kind};
use super::watch::{History, Sample, Usage};

/// Of each `mesh`, at any time.
const MEMORY_MIB: f64 = 64.0;

/// What an allocator may keep more or less.
const SLACK_MIB: f64 = 1.0;

/// In words, one for each.
pub(super) fn of(plan: &Plan, book: &Book, usage: &Usage) -> Vec<String> {
    let mut complaints = [faults("corrupt", &book.corrupt()), faults("broken", &book.broken())].concat();
    let stalls = Kind::ALL.into_iter().filter(|kind| kind.is_judged()).flat_map(|kind| {
        [(true, "after rebindings"), (false, "far from any rebinding")]
            .map(|(near, when)| stalls(plan, book, kind, near, when))
    });
    complaints.extend(stalls.flatten());
    complaints.extend(usage.histories.iter().flat_map(held));
    complaints
}

fn faults(what: &str, faults: &Faults) -> Vec<String> {
    let complaint = || format!("{what}: {}, the first {}", faults.count, faults.first.join("; "));
    (faults.count > 0).then(complaint).into_iter().collect()
}

fn stalls(plan: &Plan, book: &Book, kind: Kind, aftermath: bool, when: &str) -> Option<String> {
    book.pauses(kind, aftermath, |all| {
        let longest = all.longest.first().filter(|_| all.stalls > 0)?;
        let (name, count, took) = (kind.name(), all.stalls, longest.took.as_secs_f64());
        Some(format!(
            "{name}: stalls over {} s {when}: {count}, the longest {took:.1} s of {}",
            plan.stall, longest.who
        ))
    })
}

/// What one process held: too much, or more and more.
fn held(history: &History) -> Vec<String> {
    let History { name, peak, .. } = history;
    let large = (*peak > MEMORY_MIB).then(|| format!("{name}: {peak:.1} MiB, more than {MEMORY_MIB}"));
    let grown = history.tenths().map_or(vec![], |(first, last)| grown(name, first, last));
    large.into_iter().chain(grown).collect()
}

/// What grows, by how much it may, and how much a sample has of it.
type Column = (&'static str, f64, fn(&Sample) -> f64);

/// Clearly grown is what is more at every moment of the last tenth than at any of the first: memory by more than [`SLACK_MIB`].
fn grown(name: &str, first: &[Sample], last: &[Sample]) -> Vec<String> {
    let columns: [Column; 3] = [
        ("MiB of memory", SLACK_MIB, |sample| sample.mib),
        ("descriptors", 0.0, |sample| sample.descriptors as f64),
        ("threads", 0.0, |sample| sample.threads as f64),
    ];
    let complaint = |(what, slack, of): Column| {
        let before = first.iter().map(of).fold(0.0, f64::max);
        let after = last.iter().map(of).fold(f64::MAX, f64::min);
        let text = || format!("{name}: grew from at most {before:.1} to at least {after:.1} {what}");
        (after > before + slack).then(text)
    };
    columns.into_iter().filter_map(complaint).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn samples(mib: [f64; 3], descriptors: [usize; 3]) -> Vec<Sample> {
        let sample = |(mib, descriptors)| Sample { at: Duration::ZERO, mib, descriptors, threads: 4 };
        mib.into_iter().zip(descriptors).map(sample).collect()
    }

    #[test]
    fn what_goes_up_and_down_has_not_grown() {
        let (first, last) = (samples([20.0, 24.0, 21.0], [9, 12, 9]), samples([24.0, 26.0, 24.5], [12, 9, 15]));

        assert_eq!(grown("aux0", &first, &last), Vec::<String>::new());
    }

    #[test]
    fn what_is_never_again_as_little_has_grown() {
        let (first, last) = (samples([20.0, 24.0, 21.0], [9, 12, 9]), samples([25.5, 26.0, 25.5], [13, 14, 13]));

        assert_eq!(
            grown("aux0", &first, &last),
            [
                "aux0: grew from at most 24.0 to at least 25.5 MiB of memory",
                "aux0: grew from at most 12.0 to at least 13.0 descriptors"
            ]
        );
    }
}
