// SPDX-License-Identifier: GPL-2.0-only
//! `wg show` of a device in use: times and amounts, at any time of day.

use super::call::{Call, Sink};
use super::clock::Clock;
use super::sides::{difference, prepare, program, DIR};
use super::words::FIELDS;
use anyhow::{bail, ensure, Context, Result};
use harness::netns::Netns;
use harness::pace::slow;
use harness::runner::Ctx;
use harness::topo::{inner, names, Opts, Tunnel};
use harness::traffic::ping_all;
use harness::wgdev::{base64, random_key};
use std::path::Path;
use std::time::{Duration, Instant};

/// Ages of a handshake to simulate, in seconds.
const AGES: &[i64] = &[
    0, 1, 58, 60, 61, 119, 120, 3599, 3600, 3661, 7200, 86_399, 86_400, 90_061, 172_800,
    31_535_999, 31_536_000, 31_626_061, 94_608_000, -1, -5, -86_400,
];
/// Keepalive intervals, seconds.
const KEEPALIVES: &[u16] = &[
    1, 2, 59, 60, 61, 120, 125, 3599, 3600, 3601, 3660, 3661, 7325, 65535,
];

/// Both tools print the same about the device in `ns` (repeated if the output of `wg` changes
/// meanwhile).
fn same(ns: &Netns, call: &Call) -> Result<String> {
    let on = |n: usize| ns.run(|| call.run(&program(n, call.name), Path::new(DIR)));
    let start = Instant::now();
    loop {
        let (first, ours, again) = (on(0)?, on(1)?, on(0)?);
        let found = difference(&[first.clone(), ours.clone()]);
        // If two outputs of wg differ, ours may equal either.
        if found.is_none() || difference(&[again.clone(), ours.clone()]).is_none() {
            ensure!(ours.ok(), "{call}: {ours:?}");
            return Ok(ours.text());
        }
        if let (Some(found), true) = (found, first == again) {
            bail!("{call}: {found}");
        }
        ensure!(
            start.elapsed() < slow(Duration::from_secs(20)),
            "{call}: the output of wg keeps changing"
        );
    }
}

pub fn live(ctx: &Ctx) -> Result<()> {
    prepare(&["/usr/bin/wg"])?;
    let tunnel = Tunnel::new(&Opts::new(ctx.by_tool()))?;
    let (ns, (name, _)) = (tunnel.ns(0), names(0));
    let show = Call::new("wg", ["show"]);
    ping_all(ns, inner(false, 1), 1)?;
    let shown = same(ns, &show)?;
    ensure!(
        shown.contains("latest handshake") && shown.contains(" B received"),
        "{shown}"
    );

    for keepalive in KEEPALIVES {
        let peer = base64(&random_key());
        ns.sh(&format!(
            "wg set {name} peer {peer} persistent-keepalive {keepalive}"
        ))?;
    }
    for (pings, wanted) in [(3, "KiB received"), (800, "MiB received")] {
        ns.sh(&format!(
            "ping -n -q -f -c {pings} -s 1400 {}",
            inner(false, 1)
        ))?;
        let shown = same(ns, &show)?;
        ensure!(shown.contains(wanted), "no {wanted}: {shown}");
    }
    for field in FIELDS {
        same(ns, &Call::new("wg", ["show", name, field]))?;
    }

    let clock = Clock::new()?;
    let handshake = ns.sh(&format!("wg show {name} latest-handshakes"))?;
    let last = handshake
        .lines()
        .filter_map(|line| line.split('\t').nth(1)?.parse::<i64>().ok())
        .max();
    let last = last.context("no handshake")?;
    let mut wordings = std::collections::BTreeSet::new();
    for age in AGES {
        clock.to(last + age)?;
        let mode = if age % 2 == 0 { "always" } else { "never" };
        let shown = same(ns, &show.clone().env("WG_COLOR_MODE", mode))?;
        let line = shown.lines().find(|line| line.contains("latest handshake"));
        wordings.insert(line.context("no handshake shown")?.to_owned());
        if *age == 61 {
            same(ns, &show.clone().sink(Sink::Tty))?;
        }
    }
    drop(clock);
    ctx.note(format!(
        "{} wordings of the time of a handshake",
        wordings.len()
    ));
    ensure!(
        wordings.len() * 4 > AGES.len() * 3,
        "the clock does not move: {wordings:?}"
    );
    Ok(())
}
