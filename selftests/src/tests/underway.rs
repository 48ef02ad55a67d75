// SPDX-License-Identifier: GPL-2.0-only
//! Packets that wait for a worker: their peer is removed meanwhile, or there are more of them than
//! a worker handles in one turn. In virtual time: with one CPU, no worker runs before the test lets
//! it.

use super::{drop_in_vtime, Check, Test};
use anyhow::{bail, ensure, Result};
use harness::modules::Modules;
use harness::noise::Session;
use harness::pace::alone;
use harness::rig::{conf, inside, Rig, MOMENT};
use harness::runner::{Boot, Ctx, Skip, Subject};
use harness::topo::inner;
use harness::traffic::{set_option, udp};
use harness::wgdev::{uapi, PeerConf};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in_vtime(list, "underway-many-runs", 120, many_runs);
    // The in-tree driver waits for its queues when it removes a peer.
    let ours: [(&str, Check); 2] = [
        ("underway-removed-send@rs", removed_send),
        ("underway-removed-receive@rs", removed_receive),
    ];
    for (name, body) in ours {
        list.push(Test {
            name: name.to_owned(),
            boot: Boot::Vtime,
            modules: Modules::Ours,
            subject: Subject::Rs,
            bound: Duration::from_secs(120),
            body: Box::new(body),
        });
    }
}

const UDP_SEGMENT: i32 = 103;

fn remove(scene: &mut Rig) -> Result<()> {
    let removal = PeerConf {
        flags: uapi::peer::F_REMOVE_ME,
        ..conf(0, &scene.clients[0])
    };
    scene.end.set_peer(&scene.link, removal)
}

/// `count` keepalives come in before a worker runs; then the peer is removed, if it is to be. How
/// many are accepted by then, and in the end.
fn keepalives(
    scene: &mut Rig,
    session: &mut Session,
    count: u64,
    is_removed: bool,
) -> Result<(u64, u64)> {
    let accepted = |scene: &mut Rig| {
        Ok::<_, anyhow::Error>(scene.link.rt(0).counters("wg0")?.value("rx_packets"))
    };
    sleep(MOMENT);
    let before = accepted(scene)?;
    let early = alone(|| {
        for _ in 0..count {
            scene.clients[0].send(&session.data(&[]))?;
        }
        if is_removed {
            remove(scene)?;
        }
        accepted(scene)
    })?;
    ensure!(
        early - before < count / 2,
        "only {} of {count} packets wait for a worker",
        count + before - early
    );
    sleep(4 * MOMENT);
    Ok((early - before, accepted(scene)? - before))
}

/// Nothing more comes, but the worker goes on until the queue is empty.
fn many_runs(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::new(ctx, 1)?;
    let mut session = scene.session(0)?;
    let (_, all) = keepalives(&mut scene, &mut session, 1000, false)?;
    ensure!(all == 1000, "{all} of 1000 packets were received");
    Ok(())
}

/// What waits to be decrypted when its peer is removed is not accepted.
fn removed_receive(ctx: &Ctx) -> Result<()> {
    if ctx.env.stand_in {
        bail!(Skip("about our module only".to_owned()));
    }
    let mut scene = Rig::new(ctx, 1)?;
    let mut session = scene.session(0)?;
    let (_, all) = keepalives(&mut scene, &mut session, 200, false)?;
    ensure!(all == 200, "{all} of 200 packets were received");
    let (early, all) = keepalives(&mut scene, &mut session, 200, true)?;
    ensure!(
        all == early,
        "{} packets were accepted from a removed peer",
        all - early
    );
    Ok(())
}

/// What waits to be encrypted when its peer is removed is not sent.
fn removed_send(ctx: &Ctx) -> Result<()> {
    if ctx.env.stand_in {
        bail!(Skip("about our module only".to_owned()));
    }
    let mut scene = Rig::new(ctx, 1)?;
    scene.session(0)?;
    // In one piece, which is too long to be encrypted where it comes from.
    let socket = udp(scene.link.end(0), SocketAddr::new(inner(false, 0), 0))?;
    set_option(&socket, libc::SOL_UDP, UDP_SEGMENT, 100)?;
    let to = SocketAddr::new(inside(false, 0), 9000);
    for (is_removed, wanted) in [(false, 40), (true, 0)] {
        sleep(MOMENT);
        scene.clients[0].flush()?;
        let early = alone(|| {
            socket.send_to(&[5; 4000], to)?;
            if is_removed {
                remove(&mut scene)?;
            }
            scene.clients[0].flush()
        })?;
        ensure!(early == 0, "{early} packets did not wait for a worker");
        sleep(4 * MOMENT);
        let sent = scene.clients[0].flush()?;
        ensure!(
            sent == wanted,
            "{sent} packets were sent, not {wanted}; removed: {is_removed}"
        );
    }
    Ok(())
}
