// SPDX-License-Identifier: GPL-2.0-only
//! What wireguard-tools 1.0.20260223 mended, and the installed `wg-quick` may not have yet.

use super::super::call::{Call, End};
use super::cases::{call, conf, CONF, ENDPOINT};
use super::scene::{private, public, Place, OWN};
use anyhow::{ensure, Context, Result};
use harness::runner::Ctx;

/// A file, and what must be seen.
struct Mended {
    what: &'static str,
    conf: String,
    /// Before `up`.
    before: &'static str,
    /// After it; each line is one that must be printed.
    script: &'static str,
    wanted: String,
    after: &'static str,
}

fn table() -> Vec<Mended> {
    let to_all = format!("{ENDPOINT}10.8.0.0/24");
    let keyless = |hook: &str| {
        conf(hook, &to_all)
            .replace(&format!("PrivateKey = {}\n", private(0)), "")
            .replace("ListenPort = 51000\n", "")
    };
    let two = format!(
        "{to_all}\n[Peer]\nPublicKey = {}\nEndpoint = [2001:db8:77::1]:51820",
        private(1)
    );
    vec![
        Mended {
            what: "what PreUp sets",
            conf: keyless(&format!(
                "Address = 10.8.0.2/24\nPreUp = wg set %i private-key <(echo {}) fwmark 7 \
                 listen-port 51003",
                private(0)
            )),
            before: "",
            script: "wg show wg0 public-key; wg show wg0 fwmark; wg show wg0 listen-port",
            wanted: format!("{}\n0x7\n51003\n", public(0)),
            after: "",
        },
        Mended {
            what: "the smallest MTU",
            conf: conf("Address = 10.8.0.2/24", &two),
            before: "ip route add 198.51.100.1 via 192.0.2.1 mtu 1400",
            script: "ip -o link show wg0 | grep -o 'mtu [0-9]*'",
            wanted: "mtu 1320\n".into(),
            after: "ip route del 198.51.100.1 via 192.0.2.1",
        },
        Mended {
            what: "# in a hook",
            conf: conf(
                &format!(
                    "Address = 10.8.0.2/24 # mine\nPostUp = echo '#1' \\#2 >{OWN}/log # no more"
                ),
                &to_all,
            ),
            before: "",
            script: "cat /run/wgrs-tool/own/log; wg-quick save wg0
                     grep PostUp /etc/wireguard/wg0.conf",
            wanted: format!("#1 #2\nPostUp = echo '#1' \\#2 >{OWN}/log # no more\n"),
            after: "rm /run/wgrs-tool/own/log",
        },
        Mended {
            what: "resolvconf that is a link",
            conf: conf("Address = 10.8.0.2/24\nDNS = 10.8.0.1", &to_all),
            before: "printf '#!/bin/sh\necho $* >>/run/wgrs-tool/own/log\n' \
                     >/run/wgrs-tool/own/bin/resolver
                     chmod +x /run/wgrs-tool/own/bin/resolver
                     ln -s resolver /run/wgrs-tool/own/bin/resolvconf
                     echo 'tun*' >/etc/resolvconf/interface-order",
            script: "cat /run/wgrs-tool/own/log",
            wanted: "-a wg0 -m 0 -x\n".into(),
            after: "rm -r /run/wgrs-tool/own/bin/* /run/wgrs-tool/own/log /etc/resolvconf/*",
        },
        Mended {
            what: "src_valid_mark set already, and read-only",
            conf: conf("Address = 10.8.0.2/24", &format!("{ENDPOINT}0.0.0.0/0")),
            before: "sysctl -qw net.ipv4.conf.all.src_valid_mark=1",
            script: "ip -4 route show table 51820 | grep -c 'default dev wg0'",
            wanted: "1\n".into(),
            after: "",
        },
    ]
}

pub fn mended(_: &Ctx) -> Result<()> {
    let place = Place::lone()?;
    for case in table() {
        for name in ["wg-quick", "wg-rs"] {
            play(&place, &case, name).with_context(|| format!("{} by {name}", case.what))?;
        }
    }
    // syncconf takes away what a peer should no longer have.
    let file = format!("{OWN}/sync.conf");
    let peer = format!("[Peer]\nPublicKey = {}\n", public(1));
    let secret = format!("PresharedKey = {}\nPersistentKeepalive = 9\n", private(0));
    place.sh("ip link add wg0 type wireguard")?;
    for (verb, text) in [("setconf", format!("{peer}{secret}")), ("syncconf", peer)] {
        place.put("sync.conf", 0o600, &text)?;
        let seen = place.call(&Call::new("wg", [verb, "wg0", &file]))?;
        ensure!(seen.ok(), "{verb}: {seen:?}");
    }
    let left = place.sh("wg show wg0 preshared-keys; wg show wg0 persistent-keepalive")?;
    let key = public(1);
    ensure!(left == format!("{key}\t(none)\n{key}\toff\n"), "{left}");
    Ok(())
}

fn play(place: &Place, case: &Mended, name: &'static str) -> Result<()> {
    place.clear()?;
    place.put(CONF, 0o600, &case.conf)?;
    place.sh(case.before)?;
    let named = |verb: &str| Call {
        name,
        ..call(&[verb, "wg0"])
    };
    let seen = place.call(&named("up"))?;
    ensure!(seen.end == End::Exit(0), "up: {seen:?}");
    // The installed tools print what there is.
    let path = format!("PATH=/run/wgrs-tool/bin:$PATH; {}", case.script);
    let shown = place.sh(&path)?;
    ensure!(
        shown == case.wanted,
        "{shown:?} instead of {:?}",
        case.wanted
    );
    let seen = place.call(&named("down"))?;
    ensure!(seen.end == End::Exit(0), "down: {seen:?}");
    place.sh(case.after)?;
    Ok(())
}
