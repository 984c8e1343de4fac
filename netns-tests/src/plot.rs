//! Plots as SVG, by hand: a few lines and bars need no library. They are readable on light and dark ground. Not here: what is plotted.

/// A panel's drawing area is this high, and has so much around it for words.
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 40.0;
const BELOW: f64 = 44.0;

/// How many steps an axis has.
pub(crate) const STEPS: u8 = 4;

/// The colours, on light ground and on dark.
const STYLE: &str = "text{font:12px sans-serif;fill:#333}.title{font-size:13px;font-weight:bold}.axis{stroke:#8888;stroke-width:1}\
    .goal{stroke:#c33;stroke-dasharray:5 4}.line{fill:none;stroke:#27c;stroke-width:2}.dot{fill:#27c}.limit{fill:#c33}\
    .range{stroke:#333;stroke-width:1}.c0{fill:#888}.c1{fill:#b63}.c2{fill:#3a6}.c3{fill:#a5a}.c4{fill:#27c}\
    @media(prefers-color-scheme:dark){text{fill:#ddd}.line{stroke:#6af}.dot{fill:#6af}.goal{stroke:#f77}.limit{fill:#f77}\
    .range{stroke:#ddd}.c4{fill:#6af}}";

/// A title, a vertical axis from 0, and what the caller draws: x from 0 to its width, y as [`Panel::y`] says.
#[derive(Debug)]
pub(crate) struct Panel {
    width: f64,
    most: f64,
    drawn: String,
}

impl Panel {
    /// Its axis reaches a little above `most`.
    pub(crate) fn new(title: &str, width: f64, most: f64) -> Self {
        let mut panel =
            Self { width, most: most * 1.1, drawn: format!("<text class=\"title\" y=\"-18\">{title}</text>\n") };
        for step in (0..=STEPS).map(|step| f64::from(step) / f64::from(STEPS)) {
            let value = step * panel.most;
            let at = panel.y(value);
            panel.add(&format!("<line class=\"axis\" x2=\"{width}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"));
            panel.add(&format!("<text text-anchor=\"end\" x=\"-6\" y=\"{:.1}\">{value:.2}</text>\n", at + 4.0));
        }
        panel
    }

    /// Where a value is.
    pub(crate) fn y(&self, value: f64) -> f64 {
        HEIGHT - value / self.most * HEIGHT
    }

    /// Draws more.
    pub(crate) fn add(&mut self, svg: &str) {
        self.drawn += svg;
    }

    /// Words below the axis, in one of two lines.
    pub(crate) fn label(&mut self, x: f64, line: u8, text: &str) {
        let y = HEIGHT + 18.0 * f64::from(line + 1);
        self.add(&format!("<text text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y}\">{text}</text>\n"));
    }
}

/// All panels, so many beside each other.
pub(crate) fn document(panels: &[Panel], columns: usize) -> String {
    let widest = panels.iter().map(|panel| panel.width).fold(0.0, f64::max);
    let (across, down) = (LEFT + widest + RIGHT, TOP + HEIGHT + BELOW);
    let (width, height) = (across * columns as f64, down * panels.len().div_ceil(columns) as f64);
    let placed = panels.iter().enumerate().map(|(at, panel)| {
        let (x, y) = (LEFT + across * (at % columns) as f64, TOP + down * (at / columns) as f64);
        format!("<g transform=\"translate({x},{y})\">\n{}</g>\n", panel.drawn)
    });
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <style>{STYLE}</style>\n{}</svg>\n",
        placed.collect::<String>()
    )
}
