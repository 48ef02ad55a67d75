// SPDX-License-Identifier: GPL-2.0-only
//! A tunnel set up with the ordinary tools, as the README shows it.

use super::drop_in;
use anyhow::{ensure, Context, Result};
use harness::capture::{only_wireguard, Capture, Captured};
use harness::pace::{amount, slow};
use harness::runner::{Ctx, Test};
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::{pattern, ping_all, tcp};
use harness::wire::{self, Frame};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "basic-ping-v4-outer", 60, |ctx| {
        ping_both_ways(ctx, false)
    });
    drop_in(list, "basic-ping-v6-outer", 60, |ctx| {
        ping_both_ways(ctx, true)
    });
    drop_in(list, "basic-tcp-checksum", 120, tcp_checksum);
    drop_in(list, "basic-underlay-is-udp", 120, underlay_is_udp);
    drop_in(list, "basic-demo-steps", 120, demo_steps);
}

fn ping_both_ways(ctx: &Ctx, v6: bool) -> Result<()> {
    let opts = Opts {
        v6,
        ..Opts::new(ctx.by_tool())
    };
    let mut tunnel = Tunnel::new(&opts)?;
    for (from, to) in [(0, 1), (1, 0)] {
        for v6_inside in [false, true] {
            ping_all(tunnel.ns(from), inner(v6_inside, to), 5)?;
        }
    }
    for n in 0..2 {
        let peer = tunnel.peer(n)?;
        ensure!(
            !peer.last_handshake.is_zero(),
            "end {n} reports no handshake"
        );
        ensure!(
            peer.rx_bytes > 1000 && peer.tx_bytes > 1000,
            "end {n} counts too little: {peer:?}"
        );
        let endpoint = peer.endpoint.context("no endpoint")?;
        ensure!(
            endpoint.is_ipv6() == v6,
            "end {n}: endpoint {endpoint} of the wrong family"
        );
    }
    Ok(())
}

/// Sends random bytes over TCP and compares their digest at the far end.
fn tcp_checksum(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.by_tool()))?;
    for v6 in [false, true] {
        let at = SocketAddr::new(inner(v6, 1), 5000);
        let listener = tunnel.ns(1).run(|| Ok(TcpListener::bind(at)?))?;
        let receiver = tunnel.ns(1).spawn(move || {
            let mut data = Vec::new();
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(slow(Duration::from_secs(10))))?;
            stream.read_to_end(&mut data)?;
            Ok((data.len(), Sha256::digest(&data)))
        })?;
        let file = pattern(rand::random(), amount(4 << 20, 64 << 10) as usize);
        tunnel.ns(0).run(|| {
            let mut stream = TcpStream::connect_timeout(&at, slow(Duration::from_secs(10)))?;
            Ok(stream.write_all(&file)?)
        })?;
        let (len, digest) = receiver.join().expect("receiver panicked")?;
        ensure!(len == file.len(), "{len} of {} bytes arrived", file.len());
        ensure!(digest == Sha256::digest(&file), "the digests differ");
    }
    Ok(())
}

/// The underlay carries only well-formed WireGuard messages, without plaintext; on the device
/// itself there are raw inner IP packets.
fn underlay_is_udp(ctx: &Ctx) -> Result<()> {
    const SECRET: &[u8] = b"plaintext that must stay inside the tunnel";
    let tunnel = Tunnel::new(&Opts::new(ctx.by_tool()))?;
    let veth = tunnel.watch(ctx, 0)?;
    let inside = Capture::start(tunnel.ns(0), "wg0")?;
    ctx.keep("wg0", inside.frames(), 101);
    ping_all(tunnel.ns(0), inner(false, 1), 3)?;
    let at = SocketAddr::new(inner(false, 1), 5001);
    let sink = tunnel.ns(1).run(|| Ok(std::net::UdpSocket::bind(at)?))?;
    let source = SocketAddr::new(inner(false, 0), 0);
    tunnel.ns(0).run(|| {
        let socket = std::net::UdpSocket::bind(source)?;
        socket.send_to(SECRET, at)?;
        Ok(())
    })?;
    sink.set_read_timeout(Some(slow(Duration::from_secs(5))))?;
    let mut buf = [0; 256];
    let n = sink.recv(&mut buf).context("the datagram did not arrive")?;
    ensure!(&buf[..n] == SECRET, "the datagram was altered on its way");
    tcp(
        tunnel.ns(0),
        tunnel.ns(1),
        SocketAddr::new(inner(true, 1), 5002),
        1 << 20,
        Duration::from_secs(5),
    )?;

    for s in veth.seen() {
        // Handshake messages are sent as AF41; data inherits only ECN from the inner packet.
        let (handshake, tos) = (s.data_len().is_none(), s.tos & !3);
        ensure!(
            tos == if handshake { 0x88 } else { 0 },
            "outer TOS {:#x}: {s:?}",
            s.tos
        );
    }
    let count = only_wireguard(&veth.stop()?, SECRET, 1420)?;
    ensure!(
        count > 500,
        "only {count} messages on the underlay: TCP did not go through it"
    );
    let frames = inside.stop()?;
    let has_secret = |f: &Captured| f.bytes.windows(SECRET.len()).any(|w| w == SECRET);
    ensure!(
        frames.iter().any(has_secret),
        "wg0 does not show the inner packet"
    );
    for frame in &frames {
        let version = frame.bytes.first().map_or(0, |b| b >> 4);
        ensure!(
            version == 4 || version == 6,
            "wg0 shows something other than a raw IP packet"
        );
        ensure!(
            !matches!(wire::frame(&frame.bytes), Frame::Udp { .. }),
            "wg0 shows an Ethernet frame"
        );
    }
    Ok(())
}

/// The steps of the demo, with `ip`, `wg` and `ping`.
fn demo_steps(_: &Ctx) -> Result<()> {
    let link = harness::topo::Link::new()?;
    let mut keys = Vec::new();
    for n in 0..2u8 {
        let ns = link.end(n);
        ns.sh("ip link add wg0 type wireguard")?;
        ns.sh(&format!("ip addr add {}/24 dev wg0", inner(false, n)))?;
        ns.sh(&format!("ip addr add {}/64 dev wg0", inner(true, n)))?;
        let private = ns.sh("wg genkey")?;
        keys.push(ns.sh_in("wg pubkey", &private)?.trim().to_owned());
        ns.sh_in(
            "wg set wg0 private-key /proc/self/fd/0 listen-port 51820",
            &private,
        )?;
    }
    for n in 0..2u8 {
        let (ns, other) = (link.end(n), 1 - n);
        let peer = &keys[usize::from(other)];
        let ips = format!("{}/32,{}/128", inner(false, other), inner(true, other));
        let endpoint = harness::topo::outer(false, other);
        ns.sh(&format!(
            "wg set wg0 peer {peer} allowed-ips {ips} endpoint {endpoint}:51820"
        ))?;
        ns.sh("ip link set wg0 up")?;
    }
    for n in 0..2u8 {
        for v6 in [false, true] {
            link.end(n)
                .sh(&format!("ping -n -c 3 -i 0.2 -W 5 {}", inner(v6, 1 - n)))?;
        }
    }
    let details = link.end(0).sh("ip -d link show wg0")?;
    for part in [
        "POINTOPOINT,NOARP,UP,LOWER_UP",
        "mtu 1420",
        "link/none",
        "wireguard",
    ] {
        ensure!(
            details.contains(part),
            "`ip -d link show wg0` has no {part:?}: {details}"
        );
    }
    let shown = link.end(0).sh("wg show wg0")?;
    for part in [
        "interface: wg0",
        "listening port: 51820",
        "latest handshake:",
        "transfer:",
        &keys[1],
    ] {
        ensure!(shown.contains(part), "`wg show` has no {part:?}: {shown}");
    }
    Ok(())
}
