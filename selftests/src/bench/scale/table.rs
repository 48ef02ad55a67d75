// SPDX-License-Identifier: GPL-2.0-only
//! Samples at several numbers of vCPUs and peers: as JSON lines, and as one table per metric.
//!
//! The number of vCPUs is that of the guest, so the table is made of what several guests wrote.

use crate::bench::pair::Impl;
use crate::bench::report::{
    field, figures, metric, quoted, ratios, run_line, Metric, Summary, FLOOR, WIDE,
};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Small datagrams delivered.
pub const PPS: Metric = metric("pps_delivered", "UDP 64 B, delivered/s", true, true);
/// Small datagrams accepted from the sending processes.
pub const PPS_SENT: Metric = metric("pps_sent", "  sent/s", true, false);
/// TCP payload delivered.
pub const TCP: Metric = metric("tcp_mbit", "TCP, Mbit/s", true, true);
/// Initiations that get an answer.
pub const HANDLED: Metric = metric("hs_handled", "Initiations handled/s", true, true);
/// The share of CPU time spent waiting for spin locks, by load.
pub const SPINS: [Metric; 3] = [
    metric("pps_spin", "", false, false),
    metric("tcp_spin", "", false, false),
    metric("hs_spin", "", false, false),
];
/// All tables, and what is printed at the end of their rows.
const TABLES: [(Metric, Option<Metric>); 4] = [
    (PPS, Some(SPINS[0])),
    (PPS_SENT, None),
    (TCP, Some(SPINS[1])),
    (HANDLED, Some(SPINS[2])),
];

/// Where something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// CPUs of the guest.
    pub vcpus: usize,
    /// Peers of the measured device.
    pub peers: u8,
}

/// One measured value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Where it was taken.
    pub point: Point,
    /// The round in which it was taken.
    pub round: usize,
    /// Whose it is.
    pub who: Impl,
    /// What was measured.
    pub metric: Metric,
    /// In the metric's unit.
    pub value: f64,
}

fn values(samples: &[Sample], point: Point, who: Impl, metric: Metric) -> Vec<f64> {
    let wanted = |s: &&Sample| (s.point, s.who, s.metric) == (point, who, metric);
    samples.iter().filter(wanted).map(|s| s.value).collect()
}

/// What is known of one metric at one point: the in-tree driver's, ours, and the rounds' ratios.
fn summaries(samples: &[Sample], point: Point, metric: Metric) -> [Option<Summary>; 3] {
    let [c, rs] = [Impl::C, Impl::Rs].map(|who| values(samples, point, who, metric));
    let ratios = ratios(&rs, &c);
    [c, rs, ratios].map(Summary::of)
}

/// The tables and what their marks mean.
pub fn tables(samples: &[Sample]) -> String {
    let mut out = String::new();
    for (metric, spin) in TABLES {
        let of_metric = samples.iter().filter(|s| s.metric == metric);
        let points: BTreeSet<Point> = of_metric.map(|s| s.point).collect();
        if points.is_empty() {
            continue;
        }
        let spin_title = spin.map_or("", |_| "spin C, RS");
        let _ = writeln!(
            out,
            "\n{}\n{:>5} {:>5} {:>9} {:<17} {:>9} {:<17} {:>6} {:<11}  {spin_title}",
            metric.title.trim(),
            "vCPUs",
            "peers",
            "C",
            "",
            "RS",
            "",
            "RS/C",
            ""
        );
        for point in points {
            let _ = writeln!(out, "{}", row(samples, point, metric, spin).trim_end());
        }
    }
    let _ = writeln!(
        out,
        "\nMedians, min–max of the rounds. RS/C: median of the rounds' ratios; for rates higher is \
         better,\nfor times lower. spin: share of CPU time spent waiting for spin locks. \
         !: below {FLOOR} × C.\n~: a spread of more than {:.0} % of the median: unreliable.",
        WIDE * 100.0
    );
    out
}

fn row(samples: &[Sample], point: Point, metric: Metric, spin: Option<Metric>) -> String {
    let [c, rs, ratio] = summaries(samples, point, metric);
    let cell = |summary: Option<Summary>| match summary {
        Some(s) => {
            let mark = if s.spread() > WIDE { "~" } else { "" };
            let (min, max) = (figures(s.min), figures(s.max));
            (figures(s.median), format!("{min}–{max}{mark}"))
        }
        None => ("-".to_owned(), String::new()),
    };
    let ((c, c_range), (rs, rs_range)) = (cell(c), cell(rs));
    let (middle, range) = match ratio {
        Some(r) => {
            let mark = if metric.too_slow(r.median) { "!" } else { "" };
            let range = format!("{:.2}–{:.2}{mark}", r.min, r.max);
            (format!("{:.2}", r.median), range)
        }
        None => ("-".to_owned(), String::new()),
    };
    let spins = spin.map(|spin| {
        let share = |who| match values(samples, point, who, spin).last() {
            Some(share) => format!("{:.1} %", share * 100.0),
            None => "-".to_owned(),
        };
        format!("{:>6} {:>6}", share(Impl::C), share(Impl::Rs))
    });
    format!(
        "{:>5} {:>5} {c:>9} {c_range:<17} {rs:>9} {rs_range:<17} {middle:>6} {range:<11} {}",
        point.vcpus,
        point.peers,
        spins.unwrap_or_default()
    )
}

/// One JSON object per line: the facts, every sample, every summary.
pub fn json_lines(facts: &[(&str, String)], samples: &[Sample]) -> String {
    let mut out = run_line(facts);
    let place = |point: Point| format!("\"vcpus\":{},\"peers\":{}", point.vcpus, point.peers);
    let mut seen = BTreeSet::new();
    for s in samples {
        seen.insert((s.metric.key, s.point));
        let _ = writeln!(
            out,
            "{{\"type\":\"sample\",{},\"round\":{},\"impl\":{},\"metric\":{},\"value\":{}}}",
            place(s.point),
            s.round,
            quoted(s.who.label()),
            quoted(s.metric.key),
            s.value
        );
    }
    for (metric, _) in TABLES {
        let points = seen.iter().filter(|(key, _)| *key == metric.key);
        for (key, point) in points {
            let kinds = [
                r#""summary","impl":"c""#,
                r#""summary","impl":"rs""#,
                r#""ratio""#,
            ];
            for (kind, summary) in kinds.iter().zip(summaries(samples, *point, metric)) {
                let Some(s) = summary else { continue };
                let _ = writeln!(
                    out,
                    "{{\"type\":{kind},{},\"metric\":{},\"median\":{},\"min\":{},\"max\":{}}}",
                    place(*point),
                    quoted(key),
                    s.median,
                    s.min,
                    s.max
                );
            }
        }
    }
    out
}

/// The samples in what [`json_lines`] made.
pub fn parse(text: &str) -> Vec<Sample> {
    let sample = |line: &str| {
        let field = |key| field(line, key);
        if field("type")? != "sample" {
            return None;
        }
        let (who, key) = (field("impl")?, field("metric")?);
        let metrics = TABLES.iter().map(|(metric, _)| *metric).chain(SPINS);
        Some(Sample {
            point: Point {
                vcpus: field("vcpus")?.parse().ok()?,
                peers: field("peers")?.parse().ok()?,
            },
            round: field("round")?.parse().ok()?,
            who: [Impl::C, Impl::Rs].into_iter().find(|w| w.label() == who)?,
            metric: { metrics }.find(|metric| metric.key == key)?,
            value: field("value")?.parse().ok()?,
        })
    };
    text.lines().filter_map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Sample> {
        let mut list = Vec::new();
        for (vcpus, c, rs) in [(1, 100.0, 70.0), (4, 50.5, 60.0)] {
            for (who, value) in [(Impl::C, c), (Impl::Rs, rs)] {
                let point = Point { vcpus, peers: 8 };
                let sample = |metric, value| Sample {
                    point,
                    round: 1,
                    who,
                    metric,
                    value,
                };
                list.extend([sample(TCP, value), sample(SPINS[1], 0.25)]);
            }
        }
        list
    }

    #[test]
    fn lines_can_be_read_again() {
        let facts = [("kernel", "\"type\":\"sample\", x".to_owned())];
        let lines = json_lines(&facts, &samples());
        assert_eq!(lines.lines().count(), 1 + 8 + 2 * 3);
        assert_eq!(parse(&lines), samples());
    }

    #[test]
    fn a_row_per_point() {
        let text = tables(&samples());
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.trim_start().starts_with(['1', '4']))
            .map(|line| line.split_whitespace().collect())
            .collect();
        let spins = ["25.0", "%", "25.0", "%"];
        let first = [
            "1",
            "8",
            "100",
            "100–100",
            "70.0",
            "70.0–70.0",
            "0.70",
            "0.70–0.70!",
        ];
        assert_eq!(rows[0], [&first[..], &spins].concat());
        let second = [
            "4",
            "8",
            "50.5",
            "50.5–50.5",
            "60.0",
            "60.0–60.0",
            "1.19",
            "1.19–1.19",
        ];
        assert_eq!(rows[1], [&second[..], &spins].concat());
        assert_eq!(rows.len(), 2);
    }
}
