// SPDX-License-Identifier: GPL-2.0-only
//! Devices and the namespaces in which they were created.

use super::{drop_in, Test};
use anyhow::{ensure, Context, Result};
use harness::driver::PLAIN;
use harness::netns::Netns;
use harness::pace::slow;
use harness::runner::Ctx;
use harness::topo::{inner, names, outer, port, End, Link, Opts, Tunnel};
use harness::traffic::{ping_all, tcp, udp};
use harness::wgdev::{random_key, DeviceConf, PeerConf, Wg};
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{sleep, JoinHandle};
use std::time::{Duration, Instant};

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "netns-move", 60, moved);
    drop_in(list, "netns-creator-dies", 90, creator_dies);
    drop_in(list, "netns-dies-with-device", 60, dies_with_device);
    drop_in(list, "netns-move-under-traffic", 90, move_under_traffic);
    drop_in(list, "netns-both-moved", 90, both_moved);
}

/// Moves end 0's device into a namespace that has no other link, and brings it up there.
fn move_away(link: &mut Link, away: &Netns) -> Result<()> {
    let fd = away.fd();
    link.rt(0).set_netns("wg0", fd)?;
    let mut rt = away.rtnl()?;
    rt.addr_add("wg0", inner(false, 0), 24)?;
    rt.addr_add("wg0", inner(true, 0), 64)?;
    Ok(rt.set_up("wg0", true)?)
}

/// A moved device's sockets stay in the creating namespace: it works where there is no other link.
fn moved(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
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
    // Configurable in the new namespace; ENODEV in the old one.
    let mut there = Wg::open(&away, PLAIN.kind)?;
    ensure!(
        there.get("wg0")?.peers.len() == 1,
        "not configurable in its new namespace"
    );
    let mut here = Wg::open(tunnel.ns(0), PLAIN.kind)?;
    ensure!(
        here.get("wg0").err() == Some(Errno::ENODEV),
        "still visible in its old namespace"
    );
    Ok(())
}

/// When the creating namespace is deleted, the device loses its carrier and cannot be opened again.
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
            "the carrier stays up"
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
        "setting the port returns {refused:?}"
    );
    let mark_conf = DeviceConf {
        fwmark: Some(1),
        ..DeviceConf::default()
    };
    let refused = wg.set("wg0", &mark_conf);
    ensure!(
        refused == Err(Errno::EPERM),
        "setting the fwmark returns {refused:?}"
    );
    rt.set_up("wg0", false)?;
    let refused = rt.set_up("wg0", true);
    ensure!(
        refused == Err(Errno::ENONET),
        "bringing it up returns {refused:?}"
    );
    wg.get("wg0").context("the device is no longer readable")?;
    Ok(rt.link_del("wg0")?)
}

/// A namespace that is deleted with a working device in it takes the device and the underlay link
/// with it; the other end's device is unaffected.
fn dies_with_device(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let Tunnel { link, ends } = tunnel;
    drop(ends); // their sockets would keep both namespaces alive
    let [dying, staying] = link.into_namespaces();
    let mut rt = staying.rtnl()?;
    rt.index("v1").context("before the namespace's death")?;
    drop(dying);
    // The kernel deletes all links of a namespace together, and with them the veth's other half.
    let start = Instant::now();
    while rt.index("v1") != Err(Errno::ENODEV) {
        ensure!(
            start.elapsed() < slow(Duration::from_secs(30)),
            "the namespace is not deleted"
        );
        sleep(Duration::from_millis(20));
    }
    let flags = rt.link("wg1")?.flags;
    ensure!(flags & libc::IFF_UP as u32 != 0, "wg1 went down by itself");
    let device = Wg::open(&staying, PLAIN.kind)?.get("wg1")?;
    ensure!(
        device.listen_port == port(1) && device.peers.len() == 1,
        "the other end has changed: {device:?}"
    );
    // The harness also detects a link that hangs in unregistration or holds a namespace.
    Ok(rt.link_del("wg1")?)
}

/// Sends datagrams from `ns` to inner address `to` until told to stop; errors are expected.
fn flood(ns: &Netns, to: IpAddr, stop: &Arc<AtomicBool>) -> Result<JoinHandle<Result<()>>> {
    let stop = stop.clone();
    ns.spawn(move || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        while !stop.load(Ordering::Relaxed) {
            let _ = socket.send_to(&[0; 700], (to, 9));
            sleep(Duration::from_micros(300));
        }
        Ok(())
    })
}

/// Moved back and forth while both ends send: then it works, its sockets where it was created.
fn move_under_traffic(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let away = Netns::new("away")?;
    let stop = Arc::new(AtomicBool::new(false));
    let threads = [
        flood(tunnel.ns(0), inner(false, 1), &stop)?,
        flood(&away, inner(false, 1), &stop)?,
        flood(tunnel.ns(1), inner(false, 0), &stop)?,
    ];
    let moved = (|| -> Result<()> {
        for round in 0..6 {
            move_away(&mut tunnel.link, &away).with_context(|| format!("round {round}, away"))?;
            sleep(Duration::from_millis(60));
            let back = tunnel.ns(0).fd();
            away.rtnl()?.set_netns("wg0", back)?;
            tunnel.rt(0).addr_add("wg0", inner(false, 0), 24)?;
            tunnel.rt(0).addr_add("wg0", inner(true, 0), 64)?;
            let up = tunnel.rt(0).set_up("wg0", true);
            up.with_context(|| format!("round {round}, back"))?;
            sleep(Duration::from_millis(60));
        }
        Ok(())
    })();
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("traffic thread panicked")?;
    }
    moved?;
    ping_all(tunnel.ns(0), inner(true, 1), 2)?;
    move_away(&mut tunnel.link, &away)?;
    ping_all(&away, inner(false, 1), 2)
}

/// Both devices are moved away from where they were created, and exchange traffic. Then the
/// creating namespaces are deleted under that traffic: the devices are cut off, but stay, are
/// partly configurable, and can be deleted, directly or with the namespace they are in.
fn both_moved(ctx: &Ctx) -> Result<()> {
    const IFLA_CARRIER: u16 = 33;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let homes = [Netns::new("x")?, Netns::new("y")?];
    for n in 0..2u8 {
        let home = &homes[usize::from(n)];
        let name = names(n).0;
        tunnel.rt(n).set_netns(name, home.fd())?;
        let mut rt = home.rtnl()?;
        for (v6, len) in [(false, 24), (true, 64)] {
            rt.addr_add(name, inner(v6, n), len)?;
        }
        rt.set_up(name, true)?;
    }
    ping_all(&homes[0], inner(false, 1), 2)?;
    let at = SocketAddr::new(inner(true, 1), 5000);
    tcp(&homes[0], &homes[1], at, 1 << 18, Duration::from_secs(10))?;
    let stop = Arc::new(AtomicBool::new(false));
    let threads = [
        flood(&homes[0], inner(false, 1), &stop)?,
        flood(&homes[1], inner(false, 0), &stop)?,
    ];
    let Tunnel { link, ends } = tunnel;
    drop(ends);
    let mut rt = [homes[0].rtnl()?, homes[1].rtnl()?];
    drop(link); // both creating namespaces
    let mut gone = || -> Result<()> {
        let start = Instant::now();
        for n in 0..2u8 {
            let rt = &mut rt[usize::from(n)];
            while rt.link_attr(names(n).0, IFLA_CARRIER)?.as_deref() != Some(&[0]) {
                let took = start.elapsed();
                ensure!(took < Duration::from_secs(30), "end {n} keeps its carrier");
                sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    };
    let went = gone();
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("traffic thread panicked")?;
    }
    went?;
    // Without carrier the stack itself drops packets, without an error.
    let start = Instant::now();
    while rt[0].link_attr("wg0", libc::IFLA_OPERSTATE)?.as_deref() != Some(&[2]) {
        ensure!(start.elapsed() < Duration::from_secs(10), "it is not down");
        sleep(Duration::from_millis(20));
    }
    sleep(Duration::from_millis(100));
    let before = rt[0].counters("wg0")?;
    let mut wg = Wg::open(&homes[0], PLAIN.kind)?;
    let device = wg.get("wg0")?;
    ensure!(device.listen_port == port(0), "port {}", device.listen_port);
    let socket = udp(&homes[0], "0.0.0.0:0".parse()?)?;
    for _ in 0..3 {
        socket.send_to(&[1; 50], (inner(false, 1), 9))?;
    }
    sleep(Duration::from_millis(200));
    rt[0].expect_moved("wg0", &before, &[("tx_dropped", 3)])?;
    let after = wg.get("wg0")?;
    ensure!(
        after.peers[0].tx_bytes == device.peers[0].tx_bytes,
        "the peer counts bytes sent"
    );
    // Attributes that do not involve sockets can be set, others cannot.
    let peer = PeerConf {
        public_key: device.peers[0].public_key,
        endpoint: Some("192.0.2.99:9".parse()?),
        keepalive: Some(1),
        allowed_ips: vec![("10.77.0.0".parse()?, 16)],
        ..PeerConf::default()
    };
    let conf = DeviceConf {
        private_key: Some(random_key()),
        peers: vec![peer],
        ..DeviceConf::default()
    };
    wg.set("wg0", &conf)
        .context("key and peer, without namespace")?;
    for (what, conf) in [
        (
            "port",
            DeviceConf {
                listen_port: Some(0),
                ..DeviceConf::default()
            },
        ),
        (
            "the same port",
            DeviceConf {
                listen_port: Some(port(0)),
                ..DeviceConf::default()
            },
        ),
        (
            "mark",
            DeviceConf {
                fwmark: Some(0),
                ..DeviceConf::default()
            },
        ),
    ] {
        let set = wg.set("wg0", &conf);
        ensure!(set == Err(Errno::EPERM), "setting the {what}: {set:?}");
    }
    let [rt0, rt1] = &mut rt;
    rt0.set_up("wg0", false)?;
    let up = rt0.set_up("wg0", true);
    ensure!(up == Err(Errno::ENONET), "up: {up:?}");
    // It can still be moved, and deleted there.
    let last = Netns::new("z")?;
    rt0.set_netns("wg0", last.fd())?;
    let mut there = last.rtnl()?;
    let up = there.set_up("wg0", true);
    ensure!(up == Err(Errno::ENONET), "up after another move: {up:?}");
    there.link_del("wg0")?;
    // The other one is deleted with its namespace, up and with a peer.
    let flags = rt1.link("wg1")?.flags;
    ensure!(flags & libc::IFF_UP as u32 != 0, "wg1 went down by itself");
    Ok(())
}
