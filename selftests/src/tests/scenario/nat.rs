// SPDX-License-Identifier: GPL-2.0-only
//! A peer behind a masquerading router, with the kernel's default timeouts (30 s, or 120 s after
//! traffic in both directions) and the keepalive that every tutorial suggests: 25 s.

use super::{bash, cable, Keys};
use anyhow::{ensure, Context, Result};
use harness::netns::Netns;
use harness::runner::Ctx;
use harness::traffic::{ping, ping_all};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

type Body = fn(&Ctx) -> Result<()>;

/// The tests of this file.
pub(super) const TESTS: [(&str, Body); 3] = [
    ("scenario-nat-without-keepalive", without_keepalive),
    ("scenario-nat-keepalive", with_keepalive),
    ("scenario-nat-roaming", roaming),
];

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 8, 0, 2));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 8, 0, 1));
const ADDRESSES: [&str; 2] = ["203.0.113.1", "203.0.113.2"];

struct Scene {
    home: Netns,
    router: Netns,
    server: Netns,
}

impl Scene {
    /// A home network behind a router; a server without an endpoint for its peer. `keepalive` is
    /// the setting of the peer at home, `masquerade` further options of the router's rule.
    fn new(keepalive: &str, masquerade: &str) -> Result<Self> {
        let scene = Scene {
            home: Netns::new("home")?,
            router: Netns::new("router")?,
            server: Netns::new("server")?,
        };
        let Scene {
            home,
            router,
            server,
        } = &scene;
        cable((home, "eth0"), (router, "lan"))?;
        cable((router, "wan"), (server, "eth0"))?;
        let keys = [Keys::new(home)?, Keys::new(server)?];
        bash(
            router,
            &format!(
                "ip addr add 192.168.1.1/24 dev lan
                 ip addr add {}/24 dev wan
                 sysctl -q net.ipv4.ip_forward=1
                 iptables -t nat -A POSTROUTING -o wan -j MASQUERADE {masquerade}",
                ADDRESSES[0]
            ),
        )?;
        // The server first: a packet that arrives before it listens is retried only after 5 s.
        bash(
            server,
            &format!(
                "ip addr add 203.0.113.10/24 dev eth0
                 ip link add wg0 type wireguard
                 wg set wg0 listen-port 51820 private-key <(echo {}) peer {} allowed-ips 10.8.0.2/32
                 ip addr add 10.8.0.1/24 dev wg0
                 ip link set wg0 up",
                keys[1].private, keys[0].public
            ),
        )?;
        bash(
            home,
            &format!(
                "ip addr add 192.168.1.2/24 dev eth0
                 ip route add default via 192.168.1.1
                 ip link add wg0 type wireguard
                 wg set wg0 private-key <(echo {}) peer {} endpoint 203.0.113.10:51820 \
                    persistent-keepalive {keepalive} allowed-ips 10.8.0.0/24
                 ip addr add 10.8.0.2/24 dev wg0
                 ip link set wg0 up",
                keys[0].private, keys[1].public
            ),
        )?;
        Ok(scene)
    }

    /// The server's endpoint of the peer at home.
    fn endpoint(&self) -> Result<String> {
        let shown = self.server.sh("wg show wg0 endpoints")?;
        Ok(shown.split_whitespace().nth(1).unwrap_or("").to_owned())
    }

    /// How many of three pings of the server are answered, each within 8 s (enough for a handshake
    /// retried after 5 s).
    fn server_pings(&self) -> Result<u16> {
        ping(&self.server, HOME, 3, 56, Duration::from_secs(8))
    }

    /// Waits until neither end expects a reply, without which it would start a new handshake 15 s
    /// after it sent data: home sends a datagram, which the server answers after 10 s with a
    /// keepalive. A ping would not do: its reply may arrive before the in-tree driver starts to
    /// expect it, which is after it has sent the ping.
    fn quiesce(&self) -> Result<()> {
        let at = (SERVER, 9);
        let sink = self.server.run(|| Ok(UdpSocket::bind(at)?))?;
        self.home
            .run(|| Ok(UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", at)?))?;
        sink.set_read_timeout(Some(Duration::from_secs(5)))?;
        sink.recv(&mut [0]).context("a datagram from home")?;
        sleep(Duration::from_secs(12));
        Ok(())
    }
}

/// Without a keepalive the router's mapping expires, and the server cannot reach the peer until the
/// peer sends again.
fn without_keepalive(_: &Ctx) -> Result<()> {
    let scene = Scene::new("off", "")?;
    ensure!(
        scene.server_pings()? == 0,
        "a reply before the peer has sent anything"
    );
    ping_all(&scene.home, SERVER, 3)?;
    ensure!(
        scene.endpoint()?.starts_with(ADDRESSES[0]),
        "endpoint {}",
        scene.endpoint()?
    );
    sleep(Duration::from_secs(60));
    let got = scene.server_pings()?;
    ensure!(
        got == 3,
        "after a minute the server gets {got} of 3 replies"
    );
    sleep(Duration::from_secs(200));
    let got = scene.server_pings()?;
    ensure!(
        got == 0,
        "the server gets {got} replies through an expired mapping"
    );
    ping_all(&scene.home, SERVER, 3).context("the peer sends again")?;
    let got = scene.server_pings()?;
    ensure!(got == 3, "then the server gets {got} of 3 replies");
    Ok(())
}

/// With a keepalive of 25 s the server can always reach the peer.
fn with_keepalive(_: &Ctx) -> Result<()> {
    let scene = Scene::new("25", "")?;
    // No traffic: the keepalive alone creates the mapping.
    sleep(Duration::from_secs(1));
    let first = scene.endpoint()?;
    ensure!(first.starts_with(ADDRESSES[0]), "endpoint {first:?}");
    for minutes in [1, 4, 15] {
        sleep(Duration::from_secs(60 * minutes));
        let got = scene.server_pings()?;
        ensure!(
            got == 3,
            "after {minutes} idle minutes the server gets {got} of 3 replies"
        );
        ensure!(
            scene.endpoint()? == first,
            "the endpoint moved to {}",
            scene.endpoint()?
        );
    }
    Ok(())
}

/// The router gets another address, then loses its table: the server follows the next keepalive,
/// in the same session.
fn roaming(_: &Ctx) -> Result<()> {
    let scene = Scene::new("25", "--random-fully")?;
    ping_all(&scene.home, SERVER, 3)?;
    let first = scene.endpoint()?;
    let session = scene.server.sh("wg show wg0 latest-handshakes")?;

    scene.quiesce()?;
    // Removing the address also ends the mappings.
    scene
        .router
        .sh(&format!("ip addr del {}/24 dev wan", ADDRESSES[0]))?;
    scene
        .router
        .sh(&format!("ip addr add {}/24 dev wan", ADDRESSES[1]))?;
    sleep(Duration::from_secs(30));
    let second = scene.endpoint()?;
    ensure!(
        second.starts_with(ADDRESSES[1]),
        "after the new address the endpoint is {second}"
    );
    let got = scene.server_pings()?;
    ensure!(got == 3, "at the new address {got} of 3 replies");

    scene.quiesce()?;
    scene.router.sh("conntrack -F")?;
    sleep(Duration::from_secs(30));
    let third = scene.endpoint()?;
    ensure!(
        third.starts_with(ADDRESSES[1]) && third != second,
        "after the flush the endpoint is {third}, was {second} and {first}"
    );
    let got = scene.server_pings()?;
    ensure!(got == 3, "at the new port {got} of 3 replies");
    let now = scene.server.sh("wg show wg0 latest-handshakes")?;
    ensure!(now == session, "roaming needed a new handshake");

    // A router that loses its table every five minutes.
    for n in 0..3 {
        sleep(Duration::from_secs(270));
        scene.router.sh("conntrack -F")?;
        sleep(Duration::from_secs(30));
        let got = scene.server_pings()?;
        ensure!(got == 3, "after flush {n} {got} of 3 replies");
    }
    Ok(())
}
