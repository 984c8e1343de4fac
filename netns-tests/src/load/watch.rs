//! What each `mesh` holds, sampled while the load runs: memory, descriptors, threads; and its CPU. Not here: whether that is too much
//! ([`super::verdict`]).

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::cast::{Cast, Member};

/// What a process holds at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Since the load began.
    pub(super) at: Duration,
    /// Resident memory, in MiB.
    pub(super) mib: f64,
    pub(super) descriptors: usize,
    pub(super) threads: usize,
}

/// One process over the whole load.
#[derive(Debug)]
pub(super) struct History {
    pub(super) name: String,
    pub(super) samples: Vec<Sample>,
    /// The most memory that ever was resident, in MiB.
    pub(super) peak: f64,
    /// Since the load began.
    pub(super) cpu: Duration,
    before: Duration,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Usage {
    began: Instant,
    pub(super) lasted: Duration,
    pub(super) histories: Vec<History>,
}

impl Usage {
    pub(super) fn new(cast: &Cast) -> Self {
        let history = |member: &Member| {
            let before = member.process.cpu().unwrap_or_default();
            History { name: member.name.clone(), samples: vec![], peak: 0.0, cpu: Duration::ZERO, before }
        };
        let histories = cast.members.iter().map(history).collect();
        Self { began: Instant::now(), lasted: Duration::ZERO, histories }
    }

    /// # Errors
    /// If one is gone.
    pub(super) fn sample(&mut self, cast: &Cast) -> Result<()> {
        let at = self.began.elapsed();
        for (history, member) in self.histories.iter_mut().zip(&cast.members) {
            let process = &member.process;
            let sample = Sample {
                at,
                mib: process.memory_mib("VmRSS")?,
                descriptors: process.descriptors()?,
                threads: process.threads()?,
            };
            history.samples.push(sample);
            history.peak = process.memory_mib("VmHWM")?;
            history.cpu = process.cpu()?.saturating_sub(history.before);
        }
        Ok(())
    }

    /// The last sample; of a process that is gone, what was before.
    pub(super) fn finish(&mut self, cast: &Cast) {
        let _ = self.sample(cast);
        self.lasted = self.began.elapsed();
    }

    /// Writes all samples to a file, as comma-separated values.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn keep(&self, path: &Path) -> Result<()> {
        let row = |name: &str, Sample { at, mib, descriptors, threads }: &Sample| {
            format!("{name},{:.1},{mib:.2},{descriptors},{threads}\n", at.as_secs_f64())
        };
        let rows = self.histories.iter().flat_map(|one| one.samples.iter().map(|sample| row(&one.name, sample)));
        let text: String = std::iter::once("mesh,seconds,MiB,descriptors,threads\n".to_owned()).chain(rows).collect();
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Memory of all, now and at most, and CPU of all, for a line of progress.
    pub(super) fn line(&self) -> String {
        let last = |history: &History| history.samples.last().map_or(0.0, |sample| sample.mib);
        let now = self.histories.iter().map(last).fold(0.0, f64::max);
        let peak = self.histories.iter().map(|history| history.peak).fold(0.0, f64::max);
        let cpu: Duration = self.histories.iter().map(|history| history.cpu).sum();
        let cores = cpu.as_secs_f64() / self.began.elapsed().as_secs_f64();
        format!("largest mesh {now:.1} MiB (most {peak:.1}), all {cores:.2} cores")
    }
}

impl History {
    /// The samples after the first minute, its first tenth and its last; `None` where these are too few to compare.
    pub(super) fn tenths(&self) -> Option<(&[Sample], &[Sample])> {
        let settled = &self.samples[self.samples.partition_point(|sample| sample.at < SETTLING)..];
        let tenth = settled.len() / 10;
        (tenth >= FEWEST).then(|| (&settled[..tenth], &settled[settled.len() - tenth..]))
    }
}

/// Until buffers have their size.
pub(super) const SETTLING: Duration = Duration::from_secs(60);

/// Samples in a tenth.
const FEWEST: usize = 4;
