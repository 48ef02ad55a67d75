// SPDX-License-Identifier: GPL-2.0
//! One peer is flooded with garbage; the other's traffic goes on.

use super::scene::{device, outside, tagged, Scene};
use super::{drop_in, Test};
use crate::harness::capture::Injector;
use crate::harness::noise::{handshake, packet, Keys, Tweak};
use crate::harness::runner::Ctx;
use anyhow::{ensure, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "attack-isolation", 90, isolation);
}

/// While forged data for client 0's session, replays of it, and strangers' initiations with a
/// right mac1 come as fast as they can, every ping of client 1 is answered.
fn isolation(ctx: &Ctx) -> Result<()> {
    const PINGS: u32 = 15;
    const FLOOD: u64 = 2000;
    let mut scene = Scene::new(ctx, 2)?;
    // Who asks for cookies at this address gets none.
    scene
        .link
        .rt(0)
        .neigh_set("v0", [192, 0, 2, 66].into(), [2, 0, 0, 0, 0, 0xee])?;
    let [mut victim, mut other] = [scene.session(0)?, scene.session(1)?];
    let mut forged = victim.seal(9000, &tagged(0, 1));
    forged[30] ^= 1;
    let replayed = victim.data(&[]);
    scene.clients[0].send(&replayed)?;
    let stranger = Keys::random();
    let mut flood = Vec::new();
    for n in 0..32u16 {
        let from = ([192, 0, 2, 66], 1000 + n).into();
        let message = handshake::initiate(&stranger, &scene.clients[0].peer, &Tweak::default());
        flood.push(packet::frame(1, from, device(), &message.message));
        for message in [&forged, &replayed, &vec![n as u8; 1300]] {
            flood.push(packet::frame(1, outside(0), device(), message));
        }
    }
    let injector = Injector::open(scene.link.end(1), "v1")?;
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let (stopped, count) = (stop.clone(), sent.clone());
    let sender = scene.link.end(1).spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            for frame in &flood {
                injector.send(frame)?;
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    })?;
    let mut answered = Ok(());
    let mut pings = 0;
    while answered.is_ok() && (pings < PINGS || sent.load(Ordering::Relaxed) < FLOOD) {
        let ping = scene.ping(1, &mut other);
        answered = ping.map_err(|e| e.context(format!("ping {pings} under the flood")));
        pings += 1;
        if sender.is_finished() {
            break; // and says why
        }
    }
    stop.store(true, Ordering::Relaxed);
    sender.join().expect("the flood panicked")?;
    answered?;
    let sent = sent.load(Ordering::Relaxed);
    ctx.note(format!("{pings} pings answered beside {sent} messages"));
    ensure!(
        scene.peer(0)?.endpoint == Some(outside(0)),
        "the flooded peer's endpoint moved"
    );
    victim.counter = 100;
    scene.ping(0, &mut victim)
}
