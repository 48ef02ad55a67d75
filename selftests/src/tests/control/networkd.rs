// SPDX-License-Identifier: GPL-2.0-only
//! systemd-networkd.

use super::daemon::{ask, bus, start};
use super::{eventually, Scene};
use anyhow::{ensure, Context, Result};
use harness::netns::Netns;
use harness::runner::Ctx;
use harness::userspace::log_tail;
use nix::mount::{mount, MsFlags};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use std::fs;

/// Of this test alone.
const RUN: &str = "/run/systemd";
const DIR: &str = "/run/systemd/network";
const NAME: &str = "systemd-networkd";
const PROGRAM: &str = "/usr/lib/systemd/systemd-networkd";

/// A configuration of `wg` as one of networkd.
fn netdev(wg: &str) -> String {
    let sections = wg
        .replace(
            "[Interface]",
            "[NetDev]\nName = wg0\nKind = wireguard\n\n[WireGuard]",
        )
        .replace("[Peer]", "[WireGuardPeer]")
        .replace("FwMark", "FirewallMark");
    sections.replace("0x77", "119").replace("0x78", "120")
}

fn networkctl(ns: &Netns, command: &str) -> Result<String> {
    ask(ns, NAME, &format!("networkctl {command}"))
}

/// A tunnel of a `.netdev` and a `.network` file: created, changed, and removed.
pub(super) fn tunnel(_: &Ctx) -> Result<()> {
    let scene = Scene::new()?;
    let ns = &scene.near;
    let none = None::<&str>;
    fs::create_dir_all(RUN)?;
    mount(none, RUN, Some("tmpfs"), MsFlags::empty(), none).context(RUN)?;
    fs::create_dir_all(DIR)?;
    let file = format!("{DIR}/wg0.netdev");
    // Only root and networkd may read keys.
    let write = |text: &str| {
        let install = format!("install -m 640 -g systemd-network /dev/stdin {file}");
        ns.sh_in(&install, &netdev(text))
    };
    write(&scene.first())?;
    fs::write(
        format!("{DIR}/wg0.network"),
        "[Match]\nName = wg0\n\n[Network]\nAddress = 10.9.0.1/16\nAddress = fd09::1/64\n",
    )?;
    bus(ns)?;
    let mut daemon = start(ns, NAME, &[PROGRAM])?;
    scene
        .is_first()
        .with_context(|| format!("created: {}", log_tail(NAME)))?;
    eventually(|| networkctl(ns, "status wg0"))?;

    // A changed file is read for a device that exists only when networkd starts.
    write(&scene.second())?;
    kill(Pid::from_raw(daemon.id().try_into()?), Signal::SIGTERM)?;
    ensure!(daemon.wait()?.success(), "networkd: {}", log_tail(NAME));
    scene.shows(&scene.first()).context("networkd has ended")?;
    start(ns, NAME, &[PROGRAM])?;
    scene
        .is_second()
        .with_context(|| format!("changed: {}", log_tail(NAME)))?;

    fs::remove_file(&file)?;
    networkctl(ns, "reload")?;
    networkctl(ns, "delete wg0")?;
    scene.is_gone().context("removed")
}
