// SPDX-License-Identifier: GPL-2.0
//! Key compromise: who knows one end's private key must not pass for the other end.

use super::scene::{inside, tagged, Scene, WAIT};
use super::{drop_in, Test};
use crate::harness::noise::crypto::dh;
use crate::harness::noise::{handshake, Keys, Session, Tweak};
use crate::harness::runner::Ctx;
use crate::harness::topo::inner;
use crate::harness::wgdev::Key;
use anyhow::{ensure, Context, Result};
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "attack-kci-confirmation", 60, confirmation);
}

/// The attacker has the device's private key and claims to be client 0. The device answers, but
/// neither sends nor accepts anything under that session; the real session goes on, and a real
/// handshake ends the matter.
fn confirmation(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx, 1)?;
    let stolen: Key = scene
        .end
        .get(&scene.link)?
        .private_key
        .context("private key")?;
    let mut session = scene.session(0)?;
    let sink = scene.sink()?;
    let told = scene.peer(0)?.last_handshake;
    let client = &scene.clients[0];
    sleep(Duration::from_millis(1100));
    let claim = Tweak {
        static_public: Some(client.keys.public),
        static_shared: Some(dh(&stolen, &client.keys.public)),
        ..Tweak::default()
    };
    // Everything of the forger's is from its own keys but the claim.
    let forger = Keys::random();
    let forged = handshake::initiate(&forger, &client.peer, &claim);
    client.send(&forged.message)?;
    let response = client.wait_response(&forged, WAIT)?;
    ensure!(
        forged.finish(&response, &client.psk).is_err(),
        "the forger knows the session's keys"
    );
    // The index is right; the keys can only be guessed.
    let peer = response.get(4..8).and_then(|b| b.try_into().ok());
    let peer = u32::from_le_bytes(peer.context("index")?);
    for guess in [[0; 32], session.send, session.receive, stolen] {
        let guess = Session {
            send: guess,
            receive: guess,
            own: forged.index,
            peer,
            counter: 0,
        };
        for counter in 0..3 {
            client.send(&guess.seal(counter, &[]))?;
            client.send(&guess.seal(counter, &tagged(0, 66)))?;
        }
    }
    // What the device has to say goes under the old session, which the forger cannot read.
    for _ in 0..3 {
        scene.wake(0)?;
        client.wait_data(&session, WAIT)?;
    }
    scene.ping(0, &mut session)?;
    scene.fence()?;
    ensure!(
        sink.count()? == 0,
        "data was accepted under the forged session"
    );
    ensure!(
        scene.peer(0)?.last_handshake == told,
        "the forged handshake counts as done"
    );
    let to_forger = scene.watch.seen().into_iter().filter(|seen| {
        matches!(seen.message, crate::harness::wire::Message::Data { receiver, .. }
            if receiver == forged.index)
    });
    let count = to_forger.count();
    ensure!(count == 0, "{count} data messages under the forged session");

    // Without any session the device waits for the confirmation with what it has to send.
    scene.reset(0)?;
    let client = &scene.clients[0];
    sleep(Duration::from_millis(30));
    let forged = handshake::initiate(&forger, &client.peer, &claim);
    client.send(&forged.message)?;
    client.wait_response(&forged, WAIT)?;
    scene.silent_but(
        "an unconfirmed session",
        |seen| seen.is_initiation(),
        || scene.wake(0),
    )?;
    // The real client comes.
    let mut real = client.handshake()?;
    client.ping(&mut real, inside(false, 0), inner(false, 0))
}
