// SPDX-License-Identifier: GPL-2.0-only
//! `wg-quick`: up and down, with a default route, hooks, SaveConfig and DNS.

use super::{bash, cable, ping, Keys};
use anyhow::{ensure, Context, Result};
use harness::capture::Capture;
use harness::netns::Netns;
use harness::runner::Ctx;
use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};

/// A tmpfs of this test.
const DIR: &str = "/run/wireguard";
const BIN: &str = "/run/wireguard/bin";
const CONF: &str = "/run/wireguard/wg0.conf";

/// A client with a default route to a gateway, and behind that the world: 198.51.100.7 and
/// 2001:db8:77::7. The gateway is also a WireGuard server at 198.51.100.1, 10.8.0.1, fd08::1.
struct Scene {
    client: Netns,
    world: Netns,
    keys: [Keys; 2],
}

impl Scene {
    fn new() -> Result<Self> {
        let (client, world) = (Netns::new("client")?, Netns::new("world")?);
        cable((&client, "eth0"), (&world, "eth0"))?;
        let keys = [Keys::new(&client)?, Keys::new(&world)?];
        bash(
            &client,
            "ip addr add 192.0.2.10/24 dev eth0
             ip addr add 2001:db8:1::10/64 dev eth0 nodad
             ip route add default via 192.0.2.1
             ip route add default via 2001:db8:1::1",
        )?;
        bash(
            &world,
            &format!(
                "ip addr add 192.0.2.1/24 dev eth0
                 ip addr add 2001:db8:1::1/64 dev eth0 nodad
                 ip addr add 198.51.100.7/32 dev lo
                 ip addr add 198.51.100.1/32 dev lo
                 ip addr add 2001:db8:77::7/128 dev lo
                 ip link add wg0 type wireguard
                 wg set wg0 listen-port 51820 private-key <(echo {}) peer {} \
                    allowed-ips 10.8.0.2/32,10.8.1.2/32,fd08::2/128
                 ip addr add 10.8.0.1/24 dev wg0
                 ip addr add fd08::1/64 dev wg0 nodad
                 ip link set wg0 up
                 ip route add 10.8.1.2/32 dev wg0",
                keys[1].private, keys[0].public
            ),
        )?;
        fs::create_dir_all(BIN)?;
        Ok(Scene {
            client,
            world,
            keys,
        })
    }

    /// Writes the configuration file: lines of the interface section in addition to the key, and
    /// the allowed IPs of the peer.
    fn write(&self, interface: &str, allowed_ips: &str) -> Result<()> {
        fs::write(
            CONF,
            format!(
                "[Interface]\nPrivateKey = {}\n{interface}\n\n[Peer]\nPublicKey = {}\n\
                 Endpoint = 198.51.100.1:51820\nAllowedIPs = {allowed_ips}\n",
                self.keys[0].private, self.keys[1].public
            ),
        )?;
        Ok(fs::set_permissions(
            CONF,
            fs::Permissions::from_mode(0o600),
        )?)
    }

    fn quick(&self, verb: &str) -> Result<String> {
        self.client.sh(&format!("wg-quick {verb} {CONF}"))
    }

    /// Everything that `wg-quick` may have changed at the client.
    fn state(&self) -> Result<String> {
        bash(
            &self.client,
            "for v in 4 6; do
                 ip -$v rule; ip -$v route show table all; ip -$v -o addr
             done | grep -v fe80:
             ip -o link | cut -d : -f 2
             nft list tables | grep wg-quick || true
             iptables-save | grep ^-A || true
             ip6tables-save | grep ^-A || true
             ls -A /run/wireguard",
        )
    }
}

/// Everything through the tunnel, with `nft` and with `iptables` only: policy routing by mark, the
/// local network excepted, nothing accepted that bypasses the tunnel; and all of it undone.
pub(super) fn default_route(_: &Ctx) -> Result<()> {
    let scene = Scene::new()?;
    for tool in ["iptables", "ip6tables"] {
        for form in ["", "-save", "-restore"] {
            symlink(
                format!("/usr/sbin/{tool}{form}"),
                format!("{BIN}/{tool}{form}"),
            )?;
        }
    }
    symlink("/usr/sbin/sysctl", format!("{BIN}/sysctl"))?;
    scene.write("Address = 10.8.0.2/24, fd08::2/64", "0.0.0.0/0, ::/0")?;
    for (what, path) in [
        ("nft", "/usr/bin:/usr/sbin".to_owned()),
        ("iptables", format!("{BIN}:/usr/bin")),
    ] {
        full_tunnel(&scene, &path, what == "nft").with_context(|| format!("with {what}"))?;
    }
    Ok(())
}

fn full_tunnel(scene: &Scene, path: &str, nft: bool) -> Result<()> {
    let Scene { client, world, .. } = scene;
    let quick = |verb: &str| {
        let env = format!("PATH={path}");
        client.run(|| harness::cmd::try_run(&["env", &env, "wg-quick", verb, CONF], ""))
    };
    let before = scene.state()?;
    ping(client, "198.51.100.7").context("before")?;
    let up = quick("up")?;
    ensure!(up.ok, "wg-quick up: {}", up.stderr);
    ensure!(
        up.stderr.contains("iptables-restore") != nft && up.stderr.contains("nft -f") == nft,
        "the wrong firewall tool: {}",
        up.stderr
    );
    ensure!(
        client.sh("wg show wg0 fwmark")?.trim() == "0xca6c",
        "fwmark"
    );
    let via = |dst: &str, wanted: &str| -> Result<()> {
        let route = client.sh(&format!("ip route get {dst}"))?;
        ensure!(
            route.contains(&format!("dev {wanted} ")),
            "route to {dst}: {route}"
        );
        Ok(())
    };
    via("198.51.100.7", "wg0")?;
    via("2001:db8:77::7", "wg0")?;
    via("198.51.100.7 mark 51820", "eth0")?;
    via("192.0.2.1", "eth0")?;
    via("2001:db8:1::1", "eth0")?;

    let capture = Capture::start(client, "eth0")?;
    for dst in ["198.51.100.7", "2001:db8:77::7", "10.8.0.1", "fd08::1"] {
        ping(client, dst)?;
    }
    ping(world, "10.8.0.2")?;
    ping(world, "fd08::2")?;
    let frames = capture.frames();
    drop(capture);
    for frame in frames.lock().expect("poisoned").iter() {
        // Ethernet, then IPv4's protocol or IPv6's next header.
        let (kind, protocol) = (
            frame.bytes.get(12..14),
            (frame.bytes.get(23), frame.bytes.get(20)),
        );
        let leaked = match kind {
            // An ICMP error about UDP: the other end may still send to the previous port.
            Some([8, 0]) if protocol.0 == Some(&1) => {
                (frame.bytes.get(34), frame.bytes.get(51)) != (Some(&3), Some(&17))
            }
            Some([8, 0]) => protocol.0 != Some(&17),
            // Neighbour discovery is in cleartext.
            Some([0x86, 0xdd]) => {
                protocol.1 == Some(&58) && matches!(frame.bytes.get(54), Some(128 | 129))
            }
            _ => false,
        };
        ensure!(!leaked, "cleartext on the underlay: {:02x?}", frame.bytes);
    }

    // To the tunnel's address, bypassing the tunnel: the firewall rule drops it.
    world.sh("ip route add 10.8.0.2/32 via 192.0.2.10")?;
    world.sh("ip route add fd08::2/128 via 2001:db8:1::10")?;
    let bypass = |ns: &Netns, seconds: &str| -> Result<[bool; 2]> {
        let mut got = [false; 2];
        for (got, ping) in got
            .iter_mut()
            .zip(["192.0.2.1 10.8.0.2", "2001:db8:1::1 fd08::2"])
        {
            *got = ns
                .try_sh(&format!("ping -n -q -c 1 -W {seconds} -I {ping}"), "")?
                .ok;
        }
        Ok(got)
    };
    let got = bypass(world, "0.5")?;
    ensure!(
        got == [false; 2],
        "bypassing the tunnel: replies {got:?} (IPv4, IPv6)"
    );
    if nft {
        bash(
            client,
            "nft delete table ip wg-quick-wg0; nft delete table ip6 wg-quick-wg0",
        )?;
        let got = bypass(world, "10")?;
        ensure!(
            got == [true; 2],
            "without the rule: replies {got:?} (IPv4, IPv6)"
        );
    }
    world.sh("ip route del 10.8.0.2/32 via 192.0.2.10")?;
    world.sh("ip route del fd08::2/128 via 2001:db8:1::10")?;

    let again = quick("up")?;
    ensure!(
        !again.ok && again.stderr.contains("already exists"),
        "up twice: {}",
        again.stderr
    );
    ping(client, "198.51.100.7").context("after up twice")?;
    let down = quick("down")?;
    ensure!(down.ok, "wg-quick down: {}", down.stderr);
    let after = scene.state()?;
    ensure!(
        after == before,
        "left by wg-quick: {after}\nbefore it: {before}"
    );
    ping(client, "198.51.100.7").context("afterwards")?;
    let twice = quick("down")?;
    ensure!(
        !twice.ok && twice.stderr.contains("is not a WireGuard interface"),
        "down twice: {}",
        twice.stderr
    );
    Ok(())
}

/// Two families, MTU, a routing table, every hook in order, SaveConfig, save and strip.
pub(super) fn hooks_and_saveconfig(_: &Ctx) -> Result<()> {
    let scene = Scene::new()?;
    let client = &scene.client;
    let log = format!("{DIR}/log");
    // Each logs whether the device exists.
    let hook = |name: &str| {
        format!("{name} = echo {name} %i $(ip -o link show %i 2>/dev/null | wc -l) >>{log}\n")
    };
    let interface = format!(
        "Address = 10.8.0.2/24, fd08::2/64\nAddress = 10.8.1.2/32\nListenPort = 51999\nMTU = 1380\n\
         Table = 1234\nSaveConfig = true\n{}{}{}{}PostUp = ip rule add from 10.8.1.2 table 1234\n\
         PreDown = ip rule del from 10.8.1.2 table 1234\n",
        hook("PreUp"),
        hook("PostUp"),
        hook("PreDown"),
        hook("PostDown")
    );
    scene.write(&interface, "10.8.0.0/24, 198.51.100.7/32, fd08::/64")?;
    let before = scene.state()?;
    scene.quick("up")?;
    let addresses = client.sh("ip -o addr show dev wg0")?;
    for address in ["10.8.0.2/24", "10.8.1.2/32", "fd08::2/64"] {
        ensure!(
            addresses.contains(address),
            "{address} is not among {addresses}"
        );
    }
    ensure!(
        !addresses.contains("tentative"),
        "duplicate address detection: {addresses}"
    );
    ensure!(
        client.sh("ip -o link show wg0")?.contains("mtu 1380"),
        "the MTU"
    );
    let routes = client.sh("ip route show table 1234")?;
    ensure!(
        routes.contains("198.51.100.7 dev wg0") && routes.contains("10.8.0.0/24 dev wg0"),
        "routes in table 1234: {routes}"
    );
    ping(client, "10.8.0.1")?;
    ping(client, "fd08::1")?;
    client
        .sh("ping -n -q -c 1 -W 5 -I 10.8.1.2 198.51.100.7")
        .context("with the hook's rule")?;

    // Changes at run time are saved: by `save`, and at `down`.
    let late = Keys::new(client)?.public;
    client.sh(&format!(
        "wg set wg0 peer {late} allowed-ips 10.66.0.0/16 persistent-keepalive 21"
    ))?;
    scene.quick("save")?;
    let saved = fs::read_to_string(CONF)?;
    ensure!(saved.contains(&late), "`save` lost the new peer: {saved}");
    client.sh("ip addr add 10.8.2.2/32 dev wg0")?;
    client.sh("wg set wg0 listen-port 51998")?;
    scene.quick("down")?;
    let saved = fs::read_to_string(CONF)?;
    for part in [
        "Address = 10.8.0.2/24\n",
        "Address = 10.8.1.2/32\n",
        "Address = 10.8.2.2/32\n",
        "Address = fd08::2/64\n",
        "MTU = 1380\n",
        "Table = 1234\n",
        "SaveConfig = true\n",
        "ListenPort = 51998\n",
        "PostUp = ip rule add from 10.8.1.2 table 1234\n",
        "PersistentKeepalive = 21\n",
        "AllowedIPs = 10.66.0.0/16\n",
        &scene.keys[0].private,
        &scene.keys[1].public,
        &late,
    ] {
        ensure!(saved.contains(part), "SaveConfig lost {part:?}: {saved}");
    }
    let hooks = fs::read_to_string(&log)?;
    ensure!(
        hooks == "PreUp wg0 1\nPostUp wg0 1\nPreDown wg0 1\nPostDown wg0 0\n",
        "wrong hooks, or wrong order: {hooks}"
    );
    fs::remove_file(&log)?;
    let after = scene.state()?;
    ensure!(
        after == before,
        "left by wg-quick: {after}\nbefore it: {before}"
    );

    // Up again from the saved file; then a change to the file is applied without going down.
    scene.quick("up")?;
    ensure!(
        client.sh("wg show wg0 peers")?.contains(&late),
        "the saved peer is missing"
    );
    ping(client, "10.8.0.1")?;
    let session = client.sh("wg show wg0 latest-handshakes")?;
    fs::write(
        CONF,
        fs::read_to_string(CONF)?.replace("10.66.0.0/16", "10.67.0.0/16"),
    )?;
    bash(client, &format!("wg syncconf wg0 <(wg-quick strip {CONF})"))?;
    ensure!(
        client
            .sh("wg show wg0 allowed-ips")?
            .contains("10.67.0.0/16"),
        "strip and syncconf"
    );
    ensure!(
        client.sh("wg show wg0 latest-handshakes")? == session,
        "syncconf ended the session"
    );
    ping(client, "10.8.0.1")?;
    scene.quick("down")?;
    fs::remove_file(&log)?;

    // An `up` that fails half-way leaves nothing behind.
    scene.write("Address = 10.8.0.2/24\nPostUp = false\n", "10.8.0.0/24")?;
    let failed = client.try_sh(&format!("wg-quick up {CONF}"), "")?;
    ensure!(!failed.ok, "up with a failing hook succeeds");
    let after = scene.state()?;
    ensure!(
        after == before,
        "left by a failed up: {after}\nbefore it: {before}"
    );
    Ok(())
}

/// DNS by `resolvconf`; without that tool `up` fails and leaves nothing behind.
pub(super) fn dns(_: &Ctx) -> Result<()> {
    let scene = Scene::new()?;
    let client = &scene.client;
    let stub = format!("{BIN}/resolvconf");
    scene.write(
        "Address = 10.8.0.2/24\nDNS = 10.8.0.1, fd08::1, example.org\n",
        "10.8.0.0/24",
    )?;
    let before = scene.state()?;
    let failed = client.try_sh(
        &format!("env PATH=/usr/bin:/usr/sbin wg-quick up {CONF}"),
        "",
    )?;
    ensure!(
        !failed.ok && failed.stderr.contains("resolvconf"),
        "without resolvconf: {}",
        failed.stderr
    );
    let after = scene.state()?;
    ensure!(
        after == before,
        "left by a failed up: {after}\nbefore it: {before}"
    );

    let log = format!("{BIN}/log");
    fs::write(
        &stub,
        format!("#!/bin/sh\necho \"$*\" >>{log}\ncase $1 in -a) cat >>{log};; esac\n"),
    )?;
    fs::set_permissions(&stub, fs::Permissions::from_mode(0o755))?;
    for verb in ["up", "down"] {
        client.sh(&format!(
            "env PATH={BIN}:/usr/bin:/usr/sbin wg-quick {verb} {CONF}"
        ))?;
        if verb == "up" {
            ping(client, "10.8.0.1")?;
        }
    }
    let said = fs::read_to_string(&log)?;
    let wanted =
        "-a wg0 -m 0 -x\nnameserver 10.8.0.1\nnameserver fd08::1\nsearch example.org\n-d wg0 -f\n";
    ensure!(said.starts_with(wanted), "resolvconf got {said:?}");
    let after = scene.state()?;
    ensure!(
        after == before,
        "left by wg-quick: {after}\nbefore it: {before}"
    );
    Ok(())
}
