// SPDX-License-Identifier: GPL-2.0-only
//! Roaming, preshared keys, removal, keepalives and link state. The peer is the in-tree driver.

use super::{side_by_side, Test};
use anyhow::{ensure, Result};
use harness::pace::slow;
use harness::runner::{Boot, Ctx};
use harness::topo::{inner, mac, outer, port, Opts, Tunnel};
use harness::traffic::{ping, ping_all, udp};
use harness::wgdev::{uapi, DeviceConf, PeerConf};
use harness::wire::Message;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub fn register(list: &mut Vec<Test>) {
    side_by_side(list, "session-roaming", Boot::Smp, 90, roaming);
    side_by_side(list, "session-psk-mismatch", Boot::Smp, 90, psk_mismatch);
    side_by_side(list, "session-removed-peer", Boot::Smp, 90, removed_peer);
    side_by_side(
        list,
        "session-keepalive-idle",
        Boot::Smp,
        90,
        keepalive_idle,
    );
    side_by_side(list, "session-down-up", Boot::Smp, 90, down_up);
}

/// The peer's port and then its address change mid-session; the endpoint follows only
/// authenticated packets.
fn roaming(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.against_intree()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 2)?;
    let known = |tunnel: &mut Tunnel, n| Ok::<_, anyhow::Error>(tunnel.peer(n)?.endpoint);
    ensure!(
        known(&mut tunnel, 0)? == Some(SocketAddr::new(outer(false, 1), port(1))),
        "endpoint"
    );
    let handshake = tunnel.peer(0)?.last_handshake;

    // Messages of every type from a stranger.
    let stranger = udp(tunnel.ns(1), SocketAddr::new(outer(false, 1), 4444))?;
    for (kind, len) in [(1u8, 148), (2, 92), (3, 64), (4, 32), (4, 112)] {
        let mut message = vec![0; len];
        message[0] = kind;
        stranger.send_to(&message, SocketAddr::new(outer(false, 0), port(0)))?;
    }
    sleep(Duration::from_millis(200));
    ensure!(
        known(&mut tunnel, 0)? == Some(SocketAddr::new(outer(false, 1), port(1))),
        "the endpoint followed a message that was not authenticated"
    );

    for (n, new_port) in [(1u8, 7001), (0, 7000)] {
        let conf = DeviceConf {
            listen_port: Some(new_port),
            ..DeviceConf::default()
        };
        tunnel.ends[usize::from(n)].set(&tunnel.link, &conf)?;
        ping_all(tunnel.ns(n), inner(false, 1 - n), 1)?;
        let endpoint = known(&mut tunnel, 1 - n)?;
        ensure!(
            endpoint == Some(SocketAddr::new(outer(false, n), new_port)),
            "end {} has endpoint {endpoint:?} for its peer, expected port {new_port}",
            1 - n
        );
        ping_all(tunnel.ns(1 - n), inner(true, n), 1)?;
    }
    for (n, last) in [(1u8, 12u8), (0, 11)] {
        let (_, veth) = harness::topo::names(n);
        let (_, other_veth) = harness::topo::names(1 - n);
        let new = IpAddr::from([192, 0, 2, last]);
        tunnel.rt(n).addr_add(veth, new, 24)?;
        tunnel.rt(n).addr_del(veth, outer(false, n), 24)?;
        tunnel.rt(1 - n).neigh_set(other_veth, new, mac(n))?;
        // Removing the first address of a subnet may remove the others, too.
        let _ = tunnel.rt(n).addr_add(veth, new, 24);
        ping_all(tunnel.ns(n), inner(false, 1 - n), 1)?;
        let endpoint = known(&mut tunnel, 1 - n)?;
        ensure!(
            endpoint.map(|e| e.ip()) == Some(new),
            "end {} has endpoint {endpoint:?} for its peer, expected {new}",
            1 - n
        );
        ping_all(tunnel.ns(1 - n), inner(true, n), 1)?;
    }
    ensure!(
        tunnel.peer(0)?.last_handshake == handshake,
        "there was another handshake"
    );
    Ok(())
}

/// Different preshared keys never make a session; equal ones then do.
fn psk_mismatch(ctx: &Ctx) -> Result<()> {
    let [one, two] = [rand::random(), rand::random()];
    let opts = Opts {
        psk: [Some(one), Some(two)],
        ..Opts::new(ctx.against_intree())
    };
    let mut tunnel = Tunnel::new(&opts)?;
    let underlay = tunnel.watch(ctx, 0)?;
    for (from, to) in [(0, 1), (1, 0)] {
        let got = ping(
            tunnel.ns(from),
            inner(false, to),
            2,
            56,
            Duration::from_millis(700),
        )?;
        ensure!(
            got == 0,
            "a ping went through despite different preshared keys"
        );
    }
    // Each end retries 5 to 5.6 s after the last handshake message that it sent.
    let seen = underlay.wait(2, Duration::from_secs(10), |s| s.is_initiation())?;
    ensure!(
        seen.iter()
            .any(|s| matches!(s.message, Message::Response { .. })),
        "no response"
    );
    ensure!(
        seen.iter().all(|s| s.data_len().is_none()),
        "data was sent without a session"
    );
    // The responder makes its keypair before it can know of the mismatch; the initiator must not.
    ensure!(
        tunnel.peer(0)?.last_handshake.is_zero(),
        "a handshake is reported"
    );
    ensure!(
        tunnel.peer(1)?.last_handshake.is_zero(),
        "a handshake is reported"
    );

    tunnel.set_peer(
        1,
        PeerConf {
            preshared_key: Some(one),
            ..PeerConf::default()
        },
    )?;
    // The next initiation is at most 5.6 s away.
    let got = ping(tunnel.ns(0), inner(false, 1), 3, 56, Duration::from_secs(7))?;
    ensure!(
        got >= 2,
        "no session with equal preshared keys ({got} of 3 pings)"
    );
    Ok(())
}

/// Nothing is sent to a removed peer or accepted from it.
fn removed_peer(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.against_intree()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 2)?;
    let before = tunnel.rt(0).stats("wg0")?;
    tunnel.set_peer(
        0,
        PeerConf {
            flags: uapi::peer::F_REMOVE_ME,
            ..PeerConf::default()
        },
    )?;
    ensure!(
        tunnel.ends[0].get(&tunnel.link)?.peers.is_empty(),
        "the peer is still listed"
    );
    let underlay = tunnel.watch(ctx, 0)?;
    let got = ping(
        tunnel.ns(1),
        inner(false, 0),
        3,
        56,
        Duration::from_millis(300),
    )?;
    ensure!(got == 0, "the removed peer's ping was answered");
    let got = ping(
        tunnel.ns(0),
        inner(false, 1),
        2,
        56,
        Duration::from_millis(200),
    )?;
    ensure!(got == 0, "a ping to the removed peer was answered");
    let seen = underlay.stop()?;
    let seen: Vec<_> = seen.iter().filter_map(harness::capture::seen).collect();
    ensure!(
        seen.iter().filter(|s| !s.outgoing).count() >= 3,
        "the peer's messages were not seen"
    );
    ensure!(
        seen.iter().all(|s| !s.outgoing),
        "something was sent to the removed peer"
    );
    let after = tunnel.rt(0).stats("wg0")?;
    ensure!(
        after.rx_packets == before.rx_packets,
        "a packet of the removed peer was accepted"
    );

    let conf = PeerConf {
        endpoint: Some(SocketAddr::new(outer(false, 1), port(1))),
        allowed_ips: vec![(inner(false, 1), 32)],
        ..PeerConf::default()
    };
    tunnel.set_peer(0, conf)?;
    // With a clock of whole seconds the new initiation would look replayed; 5 s is the retry.
    let got = ping(tunnel.ns(0), inner(false, 1), 2, 56, Duration::from_secs(8))?;
    ensure!(
        got == 2,
        "the peer added again gets no session ({got} of 2 pings)"
    );
    Ok(())
}

/// A persistent keepalive starts the handshake by itself, then sends one keepalive per interval,
/// as counted by both ends; when disabled, it stops.
fn keepalive_idle(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.against_intree()))?;
    tunnel.set_peer(
        0,
        PeerConf {
            keepalive: Some(1),
            ..PeerConf::default()
        },
    )?;
    // Longer than a retry: the in-tree driver arms the retry after the initiation, so that a quick
    // response may come first.
    sleep(Duration::from_millis(7000));
    let (a0, b0) = (tunnel.peer(0)?, tunnel.peer(1)?);
    ensure!(
        !a0.last_handshake.is_zero(),
        "no handshake on an idle link with a keepalive"
    );
    ensure!(
        a0.keepalive == 1,
        "the reported interval is {}",
        a0.keepalive
    );
    // Four more take at least three intervals.
    let start = Instant::now();
    while tunnel.peer(0)?.tx_bytes < a0.tx_bytes + 4 * 32 {
        ensure!(
            start.elapsed() < slow(Duration::from_secs(20)),
            "fewer than four keepalives in 20 s"
        );
        sleep(Duration::from_millis(20));
    }
    let took = start.elapsed();
    let (a1, b1) = (tunnel.peer(0)?, tunnel.peer(1)?);
    let (sent, received) = (a1.tx_bytes - a0.tx_bytes, b1.rx_bytes - b0.rx_bytes);
    ensure!(
        took >= Duration::from_secs(3) && sent % 32 == 0,
        "{sent} bytes of keepalives sent in {took:?}"
    );
    ensure!(
        a1.last_handshake == a0.last_handshake,
        "another handshake on an idle link"
    );
    ensure!(
        received.abs_diff(sent) <= 32,
        "{sent} bytes sent but {received} received"
    );
    ensure!(a1.rx_bytes == a0.rx_bytes, "a keepalive was answered");
    tunnel.set_peer(
        0,
        PeerConf {
            keepalive: Some(0),
            ..PeerConf::default()
        },
    )?;
    sleep(Duration::from_millis(1500));
    let a2 = tunnel.peer(0)?;
    sleep(Duration::from_millis(2500));
    ensure!(
        tunnel.peer(0)?.tx_bytes == a2.tx_bytes,
        "keepalives continue after being disabled"
    );
    Ok(())
}

/// A device that goes down loses its session and its socket; when it comes up, it makes a new
/// session on the same port.
fn down_up(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.against_intree()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 2)?;
    let handshake = tunnel.peer(0)?.last_handshake;
    tunnel.rt(0).set_up("wg0", false)?;
    let got = ping(
        tunnel.ns(1),
        inner(false, 0),
        2,
        56,
        Duration::from_millis(300),
    )?;
    ensure!(got == 0, "a device that is down answers");
    // Its port is now free.
    drop(udp(
        tunnel.ns(0),
        SocketAddr::new(outer(false, 0), port(0)),
    )?);
    ensure!(
        tunnel.peer(0)?.last_handshake == handshake,
        "the last handshake's time was lost"
    );
    tunnel.rt(0).set_up("wg0", true)?;
    let underlay = tunnel.watch(ctx, 0)?;
    let got = ping(tunnel.ns(0), inner(false, 1), 2, 56, Duration::from_secs(8))?;
    ensure!(got == 2, "no session after down and up");
    let seen = underlay.seen();
    ensure!(
        seen.first().is_some_and(|s| s.is_initiation()),
        "the old session was kept"
    );
    ensure!(
        tunnel.peer(0)?.last_handshake > handshake,
        "no new handshake is reported"
    );
    ensure!(
        tunnel.ends[0].get(&tunnel.link)?.listen_port == port(0),
        "the port changed"
    );
    Ok(())
}
