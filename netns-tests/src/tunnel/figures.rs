//! All that was measured, by what it is of, and what is said of the rounds together. Not here: how it is shown ([`super::table`], [`super::plot`]).

use super::Contender;

/// A table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// What arrives over the veth pair.
    Throughput,
    /// Segments that TCP sent again meanwhile.
    Retransmits,
    /// What the tunnel's own processes took.
    DaemonCpu,
    /// What all processors took, the streams' ends and the kernel included.
    MachineCpu,
    /// There and back.
    RoundTrip,
    /// The most that a tunnel's process had.
    Memory,
    /// What arrives with delay and loss.
    Grid,
    /// Segments that TCP sent again there.
    GridRetransmits,
    /// What arrives between a hub and its spokes.
    Star,
}

/// How one is shown.
struct Style {
    title: &'static str,
    unit: &'static str,
    decimals: usize,
    /// Whether a ratio means something.
    ratio: bool,
    plotted: bool,
}

impl Section {
    /// In the order of tables.
    pub const ALL: [Self; 9] = [
        Self::Throughput,
        Self::Retransmits,
        Self::DaemonCpu,
        Self::MachineCpu,
        Self::RoundTrip,
        Self::Memory,
        Self::Grid,
        Self::GridRetransmits,
        Self::Star,
    ];

    fn style(self) -> Style {
        let style = |title, unit, decimals, ratio, plotted| Style { title, unit, decimals, ratio, plotted };
        match self {
            Self::Throughput => style("Throughput", "Gb/s", 2, true, true),
            Self::Retransmits => style("Retransmits", "segments", 0, false, false),
            Self::DaemonCpu => style("CPU of the tunnel's processes, all ends", "s/Gb", 2, true, true),
            Self::MachineCpu => style("CPU of the whole machine", "s/Gb", 2, true, false),
            Self::RoundTrip => style("Round trip", "ms", 3, true, true),
            Self::Memory => style("Most memory of one process", "MiB", 1, true, false),
            Self::Grid => style("One stream, A to B, over delay (one way) and loss", "Gb/s", 3, true, true),
            Self::GridRetransmits => style("Retransmits over delay and loss", "segments", 0, false, false),
            Self::Star => style("Star of 8, one stream each, at once", "Gb/s", 2, true, true),
        }
    }

    /// What it is of.
    pub fn title(self) -> String {
        let Style { title, unit, .. } = self.style();
        format!("{title}, {unit}")
    }

    /// Whether it has a place in the plot.
    pub fn is_plotted(self) -> bool {
        self.style().plotted
    }

    /// A value without its unit.
    pub fn write(self, value: f64) -> String {
        format!("{value:.*}", self.style().decimals)
    }

    /// A value with its unit.
    pub fn show(self, value: f64) -> String {
        format!("{} {}", self.write(value), self.style().unit)
    }
}

/// What one measurement found.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Where it belongs.
    pub section: Section,
    /// What of that.
    pub column: String,
    /// How much.
    pub value: f64,
}

impl Reading {
    pub(super) fn new(section: Section, column: &str, value: f64) -> Self {
        Self { section, column: column.to_owned(), value }
    }
}

/// What a contender's rounds say together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    /// The median of the ratios to [`Contender::MEASURE`] in the same round, where there are such.
    pub ratio: Option<f64>,
}

/// All readings.
#[derive(Debug, Default)]
pub struct Figures(Vec<(Contender, u16, Reading)>);

impl Figures {
    /// Of one contender in one round.
    pub fn add(&mut self, contender: Contender, round: u16, readings: Vec<Reading>) {
        self.0.extend(readings.into_iter().map(|reading| (contender, round, reading)));
    }

    /// The columns of a section, in the order in which they came.
    pub fn columns(&self, section: Section) -> Vec<&str> {
        let mut columns = vec![];
        for (_, _, reading) in self.0.iter().filter(|(_, _, reading)| reading.section == section) {
            if !columns.contains(&reading.column.as_str()) {
                columns.push(reading.column.as_str());
            }
        }
        columns
    }

    /// Who has something there.
    pub fn contenders(&self, section: Section) -> Vec<Contender> {
        let has = |one: &Contender| self.0.iter().any(|(other, _, reading)| other == one && reading.section == section);
        Contender::ALL.into_iter().filter(has).collect()
    }

    /// The rounds together; `None` if there are none.
    pub fn summary(&self, section: Section, column: &str, contender: Contender) -> Option<Summary> {
        let values = self.rounds(section, column, contender);
        let all: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
        let least = all.iter().copied().fold(f64::INFINITY, f64::min);
        let most = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let ratio = median(self.ratios(&values, &self.rounds(section, column, Contender::MEASURE)));
        Some(Summary { median: median(all)?, least, most, ratio: ratio.filter(|_| section.style().ratio) })
    }

    fn rounds(&self, section: Section, column: &str, contender: Contender) -> Vec<(u16, f64)> {
        let belongs = |one: Contender, reading: &Reading| {
            one == contender && reading.section == section && reading.column == column
        };
        let mine = self.0.iter().filter(|(one, _, reading)| belongs(*one, reading));
        mine.map(|(_, round, reading)| (*round, reading.value)).collect()
    }

    fn ratios(&self, values: &[(u16, f64)], measure: &[(u16, f64)]) -> Vec<f64> {
        let of = |round: u16| measure.iter().find(|(other, value)| *other == round && *value > 0.0);
        values.iter().filter_map(|(round, value)| Some(value / of(*round)?.1)).collect()
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().saturating_sub(1) / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(of: &[(Contender, u16, f64)]) -> Figures {
        let mut figures = Figures::default();
        for (contender, round, value) in of {
            figures.add(*contender, *round, vec![Reading::new(Section::Throughput, "1", *value)]);
        }
        figures
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!((median(vec![4.0, 1.0, 2.0, 9.0]), median(vec![3.0, 1.0, 2.0])), (Some(3.0), Some(2.0)));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn a_ratio_is_within_a_round_so_that_a_slow_hour_hits_both() {
        let (us, them) = (Contender::Mesh, Contender::MEASURE);
        let figures =
            figures(&[(them, 1, 1.0), (us, 1, 4.0), (them, 2, 0.5), (us, 2, 2.0), (them, 3, 1.0), (us, 3, 8.0)]);

        let summary = figures.summary(Section::Throughput, "1", us).expect("there are figures");

        assert_eq!(summary, Summary { median: 4.0, least: 2.0, most: 8.0, ratio: Some(4.0) });
    }

    #[test]
    fn a_round_that_only_one_of_them_finished_has_no_ratio() {
        let figures = figures(&[(Contender::Mesh, 1, 4.0), (Contender::MEASURE, 2, 1.0)]);

        let summary = figures.summary(Section::Throughput, "1", Contender::Mesh).expect("there are figures");

        assert_eq!(summary.ratio, None);
        assert_eq!(figures.summary(Section::Throughput, "1", Contender::Veth), None);
    }
}
