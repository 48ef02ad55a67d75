// SPDX-License-Identifier: GPL-2.0-only
//! `bench-tool`: wg-rs against `wg` on a device with many peers: time and peak memory of the whole
//! process.
//! A peak below the bench's own is not visible, since a child's peak starts at its parent's: two
//! equal values mean nothing.

use super::report::Summary;
use anyhow::{ensure, Context, Result};
use harness::artefacts;
use harness::cmd;
use harness::modules::{Env, Modules};
use harness::netns::{self, Netns};
use harness::tool::conf_text;
use harness::wgdev::{random_key, DeviceConf, PeerConf};
use nix::mount::{mount, MsFlags};
use nix::sched::{unshare, CloneFlags};
use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// How much to measure.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// How many times each is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Numbers of peers.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
    peers: Vec<u32>,
    /// Where to write the results as JSON lines.
    #[arg(long)]
    json: Option<PathBuf>,
}

const DIR: &str = "/run/wireguard";
const NAMES: [&str; 2] = ["wg", "wg-rs"];
const LOADS: [(&str, &[&str]); 5] = [
    ("setconf", &["setconf", "wg0", "/run/wireguard/conf"]),
    ("addconf", &["addconf", "wg0", "/run/wireguard/conf"]),
    ("syncconf", &["syncconf", "wg0", "/run/wireguard/conf"]),
    ("show", &["show", "wg0"]),
    ("show dump", &["show", "wg0", "dump"]),
];

/// What was measured for one program.
#[derive(Default)]
struct Samples {
    millis: Vec<f64>,
    kib: f64,
}

/// Measures and prints the table.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.rounds > 0, "nothing to do");
    let tool = std::env::var_os("WGRS_TOOL").map(PathBuf::from);
    let tool = tool.context("set WGRS_TOOL to the path of wg-rs")?;
    let env = Env::read();
    // Ours alone: the in-tree driver creates a kernel thread for each peer.
    let modules = if env.ko.is_some() {
        Modules::Ours
    } else {
        Modules::Intree
    };
    env.load(modules)?;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("make / private")?;
    netns::prepare(artefacts::HOOKS)?;
    // Both in memory, called by the same name.
    let wg = cmd::run(&["bash", "-c", "type -P wg"])?;
    let mut programs = Vec::new();
    for (folder, from) in NAMES.iter().zip([Path::new(wg.trim()), tool.as_path()]) {
        let folder = Path::new(DIR).join(folder);
        fs::create_dir_all(&folder)?;
        fs::copy(from, folder.join("wg")).with_context(|| from.display().to_string())?;
        programs.push(folder.join("wg"));
    }
    let mut table = String::new();
    let mut json = String::new();
    let _ = writeln!(
        table,
        "wg-rs against wg: median of {} rounds (ratio wg-rs/wg), {modules:?} module",
        args.rounds
    );
    let _ = writeln!(
        table,
        "{:<10} {:>7} {:>10} {:>10} {:>6} {:>12} {:>12} {:>6}",
        "", "peers", "wg ms", "wg-rs ms", "", "wg KiB", "wg-rs KiB", ""
    );
    for peers in &args.peers {
        for (n, (load, _)) in LOADS.iter().enumerate() {
            let samples = measure(*peers, n, args.rounds, &programs)?;
            let [c_mem, rs_mem] = samples.each_ref().map(|samples| samples.kib);
            let [c, rs] = samples.map(|samples| {
                let summary = Summary::of(samples.millis);
                summary.map_or(0.0, |summary| summary.median)
            });
            let _ = writeln!(
                table,
                "{load:<10} {peers:>7} {c:>10.1} {rs:>10.1} {:>6.2} {c_mem:>12.0} {rs_mem:>12.0} \
                 {:>6.2}",
                rs / c,
                rs_mem / c_mem
            );
            let _ = writeln!(
                json,
                "{{\"type\":\"tool\",\"load\":\"{load}\",\"peers\":{peers},\"wg_ms\":{c},\
                 \"wg_rs_ms\":{rs},\"wg_kib\":{c_mem},\"wg_rs_kib\":{rs_mem}}}"
            );
        }
    }
    print!("{table}");
    if let Some(path) = &args.json {
        fs::write(path, json).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Measures `wg` and wg-rs.
fn measure(peers: u32, load: usize, rounds: usize, programs: &[PathBuf]) -> Result<[Samples; 2]> {
    let peer = |n: u32| PeerConf {
        public_key: random_key(),
        preshared_key: (n % 2 == 0).then(random_key),
        endpoint: Some((Ipv4Addr::from((172 << 24) + n), 51820).into()),
        keepalive: (n % 3 == 0).then_some(25),
        flags: 0,
        allowed_ips: vec![(Ipv4Addr::from((10 << 24) + n).into(), 32)],
    };
    let conf = DeviceConf {
        private_key: Some(random_key()),
        peers: (0..peers).map(peer).collect(),
        ..DeviceConf::default()
    };
    fs::write(Path::new(DIR).join("conf"), conf_text(&conf))?;
    let (what, args) = LOADS[load];
    let mut samples = [Samples::default(), Samples::default()];
    let ns = Netns::new("bench")?;
    ns.sh("ip link add wg0 type wireguard")?;
    for round in 0..=rounds {
        for turn in 0..2 {
            let n = (turn + round) % 2;
            if what == "setconf" || round + turn == 0 {
                ns.sh("ip link del wg0")?;
                ns.sh("ip link add wg0 type wireguard")?;
                if what != "setconf" {
                    ns.sh("wg setconf wg0 /run/wireguard/conf")?;
                }
            }
            // Round 0 warms up.
            if round == 0 {
                samples[n].kib = ns.run(|| largest(&programs[n], args))?;
            } else {
                samples[n]
                    .millis
                    .push(ns.run(|| timed(&programs[n], args))?);
            }
        }
    }
    Ok(samples)
}

fn command(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Runs the program to completion and returns the milliseconds it took.
fn timed(program: &Path, args: &[&str]) -> Result<f64> {
    let start = Instant::now();
    let status = command(program, args).status();
    let millis = start.elapsed().as_secs_f64() * 1e3;
    ensure!(
        status.as_ref().is_ok_and(|status| status.success()),
        "{} {args:?}: {status:?}",
        program.display()
    );
    Ok(millis)
}

/// Runs the program to completion and returns its peak memory, KiB.
fn largest(program: &Path, args: &[&str]) -> Result<f64> {
    let mut command = command(program, args);
    // SAFETY: the closure does nothing. It makes std fork: after vfork the child's peak would start
    // at our own.
    unsafe { command.pre_exec(|| Ok(())) };
    let child = command
        .spawn()
        .with_context(|| program.display().to_string())?;
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both pointers are to variables of the right types; the child is ours and has not been
    // waited for.
    let waited = unsafe { libc::wait4(child.id() as i32, &raw mut status, 0, usage.as_mut_ptr()) };
    ensure!(
        waited == child.id() as i32 && status == 0,
        "{} {args:?}: status {status}",
        program.display()
    );
    // SAFETY: an all-zero rusage is valid, and the kernel has filled it in.
    let usage = unsafe { usage.assume_init() };
    Ok(usage.ru_maxrss as f64)
}
