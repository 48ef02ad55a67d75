// SPDX-License-Identifier: GPL-2.0-only
//! What is measured: two namespaces joined by a veth pair, with or without a tunnel over it.
//!
//! Every implementation has its own pair; all pairs exist side by side for the whole run and differ
//! only in the driver. Addresses are those of [`topo`]; the pairs do not see each other, so all use
//! the same ones.

use anyhow::{Context, Result};
use harness::netns::Netns;
use harness::rtnl::LinkStats;
use harness::topo::{inner, mac, names, outer, port};
use harness::wgdev::{random_key, DeviceConf, PeerConf, Wg};
use std::net::{IpAddr, SocketAddr};

/// One contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Impl {
    /// The in-tree driver.
    C,
    /// This driver, loaded with `coexist=1`.
    Rs,
    /// No tunnel at all: what the underlay carries.
    Veth,
}

impl Impl {
    /// Its heading in the table and its key in the JSON file.
    pub fn label(self) -> &'static str {
        match self {
            Impl::C => "c",
            Impl::Rs => "rs",
            Impl::Veth => "veth",
        }
    }
}

/// Two namespaces and the addresses between which traffic flows.
pub struct Pair {
    /// The contender.
    pub who: Impl,
    /// End 0 sends, end 1 receives.
    pub ns: [Netns; 2],
    device: &'static str,
}

impl Pair {
    /// Creates the namespaces, the veth pair, and a device of link kind `kind` (which is also the
    /// name of its generic netlink family) at each end; without a kind, only the veth pair.
    pub fn new(who: Impl, kind: Option<&str>) -> Result<Self> {
        let label = who.label();
        let ns = [
            Netns::new(&format!("{label}0"))?,
            Netns::new(&format!("{label}1"))?,
        ];
        let mut rt = [ns[0].rtnl()?, ns[1].rtnl()?];
        rt[0]
            .veth_add(("v0", mac(0)), ("v1", mac(1)), ns[1].fd())
            .context("add veth")?;
        for (n, rt) in (0u8..).zip(&mut rt) {
            let (_, veth) = names(n);
            rt.set_up(veth, true)?;
            rt.addr_add(veth, outer(false, n), 24)?;
            // No ARP in the middle of a measurement.
            rt.neigh_set(veth, outer(false, 1 - n), mac(1 - n))?;
        }
        let Some(kind) = kind else {
            return Ok(Pair {
                who,
                ns,
                device: "v0",
            });
        };
        let mut keys = Vec::new();
        for (n, rt) in (0u8..).zip(&mut rt) {
            let (name, _) = names(n);
            rt.link_add(name, kind)
                .with_context(|| format!("ip link add type {kind}"))?;
            let mut wg = Wg::open(&ns[usize::from(n)], kind)?;
            let conf = DeviceConf {
                private_key: Some(random_key()),
                listen_port: Some(port(n)),
                ..DeviceConf::default()
            };
            wg.set(name, &conf)
                .with_context(|| format!("configure a {kind} device"))?;
            keys.push(
                wg.get(name)?
                    .public_key
                    .context("the device reports no public key")?,
            );
            rt.addr_add(name, inner(false, n), 24)?;
            rt.set_up(name, true)?;
        }
        for (n, key) in (0u8..).zip(keys.iter().rev()) {
            let (name, _) = names(n);
            let peer = PeerConf {
                public_key: *key,
                endpoint: Some(SocketAddr::new(outer(false, 1 - n), port(1 - n))),
                allowed_ips: vec![(inner(false, 1 - n), 32)],
                ..PeerConf::default()
            };
            let conf = DeviceConf {
                peers: vec![peer],
                ..DeviceConf::default()
            };
            Wg::open(&ns[usize::from(n)], kind)?.set(name, &conf)?;
        }
        Ok(Pair {
            who,
            ns,
            device: "wg0",
        })
    }

    /// The address of end `n` that is reached over what is measured.
    pub fn addr(&self, n: u8) -> IpAddr {
        match self.who {
            Impl::Veth => outer(false, n),
            _ => inner(false, n),
        }
    }

    /// The counters of the sending end's device.
    pub fn stats(&self) -> Result<LinkStats> {
        Ok(self.ns[0].rtnl()?.stats(self.device)?)
    }
}
