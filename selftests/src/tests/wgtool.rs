// SPDX-License-Identifier: GPL-2.0-only
//! The standard `wg` with all its commands.

use super::{drop_in, Test};
use anyhow::{bail, ensure, Context, Result};
use harness::netns::Netns;
use harness::runner::Ctx;
use harness::tool;
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::ping_all;
use harness::wgdev::{base64, random_key, Device, DeviceConf, Key, PeerConf, Prefix};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "wg-show-forms", 60, show_forms);
    drop_in(list, "wg-set-keywords", 60, set_keywords);
    drop_in(list, "wg-conf-round-trips", 90, conf_round_trips);
    drop_in(list, "wg-dump-300-peers", 120, dump_300_peers);
    drop_in(list, "wg-allowed-ips-move", 60, allowed_ips_move);
    drop_in(
        list,
        "wg-syncconf-keeps-session",
        60,
        syncconf_keeps_session,
    );
}

/// A namespace with one unconfigured device `wg0`.
fn lone() -> Result<Netns> {
    let ns = Netns::new("a")?;
    ns.rtnl()?.link_add("wg0", "wireguard")?;
    Ok(ns)
}

fn v4(a: u8, b: u8, c: u8, d: u8, cidr: u8) -> Prefix {
    (Ipv4Addr::new(a, b, c, d).into(), cidr)
}

/// A peer with everything that can be set.
fn full_peer() -> Result<PeerConf> {
    Ok(PeerConf {
        public_key: random_key(),
        preshared_key: Some(rand::random()),
        endpoint: Some("[2001:db8::77]:7777".parse()?),
        keepalive: Some(25),
        flags: 0,
        allowed_ips: vec![
            v4(10, 1, 0, 0, 16),
            ("fd01::".parse()?, 64),
            v4(0, 0, 0, 0, 0),
        ],
    })
}

/// An error unless device `d` matches `conf`, with all peers (in any order) and allowed IPs.
fn same(d: &Device, conf: &DeviceConf) -> Result<()> {
    ensure!(d.private_key == conf.private_key, "private key");
    ensure!(
        d.public_key.is_some() == conf.private_key.is_some(),
        "public key"
    );
    if let Some(port) = conf.listen_port {
        ensure!(
            d.listen_port == port,
            "port {} instead of {port}",
            d.listen_port
        );
    }
    ensure!(
        d.fwmark == conf.fwmark.unwrap_or(0),
        "fwmark {:#x}",
        d.fwmark
    );
    ensure!(
        d.peers.len() == conf.peers.len(),
        "{} peers of {}",
        d.peers.len(),
        conf.peers.len()
    );
    let by_key: BTreeMap<Key, &PeerConf> = conf.peers.iter().map(|p| (p.public_key, p)).collect();
    for got in &d.peers {
        let set = by_key.get(&got.public_key).context("an unknown peer")?;
        ensure!(
            got.preshared_key == set.preshared_key.unwrap_or([0; 32]),
            "PSK"
        );
        ensure!(
            got.endpoint == set.endpoint,
            "endpoint {:?}, not {:?}",
            got.endpoint,
            set.endpoint
        );
        ensure!(
            got.keepalive == set.keepalive.unwrap_or(0),
            "keepalive {}",
            got.keepalive
        );
        let pairs = got.allowed_ips.iter().zip(&set.allowed_ips);
        if let Some((got, set)) = pairs.into_iter().find(|(got, set)| got != set) {
            bail!("allowed IP {got:?} instead of {set:?}");
        }
        let (have, want) = (got.allowed_ips.len(), set.allowed_ips.len());
        ensure!(have == want, "{have} allowed IPs of {want}");
    }
    Ok(())
}

fn show_forms(_: &Ctx) -> Result<()> {
    let ns = lone()?;
    ns.rtnl()?.link_add("wg1", "wireguard")?;
    let peer = full_peer()?;
    let private = random_key();
    let conf = DeviceConf {
        private_key: Some(private),
        listen_port: Some(5555),
        fwmark: Some(0x1234),
        peers: vec![peer.clone()],
        ..DeviceConf::default()
    };
    tool::set(&ns, "wg0", &conf)?;
    ensure!(
        ns.sh("wg show interfaces")?
            .split_whitespace()
            .eq(["wg0", "wg1"]),
        "interfaces"
    );
    let (key, psk) = (
        base64(&peer.public_key),
        base64(&peer.preshared_key.unwrap_or_default()),
    );
    let public = ns.sh_in("wg pubkey", &base64(&private))?;
    let endpoint = "[2001:db8::77]:7777";
    let rows = [
        ("public-key", public.trim().to_owned()),
        ("private-key", base64(&private)),
        ("listen-port", "5555".to_owned()),
        ("fwmark", "0x1234".to_owned()),
        ("peers", key.clone()),
        ("preshared-keys", format!("{key}\t{psk}")),
        ("endpoints", format!("{key}\t{endpoint}")),
        (
            "allowed-ips",
            format!("{key}\t10.1.0.0/16 fd01::/64 0.0.0.0/0"),
        ),
        ("latest-handshakes", format!("{key}\t0")),
        ("persistent-keepalive", format!("{key}\t25")),
        ("transfer", format!("{key}\t0\t0")),
    ];
    for (field, wanted) in &rows {
        let got = ns.sh(&format!("wg show wg0 {field}"))?;
        ensure!(
            got.trim() == wanted,
            "wg show wg0 {field}: {got:?}, not {wanted:?}"
        );
        let all = ns.sh(&format!("wg show all {field}"))?;
        let line = format!("wg0\t{wanted}");
        ensure!(
            all.lines().any(|l| l == line),
            "wg show all {field}: {all:?} has no {line:?}"
        );
    }
    same(&tool::get(&ns, "wg0")?, &conf)?;
    let all = ns.sh("wg show all dump")?;
    let own = ns.sh("wg show wg0 dump")?;
    for line in own.lines() {
        let line = format!("wg0\t{line}");
        ensure!(
            all.lines().any(|l| l == line),
            "`wg show all dump` lacks {line:?}"
        );
    }
    ensure!(
        all.lines().any(|l| l == "wg1\t(none)\t(none)\t0\toff"),
        "an unconfigured device: {all}"
    );
    for text in [ns.sh("wg")?, ns.sh("wg show all")?] {
        for part in [
            "interface: wg0",
            "fwmark: 0x1234",
            endpoint,
            "every 25 seconds",
            "interface: wg1",
        ] {
            ensure!(text.contains(part), "`wg show` lacks {part:?}: {text}");
        }
    }
    ensure!(!ns.try_sh("wg show lo", "")?.ok, "`wg show lo` succeeds");
    ensure!(!ns.try_sh("wg show wg7", "")?.ok, "`wg show wg7` succeeds");
    Ok(())
}

/// Every keyword of `wg set`: set, changed and reset.
fn set_keywords(_: &Ctx) -> Result<()> {
    let ns = lone()?;
    let mut conf = DeviceConf {
        listen_port: Some(0),
        ..DeviceConf::default()
    };
    let check = |conf: &DeviceConf, what: &str| {
        same(&tool::get(&ns, "wg0")?, conf).with_context(|| format!("after {what}"))
    };
    check(&conf, "nothing")?;

    let stdin = "/proc/self/fd/0";
    conf.private_key = Some(random_key());
    let text = base64(&conf.private_key.unwrap_or_default());
    ns.sh_in(&format!("wg set wg0 private-key {stdin}"), &text)?;
    check(&conf, "private-key")?;
    for port in [1, 65535, 4242] {
        ns.sh(&format!("wg set wg0 listen-port {port}"))?;
        conf.listen_port = Some(port);
        check(&conf, "listen-port")?;
    }
    for (text, mark) in [("0xffffffff", u32::MAX), ("7", 7), ("off", 0)] {
        ns.sh(&format!("wg set wg0 fwmark {text}"))?;
        conf.fwmark = Some(mark);
        check(&conf, "fwmark")?;
    }

    let public_key = random_key();
    let peer = format!("wg set wg0 peer {}", base64(&public_key));
    ns.sh(&peer)?;
    conf.peers.push(PeerConf {
        public_key,
        ..PeerConf::default()
    });
    check(&conf, "peer")?;
    for psk in [Some(rand::random()), Some(rand::random()), None] {
        match psk {
            Some(key) => ns.sh_in(&format!("{peer} preshared-key {stdin}"), &base64(&key))?,
            None => ns.sh(&format!("{peer} preshared-key /dev/null"))?,
        };
        conf.peers[0].preshared_key = psk;
        check(&conf, "preshared-key")?;
    }
    for endpoint in ["192.0.2.7:7", "[2001:db8::7]:65535", "[fe80::1%lo]:5"] {
        ns.sh(&format!("{peer} endpoint {endpoint}"))?;
        conf.peers[0].endpoint = endpoint.replace("%lo", "%1").parse().ok();
        if endpoint.contains('%') {
            let shown = ns.sh("wg show wg0 endpoints")?;
            ensure!(
                shown.contains(endpoint),
                "the scoped endpoint is shown as {shown}"
            );
        } else {
            check(&conf, "endpoint")?;
        }
    }
    ns.sh(&format!("{peer} endpoint 192.0.2.9:9"))?;
    conf.peers[0].endpoint = "192.0.2.9:9".parse().ok();
    for (text, seconds) in [("65535", 65535), ("1", 1), ("off", 0)] {
        ns.sh(&format!("{peer} persistent-keepalive {text}"))?;
        conf.peers[0].keepalive = Some(seconds);
        check(&conf, "persistent-keepalive")?;
    }
    for (text, ips) in [
        (
            "10.0.0.0/8,fd00::/8",
            vec![v4(10, 0, 0, 0, 8), ("fd00::".parse()?, 8)],
        ),
        ("10.9.8.7/20", vec![v4(10, 9, 0, 0, 20)]), // host bits are masked
        (
            "1.2.3.4,::1",
            vec![v4(1, 2, 3, 4, 32), ("::1".parse()?, 128)],
        ),
        ("", vec![]),
    ] {
        let args = [
            "wg",
            "set",
            "wg0",
            "peer",
            &base64(&public_key),
            "allowed-ips",
            text,
        ];
        let done = ns.run(|| harness::cmd::run(&args));
        done.with_context(|| format!("allowed-ips {text:?}"))?;
        conf.peers[0].allowed_ips = ips;
        check(&conf, "allowed-ips")?;
    }
    // Several at once, and two peers.
    let other = PeerConf {
        allowed_ips: vec![v4(10, 2, 0, 0, 16)],
        ..full_peer()?
    };
    let line = format!(
        "wg set wg0 fwmark 9 peer {} persistent-keepalive 3 peer {} preshared-key {stdin} endpoint \
         [2001:db8::77]:7777 persistent-keepalive 25 allowed-ips 10.2.0.0/16",
        base64(&public_key),
        base64(&other.public_key),
    );
    ns.sh_in(&line, &base64(&other.preshared_key.unwrap_or_default()))?;
    conf.fwmark = Some(9);
    conf.peers[0].keepalive = Some(3);
    conf.peers.push(other);
    check(&conf, "all at once")?;
    ns.sh(&format!("{peer} remove"))?;
    conf.peers.remove(0);
    check(&conf, "remove")?;
    ns.sh(&format!("{peer} remove"))
        .context("removing an unknown peer")?;
    ns.sh("wg set wg0 private-key /dev/null")?;
    conf.private_key = None;
    check(&conf, "clearing the private key")
}

/// setconf, addconf, syncconf and showconf.
fn conf_round_trips(_: &Ctx) -> Result<()> {
    let ns = lone()?;
    ns.rtnl()?.link_add("wg1", "wireguard")?;
    let stdin = "/proc/self/fd/0";
    let mut conf = DeviceConf {
        private_key: Some(random_key()),
        listen_port: Some(5555),
        fwmark: Some(0xabc),
        peers: vec![full_peer()?],
        ..DeviceConf::default()
    };
    ns.sh_in(&format!("wg setconf wg0 {stdin}"), &tool::conf_text(&conf))?;
    same(&tool::get(&ns, "wg0")?, &conf).context("setconf")?;

    let more = PeerConf {
        public_key: random_key(),
        allowed_ips: vec![v4(10, 3, 0, 0, 24)],
        ..PeerConf::default()
    };
    let addition = DeviceConf {
        peers: vec![more.clone()],
        ..DeviceConf::default()
    };
    ns.sh_in(
        &format!("wg addconf wg0 {stdin}"),
        &tool::conf_text(&addition),
    )?;
    conf.peers.push(more);
    same(&tool::get(&ns, "wg0")?, &conf).context("addconf")?;

    let shown = ns.sh("wg showconf wg0")?;
    ns.sh("wg set wg0 listen-port 0")?; // not needed while both are down, but no conflict
    ns.sh_in(&format!("wg setconf wg1 {stdin}"), &shown)?;
    same(&tool::get(&ns, "wg1")?, &conf).context("showconf into setconf")?;

    let kept = conf.peers.remove(0);
    conf.peers.push(PeerConf {
        public_key: random_key(),
        keepalive: Some(9),
        ..PeerConf::default()
    });
    conf.fwmark = None;
    ns.sh_in(&format!("wg syncconf wg1 {stdin}"), &tool::conf_text(&conf))?;
    same(&tool::get(&ns, "wg1")?, &conf).context("syncconf")?;
    conf.peers = vec![kept];
    ns.sh_in(&format!("wg setconf wg1 {stdin}"), &tool::conf_text(&conf))?;
    same(&tool::get(&ns, "wg1")?, &conf).context("setconf replaces")?;

    let bad = ns.try_sh(
        &format!("wg setconf wg1 {stdin}"),
        "[Peer]\nPublicKey = nonsense\n",
    )?;
    ensure!(!bad.ok, "a bad configuration was accepted");
    same(&tool::get(&ns, "wg1")?, &conf).context("a bad configuration changes nothing")
}

/// Dumps split over many messages, also within a peer, return what was set.
fn dump_300_peers(ctx: &Ctx) -> Result<()> {
    let ns = lone()?;
    let mut conf = DeviceConf {
        private_key: Some(random_key()),
        listen_port: Some(5555),
        fwmark: Some(1),
        ..DeviceConf::default()
    };
    let mut n = 0u32;
    for peer in 0..300 {
        // The first and one in the middle are too large for one message.
        let count = if peer == 0 || peer == 150 {
            800
        } else {
            peer % 3
        };
        let mut allowed_ips = Vec::new();
        for _ in 0..count {
            n += 1;
            let ip: IpAddr = if n % 2 == 0 {
                Ipv4Addr::from(0x0a00_0000 + n * 256).into()
            } else {
                Ipv6Addr::from((0xfd00_u128 << 112) + (u128::from(n) << 64)).into()
            };
            allowed_ips.push((ip, if ip.is_ipv4() { 24 } else { 64 }));
        }
        conf.peers.push(PeerConf {
            allowed_ips,
            public_key: random_key(),
            ..full_peer()?
        });
    }
    tool::set(&ns, "wg0", &conf)?;
    same(&tool::get(&ns, "wg0")?, &conf).context("`wg show dump`")?;
    let mut wg = harness::wgdev::Wg::open(&ns, "wireguard")?;
    let device = wg.get("wg0")?;
    same(&device, &conf).context("our own dump")?;
    ensure!(
        device.messages > 2,
        "the dump took {} messages",
        device.messages
    );
    let order = |peers: &mut dyn Iterator<Item = Key>| peers.collect::<Vec<_>>();
    let (got, set) = (
        order(&mut device.peers.iter().map(|p| p.public_key)),
        order(&mut conf.peers.iter().map(|p| p.public_key)),
    );
    ensure!(
        got == set,
        "the peers are not in the order in which they were added"
    );
    ctx.note(format!("{n} allowed IPs, {} messages", device.messages));
    let shown = ns.sh("wg showconf wg0")?;
    ensure!(
        shown.matches("[Peer]").count() == 300,
        "`wg showconf` lacks peers"
    );
    ns.sh_in("wg setconf wg0 /proc/self/fd/0", "[Interface]\n")?;
    ensure!(
        tool::get(&ns, "wg0")?.peers.is_empty(),
        "peers left after an empty setconf"
    );
    Ok(())
}

/// A prefix has one owner; `+` and `-` add and remove single ones; order is insertion order.
fn allowed_ips_move(_: &Ctx) -> Result<()> {
    let ns = lone()?;
    let keys = [random_key(), random_key()];
    let set = |peer: usize, ips: &str| {
        let key = base64(&keys[peer]);
        ns.sh(&format!("wg set wg0 peer {key} allowed-ips {ips}"))
            .with_context(|| ips.to_owned())
    };
    let check = |wanted: [&str; 2]| -> Result<()> {
        let shown = ns.sh("wg show wg0 allowed-ips")?;
        for (key, ips) in keys.iter().zip(wanted) {
            let line = format!("{}\t{ips}", base64(key));
            ensure!(
                shown.lines().any(|l| l == line),
                "wanted {line:?} in {shown:?}"
            );
        }
        Ok(())
    };
    set(0, "10.0.0.0/8,10.1.0.0/16,fd00::/64")?;
    set(1, "10.1.0.0/16")?; // moves
    check(["10.0.0.0/8 fd00::/64", "10.1.0.0/16"])?;
    set(1, "+10.2.0.0/16")?;
    check(["10.0.0.0/8 fd00::/64", "10.1.0.0/16 10.2.0.0/16"])?;
    set(1, "+10.1.0.0/16")?; // added again: moves to the end
    check(["10.0.0.0/8 fd00::/64", "10.2.0.0/16 10.1.0.0/16"])?;
    set(0, "-10.1.0.0/16")?; // another peer's: no effect, no error
    check(["10.0.0.0/8 fd00::/64", "10.2.0.0/16 10.1.0.0/16"])?;
    set(1, "-10.2.0.0/16,+fd00::/64")?;
    check(["10.0.0.0/8", "10.1.0.0/16 fd00::/64"])?;
    set(0, "+10.0.0.0/9")?; // the same address with another length is another prefix
    check(["10.0.0.0/8 10.0.0.0/9", "10.1.0.0/16 fd00::/64"])?;
    ns.sh(&format!("wg set wg0 peer {} remove", base64(&keys[1])))?;
    ns.sh(&format!("wg set wg0 peer {}", base64(&keys[1])))?;
    check(["10.0.0.0/8 10.0.0.0/9", "(none)"])
}

/// syncconf keeps the session of an unchanged peer; setconf makes a new one.
fn syncconf_keeps_session(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.by_tool()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 2)?;
    let before = tunnel.peer(0)?;
    let conf = tunnel.ns(0).sh("wg showconf wg0")?;
    tunnel
        .ns(0)
        .sh_in("wg syncconf wg0 /proc/self/fd/0", &conf)?;
    let after = tunnel.peer(0)?;
    ensure!(
        after.last_handshake == before.last_handshake,
        "syncconf ended the session"
    );
    ensure!(
        after.rx_bytes >= before.rx_bytes && after.rx_bytes > 0,
        "syncconf reset the counters"
    );
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    tunnel
        .ns(0)
        .sh_in("wg setconf wg0 /proc/self/fd/0", &conf)?;
    let fresh = tunnel.peer(0)?;
    ensure!(
        fresh.last_handshake.is_zero() && fresh.rx_bytes == 0,
        "setconf kept the old peer"
    );
    ping_all(tunnel.ns(0), inner(false, 1), 1)
}
