// SPDX-License-Identifier: GPL-2.0-only
//! Bars and curves as SVG. Colours are classes, which [`STYLE`] has for light and dark.

use super::data::Curve;
use crate::bench::report::figures;
use std::fmt::Write;

/// The classes of all pictures.
pub const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}\
.title{font-weight:600;font-size:15px}\
.note{font-size:11px;fill:#59636e}\
.ours{fill:#b7410e;stroke:#b7410e}\
.tree{fill:#6e7781;stroke:#6e7781}\
.other{fill:#afb8c1;stroke:#afb8c1}\
.axis{stroke:#d1d9e0;stroke-width:1}\
polyline{fill:none!important;stroke-width:2}\
@media(prefers-color-scheme:dark){\
text{fill:#e6edf3}.note{fill:#9198a1}.ours{fill:#e8743b;stroke:#e8743b}\
.tree{fill:#9198a1;stroke:#9198a1}.other{fill:#59636e;stroke:#59636e}\
.axis{stroke:#3d444d}}";

/// One bar.
pub struct Bar {
    pub label: &'static str,
    pub class: &'static str,
    pub value: f64,
    /// Behind the value.
    pub note: String,
}

/// The text with what has a meaning in XML replaced.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

const WIDTH: f64 = 720.0;
const LABEL: f64 = 170.0;
const ROW: f64 = 24.0;
const HEAD: f64 = 30.0;

/// The height of [`bars`] of so many.
pub fn bars_height(count: usize) -> f64 {
    HEAD + ROW * count as f64 + 12.0
}

/// Horizontal bars below a title, their values behind them, at a height of the picture.
pub fn bars(title: &str, bars: &[Bar], top: f64) -> String {
    let most = bars
        .iter()
        .map(|bar| bar.value)
        .fold(0.0, f64::max)
        .max(1e-9);
    // Room for the value and its note.
    let scale = (WIDTH - LABEL - 150.0) / most;
    let mut out = format!(
        "<text class=\"title\" x=\"0\" y=\"{:.0}\">{}</text>\n",
        top + 18.0,
        escaped(title)
    );
    for (n, bar) in bars.iter().enumerate() {
        let y = top + HEAD + ROW * n as f64;
        let width = (bar.value * scale).max(1.0);
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{}\" x=\"{LABEL}\" y=\"{:.0}\" width=\"{width:.1}\" height=\"17\"/>\
             <text x=\"{:.1}\" y=\"{:.0}\">{} <tspan class=\"note\">{}</tspan></text>",
            LABEL - 8.0,
            y + 13.0,
            escaped(bar.label),
            bar.class,
            y,
            LABEL + width + 6.0,
            y + 13.0,
            grouped(bar.value),
            escaped(&bar.note)
        );
    }
    out
}

/// A number as in a text: its thousands apart.
pub fn grouped(value: f64) -> String {
    if value < 1000.0 {
        return figures(value);
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A whole picture.
pub fn picture(height: f64, content: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         width=\"{WIDTH}\" role=\"img\">\n<style>{STYLE}</style>\n{content}</svg>\n"
    )
}

/// One line of a plot.
pub struct Line<'a> {
    pub label: &'a str,
    pub class: &'static str,
    pub points: &'a Curve,
}

const PLOT: (f64, f64) = (480.0, 220.0);
const LEFT: f64 = 60.0;
const TOP: f64 = 34.0;

/// Curves, both axes logarithmic, as a whole picture.
pub fn curves(title: &str, across: &str, lines: &[Line<'_>]) -> String {
    let all = || lines.iter().flat_map(|line| line.points.iter());
    let range = |of: fn(&(f64, f64)) -> f64| {
        let least = all().map(of).fold(f64::MAX, f64::min).max(1e-9);
        let most = all().map(of).fold(0.0, f64::max).max(least * 1.01);
        (least.ln(), most.ln())
    };
    let ((x0, x1), (y0, y1)) = (range(|p| p.0), range(|p| p.1));
    let x = |v: f64| LEFT + (v.max(1e-9).ln() - x0) / (x1 - x0) * PLOT.0;
    let y = |v: f64| TOP + PLOT.1 - (v.max(1e-9).ln() - y0) / (y1 - y0) * PLOT.1;
    let bottom = TOP + PLOT.1;
    let mut out = format!(
        "<text class=\"title\" x=\"0\" y=\"18\">{}</text>\n\
         <path class=\"axis\" fill=\"none\" d=\"M{LEFT} {TOP}V{bottom}H{}\"/>\n",
        escaped(title),
        LEFT + PLOT.0
    );
    let mut marks: Vec<f64> = all().map(|p| p.0).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for mark in marks {
        let _ = writeln!(
            out,
            "<text class=\"note\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            x(mark),
            bottom + 16.0,
            grouped(mark)
        );
    }
    let _ = writeln!(
        out,
        "<text class=\"note\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
        LEFT + PLOT.0,
        bottom + 32.0,
        escaped(across)
    );
    for line in lines {
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b)))
            .collect();
        let _ = writeln!(
            out,
            "<polyline class=\"{}\" points=\"{}\"/>",
            line.class,
            points.join(" ")
        );
        for (a, b) in line.points {
            let _ = writeln!(
                out,
                "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>\
                 <text class=\"note\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                line.class,
                x(*a),
                y(*b),
                x(*a),
                y(*b) - 7.0,
                grouped(*b)
            );
        }
        if let Some((a, b)) = line.points.last() {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x(*a) + 24.0,
                y(*b) + 4.0,
                escaped(line.label)
            );
        }
    }
    picture(bottom + 40.0, &out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_in_proportion() {
        let bar = |value| Bar {
            label: "a<b",
            class: "ours",
            value,
            note: String::new(),
        };
        let text = bars("title", &[bar(2000.0), bar(1000.0)], 0.0);
        assert!(
            text.contains("a&lt;b") && text.contains("2\u{202f}000"),
            "{text}"
        );
        let widths: Vec<f64> = text
            .split(" width=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next()?.parse().ok())
            .collect();
        assert_eq!(widths, [400.0, 200.0]);
    }

    #[test]
    fn curves_stay_within_the_picture() {
        let (a, b) = (vec![(1.0, 5.0), (100.0, 900.0)], vec![(1.0, 1.0)]);
        let line = |points| Line {
            label: "x",
            class: "ours",
            points,
        };
        let text = curves("title", "peers", &[line(&a), line(&b)]);
        for part in text.split("cx=\"").skip(1) {
            let x: f64 = part.split('"').next().unwrap().parse().unwrap();
            assert!((LEFT..=LEFT + PLOT.0).contains(&x), "{x}");
        }
        assert_eq!(text.matches("<circle").count(), 3);
    }
}
