// SPDX-License-Identifier: GPL-2.0-only
//! Every bit of a handshake or data message flipped, with and without recomputing the first MAC.
//! (Cookie replies: see `cookies`.)

use super::{drop_in, Test};
use anyhow::{ensure, Result};
use harness::noise::{cookie, handshake, Tweak};
use harness::rig::{tagged, Rig, WAIT};
use harness::runner::Ctx;
use harness::wgdev::Key;
use std::ops::Range;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "attack-bit-flips-initiation", 120, initiation);
    drop_in(list, "attack-bit-flips-response", 120, response);
    drop_in(list, "attack-bit-flips-data", 60, data);
}

/// Messages per batch, few enough not to put the device under load.
const BATCH: usize = 200;

/// `message` with each bit of `bytes` flipped in turn; mac1 recomputed for `receiver`, if given.
fn flips(message: &[u8], bytes: Range<usize>, receiver: Option<&Key>) -> Vec<Vec<u8>> {
    let flip = |bit: usize| {
        let mut message = message.to_vec();
        message[bit / 8] ^= 1 << (bit % 8);
        if let Some(receiver) = receiver {
            cookie::repair_macs(&mut message, receiver, None);
        }
        message
    };
    (bytes.start * 8..bytes.end * 8).map(flip).collect()
}

/// A peer's valid initiation, altered: no answer. (With a recomputed mac1, the sender's index,
/// which the initiator may choose, and mac2, which is checked only under load, stay unaltered.)
fn initiation(ctx: &Ctx) -> Result<()> {
    let scene = Rig::fenced(ctx, 1)?;
    let client = &scene.clients[0];
    let mut session = scene.session(0)?;
    std::thread::sleep(Duration::from_millis(30));
    let right = handshake::initiate(&client.keys, &client.peer, &Tweak::default());
    let mut altered = flips(&right.message, 0..132, None);
    altered.extend(flips(&right.message, 0..4, Some(&client.peer)));
    altered.extend(flips(&right.message, 8..116, Some(&client.peer)));
    for (n, batch) in altered.chunks(BATCH).enumerate() {
        scene.silent(&format!("flipped bits, batch {n}"), || {
            batch.iter().try_for_each(|message| client.send(message))
        })?;
    }
    scene.ping(0, &mut session)?;
    client.send(&right.message)?;
    let response = client.wait_response(&right, WAIT)?;
    scene.ping(0, &mut right.finish(&response, &client.psk)?)
}

/// The valid response to the device's initiation, altered: the device keeps waiting and accepts
/// the right one.
fn response(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::fenced(ctx, 1)?;
    scene.initiation(0)?;
    // In parts, each for its own initiation: the device retries after 5 s.
    let parts: [(Range<usize>, bool); 5] = [
        (0..40, false),
        (40..76, false),
        (0..4, true),
        (8..34, true),
        (34..60, true),
    ];
    for (bytes, repair) in parts {
        let message = scene.initiation(0)?;
        let client = &scene.clients[0];
        let received = handshake::receive(&client.keys, &message)?;
        let (mut session, right) = received.respond(&client.psk, &Tweak::default());
        let altered = flips(&right, bytes.clone(), repair.then_some(&client.peer));
        let what = format!("a response with a flipped bit in bytes {bytes:?}");
        let again = |seen: &harness::capture::Seen| seen.is_initiation();
        for batch in altered.chunks(BATCH) {
            scene.silent_but(&what, again, || {
                batch.iter().try_for_each(|message| client.send(message))
            })?;
        }
        // On a very slow machine the device has retried meanwhile: answer the last initiation.
        let mut last = message;
        while let Some((message, _)) = client.receive(Duration::ZERO)? {
            last = message;
        }
        let mut right = right;
        if last.get(4..8) != Some(&received.sender.to_le_bytes()) {
            ctx.note("the device retried meanwhile");
            let received = handshake::receive(&client.keys, &last)?;
            (session, right) = received.respond(&client.psk, &Tweak::default());
        }
        client.send(&right)?;
        client.wait_data(&session, WAIT)?;
        scene.ping(0, &mut session)?;
    }
    Ok(())
}

/// A data message, altered: not delivered, without effect on window and endpoint.
fn data(ctx: &Ctx) -> Result<()> {
    let scene = Rig::fenced(ctx, 1)?;
    let client = &scene.clients[0];
    let mut session = scene.session(0)?;
    let sink = scene.sink()?;
    let right = session.data(&tagged(0, 1));
    scene.silent("data with flipped bits", || {
        let altered = flips(&right, 0..right.len(), None);
        altered.iter().try_for_each(|message| client.send(message))
    })?;
    let early = sink.count()?;
    ensure!(early == 0, "{early} altered messages were delivered");
    client.send(&right)?;
    ensure!(
        sink.until(1)? == [1],
        "the unaltered message was not delivered"
    );
    scene.ping(0, &mut session)
}
