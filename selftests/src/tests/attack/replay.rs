// SPDX-License-Identifier: GPL-2.0-only
//! Replayed and forged transport data: the window, its edges, the counter limit.

use super::{drop_in, Test};
use anyhow::{ensure, Result};
use harness::noise::Session;
use harness::rig::{tagged, Rig, Sink};
use harness::runner::Ctx;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "attack-replay-window", 60, window);
    drop_in(list, "attack-counter-limit", 60, limit);
}

/// How far a counter may lie behind the greatest one accepted.
const WINDOW: u64 = 8128;
/// No message with this counter or a greater one is accepted.
const LIMIT: u64 = u64::MAX - WINDOW - 1;

/// A message with this counter, and its expected fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Taken(u64),
    Refused(u64),
    /// Refused, because it does not authenticate.
    Forged(u64),
}
use Op::{Forged, Refused, Taken};

/// Sends the messages of `script` in order; the last one must be accepted. A peer's messages are
/// delivered in order, so when it arrives, all earlier ones have been processed.
fn play(scene: &Rig, sink: &Sink, session: &Session, name: &str, script: &[Op]) -> Result<()> {
    let mut wanted = Vec::new();
    for (n, op) in script.iter().enumerate() {
        let tag = n as u64;
        let (Taken(counter) | Refused(counter) | Forged(counter)) = *op;
        let mut plain = tagged(0, tag);
        plain.resize(48, 0);
        let mut message = session.seal(counter, &plain);
        match op {
            Taken(_) => wanted.push(tag),
            Refused(_) => {}
            Forged(_) => message[40] ^= 1,
        }
        scene.clients[0].send(&message)?;
    }
    let got = sink.until(script.len() as u64 - 1)?;
    let decided = |list: &[u64]| -> Vec<Op> {
        let op = |n: &u64| script.get(*n as usize).copied();
        list.iter().filter_map(op).collect()
    };
    ensure!(
        got == wanted,
        "{name}: accepted {:?}, not {:?}",
        decided(&got),
        decided(&wanted)
    );
    Ok(())
}

/// With m the greatest counter accepted: an unseen m−8128 is accepted once; m−8129 and duplicates
/// never. A forged counter changes nothing.
fn window(ctx: &Ctx) -> Result<()> {
    let scene = Rig::fenced(ctx, 1)?;
    let mut session = scene.session(0)?;
    let sink = scene.sink()?;
    let play = |name: &str, script: &[Op]| play(&scene, &sink, &session, name, script);
    play(
        "duplicates",
        &[
            Refused(0),
            Refused(1),
            Taken(9),
            Refused(9),
            Taken(7),
            Refused(7),
            Taken(8),
            Refused(9),
            Taken(2),
            Refused(2),
            Taken(10),
        ],
    )?;
    // The greatest counter at each position in a word of the bitmap that could make a difference.
    for m in [
        20_000,
        40_000 + 31,
        64_000,
        96_000 + 63,
        128_001,
        160_000 - 1,
    ] {
        let script = [
            Taken(m),
            Refused(m),
            Refused(m - WINDOW - 1),
            Taken(m - WINDOW),
            Refused(m - WINDOW),
            Taken(m - WINDOW + 64),
            Refused(m - WINDOW - 64),
            Refused(0),
            Taken(m + 1),
            Refused(m - WINDOW),
            Taken(m - WINDOW + 1),
            Refused(m - WINDOW + 1),
            Taken(m - 1),
        ];
        play(&format!("window at {m}"), &script)?;
    }
    let m = 200_000;
    play(
        "forged counters",
        &[
            Taken(m),
            Forged(1 << 62),
            Forged(m + 9000),
            Forged(LIMIT - 1),
            Forged(u64::MAX),
            Taken(m - WINDOW),
            Forged(m + 1),
            Taken(m + 1),
        ],
    )?;
    // Jumps by less than the bitmap, its size, and more: no old counter is accepted again.
    let mut m = 300_000;
    for jump in [
        63,
        64,
        65,
        8127,
        8128,
        8129,
        8191,
        8192,
        8193,
        1 << 20,
        1 << 32,
    ] {
        let mut script = vec![Taken(m)];
        let next = m + jump;
        script.push(Taken(next));
        script.push(Refused(m));
        if jump > WINDOW {
            script.push(Refused(next - WINDOW - 1));
        }
        script.extend([Taken(next - 1), Refused(next - 1), Taken(next + 1)]);
        play(&format!("jump by {jump}"), &script)?;
        m = next + 100_000;
    }
    session.counter = m;
    scene.ping(0, &mut session)
}

/// No counter of 2^64−1−8129 or more is ever accepted, and the last one below ends the session
/// in this direction. (For the sender's limit there, and the rekey above 2^60, see `nonces`.)
fn limit(ctx: &Ctx) -> Result<()> {
    let scene = Rig::fenced(ctx, 1)?;
    let session = scene.session(0)?;
    let sink = scene.sink()?;
    play(
        &scene,
        &sink,
        &session,
        "below the limit",
        &[
            Taken((1 << 60) + 1),
            Refused(LIMIT),
            Refused(LIMIT + 1),
            Refused(u64::MAX),
            Refused(u64::MAX - 1),
            Taken(LIMIT - 9),
            Refused(LIMIT),
            Refused(u64::MAX),
            Taken(LIMIT - 2),
            Refused(LIMIT - 2),
            Taken(LIMIT - 2 - WINDOW),
            Refused(LIMIT - 3 - WINDOW),
            Taken(LIMIT - 1),
        ],
    )?;
    for counter in [LIMIT - 3, LIMIT - 4, LIMIT] {
        scene.clients[0].send(&session.seal(counter, &tagged(0, 99)))?;
    }
    let mut session = scene.session(0)?;
    let late = sink.count()?;
    ensure!(
        late == 0,
        "{late} messages were accepted after the last counter"
    );
    scene.ping(0, &mut session)
}
