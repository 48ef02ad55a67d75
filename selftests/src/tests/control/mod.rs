// SPDX-License-Identifier: GPL-2.0-only
//! Programs of others that configure WireGuard, or read its state: unmodified.

mod cni;
mod daemon;
mod exporter;
mod network_manager;
mod networkd;
mod pyroute2;

use super::scenario::{bash, cable, no_ping, ping, Keys};
use super::{of_each, Check, Test};
use anyhow::{ensure, Context, Result};
use harness::modules::Modules;
use harness::netns::Netns;
use harness::pace::slow;
use harness::runner::Boot;
use nix::mount::{mount, MsFlags};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub fn register(list: &mut Vec<Test>) {
    let packaged: [(&str, Check); 4] = [
        ("control-pyroute2", pyroute2::device),
        ("control-networkd", networkd::tunnel),
        ("control-networkmanager", network_manager::profile),
        ("control-cni", cni::nodes),
    ];
    for (name, body) in packaged {
        add(list, name, Boot::Config, body);
    }
    // Built by scripts/peers, which the guest of this boot waits for.
    add(list, "control-exporter", Boot::Smp, exporter::metrics);
}

/// A test of either module.
fn add(list: &mut Vec<Test>, name: &str, boot: Boot, body: Check) {
    of_each(list, (name, boot, 180), Modules::Ours, move |ctx| {
        // Of the test's own PID namespace: some look themselves up there.
        let (none, flags) = (None::<&str>, MsFlags::empty());
        mount(none, "/proc", Some("proc"), flags, none).context("mount /proc")?;
        body(ctx)
    });
}

/// A machine whose device `wg0` a control plane makes, changes and removes, and its peer at
/// 192.0.2.2:51820, which `wg` has configured: 10.9.0.2, 10.9.1.2 and fd09::2 inside.
struct Scene {
    near: Netns,
    far: Netns,
    keys: [Keys; 2],
    psk: String,
    /// The public key of a peer that is never there.
    absent: String,
}

impl Scene {
    fn new() -> Result<Self> {
        let (near, far) = (Netns::new("near")?, Netns::new("far")?);
        cable((&near, "eth0"), (&far, "eth0"))?;
        let keys = [Keys::new(&near)?, Keys::new(&far)?];
        let psk = far.sh("wg genpsk")?.trim().to_owned();
        near.sh("ip addr add 192.0.2.1/24 dev eth0")?;
        bash(
            &far,
            &format!(
                "ip addr add 192.0.2.2/24 dev eth0
                 ip link add wg0 type wireguard
                 wg set wg0 listen-port 51820 private-key <(echo {}) peer {} \
                     preshared-key <(echo {psk}) allowed-ips 10.9.0.1/32,fd09::1/128
                 ip addr add 10.9.0.2/16 dev wg0
                 ip addr add 10.9.1.2/32 dev wg0
                 ip addr add fd09::2/64 dev wg0 nodad
                 ip link set wg0 up",
                keys[1].private, keys[0].public
            ),
        )?;
        let absent = Keys::new(&near)?.public;
        Ok(Scene {
            near,
            far,
            keys,
            psk,
            absent,
        })
    }

    /// Makes the device by `wg`.
    fn configure(&self) -> Result<()> {
        self.near.sh("ip link add wg0 type wireguard")?;
        self.near
            .sh_in("wg setconf wg0 /dev/stdin", &self.first())?;
        self.near.sh("ip addr add 10.9.0.1/16 dev wg0")?;
        self.near.sh("ip link set wg0 up").map(drop)
    }

    /// What the device is to be at first, in the form of `wg showconf`. It also has the addresses
    /// 10.9.0.1/16 and fd09::1/64.
    fn first(&self) -> String {
        format!(
            "[Interface]\nListenPort = 51821\nFwMark = 0x77\nPrivateKey = {}\n\n\
             [Peer]\nPublicKey = {}\nPresharedKey = {}\nAllowedIPs = 10.9.0.2/32, fd09::2/128\n\
             Endpoint = 192.0.2.2:51820\nPersistentKeepalive = 25\n\n\
             [Peer]\nPublicKey = {}\nAllowedIPs = 10.9.0.3/32\n",
            self.keys[0].private, self.keys[1].public, self.psk, self.absent
        )
    }

    /// What the change makes of it: another port and mark, one peer less, other allowed IPs of the
    /// other one, no keepalives.
    fn second(&self) -> String {
        format!(
            "[Interface]\nListenPort = 51822\nFwMark = 0x78\nPrivateKey = {}\n\n\
             [Peer]\nPublicKey = {}\nPresharedKey = {}\nAllowedIPs = 10.9.0.2/32, 10.9.1.2/32\n\
             Endpoint = 192.0.2.2:51820\n",
            self.keys[0].private, self.keys[1].public, self.psk
        )
    }

    /// `wg` shows `wanted`.
    fn shows(&self, wanted: &str) -> Result<()> {
        let found = self.near.sh("wg showconf wg0")?;
        ensure!(
            canonical(&found) == canonical(wanted),
            "wg0 is\n{found}and not\n{wanted}"
        );
        Ok(())
    }

    /// The device is as [`Scene::first`], and works.
    fn is_first(&self) -> Result<()> {
        eventually(|| self.shows(&self.first()))?;
        for dst in ["10.9.0.2", "fd09::2"] {
            eventually(|| ping(&self.near, dst))?;
        }
        ping(&self.far, "10.9.0.1")?;
        no_ping(&self.near, "10.9.1.2")
    }

    /// The device is as [`Scene::second`], and works.
    fn is_second(&self) -> Result<()> {
        eventually(|| self.shows(&self.second()))?;
        for dst in ["10.9.0.2", "10.9.1.2"] {
            eventually(|| ping(&self.near, dst))?;
        }
        no_ping(&self.near, "fd09::2")
    }

    /// The device is removed.
    fn is_gone(&self) -> Result<()> {
        eventually(|| {
            let left = self.near.sh("ip -o link show type wireguard")?;
            ensure!(left.is_empty(), "still there: {left}");
            Ok(())
        })?;
        no_ping(&self.near, "10.9.0.2")
    }
}

/// Connects the nodes by a switch, as `eth0` with the addresses 192.0.2.1, 192.0.2.2 and so on.
fn switch(nodes: &[&Netns]) -> Result<Netns> {
    let hub = Netns::new("hub")?;
    hub.sh("ip link add br0 type bridge")?;
    hub.sh("ip link set br0 up")?;
    for (number, node) in (1..).zip(nodes) {
        let port = format!("p{number}");
        cable((&hub, &port), (node, "eth0"))?;
        hub.sh(&format!("ip link set {port} master br0"))?;
        node.sh(&format!("ip addr add 192.0.2.{number}/24 dev eth0"))?;
    }
    Ok(hub)
}

/// A configuration with the lines of each section, its allowed IPs and the sections sorted.
fn canonical(text: &str) -> Vec<Vec<String>> {
    let mut sections: Vec<Vec<String>> = text
        .split("[Peer]")
        .map(|section| {
            let lines = section.lines().filter(|line| !line.is_empty());
            let mut lines: Vec<String> = lines
                .map(|line| {
                    let (name, value) = line.split_once(" = ").unwrap_or((line, ""));
                    let mut values: Vec<&str> = value.split(", ").collect();
                    values.sort_unstable();
                    format!("{name} = {}", values.join(", "))
                })
                .collect();
            lines.sort_unstable();
            lines
        })
        .collect();
    sections.sort_unstable();
    sections
}

/// Repeats a check that a daemon is to make true, until it passes.
fn eventually<T>(check: impl Fn() -> Result<T>) -> Result<T> {
    let limit = slow(Duration::from_secs(60));
    let start = Instant::now();
    loop {
        match check() {
            Err(e) if start.elapsed() > limit => {
                return Err(e).with_context(|| format!("after {limit:?}"));
            }
            Err(_) => sleep(Duration::from_millis(200)),
            done => return done,
        }
    }
}
