//! The figures as a plot of panels, the number of runners on a logarithmic axis. Not here: how a plot is drawn ([`crate::plot`]).

use super::{Figures, Reading, WHAT};
use crate::plot::{Panel, document};

const WIDTH: f64 = 260.0;
const COLUMNS: usize = 3;

/// Where something is, and how far up it reaches.
struct Point {
    runners: u16,
    value: f64,
    most: f64,
}

/// CPU of each operation and when idle, and the latency of each.
pub(in super::super) fn svg(figures: &[Figures]) -> String {
    let mut panels = vec![];
    for (at, what) in WHAT.iter().enumerate() {
        let of = |draw: fn(u16, Reading) -> Point| {
            figures.iter().filter_map(move |one| Some(draw(one.runners, one.readings[at]?))).collect::<Vec<_>>()
        };
        let cpu = of(|runners, Reading { cpu, .. }| Point { runners, value: cpu, most: cpu });
        let latency = of(|runners, Reading { half, most, .. }| Point { runners, value: half, most });
        panels.push(draw(&format!("{what}: CPU (µs)"), &cpu));
        panels.push(draw(&format!("{what}: p50 to p99 (µs)"), &latency));
    }
    let idle = |one: &Figures| Point { runners: one.runners, value: one.idle, most: one.idle };
    panels.push(draw("idle: CPU of each runner (ms/s)", &figures.iter().map(idle).collect::<Vec<_>>()));
    document(&panels, COLUMNS)
}

fn draw(title: &str, points: &[Point]) -> Panel {
    let most = points.iter().map(|point| point.most).fold(0.01, f64::max);
    let mut panel = Panel::new(title, WIDTH, most);
    let doublings = |runners: u16| f64::from(runners).log2();
    let last = points.iter().map(|point| doublings(point.runners)).fold(2.0, f64::max);
    let x = |runners: u16| (doublings(runners) - 1.0) / (last - 1.0) * WIDTH;
    let places: Vec<(f64, f64)> = points.iter().map(|point| (x(point.runners), panel.y(point.value))).collect();
    let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    panel.add(&format!("<polyline class=\"line\" points=\"{}\"/>\n", line.join(" ")));
    for (point, (x, y)) in points.iter().zip(places) {
        let top = panel.y(point.most);
        panel.add(&format!("<line class=\"range\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y:.1}\" y2=\"{top:.1}\"/>"));
        panel.add(&format!("<circle class=\"dot\" r=\"3\" cx=\"{x:.1}\" cy=\"{y:.1}\"/>\n"));
        panel.label(x, 0, &point.runners.to_string());
    }
    panel.label(WIDTH / 2.0, 1, "runners");
    panel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_doubling_is_as_far_as_the_next() {
        let reading = Reading { cpu: 100.0, half: 50.0, most: 200.0, astray: 0 };
        let figures = [2, 4, 8].map(|runners| Figures { runners, readings: [Some(reading); 4], idle: 1.0 });

        let svg = svg(&figures);

        assert_eq!(svg.matches("<circle").count(), 9 * 3);
        assert_eq!(svg.matches("cx=\"130.0\"").count(), 9, "{svg}");
    }
}
