// SPDX-License-Identifier: GPL-2.0-only
//! Messages about single packets, most of them refused: the peer is the tests' own client.

use super::{Log, STRANGER};
use crate::tests::receive::Scene;
use anyhow::{ensure, Context, Result};
use harness::noise::{cookie, handshake, packet, Keys, Session, Tweak};
use harness::pace::alone;
use harness::packet::PacketSocket;
use harness::topo::{inner, outer, port};
use harness::traffic::{ping, udp};
use harness::wgdev::{uapi, PeerConf};
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

/// How long to wait for what must arrive.
const LIMIT: Duration = Duration::from_secs(10);
/// More than the minimum interval between two initiations.
const GAP: Duration = Duration::from_millis(30);
/// Capacity of the queue of handshake messages.
const QUEUE: usize = 4096;
/// An initiation by type and length only.
const JUNK: [u8; 148] = {
    let mut message = [0x5a; 148];
    [message[0], message[1], message[2], message[3]] = [1, 0, 0, 0];
    message
};

pub(super) fn run(log: &mut Log) -> Result<()> {
    let mut scene = Scene::new(false)?;
    transmitted(log, &mut scene)?;
    cookie_replies_and_responses(log, &scene)?;
    let mut session = initiations(log, &scene)?;
    roaming(log, &scene, &mut session)?;
    data(log, &scene, &mut session)?;
    forged(log, &mut scene)?;
    under_load(log, &scene)
}

/// The client's endpoint.
fn client_endpoint() -> SocketAddr {
    SocketAddr::new(outer(false, 1), port(1))
}

/// Packets that the device cannot send.
fn transmitted(log: &mut Log, scene: &mut Scene) -> Result<()> {
    const ARP: u16 = libc::ETH_P_ARP as u16;
    let wait = Duration::from_millis(100);
    let socket = PacketSocket::open(scene.link.end(0), "wg0", false)?;
    let sent = socket.send(ARP, &[0; 28]);
    ensure!(sent == Err(Errno::EPROTONOSUPPORT), "ARP is sent: {sent:?}");
    log.expect("not an IP packet", &["Invalid IP packet"])?;

    ping(scene.link.end(0), STRANGER, 1, 8, wait)?;
    log.expect("no peer has the destination", &["No peer ", "10.9.0.77"])?;
    ping(scene.link.end(0), "fd09::77".parse()?, 1, 8, wait)?;
    log.expect(
        "no peer has the IPv6 destination",
        &["No peer ", "fd09:", "77"],
    )?;

    for (n, endpoint, told, parts) in [
        (101, None, "(einval)", ["No ", "endpoint", "for peer N"]),
        (
            102,
            Some("198.51.100.1:5"),
            "198.51.100.1:5",
            ["No route to ", "198.51.100.1:5", "error -101"],
        ),
        (
            103,
            Some("[3fff::1]:5"),
            "[3fff::1]:5/0%0",
            ["No route to ", "[3fff::1]:5/0%0", "error -101"],
        ),
    ] {
        let inside: IpAddr = Ipv4Addr::new(10, 9, 0, n).into();
        let mut conf = PeerConf {
            public_key: Keys::random().public,
            endpoint: endpoint.map(str::parse).transpose()?,
            allowed_ips: vec![(inside, 32)],
            ..PeerConf::default()
        };
        scene.device.set_peer(&scene.link, conf.clone())?;
        ping(scene.link.end(0), inside, 1, 8, wait)?;
        log.expect("the peer is unreachable", &parts)?;
        conf.flags = uapi::peer::F_REMOVE_ME;
        scene.device.set_peer(&scene.link, conf)?;
        log.expect("the peer is removed", &["Peer N", told, "destroyed"])?;
    }
    Ok(())
}

/// Answers to the device's own initiation.
fn cookie_replies_and_responses(log: &mut Log, scene: &Scene) -> Result<()> {
    let client = &scene.client;
    let app = udp(scene.link.end(0), SocketAddr::new(inner(false, 0), 0))?;
    app.send_to(b"x", SocketAddr::new(inner(false, 1), 9))?;
    let initiation = client.wait_initiation(LIMIT)?;
    let right = cookie::reply(&client.keys.public, &initiation, &[1; 16]);
    let mut altered = right.clone();
    altered[40] ^= 1;
    for (reply, why) in [
        (&altered, Some("cookie reply does not authenticate")),
        (&right, None),
    ] {
        client.send(reply)?;
        let there = client_endpoint().to_string();
        log.expect("a cookie reply arrives", &["cookie response from", &there])?;
        if let Some(why) = why {
            log.expect_refusal("it is refused", &["nvalid cookie response"], why)?;
        }
    }

    let received = handshake::receive(&client.keys, &initiation)?;
    let invalid = format!("Invalid handshake response from {}", client_endpoint());
    let elsewhere = Tweak {
        receiver: Some(0x5a5a_5a5a),
        ..Tweak::default()
    };
    let (_, response) = received.respond(&client.psk, &elsewhere);
    client.send(&response)?;
    log.expect_refusal(
        "an unsolicited response",
        &[&invalid],
        "unknown receiver index",
    )?;
    let (_, response) = received.respond(&[7; 32], &Tweak::default());
    client.send(&response)?;
    let why = "response does not authenticate";
    log.expect_refusal("a response with another key", &[&invalid], why)?;
    let (session, response) = received.respond(&client.psk, &Tweak::default());
    client.send(&response)?;
    client.wait_data(&session, LIMIT)?;
    let there = client_endpoint().to_string();
    log.expect(
        "the right response",
        &["handshake response from peer N", &there],
    )
}

/// The client's initiations.
fn initiations(log: &mut Log, scene: &Scene) -> Result<Session> {
    let client = &scene.client;
    log.discard()?;
    let pending = client.initiate(&Tweak::default())?;
    let response = client.wait_response(&pending, LIMIT)?;
    for text in ["handshake initiation from", "handshake response to"] {
        let text = format!("{text} peer N ({})", client_endpoint());
        log.expect("an initiation arrives", &[&text])?;
    }
    log.expect("a session starts", &["Keypair N created for peer N"])?;

    sleep(GAP);
    client.send(&pending.message)?;
    let invalid = format!("Invalid handshake initiation from {}", client_endpoint());
    log.expect_refusal("a replay", &[&invalid], "replayed initiation")?;
    let stranger = handshake::initiate(&Keys::random(), &client.peer, &Tweak::default());
    client.send(&stranger.message)?;
    log.expect_refusal("from an unknown key", &[&invalid], "unknown peer")?;
    pending.finish(&response, &client.psk)
}

/// The client moves to another endpoint and back.
fn roaming(log: &mut Log, scene: &Scene, session: &mut Session) -> Result<()> {
    let client = &scene.client;
    client.send(&session.data(&[]))?;
    let text = format!("keepalive packet from peer N ({})", client_endpoint());
    log.expect("a keepalive arrives", &[&text])?;
    let away = SocketAddr::new(outer(false, 1), 4444);
    let socket = udp(scene.link.end(1), away)?;
    for (socket, from) in [(&socket, away), (&client.socket, client_endpoint())] {
        socket.send_to(&session.data(&[]), client.to)?;
        let text = format!("Endpoint of peer N is now {from}");
        log.expect_ours("the peer moves", &[&text])?;
        let text = format!("keepalive packet from peer N ({from})");
        log.expect("a keepalive from there", &[&text])?;
    }
    Ok(())
}

/// Data that authenticates but must not be accepted.
fn data(log: &mut Log, scene: &Scene, session: &mut Session) -> Result<()> {
    let client = &scene.client;
    let from = |src: &str| -> Result<Vec<u8>> {
        let src: IpAddr = src.parse()?;
        Ok(packet::ip(src, inner(src.is_ipv6(), 0), 253, &[1; 12]))
    };
    let mut longer = from("10.9.0.2")?;
    longer[3] += 1;
    let mut odd = from("10.9.0.2")?;
    odd[0] = 0x55;
    for (plain, [first, second]) in [
        (from("10.9.0.66")?, ["src IP", "10.9.0.66"]),
        (from("fd09::66")?, ["src IP", "fd09::66"]),
        (longer, ["incorrect", "size"]),
        (odd, ["neither", "nor"]),
    ] {
        client.send(&session.seal(session.counter, &plain))?;
        session.counter += 1;
        let from = format!("peer N ({})", client_endpoint());
        log.expect("an invalid packet arrives", &[first, second, &from])?;
    }

    let far = 10_000;
    client.send(&session.seal(far, &[]))?;
    for (counter, what) in [(far, "a replay"), (session.counter, "an old counter")] {
        client.send(&session.seal(counter, &[]))?;
        let (text, max) = (format!("nonce {counter}"), format!("(max {})", far + 1));
        log.expect(what, &["Packet has ", &text, &max])?;
    }
    Ok(())
}

/// Invalid messages, and handshake messages without a valid mac1.
fn forged(log: &mut Log, scene: &mut Scene) -> Result<()> {
    scene.client.send(&[9; 40])?;
    log.expect_ours("an invalid message", &["Invalid message header"])?;
    let invalid = "Invalid MAC of handshake";
    scene.client.send(&JUNK)?;
    log.expect(
        "a forged message",
        &[invalid, &client_endpoint().to_string()],
    )?;

    // A link-local address is logged with its scope.
    let [own, theirs] = [1, 2].map(|n| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n));
    scene.link.rt(0).addr_add("v0", own.into(), 64)?;
    scene.link.rt(1).addr_add("v1", theirs.into(), 64)?;
    let scope = scene.link.rt(1).index("v1")?;
    let from = SocketAddrV6::new(theirs, 4445, 0, scope);
    let to = SocketAddrV6::new(own, port(0), 0, scope);
    udp(scene.link.end(1), from.into())?.send_to(&JUNK, to)?;
    let scope = scene.link.rt(0).index("v0")?;
    let from = format!(" [{theirs}]:4445/0%{scope}");
    log.expect("one from a link-local address", &[invalid, &from])
}

/// More handshake messages than can be handled in time, and more than the queue holds.
fn under_load(log: &mut Log, scene: &Scene) -> Result<()> {
    let client = &scene.client;
    let from = SocketAddr::new(outer(false, 1), 4446);
    let socket = udp(scene.link.end(1), from)?;
    // One line each would overflow the log.
    log.disable("Invalid MAC")?;
    flood(&socket, client.to, 600)?;
    client.initiate(&Tweak::default())?;
    let there = client_endpoint().to_string();
    log.expect("under load", &["Sen", "cookie response", &there])?;
    flood(&socket, client.to, QUEUE + 10)?;
    let text = format!("andshake packet from {from}");
    log.expect_refusal("the queue is full", &[&text], "queue full")
}

/// Queues forged handshake messages before the device's worker handles any of them.
fn flood(socket: &UdpSocket, to: SocketAddr, count: usize) -> Result<()> {
    alone(|| {
        for _ in 0..count {
            socket.send_to(&JUNK, to).context("flood")?;
        }
        Ok(())
    })
}
