// SPDX-License-Identifier: GPL-2.0-only
//! Devices that are bound to an address, an interface or a VRF: what they send comes from there,
//! and what arrives elsewhere does not reach them.

use super::{needs_ours, ours, Check, Test};
use anyhow::{ensure, Context, Result};
use harness::capture::Capture;
use harness::netlink::Attrs;
use harness::netns::Netns;
use harness::options::set;
use harness::runner::{Boot, Ctx};
use harness::topo::{inner, outer, port, Opts, Tunnel};
use harness::traffic::{ping, ping_all};
use harness::wgdev::PeerConf;
use harness::wire::{self, Frame};
use nix::errno::Errno;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use wireguard_rs::proto::extension::{options, GENL_NAME};

/// How long a ping that is not answered is waited for.
const SHORT: Duration = Duration::from_millis(400);

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, Check); 3] = [
        ("binding-address", address),
        ("binding-interface", interface),
        ("binding-vrf", vrf),
    ];
    for (name, body) in tests {
        ours(list, name, Boot::Config, 60, body);
    }
}

/// Runs commands, one in each line.
fn run(ns: &Netns, commands: &str) -> Result<()> {
    commands
        .lines()
        .try_for_each(|line| ns.sh(line.trim()).map(drop))
}

/// Sets options of an interface.
fn change(ns: &Netns, name: &str, fill: impl Fn(&mut Attrs) + Send) -> Result<Result<(), Errno>> {
    let mut attrs = Attrs::new();
    fill(attrs.str(options::IFNAME, name));
    ns.run(|| Ok(set(GENL_NAME, &attrs)))
}

fn to_address(ns: &Netns, addr: IpAddr) -> Result<Result<(), Errno>> {
    change(ns, "wg0", |attrs| {
        match addr {
            IpAddr::V4(addr) => attrs.put(options::BIND_ADDRESS4, &addr.octets()),
            IpAddr::V6(addr) => attrs.put(options::BIND_ADDRESS6, &addr.octets()),
        };
    })
}

fn to_interface(ns: &Netns, name: &str, interface: &str) -> Result<()> {
    let set = change(ns, name, |attrs| {
        attrs.str(options::BIND_INTERFACE, interface);
    })?;
    set.with_context(|| format!("{name} to {interface:?}"))
}

/// End 0 has sent at least that many datagrams to the wire, all from this address.
fn all_from(wire: Capture, addr: IpAddr, count: usize) -> Result<()> {
    let mut seen = Vec::new();
    for frame in wire.stop()? {
        if let (true, Frame::Udp { src, .. }) = (frame.outgoing, wire::frame(&frame.bytes)) {
            seen.push(src.ip());
        }
    }
    ensure!(
        seen.len() >= count && seen.iter().all(|src| *src == addr),
        "from {seen:?}, not {count} from {addr}"
    );
    Ok(())
}

/// Whether end 0 has a socket of the family on its port.
fn listens(tunnel: &Tunnel, v6: bool) -> Result<bool> {
    let file = if v6 { "udp6" } else { "udp" };
    let list = tunnel.ns(0).sh(&format!("cat /proc/net/{file}"))?;
    Ok(list.contains(&format!(":{:04X} ", port(0))))
}

/// Bound to the second of two addresses, or to none again.
fn address(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    for v6 in [false, true] {
        let mut opts = Opts::new(ctx.plain());
        opts.v6 = v6;
        let mut tunnel = Tunnel::new(&opts)?;
        let second: IpAddr = if v6 { "2001:db8::101" } else { "192.0.2.101" }.parse()?;
        let (prefix, nodad) = if v6 { (64, "nodad") } else { (24, "") };
        run(
            tunnel.ns(0),
            &format!("ip addr add {second}/{prefix} dev v0 {nodad}"),
        )?;
        // End 1 has no neighbour entry for it.
        run(
            tunnel.ns(1),
            &format!("ip neigh add {second} lladdr 02:00:00:00:00:01 dev v1"),
        )?;
        ping_all(tunnel.ns(1), inner(false, 0), 1)?;
        ensure!(listens(&tunnel, false)? && listens(&tunnel, true)?);
        ensure!(to_address(tunnel.ns(0), second)?.is_ok(), "{second}");
        // What comes for the first address is for nobody.
        let lost = ping(tunnel.ns(1), inner(false, 0), 1, 64, SHORT)?;
        ensure!(lost == 0, "{v6}: answered at the first address");
        let wire = Capture::start(tunnel.ns(0), "v0")?;
        ping_all(tunnel.ns(0), inner(false, 1), 3)?;
        all_from(wire, second, 3)?;
        let there = tunnel.peer(1)?.endpoint;
        ensure!(
            there == Some(SocketAddr::new(second, port(0))),
            "{v6}: {there:?}"
        );
        ensure!(listens(&tunnel, v6)? && !listens(&tunnel, !v6)?);
        // Of no host; nothing changes.
        let nobody: IpAddr = if v6 { "2001:db8::77" } else { "192.0.2.77" }.parse()?;
        let refused = to_address(tunnel.ns(0), nobody)?;
        ensure!(refused == Err(Errno::EADDRNOTAVAIL), "{refused:?}");
        ping_all(tunnel.ns(1), inner(false, 0), 1)?;
        // To any again, on the same port.
        let any = if v6 { "::" } else { "0.0.0.0" }.parse()?;
        ensure!(to_address(tunnel.ns(0), any)?.is_ok());
        tunnel.set_peer(
            1,
            PeerConf {
                endpoint: Some(SocketAddr::new(outer(v6, 0), port(0))),
                ..PeerConf::default()
            },
        )?;
        ping_all(tunnel.ns(1), inner(false, 0), 1)?;
        let there = tunnel.peer(1)?.endpoint;
        ensure!(there == Some(SocketAddr::new(outer(v6, 0), port(0))));
        ensure!(listens(&tunnel, false)? && listens(&tunnel, true)?);
    }
    Ok(())
}

/// Two devices of one host on one port, each bound to an interface of its own.
fn interface(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    run(tunnel.ns(0), "ip link add d0 up type dummy")?;
    let refused = change(tunnel.ns(0), "wg0", |attrs| {
        attrs.str(options::BIND_INTERFACE, "nosuch");
    })?;
    ensure!(refused == Err(Errno::ENODEV), "{refused:?}");
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;

    to_interface(tunnel.ns(0), "wg0", "d0")?;
    // Neither hears the other: what is sent leaves by the dummy.
    ensure!(ping(tunnel.ns(1), inner(false, 0), 1, 64, SHORT)? == 0);
    ensure!(ping(tunnel.ns(0), inner(false, 1), 1, 64, SHORT)? == 0);
    let sent = tunnel.rt(0).counters("d0")?;
    ensure!(sent.value("tx_packets") != 0, "{sent:?}");

    // The port is free on the other interface.
    run(
        tunnel.ns(0),
        &format!(
            "ip link add wgx type wireguard
             wg set wgx listen-port {}",
            port(0)
        ),
    )?;
    to_interface(tunnel.ns(0), "wgx", "v0")?;
    tunnel.ns(0).sh("ip link set wgx up")?;
    let shown = tunnel.ns(0).sh("wg show wgx listen-port")?;
    ensure!(shown.trim() == port(0).to_string(), "{shown}");
    tunnel.ns(0).sh("ip link del wgx")?;

    to_interface(tunnel.ns(0), "wg0", "v0")?;
    ping_all(tunnel.ns(0), inner(false, 1), 3)?;
    ping_all(tunnel.ns(1), inner(false, 0), 3)?;

    // The interface goes, and comes with another index: it is looked up when the link goes up.
    to_interface(tunnel.ns(0), "wg0", "d0")?;
    run(tunnel.ns(0), "ip link set wg0 down\nip link del d0")?;
    let up = tunnel.ns(0).try_sh("ip link set wg0 up", "")?;
    ensure!(!up.ok, "up without its interface");
    run(
        tunnel.ns(0),
        "ip link add d0 up type dummy\nip link set wg0 up",
    )?;
    to_interface(tunnel.ns(0), "wg0", "")?;
    // Its session went with the link; a new one begins here.
    ping_all(tunnel.ns(0), inner(false, 1), 1)
}

/// Bound to a VRF, a tunnel runs there and nowhere else.
fn vrf(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    for v6 in [false, true] {
        let mut opts = Opts::new(ctx.plain());
        opts.v6 = v6;
        let mut tunnel = Tunnel::new(&opts)?;
        let second: IpAddr = if v6 { "2001:db8::101" } else { "192.0.2.101" }.parse()?;
        run(
            tunnel.ns(0),
            "ip link add red up type vrf table 10
             ip link set v0 master red
             ip addr add 2001:db8::1/64 dev v0 nodad
             ip addr add 2001:db8::101/64 dev v0 nodad
             ip addr add 192.0.2.101/24 dev v0
             ip neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev v0
             ip neigh replace 2001:db8::2 lladdr 02:00:00:00:00:02 dev v0",
        )?;
        run(
            tunnel.ns(1),
            &format!("ip neigh add {second} lladdr 02:00:00:00:00:01 dev v1"),
        )?;
        ensure!(ping(tunnel.ns(0), inner(false, 1), 1, 64, SHORT)? == 0);
        to_interface(tunnel.ns(0), "wg0", "red")?;
        ping_all(tunnel.ns(0), inner(false, 1), 5)?;
        ping_all(tunnel.ns(1), inner(false, 0), 5)?;
        // A peer that talks to another address is answered from that.
        tunnel.set_peer(
            1,
            PeerConf {
                endpoint: Some(SocketAddr::new(second, port(0))),
                ..PeerConf::default()
            },
        )?;
        ping_all(tunnel.ns(1), inner(false, 0), 1)?;
        let wire = Capture::start(tunnel.ns(0), "v0")?;
        ping_all(tunnel.ns(1), inner(false, 0), 5)?;
        all_from(wire, second, 5)?;
    }
    Ok(())
}
