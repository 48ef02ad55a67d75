// SPDX-License-Identifier: GPL-2.0-only
//! The limit of 2^20 peers per device. The in-tree driver starts a kernel thread for each peer, so
//! it cannot be tested there; the module of the sanitizer boot takes the initial count as a
//! parameter (`selftests/near-limits.patch`).

use crate::tests::needs_ours;
use anyhow::{ensure, Result};
use harness::modules::Modules;
use harness::runner::{Boot, Ctx, Subject, Test};
use harness::topo::{inner, outer, port, Opts, Tunnel};
use harness::traffic::ping_all;
use harness::wgdev::{uapi, DeviceConf, PeerConf, Wg};
use nix::errno::Errno;
use std::net::SocketAddr;
use std::time::Duration;

pub(super) fn register(list: &mut Vec<Test>) {
    list.push(Test {
        name: "netlink-peer-limit".to_owned(),
        boot: Boot::San,
        modules: Modules::None,
        subject: Subject::Rs,
        bound: Duration::from_secs(60),
        body: Box::new(limit),
    });
}

/// The maximum number of peers of a device.
const MOST: u32 = 1 << 20;
/// How many of them are left here.
const ROOM: u32 = 5;

/// One peer too many gives ENOMEM; what precedes it in the request is applied, and the other peers
/// can still be changed. Removing a peer makes room for one.
fn limit(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    ctx.env
        .load_ours(&format!("peers_before={}", MOST - ROOM))?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let friend = tunnel.ends[1].public_key;
    let mut wg = Wg::open(tunnel.ns(0), ctx.plain()[0].kind)?;
    let mut step = |device: u32,
                    flags: u32,
                    peers: &[u8],
                    wanted: Result<(), Errno>,
                    left: &[u8]|
     -> Result<()> {
        let peers = peers.iter().map(|n| PeerConf {
            public_key: [*n; 32],
            keepalive: Some(u16::from(*n)),
            flags,
            ..PeerConf::default()
        });
        let conf = DeviceConf {
            flags: device,
            peers: peers.collect(),
            ..DeviceConf::default()
        };
        let got = wg.set("wg0", &conf);
        ensure!(got == wanted, "{got:?}, not {wanted:?}");
        let peers = wg.get("wg0")?.peers;
        let names = peers
            .iter()
            .filter(|p| p.public_key != friend)
            .map(|p| p.public_key);
        ensure!(
            names.eq(left.iter().map(|n| [*n; 32])),
            "{} peers, not {left:?}",
            peers.len()
        );
        Ok(())
    };
    step(0, 0, &[1, 2, 3], Ok(()), &[1, 2, 3])?;
    step(0, 0, &[4, 5, 6], Err(Errno::ENOMEM), &[1, 2, 3, 4])?;
    step(0, 0, &[5], Err(Errno::ENOMEM), &[1, 2, 3, 4])?;
    // No new peer.
    step(0, 0, &[4, 1], Ok(()), &[1, 2, 3, 4])?;
    step(0, uapi::peer::F_UPDATE_ONLY, &[5], Ok(()), &[1, 2, 3, 4])?;
    step(0, uapi::peer::F_REMOVE_ME, &[5, 2], Ok(()), &[1, 3, 4])?;
    step(0, 0, &[5, 6], Err(Errno::ENOMEM), &[1, 3, 4, 5])?;
    ping_all(tunnel.ns(0), inner(false, 1), 3)?;
    ping_all(tunnel.ns(1), inner(true, 0), 3)?;
    // The tunnel's own peer makes room, too.
    step(
        uapi::device::F_REPLACE_PEERS,
        0,
        &[1, 2, 3, 4, 5, 6],
        Err(Errno::ENOMEM),
        &[1, 2, 3, 4, 5],
    )?;
    step(0, uapi::peer::F_REMOVE_ME, &[5], Ok(()), &[1, 2, 3, 4])?;
    let peer = PeerConf {
        endpoint: Some(SocketAddr::new(outer(false, 1), port(1))),
        allowed_ips: vec![(inner(false, 1), 32), (inner(true, 1), 128)],
        ..PeerConf::default()
    };
    tunnel.set_peer(0, peer)?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    ping_all(tunnel.ns(1), inner(true, 0), 1)
}
