// SPDX-License-Identifier: GPL-2.0-only
//! Packet sizes: padding, the MTU, fragments inside and outside, segmentation offload.

use super::{drop_in, Test};
use anyhow::{ensure, Result};
use harness::capture::Capture;
use harness::packet::{Datagram, PacketSocket, IPV4};
use harness::runner::Ctx;
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::{ping, ping_all, tcp, udp};
use harness::wgdev::PeerConf;
use harness::wire::{frame, Frame};
use nix::errno::Errno;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);
/// Long enough to notice an answer that must not come.
const A_WHILE: Duration = Duration::from_millis(100);

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "mtu-padding", 60, padding);
    drop_in(list, "mtu-large-pings", 90, large_pings);
    drop_in(list, "mtu-outer-fragments", 90, outer_fragments);
    drop_in(list, "mtu-tcp-gso", 120, tcp_gso);
    drop_in(list, "mtu-small-and-zero", 90, small_and_zero);
}

/// A data message is 32 bytes longer than the inner packet padded to a multiple of 16, but at most
/// 32 bytes longer than the MTU.
fn padding(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
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
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
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
        let tunnel = Tunnel::new(&opts)?;
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

/// TCP hands packets above the MTU to the device, and all data arrives.
fn tcp_gso(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
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

/// Small MTUs work; the minimum and the maximum do no harm.
fn small_and_zero(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    for mtu in [1280, 600, 81, 80, 68] {
        for n in 0..2 {
            tunnel.rt(n).set_mtu(harness::topo::names(n).0, mtu)?;
        }
        let got = ping(tunnel.ns(0), inner(false, 1), 2, 500, LIMIT)?;
        ensure!(got == 2, "{got} of 2 answers with MTU {mtu}");
    }
    let at = SocketAddr::new(inner(false, 1), 5000);
    tunnel.rt(0).set_mtu("wg0", 600)?;
    tunnel.rt(1).set_mtu("wg1", 600)?;
    tcp(tunnel.ns(0), tunnel.ns(1), at, 1 << 18, LIMIT)?;
    extremes(ctx, &mut tunnel)?;
    ensure!(
        tunnel.rt(0).set_mtu("wg0", 2_147_483_553).is_err(),
        "an MTU above the maximum"
    );
    tunnel.rt(0).set_mtu("wg0", 1420)?;
    tunnel.rt(1).set_mtu("wg1", 1420)?;
    // The stack has removed it.
    tunnel.rt(0).addr_add("wg0", inner(false, 0), 24)?;
    ping_all(tunnel.ns(0), inner(false, 1), 2)
}

/// With an MTU below 68 the stack removes IPv4 from end 0's device and hands it no longer packet.
/// But the tunnel stays usable: packets are received and keepalives are sent; with the maximum MTU
/// packets are sent, too.
fn extremes(ctx: &Ctx, tunnel: &mut Tunnel) -> Result<()> {
    // Keep IPv6 from sending anything when it comes back.
    tunnel.ns(0).run(|| {
        for of in ["all", "default"] {
            let file = format!("/proc/sys/net/ipv6/conf/{of}/disable_ipv6");
            fs::write(file, "1")?;
        }
        Ok(())
    })?;
    let at = |n| SocketAddr::new(inner(false, n), 9);
    let _sink = udp(tunnel.ns(1), at(1))?;
    let packet = Datagram::new(at(0), at(1), 0, &[5; 60]).packet();
    let device = PacketSocket::open(tunnel.ns(0), "wg0", false)?;
    let too_long = Err(Errno::EMSGSIZE);
    for (mtu, wanted) in [(0u32, too_long), (1, too_long), (2_147_483_552, Ok(()))] {
        let what = format!("MTU {mtu}");
        tunnel.rt(0).set_mtu("wg0", mtu)?;
        let before = tunnel.counters(0)?;
        for n in [0, 1] {
            let got = ping(tunnel.ns(n), inner(false, 1 - n), 2, 20, A_WHILE)?;
            ensure!(got == 0, "{what}: {got} answers to end {n}'s pings");
        }
        let mut moved = vec![("rx_packets", 2), ("rx_bytes", 2 * (48 + 32))];
        tunnel.expect_moved(0, &before, &moved, &what)?;
        let wire = tunnel.watch(ctx, 0)?;
        let sent = device.send(IPV4, &packet);
        ensure!(sent == wanted, "{what}: a packet by hand: {sent:?}");
        let mut lens = vec![32];
        if wanted.is_ok() {
            lens.insert(0, 96 + 32);
        }
        for keepalive in [100, 0] {
            let conf = PeerConf {
                keepalive: Some(keepalive),
                ..PeerConf::default()
            };
            tunnel.set_peer(0, conf)?;
        }
        moved.push(("tx_packets", lens.len() as u64));
        moved.push(("tx_bytes", lens.iter().sum::<usize>() as u64));
        tunnel.expect_moved(0, &before, &moved, &what)?;
        let seen = wire.wait(lens.len(), LIMIT, |s| s.outgoing)?;
        let seen: Vec<usize> = seen.iter().filter_map(|s| s.data_len()).collect();
        ensure!(seen == lens, "{what}: messages of {seen:?}, not {lens:?}");
    }
    Ok(())
}
