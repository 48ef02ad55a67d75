// SPDX-License-Identifier: GPL-2.0-only
//! Loading and unloading the module.

use super::{needs_ours, Check, Test};
use anyhow::{bail, ensure, Result};
use harness::checkers::kmemleak_watches;
use harness::cmd;
use harness::kmsg::Kmsg;
use harness::modules::{loaded, modinfo, unload, Modules, INTREE, OURS};
use harness::netns::Netns;
use harness::runner::{Boot, Ctx, Subject};
use nix::errno::Errno;
use std::fs;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, Check); 3] = [
        ("load-parameters", parameters),
        ("load-refused-beside-intree", refused),
        ("load-coexist", coexist),
    ];
    for (name, body) in tests {
        list.push(Test {
            name: name.to_owned(),
            boot: Boot::Smp,
            modules: Modules::None,
            subject: Subject::Rs,
            bound: Duration::from_secs(60),
            body: Box::new(body),
        });
    }
}

/// The module has two parameters; the build for the sanitizer kernel has two more, for tests.
fn parameters(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let image = fs::read(ctx.env.ko()?)?;
    let types = modinfo(&image, "parmtype");
    let wanted: &[&str] = if kmemleak_watches() {
        &[
            "udp_gso:bool",
            "coexist:bool",
            "first_nonce:u64",
            "peers_before:u64",
        ]
    } else {
        &["udp_gso:bool", "coexist:bool"]
    };
    ensure!(types == wanted, "its parameters: {types:?}");
    Ok(())
}

/// Beside the in-tree module: EEXIST, one line that says what to do, nothing left behind. The
/// same with the modules swapped.
fn refused(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let ns = Netns::new("a")?;
    cmd::run(&["modprobe", INTREE])?;
    for _ in 0..3 {
        let mut log = Kmsg::at_end()?;
        // Our EEXIST reaches the caller as EBUSY: since 7.0 the module loader reserves EEXIST for
        // "this very module is already loaded".
        let got = ctx.env.load_ours("");
        let refused = matches!(got, Err(Errno::EBUSY | Errno::EEXIST));
        ensure!(refused, "loading the second driver returns {got:?}");
        ensure!(!loaded(OURS), "the refused module stayed loaded");
        let lines = log.drain()?;
        let said: Vec<&String> = lines
            .iter()
            .filter(|l| l.contains("wireguard"))
            .filter(|l| !l.contains("taints kernel") && !l.contains("verification failed"))
            .collect();
        let [line] = said.as_slice() else {
            bail!("expected one line in the log, got {said:?}")
        };
        // With our own prefix, not the in-tree module's that device messages have.
        let wanted = "wireguard_rs: another module provides wireguard already: \
                      rmmod wireguard, or load this one with coexist=1";
        ensure!(*line == wanted, "the line says: {line}");
    }
    ns.sh("ip link add wg0 type wireguard")?;
    ns.sh("ip link del wg0")?;
    unload(INTREE)?;

    if let Err(e) = ctx.env.load_ours("") {
        bail!("not loaded although the in-tree module is gone: {e}");
    }
    ns.sh("ip link add wg0 type wireguard")?;
    let done = cmd::try_run(&["modprobe", INTREE], "")?;
    ensure!(
        !done.ok && !loaded(INTREE),
        "the in-tree module loaded beside ours"
    );
    ensure!(
        ns.sh("ip -d link show wg0")?.contains("wireguard"),
        "ours was disturbed"
    );
    unload(OURS)?;
    ensure!(
        ns.sh("ip link show")?.lines().all(|l| !l.contains("wg0")),
        "rmmod left the device"
    );
    cmd::run(&["modprobe", INTREE]).map(drop)
}

/// With coexist=1 both load in either order and unload in either order.
fn coexist(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let ns = Netns::new("a")?;
    for ours_first in [false, true] {
        for ours_goes_first in [false, true] {
            if ours_first {
                ctx.env.load_ours("coexist=1")?;
            }
            cmd::run(&["modprobe", INTREE])?;
            if !ours_first {
                ctx.env.load_ours("coexist=1")?;
            }
            ns.sh("ip link add wg0 type wireguard")?;
            ns.sh("ip link add wg1 type wireguard_rs")?;
            ensure!(
                ns.sh("wg show interfaces")?.trim() == "wg0",
                "`wg` sees the wrong devices"
            );
            let (first, second, left) = if ours_goes_first {
                (OURS, INTREE, "wg0")
            } else {
                (INTREE, OURS, "wg1")
            };
            unload(first)?;
            ns.sh(&format!("ip link show {left}"))?;
            unload(second)?;
            ensure!(
                !ns.sh("ip link show")?.contains("wg"),
                "a device outlived its module"
            );
        }
    }
    Ok(())
}
