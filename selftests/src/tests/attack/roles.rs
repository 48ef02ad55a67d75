// SPDX-License-Identifier: GPL-2.0-only
//! The test client itself: a well-behaved peer in either role.

use super::{drop_in, Test};
use anyhow::{ensure, Result};
use harness::noise::handshake;
use harness::rig::{inside, Rig, SAID, WAIT};
use harness::runner::Ctx;
use harness::topo::inner;
use harness::wgdev::PeerConf;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "attack-client-roles", 60, roles);
}

/// Handshakes in both roles, with and without a preshared key, pings over IPv4 and IPv6: all other
/// tests in this directory rely on these.
fn roles(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::fenced(ctx, 2)?;
    let psk = rand::random();
    let set = PeerConf {
        public_key: scene.clients[1].keys.public,
        preshared_key: Some(psk),
        ..PeerConf::default()
    };
    scene.end.set_peer(&scene.link, set)?;
    scene.clients[1].psk = psk;
    for k in 0..2 {
        let client = &scene.clients[k];
        let mut session = client.handshake()?;
        for v6 in [false, true] {
            client.ping(&mut session, inside(v6, k), inner(v6, 0))?;
        }
        ensure!(
            session.counter == 4,
            "two pings did not use counters 0 to 3"
        );
        // The device's own handshake: it has no session any more and a packet to send.
        let initiation = scene.initiation(k)?;
        let client = &scene.clients[k];
        let received = handshake::receive(&client.keys, &initiation)?;
        ensure!(received.initiator == client.peer, "an unknown initiator");
        let (mut session, response) = received.respond(&client.psk, &Default::default());
        client.send(&response)?;
        let (counter, plain) = client.wait_data(&session, WAIT)?;
        ensure!(counter == 0, "the first counter is {counter}");
        ensure!(
            plain.windows(SAID.len()).any(|w| w == SAID),
            "the content differs"
        );
        client.ping(&mut session, inside(false, k), inner(false, 0))?;
        ensure!(
            !scene.peer(k)?.last_handshake.is_zero(),
            "no handshake is reported"
        );
    }
    scene.silent("nothing", || Ok(()))
}
