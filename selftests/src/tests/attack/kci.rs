// SPDX-License-Identifier: GPL-2.0-only
//! Key compromise impersonation: one end's private key must not suffice to impersonate the other.

use super::{drop_in, Test};
use anyhow::{ensure, Context, Result};
use harness::noise::crypto::dh;
use harness::noise::{handshake, Keys, Session, Tweak};
use harness::rig::{inside, tagged, Rig, WAIT};
use harness::runner::Ctx;
use harness::topo::inner;
use harness::wgdev::Key;
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "attack-kci-confirmation", 60, confirmation);
}

/// The attacker has the device's private key and claims to be client 0. The device responds, but
/// neither sends nor accepts anything in that session; the real session stays usable, and a real
/// handshake replaces the forged one.
fn confirmation(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::fenced(ctx, 1)?;
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
    // The forger uses its own keys for everything but the claimed identity.
    let forger = Keys::random();
    let forged = handshake::initiate(&forger, &client.peer, &claim);
    client.send(&forged.message)?;
    let response = client.wait_response(&forged, WAIT)?;
    ensure!(
        forged.finish(&response, &client.psk).is_err(),
        "the forger knows the session's keys"
    );
    // The index is known; the keys can only be guessed.
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
    // The device sends in the old session, which the forger cannot read.
    for _ in 0..3 {
        scene.say(0)?;
        client.wait_data(&session, WAIT)?;
    }
    scene.ping(0, &mut session)?;
    scene.fence()?;
    ensure!(
        sink.count()? == 0,
        "data was accepted in the forged session"
    );
    ensure!(
        scene.peer(0)?.last_handshake == told,
        "the forged handshake counts as completed"
    );
    let to_forger = scene.underlay.seen().into_iter().filter(|seen| {
        matches!(seen.message, harness::wire::Message::Data { receiver, .. }
            if receiver == forged.index)
    });
    let count = to_forger.count();
    ensure!(count == 0, "{count} data messages in the forged session");

    // Without any session the device keeps packets staged until the confirmation.
    scene.reset(0)?;
    let client = &scene.clients[0];
    sleep(Duration::from_millis(30));
    let forged = handshake::initiate(&forger, &client.peer, &claim);
    client.send(&forged.message)?;
    client.wait_response(&forged, WAIT)?;
    scene.silent_but(
        "an unconfirmed session",
        |seen| seen.is_initiation(),
        || scene.say(0),
    )?;
    // A handshake by the real client.
    let mut real = client.handshake()?;
    client.ping(&mut real, inside(false, 0), inner(false, 0))
}
