// SPDX-License-Identifier: GPL-2.0-only
//! Offloads for packets of another tunnel inside ours (`hw_enc_features`).
//!
//! No file, netlink attribute or ethtool command shows these features. What can be observed is
//! whether the stack still computes an inner checksum before it hands the packet to the device.

use super::{drop_in, Test};
use anyhow::{ensure, Context, Result};
use harness::capture::{Capture, Captured};
use harness::packet::{checksum, Datagram, Sum};
use harness::runner::Ctx;
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::{ping_all, tcp, udp};
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "link-encapsulated-checksum", 60, checksums);
}

/// The content of the UDP checksum field when the device gets the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// The correct checksum.
    Complete,
    /// The pseudo header's sum: the rest is left to the device.
    Partial,
    /// Anything else.
    Wrong,
}

/// The field of the datagram inside an IP-in-IP packet.
fn field(frame: &Captured) -> Option<Field> {
    let packet = frame.bytes.get(20..)?;
    let datagram = Datagram::parse(packet)?;
    let len = (datagram.payload.len() as u32 + 8 + 17).to_be_bytes();
    let pseudo = !checksum(&[packet.get(12..20)?, &len]);
    Some(match datagram.sum {
        Sum::Right => Field::Complete,
        _ if packet.get(26..28)? == pseudo.to_be_bytes() => Field::Partial,
        _ => Field::Wrong,
    })
}

/// The checksum inside an IP-in-IP tunnel is left to the device, like one that is not
/// encapsulated; the device completes it. With the offload disabled, the stack computes it.
fn checksums(ctx: &Ctx) -> Result<()> {
    // Keep the IP-in-IP module from creating its fallback device in every namespace.
    fs::write("/proc/sys/net/core/fb_tunnels_only_for_init_net", "2")?;
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let to: SocketAddr = "10.77.0.2:9".parse()?;
    for n in 0..2u8 {
        let (own, other) = (inner(false, n), inner(false, 1 - n));
        let ns = tunnel.ns(n);
        ns.sh(&format!(
            "ip link add ipip1 type ipip local {own} remote {other}"
        ))?;
        ns.sh(&format!("ip addr add 10.77.0.{}/24 dev ipip1", n + 1))?;
        ns.sh("ip link set ipip1 up")?;
    }
    ping_all(tunnel.ns(0), to.ip(), 1)?;
    let from = udp(tunnel.ns(0), "10.77.0.1:9".parse()?)?;
    let sink = udp(tunnel.ns(1), to)?;
    sink.set_read_timeout(Some(LIMIT))?;
    for (offload, wanted) in [("on", Field::Partial), ("off", Field::Complete)] {
        tunnel.ns(0).sh(&format!("ethtool -K wg0 tx {offload}"))?;
        let wire = Capture::start(tunnel.ns(0), "wg0")?;
        for len in [1, 100, 1000] {
            from.send_to(&vec![7; len], to)?;
            let got = sink.recv(&mut [0; 2000]).context("a datagram")?;
            ensure!(got == len, "{got} of {len} bytes arrived");
        }
        let frames = wire.stop()?;
        let sent = frames.iter().filter(|f| f.outgoing);
        let fields: Vec<Field> = sent.filter_map(field).collect();
        ensure!(
            fields == [wanted; 3],
            "with checksum offload {offload} the device gets {fields:?}, not {wanted:?} each"
        );
        let at = SocketAddr::new(to.ip(), 5201);
        tcp(tunnel.ns(0), tunnel.ns(1), at, 1 << 20, LIMIT)?;
    }
    Ok(())
}
