// SPDX-License-Identifier: GPL-2.0
//! A packet in the tunnel and the message that carries it are two: neither the marks nor the
//! priority, traffic control index, queue or connection of the one are the other's. Only the flow
//! hash goes outwards, for fair queueing.

use super::{drop_in, Test};
use crate::harness::bpf::{Direction, Stain};
use crate::harness::cmd;
use crate::harness::netns::Netns;
use crate::harness::runner::{Ctx, Skip};
use crate::harness::topo::{inner, Opts, Tunnel};
use crate::harness::traffic::{ping, ping_all, tcp, udp};
use crate::harness::wgdev::DeviceConf;
use anyhow::{bail, ensure, Context, Result};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The mark for end 0's messages.
const FWMARK: u32 = 0x99;
const STALL: Duration = Duration::from_secs(15);

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "scrub-receive", 90, receive);
    drop_in(list, "scrub-transmit", 90, transmit);
    drop_in(list, "scrub-connections", 120, connections);
    drop_in(list, "scrub-flows-in-cake", 60, flows_in_cake);
}

/// A tunnel with end 0's mark for messages set.
fn scene(ctx: &Ctx, v6: bool) -> Result<Tunnel> {
    let opts = Opts {
        v6,
        ..Opts::new(ctx.plain())
    };
    let mut tunnel = Tunnel::new(&opts)?;
    let marked = DeviceConf {
        fwmark: Some(FWMARK),
        ..DeviceConf::default()
    };
    tunnel.ends[0].set(&tunnel.link, &marked)?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    Ok(tunnel)
}

/// Long pings one by one, and a stream, which goes through in runs; data from end `n` on.
fn traffic(tunnel: &Tunnel, n: u8) -> Result<()> {
    for v6 in [false, true] {
        let (from, to) = (tunnel.ns(n), tunnel.ns(1 - n));
        let got = ping(from, inner(v6, 1 - n), 5, 400, STALL)?;
        ensure!(got == 5, "{got} of 5 pings are answered");
        let at = SocketAddr::new(inner(v6, 1 - n), 5201);
        tcp(from, to, at, 2 << 20, STALL)?;
    }
    Ok(())
}

/// What was put on the outer packet is not found on the inner one.
fn receive(ctx: &Ctx) -> Result<()> {
    for v6 in [false, true] {
        let tunnel = scene(ctx, v6)?;
        let (at, then) = (("v0", Direction::In), ("wg0", Direction::In));
        let stain = Stain::attach(tunnel.ns(0), at, then)?;
        traffic(&tunnel, 1)?;
        let seen = stain.seen()?;
        ensure!(
            seen.stained > 100 && seen.packets > 10,
            "IPv6 {v6}: too little to judge by: {seen:?}"
        );
        ensure!(
            seen.with == [0; 4] && seen.with_hash == 0 && seen.other_mark == 0,
            "IPv6 {v6}: the inner packets carry of the outer ones: {seen:?}"
        );
    }
    Ok(())
}

/// What was put on the inner packet is not found on the outer one, but for the flow hash; the
/// mark is the device's.
fn transmit(ctx: &Ctx) -> Result<()> {
    for v6 in [false, true] {
        let tunnel = scene(ctx, v6)?;
        let (at, then) = (("wg0", Direction::Out), ("v0", Direction::Out));
        let stain = Stain::attach(tunnel.ns(0), at, then)?;
        traffic(&tunnel, 0)?;
        let seen = stain.seen()?;
        ensure!(
            seen.stained > 10 && seen.packets > 100,
            "IPv6 {v6}: too little to judge by: {seen:?}"
        );
        ensure!(
            seen.with == [0; 4],
            "IPv6 {v6}: the outer packets carry of the inner ones: {seen:?}"
        );
        ensure!(
            seen.with_hash == seen.packets,
            "IPv6 {v6}: the flow hash is lost: {seen:?}"
        );
        ensure!(
            seen.other_mark == seen.packets,
            "IPv6 {v6}: messages without the device's mark: {seen:?}"
        );
    }
    Ok(())
}

/// The underlay's fair queueing tells the flows in the tunnel apart: that they are hashes of
/// connections (`l4_hash`) is kept with them. sch_cake looks at headers otherwise, and those of all
/// messages are alike.
fn flows_in_cake(ctx: &Ctx) -> Result<()> {
    const FLOWS: u64 = 6;
    if !cmd::try_run(&["modprobe", "sch_cake"], "")?.ok {
        bail!(Skip("this kernel has no sch_cake".to_owned()));
    }
    for v6 in [false, true] {
        let tunnel = scene(ctx, v6)?;
        // So slow that what is sent waits for seconds.
        let slow = "tc qdisc add dev v0 root cake bandwidth 16kbit besteffort flows";
        tunnel.ns(0).sh(slow)?;
        let to = SocketAddr::new(inner(v6, 1), 9);
        let _sink = udp(tunnel.ns(1), to)?;
        for _ in 0..FLOWS {
            let socket = udp(tunnel.ns(0), SocketAddr::new(inner(v6, 0), 0))?;
            socket.connect(to)?;
            for _ in 0..4 {
                socket.send(&[4; 1000])?;
            }
        }
        // Those whose packets wait are sparse or bulk ones. Another may be of the link's own packets.
        let start = Instant::now();
        loop {
            let shown = tunnel.ns(0).sh("tc -s qdisc show dev v0")?;
            let number = |name: &str| -> Option<u64> {
                let (_, rest) = shown.split_once(name)?;
                rest.split_whitespace().next()?.parse().ok()
            };
            let flows = number("sp_flows").zip(number("bk_flows"));
            let flows = flows.with_context(|| format!("no flows in {shown}"))?;
            if flows.0 + flows.1 >= FLOWS {
                break;
            }
            ensure!(
                start.elapsed() < Duration::from_secs(2),
                "IPv6 {v6}: {flows:?} flows of {FLOWS}: {shown}"
            );
            sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Counters for what must not be: found on a packet before connection tracking sees it (its
/// state), and after (its mark, its connection's mark, whether it was left out).
const COUNTERS: [&str; 5] = [
    "ct_state",
    "packet_mark",
    "packet_priority",
    "ct_mark",
    "ct_none",
];

/// Netfilter's rules for one namespace. `from` selects packets on their first way, on which they
/// are marked, or kept from connection tracking if `notrack`; `to` selects them on their second.
fn rules(hook: &str, from: &str, to: &str, mark: u32, notrack: bool) -> String {
    let counters = COUNTERS
        .map(|name| format!("counter {name} {{}}\n"))
        .concat();
    let leave = if notrack { "notrack" } else { "accept" };
    format!(
        "table inet t {{
            {counters}
            counter first_way {{}}
            counter second_way {{}}
            chain before {{
                type filter hook {hook} priority -310;
                {to} counter name second_way
                {to} ct state != invalid counter name ct_state
                {from} counter name first_way {leave}
            }}
            chain after {{
                type filter hook {hook} priority -100;
                {to} meta mark != {mark} counter name packet_mark
                {to} meta priority != 0:0 counter name packet_priority
                {to} ct mark != 0 counter name ct_mark
                {to} ct state untracked counter name ct_none
                {to} ct state invalid counter name ct_none
                {from} meta mark set 0x51 meta priority set 1:51
                {from} ct mark set 0x52
            }}
        }}"
    )
}

/// The packets that a counter of netfilter's table `t` has counted.
pub(super) fn counted(ns: &Netns, name: &str) -> Result<u64> {
    let shown = ns.sh(&format!("nft list counter inet t {name}"))?;
    let packets = shown.split("packets ").nth(1);
    let packets = packets.and_then(|rest| rest.split(' ').next());
    packets.context("no count")?.parse().context(shown)
}

/// Netfilter takes inner and outer packets for different ones: each is tracked, whether or not the
/// other is, as a connection of its own, and has a mark and priority of its own.
fn connections(ctx: &Ctx) -> Result<()> {
    for v6 in [false, true] {
        for notrack in [false, true] {
            for receiving in [true, false] {
                let case = format!("IPv6 {v6}, notrack {notrack}, receiving {receiving}");
                let tunnel = scene(ctx, v6)?;
                let rules = if receiving {
                    let outer = "iifname v0 udp dport 51820";
                    rules("prerouting", outer, "iifname wg0", 0, notrack)
                } else {
                    let outer = "oifname v0 udp sport 51820";
                    rules("output", "oifname wg0", outer, FWMARK, notrack)
                };
                tunnel.ns(0).sh_in("nft -f -", &rules)?;
                traffic(&tunnel, u8::from(receiving)).with_context(|| case.clone())?;
                let count = |name| counted(tunnel.ns(0), name);
                for place in ["first_way", "second_way"] {
                    let packets = count(place)?;
                    ensure!(packets > 10, "{case}: {packets} packets counted by {place}");
                }
                for name in COUNTERS {
                    let packets = count(name)?;
                    ensure!(packets == 0, "{case}: {packets} packets carry over: {name}");
                }
            }
        }
    }
    Ok(())
}
