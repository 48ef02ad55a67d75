// SPDX-License-Identifier: GPL-2.0-only
//! Only an authenticated message that is not a replay may change a peer's endpoint.

use super::{drop_in, Test};
use anyhow::{ensure, Result};
use harness::capture::Injector;
use harness::noise::handshake::{self, now};
use harness::noise::{cookie, packet, Tweak};
use harness::rig::{inside, outside, tagged, Rig};
use harness::runner::Ctx;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "attack-roaming", 60, roaming);
}

/// Messages of every kind from addresses that are not the peer's.
fn roaming(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::fenced(ctx, 1)?;
    let injector = Injector::open(scene.link.end(1), "v1")?;
    let to = scene.clients[0].to;
    let elsewhere = |n: u8| SocketAddr::from(([192, 0, 2, 100 + n], 7000 + u16::from(n)));
    let mut session = scene.session(0)?;
    let plain = |tag| {
        let mut plain = tagged(0, tag);
        plain.resize(48, 0);
        plain
    };
    let seen = session.seal(20_000, &plain(1));
    scene.clients[0].send(&seen)?;
    session.counter = 20_001;
    scene.ping(0, &mut session)?;

    let client = &scene.clients[0];
    let mut forged = session.seal(20_100, &plain(3));
    forged[20] ^= 1;
    let initiation = |tweak: &Tweak| handshake::initiate(&client.keys, &client.peer, tweak).message;
    let stale = initiation(&Tweak {
        timestamp: Some([0; 12]),
        ..Tweak::default()
    });
    let bad_mac1 = initiation(&Tweak {
        mac1: Some([1; 16]),
        ..Tweak::default()
    });
    let cookie = cookie::reply(
        &client.keys.public,
        &initiation(&Tweak::default()),
        &[1; 16],
    );
    let mut cookie_to_session = cookie.clone();
    cookie_to_session[4..8].copy_from_slice(&session.peer.to_le_bytes());
    let wrong = [
        ("replayed data", seen),
        (
            "data behind the window",
            session.seal(20_001 - 8129, &plain(2)),
        ),
        (
            "data with the last counter but one",
            session.seal(u64::MAX - 1, &plain(2)),
        ),
        ("forged data", forged),
        ("an initiation with an old timestamp", stale),
        ("an initiation with a wrong mac1", bad_mac1),
        ("a cookie reply", cookie),
        ("a cookie reply to the session", cookie_to_session),
    ];
    for (n, (what, message)) in wrong.iter().enumerate() {
        injector.send(&packet::frame(1, elsewhere(n as u8), to, message))?;
        scene.fence()?;
        let endpoint = scene.peer(0)?.endpoint;
        ensure!(
            endpoint == Some(outside(0)),
            "{what} changed the endpoint to {endpoint:?}"
        );
    }
    scene.ping(0, &mut session)?;

    // These do change it: data, a keepalive, an initiation; also data with an invalid inner
    // packet, for it is authentic.
    let [a, b] = [inside(false, 7), inside(false, 0)].map(|ip| SocketAddr::new(ip, 9));
    sleep(Duration::from_millis(30));
    let right = [
        ("data", session.seal(30_000, &plain(4))),
        ("a keepalive", session.seal(30_001, &[])),
        (
            "data with a wrong inner source",
            session.seal(30_002, &packet::udp(a, b, b"x")),
        ),
        (
            "an initiation",
            handshake::initiate(
                &scene.clients[0].keys,
                &scene.clients[0].peer,
                &Tweak {
                    timestamp: Some(now()),
                    ..Tweak::default()
                },
            )
            .message,
        ),
    ];
    for (n, (what, message)) in right.iter().enumerate() {
        let from = elsewhere(50 + n as u8);
        injector.send(&packet::frame(1, from, to, message))?;
        let start = Instant::now();
        while scene.peer(0)?.endpoint != Some(from) {
            ensure!(
                start.elapsed() < Duration::from_secs(20),
                "{what} did not change the endpoint"
            );
            sleep(Duration::from_millis(10));
        }
    }
    session.counter = 30_010;
    scene.ping(0, &mut session)?;
    ensure!(
        scene.peer(0)?.endpoint == Some(outside(0)),
        "the endpoint did not change back"
    );
    Ok(())
}
