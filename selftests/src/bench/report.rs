// SPDX-License-Identifier: GPL-2.0-only
//! Samples, their medians and ratios, the table and the JSON lines.

use super::pair::Impl;
use clap::ValueEnum;
use std::fmt::Write;

/// A spread (maximum less minimum, over the median) above this is reported.
pub const WIDE: f64 = 0.2;
/// Below this fraction of C's speed, it is a defect.
pub const FLOOR: f64 = 0.8;

/// One quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its key in the JSON file.
    pub key: &'static str,
    /// Its name in the table, with the unit.
    pub title: &'static str,
    /// More is better (a rate), not less (a time).
    pub rate: bool,
    /// Judged against [`FLOOR`]; the others explain.
    pub judged: bool,
}

impl Metric {
    /// Whether ours is slower than [`FLOOR`] × C with this ratio of ours to C's.
    pub fn too_slow(&self, ratio: f64) -> bool {
        let speed = if self.rate { ratio } else { 1.0 / ratio };
        self.judged && speed < FLOOR
    }
}

/// See [`Metric`].
pub const fn metric(key: &'static str, title: &'static str, rate: bool, judged: bool) -> Metric {
    Metric {
        key,
        title,
        rate,
        judged,
    }
}

/// TCP payload delivered.
pub const TCP: Metric = metric("tcp_mbit", "TCP, Mbit/s", true, true);
/// Guest time per full-sized segment: under icount, 2 ns per instruction.
pub const SEGMENT: Metric = metric("tcp_ns_per_segment", "  ns per segment", false, false);
/// As [`TCP`], eight flows at once.
pub const TCP_8: Metric = metric("tcp_8_flows_mbit", "TCP, 8 flows, Mbit/s", true, true);
/// As [`TCP`], forwarded by both ends.
pub const FORWARD: Metric = metric("forwarded_mbit", "TCP, forwarded, Mbit/s", true, true);
/// As [`TCP`], with BBR and fq.
pub const BBR: Metric = metric("tcp_bbr_mbit", "TCP, BBR and fq, Mbit/s", true, true);
/// Payload of datagrams sent together, delivered.
pub const QUIC: Metric = metric("quic_mbit", "UDP segments, Mbit/s", true, true);
/// The same, accepted from the sending process.
pub const QUIC_SENT: Metric = metric("quic_sent_mbit", "  sent", true, false);
/// Small datagrams delivered.
pub const PPS: Metric = metric("pps_delivered", "UDP 64 B, delivered/s", true, true);
/// Small datagrams accepted from the sending process.
pub const PPS_SENT: Metric = metric("pps_sent", "  sent/s", true, false);
/// The part of those that the sending device counts as dropped.
pub const PPS_DROPPED: Metric =
    metric("pps_tx_dropped", "  dropped by sender's wg/s", false, false);
/// Median round trip.
pub const RTT: Metric = metric("rtt_us_median", "ping, µs, median", false, true);
/// 99th percentile of the round trip.
pub const RTT_99: Metric = metric("rtt_us_p99", "  99th percentile", false, false);
const METRICS: [Metric; 12] = [
    TCP,
    SEGMENT,
    TCP_8,
    FORWARD,
    BBR,
    PPS,
    PPS_SENT,
    PPS_DROPPED,
    QUIC,
    QUIC_SENT,
    RTT,
    RTT_99,
];

/// One measured value.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The round in which it was taken.
    pub round: usize,
    /// Whose it is.
    pub who: Impl,
    /// What was measured.
    pub metric: Metric,
    /// In the metric's unit.
    pub value: f64,
}

/// Median, smallest and largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// The summary of `values`; `None` if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let (low, high) = (
            values.get(values.len().checked_sub(1)? / 2)?,
            values.get(middle)?,
        );
        let median = (low + high) / 2.0;
        Some(Summary {
            median,
            min: *values.first()?,
            max: *values.last()?,
        })
    }

    /// Largest less smallest, over the median.
    pub fn spread(&self) -> f64 {
        (self.max - self.min) / self.median.abs().max(1e-9)
    }
}

/// A number with three or four significant digits.
pub fn figures(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// RS over C, round by round.
pub fn ratios(rs: &[f64], c: &[f64]) -> Vec<f64> {
    rs.iter()
        .zip(c)
        .filter(|(_, c)| **c > 0.0)
        .map(|(rs, c)| rs / c)
        .collect()
}

/// All samples of a run, with the facts about it.
pub struct Report {
    /// What was measured where: (key, text).
    pub facts: Vec<(&'static str, String)>,
    /// In the order in which they were taken.
    pub samples: Vec<Sample>,
}

impl Report {
    fn values(&self, who: Impl, metric: Metric) -> Vec<f64> {
        let wanted = |s: &&Sample| s.who == who && s.metric == metric;
        self.samples
            .iter()
            .filter(wanted)
            .map(|s| s.value)
            .collect()
    }

    fn ratios(&self, metric: Metric) -> Vec<f64> {
        ratios(
            &self.values(Impl::Rs, metric),
            &self.values(Impl::C, metric),
        )
    }

    /// Whether ours is slower than [`FLOOR`] × C by `metric`.
    fn too_slow(&self, metric: Metric) -> bool {
        Summary::of(self.ratios(metric)).is_some_and(|ratio| metric.too_slow(ratio.median))
    }

    /// The plain-text table, header and remarks included.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for (key, text) in &self.facts {
            let _ = writeln!(out, "{key:<10}{text}");
        }
        let cell = |summary: Option<Summary>| match summary {
            Some(s) => (
                figures(s.median),
                format!("{}–{}", figures(s.min), figures(s.max)),
            ),
            None => ("-".to_owned(), String::new()),
        };
        let _ = writeln!(
            out,
            "\n{:<26} {:>9} {:<17} {:>9} {:<17} {:>6} {:<11} {:>9}",
            "median, min–max", "C", "", "RS", "", "RS/C", "", "bare veth"
        );
        let mut remarks = Vec::new();
        for metric in METRICS {
            let of = |who| Summary::of(self.values(who, metric));
            let (c, rs, veth) = (of(Impl::C), of(Impl::Rs), of(Impl::Veth));
            if c.or(rs).or(veth).is_none() {
                continue;
            }
            for (name, summary) in [("C", c), ("RS", rs)] {
                if summary.is_some_and(|s| metric.judged && s.spread() > WIDE) {
                    let spread = summary.map_or(0.0, |s| s.spread() * 100.0);
                    remarks.push(format!(
                        "{}: {name} varies by {spread:.0} % of its median: unreliable",
                        metric.title
                    ));
                }
            }
            if self.too_slow(metric) {
                remarks.push(format!("{}: BELOW {FLOOR} × C", metric.title));
            }
            let ((c, c_range), (rs, rs_range)) = (cell(c), cell(rs));
            let ratio = Summary::of(self.ratios(metric));
            let (ratio, ratio_range) = match ratio {
                Some(r) => (
                    format!("{:.2}", r.median),
                    format!("{:.2}–{:.2}", r.min, r.max),
                ),
                None => ("-".to_owned(), String::new()),
            };
            let (veth, _) = cell(veth);
            let _ = writeln!(
                out,
                "{:<26} {c:>9} {c_range:<17} {rs:>9} {rs_range:<17} {ratio:>6} \
                 {ratio_range:<11} {veth:>9}",
                metric.title
            );
        }
        let _ = writeln!(
            out,
            "RS/C: median of the rounds' ratios; for rates higher is better, for times lower."
        );
        for remark in remarks {
            let _ = writeln!(out, "! {remark}");
        }
        out + &self.field()
    }

    /// If others than the two drivers were measured: the medians of all, and what part of the bare
    /// link's they are.
    fn field(&self) -> String {
        let has = |who: &&Impl| self.samples.iter().any(|s| s.who == **who);
        let all: Vec<Impl> = Impl::value_variants().iter().filter(has).copied().collect();
        let mut out = String::new();
        if [Impl::C, Impl::Rs, Impl::Veth].iter().filter(has).count() == all.len() {
            return out;
        }
        let _ = write!(out, "\n{:<26}", "median (of bare veth)");
        for who in &all {
            let _ = write!(out, " {:>16}", who.label());
        }
        for metric in METRICS {
            let of = |who| Summary::of(self.values(who, metric)).map(|s| s.median);
            if all.iter().all(|who| of(*who).is_none()) {
                continue;
            }
            let _ = write!(out, "\n{:<26}", metric.title);
            for who in &all {
                let cell = match (of(*who), of(Impl::Veth)) {
                    (Some(value), Some(bare)) if bare > 0.0 => {
                        format!("{} ({:.2})", figures(value), value / bare)
                    }
                    (Some(value), _) => figures(value),
                    (None, _) => "-".to_owned(),
                };
                let _ = write!(out, " {cell:>16}");
            }
        }
        out.push('\n');
        out
    }

    /// One JSON object per line: the facts, every sample, every summary.
    pub fn json_lines(&self) -> String {
        let mut out = run_line(&self.facts);
        for s in &self.samples {
            let _ = writeln!(
                out,
                "{{\"type\":\"sample\",\"round\":{},\"impl\":{},\"metric\":{},\"value\":{}}}",
                s.round,
                quoted(s.who.label()),
                quoted(s.metric.key),
                s.value
            );
        }
        for metric in METRICS {
            for who in Impl::value_variants() {
                let who = *who;
                let Some(s) = Summary::of(self.values(who, metric)) else {
                    continue;
                };
                let _ = writeln!(
                    out,
                    "{{\"type\":\"summary\",\"impl\":{},\"metric\":{},\"median\":{},\
                     \"min\":{},\"max\":{}}}",
                    quoted(who.label()),
                    quoted(metric.key),
                    s.median,
                    s.min,
                    s.max
                );
            }
            if let Some(r) = Summary::of(self.ratios(metric)) {
                let _ = writeln!(
                    out,
                    "{{\"type\":\"ratio\",\"metric\":{},\"median\":{},\
                     \"min\":{},\"max\":{},\"below_floor\":{}}}",
                    quoted(metric.key),
                    r.median,
                    r.min,
                    r.max,
                    self.too_slow(metric)
                );
            }
        }
        out
    }
}

/// The line about a run.
pub fn run_line(facts: &[(&str, String)]) -> String {
    let facts: Vec<String> = facts
        .iter()
        .map(|(k, v)| format!("{}:{}", quoted(k), quoted(v)))
        .collect();
    format!("{{\"type\":\"run\",{}}}\n", facts.join(","))
}

/// The value of `key` in a line that a benchmark wrote.
pub fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("{}:", quoted(key)))?;
    match rest.strip_prefix('"') {
        Some(rest) => rest.split_once('"').map(|(value, _)| value),
        None => rest.split([',', '}']).next(),
    }
}

/// A string in JSON.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(c: &[f64], rs: &[f64], metric: Metric) -> Report {
        let of = |who, values: &[f64]| -> Vec<Sample> {
            let sample = |(round, value): (usize, &f64)| Sample {
                round,
                who,
                metric,
                value: *value,
            };
            values.iter().enumerate().map(sample).collect()
        };
        let samples = [of(Impl::C, c), of(Impl::Rs, rs)].concat();
        Report {
            facts: vec![("kernel", "7.3 \"x\"".into())],
            samples,
        }
    }

    #[test]
    fn medians() {
        assert_eq!(Summary::of(vec![]), None);
        let odd = Summary::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        assert_eq!(Summary::of(vec![4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
    }

    #[test]
    fn floor() {
        assert!(report(&[100.0], &[79.0], TCP).too_slow(TCP));
        assert!(!report(&[100.0], &[81.0], TCP).too_slow(TCP));
        assert!(report(&[100.0], &[126.0], RTT).too_slow(RTT));
        assert!(!report(&[100.0], &[50.0], RTT).too_slow(RTT));
        assert!(!report(&[100.0], &[500.0], RTT_99).too_slow(RTT_99));
    }

    #[test]
    fn remarks_and_lines() {
        let report = report(&[100.0, 100.0], &[50.0, 70.0], TCP);
        let table = report.table();
        assert!(table.contains("BELOW 0.8 × C") && table.contains("RS varies by 33 %"));
        assert!(!table.contains("C varies"));
        let lines = report.json_lines();
        assert!(lines.contains(r#""kernel":"7.3 \"x\"""#), "{lines}");
        assert_eq!(lines.lines().count(), 1 + 4 + 2 + 1);
    }
}
