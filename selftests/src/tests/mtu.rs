// SPDX-License-Identifier: GPL-2.0
//! Packet sizes: padding, the MTU, fragments inside and outside, segmentation offload.

use super::{drop_in, Test};
use crate::harness::capture::Capture;
use crate::harness::runner::Ctx;
use crate::harness::topo::{inner, Opts, Tunnel};
use crate::harness::traffic::{ping, ping_all, tcp};
use crate::harness::wire::{frame, Frame};
use anyhow::{ensure, Result};
use std::net::SocketAddr;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "mtu-padding", 60, padding);
    drop_in(list, "mtu-large-pings", 90, large_pings);
    drop_in(list, "mtu-outer-fragments", 90, outer_fragments);
    drop_in(list, "mtu-tcp-gso", 120, tcp_gso);
    drop_in(list, "mtu-small-and-zero", 90, small_and_zero);
}

/// Data messages have 32 bytes more than the inner packet padded to 16, but never more than the
/// MTU and 32.
fn padding(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(ctx, &Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    for size in [
        0usize, 1, 3, 4, 5, 20, 100, 1363, 1364, 1365, 1380, 1381, 1391, 1392,
    ] {
        let underlay = tunnel.watch(ctx, 0)?;
        let got = ping(tunnel.ns(0), inner(false, 1), 1, size, LIMIT)?;
        ensure!(got == 1, "no answer to a ping of {size} bytes");
        let packet = size + 28;
        let wanted = packet.next_multiple_of(16).min(1420) + 32;
        for outgoing in [true, false] {
            let lens: Vec<usize> = underlay
                .wait(2, LIMIT, |s| s.data_len().is_some())?
                .iter()
                .filter(|s| s.outgoing == outgoing)
                .filter_map(|s| s.data_len())
                .collect();
            ensure!(
                lens == [wanted],
                "inner packet of {packet} bytes: {lens:?}, not {wanted}"
            );
        }
    }
    Ok(())
}

/// Pings far above the MTU are fragmented inside the tunnel.
fn large_pings(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(ctx, &Opts::new(ctx.plain()))?;
    for v6 in [false, true] {
        ping_all(tunnel.ns(0), inner(v6, 1), 1)?;
        for size in [1393usize, 3000, 20_000, 60_000] {
            let got = ping(tunnel.ns(0), inner(v6, 1), 3, size, LIMIT)?;
            ensure!(got == 3, "{got} of 3 answers to pings of {size} bytes");
        }
    }
    Ok(())
}

/// A device MTU above what the underlay carries: the outer packets are fragmented.
fn outer_fragments(ctx: &Ctx) -> Result<()> {
    for v6 in [false, true] {
        let opts = Opts {
            v6,
            mtu: Some(4000),
            ..Opts::new(ctx.plain())
        };
        let tunnel = Tunnel::new(ctx, &opts)?;
        ping_all(tunnel.ns(0), inner(false, 1), 1)?;
        let underlay = tunnel.watch(ctx, 0)?;
        for size in [1472usize, 2000, 3900] {
            let got = ping(tunnel.ns(0), inner(false, 1), 2, size, LIMIT)?;
            ensure!(got == 2, "{got} of 2 answers to pings of {size} bytes");
        }
        let at = SocketAddr::new(inner(true, 1), 5000);
        tcp(tunnel.ns(0), tunnel.ns(1), at, 1 << 20, LIMIT)?;
        let frames = underlay.stop()?;
        let fragments = frames
            .iter()
            .filter(|f| frame(&f.bytes) == Frame::Fragment)
            .count();
        ensure!(
            fragments > 100,
            "only {fragments} fragments on the underlay"
        );
    }
    Ok(())
}

/// TCP hands packets above the MTU to the device, and all arrives.
fn tcp_gso(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(ctx, &Opts::new(ctx.plain()))?;
    for v6 in [false, true] {
        let device = Capture::start(tunnel.ns(0), "wg0")?;
        let at = SocketAddr::new(inner(v6, 1), 5000);
        tcp(tunnel.ns(0), tunnel.ns(1), at, 2 << 20, LIMIT)?;
        let longest = device
            .stop()?
            .iter()
            .map(|f| f.bytes.len())
            .max()
            .unwrap_or(0);
        ensure!(
            longest > 1420,
            "the longest packet on wg0 has {longest} bytes: no GSO"
        );
    }
    Ok(())
}

/// Small MTUs work; MTU 0 does no harm.
fn small_and_zero(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(ctx, &Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    for mtu in [1280, 600, 81, 80, 68] {
        for n in 0..2 {
            tunnel
                .rt(n)
                .set_mtu(crate::harness::topo::names(n).0, mtu)?;
        }
        let got = ping(tunnel.ns(0), inner(false, 1), 2, 500, LIMIT)?;
        ensure!(got == 2, "{got} of 2 answers with MTU {mtu}");
    }
    let at = SocketAddr::new(inner(false, 1), 5000);
    tunnel.rt(0).set_mtu("wg0", 600)?;
    tunnel.rt(1).set_mtu("wg1", 600)?;
    tcp(tunnel.ns(0), tunnel.ns(1), at, 1 << 18, LIMIT)?;
    for mtu in [0u32, 1, 2_147_483_552] {
        tunnel.rt(0).set_mtu("wg0", mtu)?;
        // Below 68 the stack takes IPv4 off; packets may still be forced out.
        let _ = ping(
            tunnel.ns(0),
            inner(false, 1),
            2,
            20,
            Duration::from_millis(100),
        )?;
        let _ = ping(
            tunnel.ns(1),
            inner(false, 0),
            2,
            20,
            Duration::from_millis(100),
        )?;
    }
    ensure!(
        tunnel.rt(0).set_mtu("wg0", 2_147_483_553).is_err(),
        "an MTU above the maximum"
    );
    tunnel.rt(0).set_mtu("wg0", 1420)?;
    tunnel.rt(1).set_mtu("wg1", 1420)?;
    let _ = tunnel.rt(0).addr_add("wg0", inner(false, 0), 24);
    ping_all(tunnel.ns(0), inner(false, 1), 2)
}
