// SPDX-License-Identifier: GPL-2.0-only
//! The family itself, and the module behind it.

use super::both;
use super::dump::{add_peers, send};
use super::scene::{device, peer, Scene};
use anyhow::{ensure, Context, Result};
use harness::cmd;
use harness::modules::{unload, INTREE, OURS};
use harness::netlink::{attrs, Attrs, Netlink};
use harness::pair::{get, Pair, NAME, SIDES};
use harness::runner::{Ctx, Test};
use harness::wgdev::uapi::*;
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::fs;

pub fn register(list: &mut Vec<Test>) {
    both(list, "netlink-family", 60, family);
    both(list, "netlink-policy", 60, policy);
    both(list, "netlink-aliases", 60, aliases);
    both(list, "netlink-module-refcount", 60, refcount);
    both(list, "netlink-rmmod-with-devices", 60, rmmod);
}

const CTRL_GETFAMILY: u8 = 3;
const CTRL_GETPOLICY: u8 = 10;
const CTRL_FAMILY_ID: u16 = 1;
const CTRL_FAMILY_NAME: u16 = 2;
const CTRL_VERSION: u16 = 3;
const CTRL_HDRSIZE: u16 = 4;
const CTRL_OPS: u16 = 6;
const CTRL_MCAST_GROUPS: u16 = 7;
const CTRL_POLICY: u16 = 8;

/// One attribute: type and payload.
type Attr = (u16, Vec<u8>);

/// What the controller reports about side `n`'s family, without its name and ID.
fn told(pair: &Pair, n: usize, cmd: u8, flags: i32) -> Result<Vec<Vec<Attr>>> {
    let kind = pair.kind(n);
    pair.ns(n).run(|| {
        let mut nl = Netlink::generic()?;
        let mut body = Attrs::after(&[cmd, 1, 0, 0]);
        body.str(CTRL_FAMILY_NAME, kind);
        let replies = nl
            .request(libc::GENL_ID_CTRL as u16, flags, body.bytes())
            .with_context(|| format!("ask the controller about {kind}"))?;
        let clean = |body: &[u8]| {
            let mut list = attrs(body.get(4..).unwrap_or(&[]));
            list.retain(|(k, _)| *k != CTRL_FAMILY_ID && *k != CTRL_FAMILY_NAME);
            list
        };
        Ok(replies.iter().map(|reply| clean(&reply.body)).collect())
    })
}

/// Version, header, operations with their flags, multicast groups.
fn family(ctx: &Ctx) -> Result<()> {
    let pair = Pair::new(ctx)?;
    let [c, rs] = [0, 1].map(|n| told(&pair, n, CTRL_GETFAMILY, 0));
    let (c, rs) = (c?, rs?);
    ensure!(c == rs, "in-tree {c:x?}\nours {rs:x?}");
    let list = c.first().context("no answer")?;
    let number = |kind: u16| {
        let found = list.iter().find(|(k, _)| *k == kind);
        found.and_then(|(_, d)| d.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b)))
    };
    ensure!(
        number(CTRL_VERSION) == Some(1),
        "version {:?}",
        number(CTRL_VERSION)
    );
    ensure!(
        number(CTRL_HDRSIZE) == Some(0),
        "header {:?}",
        number(CTRL_HDRSIZE)
    );
    let ops = list.iter().find(|(k, _)| *k == CTRL_OPS);
    ensure!(
        ops.is_some_and(|(_, d)| attrs(d).len() == 2),
        "not two commands"
    );
    let groups = list.iter().any(|(k, _)| *k == CTRL_MCAST_GROUPS);
    ensure!(!groups, "multicast groups");
    Ok(())
}

/// The policies of both commands, as the controller dumps them.
fn policy(ctx: &Ctx) -> Result<()> {
    let pair = Pair::new(ctx)?;
    let [c, rs] = [0, 1].map(|n| told(&pair, n, CTRL_GETPOLICY, libc::NLM_F_DUMP));
    let (c, rs) = (c?, rs?);
    ensure!(c.len() == rs.len(), "{} and {} messages", c.len(), rs.len());
    for (c, rs) in c.iter().zip(&rs) {
        ensure!(c == rs, "in-tree {c:x?}\nours {rs:x?}");
    }
    // Of the device, a peer and an allowed IP: 8 + 10 + 4 attributes.
    let attributes = c.iter().flatten().filter(|(k, _)| *k == CTRL_POLICY);
    let count = attributes.count();
    ensure!(count >= 22, "only {count} attributes are reported");
    Ok(())
}

/// The aliases by which the module is autoloaded: the link kind and the family.
fn aliases(ctx: &Ctx) -> Result<()> {
    let list = |module: &str| -> Result<BTreeSet<String>> {
        let text = cmd::run(&["modinfo", "-F", "alias", module])?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let wanted = BTreeSet::from(
        ["rtnl-link-wireguard", "net-pf-16-proto-16-family-wireguard"].map(str::to_owned),
    );
    let intree = list(INTREE)?;
    ensure!(intree == wanted, "in-tree {intree:?}");
    let ko = ctx.env.ko()?.to_str().context("path")?;
    let ours = list(ko)?;
    ensure!(ours == wanted, "ours {ours:?}");
    Ok(())
}

fn references(ctx: &Ctx) -> Result<[u32; 2]> {
    let ours = if ctx.env.stand_in { INTREE } else { OURS };
    let read = |module: &str| -> Result<u32> {
        let text = fs::read_to_string(format!("/sys/module/{module}/refcnt"))?;
        Ok(text.trim().parse()?)
    };
    Ok([read(INTREE)?, read(ours)?])
}

/// No device, up or not, and no peer holds the module; a running dump does.
fn refcount(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let check = |scene: &mut Scene, what: &str, wanted: u32| -> Result<()> {
        let got = references(ctx)?;
        scene.check(
            got == [wanted; 2],
            format!("{what}: {got:?} references, not {wanted}"),
        );
        Ok(())
    };
    check(&mut scene, "devices", 0)?;
    send(&mut scene, &add_peers(0, 100, 2))?;
    scene.pair.set_up(true)?;
    check(&mut scene, "devices up, with peers", 0)?;
    let mut sockets = Vec::new();
    for n in 0..2 {
        let mut socket = scene.pair.socket(n)?;
        socket.receive_by(4096);
        socket.start(&get(), 1)?;
        sockets.push(socket);
    }
    if !ctx.env.stand_in {
        check(&mut scene, "during a dump", 1)?;
    }
    drop(sockets);
    // A closed socket is released with a short delay.
    let start = std::time::Instant::now();
    while references(ctx)? != [0; 2] && start.elapsed().as_secs() < 10 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    check(&mut scene, "after the dump", 0)?;
    scene.pair.tunnel()?;
    check(&mut scene, "a tunnel", 0)?;
    scene.verdict()
}

/// Unloading the module deletes its devices, a working tunnel's among them.
fn rmmod(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.pair.tunnel()?;
    let more = device(|d| {
        d.nest(device::PEERS, |list| peer(list, [1; 32], |_| ()));
    });
    for n in 0..2 {
        scene.pair.wg(n)?.set_raw(&more)?;
    }
    unload(OURS)?;
    unload(INTREE)?;
    for (n, side) in SIDES.iter().enumerate() {
        let index = scene.pair.rt(n).index(NAME);
        ensure!(
            index == Err(Errno::ENODEV),
            "{side}: the device still exists: {index:?}"
        );
    }
    Ok(())
}
