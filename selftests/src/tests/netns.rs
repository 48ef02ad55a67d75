// SPDX-License-Identifier: GPL-2.0
//! Devices and the namespaces they were made in.

use super::{drop_in, Test};
use crate::harness::netns::Netns;
use crate::harness::pace::slow;
use crate::harness::runner::Ctx;
use crate::harness::topo::{inner, outer, port, End, Link, Opts, Tunnel, PLAIN};
use crate::harness::traffic::{ping_all, udp};
use crate::harness::wgdev::{DeviceConf, PeerConf, Wg};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "netns-move", 60, moved);
    drop_in(list, "netns-creator-dies", 90, creator_dies);
    drop_in(list, "netns-dies-with-device", 60, dies_with_device);
}

/// Moves end 0's device into a namespace of its own, without any other link, and readies it there.
fn move_away(link: &mut Link, away: &Netns) -> Result<()> {
    let fd = away.fd();
    link.rt(0).set_netns("wg0", fd)?;
    let mut rt = away.rtnl()?;
    rt.addr_add("wg0", inner(false, 0), 24)?;
    rt.addr_add("wg0", inner(true, 0), 64)?;
    Ok(rt.set_up("wg0", true)?)
}

/// A moved device's sockets stay where it was made: it works in a namespace without any way out.
fn moved(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(ctx, &Opts::new(ctx.plain()))?;
    let away = Netns::new("away")?;
    move_away(&mut tunnel.link, &away)?;
    for v6 in [false, true] {
        ping_all(&away, inner(v6, 1), 3)?;
        ping_all(tunnel.ns(1), inner(v6, 0), 3)?;
    }
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port(0)));
    ensure!(
        udp(tunnel.ns(0), any).is_err(),
        "the socket is not in the creating namespace"
    );
    ensure!(udp(&away, any).is_ok(), "the socket moved along");
    // Configured where it is; looked for where it was: no such device.
    let mut there = Wg::open(&away, PLAIN.kind)?;
    ensure!(
        there.get("wg0")?.peers.len() == 1,
        "not configurable in its new namespace"
    );
    let mut here = Wg::open(tunnel.ns(0), PLAIN.kind)?;
    ensure!(
        here.get("wg0").err() == Some(Errno::ENODEV),
        "still seen in its old namespace"
    );
    Ok(())
}

/// When the creating namespace goes, the device loses its carrier and cannot be opened again.
fn creator_dies(_: &Ctx) -> Result<()> {
    const IFLA_CARRIER: u16 = 33;
    let mut link = Link::new()?;
    let mut end = End::new(&mut link, 0, PLAIN, None)?;
    let peer = PeerConf {
        public_key: end.public_key,
        endpoint: Some(SocketAddr::new(outer(false, 1), port(1))),
        ..PeerConf::default()
    };
    end.set_peer(&link, peer)?;
    let away = Netns::new("away")?;
    move_away(&mut link, &away)?;
    let mut rt = away.rtnl()?;
    let carrier = rt.link_attr("wg0", IFLA_CARRIER)?;
    ensure!(carrier.as_deref() == Some(&[1]), "no carrier to begin with");
    drop(end);
    drop(link); // its sockets and both namespaces
    let start = Instant::now();
    while rt.link_attr("wg0", IFLA_CARRIER)?.as_deref() != Some(&[0]) {
        ensure!(
            start.elapsed() < slow(Duration::from_secs(30)),
            "the carrier stays on"
        );
        sleep(Duration::from_millis(20));
    }
    let mut wg = Wg::open(&away, PLAIN.kind)?;
    let port_conf = DeviceConf {
        listen_port: Some(1234),
        ..DeviceConf::default()
    };
    let refused = wg.set("wg0", &port_conf);
    ensure!(
        refused == Err(Errno::EPERM),
        "setting the port gives {refused:?}"
    );
    let mark_conf = DeviceConf {
        fwmark: Some(1),
        ..DeviceConf::default()
    };
    let refused = wg.set("wg0", &mark_conf);
    ensure!(
        refused == Err(Errno::EPERM),
        "setting the fwmark gives {refused:?}"
    );
    rt.set_up("wg0", false)?;
    let refused = rt.set_up("wg0", true);
    ensure!(
        refused == Err(Errno::ENONET),
        "bringing it up gives {refused:?}"
    );
    wg.get("wg0")
        .context("the device is not readable any more")?;
    Ok(rt.link_del("wg0")?)
}

/// A namespace that goes with a working device in it takes the device along.
fn dies_with_device(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(ctx, &Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    drop(tunnel);
    // A link that hung in unregistration or held a namespace is found by the harness.
    let root = crate::harness::rtnl::Rtnl::open();
    root.map(drop)
        .context("netlink after the namespaces' death")
}
