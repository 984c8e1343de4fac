//! Whether everything was as it must be, told from the report and the exit codes. Not here: how they came about.

use std::fmt;

use mesh::report::Report;

/// Findings, each with what the user is told.
#[derive(Debug, Default)]
pub(super) struct Verdict(Vec<(bool, String)>);

impl Verdict {
    /// Judges the primary's report, and the exit codes: the primary's first, then those of the aux.
    pub(super) fn new(report: &Report, codes: &[i32]) -> Self {
        let mut verdict = Self::default();
        let list = |of: &dyn Fn(usize) -> String| (0..report.peers.len()).map(of).collect::<Vec<_>>().join(", ");
        let up = report.peers.iter().all(|peer| peer.state == "up" && peer.path.kind == "direct");
        verdict.add(up, "every aux was up, over a direct path", &list(&|i| report.peers[i].path.why.clone()));
        let jobs = report.peers.iter().all(|peer| peer.jobs > 0);
        verdict.add(jobs, "every aux compiled some of the files", &list(&|i| format!("{} jobs", report.peers[i].jobs)));
        let built = report.command.as_ref().map(|command| command.exit);
        verdict.add(
            built == Some(0) && codes.first() == Some(&0),
            "the build succeeded",
            &format!("exit code {built:?}"),
        );
        let released = codes.iter().skip(1).all(|code| *code == 0);
        verdict.add(released, "every aux was released and ended with exit code 0", &format!("exit codes {codes:?}"));
        verdict
    }

    /// One more finding; `but` is told where it is bad.
    pub(super) fn add(&mut self, good: bool, what: &str, but: &str) {
        self.0.push((good, if good { what.into() } else { format!("{what}: {but}") }));
    }

    /// Whether all findings are good.
    pub(super) fn is_good(&self) -> bool {
        self.0.iter().all(|(good, _)| *good)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (good, what) in &self.0 {
            writeln!(f, "[{}] {what}", if *good { " ok " } else { "FAIL" })?;
        }
        Ok(())
    }
}

/// The median over the aux that came up; 0 where none did.
pub(super) fn median_connect_ms(report: &Report) -> u64 {
    let mut times: Vec<u64> = report.peers.iter().filter_map(|peer| peer.connect_ms).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use mesh::report::{Command, Path, Peer};

    use super::*;

    #[test]
    fn a_run_in_which_all_went_well_is_good() {
        assert!(Verdict::new(&report([3, 1], 0), &[0, 0, 0]).is_good());
    }

    #[test]
    fn one_bad_thing_is_enough_and_is_named() {
        let cases = [
            (report([3, 0], 0), vec![0, 0, 0], "compiled"),
            (report([3, 1], 2), vec![2, 0, 0], "the build"),
            (report([3, 1], 0), vec![0, 0, 87], "released"),
        ];
        for (report, codes, word) in cases {
            let verdict = Verdict::new(&report, &codes);
            let bad = verdict.to_string().lines().filter(|line| line.contains("FAIL")).collect::<Vec<_>>().join("\n");
            assert!(!verdict.is_good() && bad.contains(word) && bad.lines().count() == 1, "{verdict}");
        }
    }

    #[test]
    fn the_median_is_of_those_who_came_up() {
        let mut report = report([1, 1], 0);
        report.peers.push(Peer::default());

        assert_eq!(median_connect_ms(&report), 110);
        assert_eq!(median_connect_ms(&Report::default()), 0);
    }

    fn report(jobs: [u64; 2], exit: i32) -> Report {
        let path = Path { kind: "direct".into(), ..Path::default() };
        let peer = |(i, jobs)| {
            let connect_ms = Some(100 + 10 * i);
            Peer { state: "up".into(), connect_ms, path: path.clone(), jobs, ..Peer::default() }
        };
        let peers = (0u64..).zip(jobs).map(peer).collect();
        Report { peers, command: Some(Command { exit, wall_ms: 1 }), ..Report::default() }
    }
}
