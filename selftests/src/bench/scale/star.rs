// SPDX-License-Identifier: GPL-2.0-only
//! A device with many peers: the hub in one namespace, and in another, joined to it by a veth pair,
//! as many devices of the same driver, each with a key of its own and the hub as its only peer.
//!
//! Peer `i` (from 0) has the inside address 10.9.0.(i+1) and reaches the hub at an inside address
//! of its own, 10.8.0.(i+1): so all peers fit into one namespace. Outside, the hub is end 0 of
//! [`topo`](harness::topo) and the peers share the address of end 1.

use crate::bench::pair::Impl;
use anyhow::{Context, Result};
use harness::netns::Netns;
use harness::noise::Keys;
use harness::rtnl::Rtnl;
use harness::topo::{mac, outer, port};
use harness::traffic::ping_all;
use harness::wgdev::{DeviceConf, Key, PeerConf, Wg};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The hub's device.
const HUB: &str = "wg0";

/// The inside address at which peer `i` reaches the hub.
pub fn hub(i: u8) -> IpAddr {
    Ipv4Addr::new(10, 8, 0, i + 1).into()
}

/// The inside address of peer `i`.
pub fn spoke(i: u8) -> IpAddr {
    Ipv4Addr::new(10, 9, 0, i + 1).into()
}

/// The hub, its peers and the underlay between them.
pub struct Star {
    /// The contender.
    pub who: Impl,
    /// The number of peers.
    pub peers: u8,
    /// The hub's namespace and that of its peers.
    pub ns: [Netns; 2],
    /// The hub's public key.
    pub key: Key,
}

impl Star {
    /// Creates all devices, of link kind `kind`, which is also the name of the netlink family, and
    /// a session with each peer.
    pub fn new(who: Impl, kind: &str, peers: u8) -> Result<Self> {
        let name = |end: char| format!("{}{peers}{end}", who.label());
        let ns = [Netns::new(&name('a'))?, Netns::new(&name('b'))?];
        let [mut near, mut far] = [ns[0].rtnl()?, ns[1].rtnl()?];
        near.veth_add(("v0", mac(0)), ("v1", mac(1)), ns[1].fd())
            .context("add veth")?;
        for (n, rt, veth) in [(0, &mut near, "v0"), (1, &mut far, "v1")] {
            rt.set_up(veth, true)?;
            rt.addr_add(veth, outer(false, n), 24)?;
            // No ARP in the middle of a measurement.
            rt.neigh_set(veth, outer(false, 1 - n), mac(1 - n))?;
        }
        far.addr_add("v1", Self::stranger(), 24)?;
        near.neigh_set("v0", Self::stranger(), mac(1))?;
        let own = Keys::random();
        let mut list = Vec::new();
        for i in 0..peers {
            let keys = Keys::random();
            let to_hub = peer(own.public, 0, hub(i));
            let name = format!("wg{}", i + 1);
            device(
                &ns[1],
                &mut far,
                kind,
                (&name, port(i + 1)),
                keys,
                &[to_hub],
            )?;
            far.addr_add(&name, spoke(i), 32)?;
            far.route(true, (hub(i), 32), &name)?;
            list.push(peer(keys.public, i + 1, spoke(i)));
        }
        device(&ns[0], &mut near, kind, (HUB, port(0)), own, &list)?;
        for i in 0..peers {
            near.addr_add(HUB, hub(i), 32)?;
        }
        near.route(true, (Ipv4Addr::new(10, 9, 0, 0).into(), 24), HUB)?;
        for i in 0..peers {
            ping_all(&ns[1], hub(i), 1)?;
        }
        Ok(Star {
            who,
            peers,
            ns,
            key: own.public,
        })
    }

    /// The hub's outside address.
    pub fn outside(&self) -> SocketAddr {
        SocketAddr::new(outer(false, 0), port(0))
    }

    /// An outside address of the peers' namespace that no peer uses.
    pub fn stranger() -> IpAddr {
        outer(false, 2)
    }

    /// The datagrams that the hub has sent to the underlay.
    pub fn sent(&self, rt: &mut Rtnl) -> Result<u64> {
        Ok(rt.stats("v0")?.tx_packets)
    }
}

/// The peer with this key behind port number `n`, which may use `inside`.
fn peer(public_key: Key, n: u8, inside: IpAddr) -> PeerConf {
    PeerConf {
        public_key,
        endpoint: Some(SocketAddr::new(outer(false, n.min(1)), port(n))),
        allowed_ips: vec![(inside, 32)],
        ..PeerConf::default()
    }
}

/// Creates a device and brings it up.
fn device(
    ns: &Netns,
    rt: &mut Rtnl,
    kind: &str,
    (name, port): (&str, u16),
    keys: Keys,
    peers: &[PeerConf],
) -> Result<()> {
    rt.link_add(name, kind)
        .with_context(|| format!("ip link add type {kind}"))?;
    let conf = DeviceConf {
        private_key: Some(keys.private),
        listen_port: Some(port),
        peers: peers.to_vec(),
        ..DeviceConf::default()
    };
    Wg::open(ns, kind)?
        .set(name, &conf)
        .with_context(|| format!("configure {name} of {kind}"))?;
    Ok(rt.set_up(name, true)?)
}
