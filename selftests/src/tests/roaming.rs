// SPDX-License-Identifier: GPL-2.0-only
//! What updates a peer's endpoint and what counts as received from it; cookie replies under load.

use super::receive::{datagram, Scene, FRAME};
use super::{drop_in, outer as headers, Test};
use anyhow::{anyhow, bail, ensure, Context, Result};
use harness::capture::{Capture, Seen};
use harness::cmd::run;
use harness::noise::{cookie, handshake, Tweak};
use harness::pace::slow;
use harness::packet::ip;
use harness::runner::{Ctx, Subject};
use harness::topo::{inner, mac, names, outer, port, Opts, Tunnel};
use harness::traffic::{ping_all, udp};
use harness::wgdev::PeerConf;
use harness::wire::Message;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);
const A_WHILE: Duration = Duration::from_millis(300);

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "receive-roaming-and-counters", 60, roaming);
    drop_in(list, "receive-cookie-load", 60, cookie_load);
    drop_in(list, "receive-roaming-link-local", 60, link_local);
}

/// Every authenticated message updates the endpoint to its source and is counted with its full
/// length; cookie replies, replays and forgeries do neither.
fn roaming(_: &Ctx) -> Result<()> {
    let mut scene = Scene::new(false)?;
    let mut session = scene.session()?;
    let places = [
        SocketAddr::new(outer(false, 1), 40001),
        SocketAddr::new(outer(true, 1), 40002),
        SocketAddr::new(outer(false, 1), 40003),
    ];
    let mut sockets = Vec::new();
    for at in places {
        sockets.push(udp(scene.link.end(1), at)?);
    }
    let to = |at: SocketAddr| SocketAddr::new(outer(at.is_ipv6(), 0), port(0));
    let send = |n: usize, message: &[u8]| -> Result<()> {
        sockets[n].send_to(message, to(places[n]))?;
        Ok(())
    };
    let home = SocketAddr::new(outer(false, 1), port(1));
    let check = |scene: &mut Scene, at: SocketAddr, what: &str| -> Result<()> {
        let is = scene.peer()?.endpoint;
        ensure!(is == Some(at), "{what}: the endpoint is {is:?}, not {at}");
        Ok(())
    };
    check(&mut scene, home, "at first")?;

    // Data and keepalives, from each source.
    let _sink = udp(scene.link.end(0), SocketAddr::new(inner(false, 0), 9))?;
    let data = datagram(false, 0, 20).packet();
    for n in [0, 1, 2, 0] {
        for (what, plain) in [("a keepalive", &[][..]), ("data", &data)] {
            let before = (scene.counters()?, scene.peer()?.rx_bytes);
            let message = session.data(plain);
            let len = message.len() as u64;
            scene.client.send(&session.data(&[]))?; // back home
            send(n, &message)?;
            let wanted = [("rx_packets", 2), ("rx_bytes", 32 + len)];
            scene.expect(&before.0, &wanted, what)?;
            check(&mut scene, places[n], what)?;
            let counted = scene.peer()?.rx_bytes - before.1;
            ensure!(counted == 32 + len, "{what}: the peer counts {counted}");
            // Replayed from elsewhere, or forged: no effect.
            let elsewhere = (n + 1) % 3;
            let before = scene.counters()?;
            send(elsewhere, &message)?;
            let mut forged = session.data(plain);
            *forged.last_mut().context("empty")? ^= 1;
            send(elsewhere, &forged)?;
            std::thread::sleep(Duration::from_millis(50));
            scene.expect(&before, &[], format!("{what}, replayed and forged"))?;
            check(&mut scene, places[n], "replayed and forged")?;
        }
    }
    // A message refused for its content has authenticated: it updates the endpoint, too.
    let before = scene.counters()?;
    let foreign = ip("192.0.2.2".parse()?, inner(false, 0), 0, 253, &[1; 8]);
    send(2, &session.data(&foreign))?;
    scene.expect(&before, FRAME, "a wrong inner source")?;
    check(&mut scene, places[2], "a wrong inner source")?;

    // An initiation; the response goes to its source. One with a wrong MAC has no effect.
    std::thread::sleep(Duration::from_millis(30));
    let before = scene.counters()?;
    let tweak = Tweak {
        mac1: Some([0; 16]),
        ..Tweak::default()
    };
    let keys = (scene.client.keys, scene.client.peer);
    let bad = handshake::initiate(&keys.0, &keys.1, &tweak);
    send(0, &bad.message)?;
    std::thread::sleep(A_WHILE);
    scene.expect(&before, &[], "an initiation with a wrong MAC")?;
    check(&mut scene, places[2], "an initiation with a wrong MAC")?;
    let good = handshake::initiate(&keys.0, &keys.1, &Tweak::default());
    send(1, &good.message)?;
    let response = receive(&sockets[1]).context("the response")?;
    ensure!(
        response.len() == 92,
        "a response of {} bytes",
        response.len()
    );
    let wanted = [
        ("rx_packets", 1),
        ("rx_bytes", 148),
        ("tx_packets", 1),
        ("tx_bytes", 92),
    ];
    scene.expect(&before, &wanted, "an initiation")?;
    check(&mut scene, places[1], "an initiation")?;
    let mut session = good.finish(&response, &[0; 32])?;
    send(0, &session.data(&[]))?;
    let start = Instant::now();
    while scene.peer()?.endpoint != Some(places[0]) && start.elapsed() < slow(LIMIT) {
        std::thread::sleep(Duration::from_millis(10));
    }
    check(&mut scene, places[0], "the first keepalive")?;
    response_roams(scene, &places, &sockets)
}

/// The device initiates: the response updates the endpoint and is counted, a cookie reply not.
fn response_roams(mut scene: Scene, places: &[SocketAddr; 3], sockets: &[UdpSocket]) -> Result<()> {
    scene.link.rt(0).set_up("wg0", false)?;
    scene.link.rt(0).set_up("wg0", true)?;
    let before = scene.counters()?;
    let socket = udp(scene.link.end(0), "0.0.0.0:0".parse()?)?;
    socket.send_to(&[5; 20], (inner(false, 1), 9))?;
    let initiation = receive(&sockets[0]).context("the initiation")?;
    ensure!(initiation.len() == 148, "{} bytes", initiation.len());
    let to = SocketAddr::new(outer(false, 0), port(0));
    let reply = cookie::reply(&scene.client.keys.public, &initiation, &[7; 16]);
    sockets[2].send_to(&reply, to)?;
    std::thread::sleep(A_WHILE);
    let wanted = [("tx_packets", 1), ("tx_bytes", 148)];
    scene.expect(&before, &wanted, "a cookie reply")?;
    let is = scene.peer()?.endpoint;
    ensure!(is == Some(places[0]), "a cookie reply: endpoint {is:?}");
    let received = handshake::receive(&scene.client.keys, &initiation)?;
    let (mut session, response) = received.respond(&[0; 32], &Tweak::default());
    sockets[2].send_to(&response, to)?;
    let data = receive(&sockets[2]).context("the staged packet")?;
    ensure!(data.len() == 48 + 32, "{} bytes", data.len());
    let wanted = [
        ("tx_packets", 2),
        ("tx_bytes", 148 + 48 + 32),
        ("rx_packets", 1),
        ("rx_bytes", 92),
    ];
    scene.expect(&before, &wanted, "a response")?;
    let is = scene.peer()?.endpoint;
    ensure!(is == Some(places[2]), "a response: endpoint {is:?}");
    scene
        .client
        .ping(&mut session, inner(false, 1), inner(false, 0))
}

fn receive(socket: &UdpSocket) -> Result<Vec<u8>> {
    socket.set_read_timeout(Some(LIMIT))?;
    let mut buf = vec![0; 2048];
    let n = socket.recv(&mut buf)?;
    buf.truncate(n);
    Ok(buf)
}

/// Link-local addresses as endpoints: the same on two links, distinguished by their scope. The
/// scope selects the link that messages are sent on, and is learnt from received messages.
fn link_local(ctx: &Ctx) -> Result<()> {
    const LINKS: [[&str; 2]; 2] = [["v0", "v1"], ["w0", "w1"]];
    let local = |n: u8| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa, u16::from(n) + 1);
    let opts = Opts {
        v6: true,
        endpoints: [false; 2],
        ..Opts::new(ctx.plain())
    };
    let mut tunnel = Tunnel::new(&opts)?;
    let fd = tunnel.ns(1).fd();
    tunnel.rt(0).veth_add(("w0", mac(4)), ("w1", mac(5)), fd)?;
    let mut scopes = [[0; 2]; 2];
    for n in 0..2u8 {
        for (way, other) in [mac(1 - n), mac(5 - n)].into_iter().enumerate() {
            let link = LINKS[way][usize::from(n)];
            tunnel.rt(n).set_up(link, true)?;
            tunnel.rt(n).addr_add(link, local(n).into(), 64)?;
            tunnel.rt(n).neigh_set(link, local(1 - n).into(), other)?;
            scopes[way][usize::from(n)] = tunnel.rt(n).index(link)?;
        }
    }
    // Either end sends first, by either link.
    for (n, way) in [(0u8, 1), (0, 0), (1, 1), (1, 0)] {
        let what = format!("end {n} first, by {}", LINKS[way][usize::from(n)]);
        let scoped = |of: u8, ip, by: u8| {
            let scope = scopes[way][usize::from(by)];
            SocketAddr::V6(SocketAddrV6::new(ip, port(of), 0, scope))
        };
        let other = scoped(1 - n, local(1 - n), n);
        let conf = PeerConf {
            endpoint: Some(other),
            ..PeerConf::default()
        };
        tunnel.set_peer(n, conf)?;
        let wires = [
            Capture::start(tunnel.ns(n), LINKS[0][usize::from(n)])?,
            Capture::start(tunnel.ns(n), LINKS[1][usize::from(n)])?,
        ];
        ping_all(tunnel.ns(n), inner(false, 1 - n), 2).with_context(|| what.clone())?;
        ping_all(tunnel.ns(1 - n), inner(true, n), 2).with_context(|| what.clone())?;
        let seen = wires[way].wait(12, LIMIT, |_| true)?;
        let others = wires[1 - way].seen();
        ensure!(others.is_empty(), "{what}: by the other link {others:?}");
        // It may choose any of its addresses on that link.
        let IpAddr::V6(source) = seen[0].src.ip() else {
            bail!("{what}: {seen:?}");
        };
        let told = [tunnel.peer(n)?.endpoint, tunnel.peer(1 - n)?.endpoint];
        let wanted = [Some(other), Some(scoped(n, source, 1 - n))];
        ensure!(told == wanted, "{what}: endpoints {told:?}, not {wanted:?}");
    }
    Ok(())
}

/// Under a flood of initiations the device sends cookie replies, with traffic class 0 and
/// otherwise the headers and the mark of any message, and counts them as sent.
fn cookie_load(ctx: &Ctx) -> Result<()> {
    // Outrank the device's workers, which could keep up with a sender on a slow kernel.
    run(&["renice", "-n", "-20", "-p", &std::process::id().to_string()])?;
    for v6 in [false, true] {
        let mut scene = Scene::new(v6)?;
        scene.device.set(&scene.link, &headers::marked())?;
        headers::prepare_header_checks(scene.link.end(0))?;
        let wire = Capture::start(scene.link.end(0), names(0).1)?;
        let before = scene.counters()?;
        // The same one repeatedly: each costs the device its computations.
        let pending = scene.client.initiate(&Tweak::default())?;
        let mut sent = 0;
        let is_cookie = |s: &Seen| s.outgoing && matches!(s.message, Message::Cookie { .. });
        while !wire.seen().iter().any(is_cookie) {
            let (socket, to) = (&scene.client.socket, scene.client.to);
            let flood =
                || (0..600).try_for_each(|_| socket.send_to(&pending.message, to).map(drop));
            std::thread::scope(|threads| -> Result<()> {
                let other = threads.spawn(flood);
                flood()?;
                Ok(other.join().map_err(|_| anyhow!("a panic"))??)
            })?;
            sent += 1200;
            ensure!(sent < 60_000, "no cookie reply to {sent} initiations");
        }
        // Until the queue is empty.
        let mut count = 0;
        loop {
            std::thread::sleep(A_WHILE);
            let now = wire.seen().iter().filter(|s| s.outgoing).count();
            if now == count {
                break;
            }
            count = now;
        }
        let seen = wire.seen();
        let (mut packets, mut bytes) = (0, 0);
        for s in seen.iter().filter(|s| s.outgoing) {
            let len = match s.message {
                Message::Cookie { .. } => 64,
                Message::Response { .. } => 92,
                _ => bail!("unexpected: {s:?}"),
            };
            packets += 1;
            bytes += len;
        }
        headers::check_headers(&wire.stop()?, v6, |_, payload| match payload[0] {
            2 => 0x88,
            _ => 0,
        })?;
        headers::check_marks(scene.link.end(0), packets)?;
        let moved = scene.counters()?.since(&before);
        ensure!(
            (moved.value("tx_packets"), moved.value("tx_bytes")) == (packets, bytes),
            "IPv6 {v6}: {packets} messages of {bytes} bytes were sent: {moved:?}"
        );
        // The initiation is accepted at most once. The in-tree driver checks and stores a timestamp
        // in two steps, so each CPU can accept the same one once.
        let accepted = moved.value("rx_packets");
        let most = match ctx.subject {
            Subject::C => 2,
            Subject::Rs => 1,
        };
        ensure!(
            accepted <= most && moved.value("rx_bytes") == 148 * accepted,
            "IPv6 {v6}: received: {moved:?}"
        );
        std::thread::sleep(Duration::from_millis(1300));
        let mut session = scene.session()?;
        scene
            .client
            .ping(&mut session, inner(true, 1), inner(true, 0))?;
    }
    Ok(())
}
