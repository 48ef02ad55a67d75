// SPDX-License-Identifier: GPL-2.0-only
//! How messages that travel together are counted.

use super::super::{both, drop_in, Test};
use super::load::USUAL;
use super::receive::{heard, message, send_together, COUNT, LEN};
use super::send::{hear, say};
use anyhow::{ensure, Context, Result};
use harness::driver::Driver;
use harness::netns::Netns;
use harness::rig::{Rig, MOMENT, WAIT};
use harness::rtnl::Counters;
use harness::runner::Ctx;
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::{drain, ping_all};
use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::thread::sleep;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "gso-counters", 60, counters);
    both(list, "gso-counters-alike", 60, alike);
}

/// What the stack has counted of UDP in a namespace, by name: of IPv4 `Udp…`, of IPv6 `Udp6…`.
pub(super) fn of_udp(ns: &Netns) -> Result<BTreeMap<String, u64>> {
    let (v4, v6) = ns.run(|| {
        let read = |name: &str| read_to_string(format!("/proc/thread-self/net/{name}"));
        Ok((read("snmp")?, read("snmp6")?))
    })?;
    let mut lines = v4.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let [names, values] = [lines.next(), lines.next()].map(|line| line.context("no Udp line"));
    let (names, values) = (names?.split(' '), values?.split(' '));
    let v4 = names
        .zip(values)
        .map(|(name, value)| (format!("Udp{name}"), value));
    let v6 = v6.lines().filter_map(|line| line.split_once(' '));
    let v6 = v6.filter(|(name, _)| name.starts_with("Udp6"));
    let v6 = v6.map(|(name, value)| (name.to_owned(), value.trim()));
    let number = |(name, value): (String, &str)| -> Result<_> { Ok((name, value.parse()?)) };
    v4.chain(v6).map(number).collect()
}

/// By how much each of them has increased, if it has.
pub(super) fn since(
    now: &BTreeMap<String, u64>,
    before: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let more = now.iter().map(|(name, now)| {
        let before = before.get(name).copied().unwrap_or(0);
        (name.clone(), now.wrapping_sub(before))
    });
    more.filter(|(_, more)| *more != 0).collect()
}

fn in_datagrams(rig: &Rig) -> Result<u64> {
    let counted = of_udp(rig.link.end(0))?;
    counted
        .get("UdpInDatagrams")
        .copied()
        .context("no InDatagrams")
}

/// Each message counts as one packet, with its bytes, wherever it is counted.
fn counters(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    let session = rig.confirmed(0)?;
    rig.say(0)?;
    rig.clients[0].wait_data(&session, WAIT)?;
    drain(&rig.app)?;
    // The driver learns from these how long messages may be that travel together.
    let said = say(&rig, 1000, 2, 500)?;
    hear(&rig, &session, &said)?;

    let before = (rig.link.rt(0).counters("wg0")?, rig.peer(0)?);
    let said = say(&rig, 1000, 40, 500)?;
    hear(&rig, &session, &said)?;
    // The inner packets padded to 1040 and 528 bytes, and 32 bytes of header and tag.
    let sent = 39 * (1040 + 32) + 528 + 32;
    let now = (rig.link.rt(0).counters("wg0")?, rig.peer(0)?);
    let moved = now.0.since(&before.0);
    ensure!(
        moved.are(&[("tx_packets", 40), ("tx_bytes", sent)]),
        "the device counted {moved:?}, {sent} bytes were sent"
    );
    let tx = now.1.tx_bytes - before.1.tx_bytes;
    ensure!(tx == sent, "the peer counted {tx} of {sent} bytes");

    let datagrams = in_datagrams(&rig)?;
    let first = session.counter + 1;
    let messages = (0..COUNT).map(|n| message(&session, first + n as u64, b"text"));
    send_together(&rig, &messages.collect::<Vec<_>>())?;
    ensure!(heard(&rig.app, COUNT)?.len() == COUNT, "not all arrived");
    let counted = in_datagrams(&rig)? - datagrams;
    // Outside and inside; the app's socket counts what it has read.
    ensure!(counted == 2 * COUNT as u64, "{counted} datagrams counted");
    let received = (COUNT * LEN) as u64;
    let last = (rig.link.rt(0).counters("wg0")?, rig.peer(0)?);
    let moved = last.0.since(&now.0);
    ensure!(
        moved.are(&[("rx_packets", COUNT as u64), ("rx_bytes", received)]),
        "the device counted {moved:?}, {received} bytes came"
    );
    let rx = last.1.rx_bytes - now.1.rx_bytes;
    ensure!(rx == received, "the peer counted {rx} of {received} bytes");
    Ok(())
}

/// What either driver counts for the same datagrams, and what the stack counts for its sockets.
#[derive(Debug, PartialEq)]
struct Counted {
    devices: [Counters; 2],
    /// Bytes sent to and received from the other end.
    peers: [[u64; 2]; 2],
    udp: [BTreeMap<String, u64>; 2],
}

/// Either driver counts the same for the same datagrams, whatever the family outside.
fn alike(ctx: &Ctx) -> Result<()> {
    for v6 in [false, true] {
        let [ours, intree] = ctx.against_intree();
        let [c, rs] = [intree, ours].map(|driver| count(driver, v6));
        let (c, rs) = (c.context("in-tree")?, rs.context("ours")?);
        ensure!(c == rs, "IPv6 {v6}: in-tree {c:#?}, ours {rs:#?}");
    }
    Ok(())
}

fn count(driver: Driver, v6: bool) -> Result<Counted> {
    let mut tunnel = Tunnel::new(&Opts {
        v6,
        ..Opts::new([driver; 2])
    })?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    // Let its last message be counted.
    sleep(MOMENT);
    let before = look(&mut tunnel)?;
    USUAL.pass_datagrams([tunnel.ns(0), tunnel.ns(1)], [false; 2])?;
    sleep(MOMENT);
    let now = look(&mut tunnel)?;
    let each = [0, 1];
    Ok(Counted {
        devices: each.map(|n| now.devices[n].since(&before.devices[n])),
        peers: each.map(|n| each.map(|k| now.peers[n][k] - before.peers[n][k])),
        udp: each.map(|n| since(&now.udp[n], &before.udp[n])),
    })
}

/// The present counts.
fn look(tunnel: &mut Tunnel) -> Result<Counted> {
    let peers = [tunnel.peer(0)?, tunnel.peer(1)?];
    Ok(Counted {
        devices: [tunnel.counters(0)?, tunnel.counters(1)?],
        peers: peers.map(|peer| [peer.tx_bytes, peer.rx_bytes]),
        udp: [of_udp(tunnel.ns(0))?, of_udp(tunnel.ns(1))?],
    })
}
