// SPDX-License-Identifier: GPL-2.0-only
//! Changes during a dump: what is still dumped, and that the receiver is told (NLM_F_DUMP_INTR).

use super::both;
use super::dump::{add_ips, add_peers, empty, key, send};
use super::scene::{device, ips, peer, set, Scene};
use anyhow::{bail, ensure, Result};
use harness::gnl::Request;
use harness::netlink::Attrs;
use harness::pace::slow;
use harness::pair::{get, Answers, NAME, SIDES};
use harness::runner::{Ctx, Skip, Test};
use harness::wgdev::uapi::*;
use nix::errno::Errno;
use std::time::{Duration, Instant};

pub fn register(list: &mut Vec<Test>) {
    both(list, "netlink-dump-changed-peers", 90, peers_change);
    both(
        list,
        "netlink-dump-changed-allowed-ips",
        90,
        split_peer_changes,
    );
    both(list, "netlink-dump-two-at-once", 60, two_at_once);
    both(list, "netlink-dump-device-goes", 60, device_goes);
}

const BUFFER: usize = 4096;

/// Starts a dump on both sides, makes the change, reads the rest.
fn change_after(scene: &mut Scene, datagrams: usize, change: &Request) -> Result<Answers> {
    let mut begun = Vec::new();
    for n in 0..2 {
        let mut socket = scene.pair.socket(n)?;
        socket.receive_by(BUFFER);
        let answer = socket.start(&get(), datagrams)?;
        begun.push((socket, answer));
    }
    scene.ask("the change", change, Ok(()))?;
    let mut answers = Vec::new();
    for (mut socket, answer) in begun {
        answers.push(socket.finish(answer)?);
    }
    let answers: Result<[_; 2], _> = answers.try_into();
    Ok(answers.unwrap_or_default())
}

/// Whether a message says that the dump was interrupted.
fn interrupted(answers: &Answers) -> [bool; 2] {
    let intr = libc::NLM_F_DUMP_INTR as u16;
    answers
        .each_ref()
        .map(|a| a.replies().iter().any(|r| r.flags & intr != 0))
}

fn removal(peers: std::ops::Range<u32>) -> Request {
    set(&device(|d| {
        d.nest(device::PEERS, |list| {
            for n in peers {
                peer(list, key(n), |p| {
                    p.u32(peer::FLAGS, peer::F_REMOVE_ME);
                });
            }
        });
    }))
}

fn set_device(fill: impl FnOnce(&mut Attrs)) -> Request {
    set(&device(fill))
}

/// Peers are added and removed: before the cursor, at it, after it, all.
fn peers_change(ctx: &Ctx) -> Result<()> {
    const PEERS: u32 = 40;
    let mut scene = Scene::new(ctx)?;
    scene.pair.unthread()?;
    let again = {
        let mut attrs = device(|d| {
            d.u32(device::FLAGS, device::F_REPLACE_PEERS);
        });
        attrs.nest(device::PEERS, |list| {
            for n in 0..PEERS {
                super::dump::put_peer(list, n, n * 2..n * 2 + 2);
            }
        });
        set(&attrs)
    };
    let changes = [
        ("nothing set", set_device(|_| ())),
        (
            "a mark",
            set_device(|d| {
                d.u32(device::FWMARK, 9);
            }),
        ),
        (
            "all removed",
            set_device(|d| {
                d.u32(device::FLAGS, device::F_REPLACE_PEERS);
            }),
        ),
        ("all removed and added", again.clone()),
        ("the first removed", removal(0..1)),
        ("2 to 9 removed", removal(2..9)),
        ("all but the first two removed", removal(2..PEERS)),
        ("all but the last removed", removal(0..PEERS - 1)),
        ("the last removed", removal(PEERS - 1..PEERS)),
        ("one added", add_peers(100, 101, 1).swap_remove(0)),
        (
            "another gets an allowed IP",
            add_ips(39, 500, 501).swap_remove(0),
        ),
        ("an allowed IP moves", add_ips(39, 4, 5).swap_remove(0)),
    ];
    let mut noticed = 0;
    for (what, change) in &changes {
        for datagrams in [1, 2, 3] {
            send(&mut scene, std::slice::from_ref(&again))?;
            let answers = change_after(&mut scene, datagrams, change)?;
            scene.judge(&format!("{what} after {datagrams}"), &answers, Ok(()));
            let told = interrupted(&answers);
            noticed += usize::from(told[0]);
            scene.check(
                told[0] == told[1],
                format!("{what} after {datagrams}: DUMP_INTR {told:?}"),
            );
        }
    }
    // If messages followed the change, the receiver was told.
    scene.check(
        noticed >= changes.len(),
        format!("only {noticed} dumps were marked as interrupted"),
    );
    // One of the first peers is at the cursor, whichever it is.
    for n in 0..20 {
        send(&mut scene, std::slice::from_ref(&again))?;
        let answers = change_after(&mut scene, 1, &removal(n..n + 1))?;
        scene.judge(&format!("peer {n} removed after 1"), &answers, Ok(()));
    }
    scene.finish()
}

/// The allowed IPs change while a peer is split: the rest of that peer is skipped.
fn split_peer_changes(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.pair.unthread()?;
    let give = |n: u32, list: &[&str]| {
        let list: Vec<String> = list.iter().map(|s| (*s).to_owned()).collect();
        set_device(|d| {
            d.nest(device::PEERS, |nest| {
                peer(nest, key(n), |p| {
                    ips(p, &list.iter().map(String::as_str).collect::<Vec<_>>());
                });
            });
        })
    };
    let changes = [
        ("nothing set", set_device(|_| ())),
        ("another's allowed IPs", give(2, &["192.168.0.0/16"])),
        ("its own allowed IPs", give(1, &["192.168.0.0/16"])),
        ("one of its own given again", give(1, &["10.0.0.0/32"])),
        ("removing an absent prefix", give(2, &["-192.168.0.0/16"])),
        ("it is removed", removal(1..2)),
        ("the one before it is removed", removal(0..1)),
        ("the one after it is removed", removal(2..3)),
        (
            "all are removed",
            set_device(|d| {
                d.u32(device::FLAGS, device::F_REPLACE_PEERS);
            }),
        ),
        (
            "REPLACE_ALLOWEDIPS of another",
            set_device(|d| {
                d.nest(device::PEERS, |nest| {
                    peer(nest, key(2), |p| {
                        p.u32(peer::FLAGS, peer::F_REPLACE_ALLOWEDIPS);
                    });
                });
            }),
        ),
    ];
    for before in [false, true] {
        for (what, change) in &changes {
            for datagrams in [1, 3] {
                empty(&mut scene)?;
                if before {
                    send(&mut scene, &add_peers(0, 1, 0))?;
                }
                send(&mut scene, &add_ips(1, 0, 600))?;
                send(&mut scene, &add_ips(2, 1000, 1010))?;
                send(&mut scene, &add_peers(3, 20, 0))?;
                let answers = change_after(&mut scene, datagrams, change)?;
                let what = format!("{what} after {datagrams}, a peer before it: {before}");
                scene.judge(&what, &answers, Ok(()));
                let replies = answers[0].replies();
                ensure!(replies.len() >= datagrams, "{what}: the dump was too short");
            }
        }
    }
    scene.finish()
}

/// One dump at a time per socket; a socket closed during a dump blocks nothing.
fn two_at_once(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.pair.unthread()?;
    send(&mut scene, &add_peers(0, 400, 2))?;
    let answers = scene.pair.batch(&[get(), get()])?;
    scene.judge("the first", &answers[0], Ok(()));
    scene.judge("the second", &answers[1], Err(Errno::EBUSY));
    for n in 0..2 {
        let mut socket = scene.pair.socket(n)?;
        socket.receive_by(BUFFER);
        socket.start(&get(), 1)?;
        drop(socket);
    }
    scene.state("after sockets were closed during a dump")?;
    scene.finish()
}

/// The device is deleted during a dump. The in-tree driver holds a reference to it for as long as
/// the reader takes, and `ip link del` waits; ours releases it, and the reader gets ENODEV. That is
/// deliberate: a reader that stalls must not keep a device or its namespace alive.
fn device_goes(ctx: &Ctx) -> Result<()> {
    if ctx.env.stand_in {
        bail!(Skip("about our module only".to_owned()));
    }
    let mut scene = Scene::new(ctx)?;
    send(&mut scene, &add_peers(0, 100, 2))?;
    let mut socket = scene.pair.socket(1)?;
    socket.receive_by(BUFFER);
    let begun = socket.start(&get(), 1)?;
    let start = Instant::now();
    scene.pair.rt(1).link_del(NAME)?;
    ensure!(
        start.elapsed() < slow(Duration::from_secs(8)),
        "{}: the deletion waited {:?} for the reader",
        SIDES[1],
        start.elapsed()
    );
    // A datagram from before the deletion may still be queued.
    let answer = socket.finish(begun)?;
    ensure!(
        answer.result() == Err(Errno::ENODEV),
        "the dump ended with {:?}",
        answer.result()
    );
    scene.pair.remake()?;
    scene.finish()
}
