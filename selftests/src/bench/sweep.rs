// SPDX-License-Identifier: GPL-2.0-only
//! `bench-sweep`: throughput against the number of flows and against the size of packets, of both
//! drivers and of the bare link, interleaved in one boot.

use super::pair::{Impl, Pair};
use super::report::{self, quoted, run_line, Summary};
use super::{cpus, traffic, Setup};
use anyhow::{ensure, Context, Result};
use harness::runner::Boot;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The contenders.
const ALL: [Impl; 3] = [Impl::C, Impl::Rs, Impl::Veth];

/// What to measure, and for how long.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The kind of guest this is.
    #[arg(long)]
    boot: Boot,
    /// How many times each contender is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The length of one measurement.
    #[arg(long, default_value_t = 0.4)]
    seconds: f64,
    /// Numbers of TCP flows. (With many more on one CPU, some of them starve.)
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16")]
    flows: Vec<usize>,
    /// Bytes of payload of UDP datagrams, one per call.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "64,128,256,512,1024,1392"
    )]
    bytes: Vec<usize>,
    /// Where to write the results as JSON lines.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Against what is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Axis {
    /// Flows of TCP.
    Flows,
    /// Bytes of payload.
    Bytes,
}

impl Axis {
    fn key(self) -> &'static str {
        match self {
            Axis::Flows => "flows",
            Axis::Bytes => "bytes",
        }
    }

    fn metric(self) -> &'static str {
        match self {
            Axis::Flows => report::TCP.key,
            Axis::Bytes => "udp_mbit",
        }
    }
}

/// One measured value, in Mbit/s.
struct Sample {
    axis: Axis,
    at: usize,
    who: Impl,
    mbit: f64,
}

/// Measures and prints the tables.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.rounds > 0, "nothing to do");
    let time = Duration::try_from_secs_f64(args.seconds)?;
    let setup = Setup::new(&ALL)?;
    let mut pairs = Vec::new();
    for who in ALL {
        pairs.push(Pair::new(who, setup.kind(who), None).with_context(|| who.label())?);
    }
    let mut points: Vec<_> = args.flows.iter().map(|n| (Axis::Flows, *n)).collect();
    points.extend(args.bytes.iter().map(|n| (Axis::Bytes, *n)));
    let mut samples = Vec::new();
    for round in 0..=args.rounds {
        for (axis, at) in &points {
            for pair in &pairs {
                // Round 0 warms up.
                let time = if round == 0 { time / 4 } else { time };
                let mbit = measure(pair, *axis, *at, time).with_context(|| {
                    format!("{}, {at} {}, round {round}", pair.who.label(), axis.key())
                })?;
                let (axis, at, who) = (*axis, *at, pair.who);
                if round > 0 {
                    samples.push(Sample {
                        axis,
                        at,
                        who,
                        mbit,
                    });
                }
            }
        }
        pairs.reverse();
    }
    let mut facts = setup.facts(args.boot.is_vtime(), &cpus().to_string())?;
    facts.push(("rounds", format!("{} of {time:?} each", args.rounds)));
    for (key, text) in &facts {
        println!("{key:<10}{text}");
    }
    for axis in [Axis::Flows, Axis::Bytes] {
        print!("{}", table(&samples, axis));
    }
    if let Some(path) = &args.json {
        let lines = run_line(&facts) + &json_lines(&samples);
        fs::write(path, lines).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn measure(pair: &Pair, axis: Axis, at: usize, time: Duration) -> Result<f64> {
    let (seen, unit) = match axis {
        Axis::Flows => (traffic::tcp(&pair.ends(), at, None, time)?.0, 1),
        Axis::Bytes => (traffic::datagrams(&pair.ends(), at, 1, time)?, at),
    };
    ensure!(seen.received > 0, "nothing arrived");
    Ok(seen.rate(seen.received) * unit as f64 * 8e-6)
}

/// The medians of all contenders in Mbit/s, and ours over C's.
fn table(samples: &[Sample], axis: Axis) -> String {
    let mut out = format!(
        "\n{:>8} {:>10} {:>10} {:>10} {:>6}\n",
        axis.key(),
        "C, Mbit/s",
        "RS",
        "bare veth",
        "RS/C"
    );
    let mut points: Vec<usize> = samples
        .iter()
        .filter(|s| s.axis == axis)
        .map(|s| s.at)
        .collect();
    points.sort_unstable();
    points.dedup();
    for at in points {
        let median = |who| {
            let of = samples
                .iter()
                .filter(|s| (s.axis, s.at, s.who) == (axis, at, who));
            Summary::of(of.map(|s| s.mbit).collect()).map_or(0.0, |summary| summary.median)
        };
        let [c, rs, veth] = ALL.map(median);
        let _ = writeln!(
            out,
            "{at:>8} {:>10} {:>10} {:>10} {:>6.2}",
            report::figures(c),
            report::figures(rs),
            report::figures(veth),
            rs / c.max(1e-9)
        );
    }
    out
}

fn json_lines(samples: &[Sample]) -> String {
    let mut out = String::new();
    for s in samples {
        let _ = writeln!(
            out,
            "{{\"type\":\"sample\",{}:{},\"impl\":{},\"metric\":{},\"value\":{}}}",
            quoted(s.axis.key()),
            s.at,
            quoted(s.who.label()),
            quoted(s.axis.metric()),
            s.mbit
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_per_point() {
        let sample = |axis, at, who, mbit| Sample {
            axis,
            at,
            who,
            mbit,
        };
        let samples = [
            sample(Axis::Bytes, 1024, Impl::Rs, 90.0),
            sample(Axis::Bytes, 64, Impl::C, 10.0),
            sample(Axis::Bytes, 64, Impl::Rs, 14.0),
            sample(Axis::Bytes, 64, Impl::Rs, 16.0),
            sample(Axis::Flows, 2, Impl::C, 7.0),
        ];
        let text = table(&samples, Axis::Bytes);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip(2)
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[0], ["64", "10.0", "15.0", "0", "1.50"]);
        assert_eq!((rows.len(), rows[1][0]), (2, "1024"));
        assert_eq!(
            json_lines(&samples[1..2]),
            "{\"type\":\"sample\",\"bytes\":64,\"impl\":\"c\",\"metric\":\"udp_mbit\",\
             \"value\":10}\n"
        );
    }
}
