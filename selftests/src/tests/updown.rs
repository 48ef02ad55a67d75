// SPDX-License-Identifier: GPL-2.0-only
//! A link going up and down: its sockets, what is purged, what is kept.

use super::{drop_in, Test};
use anyhow::{bail, ensure, Context, Result};
use harness::bpf::Calls;
use harness::capture::{Capture, Injector};
use harness::driver::PLAIN;
use harness::kmsg::Kmsg;
use harness::netns::Netns;
use harness::pace::amount;
use harness::packet::Datagram;
use harness::runner::{Ctx, Skip};
use harness::topo::{inner, names, outer, port, Opts, Tunnel};
use harness::traffic::{ping_all, udp};
use harness::wgdev::{random_key, DeviceConf, PeerConf, Wg};
use nix::errno::Errno;
use nix::sys::socket::{
    bind, setsockopt, socket, sockopt, AddressFamily, SockFlag, SockType, SockaddrIn6,
};
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::sleep;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
/// Long enough to notice what must not happen.
const A_WHILE: Duration = Duration::from_millis(400);

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "up-port-taken", 60, port_taken);
    drop_in(list, "up-port-random", 60, port_random);
    drop_in(list, "calls-port-retries", 60, port_retries);
    drop_in(list, "up-send-buffer", 60, send_buffer);
    drop_in(list, "up-without-ipv6", 60, without_ipv6);
    drop_in(list, "down-purges", 60, down_purges);
    drop_in(list, "down-keeps", 60, down_keeps);
    drop_in(list, "down-while-received", 90, down_while_received);
}

/// Sockets are closed while they receive: what the kernel counts of their memory is right in the
/// end, or it warns.
fn down_while_received(ctx: &Ctx) -> Result<()> {
    const ROUNDS: u64 = 150;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let stop = AtomicBool::new(false);
    let (from, to) = (tunnel.ns(1), SocketAddr::new(outer(false, 0), port(0)));
    let sockets = [udp(from, any4(0))?, udp(from, any4(0))?];
    std::thread::scope(|scope| {
        for socket in &sockets {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    // No message at all.
                    let _ = socket.send_to(&[7; 60], to);
                }
            });
        }
        let rounds = || -> Result<()> {
            for _ in 0..amount(ROUNDS, 20) {
                tunnel.link.ns[0].rtnl()?.set_up("wg0", false)?;
                tunnel.link.ns[0].rtnl()?.set_up("wg0", true)?;
                sleep(Duration::from_millis(5));
            }
            Ok(())
        };
        let done = rounds();
        stop.store(true, Relaxed);
        done
    })?;
    tunnel.rt(0).set_up("wg0", false)?;
    tunnel.rt(0).set_up("wg0", true)?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)
}

fn any4(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

/// An IPv6-only socket on `port`.
fn only6(ns: &Netns, port: u16) -> Result<OwnedFd> {
    ns.run(|| {
        let fd = socket(
            AddressFamily::Inet6,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
        let addr = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0));
        bind(fd.as_raw_fd(), &addr)?;
        Ok(fd)
    })
}

fn listen(port: u16) -> DeviceConf {
    DeviceConf {
        listen_port: Some(port),
        ..DeviceConf::default()
    }
}

/// A port in use by another socket: refused, for either family, with nothing left behind.
fn port_taken(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let mut wg = Wg::open(tunnel.ns(0), PLAIN.kind)?;
    let mut rt = tunnel.ns(0).rtnl()?;
    for (family, taken) in [("IPv4", 5000), ("IPv6", 5001)] {
        let hold4 = (family == "IPv4").then(|| udp(tunnel.ns(0), any4(taken)));
        let hold6 = (family == "IPv6").then(|| only6(tunnel.ns(0), taken));
        let mut log = Kmsg::at_end()?;
        // While up: refused at once, and the old sockets stay.
        let set = wg.set("wg0", &listen(taken));
        ensure!(
            set == Err(Errno::EADDRINUSE),
            "{family}: set while up returns {set:?}"
        );
        let has = wg.get("wg0")?.listen_port;
        ensure!(has == port(0), "{family}: the port has changed to {has}");
        ping_all(tunnel.ns(0), inner(false, 1), 2)
            .with_context(|| format!("{family}: after the refusal"))?;
        ensure!(
            udp(tunnel.ns(0), any4(port(0))).is_err(),
            "{family}: the old socket is gone"
        );
        // While down: accepted, and refused when it goes up.
        rt.set_up("wg0", false)?;
        wg.set("wg0", &listen(taken))
            .with_context(|| format!("{family}: set while down"))?;
        let up = rt.set_up("wg0", true);
        ensure!(up == Err(Errno::EADDRINUSE), "{family}: up returns {up:?}");
        let flags = rt.link("wg0")?.flags;
        ensure!(
            flags & libc::IFF_UP as u32 == 0,
            "{family}: it is up anyway, flags {flags:#x}"
        );
        let has = wg.get("wg0")?.listen_port;
        ensure!(
            has == taken,
            "{family}: the port is {has} after the attempt"
        );
        let said = log.drain()?;
        let line = format!("wireguard: wg0: Could not create {family} socket");
        let count = said.iter().filter(|l| **l == line).count();
        ensure!(count == 2, "{family}: the log says {said:?}");
        // No socket of either family is left.
        drop((hold4, hold6));
        drop(only6(tunnel.ns(0), taken).with_context(|| format!("{family}: left over"))?);
        drop(udp(tunnel.ns(0), any4(taken)).with_context(|| format!("{family}: left over"))?);
        rt.set_up("wg0", true)
            .with_context(|| format!("{family}: up after all"))?;
        wg.set("wg0", &listen(port(0)))?;
        ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    }
    // The same for another device of the same kind.
    rt.link_add("wg7", PLAIN.kind)?;
    wg.set("wg7", &listen(port(0)))?;
    let up = rt.set_up("wg7", true);
    ensure!(up == Err(Errno::EADDRINUSE), "a second device: {up:?}");
    rt.link_del("wg7")?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)
}

/// Port 0 selects a port that is free for both families and is then kept.
fn port_random(_: &Ctx) -> Result<()> {
    let ns = Netns::new("a")?;
    let mut rt = ns.rtnl()?;
    rt.link_add("wg0", PLAIN.kind)?;
    let mut wg = Wg::open(&ns, PLAIN.kind)?;
    ensure!(
        wg.get("wg0")?.listen_port == 0,
        "a port before the first up"
    );
    rt.set_up("wg0", true)?;
    let first = wg.get("wg0")?.listen_port;
    ensure!(first != 0, "no port after up");
    ensure!(
        udp(&ns, any4(first)).is_err() && only6(&ns, first).is_err(),
        "port {first} is not held for both families"
    );
    rt.set_up("wg0", false)?;
    rt.set_up("wg0", true)?;
    let again = wg.get("wg0")?.listen_port;
    ensure!(
        again == first,
        "the random port {first} has changed to {again}"
    );
    // Setting the same port, and 0, while up.
    wg.set("wg0", &listen(first))?;
    ensure!(wg.get("wg0")?.listen_port == first, "setting the same port");
    let mut others = 0;
    for _ in 0..4 {
        wg.set("wg0", &listen(0))?;
        others += u32::from(wg.get("wg0")?.listen_port != first);
    }
    ensure!(others > 0, "0 while up selects no new port");
    // One of two ports is in use for IPv6: retried until the other is chosen.
    two_ports(&ns)?;
    let one = only6(&ns, 40000)?;
    for round in 0..6 {
        // Take it down, or it would itself hold the free port.
        rt.set_up("wg0", false)?;
        wg.set("wg0", &listen(0))?;
        rt.set_up("wg0", true)?;
        let has = wg.get("wg0")?.listen_port;
        ensure!(has == 40001, "round {round}: port {has}, not 40001");
    }
    // Both are in use: it finally gives up and releases what it had opened.
    wg.set("wg0", &listen(50000))?;
    let two = only6(&ns, 40001)?;
    let set = wg.set("wg0", &listen(0));
    ensure!(
        set == Err(Errno::EADDRINUSE),
        "0 without a free port, while up: {set:?}"
    );
    ensure!(wg.get("wg0")?.listen_port == 50000, "the port is lost");
    ensure!(udp(&ns, any4(50000)).is_err(), "the socket is lost");
    for port in [40000, 40001] {
        udp(&ns, any4(port)).with_context(|| format!("port {port} is still held"))?;
    }
    drop((one, two));
    Ok(())
}

/// Leaves only the ports 40000 and 40001 for automatic selection.
fn two_ports(ns: &Netns) -> Result<()> {
    ns.run(|| {
        let file = "/proc/sys/net/ipv4/ip_local_port_range";
        Ok(fs::write(file, "40000 40001")?)
    })
}

/// When IPv6 refuses the random ports that IPv4 gets, 100 retries follow the first attempt.
fn port_retries(_: &Ctx) -> Result<()> {
    const OPENED: [&str; 2] = ["udp_sock_create4", "udp_sock_create6"];
    let ns = Netns::new("a")?;
    let mut rt = ns.rtnl()?;
    rt.link_add("wg0", PLAIN.kind)?;
    two_ports(&ns)?;
    let _taken = (only6(&ns, 40000)?, only6(&ns, 40001)?);
    let calls = Calls::attach(&OPENED)?;
    let up = rt.set_up("wg0", true);
    ensure!(up == Err(Errno::EADDRINUSE), "up: {up:?}");
    for function in OPENED {
        let count = calls.of(function)?;
        ensure!(count == 101, "{function} was called {count} times");
    }
    Ok(())
}

/// The sockets' send buffers are unlimited: sending must not wait for earlier packets.
fn send_buffer(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    for family in ["-4", "-6"] {
        // Sizes in bytes, as in skmem:(r0,rb212992,t0,tb2147483647,…).
        let shown = tunnel.ns(0).sh(&format!("ss {family} -uanmH"))?;
        let Some((_, memory)) = shown.split_once("skmem:(") else {
            ensure!(shown.contains(":51820"), "no socket: {shown}");
            bail!(Skip(
                "this kernel does not report a socket's memory".to_owned()
            ));
        };
        let bound = memory.split(',').find_map(|part| part.strip_prefix("tb"));
        ensure!(
            shown.matches("skmem:(").count() == 1 && bound == Some("2147483647"),
            "{family}: {shown}"
        );
    }
    Ok(())
}

/// With IPv6 disabled, as far as possible at run time, IPv4 works as usual.
fn without_ipv6(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    for (what, mtu, off) in [
        ("an MTU below 1280", 1000, "0"),
        ("disable_ipv6", 1420, "1"),
    ] {
        tunnel.rt(0).set_up("wg0", false)?;
        tunnel.ns(0).run(|| {
            for of in ["all", "default"] {
                let file = format!("/proc/sys/net/ipv6/conf/{of}/disable_ipv6");
                fs::write(file, off)?;
            }
            Ok(())
        })?;
        tunnel.rt(0).set_mtu("wg0", mtu)?;
        tunnel.rt(0).set_up("wg0", true).context(what)?;
        ping_all(tunnel.ns(0), inner(false, 1), 2).context(what)?;
        ensure!(
            udp(tunnel.ns(0), any4(port(0))).is_err(),
            "{what}: no IPv4 socket"
        );
        ensure!(
            only6(tunnel.ns(0), port(0)).is_err(),
            "{what}: no IPv6 socket"
        );
    }
    Ok(())
}

/// Staged packets are dropped and counted when the link goes down; timers and sockets are gone.
fn down_purges(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let any = UdpSocket::bind;
    let send = |tunnel: &Tunnel, count: usize, to: Ipv4Addr| {
        tunnel.ns(0).run(|| {
            let socket = any("0.0.0.0:0")?;
            for _ in 0..count {
                socket.send_to(&[7; 100], (to, 9))?;
            }
            Ok(())
        })
    };
    // Two peers that never answer.
    let lost = [Ipv4Addr::new(10, 9, 0, 50), Ipv4Addr::new(10, 9, 0, 51)];
    for to in lost {
        let peer = PeerConf {
            public_key: random_key(),
            endpoint: Some(SocketAddr::new(outer(false, 1), 9)),
            keepalive: Some(1),
            allowed_ips: vec![(to.into(), 32)],
            ..PeerConf::default()
        };
        tunnel.ends[0].set_peer(&tunnel.link, peer)?;
    }
    sleep(A_WHILE);
    // The persistent keepalives of the two are staged, too.
    let before = tunnel.rt(0).counters("wg0")?;
    send(&tunnel, 5, lost[0])?;
    send(&tunnel, 7, lost[1])?;
    let waiting = tunnel.rt(0).counters("wg0")?.since(&before);
    ensure!(waiting.are(&[]), "while they wait: {waiting:?}");
    tunnel.rt(0).set_up("wg0", false)?;
    let moved = tunnel.rt(0).counters("wg0")?.since(&before);
    ensure!(
        moved.are(&[("tx_dropped", 12 + 2)]),
        "12 packets and 2 keepalives waited: {moved:?}"
    );
    ensure!(
        udp(tunnel.ns(0), any4(port(0))).is_ok() && only6(tunnel.ns(0), port(0)).is_ok(),
        "the sockets stay open when the link is down"
    );
    // No timer fires while it is down.
    let underlay = tunnel.watch(ctx, 0)?;
    sleep(Duration::from_millis(1300));
    let seen = underlay.seen();
    ensure!(seen.is_empty(), "it sends while down: {seen:?}");
    // When the link goes up, the peers with a persistent keepalive start a handshake at once, the
    // third does not. The interval is long, so that it is not the timer that starts it.
    for of in tunnel.ends[0].get(&tunnel.link)?.peers {
        if lost.iter().any(|to| of.allowed_ips == [((*to).into(), 32)]) {
            let rare = PeerConf {
                public_key: of.public_key,
                keepalive: Some(3000),
                ..PeerConf::default()
            };
            tunnel.ends[0].set_peer(&tunnel.link, rare)?;
        }
    }
    tunnel.rt(0).set_up("wg0", true)?;
    let seen = underlay.wait(2, LIMIT, |s| s.is_initiation())?;
    ensure!(
        seen.iter().all(|s| s.outgoing && s.dst.port() == 9),
        "going up, it sends {seen:?}"
    );
    let moved = tunnel.rt(0).counters("wg0")?.since(&before);
    ensure!(moved.value("tx_dropped") == 14, "going up: {moved:?}");
    ping_all(tunnel.ns(0), inner(false, 1), 1)
}

/// Configuration and statistics are kept; sessions and handshakes in progress are not.
fn down_keeps(ctx: &Ctx) -> Result<()> {
    let opts = Opts {
        psk: [Some([3; 32]); 2],
        ..Opts::new(ctx.plain())
    };
    let mut tunnel = Tunnel::new(&opts)?;
    let conf = DeviceConf {
        fwmark: Some(0),
        ..DeviceConf::default()
    };
    tunnel.ends[0].set(&tunnel.link, &conf)?;
    let wire = tunnel.watch(ctx, 1)?;
    // End 1 initiates, so that end 0 has consumed an initiation.
    ping_all(tunnel.ns(1), inner(false, 0), 2)?;
    let before = tunnel.ends[0].get(&tunnel.link)?;
    let frames = wire.stop()?;
    let replays: Vec<Vec<u8>> = frames
        .iter()
        .filter(|f| f.outgoing)
        .filter_map(|f| Some(Datagram::in_frame(&f.bytes)?.frame_from(1)))
        .collect();
    ensure!(replays.len() >= 3, "only {} messages", replays.len());

    tunnel.rt(0).set_up("wg0", false)?;
    let down = tunnel.ends[0].get(&tunnel.link)?;
    tunnel.rt(0).set_up("wg0", true)?;
    let up = tunnel.ends[0].get(&tunnel.link)?;
    for (when, device) in [("down", &down), ("up again", &up)] {
        let (was, is) = (&before.peers[0], &device.peers[0]);
        ensure!(
            device.listen_port == before.listen_port && device.private_key == before.private_key,
            "{when}: {device:?}, before {before:?}"
        );
        ensure!(
            is.last_handshake == was.last_handshake && !is.last_handshake.is_zero(),
            "{when}: last handshake {:?}, before {:?}",
            is.last_handshake,
            was.last_handshake
        );
        ensure!(
            (is.preshared_key, is.endpoint, is.rx_bytes, is.tx_bytes)
                == (was.preshared_key, was.endpoint, was.rx_bytes, was.tx_bytes)
                && is.allowed_ips == was.allowed_ips,
            "{when}: {is:?}, before {was:?}"
        );
    }
    // Replay the old messages: the initiation is too old, the data has no session.
    let counters = tunnel.rt(0).counters("wg0")?;
    let watch = Capture::start(tunnel.ns(0), names(0).1)?;
    let injector = Injector::open(tunnel.ns(1), names(1).1)?;
    for frame in &replays {
        injector.send(frame)?;
    }
    sleep(A_WHILE);
    let answers: Vec<_> = watch.seen().into_iter().filter(|s| s.outgoing).collect();
    ensure!(
        watch.seen().len() == replays.len(),
        "{} of {} replayed messages arrived",
        watch.seen().len(),
        replays.len()
    );
    ensure!(
        answers.is_empty(),
        "replayed messages were answered: {answers:?}"
    );
    let moved = tunnel.rt(0).counters("wg0")?.since(&counters);
    ensure!(moved.are(&[]), "replayed messages were counted: {moved:?}");
    // A new handshake starts at once, without the 5 s wait, and end 1 accepts the greater TAI64N.
    tunnel.ns(0).run(|| {
        UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", (inner(false, 1), 9))?;
        Ok(())
    })?;
    watch.wait(1, Duration::from_secs(4), |s| {
        s.outgoing && s.is_initiation()
    })?;
    ping_all(tunnel.ns(0), inner(false, 1), 2)?;
    ping_all(tunnel.ns(1), inner(false, 0), 2)?;
    let after = tunnel.peer(0)?;
    ensure!(
        after.last_handshake > before.peers[0].last_handshake,
        "no new handshake: {after:?}"
    );
    Ok(())
}
