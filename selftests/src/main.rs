// SPDX-License-Identifier: GPL-2.0-only
//! The guest-side tests of wireguard_rs: named tests, run as root on the kernel under test.

mod bench;
mod fuzz;
mod soak;
mod tests;

use anyhow::{bail, ensure, Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use harness::pace;
use harness::runner::{matches, run, Boot, Options, Test};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;
use tests::{needs_compiled, Part};

/// Set after a virtual-time run has re-executed itself (see [`to_tmpfs`]).
const COPIED: &str = "WGRS_SELFTESTS_COPIED";

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print every test's name, the kind of boot it needs, and `compiled` if it needs a program
    /// that is compiled for it.
    List {
        /// Only this part.
        #[arg(long, default_value = "all")]
        part: Part,
        /// Parts of names, or globs with `*`; none means all.
        patterns: Vec<String>,
    },
    /// Run the tests that belong to this boot. Needs root; meant for a guest.
    Run {
        /// The kind of guest this is.
        #[arg(long)]
        boot: Boot,
        /// Where to keep the artefacts of failed tests.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Only this part.
        #[arg(long, default_value = "all")]
        part: Part,
        /// K/N: of these only every Nth, from the Kth on, for N guests side by side.
        #[arg(long, default_value = "1/1", value_parser = share)]
        share: (usize, usize),
        /// Leave these out: parts of names, or globs with `*` (may be repeated).
        #[arg(long)]
        skip: Vec<String>,
        /// Capture all traffic on every interface in the first run, too (by default only when a
        /// failed test is run again).
        #[arg(long)]
        pcap: bool,
        /// Parts of names, or globs with `*`; none means all.
        patterns: Vec<String>,
    },
    /// Send generated netlink requests to both modules until they disagree. Needs root; meant for
    /// a guest.
    FuzzNetlink {
        /// The number of requests.
        #[arg(long, default_value_t = 1_000_000)]
        cases: usize,
        /// The seed of the generator; a random one if not given.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Disturb a tunnel in every way at once, again and again. Needs root; meant for a guest with
    /// two CPUs.
    Soak {
        /// How long, in seconds.
        #[arg(long, default_value_t = 600)]
        time: u64,
        /// The seed of what happens; a random one if not given.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Run tests that fail, for the harness's own test of its artefacts.
    #[command(hide = true)]
    FailOnPurpose {
        /// Where to keep the artefacts.
        out: PathBuf,
    },
    /// Measure this module beside the in-tree one. Needs root; meant for a guest.
    Bench(bench::Args),
    /// Measure this module beside the in-tree one with more and more peers. Needs root; meant for
    /// guests with more and more CPUs.
    BenchScale(bench::scale::Args),
    /// Time and memory against the number of peers, this driver and the in-tree one.
    BenchPeers(bench::peers::Args),
    /// Throughput against the number of flows and the size of packets, this driver and the in-tree
    /// one.
    BenchSweep(bench::sweep::Args),
    /// Draw what was measured.
    Chart(bench::chart::Args),
    /// Measure wg-rs beside wg. Needs root; meant for a guest.
    BenchTool(bench::tool::Args),
}

fn main() -> ExitCode {
    match real_main() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("wgrs-selftests: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn chosen<'a>(all: &'a [Test], part: Part, patterns: &[String]) -> Vec<&'a Test> {
    let named = |t: &Test| patterns.is_empty() || patterns.iter().any(|p| matches(&t.name, p));
    let wanted = |t: &&Test| part.includes(t) && named(t);
    all.iter().filter(wanted).collect()
}

/// Reads K/N.
fn share(text: &str) -> Result<(usize, usize)> {
    let (k, n) = text.split_once('/').context("K/N is wanted")?;
    let (k, n) = (k.parse()?, n.parse()?);
    ensure!((1..=n).contains(&k), "K is to be at least 1, and at most N");
    Ok((k, n))
}

fn real_main() -> Result<bool> {
    let all = tests::all();
    match Cli::parse().verb {
        Verb::List { part, patterns } => {
            for test in chosen(&all, part, &patterns) {
                let boot = test.boot.to_possible_value().context("unnamed boot")?;
                let needs = if needs_compiled(test) {
                    "\tcompiled"
                } else {
                    ""
                };
                println!("{}\t{}{needs}", test.name, boot.get_name());
            }
            Ok(true)
        }
        Verb::Run {
            boot,
            out,
            part,
            share: (first, step),
            skip,
            pcap,
            patterns,
        } => {
            if boot.is_vtime() {
                to_tmpfs()?;
            }
            for pattern in &patterns {
                if !all.iter().any(|test| matches(&test.name, pattern)) {
                    bail!("no test is called like {pattern}");
                }
            }
            let mut tests = chosen(&all, part, &patterns);
            tests.retain(|test| {
                test.boot.runs_in(boot) && !skip.iter().any(|p| matches(&test.name, p))
            });
            let tests: Vec<_> = tests.into_iter().skip(first - 1).step_by(step).collect();
            if tests.is_empty() {
                bail!("no test of this boot matches");
            }
            let options = Options {
                out,
                pcap,
                virtual_time: boot.is_vtime(),
            };
            if boot == Boot::SanVtime {
                pace::no_preemption()?;
            }
            Ok(run(&tests, &options)? == 0)
        }
        Verb::FuzzNetlink { cases, seed } => {
            let seed = seed.unwrap_or_else(|| rand::random::<u32>().into());
            println!("# seed {seed}");
            let test = tests::netlink::fuzz(fuzz::Plan { cases, seed });
            let options = Options {
                out: None,
                pcap: false,
                virtual_time: false,
            };
            Ok(run(&[&test], &options)? == 0)
        }
        Verb::Soak { time, seed } => {
            let test = tests::soak::alone(soak::Plan {
                time: Duration::from_secs(time),
                seed: seed.unwrap_or_else(|| rand::random::<u32>().into()),
            });
            // Without a folder it is not repeated if it fails: it would take as long again.
            let options = Options {
                out: None,
                pcap: false,
                virtual_time: false,
            };
            Ok(run(&[&test], &options)? == 0)
        }
        Verb::FailOnPurpose { out } => {
            let tests = tests::harness_self::broken();
            let options = Options {
                out: Some(out),
                pcap: false,
                virtual_time: false,
            };
            Ok(run(&tests.iter().collect::<Vec<_>>(), &options)? == 0)
        }
        Verb::Bench(args) => bench::run(&args).map(|()| true),
        Verb::BenchScale(args) => bench::scale::run(&args).map(|()| true),
        Verb::BenchPeers(args) => bench::peers::run(&args).map(|()| true),
        Verb::BenchSweep(args) => bench::sweep::run(&args).map(|()| true),
        Verb::Chart(args) => bench::chart::run(&args).map(|()| true),
        Verb::BenchTool(args) => bench::tool::run(&args).map(|()| true),
    }
}

/// Re-executes this program from a copy on a tmpfs: in virtual time the clock jumps while the
/// guest waits for host file I/O, and pages of a program are read when first touched.
fn to_tmpfs() -> Result<()> {
    if std::env::var_os(COPIED).is_some() {
        return Ok(());
    }
    let copy = "/run/wgrs-selftests";
    std::fs::copy("/proc/self/exe", copy).with_context(|| copy.to_owned())?;
    Err(Command::new(copy)
        .args(std::env::args_os().skip(1))
        .env(COPIED, "1")
        .exec())
    .context("start the copy on tmpfs")
}
