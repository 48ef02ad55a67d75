// SPDX-License-Identifier: GPL-2.0-only
//! `bench`: this driver against the in-tree one, interleaved in one boot.
//!
//! TCP throughput (of one flow, of eight, and forwarded), rates of datagrams and ping round trip,
//! over C, over ours and over the bare veth pair underneath. Everything is set up and warmed up
//! first; within a round each contender is measured on each load in turn, and the order alternates
//! between rounds. No file is touched during a measurement.

pub mod chart;
mod others;
mod pair;
pub mod peers;
mod profile;
mod report;
pub mod scale;
pub mod sweep;
pub mod tool;
mod traffic;

use anyhow::{ensure, Context, Result};
use harness::artefacts;
use harness::cmd;
use harness::modules::{Env, Modules, INTREE, OURS};
use harness::netns;
use harness::nics::Nics;
use harness::runner::Boot;
use nix::mount::{mount, MsFlags};
use nix::sched::{unshare, CloneFlags};
use nix::sys::mman::{mlockall, MlockAllFlags};
use pair::{Impl, Pair};
use profile::{Sampler, Symbols};
use report::{Metric, Report, Sample};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

/// Another link kind in place of ours (`wireguard`: C against itself, to see the bench's error).
const KIND: &str = "WGRS_BENCH_KIND";
/// The commit that the module was built from, for the header.
const COMMIT: &str = "WGRS_COMMIT";

/// A program in user space may work so long on what it has accepted, at the cost of the next.
const SETTLING: Duration = Duration::from_secs(3);

/// One load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Load {
    /// TCP throughput.
    Tcp,
    /// The same of eight flows.
    Tcp8,
    /// The same of one flow between hosts behind the two ends.
    Forward,
    /// The same of one flow with the BBR congestion control, paced by the fq queueing discipline.
    Bbr,
    /// Small-packet rate.
    Pps,
    /// Datagrams as QUIC sends them.
    Quic,
    /// Ping round trip.
    Rtt,
}

/// What to measure, and for how long.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The kind of guest this is.
    #[arg(long)]
    boot: Boot,
    /// How many times each contender is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The length of one throughput measurement [default: 2, in virtual time 0.4].
    #[arg(long)]
    seconds: Option<f64>,
    /// Pings per round-trip measurement.
    #[arg(long, default_value_t = 2000)]
    pings: usize,
    /// The loads.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "tcp,tcp8,forward,pps,quic,rtt"
    )]
    only: Vec<Load>,
    /// The contenders.
    #[arg(long, value_delimiter = ',', default_value = "c,rs,veth")]
    who: Vec<Impl>,
    /// Measure over virtio network cards (`scripts/guest --nics`) in the place of veth.
    #[arg(long)]
    nics: bool,
    /// Profile, and print this many functions per load and contender.
    #[arg(long, value_name = "TOP")]
    profile: Option<usize>,
    /// Where to write the results as JSON lines.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Measures and prints the table.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.rounds > 0 && args.pings > 0, "nothing to do");
    let default = if args.boot == Boot::Vtime { 0.4 } else { 2.0 };
    let time = Duration::try_from_secs_f64(args.seconds.unwrap_or(default))?;
    let setup = Setup::new(&args.who)?;
    let pings = args.pings;
    let mut facts = setup.facts(args.boot == Boot::Vtime, &cpus().to_string())?;
    facts.push((
        "rounds",
        format!(
            "{} of {} s per throughput load, {pings} pings",
            args.rounds,
            time.as_secs_f64()
        ),
    ));

    let mut pairs = Vec::new();
    for (wire, who) in (0..).zip(&args.who) {
        let nics = args.nics.then(|| Nics::of_wire(wire)).transpose()?;
        let pair = Pair::new(*who, setup.kind(*who), nics.as_ref());
        pairs.push(pair.with_context(|| who.label())?);
    }

    let symbols = args.profile.map(|_| Symbols::read()).transpose()?;
    let mut samples = Vec::new();
    for round in 0..=args.rounds {
        // Round 0 warms up: handshakes, caches, the stack's estimates.
        let (time, pings) = if round == 0 {
            (time / 4, args.pings / 4 + 1)
        } else {
            (time, args.pings)
        };
        for load in &args.only {
            for pair in &pairs {
                if matches!(load, Load::Forward) && !pair.who.is_module_or_link() {
                    continue;
                }
                let mut keep = |metric: Metric, value: f64| {
                    samples.push(Sample {
                        round,
                        who: pair.who,
                        metric,
                        value,
                    });
                };
                let sampler = symbols.as_ref().map(|_| Sampler::start()).transpose()?;
                measure(*load, pair, time, pings, &mut keep)
                    .with_context(|| format!("{}, {load:?}, round {round}", pair.who.label()))?;
                if !pair.who.is_module_or_link() {
                    sleep(SETTLING);
                }
                if let (Some(sampler), Some(symbols)) = (sampler, &symbols) {
                    println!("profile: {load:?} over {}, round {round}", pair.who.label());
                    for (name, part) in sampler.stop(symbols).iter().take(args.profile.unwrap_or(0))
                    {
                        println!("{:6.2} % {name}", part * 100.0);
                    }
                }
            }
        }
        pairs.reverse();
    }
    for pair in &mut pairs {
        pair.check()?;
    }
    samples.retain(|sample| sample.round > 0);
    let report = Report { facts, samples };
    print!("{}", report.table());
    if let Some(path) = &args.json {
        fs::write(path, report.json_lines()).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn measure(
    load: Load,
    pair: &Pair,
    time: Duration,
    pings: usize,
    keep: &mut dyn FnMut(Metric, f64),
) -> Result<()> {
    match load {
        Load::Tcp => {
            let (seen, segment) = traffic::tcp(&pair.ends(), 1, None, time)?;
            let bytes = seen.rate(seen.received);
            ensure!(bytes > 0.0, "nothing arrived");
            keep(report::TCP, bytes * 8e-6);
            keep(report::SEGMENT, 1e9 * f64::from(segment) / bytes);
        }
        Load::Tcp8 | Load::Forward => {
            let (metric, ends, flows) = match load {
                Load::Tcp8 => (report::TCP_8, pair.ends(), 8),
                _ => (report::FORWARD, pair.hosts(), 1),
            };
            let (seen, _) = traffic::tcp(&ends, flows, None, time)?;
            ensure!(seen.received > 0, "nothing arrived");
            keep(metric, seen.rate(seen.received) * 8e-6);
        }
        Load::Bbr => {
            let fq = pair.pace()?;
            let (seen, _) = traffic::tcp(&pair.ends(), 1, Some("bbr"), time)?;
            drop(fq);
            ensure!(seen.received > 0, "nothing arrived");
            keep(report::BBR, seen.rate(seen.received) * 8e-6);
        }
        Load::Pps => {
            let before = pair.stats()?.tx_dropped;
            let seen = traffic::datagrams(&pair.ends(), traffic::SMALL, 1, time)?;
            let dropped = pair.stats()?.tx_dropped - before;
            ensure!(seen.received > 0, "nothing arrived");
            keep(report::PPS, seen.rate(seen.received));
            keep(report::PPS_SENT, seen.rate(seen.sent));
            keep(report::PPS_DROPPED, dropped as f64 / time.as_secs_f64());
        }
        Load::Quic => {
            let (size, together) = traffic::QUIC;
            let together = if pair.who.takes_segments() {
                together
            } else {
                1
            };
            let seen = traffic::datagrams(&pair.ends(), size, together, time)?;
            ensure!(seen.received > 0, "nothing arrived");
            let mbit = |datagrams| seen.rate(datagrams) * size as f64 * 8e-6;
            keep(report::QUIC, mbit(seen.received));
            keep(report::QUIC_SENT, mbit(seen.sent));
        }
        Load::Rtt => {
            let times = traffic::ping(&pair.ends(), pings)?;
            let at = |part: f64| {
                let index = ((times.len() - 1) as f64 * part) as usize;
                times.get(index).map_or(0.0, |t| t.as_secs_f64() * 1e6)
            };
            keep(report::RTT, at(0.5));
            keep(report::RTT_99, at(0.99));
        }
    }
    Ok(())
}

/// The CPUs of the guest.
fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What is measured.
struct Setup {
    /// The link kind in the place of ours.
    kind: String,
    /// Our module, if it is loaded.
    ko: Option<PathBuf>,
}

impl Setup {
    /// Loads the modules that `who` need, and prepares this process for namespaces.
    fn new(who: &[Impl]) -> Result<Self> {
        let kind = std::env::var(KIND).unwrap_or_else(|_| OURS.to_owned());
        let rs = [Impl::Rs, Impl::RsHeard];
        let with_ours = who.iter().any(|who| rs.contains(who)) && kind == OURS;
        cmd::run(&["modprobe", "veth"])?;
        let env = Env::read();
        env.load(if with_ours {
            Modules::Both
        } else {
            Modules::Intree
        })?;
        unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("make / private")?;
        netns::prepare(artefacts::HOOKS)?;
        mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).context("mlockall")?;
        Ok(Setup {
            kind,
            ko: env.ko.filter(|_| with_ours),
        })
    }

    /// The link kind of a contender, if it is one.
    fn kind(&self, who: Impl) -> Option<&str> {
        match who {
            Impl::C => Some(INTREE),
            Impl::Rs | Impl::RsHeard => Some(&self.kind),
            _ => None,
        }
    }

    /// The header of the tables, for guests with `vcpus`.
    fn facts(&self, vtime: bool, vcpus: &str) -> Result<Vec<(&'static str, String)>> {
        let read = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo
                .lines()
                .find(|line| line.split(':').next().unwrap_or("").trim() == name);
            line.and_then(|line| line.split_once(':'))
                .map_or("", |(_, value)| value.trim())
        };
        let flags: Vec<&str> = field("flags").split(' ').collect();
        let simd: Vec<&str> = ["ssse3", "avx2", "avx512f"]
            .into_iter()
            .filter(|f| flags.contains(f))
            .collect();
        let model = field("model name");
        let machine = match (vtime, model.contains("QEMU")) {
            (true, _) => "QEMU TCG with icount, 2 ns per instruction, idle time skipped",
            (_, true) => "QEMU TCG",
            _ if model == "UML" => "user-mode Linux",
            (_, false) => "native or KVM",
        };
        let clock = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
        let ours = match &self.ko {
            Some(path) => {
                let image = fs::read(path).with_context(|| path.display().to_string())?;
                let digest = Sha256::digest(&image)
                    .iter()
                    .take(8)
                    .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
                let commit = std::env::var(COMMIT).unwrap_or_else(|_| "unknown".to_owned());
                format!("wireguard_rs.ko, sha256 {digest}…, commit {commit}")
            }
            None => format!("STAND-IN: link kind {}", self.kind),
        };
        Ok(vec![
            (
                "kernel",
                format!(
                    "{} {}",
                    read("/proc/sys/kernel/osrelease"),
                    read("/proc/sys/kernel/version")
                ),
            ),
            (
                "machine",
                format!("{machine}; {vcpus} vCPU; clock source {clock}"),
            ),
            ("cpu", format!("{model}; {}", simd.join(" "))),
            (
                "C",
                format!(
                    "in-tree wireguard, srcversion {}",
                    read("/sys/module/wireguard/srcversion")
                ),
            ),
            ("RS", ours),
        ])
    }
}
