// SPDX-License-Identifier: GPL-2.0-only
//! The messages sent on the underlay: their lengths, their IP headers, their packet metadata, and
//! how they are counted.

use super::scrub;
use super::{drop_in, Test};
use anyhow::{ensure, Context, Result};
use harness::capture::{Capture, Captured, Seen};
use harness::netns::Netns;
use harness::packet::{ip, Datagram, PacketSocket, Sum, IPV4, IPV6};
use harness::probe::{Field, Probe};
use harness::rtnl::Counters;
use harness::runner::Ctx;
use harness::topo::{inner, outer, port, Opts, Tunnel};
use harness::traffic::{ping, ping_all, set_option, tcp, udp};
use harness::wgdev::{DeviceConf, PeerConf};
use harness::wire::Message;
use nix::sys::socket::{setsockopt, sockopt};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
const A_WHILE: Duration = Duration::from_millis(300);

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "outer-padding-all-sizes", 90, all_sizes);
    drop_in(list, "outer-padding-route-mtu", 60, route_mtu);
    drop_in(list, "outer-headers", 60, headers);
    drop_in(list, "outer-mark-hash-priority", 60, metadata);
    drop_in(list, "outer-counters", 60, counters);
    drop_in(list, "outer-send-errors", 60, send_errors);
}

/// A socket bound to end 0's inner address.
fn socket(tunnel: &Tunnel, v6: bool) -> Result<UdpSocket> {
    udp(tunnel.ns(0), SocketAddr::new(inner(v6, 0), 0))
}

/// Counter and length of the data messages that end 0 sent, except for keepalives.
fn data(seen: &[Seen]) -> Vec<(u64, usize)> {
    let ours = seen.iter().filter(|s| s.outgoing);
    ours.filter_map(|s| match s.message {
        Message::Data { counter, len, .. } if len > 32 => Some((counter, len)),
        _ => None,
    })
    .collect()
}

/// Inner packets of every length up to the MTU: padded to 16, but not beyond the MTU; the far end
/// gets each without padding.
fn all_sizes(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    // To addresses behind end 1, which it drops silently.
    let far: [IpAddr; 2] = ["10.8.0.1".parse()?, "fd08::1".parse()?];
    let behind = PeerConf {
        allowed_ips: vec![(far[0], 32), (far[1], 128)],
        ..PeerConf::default()
    };
    tunnel.set_peer(0, behind)?;
    let device = PacketSocket::open(tunnel.ns(0), "wg0", false)?;
    for (dst, header, protocol) in [(far[0], 20, IPV4), (far[1], 40, IPV6)] {
        let wire = tunnel.watch(ctx, 0)?;
        let inside = Capture::start(tunnel.ns(1), "wg1")?;
        let mut count = 0;
        // For IPv6, only around the multiples of 16.
        let sizes = || (header..=1420usize).filter(move |n| header == 20 || (n + 1) % 16 < 3);
        for size in sizes() {
            let src = inner(dst.is_ipv6(), 0);
            let payload: Vec<u8> = (header..size).map(|n| (n * 7 + size) as u8).collect();
            // Protocol 253: for experiments.
            device.send(protocol, &ip(src, dst, 0, 253, &payload))?;
            count += 1;
            if count % 100 == 0 {
                // Queues are finite.
                wire.wait(count, LIMIT, |s| s.outgoing)?;
            }
        }
        let seen = wire.wait(count, LIMIT, |s| s.outgoing)?;
        let sent = data(&seen);
        ensure!(sent.len() == count, "{} of {count} sent", sent.len());
        for (size, (counter, len)) in sizes().zip(&sent) {
            let wanted = size.next_multiple_of(16).min(1420) + 32;
            ensure!(
                *len == wanted,
                "packet of {size} bytes to {dst}: message {counter} of {len}, not {wanted}"
            );
        }
        let start = std::time::Instant::now();
        loop {
            // Outgoing frames are end 1's replies.
            let came = {
                let frames = inside.frames();
                let frames = frames.lock().expect("poisoned");
                frames.iter().filter(|f| !f.outgoing).count()
            };
            if came == count {
                break;
            }
            ensure!(start.elapsed() < LIMIT, "{came} of {count} packets arrived");
            sleep(Duration::from_millis(10));
        }
        let incoming = inside.stop()?.into_iter().filter(|f| !f.outgoing);
        for (size, frame) in sizes().zip(incoming) {
            let (src, bytes) = (inner(dst.is_ipv6(), 0), &frame.bytes);
            let payload: Vec<u8> = (header..size).map(|n| (n * 7 + size) as u8).collect();
            ensure!(
                *bytes == ip(src, dst, 0, 253, &payload),
                "packet of {size} bytes to {dst}: {} bytes arrived, {bytes:02x?}",
                bytes.len()
            );
        }
    }
    ping_all(tunnel.ns(0), inner(false, 1), 1)
}

/// Padding uses the route's MTU, not the device's; also for packets above it.
fn route_mtu(ctx: &Ctx) -> Result<()> {
    const IP_MTU_DISCOVER: i32 = 10;
    const IPV6_MTU_DISCOVER: i32 = 23;
    const PROBE: i32 = 3; // packets as long as the device's MTU, whatever the route says
    let opts = Opts {
        mtu: Some(4000),
        ..Opts::new(ctx.plain())
    };
    for (v6, mtu) in [(false, 1000), (true, 1300)] {
        let tunnel = Tunnel::new(&opts)?;
        ping_all(tunnel.ns(0), inner(false, 1), 1)?;
        let to = SocketAddr::new(inner(v6, 1), 9);
        let sink = udp(tunnel.ns(1), to)?;
        sink.set_read_timeout(Some(LIMIT))?;
        let (family, len) = if v6 { ("-6", 128) } else { ("-4", 32) };
        tunnel.ns(0).sh(&format!(
            "ip {family} route add {}/{len} dev wg0 mtu {mtu}",
            to.ip()
        ))?;
        let socket = socket(&tunnel, v6)?;
        let (level, option) = if v6 {
            (libc::SOL_IPV6, IPV6_MTU_DISCOVER)
        } else {
            (libc::SOL_IP, IP_MTU_DISCOVER)
        };
        set_option(&socket, level, option, PROBE)?;
        let wire = tunnel.watch(ctx, 0)?;
        let header = if v6 { 48 } else { 28 };
        let sizes = [
            mtu - 24,
            mtu - 9,
            mtu - 8,
            mtu - 7,
            mtu - 1,
            mtu,
            mtu + 1,
            mtu + 15,
            mtu + 16,
            mtu + 17,
            mtu + 400,
            2 * mtu - 1,
            2 * mtu,
            2 * mtu + 1,
            3 * mtu - 5,
        ];
        let mut wanted = Vec::new();
        for size in sizes {
            socket
                .send_to(&vec![9; size - header], to)
                .with_context(|| format!("send a packet of {size} bytes"))?;
            let got = sink
                .recv(&mut [0; 4096])
                .with_context(|| format!("{size} bytes"))?;
            ensure!(
                got == size - header,
                "{got} bytes of {} arrived",
                size - header
            );
            // The padding of the last MTU-sized part.
            let rest = if size > mtu { size % mtu } else { size };
            wanted.push(size + rest.next_multiple_of(16).min(mtu) - rest + 32);
        }
        sleep(A_WHILE);
        // Long messages are sent in fragments, the first of which has the length.
        let sent = message_lengths(&wire.stop()?);
        ensure!(
            sent == wanted,
            "route MTU {mtu}, packets of {sizes:?}: messages of {sent:?}, not {wanted:?}"
        );
    }
    Ok(())
}

/// The lengths of end 0's UDP messages over IPv4, whole or in fragments.
fn message_lengths(frames: &[Captured]) -> Vec<usize> {
    let ours = frames.iter().filter(|f| f.outgoing);
    ours.filter_map(|f| {
        let ip = f.bytes.get(14..)?;
        let first = ip[0] == 0x45 && ip[9] == 17 && ip[6] & 0x1f == 0 && ip[7] == 0;
        first.then(|| usize::from(u16::from_be_bytes([ip[24], ip[25]])) - 8)
    })
    .collect()
}

/// The outer headers: the traffic class for each of the 256 inner ones; never "don't fragment";
/// the host's hop limit; a correct UDP checksum, for IPv6 and IPv4. Handshake messages have the
/// same, and the device's mark.
fn headers(ctx: &Ctx) -> Result<()> {
    for v6_outside in [false, true] {
        let opts = Opts {
            v6: v6_outside,
            ..Opts::new(ctx.plain())
        };
        let mut tunnel = Tunnel::new(&opts)?;
        tunnel.ends[0].set(&tunnel.link, &marked())?;
        prepare_header_checks(tunnel.ns(0))?;
        let wire = tunnel.watch(ctx, 0)?;
        ping_all(tunnel.ns(0), inner(false, 1), 1)?;
        // End 1 initiates: a response is sent.
        tunnel.rt(1).set_up("wg1", false)?;
        tunnel.rt(1).set_up("wg1", true)?;
        ping_all(tunnel.ns(1), inner(false, 0), 1)?;
        let keepalive = PeerConf {
            keepalive: Some(1),
            ..PeerConf::default()
        };
        tunnel.set_peer(0, keepalive)?;
        wire.wait(1, LIMIT, |s| s.outgoing && s.data_len() == Some(32))?;
        let off = PeerConf {
            keepalive: Some(0),
            ..PeerConf::default()
        };
        tunnel.set_peer(0, off)?;
        let seen = wire.seen();
        let frames = wire.stop()?;
        check_headers(
            &frames,
            v6_outside,
            |_, payload| {
                if payload[0] < 3 {
                    0x88
                } else {
                    0
                }
            },
        )?;
        let ours: Vec<_> = seen.iter().filter(|s| s.outgoing).collect();
        let response = |s: &&Seen| matches!(s.message, Message::Response { .. });
        ensure!(
            ours.iter().any(|s| s.is_initiation()) && ours.iter().any(response),
            "initiation or response is missing: {ours:?}"
        );
        check_marks(tunnel.ns(0), ours.len() as u64)?;
        for v6 in [false, true] {
            let to = SocketAddr::new(inner(v6, 1), 9);
            let socket = socket(&tunnel, v6)?;
            let wire = tunnel.watch(ctx, 0)?;
            for class in 0..256u16 {
                if v6 {
                    set_option(&socket, libc::SOL_IPV6, libc::IPV6_TCLASS, class.into())?;
                } else {
                    set_option(&socket, libc::SOL_IP, libc::IP_TOS, class.into())?;
                    set_option(&socket, libc::SOL_IP, 10, 2)?; // "don't fragment" inside
                }
                // The length identifies the packet.
                let len = 300 + usize::from(class);
                socket
                    .send_to(&vec![1; len], to)
                    .with_context(|| format!("class {class}"))?;
                if class % 64 == 63 {
                    let sent = usize::from(class) + 1;
                    wire.wait(sent, LIMIT, |s| s.outgoing && s.data_len() >= Some(300))?;
                }
            }
            let frames: Vec<Captured> = wire
                .stop()?
                .into_iter()
                .filter(|f| f.outgoing && f.bytes.len() > 300)
                .collect();
            ensure!(frames.len() == 256, "{} of 256 seen", frames.len());
            check_headers(&frames, v6_outside, |n, _| match n & 3 {
                3 => 2, // not CE, but ECT(0) (RFC 3168, section 9.1)
                ecn => ecn as u8,
            })?;
        }
    }
    Ok(())
}

/// The mark that [`check_marks`] looks for.
const MARK: u32 = 0x1234;

/// A device with that mark.
pub(super) fn marked() -> DeviceConf {
    DeviceConf {
        fwmark: Some(MARK),
        ..DeviceConf::default()
    }
}

/// Prepares end 0's namespace for [`check_headers`] and [`check_marks`].
pub(super) fn prepare_header_checks(ns: &Netns) -> Result<()> {
    // Checksums must be complete when the frames are captured, not left to the veth.
    ns.sh("ethtool -K v0 tx off")?;
    let message = format!("oifname v0 udp sport {}", port(0));
    let rules = format!(
        "table inet t {{
            counter marked {{}}
            counter others {{}}
            chain output {{
                type filter hook output priority 0;
                {message} meta mark {MARK} counter name marked
                {message} meta mark != {MARK} counter name others
            }}
        }}"
    );
    ns.sh_in("nft -f -", &rules).map(drop)
}

/// Checks that all of end 0's messages had the mark, and that there were at least `least`.
pub(super) fn check_marks(ns: &Netns, least: u64) -> Result<()> {
    let (marked, others) = (scrub::counted(ns, "marked")?, scrub::counted(ns, "others")?);
    ensure!(
        marked >= least && others == 0,
        "of {least} messages {marked} have the mark, {others} do not"
    );
    Ok(())
}

/// Checks the outer headers of end 0's messages; `tos` returns the expected TOS of the n-th.
pub(super) fn check_headers(
    frames: &[Captured],
    v6: bool,
    tos: impl Fn(usize, &[u8]) -> u8,
) -> Result<()> {
    let mut count = 0;
    for frame in frames.iter().filter(|f| f.outgoing) {
        let Some(got) = Datagram::in_frame(&frame.bytes) else {
            continue; // neighbour discovery
        };
        let wanted = Datagram {
            src: SocketAddr::new(outer(v6, 0), port(0)),
            dst: SocketAddr::new(outer(v6, 1), port(1)),
            tos: tos(count, &got.payload),
            ttl: 64,
            df: false,
            sum: Sum::Right,
            payload: Vec::new(),
        };
        let shown = Datagram {
            payload: Vec::new(),
            ..got.clone()
        };
        ensure!(
            shown == wanted,
            "message {count} of type {}: {shown:?}, not {wanted:?}",
            got.payload[0]
        );
        if v6 {
            let label = [frame.bytes[15] & 15, frame.bytes[16], frame.bytes[17]];
            ensure!(label == [0; 3], "message {count}: flow label {label:?}");
        }
        count += 1;
    }
    ensure!(count >= 1, "no messages");
    Ok(())
}

/// The outer packets have the device's fwmark and are routed by it; their flow hash is the inner
/// packet's; the inner packet's mark and priority do not leave the tunnel.
fn metadata(ctx: &Ctx) -> Result<()> {
    for v6 in [false, true] {
        let opts = Opts {
            v6,
            ..Opts::new(ctx.plain())
        };
        let mut tunnel = Tunnel::new(&opts)?;
        tunnel.ns(0).sh("tc qdisc add dev v0 root handle 1: prio")?;
        ping_all(tunnel.ns(0), inner(false, 1), 1)?;
        let to = SocketAddr::new(inner(v6, 1), 9);
        let sink = udp(tunnel.ns(1), to)?;
        sink.set_read_timeout(Some(LIMIT))?;
        let mark = Probe::start(tunnel.ns(0), "v0", Field::Mark)?;
        let hash = Probe::start(tunnel.ns(0), "v0", Field::Hash)?;
        let inner_mark = Probe::start(tunnel.ns(0), "wg0", Field::Mark)?;
        let inner_hash = Probe::start(tunnel.ns(0), "wg0", Field::Hash)?;
        // Three flows, of which those of connected sockets already have a hash.
        let flows = [
            socket(&tunnel, v6)?,
            socket(&tunnel, v6)?,
            socket(&tunnel, v6)?,
        ];
        for (n, socket) in flows.iter().enumerate() {
            setsockopt(socket, sockopt::Mark, &0x77)?;
            set_option(socket, libc::SOL_SOCKET, libc::SO_PRIORITY, 6)?;
            if n < 2 {
                socket.connect(to)?;
            }
        }
        let exchange = |count: usize| -> Result<()> {
            for socket in &flows {
                for _ in 0..count {
                    match socket.peer_addr() {
                        Ok(_) => socket.send(&[3; 1000])?,
                        Err(_) => socket.send_to(&[3; 1000], to)?,
                    };
                    sink.recv(&mut [0; 2000])?;
                }
            }
            Ok(())
        };
        for fwmark in [0u32, 0x1234, 0xdead_beef, 0] {
            tunnel.ends[0].set(
                &tunnel.link,
                &DeviceConf {
                    fwmark: Some(fwmark),
                    ..DeviceConf::default()
                },
            )?;
            exchange(4)?;
            let (outside, inside) = (mark.values()?, inner_mark.values()?);
            ensure!(inside == [0x77; 12], "inner marks: {inside:x?}");
            ensure!(
                outside == [fwmark; 12],
                "fwmark {fwmark:#x}, outer marks: {outside:x?}"
            );
            let (outside, inside) = (hash.values()?, inner_hash.values()?);
            for (n, (of_flow, was)) in outside.chunks(4).zip(inside.chunks(4)).enumerate() {
                ensure!(
                    of_flow.iter().all(|h| *h == of_flow[0] && *h != 0),
                    "flow {n}: outer hashes {of_flow:x?}"
                );
                ensure!(
                    n == 2 || of_flow == was,
                    "flow {n}: inner hashes {was:x?}, outer {of_flow:x?}"
                );
            }
            ensure!(
                outside[0] != outside[4] && outside[4] != outside[8] && outside[0] != outside[8],
                "three flows, one hash: {outside:x?}"
            );
        }
        // Priority 6 is band 1 (where a few multicast reports may be), priority 0 is band 2.
        let stats = tunnel.ns(0).sh("tc -s class show dev v0")?;
        let packets = |class: &str| -> Option<u64> {
            let (_, rest) = stats.split_once(&format!("class prio {class} "))?;
            let (_, rest) = rest.split_once(" bytes ")?;
            rest.split_whitespace().next()?.parse().ok()
        };
        let bands = ["1:1", "1:2", "1:3"].map(packets);
        ensure!(
            bands[0].is_some_and(|n| n < 10) && bands[1] >= Some(48) && bands[2] == Some(0),
            "packets per band: {bands:?}; {stats}"
        );
        routed_by_mark(ctx, &mut tunnel, v6)?;
    }
    Ok(())
}

/// Routing uses the mark, and a new mark takes effect at once.
fn routed_by_mark(ctx: &Ctx, tunnel: &mut Tunnel, v6: bool) -> Result<()> {
    let family = if v6 { "-6" } else { "-4" };
    tunnel
        .ns(0)
        .sh(&format!("ip {family} rule add fwmark 0x55 prohibit"))?;
    let set = |tunnel: &mut Tunnel, mark| {
        let conf = DeviceConf {
            fwmark: Some(mark),
            ..DeviceConf::default()
        };
        tunnel.ends[0].set(&tunnel.link, &conf)
    };
    set(tunnel, 0x55)?;
    let wire = tunnel.watch(ctx, 0)?;
    let before = tunnel.counters(0)?;
    let got = ping(tunnel.ns(0), inner(false, 1), 2, 56, A_WHILE)?;
    let sent = wire.seen().iter().filter(|s| s.outgoing).count();
    ensure!(
        got == 0 && sent == 0,
        "a prohibited mark: {got} answers, {sent} messages"
    );
    tunnel.expect_moved(0, &before, &[], "prohibited mark")?;
    set(tunnel, 0x56)?;
    ping_all(tunnel.ns(0), inner(false, 1), 2).context("with another mark")
}

/// The device's packet and byte counters and the peer's byte counters cover all messages on the
/// underlay: handshakes, data with padding and tag, keepalives.
fn counters(ctx: &Ctx) -> Result<()> {
    for v6 in [false, true] {
        let opts = Opts {
            v6,
            ..Opts::new(ctx.plain())
        };
        let mut tunnel = Tunnel::new(&opts)?;
        let wire = tunnel.watch(ctx, 0)?;
        let fresh = [tunnel.counters(0)?, tunnel.counters(1)?];
        for (n, fresh) in fresh.iter().enumerate() {
            ensure!(
                fresh.since(&Default::default()).are(&[]),
                "end {n}: {fresh:?}"
            );
        }
        ping_all(tunnel.ns(0), inner(false, 1), 3)?;
        let at = SocketAddr::new(inner(true, 1), 5000);
        tcp(tunnel.ns(0), tunnel.ns(1), at, 1 << 18, LIMIT)?;
        // Trigger a keepalive now instead of waiting 10 s for the passive one.
        tunnel.set_peer(
            1,
            PeerConf {
                keepalive: Some(100),
                ..PeerConf::default()
            },
        )?;
        wire.wait(1, LIMIT, |s| !s.outgoing && s.data_len() == Some(32))?;
        counted(&mut tunnel, &wire, &fresh)?;
    }
    Ok(())
}

/// Compares both ends' counters with the messages seen; retries while messages are in flight.
fn counted(tunnel: &mut Tunnel, wire: &Capture, fresh: &[Counters; 2]) -> Result<()> {
    let mut tries = 0;
    loop {
        let seen = wire.seen();
        let sum = |outgoing| {
            let side = seen.iter().filter(|s| s.outgoing == outgoing);
            let lens = side.map(|s| match s.message {
                Message::Initiation { .. } => 148,
                Message::Response { .. } => 92,
                Message::Cookie { .. } => 64,
                Message::Data { len, .. } => len as u64,
            });
            lens.fold((0, 0), |(packets, bytes), len| (packets + 1, bytes + len))
        };
        let mut wrong = Vec::new();
        for (n, tx, rx) in [(0, sum(true), sum(false)), (1, sum(false), sum(true))] {
            let wanted = [
                ("tx_packets", tx.0),
                ("tx_bytes", tx.1),
                ("rx_packets", rx.0),
                ("rx_bytes", rx.1),
            ];
            let moved = tunnel.counters(n)?.since(&fresh[usize::from(n)]);
            let peer = tunnel.peer(n)?;
            if !moved.are(&wanted) || (peer.tx_bytes, peer.rx_bytes) != (tx.1, rx.1) {
                wrong.push(format!(
                    "end {n}: {moved:?}, the peer's {} sent and {} received, not {wanted:?}",
                    peer.tx_bytes, peer.rx_bytes
                ));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        tries += 1;
        ensure!(tries < 20, "{wrong:?}");
        sleep(A_WHILE);
    }
}

/// Messages that the underlay refuses: without a route nothing is counted; behind a firewall they
/// count as sent for the peer, and as dropped or an error for the device. The sender gets no error
/// in either case.
fn send_errors(ctx: &Ctx) -> Result<()> {
    for v6 in [false, true] {
        let opts = Opts {
            v6,
            ..Opts::new(ctx.plain())
        };
        let mut tunnel = Tunnel::new(&opts)?;
        ping_all(tunnel.ns(0), inner(false, 1), 1)?;
        let socket = socket(&tunnel, false)?;
        let to = SocketAddr::new(inner(false, 1), 9);
        let (ip, tables) = if v6 {
            ("ip -6", "ip6tables")
        } else {
            ("ip", "iptables")
        };
        let length = if v6 { 128 } else { 32 };
        let route = format!("blackhole {}/{length}", outer(v6, 1));
        let drop = "OUTPUT -p udp --dport 51821 -j DROP";
        for (what, on, off, counted) in [
            (
                "no route",
                format!("{ip} route add {route}"),
                format!("{ip} route del {route}"),
                false,
            ),
            (
                "a firewall",
                format!("{tables} -A {drop}"),
                format!("{tables} -D {drop}"),
                true,
            ),
        ] {
            let what = format!("{what}, IPv6 {v6}");
            // Alone or, in turn, together: the driver may send those in one packet.
            let send = |together: bool| -> Result<()> {
                let (len, count) = if together { (500, 1) } else { (100, 5) };
                set_option(
                    &socket,
                    libc::SOL_UDP,
                    libc::UDP_SEGMENT,
                    if together { 100 } else { 0 },
                )?;
                for n in 0..count {
                    let sent = socket.send_to(&vec![7; len], to);
                    sent.with_context(|| format!("{what}: packet {n}"))?;
                }
                Ok(())
            };
            // Ours learns how long messages may be that travel together.
            send(true)?;
            sleep(A_WHILE);
            tunnel.ns(0).sh(&on)?;
            for together in [false, true] {
                let (before, peer) = (tunnel.counters(0)?, tunnel.peer(0)?);
                send(together)?;
                // The kernel's IPv4 and IPv6 paths count a refusal differently.
                let wanted: &[_] = match (counted, v6) {
                    (false, _) => &[],
                    (true, false) => &[("tx_dropped", 5)],
                    (true, true) => &[("tx_errors", 5), ("tx_aborted_errors", 5)],
                };
                sleep(A_WHILE);
                tunnel.expect_moved(0, &before, wanted, &what)?;
                let bytes = tunnel.peer(0)?.tx_bytes - peer.tx_bytes;
                let wanted = if counted { 5 * (128 + 32) } else { 0 };
                ensure!(
                    bytes == wanted,
                    "{what}, together {together}: the peer counts {bytes} bytes sent, not {wanted}"
                );
            }
            tunnel.ns(0).sh(&off)?;
            ping_all(tunnel.ns(0), inner(false, 1), 2).context(what)?;
        }
    }
    Ok(())
}
