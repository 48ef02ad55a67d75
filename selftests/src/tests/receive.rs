// SPDX-License-Identifier: GPL-2.0-only
//! Receiving messages from the tests' own client: what is delivered, what is refused, and what is
//! counted.

use super::{drop_in, Test};
use anyhow::{ensure, Context, Result};
use harness::capture::{Capture, Injector};
use harness::driver::PLAIN;
use harness::noise::{Client, Keys, Session, Tweak};
use harness::packet::{ip, Datagram, Sum};
use harness::rtnl::Counters;
use harness::runner::Ctx;
use harness::topo::{inner, names, outer, port, End, Link, Opts, Tunnel};
use harness::traffic::{ping_all, set_option, tcp, udp};
use harness::wgdev::{Peer, PeerConf};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
const A_WHILE: Duration = Duration::from_millis(300);

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "receive-malformed", 60, malformed);
    drop_in(list, "receive-bad-inner-packets", 60, bad_inner);
    drop_in(list, "receive-ecn", 60, ecn);
    drop_in(list, "receive-udp-checksum", 60, udp_checksum);
    drop_in(list, "receive-gro", 90, gro);
}

/// End 0 with one peer: a client at end 1.
pub(super) struct Scene {
    pub(super) link: Link,
    pub(super) device: End,
    pub(super) client: Client,
}

impl Scene {
    pub(super) fn new(v6: bool) -> Result<Self> {
        let mut link = Link::new()?;
        let mut device = End::new(&mut link, 0, PLAIN, None)?;
        let keys = Keys::random();
        let conf = PeerConf {
            public_key: keys.public,
            endpoint: Some(SocketAddr::new(outer(v6, 1), port(1))),
            allowed_ips: vec![(inner(false, 1), 32), (inner(true, 1), 128)],
            ..PeerConf::default()
        };
        device.set_peer(&link, conf)?;
        let from = SocketAddr::new(outer(v6, 1), port(1));
        let to = SocketAddr::new(outer(v6, 0), port(0));
        let client = Client::new(link.end(1), keys, device.public_key, from, to)?;
        Ok(Scene {
            link,
            device,
            client,
        })
    }

    pub(super) fn counters(&mut self) -> Result<Counters> {
        Ok(self.link.rt(0).counters("wg0")?)
    }

    pub(super) fn expect(
        &mut self,
        before: &Counters,
        wanted: &[(&'static str, u64)],
        what: impl std::fmt::Display,
    ) -> Result<()> {
        let moved = self.link.rt(0).expect_moved("wg0", before, wanted);
        moved.with_context(|| what.to_string())
    }

    /// A session that both sides use.
    pub(super) fn session(&mut self) -> Result<Session> {
        let before = self.counters()?.value("rx_packets");
        let mut session = self.client.handshake()?;
        self.client
            .ping(&mut session, inner(false, 1), inner(false, 0))?;
        // Wait until its last message, a keepalive, is counted.
        let start = std::time::Instant::now();
        while self.counters()?.value("rx_packets") < before + 3 {
            ensure!(
                start.elapsed() < LIMIT,
                "the session's first messages are not counted"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(session)
    }

    /// Sends `message` and then a keepalive; these counters and the keepalive's must increase.
    pub(super) fn passes(
        &mut self,
        session: &mut Session,
        message: &[u8],
        counted: &[(&'static str, u64)],
        what: impl std::fmt::Display,
    ) -> Result<()> {
        let before = self.counters()?;
        self.client.send(message)?;
        self.client.send(&session.data(&[]))?;
        let mut wanted = vec![("rx_packets", 1), ("rx_bytes", 32)];
        for (name, by) in counted {
            match wanted.iter_mut().find(|(n, _)| n == name) {
                Some((_, sum)) => *sum += by,
                None => wanted.push((name, *by)),
            }
        }
        self.expect(&before, &wanted, what)
    }

    pub(super) fn peer(&mut self) -> Result<Peer> {
        self.device.peer(&self.link)
    }
}

/// Counters and their increments.
pub(super) type Moved = &'static [(&'static str, u64)];

pub(super) const FRAME: Moved = &[("rx_errors", 1), ("rx_frame_errors", 1)];
const LENGTH: Moved = &[("rx_errors", 1), ("rx_length_errors", 1)];

/// A datagram from the client's inner address to the device's.
pub(super) fn datagram(v6: bool, tos: u8, len: usize) -> Datagram {
    let src = SocketAddr::new(inner(v6, 1), 9);
    let dst = SocketAddr::new(inner(v6, 0), 9);
    Datagram::new(src, dst, tos, &vec![6; len])
}

/// A datagram that is no message, or has a wrong length or an unknown session, changes no counter
/// and gets no answer.
fn malformed(_: &Ctx) -> Result<()> {
    let mut scene = Scene::new(false)?;
    let mut session = scene.session()?;
    let (before, peer) = (scene.counters()?, scene.peer()?);
    scene.client.flush()?;
    // Each type with lengths around its own, and others.
    for kind in 0..6u8 {
        for len in [0, 1, 3, 4, 15, 16, 31, 63, 65, 91, 93, 147, 149, 1500] {
            let mut message = vec![0; len];
            if let Some(first) = message.first_mut() {
                *first = kind;
            }
            scene.client.send(&message)?;
        }
    }
    let _sink = udp(scene.link.end(0), SocketAddr::new(inner(false, 0), 9))?;
    let data = datagram(false, 0, 50).packet();
    let good = session.data(&data);
    let mut wrong = Vec::new();
    for at in [1, 2, 3] {
        let mut reserved = good.clone();
        reserved[at] = 1;
        wrong.push(reserved);
    }
    let mut index = good.clone();
    index[4] ^= 1;
    wrong.push(index);
    let mut counter = good.clone();
    counter[8] ^= 1;
    wrong.push(counter);
    let mut tag = good.clone();
    *tag.last_mut().context("empty")? ^= 1;
    wrong.push(tag);
    wrong.push(good[..good.len() - 1].to_vec());
    let mut longer = good.clone();
    longer.push(0);
    wrong.push(longer);
    for message in &wrong {
        scene.client.send(message)?;
    }
    // Handshake messages that are too long.
    for trailing in [vec![0], vec![0; 16]] {
        scene.client.initiate(&Tweak {
            trailing,
            ..Tweak::default()
        })?;
    }
    scene.client.silence(A_WHILE)?;
    scene.expect(&before, &[], "malformed messages")?;
    let now = scene.peer()?;
    ensure!(
        now.rx_bytes == peer.rx_bytes && now.tx_bytes == peer.tx_bytes,
        "malformed messages were counted: {now:?}, before {peer:?}"
    );
    // The good one is accepted, once.
    let counted = [("rx_packets", 1), ("rx_bytes", good.len() as u64)];
    scene.passes(&mut session, &good, &counted, "the good one")?;
    scene.passes(&mut session, &good, &[], "the good one, replayed")?;
    scene
        .client
        .ping(&mut session, inner(true, 1), inner(true, 0))
}

/// Data that authenticates, but has an invalid inner packet: counted as the right error and not
/// as received.
fn bad_inner(_: &Ctx) -> Result<()> {
    let mut scene = Scene::new(false)?;
    let other = PeerConf {
        public_key: Keys::random().public,
        allowed_ips: vec![("10.9.0.3".parse()?, 32), ("10.9.0.0".parse()?, 16)],
        ..PeerConf::default()
    };
    scene.device.set_peer(&scene.link, other)?;
    let mut session = scene.session()?;
    let inside = Capture::start(scene.link.end(0), "wg0")?;
    let from = |src: &str| -> Result<Vec<u8>> {
        let src: IpAddr = src.parse()?;
        Ok(ip(src, inner(src.is_ipv6(), 0), 0, 253, &[1; 40]))
    };
    let v4 = datagram(false, 0, 20).packet(); // 48 bytes
    let v6 = datagram(true, 0, 16).packet(); // 64 bytes
    let with = |packet: &[u8], at: usize, value: u16| {
        let mut packet = packet.to_vec();
        packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
        packet
    };
    let version = |packet: &[u8], version: u8| {
        let mut packet = packet.to_vec();
        packet[0] = (version << 4) | (packet[0] & 15);
        packet
    };
    let cases: Vec<(&str, Vec<u8>, Moved)> = vec![
        ("another peer's source", from("10.9.0.3")?, FRAME),
        ("another peer's network", from("10.9.0.77")?, FRAME),
        ("nobody's source", from("192.0.2.2")?, FRAME),
        ("nobody's IPv6 source", from("fd09::77")?, FRAME),
        ("our own address", from("10.9.0.1")?, FRAME),
        ("version 0", version(&v4, 0), FRAME),
        ("version 5", version(&v4, 5), FRAME),
        ("version 15", version(&v6, 15), FRAME),
        ("IPv4 of 16 bytes", v4[..16].to_vec(), FRAME),
        ("IPv4 of 19 bytes", v4[..19].to_vec(), FRAME),
        ("IPv4 of one byte", v4[..1].to_vec(), FRAME),
        ("IPv6 of 32 bytes", v6[..32].to_vec(), FRAME),
        ("IPv6 of 39 bytes", v6[..39].to_vec(), FRAME),
        ("zeros", vec![0; 64], FRAME),
        ("an IPv4 length of 0", with(&v4, 2, 0), LENGTH),
        ("an IPv4 length of 19", with(&v4, 2, 19), LENGTH),
        ("an IPv4 length 1 too great", with(&v4, 2, 49), LENGTH),
        ("an IPv4 length of 65535", with(&v4, 2, 65535), LENGTH),
        ("an IPv6 length 1 too great", with(&v6, 4, 25), LENGTH),
        ("an IPv6 length of 65535", with(&v6, 4, 65535), LENGTH),
        // The length is checked before the source.
        (
            "a wrong length and a wrong source",
            with(&from("192.0.2.2")?, 2, 9000),
            LENGTH,
        ),
    ];
    let peer = scene.peer()?;
    let count = cases.len() as u64;
    for (what, plain, counted) in cases {
        let counter = session.counter;
        session.counter += 1;
        let message = session.seal(counter, &plain);
        scene.passes(&mut session, &message, counted, what)?;
    }
    let now = scene.peer()?;
    ensure!(
        now.rx_bytes - peer.rx_bytes == count * 32,
        "the peer counts more bytes than those of {count} keepalives: {} and {}",
        peer.rx_bytes,
        now.rx_bytes
    );
    let came = inside.stop()?;
    ensure!(came.is_empty(), "delivered: {came:?}");
    // Valid lengths, with and without padding, and with too much: trimmed to the length.
    let inside = Capture::start(scene.link.end(0), "wg0")?;
    let sink = udp(scene.link.end(0), SocketAddr::new(inner(false, 0), 9))?;
    let sink6 = udp(scene.link.end(0), SocketAddr::new(inner(true, 0), 9))?;
    let mut wanted = Vec::new();
    for (v6, len, padding) in [
        (false, 20, 0),
        (false, 1, 0),
        (false, 1, 3),
        (false, 0, 500),
        (true, 16, 0),
        (true, 3, 0),
        (true, 0, 1300),
    ] {
        let packet = datagram(v6, 0, len).packet();
        let mut plain = packet.clone();
        plain.resize(packet.len() + padding, 0);
        let counter = session.counter;
        session.counter += 1;
        let message = session.seal(counter, &plain);
        let counted = [("rx_packets", 1), ("rx_bytes", plain.len() as u64 + 32)];
        let what = format!("{} bytes and {padding} more", packet.len());
        scene.passes(&mut session, &message, &counted, &what)?;
        let sink = if v6 { &sink6 } else { &sink };
        sink.set_read_timeout(Some(LIMIT))?;
        let got = sink.recv(&mut [0; 99]).context(what)?;
        ensure!(got == len, "{got} of {len} bytes delivered");
        wanted.push(packet);
    }
    let came: Vec<Vec<u8>> = inside.stop()?.into_iter().map(|f| f.bytes).collect();
    ensure!(came == wanted, "on wg0: {came:02x?}, not {wanted:02x?}");
    scene
        .client
        .ping(&mut session, inner(false, 1), inner(false, 0))
}

/// Congestion marked outside is propagated to the inner packet if that is ECN-capable (RFC 6040);
/// nothing else of the outer traffic class is, and nothing is dropped for it.
fn ecn(_: &Ctx) -> Result<()> {
    for v6_outside in [false, true] {
        let mut scene = Scene::new(v6_outside)?;
        let mut session = scene.session()?;
        let inside = Capture::start(scene.link.end(0), "wg0")?;
        let _sinks = [
            udp(scene.link.end(0), SocketAddr::new(inner(false, 0), 9))?,
            udp(scene.link.end(0), SocketAddr::new(inner(true, 0), 9))?,
        ];
        let mut wanted = Vec::new();
        for v6 in [false, true] {
            for dscp in [0u8, 0xb8] {
                for outside in 0..4u8 {
                    for within in 0..4u8 {
                        // Different DSCPs outside and inside.
                        let class = i32::from(outside | (0x28 ^ dscp));
                        let (level, option) = if v6_outside {
                            (libc::SOL_IPV6, libc::IPV6_TCLASS)
                        } else {
                            (libc::SOL_IP, libc::IP_TOS)
                        };
                        set_option(&scene.client.socket, level, option, class)?;
                        let packet = datagram(v6, dscp | within, 10);
                        scene.client.send(&session.data(&packet.packet()))?;
                        let now = match (outside, within) {
                            (_, 0) => 0,
                            (3, _) => 3,
                            (1, 2) => 1, // RFC 6040, section 4.2
                            _ => within,
                        };
                        wanted.push((v6, dscp, outside, within, dscp | now));
                    }
                }
            }
        }
        let start = std::time::Instant::now();
        loop {
            let count = {
                let frames = inside.frames();
                let frames = frames.lock().expect("poisoned");
                frames.iter().filter(|f| !f.outgoing).count()
            };
            if count >= wanted.len() {
                break;
            }
            ensure!(start.elapsed() < LIMIT, "{count} of 64 arrived");
            std::thread::sleep(Duration::from_millis(10));
        }
        let incoming = inside.stop()?.into_iter().filter(|f| !f.outgoing);
        let came: Vec<Datagram> = incoming
            .filter_map(|f| Datagram::parse(&f.bytes))
            .filter(|d| d.dst.port() == 9)
            .collect();
        ensure!(came.len() == wanted.len(), "{} of 64 arrived", came.len());
        for (got, (v6, dscp, outside, within, tos)) in came.iter().zip(wanted) {
            ensure!(
                got.tos == tos && got.src.is_ipv6() == v6,
                "ECN {outside} outside, {within} within, DSCP {dscp:#x}, IPv6 {v6}: arrives as \
                 {:#x}, not {tos:#x}",
                got.tos
            );
        }
        scene
            .client
            .ping(&mut session, inner(false, 1), inner(false, 0))?;
    }
    Ok(())
}

/// The outer checksum is checked; zero means none for IPv4 and is wrong for IPv6. The inner one
/// counts as verified, since the tag covers it.
fn udp_checksum(_: &Ctx) -> Result<()> {
    for v6 in [false, true] {
        let mut scene = Scene::new(v6)?;
        let mut session = scene.session()?;
        let injector = Injector::open(scene.link.end(1), names(1).1)?;
        let sink = udp(scene.link.end(0), SocketAddr::new(inner(v6, 0), 9))?;
        sink.set_read_timeout(Some(LIMIT))?;
        let from = SocketAddr::new(outer(v6, 1), port(1));
        let to = SocketAddr::new(outer(v6, 0), port(0));
        for (sum, passes) in [(Sum::Right, true), (Sum::Wrong, false), (Sum::Zero, !v6)] {
            let before = scene.counters()?;
            let message = session.data(&datagram(v6, 0, 33).packet());
            let frame = Datagram {
                sum,
                ..Datagram::new(from, to, 0, &message)
            };
            injector.send(&frame.frame_from(1))?;
            scene.client.send(&session.data(&[]))?;
            let mut wanted = vec![("rx_packets", 1), ("rx_bytes", 32)];
            if passes {
                wanted = vec![("rx_packets", 2), ("rx_bytes", 32 + message.len() as u64)];
                let got = sink.recv(&mut [0; 99]);
                got.with_context(|| format!("outer checksum {sum:?}, IPv6 {v6}"))?;
            }
            scene.expect(
                &before,
                &wanted,
                format!("outer checksum {sum:?}, IPv6 {v6}"),
            )?;
        }
        let wrong = Datagram {
            sum: Sum::Wrong,
            ..datagram(v6, 0, 44)
        };
        scene.client.send(&session.data(&wrong.packet()))?;
        let got = sink.recv(&mut [0; 99]).context("a wrong inner checksum")?;
        ensure!(got == 44, "{got} bytes of 44");
    }
    Ok(())
}

/// Segments of one stream are merged before they reach the stack, unless GRO is off.
fn gro(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    for on in [true, false] {
        let state = if on { "on" } else { "off" };
        tunnel.ns(1).sh(&format!("ethtool -K wg1 gro {state}"))?;
        for v6 in [false, true] {
            let device = Capture::start(tunnel.ns(1), "wg1")?;
            let at = SocketAddr::new(inner(v6, 1), 5000);
            tcp(tunnel.ns(0), tunnel.ns(1), at, 1 << 20, LIMIT)?;
            let frames = device.stop()?;
            let incoming = frames.iter().filter(|f| !f.outgoing);
            let longest = incoming.map(|f| f.bytes.len()).max().unwrap_or(0);
            ensure!(
                if on { longest > 1420 } else { longest <= 1420 },
                "GRO {state}, IPv6 {v6}: the longest packet from wg1 has {longest} bytes"
            );
        }
    }
    Ok(())
}
