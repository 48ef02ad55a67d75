// SPDX-License-Identifier: GPL-2.0-only
//! wg-rs in bad company: signals that are ignored, a search path that is empty, no other `wg`.

use super::super::call::{Call, End, Seen};
use super::super::sides::{program, DIR};
use super::cases::{conf, CONF, ENDPOINT};
use super::scene::{Place, OWN, PATH};
use anyhow::{ensure, Context, Result};
use harness::runner::Ctx;
use std::fs;
use std::path::Path;

const NAMES: [&str; 2] = ["wg-quick", "wg-rs"];

fn to_all(interface: &str) -> String {
    conf(
        &format!("Address = 10.8.0.2/24\n{interface}"),
        &format!("{ENDPOINT}10.8.0.0/24"),
    )
}

/// What `bash -c SCRIPT` with these arguments does in the place.
fn bash(place: &Place, script: &str, args: &[&str]) -> Result<Seen> {
    let all = [&["-c", script, "bash"], args].concat();
    let call = Call::new("bash", all).env("PATH", PATH);
    place.run(|| call.run(Path::new("/usr/bin/bash"), &place.own))
}

/// Signals that whoever started the tool ignores do not end it, nor its hooks.
pub fn signals(_: &Ctx) -> Result<()> {
    let place = Place::lone()?;
    // Sends the signal to the tool while a hook waits, and to the hook.
    let script = "trap \"$3\" \"$2\"; cd /run/wgrs-tool/own; rm -f begun go
        \"$1\" up wg0 & tool=$!
        until [ -e begun ]; do sleep 0.05; done
        kill -\"$2\" $tool; touch go; wait $tool";
    let hook = "PreUp = touch begun; until [ -e go ]; do sleep 0.05; done; kill -$SIGNAL $$";
    for name in NAMES {
        let tool = program(1, name).display().to_string();
        for signal in ["HUP", "INT", "TERM", "QUIT", "PIPE"] {
            place.put(CONF, 0o600, &to_all(&hook.replace("$SIGNAL", signal)))?;
            let seen = bash(&place, script, &[&tool, signal, ""])?;
            ensure!(seen.ok(), "{name}, {signal} ignored: {seen:?}");
            place.sh("ip link show wg0; ip link del wg0; cd /run/wgrs-tool/own; rm begun go")?;
        }
        // Those that are not ignored end it, and nothing is left.
        let hook = hook.replace("; kill -$SIGNAL $$", "");
        for (signal, status) in [("HUP", 129), ("TERM", 143)] {
            place.put(CONF, 0o600, &to_all(&hook))?;
            let seen = bash(&place, script, &[&tool, signal, "-"])?;
            ensure!(seen.end == End::Exit(status), "{name}, {signal}: {seen:?}");
            let script = "ip -o link show wg0 2>/dev/null || echo none; rm -f own/begun own/go";
            let left = place.sh(&format!("cd {DIR}; {script}"))?;
            ensure!(left == "none\n", "{name}, {signal}: left {left}");
        }
    }
    Ok(())
}

/// Without a search path, or with an empty one, programs of the current folder are not run.
pub fn path(_: &Ctx) -> Result<()> {
    let place = Place::lone()?;
    let trap = format!("#!/usr/bin/sh\necho \"$0\" >>{OWN}/trapped\nexit 1\n");
    let here = place.own.join("here");
    fs::create_dir(&here)?;
    for name in [
        "bash",
        "sh",
        "ip",
        "wg",
        "nft",
        "iptables",
        "iptables-save",
        "sudo",
        "sysctl",
    ] {
        place.put(&format!("here/{name}"), 0o755, &trap)?;
    }
    place.put("here/resolvconf", 0o755, &trap)?;
    let hook =
        format!("PostUp = ip -o link show %i >{OWN}/log; wg show %i listen-port >>{OWN}/log");
    place.put(
        CONF,
        0o600,
        &to_all(&hook).replace("10.8.0.0/24\n", "0.0.0.0/0\n"),
    )?;
    for name in NAMES {
        let tool = program(1, name).display().to_string();
        for path in ["unset PATH", "PATH=", "PATH=:", "PATH=:/usr/bin:"] {
            let script =
                format!("cd {OWN}/here; export PATH; {path}; \"$1\" up wg0 && \"$1\" down wg0");
            let seen = bash(&place, &script, &[&tool])?;
            let trapped = fs::read_to_string(place.own.join("trapped")).unwrap_or_default();
            ensure!(trapped.is_empty(), "{name}, {path}: {trapped} was run");
            ensure!(seen.ok(), "{name}, {path}: {seen:?}");
            let log = place.log();
            ensure!(
                log.contains("wg0") && log.ends_with("51000\n"),
                "{name}, {path}: {log}"
            );
        }
        // A program that is nowhere else is not found here, either.
        place.put("etc/wg1.conf", 0o600, &to_all("DNS = 10.8.0.1"))?;
        let script = format!("cd {OWN}/here; PATH=:/usr/bin; \"$1\" up wg1");
        let seen = bash(&place, &script, &[&tool])?;
        ensure!(seen.end == End::Exit(127), "{name}: {seen:?}");
        // Nor for one who must become root first.
        let script = format!(
            "cd {OWN}/here; PATH=; exec /usr/bin/setpriv --reuid=65534 --regid=65534 \
             --clear-groups /usr/bin/env PATH= \"$1\" up wg0"
        );
        place.sh(&format!("chmod 755 {OWN} {OWN}/here"))?;
        let seen = bash(&place, &script, &[&tool])?;
        ensure!(!seen.ok(), "{name}: {seen:?}");
        ensure!(
            !place.own.join("trapped").exists(),
            "{name}: sudo of the current folder was run"
        );
    }
    Ok(())
}

/// Hooks find a `wg` and a `wg-quick` where only wg-rs is installed.
pub fn only_wg_rs(_: &Ctx) -> Result<()> {
    let place = Place::lone()?;
    let alone = Path::new(DIR).join("alone");
    fs::create_dir(&alone)?;
    let tool = alone.join("wg-rs");
    fs::copy(program(1, "wg-rs"), &tool)?;
    place.sh(&format!(
        "for name in bash cat sh ip env; do ln -s /usr/bin/$name {OWN}/bin/; done"
    ))?;
    let hook = format!(
        "PostUp = echo $INTERFACE $(wg show %i fwmark) >>{OWN}/log; wg --version >/dev/null
         PreDown = wg-quick strip %i | env cat >>{OWN}/log"
    );
    place.put(CONF, 0o600, &to_all(&format!("FwMark = 0x51\n{hook}")))?;
    for verb in ["up", "down", "up", "down"] {
        let _ = fs::remove_file(place.own.join("log"));
        let call = Call::new("wg-rs", [verb, "wg0"]).env("PATH", &format!("{OWN}/bin"));
        let seen = place.run(|| call.run(&tool, &place.own))?;
        ensure!(seen.ok(), "{verb}: {seen:?}");
        let wanted = if verb == "up" {
            "wg0 0x51\n"
        } else {
            "FwMark = 0x51\n"
        };
        let log = place.log();
        ensure!(log.contains(wanted), "{verb}: {log}");
    }
    // Others come first.
    place.put(
        "bin/wg",
        0o755,
        &format!("#!/bin/sh\necho other >>{OWN}/log\n"),
    )?;
    let call = Call::new("wg-rs", ["up", "wg0"]).env("PATH", &format!("{OWN}/bin"));
    let seen = place.run(|| call.run(&tool, &place.own))?;
    ensure!(seen.ok() && place.log().contains("other"), "{seen:?}");
    place.sh("ip link del wg0").context("down").map(drop)
}
