// SPDX-License-Identifier: GPL-2.0-only
//! `bench-scale`: this driver beside the in-tree one as a device gets more CPUs and more peers.
//!
//! One guest measures all numbers of peers at its number of CPUs, interleaved as in
//! [`bench`](super), and prints tables of that and of what guests before it have written.

mod flows;
mod handshakes;
mod star;
mod table;

use super::pair::Impl;
use super::profile::{Sampler, Symbols};
use super::report::Metric;
use super::{cpus, Setup};
use anyhow::{ensure, Context, Result};
use star::Star;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};
use table::{Point, Sample};

/// The number of CPUs of the machine that the guest runs on.
const HOST_CPUS: &str = "WGRS_HOST_CPUS";
/// Functions that wait for a spin lock, by a part of their names.
const SPINNING: [&str; 3] = [
    "queued_spin_lock_slowpath",
    "queued_read_lock_slowpath",
    "queued_write_lock_slowpath",
];
/// Devices are under load for so long after the last sign of it.
const UNDER_LOAD: Duration = Duration::from_millis(1200);

/// One load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Load {
    /// Small-packet rate, from the peers to the device.
    Pps,
    /// TCP throughput, from the device to the peers.
    Tcp,
    /// Handshake messages handled.
    Handshakes,
}

impl Load {
    /// Whether it is measured for each number of peers.
    fn is_traffic(self) -> bool {
        matches!(self, Load::Pps | Load::Tcp)
    }

    /// Under which the share of time spent spinning is kept.
    fn spins(self) -> Metric {
        let [pps, tcp, handshakes] = table::SPINS;
        match self {
            Load::Pps => pps,
            Load::Tcp => tcp,
            Load::Handshakes => handshakes,
        }
    }
}

/// What to measure, and for how long.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// How many times each contender is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The length of one measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// The loads.
    #[arg(long, value_delimiter = ',', default_value = "pps,tcp,handshakes")]
    only: Vec<Load>,
    /// Numbers of peers (at most 64).
    #[arg(long, value_delimiter = ',', default_value = "1,8,64")]
    peers: Vec<u8>,
    /// Where to write the results as JSON lines.
    #[arg(long)]
    json: Option<PathBuf>,
    /// JSON lines of other guests, for the tables.
    #[arg(long)]
    with: Vec<PathBuf>,
}

/// Measures and prints the tables.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.rounds > 0 && !args.peers.is_empty(), "nothing to do");
    ensure!(
        args.peers.iter().all(|n| (1..=64).contains(n)),
        "1 to 64 peers"
    );
    let time = Duration::try_from_secs_f64(args.seconds)?;
    let setup = Setup::new(&[Impl::C, Impl::Rs])?;
    let mut others = Vec::new();
    for path in &args.with {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        others.extend(table::parse(&text));
    }
    let mut facts = setup.facts(false, &cpus().to_string())?;
    let begin = Instant::now();
    let mut stars = Vec::new();
    for peers in &args.peers {
        for who in [Impl::C, Impl::Rs] {
            let kind = setup.kind(who).context("a contender without a driver")?;
            stars.push(Star::new(who, kind, *peers).with_context(|| who.label())?);
        }
    }
    let ready = begin.elapsed();
    let samples = measure_all(args, time, &mut stars)?;
    let (rounds, took) = (args.rounds, begin.elapsed() - ready);
    facts.push((
        "rounds",
        format!(
            "{rounds} of {time:?} per measurement; took {took:.0?} after {ready:.0?} of set-up"
        ),
    ));
    if let Some(path) = &args.json {
        let lines = table::json_lines(&facts, &samples);
        fs::write(path, lines).with_context(|| path.display().to_string())?;
    }
    others.extend(samples);
    print!("{}", header(&facts, &others));
    print!("{}", table::tables(&others));
    Ok(())
}

/// All rounds. Round 0 warms up; the one after the last is for the profiler, which costs time: no
/// other figures are kept of it.
fn measure_all(args: &Args, time: Duration, stars: &mut [Star]) -> Result<Vec<Sample>> {
    let symbols = Symbols::read()?;
    let mut samples = Vec::new();
    let few = args.peers.iter().copied().min();
    for round in 0..=args.rounds + 1 {
        let (warm_up, profile) = (round == 0, round > args.rounds);
        for load in &args.only {
            let wanted = |star: &&Star| load.is_traffic() || Some(star.peers) == few;
            for star in stars.iter().filter(wanted) {
                let mut keep = |metric, value| {
                    samples.push(Sample {
                        point: Point {
                            vcpus: cpus(),
                            peers: star.peers,
                        },
                        round,
                        who: star.who,
                        metric,
                        value,
                    });
                };
                let time = if warm_up { time / 4 } else { time };
                let sampler = profile.then(Sampler::start).transpose()?;
                let measured = measure(*load, star, time).with_context(|| {
                    let (who, peers) = (star.who.label(), star.peers);
                    format!("{who}, {load:?}, {peers} peers, round {round}")
                })?;
                match sampler {
                    Some(sampler) => keep(load.spins(), spinning(&sampler.stop(&symbols))),
                    None if warm_up => {}
                    None => measured
                        .iter()
                        .for_each(|(metric, value)| keep(*metric, *value)),
                }
                if !load.is_traffic() {
                    sleep(UNDER_LOAD);
                }
            }
        }
        stars.reverse();
    }
    Ok(samples)
}

fn measure(load: Load, star: &Star, time: Duration) -> Result<Vec<(Metric, f64)>> {
    Ok(match load {
        Load::Pps => {
            let [sent, delivered] = flows::small(star, time)?;
            vec![(table::PPS, delivered), (table::PPS_SENT, sent)]
        }
        Load::Tcp => vec![(table::TCP, flows::tcp(star, time)? * 8e-6)],
        Load::Handshakes => vec![(table::HANDLED, handshakes::handled(star, time)?)],
    })
}

/// The share of samples in [`SPINNING`].
fn spinning(profile: &[(String, f64)]) -> f64 {
    let spins = |name: &str| SPINNING.iter().any(|part| name.contains(part));
    profile
        .iter()
        .filter(|(name, _)| spins(name))
        .map(|(_, share)| share)
        .sum()
}

/// What was measured where, and what to think of it.
fn header(facts: &[(&str, String)], samples: &[Sample]) -> String {
    let mut text = String::new();
    for (key, value) in facts {
        text += &format!("{key:<10}{value}\n");
    }
    text.push_str(
        "set-up    a device with N peers, which are N devices of the same driver in another \
         namespace;\n          one flow per peer: UDP from the peers to the device, TCP the other \
         way. Floods come from\n          another address\n",
    );
    let host = std::env::var(HOST_CPUS).ok().and_then(|n| n.parse().ok());
    let most = samples.iter().map(|sample| sample.point.vcpus).max();
    if let (Some(host), Some(most)) = (host, most) {
        if most > host {
            text += &format!(
                "!         up to {most} vCPUs share {host} CPUs of the host: beyond {host} the \
                 rows show contention\n          (a vCPU may lose its CPU while it holds a \
                 lock), not what {most} CPUs can do\n"
            );
        }
    }
    text
}
