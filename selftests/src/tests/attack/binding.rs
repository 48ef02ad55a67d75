// SPDX-License-Identifier: GPL-2.0-only
//! Reflected and spliced messages: a message for one peer, device or direction must not make a
//! session or deliver data for another.

use super::{drop_in, Test};
use anyhow::{ensure, Context, Result};
use harness::capture::Seen;
use harness::noise::{cookie, handshake, Client, Session, Tweak};
use harness::rig::{device, inside, outside, tagged, Rig, WAIT};
use harness::runner::Ctx;
use harness::wgdev::{DeviceConf, PeerConf, Wg};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "attack-reflection", 60, reflection);
    drop_in(list, "attack-splicing-peers", 60, peers);
    drop_in(list, "attack-splicing-devices", 60, devices);
}

const GAP: Duration = Duration::from_millis(30);

/// `message` with the four bytes at `at` replaced.
fn with(message: &[u8], at: usize, index: u32) -> Vec<u8> {
    let mut message = message.to_vec();
    message[at..at + 4].copy_from_slice(&index.to_le_bytes());
    message
}

fn index(message: &[u8], at: usize) -> Result<u32> {
    let bytes = message.get(at..).and_then(|rest| rest.first_chunk());
    Ok(u32::from_le_bytes(*bytes.context("too short")?))
}

/// The device's own messages sent back to it: unchanged, and with receiver and mac1 fixed up.
fn reflection(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::fenced(ctx, 1)?;
    let initiation = scene.initiation(0)?;
    let client = &scene.clients[0];
    let own = client.peer;
    let fit = |message: &[u8]| {
        let mut message = message.to_vec();
        cookie::repair_macs(&mut message, &own, None);
        message
    };
    let again = |seen: &Seen| seen.is_initiation();
    scene.silent_but("its own initiation", again, || {
        client.send(&initiation)?;
        client.send(&fit(&initiation))
    })?;
    client.flush()?;
    sleep(GAP);
    let pending = client.initiate(&Tweak::default())?;
    let response = client.wait_response(&pending, WAIT)?;
    scene.silent_but("its own response", again, || {
        client.send(&response)?;
        client.send(&fit(&response))?;
        client.send(&fit(&with(&response, 8, index(&response, 4)?)))?;
        client.send(&fit(&with(&response, 8, index(&initiation, 4)?)))
    })?;
    let mut session = pending.finish(&response, &client.psk)?;
    scene.ping(0, &mut session)?;
    // Reflected data: each direction has its own key.
    let sink = scene.sink()?;
    scene.say(0)?;
    let (counter, _) = client.wait_data(&session, WAIT)?;
    client.flush()?;
    scene.say(0)?;
    let data = client.wait(WAIT, "data", |_, _| true)?;
    scene.silent_but("its own data", again, || {
        client.send(&data)?;
        client.send(&with(&data, 4, session.peer))
    })?;
    // Data that the client seals with the key of the other direction.
    let swapped = Session {
        send: session.receive,
        ..session.clone()
    };
    scene.silent_but("data under the key of the other direction", again, || {
        for n in 0..3 {
            client.send(&swapped.seal(counter + 100 + n, &tagged(0, n)))?;
        }
        Ok(())
    })?;
    ensure!(sink.count()? == 0, "reflected data was delivered");
    scene.ping(0, &mut session)
}

/// Messages spliced from those of two peers.
fn peers(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::fenced(ctx, 2)?;
    let make = |k: usize| {
        let client = &scene.clients[k];
        handshake::initiate(&client.keys, &client.peer, &Tweak::default())
    };
    let (a, b) = (make(0), make(1));
    // Ephemeral, static and timestamp, each from either peer.
    scene.silent("a spliced initiation", || {
        for mix in 1..7u8 {
            let mut message = a.message.clone();
            for (bit, bytes) in [(0, 8..40), (1, 40..88), (2, 88..116)] {
                if (mix >> bit) & 1 == 1 {
                    message[bytes.clone()].copy_from_slice(&b.message[bytes]);
                }
            }
            cookie::repair_macs(&mut message, &scene.clients[0].peer, None);
            scene.clients[0].send(&message)?;
            scene.clients[1].send(&message)?;
        }
        Ok(())
    })?;

    // Responses to the device's initiations, swapped.
    let initiations = [scene.initiation(0)?, scene.initiation(1)?];
    let mut answers = Vec::new();
    for (client, initiation) in scene.clients.iter().zip(&initiations) {
        let received = handshake::receive(&client.keys, initiation)?;
        answers.push(received.respond(&client.psk, &Tweak::default()));
    }
    let own = scene.clients[0].peer;
    scene.silent_but("a swapped response", Seen::is_initiation, || {
        for k in 0..2 {
            let other = index(&initiations[1 - k], 4)?;
            let mut message = with(&answers[k].1, 8, other);
            scene.clients[k].send(&message)?;
            cookie::repair_macs(&mut message, &own, None);
            scene.clients[k].send(&message)?;
            scene.clients[1 - k].send(&message)?;
        }
        // One peer's ephemeral key with the other's tag.
        let mut message = answers[0].1.clone();
        message[44..60].copy_from_slice(&answers[1].1[44..60]);
        cookie::repair_macs(&mut message, &own, None);
        scene.clients[0].send(&message)
    })?;
    let mut sessions = Vec::new();
    for (k, (mut session, response)) in answers.into_iter().enumerate() {
        scene.clients[k].send(&response)?;
        scene.clients[k].wait_data(&session, WAIT)?;
        scene.ping(k, &mut session)?;
        sessions.push(session);
    }

    // Data with one peer's key for the other's session, sent by either.
    let sink = scene.sink()?;
    scene.silent("data with another session's key", || {
        for k in 0..2 {
            for (key, to, inside) in [(0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1)] {
                let mixed = Session {
                    peer: sessions[to].peer,
                    ..sessions[key].clone()
                };
                scene.clients[k].send(&mixed.seal(500, &tagged(inside, 1)))?;
            }
        }
        Ok(())
    })?;
    ensure!(sink.count()? == 0, "spliced data was delivered");
    for (k, session) in sessions.iter_mut().enumerate() {
        session.counter = 500;
        scene.ping(k, session)?;
    }
    Ok(())
}

/// A second device in the same namespace with the same private key and the same peer: messages
/// for one have no effect on the other's port.
fn devices(ctx: &Ctx) -> Result<()> {
    const PORT: u16 = 51999;
    let mut scene = Rig::fenced(ctx, 1)?;
    let key = scene.end.get(&scene.link)?.private_key;
    scene.link.rt(0).link_add("wgx", "wireguard")?;
    let conf = DeviceConf {
        private_key: key,
        listen_port: Some(PORT),
        peers: vec![PeerConf {
            public_key: scene.clients[0].keys.public,
            allowed_ips: vec![(inside(false, 0), 32)],
            ..PeerConf::default()
        }],
        ..DeviceConf::default()
    };
    Wg::open(scene.link.end(0), "wireguard")?.set("wgx", &conf)?;
    scene.link.rt(0).set_up("wgx", true)?;
    let second = Client::new(
        scene.link.end(1),
        scene.clients[0].keys,
        scene.clients[0].peer,
        outside(3),
        SocketAddr::new(device(false).ip(), PORT),
    )?;

    let initiation = scene.initiation(0)?;
    let client = &scene.clients[0];
    let received = handshake::receive(&client.keys, &initiation)?;
    let (mut session, response) = received.respond(&client.psk, &Tweak::default());
    scene.silent_but("another device's response", Seen::is_initiation, || {
        second.send(&response)?;
        second.send(&initiation)
    })?;
    client.send(&response)?;
    client.wait_data(&session, WAIT)?;
    scene.ping(0, &mut session)?;
    let sink = scene.sink()?;
    let message = session.data(&tagged(0, 7));
    scene.silent("another device's data", || second.send(&message))?;
    ensure!(sink.count()? == 0, "another device's data was delivered");
    // Each device has its own session with the same client, under the same static keys.
    sleep(GAP);
    let mut other = second.handshake()?;
    second.send(&other.data(&[]))?;
    scene.fence()?;
    scene.silent("data under the other device's session", || {
        let mixed = Session {
            peer: other.peer,
            ..session.clone()
        };
        client.send(&mixed.seal(900, &tagged(0, 8)))?;
        second.send(&mixed.seal(900, &tagged(0, 8)))
    })?;
    ensure!(sink.count()? == 0, "spliced data was delivered");
    client.send(&message)?;
    ensure!(
        sink.until(7)? == [7],
        "the held back message was not delivered"
    );
    scene.ping(0, &mut session)
}
