// SPDX-License-Identifier: GPL-2.0-only
//! Tests of the harness's own underlay programs (watching and disturbing), on plain datagrams:
//! what they miss here, they would miss in a real test. No WireGuard module is loaded.

use super::Test;
use anyhow::{ensure, Context, Result};
use harness::bpf::{Action, Class, Direction, Reason, Rule, Underlay};
use harness::capture::Injector;
use harness::modules::Modules;
use harness::runner::{Boot, Ctx, Subject};
use harness::topo::{inner, mac, outer, port, Link};
use harness::traffic::{ping, udp};
use nix::sched::{sched_setaffinity, CpuSet};
use nix::unistd::Pid;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    for boot in [Boot::Smp, Boot::Vtime] {
        let prefix = if boot == Boot::Smp { "" } else { "vtime-" };
        let tests: [(&str, super::Check); 3] = [
            ("harness-underlay-watch", watch),
            ("harness-underlay-disturb", disturb),
            ("harness-orphan", orphan),
        ];
        for (name, body) in tests {
            list.push(Test {
                name: format!("{prefix}{name}"),
                boot,
                modules: Modules::None,
                subject: Subject::Rs,
                bound: Duration::from_secs(60),
                body: Box::new(body),
            });
        }
    }
}

/// Two plain sockets where a tunnel would have its own.
struct Scene {
    link: Link,
    sockets: [UdpSocket; 2],
    v6: bool,
}

impl Scene {
    fn new(v6: bool) -> Result<Self> {
        // On one CPU, datagrams arrive in the order in which they are sent.
        let mut cpu = CpuSet::new();
        cpu.set(0)?;
        sched_setaffinity(Pid::from_raw(0), &cpu)?;
        let link = Link::new()?;
        let socket = |n| {
            let socket = udp(link.end(n), SocketAddr::new(outer(v6, n), port(n)))?;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            Ok::<_, anyhow::Error>(socket)
        };
        let sockets = [socket(0)?, socket(1)?];
        Ok(Scene { link, sockets, v6 })
    }

    fn send(&self, n: u8, payload: &[u8]) -> Result<()> {
        let to = SocketAddr::new(outer(self.v6, 1 - n), port(1 - n));
        self.sockets[usize::from(n)].send_to(payload, to)?;
        Ok(())
    }

    /// All payloads that have arrived at end `n`: a marker is sent after them and waited for.
    fn received(&self, n: u8) -> Result<Vec<Vec<u8>>> {
        let last = message(2, 92, LAST);
        self.send(1 - n, &last)?;
        let mut buf = vec![0; 4096];
        let mut out = Vec::new();
        loop {
            let len = self.sockets[usize::from(n)]
                .recv(&mut buf)
                .context("wait for the last datagram")?;
            if buf[..len] == last {
                return Ok(out);
            }
            out.push(buf[..len].to_vec());
        }
    }
}

/// The tag that distinguishes the last datagram from others of its class.
const LAST: u8 = 0xee;

/// A message of this type and length whose last byte is `tag`.
fn message(kind: u8, len: usize, tag: u8) -> Vec<u8> {
    let mut message = vec![0; len];
    message[0] = kind;
    message[len - 1] = tag;
    message
}

/// A TCP connection whose FIN is lost, as over a disturbed underlay, does not keep its namespace
/// alive longer than the clean-up after the test waits.
fn orphan(_: &Ctx) -> Result<()> {
    let mut link = Link::new()?;
    let at = SocketAddr::new(outer(false, 0), 5201);
    let listener = link.end(0).run(|| Ok(TcpListener::bind(at)?))?;
    let near = link.end(1).run(|| Ok(TcpStream::connect(at)?))?;
    let (far, _) = listener.accept()?;
    link.mute(1, true)?;
    drop(near);
    drop(far);
    Ok(())
}

/// Every class of message is counted, in its direction, and every kind of stranger is reported.
fn watch(_: &Ctx) -> Result<()> {
    for v6 in [false, true] {
        let scene = Scene::new(v6)?;
        let underlay = Underlay::attach(scene.link.end(0), "v0")?;
        for (n, direction) in [(0u8, Direction::Out), (1, Direction::In)] {
            let other = [Direction::In, Direction::Out][usize::from(n)];
            watch_messages(&scene, &underlay, n, direction)
                .with_context(|| format!("IPv6 {v6}, {direction:?}"))?;
            let before = underlay.counts(other)?;
            watch_strangers(&scene, &underlay, n, direction)
                .with_context(|| format!("IPv6 {v6}, {direction:?}"))?;
            let stray = underlay.counts(other)?.messages() - before.messages();
            ensure!(
                stray == 0,
                "{stray} messages counted in the wrong direction"
            );
        }
    }
    Ok(())
}

fn watch_messages(scene: &Scene, underlay: &Underlay, n: u8, direction: Direction) -> Result<()> {
    let before = underlay.counts(direction)?;
    let good = [
        (1, 148, Class::Initiation),
        (2, 92, Class::Response),
        (3, 64, Class::Cookie),
        (4, 32, Class::Keepalive),
        (4, 48, Class::Data),
        (4, 1452, Class::Data), // the longest that the MTU allows, not a multiple of 16
    ];
    for (kind, len, _) in good {
        scene.send(n, &message(kind, len, 1))?;
    }
    scene.received(1 - n)?;
    underlay.only_wireguard()?;
    let after = underlay.counts(direction)?;
    for class in Class::MESSAGES {
        // The last datagram counts as a response.
        let extra = if class == Class::Response { 1 } else { 0 };
        let wanted: Vec<u64> = good
            .iter()
            .filter(|g| g.2 == class)
            .map(|g| g.1 as u64)
            .collect();
        let frames = after.of(class) - before.of(class);
        let bytes = after.bytes(class) - before.bytes(class);
        ensure!(
            frames == wanted.len() as u64 + extra
                && bytes == wanted.iter().sum::<u64>() + 92 * extra,
            "{frames} messages of {bytes} bytes counted as {class:?}"
        );
    }
    Ok(())
}

fn watch_strangers(scene: &Scene, underlay: &Underlay, n: u8, direction: Direction) -> Result<()> {
    let v6 = scene.v6;
    let sees = |reason: Reason, what: &str| {
        scene.received(1 - n)?;
        let mut seen = underlay.strangers()?;
        seen.retain(|s| s.direction == direction);
        let reasons: Vec<Reason> = seen.iter().map(|s| s.reason).collect();
        ensure!(
            reasons == [reason],
            "{what}: {reasons:?} seen, expected {reason:?}"
        );
        Ok(())
    };
    for (kind, len) in [(1, 147), (2, 93), (3, 65), (4, 31), (1, 92), (4, 3)] {
        scene.send(n, &message(kind, len, 0))?;
        sees(Reason::Length, &format!("type {kind} of {len} bytes"))?;
    }
    for kind in [0, 5, 0x45] {
        scene.send(n, &message(kind, 148, 0))?;
        sees(Reason::Type, &format!("type {kind}"))?;
    }
    for at in 1..4 {
        let mut reserved = message(4, 64, 0);
        reserved[at] = 1;
        scene.send(n, &reserved)?;
        sees(Reason::Reserved, &format!("reserved byte {at}"))?;
    }
    scene.send(n, &message(4, 40, 0))?;
    sees(Reason::Padding, "data of 40 bytes")?;
    for inside6 in [false, true] {
        let mut clear = message(4, 96, 0);
        clear[16..56].copy_from_slice(&header(inside6, n));
        scene.send(n, &clear)?;
        sees(Reason::Inner, "data with a readable inner header")?;
    }
    let elsewhere = SocketAddr::new(outer(v6, 1 - n), 4444);
    let _ = scene.sockets[usize::from(n)].send_to(&message(4, 32, 0), elsewhere);
    sees(Reason::Ports, "another port")?;
    ping(
        scene.link.end(n),
        outer(v6, 1 - n),
        1,
        56,
        Duration::from_secs(2),
    )?;
    sees(Reason::NotUdp, "a ping outside the tunnel")?;
    scene.send(n, &message(4, 3200, 0))?;
    scene.received(1 - n)?;
    let seen = underlay.strangers()?;
    let fragments = seen.iter().filter(|s| s.reason == Reason::Fragment);
    ensure!(fragments.count() >= 2, "fragments are not seen");
    // What a driver that failed to encrypt would send.
    let raw = Injector::open(scene.link.end(n), if n == 0 { "v0" } else { "v1" })?;
    for inside6 in [false, true] {
        let mut frame = [mac(1 - n), mac(n)].concat();
        frame.extend_from_slice(if inside6 { &[0x86, 0xdd] } else { &[8, 0] });
        frame.extend_from_slice(&header(inside6, n));
        frame.resize(120, 0);
        raw.send(&frame)?;
        sees(Reason::Inner, "a plaintext packet")?;
    }
    raw.send(&[&mac(1 - n)[..], &mac(n), &[0x88, 0xb5], &[0; 46]].concat())?;
    sees(Reason::NotIp, "an unknown protocol")
}

/// 40 bytes that start with an IP header between the tunnel's inner addresses.
fn header(v6: bool, from: u8) -> [u8; 40] {
    let mut ip = [0; 40];
    match (inner(v6, from), inner(v6, 1 - from)) {
        (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) => {
            ip[..4].copy_from_slice(&[0x45, 0, 0, 40]);
            ip[8..10].copy_from_slice(&[64, 1]);
            ip[12..16].copy_from_slice(&src.octets());
            ip[16..20].copy_from_slice(&dst.octets());
        }
        (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dst)) => {
            ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, 59, 64]);
            ip[8..24].copy_from_slice(&src.octets());
            ip[24..40].copy_from_slice(&dst.octets());
        }
        _ => {}
    }
    ip
}

/// Each action does what it says, to the messages that the rule matches and to no others.
fn disturb(_: &Ctx) -> Result<()> {
    for v6 in [false, true] {
        let scene = Scene::new(v6)?;
        let mut underlay = Underlay::attach(scene.link.end(0), "v0")?;
        for (n, direction) in [(0u8, Direction::Out), (1, Direction::In)] {
            for (name, check) in ACTIONS {
                check(&scene, &mut underlay, n, direction)
                    .with_context(|| format!("{name}, IPv6 {v6}, {direction:?}"))?;
            }
        }
        underlay.only_wireguard()?;
    }
    Ok(())
}

type Check = fn(&Scene, &mut Underlay, u8, Direction) -> Result<()>;
const ACTIONS: [(&str, Check); 4] = [
    ("drop", drops),
    ("duplicate", duplicates),
    ("hold", holds),
    ("corrupt", corrupts),
];

/// Sends data messages with these tags, each after a handshake message that no rule matches, and
/// returns the tags of the data that arrives.
fn tags(scene: &Scene, n: u8, sent: std::ops::RangeInclusive<u8>) -> Result<Vec<u8>> {
    for tag in sent {
        scene.send(n, &message(1, 148, tag))?;
        scene.send(n, &message(4, 48, tag))?;
    }
    arrived(scene, n)
}

fn arrived(scene: &Scene, n: u8) -> Result<Vec<u8>> {
    let mut got = scene.received(1 - n)?;
    got.retain(|m| m[0] == 4);
    Ok(got.iter().filter_map(|m| m.last().copied()).collect())
}

fn wanted<T: PartialEq + std::fmt::Debug>(got: T, want: T) -> Result<()> {
    ensure!(got == want, "{got:?} arrived, expected {want:?}");
    Ok(())
}

fn drops(scene: &Scene, underlay: &mut Underlay, n: u8, direction: Direction) -> Result<()> {
    let rule = Rule::new(direction, &[Class::Data], Action::Drop);
    let first = underlay.disturb(rule)?;
    let fourth = underlay.disturb(rule.nth(4))?;
    wanted(tags(scene, n, 1..=6)?, vec![2, 3, 5, 6])?;
    for id in [first, fourth] {
        ensure!(underlay.seen(id)? == 6 && underlay.hits(id)? == 1, "counts");
        underlay.lift(id)?;
    }
    for (rule, want) in [
        (rule.nth(2).times(3), vec![1, 5, 6, 7]),
        (rule.nth(6).always(), vec![1, 2, 3, 4, 5]),
        (rule.nth(2).every(3), vec![1, 3, 4, 6, 7]),
    ] {
        let id = underlay.disturb(rule)?;
        wanted(tags(scene, n, 1..=7)?, want)?;
        underlay.lift(id)?;
    }
    wanted(tags(scene, n, 1..=3)?, vec![1, 2, 3])
}

fn duplicates(scene: &Scene, underlay: &mut Underlay, n: u8, direction: Direction) -> Result<()> {
    let before = underlay.counts(direction)?.of(Class::Data);
    let rule = Rule::new(direction, &[Class::Data], Action::Duplicate).nth(2);
    let id = underlay.disturb(rule)?;
    wanted(tags(scene, n, 1..=3)?, vec![1, 2, 2, 3])?;
    underlay.lift(id)?;
    let counted = underlay.counts(direction)?.of(Class::Data) - before;
    ensure!(counted == 3, "{counted} of 3 messages counted");
    Ok(())
}

fn holds(scene: &Scene, underlay: &mut Underlay, n: u8, direction: Direction) -> Result<()> {
    let rule = Rule::new(direction, &[Class::Data], Action::Hold).times(2);
    let id = underlay.disturb(rule)?;
    wanted(tags(scene, n, 1..=3)?, vec![3])?;
    underlay.lift(id)?;
    let held = underlay.held()?;
    let [one, two] = held.as_slice() else {
        anyhow::bail!("{} of 2 messages held", held.len())
    };
    ensure!(
        one.message().last() == Some(&1),
        "the wrong message was held"
    );
    underlay.release_spoiled(two)?;
    wanted(arrived(scene, n)?, vec![])?;
    for held in [two, one] {
        underlay.release(held)?;
    }
    wanted(arrived(scene, n)?, vec![2, 1])
}

fn corrupts(scene: &Scene, underlay: &mut Underlay, n: u8, direction: Direction) -> Result<()> {
    for (offset, at) in [(0, 0), (17, 17), (-1, 47), (-48, 0)] {
        let action = Action::Corrupt { offset, mask: 0x81 };
        let id = underlay.disturb(Rule::new(direction, &[Class::Data], action))?;
        let sent = message(4, 48, 9);
        scene.send(n, &sent)?;
        scene.send(n, &sent)?;
        underlay.lift(id)?;
        let mut spoiled = sent.clone();
        spoiled[at] ^= 0x81;
        wanted(scene.received(1 - n)?, vec![spoiled, sent])?;
    }
    Ok(())
}
