// SPDX-License-Identifier: GPL-2.0-only
//! Dumps: layout, and where they are split, compared byte by byte and datagram by datagram.

use super::both;
use super::scene::{ip, Scene};
use anyhow::{ensure, Context, Result};
use harness::gnl::{Answer, Request, DO};
use harness::netlink::{attrs, attrs_with_flags, Attrs, NLA_F_NESTED};
use harness::pace::amount;
use harness::pair::{get, Answers, NAME};
use harness::runner::{Ctx, Test};
use harness::wgdev::{parse_dump, uapi::*, Device, Key};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

pub fn register(list: &mut Vec<Test>) {
    both(list, "netlink-dump-layout", 60, layout);
    both(list, "netlink-dump-split-peers", 90, split_peers);
    both(
        list,
        "netlink-dump-split-allowed-ips",
        90,
        split_allowed_ips,
    );
    both(list, "netlink-dump-300-peers", 90, |ctx| many(ctx, 300, 2));
    both(list, "netlink-dump-5000-peers", 300, |ctx| {
        many(ctx, 5000, 1)
    });
    both(list, "netlink-dump-130000-allowed-ips", 300, one_peer);
}

/// Receive buffers: the kernel's smallest dump buffer, an odd size, its largest, and more.
const BUFFERS: [usize; 5] = [4096, 5000, 9999, 32768, 1 << 17];

/// The key of peer `n`.
pub fn key(n: u32) -> Key {
    let mut key = [0x80; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    key
}

/// The `n`th of many prefixes, of both families.
pub fn prefix(n: u32) -> (IpAddr, u8) {
    if n % 2 == 0 {
        (Ipv4Addr::from(0x0a00_0000 + n).into(), 32)
    } else {
        (Ipv6Addr::from((0xfd << 120) | u128::from(n)).into(), 128)
    }
}

/// A peer with an endpoint of either family or none, and some allowed IPs.
pub fn put_peer(list: &mut Attrs, n: u32, ips: impl Iterator<Item = u32>) {
    list.nest(0, |p| {
        p.put(peer::PUBLIC_KEY, &key(n));
        match n % 3 {
            0 => {
                let mut addr = vec![2, 0, 0x10, n as u8, 10];
                addr.extend([1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0]);
                p.put(peer::ENDPOINT, &addr);
            }
            1 => {
                let mut addr = vec![10, 0, 0x10, n as u8, 0, 0, 0, 0];
                addr.extend([0xfd; 16]);
                addr.extend([n as u8 % 3, 0, 0, 0]);
                p.put(peer::ENDPOINT, &addr);
            }
            _ => {}
        }
        let mut ips = ips.peekable();
        if ips.peek().is_some() {
            p.nest(peer::ALLOWEDIPS, |list| {
                for n in ips {
                    let (addr, cidr) = prefix(n);
                    ip(list, addr, cidr, None);
                }
            });
        }
    });
}

/// Requests that add peers `first..last` with `each` allowed IPs each, some per request.
pub fn add_peers(first: u32, last: u32, each: u32) -> Vec<Request> {
    // A list is an attribute, and so limited to 64 KiB.
    let at_once = 400 / (each + 1) + 1;
    (first..last)
        .step_by(at_once as usize)
        .map(|from| {
            let mut attrs = Attrs::new();
            attrs.str(device::IFNAME, NAME).nest(device::PEERS, |list| {
                for n in from..last.min(from + at_once) {
                    put_peer(list, n, n * each..(n + 1) * each);
                }
            });
            Request::new(DO, cmd::SET_DEVICE, attrs.bytes())
        })
        .collect()
}

/// Requests that give one peer the prefixes `first..last`.
pub fn add_ips(peer: u32, first: u32, last: u32) -> Vec<Request> {
    (first..last)
        .step_by(1000)
        .map(|from| {
            let mut attrs = Attrs::new();
            attrs.str(device::IFNAME, NAME).nest(device::PEERS, |list| {
                put_peer(list, peer, from..last.min(from + 1000));
            });
            Request::new(DO, cmd::SET_DEVICE, attrs.bytes())
        })
        .collect()
}

/// Removes all peers.
pub fn empty(scene: &mut Scene) -> Result<()> {
    let mut attrs = Attrs::new();
    attrs
        .str(device::IFNAME, NAME)
        .u32(device::FLAGS, device::F_REPLACE_PEERS);
    let request = Request::new(DO, cmd::SET_DEVICE, attrs.bytes());
    scene.ask("remove all peers", &request, Ok(())).map(drop)
}

/// Sends requests that must all be accepted.
pub fn send(scene: &mut Scene, requests: &[Request]) -> Result<()> {
    for chunk in requests.chunks(4) {
        for answers in scene.pair.batch(chunk)? {
            scene.judge("configuration", &answers, Ok(()));
        }
    }
    Ok(())
}

/// Dumps both into a buffer of `len` bytes, on sockets that have not dumped before.
pub fn dump_by(scene: &mut Scene, len: usize) -> Result<Answers> {
    let ask = |n: usize| -> Result<Answer> {
        let mut socket = scene.pair.socket(n)?;
        socket.receive_by(len);
        Ok(socket.ask(&get())?)
    };
    Ok([ask(0)?, ask(1)?])
}

/// Checks that dumps into each of `buffers` are equal on both sides, well formed, and have the same
/// content.
fn compare(scene: &mut Scene, what: &str, buffers: &[usize]) -> Result<(Device, usize)> {
    let mut told: Option<(Device, usize)> = None;
    for len in buffers {
        let what = format!("{what}, buffer {len}");
        let answers = dump_by(scene, *len)?;
        scene.judge(&what, &answers, Ok(()));
        let replies = answers[1].replies();
        if let Err(e) = shape(&replies.iter().map(|r| &r.body[..]).collect::<Vec<_>>()) {
            scene.check(false, format!("{what}: {e:#}"));
        }
        let mut device = parse_dump(&replies);
        device.messages = 0;
        let same = told.as_ref().is_none_or(|(told, _)| *told == device);
        scene.check(same, format!("{what}: the content differs"));
        told = Some((device, replies.len()));
    }
    told.context("no buffer")
}

/// The elements of the list that is the last of `attributes`.
fn elements(attributes: &[u8], kind: u16) -> Result<Vec<Vec<u8>>> {
    let list = attrs_with_flags(attributes).pop();
    let (with_flags, list) = list.context("no attribute")?;
    ensure!(
        with_flags == kind | NLA_F_NESTED,
        "list {kind} has type {with_flags:#x}"
    );
    let elements = attrs_with_flags(&list);
    for (with_flags, _) in &elements {
        ensure!(
            *with_flags == NLA_F_NESTED,
            "an element of list {kind} has type {with_flags:#x}"
        );
    }
    Ok(elements.into_iter().map(|(_, element)| element).collect())
}

/// Checks the layout: which attributes, in which order, and how a split dump continues.
fn shape(messages: &[&[u8]]) -> Result<()> {
    const FULL: [u16; 4] = [
        device::LISTEN_PORT,
        device::FWMARK,
        device::IFINDEX,
        device::IFNAME,
    ];
    const STATE: [u16; 7] = [
        peer::PUBLIC_KEY,
        peer::PRESHARED_KEY,
        peer::LAST_HANDSHAKE_TIME,
        peer::PERSISTENT_KEEPALIVE_INTERVAL,
        peer::TX_BYTES,
        peer::RX_BYTES,
        peer::PROTOCOL_VERSION,
    ];
    let mut complete = 0; // peers
    let mut previous: Option<Vec<u8>> = None; // key of the last peer, which may be continued
    for (n, body) in messages.iter().enumerate() {
        ensure!(
            body.starts_with(&[cmd::GET_DEVICE, 1, 0, 0]),
            "message {n}: header"
        );
        let list = attrs(&body[4..]);
        let kinds: Vec<u16> = list.iter().map(|(kind, _)| *kind).collect();
        let mut wanted = Vec::new();
        if complete == 0 {
            wanted.extend(FULL);
            if kinds.contains(&device::PRIVATE_KEY) {
                wanted.extend([device::PRIVATE_KEY, device::PUBLIC_KEY]);
            }
        }
        if n > 0 || kinds.contains(&device::PEERS) {
            wanted.push(device::PEERS);
        }
        ensure!(
            kinds == wanted,
            "message {n}: attributes {kinds:?}, not {wanted:?}"
        );
        if kinds.last() != Some(&device::PEERS) {
            continue;
        }
        let peers = elements(&body[4..], device::PEERS).with_context(|| format!("message {n}"))?;
        ensure!(!peers.is_empty(), "message {n}: a list without a peer");
        for (at, peer) in peers.iter().enumerate() {
            let kinds: Vec<u16> = attrs(peer).iter().map(|(kind, _)| *kind).collect();
            let key = attrs(peer).swap_remove(0).1;
            let mut wanted = STATE.to_vec();
            if at == 0 && previous.as_ref() == Some(&key) {
                wanted.truncate(1);
            } else if previous.is_some() {
                complete += 1;
            }
            for optional in [peer::ENDPOINT, peer::ALLOWEDIPS] {
                if kinds.contains(&optional) {
                    wanted.push(optional);
                }
            }
            ensure!(
                kinds == wanted,
                "message {n}, peer {at}: {kinds:?}, not {wanted:?}"
            );
            if kinds.last() == Some(&peer::ALLOWEDIPS) {
                elements(peer, peer::ALLOWEDIPS)
                    .with_context(|| format!("message {n}, peer {at}"))?;
            }
            previous = Some(key);
        }
    }
    Ok(())
}

/// From an unconfigured device to keys and peers with all combinations of attributes.
fn layout(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    compare(&mut scene, "unconfigured", &BUFFERS)?;
    scene.set("port and mark", Ok(()), |d| {
        d.u16(device::LISTEN_PORT, 4001).u32(device::FWMARK, 7);
    })?;
    compare(&mut scene, "port and mark", &BUFFERS)?;
    scene.set("a key", Ok(()), |d| {
        d.put(device::PRIVATE_KEY, &[0x31; 32]);
    })?;
    compare(&mut scene, "a key", &BUFFERS)?;
    for n in 1..=4 {
        send(&mut scene, &add_peers(n - 1, n, n % 3))?;
        let (device, _) = compare(&mut scene, &format!("{n} peers"), &BUFFERS)?;
        scene.check(
            device.peers.len() == n as usize,
            format!("{} of {n} peers", device.peers.len()),
        );
    }
    scene.finish()
}

/// Every number of peers around those that fill a message.
fn split_peers(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.pair.unthread()?;
    for n in 4..40 {
        send(&mut scene, &add_peers(n, n + 1, 2))?;
        compare(&mut scene, &format!("{} peers", n - 3), &BUFFERS[..2])?;
    }
    scene.finish()
}

/// Every number of allowed IPs around those that fill a message, of the first peer, and of one
/// after others.
fn split_allowed_ips(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    for first in [true, false] {
        empty(&mut scene)?;
        if !first {
            send(&mut scene, &add_peers(1000, 1003, 1))?;
        }
        // A message of 4 KiB holds about 90.
        send(&mut scene, &add_ips(2, 0, 70))?;
        for n in 70..115 {
            send(&mut scene, &add_ips(2, n, n + 1))?;
            compare(&mut scene, &format!("{} allowed IPs", n + 1), &BUFFERS[..1])?;
        }
        // Peers after the one that is continued.
        send(&mut scene, &add_peers(2000, 2040, 1))?;
        compare(&mut scene, "followed by others", &BUFFERS[..2])?;
        send(&mut scene, &add_ips(2, 115, 1000))?;
        compare(
            &mut scene,
            "1,000 allowed IPs, followed by others",
            &BUFFERS,
        )?;
    }
    scene.finish()
}

fn many(ctx: &Ctx, peers: u32, each: u32) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.pair.unthread()?;
    let start = Instant::now();
    send(&mut scene, &add_peers(0, peers, each))?;
    let added = start.elapsed();
    let (device, messages) = compare(&mut scene, &format!("{peers} peers"), &[4096, 1 << 17])?;
    scene.check(
        device.peers.len() == peers as usize,
        format!("{} of {peers} peers", device.peers.len()),
    );
    ctx.note(format!(
        "{peers} peers set in {added:.1?}, {messages} messages"
    ));
    empty(&mut scene)?;
    scene.finish()
}

/// 130,000 allowed IPs, half of each family, of one peer between two others.
fn one_peer(ctx: &Ctx) -> Result<()> {
    // The in-tree module frees them in one RCU callback: with KASAN, that is a soft lockup.
    let ips = amount(130_000, 20_000) as u32;
    let mut scene = Scene::new(ctx)?;
    let start = Instant::now();
    send(&mut scene, &add_peers(0, 1, 0))?;
    send(&mut scene, &add_ips(1, 0, ips))?;
    send(&mut scene, &add_peers(2, 3, 0))?;
    let added = start.elapsed();
    let (device, messages) = compare(&mut scene, "many allowed IPs", &[4096, 1 << 17])?;
    let told: Vec<_> = (0..ips).map(prefix).collect();
    scene.check(
        device.peers.get(1).is_some_and(|p| p.allowed_ips == told),
        "the allowed IPs are not those that were set, in order",
    );
    ctx.note(format!(
        "{ips} allowed IPs set in {added:.1?}, {messages} messages"
    ));
    empty(&mut scene)?;
    scene.finish()
}
