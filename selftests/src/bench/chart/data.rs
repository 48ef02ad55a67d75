// SPDX-License-Identifier: GPL-2.0-only
//! The figures that are drawn, from the JSON lines of the benchmarks.

use crate::bench::report::field;
use std::collections::BTreeMap;

/// One contender's figure: median, smallest, largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// The points of a curve.
pub type Curve = Vec<(f64, f64)>;

/// Peers of a device, flows, bytes of a packet.
const AXES: [&str; 3] = ["peers", "flows", "bytes"];

/// All that is drawn.
#[derive(Debug, Default)]
pub struct Data {
    /// What was measured where, of each file: (key, text).
    pub facts: Vec<Vec<(String, String)>>,
    /// Metric, contender.
    pub bars: BTreeMap<(String, String), Figure>,
    /// Against what (a key of [`AXES`]), metric, contender.
    pub curves: BTreeMap<(&'static str, String, String), Curve>,
    /// Metric against the number of processors, with so many flows; contender.
    pub scale: BTreeMap<(String, u32, String), Curve>,
}

fn number(line: &str, key: &str) -> Option<f64> {
    field(line, key)?.parse().ok()
}

impl Data {
    /// Adds what is in `text`; lines of other kinds are passed over.
    pub fn read(&mut self, text: &str) {
        let mut samples: BTreeMap<(&str, String, String, u32), Vec<f64>> = BTreeMap::new();
        for line in text.lines() {
            let who = field(line, "impl").unwrap_or_default().to_owned();
            let metric = field(line, "metric").unwrap_or_default().to_owned();
            match (field(line, "type"), number(line, "vcpus")) {
                (Some("run"), _) => self.facts.push(facts(line)),
                (Some("sample"), None) => {
                    let at = |axis| Some((axis, number(line, axis)?));
                    let value = number(line, "value");
                    if let (Some((axis, at)), Some(value)) = (AXES.into_iter().find_map(at), value)
                    {
                        let key = (axis, metric, who, at as u32);
                        samples.entry(key).or_default().push(value);
                    }
                }
                (Some("summary"), vcpus) => {
                    let figure = || {
                        Some(Figure {
                            median: number(line, "median")?,
                            min: number(line, "min")?,
                            max: number(line, "max")?,
                        })
                    };
                    match (figure(), vcpus, number(line, "peers")) {
                        (Some(figure), Some(vcpus), Some(peers)) => {
                            let key = (metric, peers as u32, who);
                            self.scale
                                .entry(key)
                                .or_default()
                                .push((vcpus, figure.median));
                        }
                        (Some(figure), ..) => {
                            self.bars.insert((metric, who), figure);
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        for ((axis, metric, who, at), mut values) in samples {
            values.sort_by(f64::total_cmp);
            if let Some(median) = values.get(values.len() / 2) {
                let curve = self.curves.entry((axis, metric, who)).or_default();
                curve.push((at.into(), *median));
            }
        }
        let all = self.curves.values_mut().chain(self.scale.values_mut());
        all.for_each(|curve| curve.sort_by(|a, b| a.0.total_cmp(&b.0)));
    }

    pub fn curve(&self, axis: &'static str, metric: &str, who: &str) -> Option<&Curve> {
        self.curves.get(&(axis, metric.to_owned(), who.to_owned()))
    }

    pub fn figure(&self, metric: &str, who: &str) -> Option<Figure> {
        self.bars.get(&(metric.to_owned(), who.to_owned())).copied()
    }
}

/// The strings of a line about a run.
fn facts(line: &str) -> Vec<(String, String)> {
    ["kernel", "machine", "cpu", "C", "RS", "rounds"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), field(line, key)?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_benchmarks() {
        let mut data = Data::default();
        data.read(concat!(
            "{\"type\":\"run\",\"kernel\":\"7.3\",\"machine\":\"x\"}\n",
            "{\"type\":\"sample\",\"round\":1,\"impl\":\"rs\",\"metric\":\"tcp_mbit\",\"value\":3}\n",
            "{\"type\":\"summary\",\"impl\":\"rs\",\"metric\":\"tcp_mbit\",\"median\":3,\"min\":2,\"max\":4}\n",
            "{\"type\":\"ratio\",\"metric\":\"tcp_mbit\",\"median\":9,\"min\":9,\"max\":9}\n",
        ));
        data.read(concat!(
            "{\"type\":\"sample\",\"peers\":1000,\"impl\":\"c\",\"metric\":\"dump_ms\",\"value\":5.5}\n",
            "{\"type\":\"sample\",\"peers\":100,\"impl\":\"c\",\"metric\":\"dump_ms\",\"value\":0.5}\n",
        ));
        data.read(
            "{\"type\":\"summary\",\"impl\":\"rs\",\"vcpus\":2,\"peers\":8,\"metric\":\"tcp_mbit\",\
             \"median\":7,\"min\":7,\"max\":7}\n",
        );
        let figure = data.figure("tcp_mbit", "rs").unwrap();
        assert_eq!((figure.median, figure.min, figure.max), (3.0, 2.0, 4.0));
        assert_eq!(data.bars.len(), 1);
        let dump = data.curve("peers", "dump_ms", "c").unwrap();
        assert_eq!(dump, &[(100.0, 0.5), (1000.0, 5.5)]);
        data.read(
            "{\"type\":\"sample\",\"bytes\":64,\"impl\":\"c\",\"metric\":\"udp_mbit\",\
             \"value\":9}\n",
        );
        let sizes = data.curve("bytes", "udp_mbit", "c").unwrap();
        assert_eq!(sizes, &[(64.0, 9.0)]);
        let scale = &data.scale[&("tcp_mbit".to_owned(), 8, "rs".to_owned())];
        assert_eq!(scale, &[(2.0, 7.0)]);
        assert_eq!(data.facts[0][0], ("kernel".to_owned(), "7.3".to_owned()));
    }
}
