// SPDX-License-Identifier: GPL-2.0-only
//! Bulk traffic through queueing disciplines on the tunnel devices, which delay, cut and reorder
//! flows.

use super::load::USUAL;
use crate::tests::{of_each, Test};
use anyhow::{ensure, Context, Result};
use harness::cmd;
use harness::modules::Modules;
use harness::runner::{Boot, Ctx};
use harness::topo::{inner, names, Opts, Tunnel};
use harness::traffic::ping_all;

/// The delay at which some begin to drop packets is one that a slow machine does not reach.
///
/// Names, and shell scripts for a device `$dev`.
const QDISCS: [(&str, &str); 7] = [
    ("fq", "tc qdisc add dev $dev root fq"),
    (
        "fq-bbr",
        "sysctl -q net.ipv4.tcp_congestion_control=bbr
         tc qdisc add dev $dev root fq",
    ),
    (
        "fq-codel",
        "tc qdisc add dev $dev root fq_codel target 10s interval 100s",
    ),
    (
        "cake",
        "tc qdisc add dev $dev root cake bandwidth 2gbit rtt 100s",
    ),
    (
        "htb",
        "tc qdisc add dev $dev root handle 1: htb default 1
         tc class add dev $dev parent 1: classid 1:1 htb rate 2gbit burst 1mb",
    ),
    (
        "netem",
        "tc qdisc add dev $dev root netem delay 1ms limit 10000",
    ),
    // The burst is less than a packet of many segments.
    (
        "tbf",
        "tc qdisc add dev $dev root tbf rate 2gbit burst 5kb limit 10mb",
    ),
];

pub fn register(list: &mut Vec<Test>) {
    for (name, script) in QDISCS {
        let name = format!("gso-qdisc-{name}");
        let body = move |ctx: &Ctx| through(ctx, script);
        of_each(list, (&name, Boot::Config, 60), Modules::Ours, body);
    }
}

fn through(ctx: &Ctx, script: &str) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    for n in 0..2 {
        let script = format!("dev={}\n{script}", names(n).0);
        let made = tunnel.ns(n).run(|| cmd::run(&["bash", "-ec", &script]));
        made.context("tc")?;
    }
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    USUAL.pass([tunnel.ns(0), tunnel.ns(1)])?;
    for n in 0..2 {
        let shown = tunnel
            .ns(n)
            .sh(&format!("tc -s qdisc show dev {} root", names(n).0))?;
        let words: Vec<&str> = shown.split_whitespace().collect();
        let after = |word| Some(words[words.iter().position(|w| *w == word)? + 1]);
        let sent: u64 = after("Sent").context("no counters")?.parse()?;
        ensure!(
            sent > USUAL.stream / 20 && after("(dropped") == Some("0,"),
            "{shown}"
        );
    }
    Ok(())
}
