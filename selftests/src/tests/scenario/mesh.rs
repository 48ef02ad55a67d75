// SPDX-License-Identifier: GPL-2.0-only
//! A full mesh.

use anyhow::{ensure, Context, Result};
use harness::netns::{leaked, Netns};
use harness::pace::slow;
use harness::runner::Ctx;
use harness::traffic::echo_request;
use harness::wgdev::{random_key, DeviceConf, Key, PeerConf, Wg};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::fs;
use std::iter::once;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};
use x25519_dalek::{PublicKey, StaticSecret};

const NODES: u8 = 50;

/// The outer and inner addresses of node `n`.
fn outside(n: u8) -> IpAddr {
    Ipv4Addr::new(192, 168, 50, n + 1).into()
}

fn inside(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 50, 0, n + 1).into()
}

struct Node {
    _ns: Netns,
    wg: Wg,
    /// A socket for echo requests and replies.
    icmp: UdpSocket,
}

/// 50 namespaces on one bridge, each a peer of all others; every pair pings in both directions.
pub(super) fn fifty(ctx: &Ctx) -> Result<()> {
    let start = Instant::now();
    let (hub, mut nodes) = build()?;
    let built = start.elapsed();
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    // Each node pings the node `distance` places further on: half the rounds start all sessions, in
    // the other half the other side asks. At half the circle the two sides take turns: initiations
    // that cross fail for 5 s.
    for distance in 1..NODES {
        let half = NODES / 2;
        let turns: Vec<Range<u8>> = if distance == half {
            vec![0..half, half..NODES]
        } else {
            once(0..NODES).collect()
        };
        for asking in turns {
            let round = Instant::now();
            ping_round(&nodes, asking, distance).with_context(|| format!("distance {distance}"))?;
            slowest = slowest.max(round.elapsed());
        }
    }
    let pinged = start.elapsed();
    for (n, node) in nodes.iter_mut().enumerate() {
        let peers = node.wg.get("wg0")?.peers;
        ensure!(
            peers.len() == usize::from(NODES) - 1,
            "node {n} has {} peers",
            peers.len()
        );
        for (m, peer) in peers.iter().enumerate() {
            let met = !peer.last_handshake.is_zero() && peer.rx_bytes > 0 && peer.tx_bytes > 0;
            ensure!(
                met,
                "node {n} and its peer number {m} have not exchanged packets"
            );
        }
    }
    let start = Instant::now();
    drop((nodes, hub));
    while leaked()? > 0 {
        ensure!(
            start.elapsed() < Duration::from_secs(120),
            "the mesh still exists after 120 s"
        );
        sleep(Duration::from_millis(20));
    }
    ctx.note(format!(
        "50 nodes: created in {:.1} s, 2450 pings over 1225 sessions in {:.1} s \
         (slowest round {:.2} s), deleted in {:.1} s",
        built.as_secs_f64(),
        pinged.as_secs_f64(),
        slowest.as_secs_f64(),
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// The bridge's namespace, and the nodes.
fn build() -> Result<(Netns, Vec<Node>)> {
    let hub = bridge()?;
    let mut hub_rt = hub.rtnl()?;
    let keys: Vec<Key> = (0..NODES).map(|_| random_key()).collect();
    let peers: Vec<PeerConf> = (0..NODES).zip(&keys).map(|(n, key)| peer(n, key)).collect();
    let mut nodes = Vec::new();
    let mut ports = String::new();
    for n in 0..NODES {
        let ns = Netns::new(&format!("n{n}"))?;
        without_ipv6(&ns)?;
        let port = format!("p{n}");
        let mac = |side, n| [2, 0, 0, 0, side, n];
        hub_rt.veth_add((&port, mac(1, n)), ("eth0", mac(2, n)), ns.fd())?;
        ports += &format!("link set {port} master br0 up\n");
        let mut rt = ns.rtnl()?;
        rt.addr_add("eth0", outside(n), 24)?;
        rt.set_up("eth0", true)?;
        // The namespaces share one neighbour table, which is too small for all pairs; permanent
        // entries do not count against its limit.
        for m in (0..NODES).filter(|m| *m != n) {
            rt.neigh_set("eth0", outside(m), mac(2, m))?;
        }
        rt.link_add("wg0", "wireguard")?;
        let mut wg = Wg::open(&ns, "wireguard")?;
        let all = peers.iter().zip(0..NODES);
        let conf = DeviceConf {
            private_key: keys.get(usize::from(n)).copied(),
            listen_port: Some(51820),
            peers: all
                .filter(|(_, m)| *m != n)
                .map(|(p, _)| p.clone())
                .collect(),
            ..DeviceConf::default()
        };
        wg.set("wg0", &conf)?;
        rt.addr_add("wg0", inside(n), 24)?;
        rt.set_up("wg0", true)?;
        let icmp = ns.run(|| {
            use nix::sys::socket::{socket, AddressFamily, SockFlag, SockProtocol, SockType};
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            Ok(socket(
                AddressFamily::Inet,
                SockType::Raw,
                flags,
                SockProtocol::Icmp,
            )?
            .into())
        })?;
        nodes.push(Node { _ns: ns, wg, icmp });
    }
    hub.sh_in("ip -batch -", &ports)?;
    Ok((hub, nodes))
}

/// A namespace with only a bridge.
fn bridge() -> Result<Netns> {
    let hub = Netns::new("hub")?;
    without_ipv6(&hub)?;
    hub.sh("ip link add br0 type bridge stp_state 0 mcast_snooping 0")?;
    hub.sh("ip link set br0 up")?;
    Ok(hub)
}

/// Disables IPv6, so that new links do not multicast to all the others.
fn without_ipv6(ns: &Netns) -> Result<()> {
    ns.run(|| {
        Ok(fs::write(
            "/proc/sys/net/ipv6/conf/default/disable_ipv6",
            "1",
        )?)
    })
}

/// Node `n` as the others know it.
fn peer(n: u8, private: &Key) -> PeerConf {
    PeerConf {
        public_key: PublicKey::from(&StaticSecret::from(*private)).to_bytes(),
        endpoint: Some(SocketAddr::new(outside(n), 51820)),
        allowed_ips: vec![(inside(n), 32)],
        ..PeerConf::default()
    }
}

/// Each node in `asking` sends one echo request to the node `distance` places further on, all at
/// the same time, and gets its reply.
fn ping_round(nodes: &[Node], asking: Range<u8>, distance: u8) -> Result<()> {
    let mut missing: Vec<u8> = asking.collect();
    let start = Instant::now();
    for n in &missing {
        let to = SocketAddr::new(inside((n + distance) % NODES), 0);
        let request = echo_request(false, u16::from(*n), u16::from(distance), 56);
        let node = nodes.get(usize::from(*n)).context("no such node")?;
        node.icmp
            .send_to(&request, to)
            .with_context(|| format!("node {n} sends"))?;
    }
    while !missing.is_empty() {
        ensure!(
            start.elapsed() < slow(Duration::from_secs(30)),
            "no reply to nodes {missing:?}"
        );
        let waiting = missing.iter().filter_map(|n| nodes.get(usize::from(*n)));
        let mut fds: Vec<PollFd> = waiting
            .map(|node| PollFd::new(node.icmp.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut fds, PollTimeout::from(500u16))?;
        missing.retain(|n| {
            let node = nodes.get(usize::from(*n));
            !node.is_some_and(|node| answered(node, *n, distance))
        });
    }
    Ok(())
}

/// Whether the reply to node `n`'s request is among what has arrived.
fn answered(node: &Node, n: u8, distance: u8) -> bool {
    let from = inside((n + distance) % NODES);
    let mut buf = [0; 256];
    while let Ok((len, source)) = node.icmp.recv_from(&mut buf) {
        // A raw socket includes the IP header, and receives the requests of others too.
        let message = buf.get(20..len).unwrap_or(&[]);
        let wanted = [0, n, 0, distance];
        if source.ip() == from && message.first() == Some(&0) && message.get(4..8) == Some(&wanted)
        {
            return true;
        }
    }
    false
}
