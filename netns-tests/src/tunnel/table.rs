//! The figures as Markdown, a table for each section. Not here: what they mean.

use std::fmt::Write as _;

use super::figures::{Figures, Section, Summary};

/// Tables of all sections that have something.
pub fn markdown(figures: &Figures) -> String {
    let filled = Section::ALL.into_iter().filter(|section| !figures.columns(*section).is_empty());
    filled.map(|section| table(figures, section)).collect()
}

fn table(figures: &Figures, section: Section) -> String {
    let columns = figures.columns(section);
    let mut text =
        format!("\n| {} | {} |\n|{}\n", section.title(), columns.join(" | "), "---|".repeat(columns.len() + 1));
    for contender in figures.contenders(section) {
        let cell = |column: &&str| {
            figures.summary(section, column, contender).map_or_else(|| "-".into(), |summary| cell(section, summary))
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {} |", contender.name(), cells.join(" | "));
    }
    text
}

/// One round has no range.
fn cell(section: Section, Summary { median, least, most, ratio }: Summary) -> String {
    let mut cell = section.write(median);
    if least < most {
        let _ = write!(cell, " ({}-{})", section.write(least), section.write(most));
    }
    if let Some(ratio) = ratio {
        let _ = write!(cell, " {ratio:.2}x");
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::super::Contender;
    use super::super::figures::Reading;
    use super::*;

    #[test]
    fn a_section_is_a_table_of_contenders_with_range_and_ratio() {
        let mut figures = Figures::default();
        for (round, slow, fast) in [(1, 0.5, 2.0), (2, 0.25, 1.5)] {
            let of = |value| vec![Reading::new(Section::Throughput, "1 stream", value)];
            figures.add(Contender::Boringtun, round, of(slow));
            figures.add(Contender::Mesh, round, of(fast));
        }
        figures.add(Contender::Mesh, 1, vec![Reading::new(Section::Throughput, "8 streams", 3.0)]);

        assert_eq!(
            markdown(&figures),
            "\n| Throughput, Gb/s | 1 stream | 8 streams |\n|---|---|---|\n\
             | boringtun-cli | 0.38 (0.25-0.50) 1.00x | - |\n| mesh | 1.75 (1.50-2.00) 5.00x | 3.00 |\n"
        );
    }

    #[test]
    fn a_count_has_no_ratio() {
        let mut figures = Figures::default();
        figures.add(Contender::Boringtun, 1, vec![Reading::new(Section::Retransmits, "1", 12.0)]);

        assert!(markdown(&figures).ends_with("| boringtun-cli | 12 |\n"), "{}", markdown(&figures));
    }
}
