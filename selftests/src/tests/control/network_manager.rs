// SPDX-License-Identifier: GPL-2.0-only
//! NetworkManager, by `nmcli`.

use super::daemon::{ask, bus, start};
use super::{eventually, Scene};
use anyhow::{ensure, Context, Result};
use harness::netns::Netns;
use harness::runner::Ctx;
use harness::userspace::log_tail;
use std::fs;

/// Of this test alone: its profiles and its state.
const DIR: &str = "/run/wireguard/nm";
const NAME: &str = "NetworkManager";

fn nmcli(ns: &Netns, command: &str) -> Result<String> {
    ask(ns, NAME, &format!("nmcli --wait 60 {command}"))
}

fn launch(ns: &Netns) -> Result<()> {
    fs::create_dir_all(format!("{DIR}/profiles"))?;
    let conf = format!("{DIR}/NetworkManager.conf");
    fs::write(
        &conf,
        format!(
            "[main]\nauth-polkit=root-only\ndns=none\nno-auto-default=*\n\
             [keyfile]\npath={DIR}/profiles\nunmanaged-devices=interface-name:eth0\n"
        ),
    )?;
    bus(ns)?;
    let args = [
        "NetworkManager".to_owned(),
        "--debug".to_owned(),
        format!("--config={conf}"),
        format!("--config-dir={DIR}/conf.d"),
        format!("--intern-config={DIR}/intern.conf"),
        format!("--state-file={DIR}/state"),
        format!("--pid-file={DIR}/pid"),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    start(ns, NAME, &args)?;
    eventually(|| nmcli(ns, "general status")).map(drop)
}

/// A profile imported from a file of `wg-quick`, changed, and removed.
pub(super) fn profile(_: &Ctx) -> Result<()> {
    let scene = Scene::new()?;
    let ns = &scene.near;
    launch(ns)?;
    let file = format!("{DIR}/wg0.conf");
    let addresses = "[Interface]\nAddress = 10.9.0.1/16, fd09::1/64";
    fs::write(&file, scene.first().replace("[Interface]", addresses))?;
    nmcli(ns, &format!("connection import type wireguard file {file}"))?;
    scene
        .is_first()
        .with_context(|| format!("created: {}", log_tail(NAME)))?;
    let state = nmcli(ns, "-g GENERAL.STATE,GENERAL.TYPE device show wg0")?;
    ensure!(
        state == "100 (connected)\nwireguard\n",
        "nmcli shows {state:?}"
    );

    nmcli(
        ns,
        "connection modify wg0 wireguard.listen-port 51822 wireguard.fwmark 0x78",
    )?;
    // nmcli has no property for peers.
    let profile = format!("{DIR}/profiles/wg0.nmconnection");
    fs::write(&profile, changed(&fs::read_to_string(&profile)?, &scene)?)?;
    nmcli(ns, &format!("connection load {profile}"))?;
    nmcli(ns, "connection up wg0")?;
    scene
        .is_second()
        .with_context(|| format!("changed: {}", log_tail(NAME)))?;

    nmcli(ns, "connection delete wg0")?;
    scene.is_gone().context("removed")
}

/// The profile with the peers of the second configuration.
fn changed(profile: &str, scene: &Scene) -> Result<String> {
    let mut sections = Vec::new();
    for section in profile.split("\n[") {
        if section.contains(&scene.absent) {
            continue;
        }
        let lines: Vec<&str> = section
            .lines()
            .map(|line| match line.split_once('=') {
                Some(("allowed-ips", _)) => "allowed-ips=10.9.0.2/32;10.9.1.2/32;",
                Some(("persistent-keepalive", _)) => "persistent-keepalive=0",
                _ => line,
            })
            .collect();
        sections.push(lines.join("\n"));
    }
    ensure!(
        sections.join("\n[") != profile,
        "no peers in the profile:\n{profile}"
    );
    Ok(sections.join("\n[") + "\n")
}
