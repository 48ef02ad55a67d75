// SPDX-License-Identifier: GPL-2.0-only
//! Points of low order wherever a public key is received. Any Diffie-Hellman with one gives
//! zeros, which everybody knows.

use super::{drop_in, Test};
use anyhow::{ensure, Result};
use harness::noise::crypto::dh;
use harness::noise::{handshake, Tweak};
use harness::rig::{outside, Rig, WAIT};
use harness::runner::Ctx;
use harness::topo::inner;
use harness::traffic::udp;
use harness::wgdev::{uapi, Key, PeerConf};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "attack-low-order-points", 90, low_order);
}

/// All encodings of points of low order; with p = 2^255 − 19: 0, 1, p−1, p, p+1 and the two points
/// of order 8, each also with the top bit, which is ignored.
fn points() -> Vec<Key> {
    let end = |first: u8| {
        let mut key = [0xff; 32];
        key[0] = first;
        key[31] = 0x7f;
        key
    };
    let mut one = [0; 32];
    one[0] = 1;
    let eight = [
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f,
            0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16,
            0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83,
            0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd,
            0xd0, 0x9f, 0x11, 0x57,
        ],
    ];
    let mut all = vec![
        [0; 32],
        one,
        end(0xec),
        end(0xed),
        end(0xee),
        eight[0],
        eight[1],
    ];
    for mut key in all.clone() {
        key[31] |= 0x80;
        all.push(key);
    }
    all
}

fn low_order(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::fenced(ctx, 2)?;
    for point in points() {
        let shared = dh(&scene.clients[0].keys.private, &point);
        ensure!(shared == [0; 32], "{point:02x?} is not of low order");
    }
    let mut session = scene.session(0)?;
    let before = scene.peer(0)?;

    // As the ephemeral key of a peer's initiation that is otherwise valid. If one were accepted,
    // this older one would be refused later.
    let client = &scene.clients[0];
    sleep(Duration::from_millis(25));
    let older = handshake::initiate(&client.keys, &client.peer, &Tweak::default());
    scene.silent("a low-order ephemeral key in an initiation", || {
        for point in points() {
            sleep(Duration::from_millis(25));
            scene.clients[0].initiate(&Tweak {
                ephemeral_public: Some(point),
                ..Tweak::default()
            })?;
        }
        Ok(())
    })?;

    // As a peer's static key: nothing is sent to it, and nobody can impersonate it.
    for point in points() {
        let mut peer = PeerConf {
            public_key: point,
            endpoint: Some(outside(1)),
            allowed_ips: vec![(inner(false, 99), 32)],
            keepalive: Some(1),
            ..PeerConf::default()
        };
        scene.end.set_peer(&scene.link, peer.clone())?;
        let from = udp(scene.link.end(0), SocketAddr::new(inner(false, 0), 0))?;
        scene.silent(&format!("a peer with the key {point:02x?}"), || {
            from.send_to(b"to nobody", SocketAddr::new(inner(false, 99), 9))?;
            scene.clients[1].initiate(&Tweak {
                static_public: Some(point),
                static_shared: Some([0; 32]),
                ..Tweak::default()
            })?;
            Ok(())
        })?;
        peer.flags = uapi::peer::F_REMOVE_ME;
        scene.end.set_peer(&scene.link, peer)?;
    }
    let after = scene.peer(0)?;
    ensure!(
        (after.endpoint, after.last_handshake) == (before.endpoint, before.last_handshake),
        "the peer's state has changed"
    );
    scene.ping(0, &mut session)?;
    let client = &scene.clients[0];
    client.send(&older.message)?;
    let response = client.wait_response(&older, WAIT)?;
    scene.ping(0, &mut older.finish(&response, &client.psk)?)?;

    // As the ephemeral key of a response; the device keeps waiting for the right one.
    let mut initiation = scene.initiation(1)?;
    let client = &scene.clients[1];
    let received = handshake::receive(&client.keys, &initiation)?;
    let again = |seen: &harness::capture::Seen| seen.is_initiation();
    scene.silent_but("a low-order ephemeral key in a response", again, || {
        for point in points() {
            let (_, response) = received.respond(
                &client.psk,
                &Tweak {
                    ephemeral_public: Some(point),
                    ..Tweak::default()
                },
            );
            client.send(&response)?;
        }
        Ok(())
    })?;
    // If this took so long that the device retried, answer the last initiation.
    while let Some((message, _)) = client.receive(Duration::ZERO)? {
        initiation = message;
    }
    let received = handshake::receive(&client.keys, &initiation)?;
    let (mut session, response) = received.respond(&client.psk, &Tweak::default());
    client.send(&response)?;
    client.wait_data(&session, WAIT)?;
    scene.ping(1, &mut session)?;
    Ok(())
}
