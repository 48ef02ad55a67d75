// SPDX-License-Identifier: GPL-2.0-only
//! Thousands of peers, some of them in use, on the sanitizer kernel, and all the ways to remove
//! them. The `checkers-` tests report what is leaked.

use super::super::Test;
use super::traffic::{connect, public, HUB};
use super::{peer, IPS_PER_PEER};
use anyhow::{ensure, Context, Result};
use harness::modules::{self, Modules, INTREE, OURS};
use harness::pace::slow;
use harness::runner::{Boot, Ctx, Subject};
use harness::topo::Link;
use harness::traffic::ping_from;
use harness::wgdev::{random_key, uapi, DeviceConf, Key, PeerConf, Wg};
use std::time::Duration;

/// A third of the device's peers.
const THIRD: usize = 800;
/// One peer in this many exists and answers.
const STEP: usize = 400;

pub(super) fn register(list: &mut Vec<Test>) {
    list.push(Test {
        name: "peers-thousands".to_owned(),
        boot: Boot::San,
        modules: Modules::None,
        subject: Subject::Rs,
        bound: Duration::from_secs(60),
        body: Box::new(every_way),
    });
}

/// The device with the many peers, and all peers that it may have.
struct Hub {
    link: Link,
    wg: Wg,
    key: Key,
    peers: Vec<PeerConf>,
    /// The numbers and private keys of the peers that exist.
    alive: Vec<(usize, Key)>,
}

impl Hub {
    fn new() -> Result<Self> {
        let mut link = Link::new()?;
        let alive: Vec<(usize, Key)> = (0..3 * THIRD)
            .step_by(STEP)
            .map(|n| (n + 7, random_key()))
            .collect();
        let mut peers: Vec<_> = (0..3 * THIRD).map(|n| peer(n, IPS_PER_PEER)).collect();
        for (n, key) in &alive {
            peers[*n].public_key = public(key);
            peers[*n].endpoint = None;
        }
        let key = random_key();
        connect(&mut link, "wireguard", &key, &alive)?;
        let wg = Wg::open(link.end(0), "wireguard")?;
        Ok(Hub {
            link,
            wg,
            key,
            peers,
            alive,
        })
    }

    /// Creates the device, without peers.
    fn add(&mut self) -> Result<()> {
        self.link.rt(0).link_add("wg0", "wireguard")?;
        let conf = DeviceConf {
            private_key: Some(self.key),
            listen_port: Some(51820),
            ..DeviceConf::default()
        };
        self.wg.set("wg0", &conf)?;
        self.link.rt(0).addr_add("wg0", HUB, 32)?;
        self.link.rt(0).set_up("wg0", true)?;
        self.link
            .rt(0)
            .route(true, ([10, 0, 0, 0].into(), 8), "wg0")
            .context("route")
    }

    /// Configures these peers, each with `flags`.
    fn set(&mut self, device: u32, which: std::ops::Range<usize>, flags: u32) -> Result<()> {
        let peers = self.peers[which]
            .iter()
            .map(|p| PeerConf { flags, ..p.clone() });
        let conf = DeviceConf {
            flags: device,
            peers: peers.collect(),
            ..DeviceConf::default()
        };
        Ok(self.wg.set("wg0", &conf)?)
    }

    /// The device has exactly these peers, and answers those of them that exist, and no others.
    fn check(&mut self, which: std::ops::Range<usize>) -> Result<()> {
        let got = self.wg.get("wg0")?.peers;
        let names = |p: &PeerConf| (p.public_key, p.allowed_ips.clone());
        let wanted: Vec<_> = self.peers[which.clone()].iter().map(names).collect();
        let same = got.len() == wanted.len()
            && std::iter::zip(&got, &wanted)
                .all(|(got, (key, ips))| got.public_key == *key && got.allowed_ips == *ips);
        ensure!(same, "{} peers, wanted {which:?}", got.len());
        for (n, _) in &self.alive {
            let (name, here) = (format!("wg{n}"), which.contains(n));
            // Drop the session, which the device no longer has.
            for up in [false, true] {
                self.link.rt(1).set_up(&name, up)?;
            }
            let limit = if here {
                slow(Duration::from_secs(2))
            } else {
                Duration::from_secs(1)
            };
            let answered = ping_from(self.link.end(1), &name, HUB, 1, limit)?;
            ensure!(
                (answered == 1) == here,
                "peer {n} of {which:?}: {answered} answers"
            );
        }
        Ok(())
    }
}

/// REMOVE_ME for each, REPLACE_PEERS, `ip link del`, rmmod.
fn every_way(ctx: &Ctx) -> Result<()> {
    ctx.env.load(Modules::Ours)?;
    let mut hub = Hub::new()?;
    hub.add()?;
    hub.set(0, 0..3 * THIRD, 0)?;
    hub.check(0..3 * THIRD)?;
    hub.set(0, 0..THIRD, uapi::peer::F_REMOVE_ME)?;
    hub.check(THIRD..3 * THIRD).context("after REMOVE_ME")?;
    hub.set(uapi::device::F_REPLACE_PEERS, 0..THIRD, 0)?;
    hub.check(0..THIRD).context("after REPLACE_PEERS")?;
    hub.link.rt(0).link_del("wg0")?;
    hub.add()?;
    hub.check(0..0).context("after ip link del")?;
    hub.set(0, 2 * THIRD..3 * THIRD, 0)?;
    hub.check(2 * THIRD..3 * THIRD)?;
    modules::unload(if ctx.env.stand_in { INTREE } else { OURS })?;
    for (n, name) in [(0, "wg0"), (1, "wg7")] {
        let left = hub.link.rt(n).index(name);
        ensure!(left.is_err(), "{name} outlived its module");
    }
    Ok(())
}
