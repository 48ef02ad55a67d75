// SPDX-License-Identifier: GPL-2.0-only
//! Traffic of some among thousands of peers.

use super::{allowed_ip, millis, peer, IPS_PER_PEER, KINDS};
use anyhow::{ensure, Context, Result};
use harness::runner::Ctx;
use harness::topo::{outer, Link};
use harness::traffic::ping_from;
use harness::wgdev::{random_key, uapi, DeviceConf, Key, PeerConf, Wg};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};
use x25519_dalek::{PublicKey, StaticSecret};

/// All peers of the receiving device, and how many of them exist.
const PEERS: usize = 10_000;
const ALIVE: usize = 32;
/// Pings of each of these, all concurrently.
const PINGS: u16 = 20;

pub(super) fn public(private: &Key) -> Key {
    PublicKey::from(&StaticSecret::from(*private)).to_bytes()
}

/// Both drivers: one device with 10,000 peers and 100,000 allowed IPs, pinged by 32 peers spread
/// over them concurrently; then all but one are removed.
pub(super) fn ten_thousand(ctx: &Ctx) -> Result<()> {
    let mut rows = vec![
        vec![String::new()],
        vec!["set, with a private key".to_owned()],
        vec![format!("{ALIVE} first pings in turn")],
        vec![format!("{ALIVE} times {PINGS} pings at once")],
        vec!["REMOVE_ME of all but one".to_owned()],
    ];
    for (kind, who) in KINDS.into_iter().zip(["in-tree", "ours"]) {
        let times = exchange(kind).with_context(|| kind.to_owned())?;
        rows[0].push(who.to_owned());
        for (row, time) in rows[1..].iter_mut().zip(times) {
            row.push(millis(time));
        }
    }
    ctx.table(
        "one device with 10,000 peers and 100,000 allowed IPs",
        &rows,
    );
    Ok(())
}

/// The inner address of the many-peer device.
pub(super) const HUB: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 0, 1));

/// Creates a device at end 1, `wgN`, for each of these peers (number and private key) of the
/// device at end 0.
pub(super) fn connect(
    link: &mut Link,
    kind: &str,
    hub_key: &Key,
    alive: &[(usize, Key)],
) -> Result<()> {
    let mut batch = String::new();
    for (n, key) in alive {
        let name = format!("wg{n}");
        link.rt(1).link_add(&name, kind)?;
        Wg::open(link.end(1), kind)?.set(
            &name,
            &DeviceConf {
                private_key: Some(*key),
                peers: vec![PeerConf {
                    public_key: public(hub_key),
                    endpoint: Some(SocketAddr::new(outer(false, 0), 51820)),
                    allowed_ips: vec![(HUB, 32)],
                    ..PeerConf::default()
                }],
                ..DeviceConf::default()
            },
        )?;
        let (own, _) = allowed_ip(*n, 0);
        batch += &format!("address add {own} peer {HUB} dev {name}\nlink set {name} up\n");
    }
    link.ns[1].sh_in("ip -batch -", &batch).map(drop)
}

fn exchange(kind: &str) -> Result<[Duration; 4]> {
    let mut link = Link::new()?;
    let hub_key = random_key();
    let alive: Vec<(usize, Key)> = (0..ALIVE)
        .map(|n| (n * (PEERS / ALIVE) + n, random_key()))
        .collect();
    let mut peers: Vec<PeerConf> = (0..PEERS).map(|n| peer(n, IPS_PER_PEER)).collect();
    for (n, key) in &alive {
        let peer = peers.get_mut(*n).context("a peer beyond the last")?;
        peer.public_key = public(key);
        peer.endpoint = None;
    }

    link.rt(0).link_add("wg0", kind)?;
    link.rt(0).addr_add("wg0", HUB, 32)?;
    link.rt(0).set_up("wg0", true)?;
    link.ns[0].sh("ip route add 10.0.0.0/8 dev wg0")?;
    let mut hub = Wg::open(link.end(0), kind)?;
    let conf = DeviceConf {
        private_key: Some(hub_key),
        listen_port: Some(51820),
        peers,
        ..DeviceConf::default()
    };
    let start = Instant::now();
    hub.set("wg0", &conf)?;
    let set = start.elapsed();

    connect(&mut link, kind, &hub_key, &alive)?;

    let start = Instant::now();
    for (n, _) in &alive {
        let got = ping_from(
            link.end(1),
            &format!("wg{n}"),
            HUB,
            1,
            Duration::from_secs(10),
        )?;
        ensure!(got == 1, "peer {n} gets no reply");
    }
    let first = start.elapsed();
    let start = Instant::now();
    let ns = link.end(1);
    thread::scope(|scope| {
        let all: Vec<_> = alive
            .iter()
            .map(|(n, _)| {
                let pings =
                    move || ping_from(ns, &format!("wg{n}"), HUB, PINGS, Duration::from_secs(10));
                (n, scope.spawn(pings))
            })
            .collect();
        for (n, thread) in all {
            let got = thread.join().expect("ping thread panicked")?;
            ensure!(got == PINGS, "peer {n} got {got} of {PINGS} replies");
        }
        anyhow::Ok(())
    })?;
    let together = start.elapsed();

    let device = hub.get("wg0")?;
    ensure!(device.peers.len() == PEERS, "{} peers", device.peers.len());
    for (n, peer) in device.peers.iter().enumerate() {
        let is_alive = alive.iter().any(|(a, _)| *a == n);
        let met = peer.rx_bytes > 0 && peer.tx_bytes > 0 && !peer.last_handshake.is_zero();
        ensure!(
            met == is_alive && (is_alive || peer.rx_bytes == 0),
            "peer {n}: {} bytes received",
            peer.rx_bytes
        );
    }
    // Remove all but one of these with one request; that one stays connected.
    let (last, key) = alive.last().context("nobody")?;
    let others = conf.peers.iter().filter(|p| p.public_key != public(key));
    let gone = DeviceConf {
        peers: others
            .map(|p| PeerConf {
                public_key: p.public_key,
                flags: uapi::peer::F_REMOVE_ME,
                ..PeerConf::default()
            })
            .collect(),
        ..DeviceConf::default()
    };
    let start = Instant::now();
    hub.set("wg0", &gone)?;
    let removal = start.elapsed();
    let got = ping_from(
        link.end(1),
        &format!("wg{last}"),
        HUB,
        3,
        Duration::from_secs(10),
    )?;
    ensure!(got == 3, "the remaining peer got {got} of 3 replies");
    let (removed, _) = alive.first().context("nobody")?;
    let got = ping_from(
        link.end(1),
        &format!("wg{removed}"),
        HUB,
        1,
        Duration::from_millis(300),
    )?;
    ensure!(got == 0, "a removed peer gets a reply");
    Ok([set, first, together, removal])
}
