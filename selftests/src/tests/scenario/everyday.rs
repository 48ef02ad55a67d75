// SPDX-License-Identifier: GPL-2.0-only
//! First steps: two peers, a network behind a peer, a web page.

use super::{bash, cable, no_ping, ping, Keys};
use anyhow::{ensure, Context, Result};
use harness::netns::Netns;
use harness::pace::slow;
use harness::runner::Ctx;
use harness::topo::{Opts, Tunnel};
use harness::traffic::{pattern, ping_all, tcp, udp};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Two machines, configured command by command.
pub(super) fn peer_to_peer(_: &Ctx) -> Result<()> {
    let (a, b) = (Netns::new("a")?, Netns::new("b")?);
    cable((&a, "eth0"), (&b, "eth0"))?;
    let keys = [Keys::new(&a)?, Keys::new(&b)?];
    for (n, ns) in [&a, &b].into_iter().enumerate() {
        let (own, other) = (n + 1, 2 - n);
        ns.sh(&format!("ip addr add 192.168.1.{own}/24 dev eth0"))?;
        ns.sh("ip link add dev wg0 type wireguard")?;
        ns.sh(&format!("ip address add dev wg0 10.0.0.{own}/24"))?;
        ns.sh(&format!("ip address add dev wg0 fd00:9::{own}/64 nodad"))?;
        ns.sh_in(
            "wg set wg0 listen-port 51820 private-key /proc/self/fd/0",
            &keys[n].private,
        )?;
        ns.sh("ip link set up dev wg0")?;
        ns.sh(&format!(
            "wg set wg0 peer {} allowed-ips 10.0.0.{other}/32,fd00:9::{other}/128 \
             endpoint 192.168.1.{other}:51820",
            keys[1 - n].public
        ))?;
    }
    ping(&a, "10.0.0.2")?;
    ping(&b, "10.0.0.1")?;
    ping(&a, "fd00:9::2")?;
    tcp(
        &b,
        &a,
        "10.0.0.1:5000".parse()?,
        1 << 20,
        Duration::from_secs(5),
    )?;
    for ns in [&a, &b] {
        let shown = ns.sh("wg")?;
        for part in [
            "interface: wg0",
            "latest handshake:",
            "transfer:",
            "received",
        ] {
            ensure!(shown.contains(part), "`wg` lacks {part:?}: {shown}");
        }
        ns.sh("ip link del wg0")?;
    }
    no_ping(&a, "10.0.0.2")
}

/// A peer reaches hosts behind another one: by a return route, by `iptables` and by `nft`
/// masquerading.
pub(super) fn lan_behind_peer(_: &Ctx) -> Result<()> {
    let (road, gate, host) = (
        Netns::new("road")?,
        Netns::new("gate")?,
        Netns::new("host")?,
    );
    cable((&road, "eth0"), (&gate, "wan"))?;
    cable((&gate, "lan"), (&host, "eth0"))?;
    let keys = [Keys::new(&road)?, Keys::new(&gate)?];
    bash(
        &road,
        &format!(
            "ip addr add 203.0.113.2/24 dev eth0
             ip link add wg0 type wireguard
             wg set wg0 private-key <(echo {}) peer {} endpoint 203.0.113.1:51820 \
                allowed-ips 10.8.0.0/24,192.168.77.0/24,fd77::/64,fd08::/64
             ip addr add 10.8.0.2/24 dev wg0
             ip addr add fd08::2/64 dev wg0 nodad
             ip link set wg0 up
             ip route add 192.168.77.0/24 dev wg0
             ip route add fd77::/64 dev wg0",
            keys[0].private, keys[1].public
        ),
    )?;
    bash(
        &gate,
        &format!(
            "ip addr add 203.0.113.1/24 dev wan
             ip addr add 192.168.77.1/24 dev lan
             ip addr add fd77::1/64 dev lan nodad
             sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             ip link add wg0 type wireguard
             wg set wg0 listen-port 51820 private-key <(echo {}) peer {} \
                 allowed-ips 10.8.0.2/32,fd08::2/128
             ip addr add 10.8.0.1/24 dev wg0
             ip addr add fd08::1/64 dev wg0 nodad
             ip link set wg0 up",
            keys[1].private, keys[0].public
        ),
    )?;
    host.sh("ip addr add 192.168.77.50/24 dev eth0")?;
    host.sh("ip addr add fd77::50/64 dev eth0 nodad")?;
    let seen = |what: &str, wanted: Ipv4Addr| -> Result<()> {
        ping(&road, "192.168.77.50").with_context(|| what.to_owned())?;
        let socket = udp(&host, "192.168.77.50:7".parse()?)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        udp(&road, "0.0.0.0:0".parse()?)?.send_to(b"who am I", "192.168.77.50:7")?;
        let (_, from) = socket
            .recv_from(&mut [0; 64])
            .with_context(|| what.to_owned())?;
        ensure!(
            from.ip() == wanted,
            "{what}: the host sees {from}, not {wanted}"
        );
        let at: SocketAddr = "192.168.77.50:5000".parse()?;
        tcp(&road, &host, at, 1 << 20, Duration::from_secs(5)).with_context(|| what.to_owned())?;
        Ok(())
    };
    ping(&road, "10.8.0.1")?;
    ping(&road, "192.168.77.1")?;
    no_ping(&road, "192.168.77.50").context("without a return route")?;
    host.sh("ip route add 10.8.0.0/24 via 192.168.77.1")?;
    host.sh("ip route add fd08::/64 via fd77::1")?;
    seen("with a return route", Ipv4Addr::new(10, 8, 0, 2))?;
    ping(&road, "fd77::50")?;
    ping(&host, "10.8.0.2").context("from the network to the peer")?;
    host.sh("ip route del 10.8.0.0/24")?;

    let rules = [
        (
            "iptables",
            "iptables -A FORWARD -i wg0 -j ACCEPT
             iptables -t nat -A POSTROUTING -o lan -j MASQUERADE",
            "iptables -F FORWARD; iptables -t nat -F POSTROUTING",
        ),
        (
            "nft",
            "nft add table ip t
             nft 'add chain ip t post { type nat hook postrouting priority 100; }'
             nft add rule ip t post oifname lan masquerade",
            "nft delete table ip t",
        ),
    ];
    for (what, on, off) in rules {
        bash(&gate, on)?;
        seen(what, Ipv4Addr::new(192, 168, 77, 1))?;
        bash(&gate, off)?;
        // Existing connections would keep their translation.
        gate.sh("conntrack -F")?;
        no_ping(&road, "192.168.77.50").with_context(|| format!("after {what}"))?;
    }
    Ok(())
}

/// Files over HTTP through the tunnel, and none of their content in cleartext on the underlay.
pub(super) fn http(ctx: &Ctx) -> Result<()> {
    const DIR: &str = "/run/wireguard/www";
    let tunnel = Tunnel::new(&Opts::new(ctx.by_tool()))?;
    let capture = tunnel.watch(ctx, 0)?;
    fs::create_dir_all(DIR)?;
    let data = pattern(7, 3_000_000);
    fs::write(format!("{DIR}/data"), &data)?;
    fs::write(format!("{DIR}/index.html"), "<h1>clear and simple</h1>")?;
    let mut server = tunnel.ns(1).run(|| {
        Ok(Command::new("busybox")
            .args(["httpd", "-f", "-p", "[::]:8080", "-h", DIR])
            .stdin(Stdio::null())
            .spawn()?)
    })?;
    let fetch = |url: &str| -> Result<Vec<u8>> {
        let out = tunnel.ns(0).run(|| {
            let mut wget = Command::new("busybox");
            Ok(wget
                .args(["wget", "-q", "-T", "20", "-O", "-", url])
                .output()?)
        })?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure!(out.status.success(), "{url}: {said}");
        Ok(out.stdout)
    };
    ping_all(tunnel.ns(0), "10.9.0.2".parse()?, 1)?;
    let start = Instant::now();
    let limit = slow(Duration::from_secs(10));
    while fetch("http://10.9.0.2:8080/").is_err() && start.elapsed() < limit {
        sleep(Duration::from_millis(100));
    }
    for host in ["10.9.0.2", "[fd09::2]"] {
        let page = fetch(&format!("http://{host}:8080/"))?;
        ensure!(
            page == b"<h1>clear and simple</h1>",
            "{host} sent another page"
        );
        let got = fetch(&format!("http://{host}:8080/data"))?;
        ensure!(
            got == data,
            "{host}: {} bytes received, or other content",
            got.len()
        );
    }
    let missing = fetch("http://10.9.0.2:8080/missing");
    ensure!(
        missing.is_err_and(|e| e.to_string().contains("404")),
        "no 404"
    );
    server.kill()?;
    server.wait()?;
    let frames = capture.frames();
    drop(capture);
    let frames = frames.lock().expect("poisoned");
    ensure!(
        frames.len() > 2000,
        "only {} frames on the underlay",
        frames.len()
    );
    for word in [&b"GET /"[..], b"HTTP/1", b"clear and simple"] {
        let clear = |bytes: &[u8]| bytes.windows(word.len()).any(|w| w == word);
        let n = frames.iter().filter(|f| clear(&f.bytes)).count();
        ensure!(
            n == 0,
            "{n} frames on the underlay show {:?}",
            String::from_utf8_lossy(word)
        );
    }
    Ok(())
}
