// SPDX-License-Identifier: GPL-2.0-only
//! Messages that must not be answered at all: wrong lengths, wrong MACs, strangers, no key.

use super::{drop_in, Test};
use anyhow::{ensure, Result};
use harness::capture::seen;
use harness::noise::crypto::mac;
use harness::noise::{cookie, handshake, packet, Client, Keys, Tweak};
use harness::pace::{slow, SENT};
use harness::rig::{inside, outside, wall_clock, Rig};
use harness::runner::Ctx;
use harness::topo::inner;
use harness::traffic::pattern;
use harness::wgdev::DeviceConf;
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "attack-silence-lengths", 90, lengths);
    drop_in(list, "attack-silence-strangers", 60, strangers);
}

/// Every length from 0 to 2000 of every type: random content, and a valid message truncated or
/// extended.
fn lengths(ctx: &Ctx) -> Result<()> {
    let scene = Rig::fenced(ctx, 1)?;
    let client = &scene.clients[0];
    let mut session = scene.session(0)?;
    // Answer what the device sent last, or it would start a handshake after 15 s.
    sleep(slow(SENT));
    client.send(&session.data(&[]))?;
    let before = scene.clients[0].flush()?;
    ensure!(before == 0, "{before} stray messages");
    let valid = [
        handshake::initiate(&client.keys, &client.peer, &Tweak::default()).message,
        {
            // A well-formed response to no initiation.
            let foreign =
                handshake::initiate(&Keys::random(), &client.keys.public, &Tweak::default());
            let received = handshake::receive(&client.keys, &foreign.message)?;
            let mut response = received.respond(&[0; 32], &Tweak::default()).1;
            cookie::repair_macs(&mut response, &client.peer, None);
            response
        },
        vec![3; cookie::REPLY],
        session.seal(50, &[]),
    ];
    for kind in 0..=5u8 {
        let noise = pattern(u64::from(kind), 2000);
        scene.silent(&format!("random messages of type {kind}"), || {
            for len in 0..=2000 {
                let mut message = noise[..len].to_vec();
                for (n, byte) in [kind, 0, 0, 0].into_iter().enumerate().take(len) {
                    message[n] = byte;
                }
                client.send(&message)?;
            }
            Ok(())
        })?;
    }
    for (n, message) in valid.iter().enumerate() {
        // Except its own length, at which an initiation or keepalive may be answered.
        scene.silent(
            &format!("a message of type {} at other lengths", n + 1),
            || {
                for len in (0..=2000).filter(|len| *len != message.len() && !(n == 3 && *len >= 32))
                {
                    let mut message = message.clone();
                    message.resize(len, 0);
                    // Otherwise valid.
                    if n < 2 && len >= 32 {
                        cookie::repair_macs(&mut message, &client.peer, None);
                    }
                    client.send(&message)?;
                }
                Ok(())
            },
        )?;
    }
    scene.ping(0, &mut session)
}

/// Wrong MACs and headers, unknown keys, unsolicited replies, a device without a key.
fn strangers(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::fenced(ctx, 1)?;
    let mut session = scene.session(0)?;
    let client = &scene.clients[0];
    let gap = || sleep(Duration::from_millis(25));
    let tweaked = |what: &str, tweak: Tweak| {
        gap();
        scene.silent(what, || client.initiate(&tweak).map(drop))
    };
    let other = Keys::random();
    let right = handshake::initiate(&client.keys, &client.peer, &Tweak::default()).message;
    let of_other = cookie::mac1(&right[..116], &other.public);
    for (what, mac1) in [
        ("mac1 of zeros", [0; 16]),
        ("a random mac1", rand::random()),
        ("mac1 for another receiver", of_other),
    ] {
        tweaked(
            what,
            Tweak {
                mac1: Some(mac1),
                ..Tweak::default()
            },
        )?;
    }
    for header in [
        [1, 1, 0, 0],
        [1, 0, 0, 1],
        [1, 0, 255, 0],
        [0; 4],
        [5, 0, 0, 0],
        [255; 4],
    ] {
        tweaked(
            &format!("header {header:?}"),
            Tweak {
                header: Some(header),
                ..Tweak::default()
            },
        )?;
    }
    tweaked(
        "one byte too many",
        Tweak {
            trailing: vec![0],
            ..Tweak::default()
        },
    )?;
    // An unknown peer, and one that claims to be known.
    let stranger = Client::new(scene.link.end(1), other, client.peer, outside(2), client.to)?;
    scene.silent("an unknown peer", || {
        for _ in 0..3 {
            gap();
            stranger.initiate(&Tweak::default())?;
        }
        stranger.initiate(&Tweak {
            static_public: Some(client.keys.public),
            ..Tweak::default()
        })?;
        stranger.send(&cookie::reply(&other.public, &right, &[1; 16]))?;
        // The client's own messages, meant for another device.
        let elsewhere = handshake::initiate(&client.keys, &other.public, &Tweak::default());
        stranger.send(&elsewhere.message)
    })?;
    let response = {
        let foreign = handshake::initiate(&other, &client.keys.public, &Tweak::default());
        let received = handshake::receive(&client.keys, &foreign.message)?;
        let mut response = received.respond(&[0; 32], &Tweak::default()).1;
        cookie::repair_macs(&mut response, &client.peer, None);
        response
    };
    scene.silent("unsolicited responses and cookie replies", || {
        for index in [0, 1, session.peer, u32::MAX, rand::random()] {
            let mut response = response.clone();
            response[8..12].copy_from_slice(&index.to_le_bytes());
            cookie::repair_macs(&mut response, &client.peer, None);
            client.send(&response)?;
            let mut cookie = cookie::reply(&client.keys.public, &right, &[7; 16]);
            cookie[4..8].copy_from_slice(&index.to_le_bytes());
            client.send(&cookie)?;
        }
        Ok(())
    })?;
    scene.ping(0, &mut session)?;

    // Without a private key. There can be no fence in that state.
    let key = scene.end.get(&scene.link)?.private_key;
    let set = |scene: &mut Rig, private_key| {
        let conf = DeviceConf {
            private_key,
            ..DeviceConf::default()
        };
        scene.end.set(&scene.link, &conf)
    };
    set(&mut scene, Some([0; 32]))?;
    let start = wall_clock()?;
    let client = &scene.clients[0];
    for _ in 0..5 {
        gap();
        client.initiate(&Tweak::default())?;
    }
    // mac1 with a key of zeros.
    let mut unkeyed = handshake::initiate(&client.keys, &client.peer, &Tweak::default()).message;
    let zeros = mac(&[0; 32], &[&unkeyed[..116]]);
    unkeyed[116..132].copy_from_slice(&zeros);
    client.send(&unkeyed)?;
    // Unsolicited replies, and the session from before: its data may be delivered, but is not
    // answered.
    client.send(&response)?;
    client.send(&cookie::reply(&client.keys.public, &right, &[7; 16]))?;
    let ping = packet::echo(inside(false, 0), inner(false, 0), 1, b"anybody there?");
    for packet in [&ping[..], &[]] {
        client.send(&session.data(packet))?;
    }
    scene.say(0)?;
    sleep(Duration::from_millis(500));
    let sent = {
        let frames = scene.underlay.frames();
        let frames = frames.lock().expect("poisoned");
        // Frames sent earlier may be captured late.
        let late = frames.iter().filter(|f| f.outgoing && f.at >= start);
        late.filter(|f| seen(f).is_some()).count()
    };
    ensure!(sent == 0, "{sent} messages from a device without a key");
    set(&mut scene, key)?;
    scene.session(0).map(drop)
}
