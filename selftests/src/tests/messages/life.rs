// SPDX-License-Identifier: GPL-2.0
//! What is told of the life of devices, peers and sessions: a tunnel from its making to its end.

use super::Log;
use crate::harness::netns::Netns;
use crate::harness::runner::Ctx;
use crate::harness::topo::{inner, outer, port, End, Link, Opts, Tunnel, PLAIN};
use crate::harness::traffic::{ping_all, udp};
use crate::harness::wgdev::{uapi, PeerConf};
use anyhow::{ensure, Result};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

pub(super) fn run(ctx: &Ctx, log: &mut Log) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    log.expect("a link is made", &["Interface created"])?;
    log.expect("a peer is made", &["Peer N created"])?;
    let there = format!("({})", SocketAddr::new(outer(false, 1), port(1)));
    let there = there.as_str();

    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    log.expect(
        "a handshake begins",
        &["handshake initiation to peer N", there],
    )?;
    log.expect(
        "the response comes",
        &["handshake response from peer N", there],
    )?;
    log.expect("a session begins", &["Keypair N created for peer N"])?;

    // The passive keepalive, ten seconds after data that was not answered.
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
        "a keepalive comes",
        &["keepalive packet from peer N", there],
    )?;
    tunnel.set_peer(1, keepalive_of(0))?;

    log.forget()?;
    // Silence: neither end hears the other; a new handshake after 15 s, tried again after 5 s, given
    // up after 90 s; the keys are wiped after 540 s.
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
        "there is no response at all",
        &[handshake, there, " 20 ", "giving up"],
    )?;
    sleep(Duration::from_secs(520));
    log.expect(
        "the keys are wiped",
        &["all keys for peer N", there, " 540 s"],
    )?;
    tunnel.mute(0, false)?;
    tunnel.mute(1, false)?;

    // The end of it all.
    log.forget()?;
    sender.send_to(b"x", SocketAddr::new(inner(false, 1), 9000))?;
    log.expect("a session again", &["Keypair N created for peer N"])?;
    let remove = PeerConf {
        flags: uapi::PEER_REMOVE_ME,
        ..PeerConf::default()
    };
    tunnel.set_peer(0, remove)?;
    // The one comes with the removal, the other when the last reader has gone, in either order.
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

/// A device that has moved away, and the end of the namespace that it was made in.
pub(super) fn orphaned(log: &mut Log) -> Result<()> {
    let mut link = Link::new()?;
    let end = End::new(&mut link, 0, PLAIN, None)?;
    let away = Netns::new("away")?;
    link.rt(0).set_netns("wg0", away.fd())?;
    log.forget()?;
    drop((end, link));
    log.expect("its namespace goes", &["Creating namespace"])?;
    let mut rt = away.rtnl()?;
    ensure!(rt.link("wg0").is_ok(), "the device is gone too");
    Ok(rt.link_del("wg0")?)
}
