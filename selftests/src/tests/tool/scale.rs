// SPDX-License-Identifier: GPL-2.0-only
//! Many peers: configurations and dumps of many messages.

use super::call::Call;
use super::sides::{difference, Sides, DIR};
use anyhow::{bail, ensure, Result};
use harness::runner::Ctx;
use harness::tool::conf_text;
use harness::wgdev::{DeviceConf, Key, PeerConf, Prefix};
use sha2::{Digest, Sha256};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

const PEERS: u32 = 1000;

/// A key that is the same in every run.
fn key(n: u32, what: &str) -> Key {
    Sha256::digest(format!("{what} {n}")).into()
}

/// The peers with these numbers; some have more allowed IPs than a message holds.
fn conf(peers: std::ops::Range<u32>, version: u32) -> DeviceConf {
    let peer = |n: u32| {
        let count = if n % 250 == 7 { 700 } else { n % 4 };
        let ip = |k: u32| -> Prefix {
            let host = n * 1000 + k;
            let ip: IpAddr = match k % 2 {
                0 => Ipv4Addr::from((10 << 24) + host * 4).into(),
                _ => Ipv6Addr::from((0xfd << 120) + (u128::from(host) << 64)).into(),
            };
            (ip, if ip.is_ipv4() { 30 } else { 64 })
        };
        PeerConf {
            public_key: key(n, "public"),
            preshared_key: (n % 3 == 0).then(|| key(n, "psk")),
            endpoint: (n % 2 == 0)
                .then(|| (Ipv4Addr::new(192, 0, 2, n as u8), 1000 + n as u16).into()),
            keepalive: (n % 5 == 0).then_some((n + version) as u16),
            flags: 0,
            allowed_ips: (0..count).map(ip).collect(),
        }
    };
    let mut private = key(0, "private");
    private[0] &= 248;
    private[31] = private[31] & 127 | 64;
    DeviceConf {
        private_key: Some(private),
        listen_port: Some(51820),
        fwmark: Some(version),
        flags: 0,
        peers: peers.map(peer).collect(),
    }
}

pub fn thousand(ctx: &Ctx) -> Result<()> {
    let mut sides = Sides::new()?;
    let file = format!("{DIR}/files/conf");
    let start = Instant::now();
    let say = |what: &str| {
        ctx.note(format!(
            "{what}: after {:.1} s",
            start.elapsed().as_secs_f64()
        ))
    };
    for (verb, conf) in [
        ("setconf", conf(0..PEERS, 1)),
        ("syncconf", conf(PEERS / 4..PEERS * 5 / 4, 2)),
        ("addconf", conf(0..PEERS / 4, 3)),
    ] {
        fs::write(&file, conf_text(&conf))?;
        let call = Call::new("wg", [verb, "wg0", &file]);
        let both = sides.run(&call)?;
        if let Some(found) = difference(&both) {
            bail!("{verb}: {found}");
        }
        ensure!(both[0].ok(), "{verb}: {:?}", both[0]);
        sides.mend_syncconf(&call, &both[0])?;
        let [c, rs] = sides.dumps()?;
        ensure!(c.parts == rs.parts, "{verb}: the devices differ");
        ensure!(
            c.parts.len() > 10,
            "{verb}: a dump of {} messages",
            c.parts.len()
        );
        say(verb);
    }
    for args in [
        &["show"][..],
        &["show", "wg0", "dump"],
        &["show", "all", "allowed-ips"],
        &["showconf", "wg0"],
    ] {
        let both = sides.run(&Call::new("wg", args))?;
        // Not the whole outputs: only the first line that differs.
        let [c, rs] = both
            .each_ref()
            .map(|seen| String::from_utf8_lossy(&seen.stdout).into_owned());
        if let Some((n, (c, rs))) = c
            .lines()
            .zip(rs.lines())
            .enumerate()
            .find(|(_, (c, rs))| c != rs)
        {
            bail!("{args:?}: line {}: {c:?}, {rs:?}", n + 1);
        }
        ensure!(
            difference(&both).is_none(),
            "{args:?}: {} and {} lines",
            c.lines().count(),
            rs.lines().count()
        );
        ensure!(
            c.lines().count() > PEERS as usize,
            "{args:?}: {} lines",
            c.lines().count()
        );
    }
    say("shown");
    Ok(())
}
