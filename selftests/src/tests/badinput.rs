// SPDX-License-Identifier: GPL-2.0
//! Malformed and refused configuration requests, each with its error.

use super::{side_by_side, Test};
use crate::harness::netlink::Attrs;
use crate::harness::runner::{Boot, Ctx};
use crate::harness::topo::{inner, Opts, Tunnel};
use crate::harness::traffic::ping_all;
use crate::harness::wgdev::{uapi::*, Wg};
use anyhow::{ensure, Result};
use nix::errno::Errno;

pub fn register(list: &mut Vec<Test>) {
    side_by_side(list, "netlink-bad-input", Boot::Smp, 60, bad_input);
}

const KEY: [u8; 32] = [9; 32];

/// The attributes of one peer inside a request for `wg0`.
fn peer(fill: impl FnOnce(&mut Attrs)) -> Attrs {
    let mut body = Attrs::new();
    body.str(DEVICE_IFNAME, "wg0").nest(DEVICE_PEERS, |peers| {
        peers.nest(0, fill);
    });
    body
}

/// The attributes of one allowed IP of one peer inside a request for `wg0`.
fn allowed_ip(fill: impl FnOnce(&mut Attrs)) -> Attrs {
    peer(|p| {
        p.put(PEER_PUBLIC_KEY, &KEY).nest(PEER_ALLOWEDIPS, |ips| {
            ips.nest(0, fill);
        });
    })
}

fn device(fill: impl FnOnce(&mut Attrs)) -> Attrs {
    let mut body = Attrs::new();
    body.str(DEVICE_IFNAME, "wg0");
    fill(&mut body);
    body
}

fn named(name: &str) -> Attrs {
    let mut body = Attrs::new();
    body.str(DEVICE_IFNAME, name);
    body
}

/// Requests and what they must give. One list for both modules: that is the differential test.
fn cases(index: u32) -> Vec<(&'static str, Attrs, Result<(), Errno>)> {
    let v4 = libc::AF_INET as u16;
    let neither = Attrs::new();
    vec![
        ("nothing", neither, Err(Errno::EBADR)),
        (
            "index and name",
            device(|d| {
                d.u32(DEVICE_IFINDEX, index);
            }),
            Err(Errno::EBADR),
        ),
        ("no such device", named("wg9"), Err(Errno::ENODEV)),
        (
            "another kind of device",
            named("lo"),
            Err(Errno::EOPNOTSUPP),
        ),
        (
            "a name of 16 bytes",
            named("wg00000000000000"),
            Err(Errno::EINVAL),
        ),
        (
            "a short private key",
            device(|d| {
                d.put(DEVICE_PRIVATE_KEY, &KEY[..31]);
            }),
            Err(Errno::ERANGE),
        ),
        (
            "a long private key",
            device(|d| {
                d.put(DEVICE_PRIVATE_KEY, &[9; 33]);
            }),
            Err(Errno::ERANGE),
        ),
        (
            "a port of 4 bytes",
            device(|d| {
                d.u32(DEVICE_LISTEN_PORT, 1);
            }),
            Err(Errno::EINVAL),
        ),
        (
            "a fwmark of 2 bytes",
            device(|d| {
                d.u16(DEVICE_FWMARK, 1);
            }),
            Err(Errno::EINVAL),
        ),
        (
            "unknown device flag",
            device(|d| {
                d.u32(DEVICE_FLAGS, 2);
            }),
            Err(Errno::EINVAL),
        ),
        (
            "unknown attribute",
            device(|d| {
                d.u32(99, 2);
            }),
            Err(Errno::EINVAL),
        ),
        (
            "peers without NLA_F_NESTED",
            device(|d| {
                d.put(DEVICE_PEERS, &[]);
            }),
            Err(Errno::EINVAL),
        ),
        (
            "a peer without a key",
            peer(|p| {
                p.u16(PEER_KEEPALIVE, 1);
            }),
            Err(Errno::EINVAL),
        ),
        (
            "a short public key",
            peer(|p| {
                p.put(PEER_PUBLIC_KEY, &KEY[..31]);
            }),
            Err(Errno::ERANGE),
        ),
        (
            "a long PSK",
            peer(|p| {
                p.put(PEER_PUBLIC_KEY, &KEY)
                    .put(PEER_PRESHARED_KEY, &[1; 33]);
            }),
            Err(Errno::ERANGE),
        ),
        (
            "an endpoint of 15 bytes",
            peer(|p| {
                p.put(PEER_PUBLIC_KEY, &KEY).put(PEER_ENDPOINT, &[2; 15]);
            }),
            Err(Errno::ERANGE),
        ),
        (
            "unknown peer flag",
            peer(|p| {
                p.put(PEER_PUBLIC_KEY, &KEY).u32(PEER_FLAGS, 8);
            }),
            Err(Errno::EINVAL),
        ),
        (
            "protocol version 2",
            peer(|p| {
                p.put(PEER_PUBLIC_KEY, &KEY).u32(PEER_PROTOCOL_VERSION, 2);
            }),
            Err(Errno::EPFNOSUPPORT),
        ),
        (
            "removing an unknown peer",
            peer(|p| {
                p.put(PEER_PUBLIC_KEY, &KEY).u32(PEER_FLAGS, PEER_REMOVE_ME);
            }),
            Ok(()),
        ),
        (
            "updating an unknown peer only",
            peer(|p| {
                p.put(PEER_PUBLIC_KEY, &KEY)
                    .u32(PEER_FLAGS, PEER_UPDATE_ONLY);
            }),
            Ok(()),
        ),
        (
            "an allowed IP without family",
            allowed_ip(|ip| {
                ip.put(ALLOWEDIP_IPADDR, &[1; 4]).u8(ALLOWEDIP_CIDR, 8);
            }),
            Err(Errno::EINVAL),
        ),
        (
            "an allowed IP without length",
            allowed_ip(|ip| {
                ip.u16(ALLOWEDIP_FAMILY, v4).put(ALLOWEDIP_IPADDR, &[1; 4]);
            }),
            Err(Errno::EINVAL),
        ),
        (
            "10.0.0.0/33",
            allowed_ip(|ip| {
                ip.u16(ALLOWEDIP_FAMILY, v4)
                    .put(ALLOWEDIP_IPADDR, &[10, 0, 0, 0])
                    .u8(ALLOWEDIP_CIDR, 33);
            }),
            Err(Errno::EINVAL),
        ),
        (
            "an IPv4 address of 16 bytes",
            allowed_ip(|ip| {
                ip.u16(ALLOWEDIP_FAMILY, v4)
                    .put(ALLOWEDIP_IPADDR, &[10; 16])
                    .u8(ALLOWEDIP_CIDR, 8);
            }),
            Err(Errno::EINVAL),
        ),
        (
            "an address of 3 bytes",
            allowed_ip(|ip| {
                ip.u16(ALLOWEDIP_FAMILY, v4)
                    .put(ALLOWEDIP_IPADDR, &[10; 3])
                    .u8(ALLOWEDIP_CIDR, 8);
            }),
            Err(Errno::ERANGE),
        ),
        (
            "family 77",
            allowed_ip(|ip| {
                ip.u16(ALLOWEDIP_FAMILY, 77)
                    .put(ALLOWEDIP_IPADDR, &[10; 4])
                    .u8(ALLOWEDIP_CIDR, 8);
            }),
            Err(Errno::EINVAL),
        ),
    ]
}

/// Each case gives its error, and the tunnel works afterwards as if nothing had been asked.
fn bad_input(ctx: &Ctx) -> Result<()> {
    let drivers = ctx.against_intree();
    let mut tunnel = Tunnel::new(ctx, &Opts::new(drivers))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let before = tunnel.peer(0)?;
    let index = tunnel.rt(0).index("wg0")?;
    let mut wg = Wg::open(tunnel.ns(0), drivers[0].kind)?;
    let mut wrong = Vec::new();
    for (what, body, wanted) in cases(index) {
        let got = wg.set_raw(&body);
        if got != wanted {
            wrong.push(format!("{what}: {got:?}, not {wanted:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    for (name, wanted) in [("wg9", Errno::ENODEV), ("lo", Errno::EOPNOTSUPP)] {
        let got = wg.get(name).err();
        ensure!(got == Some(wanted), "GET of {name}: {got:?}");
    }
    // Requests that fail half-way have their earlier effects: a peer may have been added.
    let after = wg.get("wg0")?;
    let kept = after
        .peers
        .iter()
        .find(|p| p.public_key == before.public_key);
    ensure!(
        kept.is_some_and(|p| p.endpoint == before.endpoint),
        "the peer was changed"
    );
    ensure!(
        after.listen_port == crate::harness::topo::port(0),
        "the port was changed"
    );
    ping_all(tunnel.ns(0), inner(true, 1), 2)
}
