// SPDX-License-Identifier: GPL-2.0-only
//! prometheus_wireguard_exporter, which parses `wg show all dump`.

use super::daemon::{added, start};
use super::{bash, eventually, ping, Scene};
use anyhow::{ensure, Context, Result};
use harness::netns::Netns;
use harness::runner::Ctx;

const NAME: &str = "prometheus_wireguard_exporter";

/// The samples that it should export for what `wg` shows, sorted.
fn expected(ns: &Netns) -> Result<Vec<String>> {
    let dump = ns.sh("wg show all dump")?;
    let mut samples = Vec::new();
    for line in dump.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, key, _, endpoint, ips, handshake, rx, tx, _] = fields.as_slice() else {
            continue; // an interface
        };
        let (ip, port) = endpoint.rsplit_once(':').unwrap_or_default();
        let mut labels = format!(r#"interface="{name}",public_key="{key}",allowed_ips="{ips}""#);
        if !ip.is_empty() {
            let ip = ip.trim_matches(['[', ']']);
            labels += &format!(r#",remote_ip="{ip}",remote_port="{port}""#);
        }
        for (what, value) in [
            ("sent_bytes_total", tx),
            ("received_bytes_total", rx),
            ("latest_handshake_seconds", handshake),
        ] {
            samples.push(format!("wireguard_{what}{{{labels}}} {value}"));
        }
    }
    samples.sort_unstable();
    Ok(samples)
}

/// The samples that it exports, sorted.
fn exported(ns: &Netns) -> Result<Vec<String>> {
    let text = ns.sh("busybox wget -q -T 10 -O - http://127.0.0.1:9586/metrics")?;
    let lines = text.lines();
    let samples = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut samples: Vec<String> = samples.map(str::to_owned).collect();
    samples.sort_unstable();
    Ok(samples)
}

/// What it exports is what `wg` shows, before and after traffic and with a second interface.
pub(super) fn metrics(_: &Ctx) -> Result<()> {
    let scene = Scene::new()?;
    let ns = &scene.far;
    let program = added(NAME);
    start(ns, NAME, &[&program, "--export_remote_ip_and_port=true"])?;
    eventually(|| exported(ns))?;
    // No packet may be counted between the reading of one and the other.
    let agrees = |peers: usize| {
        eventually(|| {
            let before = expected(ns)?;
            let found = exported(ns)?;
            ensure!(before == expected(ns)?, "the counters have changed");
            ensure!(
                found == before && found.len() == 3 * peers,
                "exported are {found:#?}, and not {before:#?}"
            );
            Ok(found)
        })
    };
    let idle = agrees(1).context("before traffic")?;
    scene.configure()?;
    ping(&scene.near, "10.9.0.2")?;
    let used = agrees(1).context("after traffic")?;
    let counted = |samples: &[String]| samples.iter().filter(|s| s.ends_with(" 0")).count();
    ensure!(
        (counted(&idle), counted(&used)) == (3, 0),
        "zero before traffic: {idle:#?}; after: {used:#?}"
    );
    bash(
        ns,
        &format!(
            "ip link add wg1 type wireguard
             wg set wg1 peer {} endpoint [2001:db8::1]:5 allowed-ips ::/0,10.0.0.0/8
             wg set wg1 peer {}",
            scene.absent, scene.keys[1].public
        ),
    )?;
    agrees(3).context("with a second interface")?;
    Ok(())
}
