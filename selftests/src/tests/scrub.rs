// SPDX-License-Identifier: GPL-2.0-only
//! The metadata of an inner packet and of the message that carries it are separate: marks,
//! priority, traffic control index, queue and connection are not inherited in either direction.
//! Only the flow hash is passed to the outer packet, for fair queueing.

use super::{drop_in, Test};
use anyhow::{bail, ensure, Context, Result};
use harness::bpf::{Direction, Stain};
use harness::cmd;
use harness::netns::Netns;
use harness::runner::{Ctx, Skip};
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::{ping, ping_all, tcp, udp};
use harness::wgdev::DeviceConf;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The fwmark of end 0's device.
const FWMARK: u32 = 0x99;
const STALL: Duration = Duration::from_secs(15);

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "scrub-receive", 90, receive);
    drop_in(list, "scrub-transmit", 90, transmit);
    drop_in(list, "scrub-connections", 120, connections);
    drop_in(list, "scrub-flows-in-cake", 60, flows_in_cake);
}

/// A tunnel with a fwmark set at end 0.
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

/// Long pings one by one, and a stream, which is handled in runs; data flows from end `n`.
fn traffic(tunnel: &Tunnel, n: u8) -> Result<()> {
    for v6 in [false, true] {
        let (from, to) = (tunnel.ns(n), tunnel.ns(1 - n));
        let got = ping(from, inner(v6, 1 - n), 5, 400, STALL)?;
        ensure!(got == 5, "{got} of 5 pings were answered");
        let at = SocketAddr::new(inner(v6, 1 - n), 5201);
        tcp(from, to, at, 2 << 20, STALL)?;
    }
    Ok(())
}

/// Metadata set on the outer packet is not found on the inner one.
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
            "IPv6 {v6}: the inner packets inherit from the outer ones: {seen:?}"
        );
    }
    Ok(())
}

/// Metadata set on the inner packet is not found on the outer one, except for the flow hash; the
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
            "IPv6 {v6}: the outer packets inherit from the inner ones: {seen:?}"
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

/// The underlay's fair queueing distinguishes the flows in the tunnel: the hash is passed on
/// together with the bit that makes it a connection hash (`l4_hash`). Otherwise sch_cake looks at
/// the headers, which are the same for all messages.
fn flows_in_cake(ctx: &Ctx) -> Result<()> {
    const FLOWS: u64 = 6;
    if !cmd::try_run(&["modprobe", "sch_cake"], "")?.ok {
        bail!(Skip("this kernel has no sch_cake".to_owned()));
    }
    for v6 in [false, true] {
        let tunnel = scene(ctx, v6)?;
        // So slow that packets stay queued for seconds.
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
        // Flows with queued packets are sparse or bulk. The link's own packets may add another.
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

/// Counters for what must not be found on a packet: before connection tracking sees it (its
/// state), and after (its mark, its connection's mark, whether it was not tracked).
const COUNTERS: [&str; 5] = [
    "ct_state",
    "packet_mark",
    "packet_priority",
    "ct_mark",
    "ct_none",
];

/// Netfilter rules for one namespace. `from` selects packets on their first pass, in which they
/// are marked, or excluded from connection tracking if `notrack`; `to` selects the second pass.
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

/// Netfilter treats inner and outer packets as separate: each is tracked as its own connection,
/// whether or not the other is tracked, and has its own mark and priority.
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
