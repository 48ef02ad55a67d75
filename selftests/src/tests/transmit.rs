// SPDX-License-Identifier: GPL-2.0-only
//! Packets sent into a tunnel: refused with an error, segmented, staged, dropped.

use super::{drop_in, Test};
use anyhow::{ensure, Context, Result};
use harness::bpf::Spoil;
use harness::capture::{Capture, Seen};
use harness::netns::Netns;
use harness::packet::{address, Datagram, PacketSocket, IPV4, IPV6};
use harness::rtnl::Rtnl;
use harness::runner::Ctx;
use harness::topo::{inner, mac, Opts, Tunnel};
use harness::traffic::{ping_all, set_option, udp};
use harness::wgdev::{random_key, PeerConf};
use harness::wire::Message;
use nix::errno::Errno;
use nix::sys::socket::{
    setsockopt, socket, sockopt, AddressFamily, SockFlag, SockProtocol, SockType,
};
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
const A_WHILE: Duration = Duration::from_millis(300);
const UDP_SEGMENT: i32 = 103;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "transmit-refused", 60, refused);
    drop_in(list, "transmit-refused-forwarded", 60, forwarded);
    drop_in(list, "transmit-wrong-protocol", 60, wrong_protocol);
    drop_in(list, "transmit-multicast", 60, multicast);
    drop_in(list, "transmit-udp-segments", 60, udp_segments);
    drop_in(list, "transmit-unsegmentable", 60, unsegmentable);
    drop_in(list, "transmit-staged", 60, staged);
}

/// Sends, and returns the sender's errno.
fn send(socket: &UdpSocket, data: &[u8], to: SocketAddr) -> Result<(), Errno> {
    match socket.send_to(data, to) {
        Ok(_) => Ok(()),
        Err(e) => Err(Errno::from_raw(e.raw_os_error().unwrap_or(0))),
    }
}

/// Any socket of `to`'s family in `ns`.
fn socket_for(ns: &Netns, to: IpAddr) -> Result<UdpSocket> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    udp(ns, any.parse()?)
}

/// Receives the ICMP errors in a namespace.
struct Icmp(UdpSocket, bool);

impl Icmp {
    fn open(ns: &Netns, v6: bool) -> Result<Self> {
        let (family, protocol) = if v6 {
            (AddressFamily::Inet6, SockProtocol::IcmpV6)
        } else {
            (AddressFamily::Inet, SockProtocol::Icmp)
        };
        ns.run(|| {
            let fd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
            Ok(Icmp(UdpSocket::from(fd), v6))
        })
    }

    /// The next error within `limit`: its type and code, and the quoted packet's destination.
    fn next(&self, limit: Duration) -> Result<Option<(u8, u8, SocketAddr)>> {
        self.0.set_read_timeout(Some(limit))?;
        let mut buf = [0u8; 2048];
        loop {
            let Ok(n) = self.0.recv(&mut buf) else {
                return Ok(None);
            };
            let skip = if self.1 { 0 } else { 20 };
            let message = buf.get(skip..n).context("short ICMP")?;
            let (kind, code) = (message[0], message[1]);
            let error = if self.1 { kind < 128 } else { kind == 3 };
            if !error {
                continue;
            }
            // The quoted packet may be truncated, but has its headers.
            let (at, len, udp) = if self.1 { (24, 16, 40) } else { (16, 4, 20) };
            let about = message.get(8..).unwrap_or(&[]);
            let dst = about.get(at..at + len).and_then(address);
            let port = about
                .get(udp + 2..udp + 4)
                .context("ICMP without a quoted datagram")?;
            let port = u16::from_be_bytes([port[0], port[1]]);
            let dst = SocketAddr::new(dst.context("ICMP without a quoted datagram")?, port);
            return Ok(Some((kind, code, dst)));
        }
    }
}

/// A peer without an endpoint.
fn no_endpoint() -> Result<PeerConf> {
    Ok(PeerConf {
        public_key: random_key(),
        allowed_ips: vec![("10.9.0.60".parse()?, 32), ("fd09::60".parse()?, 128)],
        ..PeerConf::default()
    })
}

/// No peer for the destination, or a peer without an endpoint: the sender gets the errno and an
/// ICMP "host unreachable" or "address unreachable", and one transmit error is counted.
fn refused(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    tunnel.ends[0].set_peer(&tunnel.link, no_endpoint()?)?;
    for (to, wanted) in [
        ("10.9.0.77:7", Errno::ENOKEY),
        ("[fd09::77]:7", Errno::ENOKEY),
        ("10.9.0.60:7", Errno::EDESTADDRREQ),
        ("[fd09::60]:7", Errno::EDESTADDRREQ),
    ] {
        let to: SocketAddr = to.parse()?;
        let icmp = Icmp::open(tunnel.ns(0), to.is_ipv6())?;
        let socket = socket_for(tunnel.ns(0), to.ip())?;
        for size in [0, 1, 1000] {
            let before = tunnel.counters(0)?;
            let sent = send(&socket, &vec![7; size], to);
            ensure!(sent == Err(wanted), "{size} bytes to {to}: {sent:?}");
            let moved = [("tx_errors", 1)];
            tunnel.expect_moved(0, &before, &moved, to)?;
            let heard = icmp.next(LIMIT)?;
            let (kind, code) = if to.is_ipv4() { (3, 1) } else { (1, 3) };
            ensure!(
                heard == Some((kind, code, to)),
                "{size} bytes to {to}: ICMP {heard:?}, not {kind}/{code}"
            );
        }
        let more = icmp.next(A_WHILE)?;
        ensure!(more.is_none(), "{to}: one more ICMP, {more:?}");
        // A connected socket gets the ICMP error, too.
        let (level, option) = if to.is_ipv4() {
            (libc::SOL_IP, libc::IP_RECVERR)
        } else {
            (libc::SOL_IPV6, libc::IPV6_RECVERR)
        };
        set_option(&socket, level, option, 1)?;
        socket.connect(to)?;
        let sent = socket.send(b"x").map_err(|e| e.raw_os_error());
        ensure!(sent == Err(Some(wanted as i32)), "{to} connected: {sent:?}");
        socket.set_read_timeout(Some(LIMIT))?;
        let got = socket.recv(&mut [0; 9]).map_err(|e| e.raw_os_error());
        ensure!(
            got == Err(Some(libc::EHOSTUNREACH)),
            "{to}: the connected socket then returns {got:?}"
        );
    }
    let peers = tunnel.ends[0].get(&tunnel.link)?.peers;
    ensure!(
        peers[1].tx_bytes == 0 && peers[1].endpoint.is_none(),
        "the peer without an endpoint: {:?}",
        peers[1]
    );
    ping_all(tunnel.ns(0), inner(true, 1), 2)
}

/// A forwarded packet that is refused: the ICMP error reaches its sender, also through source NAT.
fn forwarded(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let client = Netns::new("c")?;
    let fd = client.fd();
    tunnel.rt(0).veth_add(("c1", mac(2)), ("c0", mac(3)), fd)?;
    let mut rt: Rtnl = client.rtnl()?;
    for (v6, one, other, len) in [
        (false, "203.0.113.1", "203.0.113.2", 24),
        (true, "2001:db8:c::1", "2001:db8:c::2", 64),
    ] {
        let (one, other): (IpAddr, IpAddr) = (one.parse()?, other.parse()?);
        if !v6 {
            rt.set_up("c0", true)?;
            tunnel.rt(0).set_up("c1", true)?;
        }
        rt.addr_add("c0", one, len)?;
        tunnel.rt(0).addr_add("c1", other, len)?;
        rt.neigh_set("c0", other, mac(2))?;
        tunnel.rt(0).neigh_set("c1", one, mac(3))?;
        let net = if v6 {
            "-6 route add fd09::/64"
        } else {
            "route add 10.9.0.0/24"
        };
        client.sh(&format!("ip {net} via {other}"))?;
    }
    tunnel.ns(0).run(|| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        Ok(fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?)
    })?;
    tunnel.ends[0].set_peer(&tunnel.link, no_endpoint()?)?;
    for nat in [false, true] {
        if nat {
            for iptables in ["iptables", "ip6tables"] {
                let rule = format!("{iptables} -t nat -A POSTROUTING -o wg0 -j MASQUERADE");
                tunnel.ns(0).sh(&rule)?;
            }
        }
        // Addresses of no peer, and of the peer without an endpoint.
        for to in ["10.9.0.77:7", "[fd09::77]:7", "10.9.0.60:7", "[fd09::60]:7"] {
            let to: SocketAddr = to.parse()?;
            let icmp = Icmp::open(&client, to.is_ipv6())?;
            let socket = socket_for(&client, to.ip())?;
            let before = tunnel.counters(0)?;
            send(&socket, b"x", to).with_context(|| format!("send to {to}"))?;
            let heard = icmp.next(LIMIT)?;
            let (kind, code) = if to.is_ipv4() { (3, 1) } else { (1, 3) };
            ensure!(
                heard == Some((kind, code, to)),
                "{to}, NAT {nat}: ICMP {heard:?}, not {kind}/{code}"
            );
            let moved = [("tx_errors", 1)];
            tunnel.expect_moved(0, &before, &moved, format!("{to}, NAT {nat}"))?;
        }
    }
    ping_all(tunnel.ns(0), inner(false, 1), 1)
}

/// A packet's protocol must match its content; if it is not given, it is detected.
fn wrong_protocol(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let data = |v6| {
        let (src, dst) = (inner(v6, 0), inner(v6, 1));
        Datagram::new(
            SocketAddr::new(src, 9),
            SocketAddr::new(dst, 9),
            0,
            &[5; 60],
        )
        .packet()
    };
    let (v4, v6) = (data(false), data(true));
    let mut v5 = v4.clone();
    v5[0] = 0x55;
    let sinks = [
        udp(tunnel.ns(1), SocketAddr::new(inner(false, 1), 9))?,
        udp(tunnel.ns(1), SocketAddr::new(inner(true, 1), 9))?,
    ];
    let open = |raw| PacketSocket::open(tunnel.ns(0), "wg0", raw);
    let (cooked, raw) = (open(false)?, open(true)?);
    let heard = [
        Icmp::open(tunnel.ns(0), false)?,
        Icmp::open(tunnel.ns(0), true)?,
    ];
    const ALL: u16 = libc::ETH_P_ALL as u16;
    const ARP: u16 = libc::ETH_P_ARP as u16;
    let refused = Err(Errno::EPROTONOSUPPORT);
    for (what, socket, protocol, packet, wanted) in [
        ("IPv4 as IPv4", &cooked, IPV4, &v4[..], Ok(())),
        ("IPv6 as IPv6", &cooked, IPV6, &v6[..], Ok(())),
        ("IPv6 as IPv4", &cooked, IPV4, &v6[..], refused),
        ("IPv4 as IPv6", &cooked, IPV6, &v4[..], refused),
        ("IPv4 as ARP", &cooked, ARP, &v4[..], refused),
        ("IPv4 as 0", &cooked, 0, &v4[..], refused),
        ("IPv4 as ETH_P_ALL", &cooked, ALL, &v4[..], refused),
        ("version 5 as IPv4", &cooked, IPV4, &v5[..], refused),
        ("19 bytes of IPv4", &cooked, IPV4, &v4[..19], refused),
        ("one byte of IPv4", &cooked, IPV4, &v4[..1], refused),
        ("39 bytes of IPv6", &cooked, IPV6, &v6[..39], refused),
        ("IPv4, protocol detected", &raw, 0, &v4[..], Ok(())),
        ("IPv6, protocol detected", &raw, 0, &v6[..], Ok(())),
        ("IPv4 as ETH_P_ALL, detected", &raw, ALL, &v4[..], Ok(())),
        ("version 5, not detected", &raw, 0, &v5[..], refused),
        ("raw IPv6 as IPv4", &raw, IPV4, &v6[..], refused),
    ] {
        let before = tunnel.counters(0)?;
        let sent = socket.send(protocol, packet);
        ensure!(sent == wanted, "{what}: {sent:?}, not {wanted:?}");
        if wanted.is_ok() {
            let sink = &sinks[usize::from(packet[0] >> 4 == 6)];
            sink.set_read_timeout(Some(LIMIT))?;
            let got = sink.recv(&mut [0; 99]).with_context(|| what.to_owned())?;
            ensure!(got == 60, "{what}: {got} bytes arrived");
            let len = packet.len().next_multiple_of(16) as u64 + 32;
            let moved = [("tx_packets", 1), ("tx_bytes", len)];
            tunnel.expect_moved(0, &before, &moved, what)?;
        } else {
            let moved = [("tx_errors", 1)];
            tunnel.expect_moved(0, &before, &moved, what)?;
        }
    }
    for icmp in heard {
        let more = icmp.next(A_WHILE)?;
        ensure!(
            more.is_none(),
            "ICMP for a packet of an unknown protocol: {more:?}"
        );
    }
    ping_all(tunnel.ns(0), inner(true, 1), 2)
}

/// A GSO packet that cannot be segmented: the sender gets the errno and the ICMP error, one
/// transmit error is counted, and nothing is sent.
fn unsegmentable(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let spoil = Spoil::attach(tunnel.ns(0), "wg0")?;
    for v6 in [false, true] {
        let to = SocketAddr::new(inner(v6, 1), 7);
        let icmp = Icmp::open(tunnel.ns(0), v6)?;
        let socket = socket_for(tunnel.ns(0), to.ip())?;
        set_option(&socket, libc::SOL_UDP, UDP_SEGMENT, 1000)?;
        let before = tunnel.counters(0)?;
        let sent = send(&socket, &[7; 3000], to);
        ensure!(
            sent == Err(Errno::EPROTONOSUPPORT),
            "three segments to {to}: {sent:?}"
        );
        let moved = [("tx_errors", 1)];
        tunnel.expect_moved(0, &before, &moved, format!("three segments to {to}"))?;
        let heard = icmp.next(LIMIT)?;
        let (kind, code) = if v6 { (1, 3) } else { (3, 1) };
        ensure!(
            heard == Some((kind, code, to)),
            "three segments to {to}: ICMP {heard:?}, not {kind}/{code}"
        );
    }
    drop(spoil);
    ping_all(tunnel.ns(0), inner(true, 1), 1)
}

/// Multicast and broadcast: sent to the peer with matching allowed IPs, or refused without ICMP.
fn multicast(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let group: [SocketAddr; 3] = [
        "224.0.0.5:7".parse()?,
        "255.255.255.255:7".parse()?,
        "[ff02::5]:7".parse()?,
    ];
    let heard = [
        Icmp::open(tunnel.ns(0), false)?,
        Icmp::open(tunnel.ns(0), true)?,
    ];
    let bound = |tunnel: &Tunnel, to: SocketAddr| -> Result<UdpSocket> {
        let socket = socket_for(tunnel.ns(0), to.ip())?;
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from("wg0"))?;
        socket.set_broadcast(true)?;
        Ok(socket)
    };
    for to in group {
        let before = tunnel.counters(0)?;
        let sent = send(&bound(&tunnel, to)?, b"x", to);
        ensure!(sent == Err(Errno::ENOKEY), "{to}, no peer: {sent:?}");
        let moved = [("tx_errors", 1)];
        tunnel.expect_moved(0, &before, &moved, format!("{to}, no peer"))?;
    }
    for icmp in heard {
        let more = icmp.next(A_WHILE)?;
        ensure!(more.is_none(), "ICMP for a group: {more:?}");
    }
    let groups = vec![
        ("224.0.0.0".parse()?, 4),
        ("255.255.255.255".parse()?, 32),
        ("ff00::".parse()?, 8),
    ];
    tunnel.set_peer(
        0,
        PeerConf {
            allowed_ips: groups,
            ..PeerConf::default()
        },
    )?;
    let far = Capture::start(tunnel.ns(1), "wg1")?;
    for to in group {
        let before = tunnel.counters(0)?;
        send(&bound(&tunnel, to)?, b"to the group", to).with_context(|| to.to_string())?;
        let len = if to.is_ipv4() { 48 + 32 } else { 64 + 32 };
        let moved = [("tx_packets", 1), ("tx_bytes", len)];
        tunnel.expect_moved(0, &before, &moved, to)?;
    }
    std::thread::sleep(A_WHILE);
    let frames = far.stop()?;
    let came: Vec<SocketAddr> = frames
        .iter()
        .filter_map(|f| Some(Datagram::parse(&f.bytes)?.dst))
        .collect();
    ensure!(came == group, "at the other end: {came:?}");
    ping_all(tunnel.ns(0), inner(true, 1), 1)
}

/// A datagram with a segment size is one packet on the device and many on the underlay.
fn udp_segments(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    for v6 in [false, true] {
        let to = SocketAddr::new(inner(v6, 1), 7);
        let sink = udp(tunnel.ns(1), to)?;
        sink.set_read_timeout(Some(LIMIT))?;
        let device = Capture::start(tunnel.ns(0), "wg0")?;
        let wire = tunnel.watch(ctx, 0)?;
        let before = tunnel.counters(0)?;
        let socket = socket_for(tunnel.ns(0), to.ip())?;
        set_option(&socket, libc::SOL_UDP, UDP_SEGMENT, 1000)?;
        let data: Vec<u8> = (0..10_500u32).map(|n| (n / 1000) as u8).collect();
        ensure!(socket.send_to(&data, to)? == 10_500, "not all sent");
        let mut buf = [0; 2048];
        for n in 0..11u8 {
            let got = sink
                .recv(&mut buf)
                .with_context(|| format!("segment {n}"))?;
            let wanted = if n < 10 { 1000 } else { 500 };
            ensure!(
                got == wanted && buf[..got].iter().all(|b| *b == n),
                "segment {n}: {got} bytes of segment {}",
                buf[0]
            );
        }
        let header = if v6 { 48 } else { 28 };
        let longest = device.stop()?.iter().map(|f| f.bytes.len()).max();
        ensure!(
            longest == Some(10_500 + header),
            "the longest packet on wg0: {longest:?}"
        );
        let data = |s: &Seen| s.outgoing && matches!(s.message, Message::Data { .. });
        let sent: Vec<(u64, usize)> = wire
            .wait(11, LIMIT, data)?
            .iter()
            .filter(|s| s.outgoing)
            .filter_map(|s| match s.message {
                Message::Data { counter, len, .. } => Some((counter, len)),
                _ => None,
            })
            .collect();
        let padded = |len: usize| (len + header).next_multiple_of(16) + 32;
        let first = sent.first().map_or(0, |(counter, _)| *counter);
        let wanted: Vec<(u64, usize)> = (0..11)
            .map(|n| (first + n, padded(if n < 10 { 1000 } else { 500 })))
            .collect();
        ensure!(sent == wanted, "on the underlay: {sent:?}");
        let bytes = 10 * padded(1000) + padded(500);
        let moved = [("tx_packets", 11), ("tx_bytes", bytes as u64)];
        tunnel.expect_moved(0, &before, &moved, "11 segments")?;
    }
    Ok(())
}

/// Without a session, 128 packets are staged in addition to the newest; the oldest are dropped,
/// the newest's segments never. Staged packets do not fill their socket's send buffer. Then all
/// are sent, in order.
fn staged(ctx: &Ctx) -> Result<()> {
    const FIRST: u16 = 200;
    const SEGMENTS: u16 = 40;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let to = SocketAddr::new(inner(false, 1), 7);
    let sink = udp(tunnel.ns(1), to)?;
    // Room for all of them.
    setsockopt(&sink, sockopt::RcvBufForce, &(4 << 20))?;
    // The initiation is lost; the retry comes after 5 s.
    tunnel.mute(0, true)?;
    let socket = socket_for(tunnel.ns(0), to.ip())?;
    setsockopt(&socket, sockopt::SndBuf, &4608)?;
    socket.set_nonblocking(true)?;
    let numbered = |n: u16| {
        let mut data = vec![0; 1000];
        data[..2].copy_from_slice(&n.to_be_bytes());
        data
    };
    let before = tunnel.counters(0)?;
    socket.send_to(&numbered(0), to)?;
    let moved = [("tx_packets", 1), ("tx_bytes", 148)];
    tunnel.expect_moved(0, &before, &moved, "the initiation")?;
    let before = tunnel.counters(0)?;
    let mut dropped = 0;
    let mut check = |tunnel: &mut Tunnel, what: &str, more: u64| -> Result<()> {
        dropped += more;
        let moved = tunnel.counters(0)?.since(&before);
        let wanted: &[_] = if dropped == 0 {
            &[]
        } else {
            &[("tx_dropped", dropped)]
        };
        ensure!(moved.are(wanted), "after {what}: {moved:?}, not {wanted:?}");
        Ok(())
    };
    for n in 1..FIRST {
        let sent = socket.send_to(&numbered(n), to);
        sent.with_context(|| format!("packet {n}: staged packets fill the send buffer"))?;
        if n == 128 {
            // The limit applies to the packets already staged, not to the newest.
            check(&mut tunnel, "129 packets", 0)?;
        }
    }
    check(&mut tunnel, "200 packets", 71)?;
    let many = socket_for(tunnel.ns(0), to.ip())?;
    set_option(&many, libc::SOL_UDP, UDP_SEGMENT, 1000)?;
    let run: Vec<u8> = (FIRST..FIRST + SEGMENTS).flat_map(numbered).collect();
    many.send_to(&run, to)?;
    check(&mut tunnel, "a packet of 40 segments", 1)?;
    socket.send_to(&numbered(FIRST + SEGMENTS), to)?;
    check(&mut tunnel, "one more", 40)?;

    // End 1 makes a session, and end 0 can send.
    tunnel.mute(0, false)?;
    let keepalive = PeerConf {
        keepalive: Some(25),
        ..PeerConf::default()
    };
    tunnel.set_peer(1, keepalive)?;
    sink.set_read_timeout(Some(LIMIT))?;
    let mut buf = [0; 2048];
    for n in FIRST + SEGMENTS - 128..=FIRST + SEGMENTS {
        let got = sink.recv(&mut buf).with_context(|| format!("packet {n}"))?;
        let number = u16::from_be_bytes([buf[0], buf[1]]);
        ensure!(
            got == 1000 && number == n,
            "packet {number} of {got} bytes instead of {n}"
        );
    }
    sink.set_read_timeout(Some(A_WHILE))?;
    ensure!(
        sink.recv(&mut buf).is_err(),
        "more packets than were staged"
    );
    let moved = tunnel.counters(0)?.since(&before);
    ensure!(moved.value("tx_dropped") == 112, "at the end: {moved:?}");
    ping_all(tunnel.ns(0), inner(true, 1), 1)
}
