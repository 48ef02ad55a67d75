// SPDX-License-Identifier: GPL-2.0-only
//! WireGuard within WireGuard.

use super::{bash, ping, Keys};
use anyhow::{ensure, Context, Result};
use harness::netns::Netns;
use harness::runner::Ctx;
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::{self, ping_all, tcp};
use std::net::SocketAddr;
use std::time::Duration;

/// Room for an outer IPv4 header, then for an IPv6 header.
const MTUS: [usize; 2] = [1420 - 60, 1420 - 60 - 80];

/// Two more tunnels inside the tunnel, nested, each with room for its own headers.
pub(super) fn nested(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.by_tool()))?;
    let mut outside = ["10.9.0".to_owned(), "fd09:".to_owned()];
    for level in 1..=2usize {
        let keys = [Keys::new(tunnel.ns(0))?, Keys::new(tunnel.ns(1))?];
        // IPv4 in IPv4, then in IPv6.
        let net = format!("10.{}.0", 20 + level);
        for n in 0..2usize {
            let endpoint = match level {
                1 => format!("{}.{}:6000", outside[0], 2 - n),
                _ => format!("[{}:{}]:6001", outside[1], 2 - n),
            };
            bash(
                tunnel.ns(n as u8),
                &format!(
                    "ip link add nest{level} type wireguard
                     wg set nest{level} listen-port {} private-key <(echo {}) \
                            peer {} endpoint {endpoint} \
                            allowed-ips {net}.{other}/32,fd2{level}::{other}/128
                     ip link set nest{level} mtu {} up
                     ip addr add {net}.{own}/24 dev nest{level}
                     ip addr add fd2{level}::{own}/64 dev nest{level} nodad",
                    5999 + level,
                    keys[n].private,
                    keys[1 - n].public,
                    MTUS[level - 1],
                    own = n + 1,
                    other = 2 - n,
                ),
            )?;
        }
        outside = [net, format!("fd2{level}:")];
    }
    // Innermost first, so that one packet triggers all three handshakes.
    for level in [2, 1] {
        ping(tunnel.ns(0), &format!("10.{}.0.2", 20 + level))
            .with_context(|| format!("level {level}"))?;
        ping(tunnel.ns(1), &format!("fd2{level}::1"))?;
    }
    let size = MTUS[1] - 28;
    let full = traffic::ping(
        tunnel.ns(0),
        "10.22.0.2".parse()?,
        5,
        size,
        Duration::from_secs(5),
    )?;
    ensure!(
        full == 5,
        "{full} of 5 packets of the full size were answered"
    );
    let at: SocketAddr = "10.22.0.2:5000".parse()?;
    tcp(
        tunnel.ns(0),
        tunnel.ns(1),
        at,
        4 << 20,
        Duration::from_secs(5),
    )?;
    let received: u64 = tunnel
        .ns(1)
        .sh("wg show nest2 transfer")?
        .split_whitespace()
        .nth(1)
        .context("no transfer")?
        .parse()?;
    ensure!(
        received > 4 << 20,
        "only {received} bytes passed the innermost tunnel"
    );
    Ok(())
}

/// A tunnel whose own packets are routed into it carries nothing and does no harm; once the route
/// is fixed, it works.
pub(super) fn routed_into_itself(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.by_tool()))?;
    let ns: &Netns = tunnel.ns(0);
    ping_all(ns, inner(false, 1), 1)?;
    ns.sh("ip route add 192.0.2.2/32 dev wg0")?;
    let got = traffic::ping(ns, inner(false, 1), 3, 56, Duration::from_millis(300))?;
    ensure!(got == 0, "{got} pings answered through a loop");
    tunnel.rt(0).stats("wg0")?;
    tunnel.ns(0).sh("ip route del 192.0.2.2/32 dev wg0")?;
    ping_all(tunnel.ns(0), inner(false, 1), 3)?;
    // Two devices, each routed into the other.
    let ns = tunnel.ns(0);
    let keys = Keys::new(ns)?;
    bash(
        ns,
        &format!(
            "ip link add loop0 type wireguard
             ip link add loop1 type wireguard
             wg set loop0 private-key <(wg genkey) peer {0} endpoint 10.31.0.1:9 \
                 allowed-ips 10.30.0.0/16
             wg set loop1 private-key <(wg genkey) peer {0} endpoint 10.30.0.1:9 \
                 allowed-ips 10.31.0.0/16
             ip link set loop0 up; ip link set loop1 up
             ip route add 10.30.0.0/16 dev loop0; ip route add 10.31.0.0/16 dev loop1",
            keys.public
        ),
    )?;
    let got = traffic::ping(ns, "10.30.0.1".parse()?, 3, 56, Duration::from_millis(300))?;
    ensure!(got == 0, "a reply through a loop");
    ping_all(ns, inner(false, 1), 3)
}
