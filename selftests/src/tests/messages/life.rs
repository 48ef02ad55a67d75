// SPDX-License-Identifier: GPL-2.0-only
//! Debug messages over the life of devices, peers and sessions: a tunnel from creation to removal.

use super::Log;
use anyhow::{ensure, Result};
use harness::driver::PLAIN;
use harness::netns::Netns;
use harness::runner::Ctx;
use harness::topo::{inner, outer, port, End, Link, Opts, Tunnel};
use harness::traffic::{ping_all, udp};
use harness::wgdev::{uapi, PeerConf};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

pub(super) fn run(ctx: &Ctx, log: &mut Log) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    log.expect("a link is created", &["Interface created"])?;
    log.expect("a peer is created", &["Peer N created"])?;
    let there = format!("({})", SocketAddr::new(outer(false, 1), port(1)));
    let there = there.as_str();

    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    log.expect(
        "a handshake starts",
        &["handshake initiation to peer N", there],
    )?;
    log.expect(
        "the response arrives",
        &["handshake response from peer N", there],
    )?;
    log.expect("a session starts", &["Keypair N created for peer N"])?;

    // The passive keepalive, ten seconds after data without a reply.
    let _listener = udp(tunnel.ns(0), SocketAddr::new(inner(false, 0), 9000))?;
    let socket = udp(tunnel.ns(1), SocketAddr::new(inner(false, 1), 9000))?;
    socket.send_to(b"x", SocketAddr::new(inner(false, 0), 9000))?;
    sleep(Duration::from_secs(12));
    log.expect(
        "a keepalive is sent",
        &["keepalive packet to peer N", there],
    )?;
    socket.send_to(b"x", SocketAddr::new(inner(false, 0), 9000))?;
    tunnel.set_peer(1, keepalive_of(25))?;
    log.expect(
        "a keepalive arrives",
        &["keepalive packet from peer N", there],
    )?;
    tunnel.set_peer(1, keepalive_of(0))?;

    log.discard()?;
    // Silence: neither end hears the other. A new handshake starts after 15 s, is retried every 5 s
    // and given up after 90 s; the keys are zeroed after 540 s.
    tunnel.mute(0, true)?;
    tunnel.mute(1, true)?;
    let sender = udp(tunnel.ns(0), SocketAddr::new(inner(false, 0), 9001))?;
    sender.send_to(b"x", SocketAddr::new(inner(false, 1), 9000))?;
    sleep(Duration::from_secs(130));
    log.expect(
        "the peer is silent",
        &["etrying handshake with peer N", there, " 15 s"],
    )?;
    let handshake = "andshake for peer N";
    for n in 2..=20 {
        log.expect(
            "an initiation is lost",
            &[handshake, there, " 5 s", &format!("(try {n})")],
        )?;
    }
    log.expect(
        "no response at all",
        &[handshake, there, " 20 ", "giving up"],
    )?;
    sleep(Duration::from_secs(520));
    log.expect(
        "the keys are zeroed",
        &["all keys for peer N", there, " 540 s"],
    )?;
    tunnel.mute(0, false)?;
    tunnel.mute(1, false)?;

    // Removal.
    log.discard()?;
    sender.send_to(b"x", SocketAddr::new(inner(false, 1), 9000))?;
    log.expect("another session", &["Keypair N created for peer N"])?;
    let remove = PeerConf {
        flags: uapi::peer::F_REMOVE_ME,
        ..PeerConf::default()
    };
    tunnel.set_peer(0, remove)?;
    // One message comes with the removal, the other after the last RCU reader, in either order.
    log.expect(
        "a peer with a session is removed",
        &["Keypair N destroyed for peer N"],
    )?;
    log.expect("the peer is removed", &["Peer N", there, "destroyed"])?;
    tunnel.rt(0).link_del("wg0")?;
    log.expect("the link is removed", &["Interface destroyed"])
}

fn keepalive_of(secs: u16) -> PeerConf {
    PeerConf {
        keepalive: Some(secs),
        ..PeerConf::default()
    }
}

/// A device that was moved away, and the deletion of its creating namespace.
pub(super) fn orphaned(log: &mut Log) -> Result<()> {
    let mut link = Link::new()?;
    let end = End::new(&mut link, 0, PLAIN, None)?;
    let away = Netns::new("away")?;
    link.rt(0).set_netns("wg0", away.fd())?;
    log.discard()?;
    drop((end, link));
    log.expect("its namespace is deleted", &["Creating namespace"])?;
    let mut rt = away.rtnl()?;
    ensure!(rt.link("wg0").is_ok(), "the device is deleted too");
    Ok(rt.link_del("wg0")?)
}
