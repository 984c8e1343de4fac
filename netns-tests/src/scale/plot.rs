//! The figures as a plot of two panels. Not here: how a plot is drawn ([`crate::plot`]).

use super::Figures;
use crate::plot::{Panel, STEPS, document};

const WIDTH: f64 = 300.0;

/// What one panel shows.
struct Curve {
    title: &'static str,
    /// What the project allows itself.
    goal: f64,
    of: fn(&Figures) -> f64,
}

const CURVES: [Curve; 2] = [
    Curve { title: "CPU to connect all (s)", goal: 1.0, of: |figures| figures.connect.as_secs_f64() },
    Curve { title: "CPU when idle (% of a core)", goal: 1.0, of: |figures| figures.idle },
];

/// CPU to connect, and CPU when idle, against the number of aux.
pub fn svg(figures: &[Figures]) -> String {
    document(&CURVES.map(|curve| curve.draw(figures)), CURVES.len())
}

impl Curve {
    fn draw(&self, figures: &[Figures]) -> Panel {
        let Self { title, goal, of } = self;
        let mut panel = Panel::new(title, WIDTH, figures.iter().map(of).fold(*goal, f64::max));
        let aux = f64::from(figures.iter().map(|figures| figures.aux).max().unwrap_or(1).max(1));
        for step in (0..=STEPS).map(|step| f64::from(step) / f64::from(STEPS)) {
            panel.label(step * WIDTH, 0, &format!("{:.0}", step * aux));
        }
        panel.label(WIDTH / 2.0, 1, "aux");
        let limit = panel.y(*goal);
        panel.add(&format!("<line class=\"goal\" x2=\"{WIDTH}\" y1=\"{limit:.1}\" y2=\"{limit:.1}\"/>"));
        panel.add(&format!("<text class=\"limit\" x=\"4\" y=\"{:.1}\">goal</text>\n", limit - 5.0));
        let x = |figures: &Figures| f64::from(figures.aux) / aux * WIDTH;
        let points: Vec<(f64, f64)> = figures.iter().map(|figures| (x(figures), panel.y(of(figures)))).collect();
        let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        panel.add(&format!("<polyline class=\"line\" points=\"{}\"/>\n", line.join(" ")));
        for (x, y) in points {
            panel.add(&format!("<circle class=\"dot\" r=\"3\" cx=\"{x:.1}\" cy=\"{y:.1}\"/>\n"));
        }
        panel
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
