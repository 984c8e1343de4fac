//! The figures as bars, a panel for each section that has a place in the plot. Not here: how a plot is drawn ([`crate::plot`]).

use super::Contender;
use super::figures::{Figures, Section, Summary};
use crate::plot::{Panel, document};

/// Of a bar, and around each column's bars.
const BAR: f64 = 18.0;
const GAP: f64 = 34.0;

/// Of a legend's entry.
const ENTRY: f64 = 110.0;

/// Medians as bars with the range as a line. The veth has none where it would leave the others no height.
pub fn svg(figures: &Figures) -> String {
    let plotted = Section::ALL.into_iter().filter(|section| section.is_plotted());
    let panels: Vec<Panel> = plotted.filter_map(|section| panel(figures, section)).collect();
    document(&panels, 1)
}

fn panel(figures: &Figures, section: Section) -> Option<Panel> {
    let columns = figures.columns(section);
    let tunnels = |one: &Contender| section == Section::RoundTrip || *one != Contender::Veth;
    let contenders: Vec<Contender> = figures.contenders(section).into_iter().filter(tunnels).collect();
    let summary = |column: &str, contender| figures.summary(section, column, contender);
    let all = columns.iter().flat_map(|column| contenders.iter().filter_map(|one| summary(column, *one)));
    let most = all.map(|summary| summary.most).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let group = BAR * contenders.len() as f64 + GAP;
    let width = (group * columns.len() as f64).max(ENTRY * contenders.len() as f64);
    let mut panel = Panel::new(&section.title(), width, most);
    for (at, column) in columns.iter().enumerate() {
        let left = group * at as f64 + GAP / 2.0;
        panel.label(left + (group - GAP) / 2.0, 0, column);
        for (place, contender) in contenders.iter().enumerate() {
            if let Some(summary) = summary(column, *contender) {
                bar(&mut panel, left + BAR * place as f64, color(*contender), summary);
            }
        }
    }
    legend(&mut panel, &contenders);
    Some(panel)
}

fn bar(panel: &mut Panel, x: f64, color: usize, Summary { median, least, most, .. }: Summary) {
    let (top, bottom) = (panel.y(median), panel.y(0.0));
    let (width, height, middle) = (BAR - 2.0, bottom - top, x + BAR / 2.0 - 1.0);
    panel.add(&format!(
        "<rect class=\"c{color}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width}\" height=\"{height:.1}\"/>\
         <line class=\"range\" x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\n",
        panel.y(least),
        panel.y(most)
    ));
}

fn legend(panel: &mut Panel, contenders: &[Contender]) {
    for (at, contender) in contenders.iter().enumerate() {
        let (x, color) = (ENTRY * at as f64, color(*contender));
        panel.add(&format!(
            "<rect class=\"c{color}\" x=\"{x}\" y=\"-12\" width=\"8\" height=\"8\"/><text x=\"{}\" y=\"-4\">{}</text>\n",
            x + 12.0,
            contender.name()
        ));
    }
}

/// Of the style sheet; a contender has its own in every panel.
fn color(contender: Contender) -> usize {
    Contender::ALL.into_iter().position(|one| one == contender).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::figures::Reading;
    use super::*;

    fn figures(veth: f64, boringtun: f64, mesh: f64) -> Figures {
        let mut figures = Figures::default();
        let of = |value| vec![Reading::new(Section::Throughput, "1, A to B", value)];
        figures.add(Contender::Veth, 1, of(veth));
        figures.add(Contender::Boringtun, 1, of(boringtun));
        figures.add(Contender::Mesh, 1, of(mesh));
        figures
    }

    #[test]
    fn the_largest_bar_fills_its_panel_and_the_veth_has_none() {
        let svg = svg(&figures(30.0, 0.5, 2.0));

        assert_eq!(svg.matches("<rect class=\"c").count(), 2 * 2, "two bars and their legend: {svg}");
        assert!(svg.contains("class=\"c4\" x=\"35.0\" y=\"16.4\" width=\"16\" height=\"163.6\""), "{svg}");
        assert!(!svg.contains("veth"), "{svg}");
    }

    #[test]
    fn a_section_without_anything_to_show_has_no_panel() {
        assert_eq!(svg(&figures(30.0, 0.0, 0.0)).matches("<g ").count(), 0);
    }
}
