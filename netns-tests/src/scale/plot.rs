//! The figures as an SVG of two panels, by hand: a plot of two lines needs no library. It is readable on light and dark ground.

use std::fmt::Write as _;

use super::Figures;

/// One panel's drawing area, and what is around it for words.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 40.0;
const BELOW: f64 = 44.0;
const PANEL: f64 = LEFT + WIDTH + 28.0;

/// How many steps an axis has.
const STEPS: u8 = 4;

/// The colours, on light ground and on dark.
const STYLE: &str = "text{font:12px sans-serif;fill:#333}.title{font-size:13px;font-weight:bold}.axis{stroke:#8888;stroke-width:1}\
    .goal{stroke:#c33;stroke-dasharray:5 4}.line{fill:none;stroke:#27c;stroke-width:2}.dot{fill:#27c}.limit{fill:#c33}\
    @media(prefers-color-scheme:dark){text{fill:#ddd}.line{stroke:#6af}.dot{fill:#6af}.goal{stroke:#f77}.limit{fill:#f77}}";

/// What one panel shows.
struct Panel {
    title: &'static str,
    unit: &'static str,
    /// What the project allows itself.
    goal: f64,
    of: fn(&Figures) -> f64,
}

const PANELS: [Panel; 2] = [
    Panel { title: "CPU to connect all", unit: "s", goal: 1.0, of: |figures| figures.connect.as_secs_f64() },
    Panel { title: "CPU when idle", unit: "% of a core", goal: 1.0, of: |figures| figures.idle },
];

/// CPU to connect, and CPU when idle, against the number of aux.
pub fn svg(figures: &[Figures]) -> String {
    let (width, height) = (PANEL * PANELS.len() as f64, TOP + HEIGHT + BELOW);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n<style>{STYLE}</style>\n"
    );
    for (at, panel) in PANELS.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(
            svg,
            "<g transform=\"translate({},{TOP})\">\n{}</g>\n",
            LEFT + PANEL * at as f64,
            panel.draw(figures)
        );
    }
    svg + "</svg>\n"
}

impl Panel {
    fn draw(&self, figures: &[Figures]) -> String {
        let Self { title, unit, goal, of } = self;
        let most = figures.iter().map(of).fold(*goal, f64::max) * 1.1;
        let aux = f64::from(figures.iter().map(|figures| figures.aux).max().unwrap_or(1).max(1));
        let (x, y) = (|value: f64| value / aux * WIDTH, |value: f64| HEIGHT - value / most * HEIGHT);
        let point = |figures: &Figures| (x(figures.aux.into()), y(of(figures)));
        let points: Vec<(f64, f64)> = figures.iter().map(point).collect();
        let mut drawn = format!("<text class=\"title\" y=\"-18\">{title} ({unit})</text>\n");
        for step in (0..=STEPS).map(|step| f64::from(step) / f64::from(STEPS)) {
            let (at, value) = (y(step * most), step * most);
            drawn += &format!("<line class=\"axis\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
            drawn += &format!("<text text-anchor=\"end\" x=\"-6\" y=\"{:.1}\">{value:.2}</text>\n", at + 4.0);
            let (at, value) = (x(step * aux), step * aux);
            drawn += &format!("<text text-anchor=\"middle\" x=\"{at:.1}\" y=\"{}\">{value:.0}</text>\n", HEIGHT + 18.0);
        }
        let limit = y(*goal);
        drawn += &format!("<line class=\"goal\" x2=\"{WIDTH}\" y1=\"{limit:.1}\" y2=\"{limit:.1}\"/>");
        drawn += &format!("<text class=\"limit\" x=\"4\" y=\"{:.1}\">goal</text>\n", limit - 5.0);
        drawn += &format!("<text text-anchor=\"middle\" x=\"{}\" y=\"{}\">aux</text>\n", WIDTH / 2.0, HEIGHT + 36.0);
        let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        drawn += &format!("<polyline class=\"line\" points=\"{}\"/>\n", line.join(" "));
        let dots = points.iter().map(|(x, y)| format!("<circle class=\"dot\" r=\"3\" cx=\"{x:.1}\" cy=\"{y:.1}\"/>\n"));
        drawn + &dots.collect::<String>()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_figure_is_a_dot_within_its_panel() {
        let figures = [2, 255].map(|aux| Figures {
            aux,
            wall: Duration::ZERO,
            connect: Duration::from_secs(3),
            fresh: 0.7,
            idle: 0.5,
            mib: 9.0,
        });
        let svg = svg(&figures);
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(svg.contains("cx=\"300.0\" cy=\"16.4\""), "{svg}");
    }
}
