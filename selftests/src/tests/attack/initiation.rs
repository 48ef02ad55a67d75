// SPDX-License-Identifier: GPL-2.0-only
//! Replayed initiations, timestamps, and the wall clock behind them.

use super::{drop_in, Test};
use anyhow::{ensure, Context, Result};
use harness::capture::Injector;
use harness::noise::handshake::{self, now, tai64n, Timestamp};
use harness::noise::{packet, Keys, Tweak};
use harness::rig::{inside, outside, wall_clock, Rig, WAIT};
use harness::runner::Ctx;
use harness::topo::inner;
use harness::wgdev::DeviceConf;
use nix::sys::time::TimeSpec;
use nix::time::{clock_gettime, clock_settime, ClockId};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "attack-initiation-replay", 60, replay);
    drop_in(list, "attack-clock-set-back", 60, clock_set_back);
}

/// More than the minimum time between two accepted initiations of one peer.
const GAP: Duration = Duration::from_millis(30);

fn at(timestamp: Timestamp) -> Tweak {
    Tweak {
        timestamp: Some(timestamp),
        ..Tweak::default()
    }
}

/// An initiation is accepted only if its timestamp is greater than the peer's greatest: not twice,
/// not from elsewhere, not after the link was down, not with another private key of ours. Other
/// peers' timestamps do not matter.
fn replay(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::fenced(ctx, 2)?;
    let base = 2_000_000_000;
    let client = &scene.clients[0];
    let accepted = |scene: &Rig, stamp: Timestamp| -> Result<Vec<u8>> {
        sleep(GAP);
        let client = &scene.clients[0];
        let pending = client.initiate(&at(stamp))?;
        let response = client.wait_response(&pending, WAIT)?;
        let mut session = pending.finish(&response, &client.psk)?;
        client.ping(&mut session, inside(false, 0), inner(false, 0))?;
        Ok(pending.message)
    };
    let refused = |scene: &Rig, what: &str, stamp: Timestamp| {
        sleep(GAP);
        scene.silent(what, || {
            scene.clients[0].initiate(&at(stamp))?;
            Ok(())
        })
    };
    let stamp = tai64n(base, 1000);
    let first = accepted(&scene, stamp)?;
    sleep(GAP);
    scene.silent("the same initiation again", || client.send(&first))?;
    // From elsewhere: no answer, and the endpoint is unchanged.
    let injector = Injector::open(scene.link.end(1), "v1")?;
    let elsewhere: SocketAddr = "192.0.2.77:7777".parse()?;
    scene.silent("the same initiation from elsewhere", || {
        injector.send(&packet::frame(1, elsewhere, client.to, &first))
    })?;
    ensure!(
        scene.peer(0)?.endpoint == Some(outside(0)),
        "the endpoint followed a replayed initiation"
    );
    refused(&scene, "an equal timestamp", stamp)?;
    refused(&scene, "a nanosecond less", tai64n(base, 999))?;
    refused(&scene, "a second less", tai64n(base - 1, 999_999_999))?;
    refused(&scene, "timestamp zero", [0; 12])?;
    accepted(&scene, tai64n(base, 1001))?;
    accepted(&scene, tai64n(base + 1, 0))?;
    refused(&scene, "the first timestamp", stamp)?;
    // The greatest timestamp is kept when the link goes down,
    for up in [false, true] {
        scene.link.rt(0).set_up("wg0", up)?;
    }
    refused(&scene, "after down and up", tai64n(base + 1, 0))?;
    // and when our private key changes.
    let keys = Keys::random();
    let conf = DeviceConf {
        private_key: Some(keys.private),
        ..DeviceConf::default()
    };
    scene.end.set(&scene.link, &conf)?;
    for client in &mut scene.clients {
        client.peer = keys.public;
    }
    refused(
        &scene,
        "with another private key of ours",
        tai64n(base + 1, 0),
    )?;
    let second = accepted(&scene, tai64n(base + 2, 0))?;
    // It is per peer: the other client still uses an earlier time.
    let mut session = scene.session(1)?;
    // Timestamps are compared as 12 bytes, whatever they mean.
    accepted(&scene, [0xff; 12])?;
    refused(&scene, "the greatest timestamp again", [0xff; 12])?;
    refused(&scene, "this moment", now())?;
    // Only removing the peer resets it.
    scene.reset(0)?;
    sleep(GAP);
    let response = scene.clients[0].send(&second);
    response?;
    let index = second.get(4..8).and_then(|b| b.try_into().ok());
    let index = u32::from_le_bytes(index.context("index")?);
    scene.clients[0].wait(WAIT, "a response to a peer added again", |message, _| {
        matches!(message, harness::wire::Message::Response { receiver, .. } if *receiver == index)
    })?;
    accepted(&scene, tai64n(base + 3, 0))?;
    scene.ping(1, &mut session)
}

/// Sets the wall clock by `seconds`, and back when dropped.
struct ClockSet(i64);

impl ClockSet {
    fn by(seconds: i64) -> Result<Self> {
        move_clock(seconds)?;
        Ok(ClockSet(seconds))
    }
}

impl Drop for ClockSet {
    fn drop(&mut self) {
        let _ = move_clock(-self.0);
    }
}

fn move_clock(seconds: i64) -> Result<()> {
    let clock = ClockId::CLOCK_REALTIME;
    let now = clock_gettime(clock)?;
    let then = TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
    clock_settime(clock, then).context("set the clock")
}

/// A clock set back lowers the timestamps of our own initiations (which a peer must refuse), and
/// nothing else: sessions stay usable, others' initiations are accepted, and so are our own by a
/// peer that has not seen us before. The nanoseconds of timestamps are rounded down.
fn clock_set_back(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::fenced(ctx, 2)?;
    let stamp = |scene: &mut Rig| -> Result<Timestamp> {
        let initiation = scene.initiation(0)?;
        let received = handshake::receive(&scene.clients[0].keys, &initiation)?;
        let client = &scene.clients[0];
        let (mut session, response) = received.respond(&client.psk, &Tweak::default());
        client.send(&response)?;
        client.wait_data(&session, WAIT)?;
        client.ping(&mut session, inside(false, 0), inner(false, 0))?;
        let nanos = received.timestamp.get(8..).and_then(|b| b.try_into().ok());
        let nanos = u32::from_be_bytes(nanos.context("nanoseconds")?);
        ensure!(
            nanos % (1 << 24) == 0 && nanos < 1_000_000_000,
            "{nanos} ns are not rounded"
        );
        Ok(received.timestamp)
    };
    let mut session = scene.session(1)?;
    let before = stamp(&mut scene)?;
    let ahead = now();
    {
        let _clock = ClockSet::by(-3600)?;
        let back = stamp(&mut scene)?;
        ensure!(back < before, "the clock was not set back");
        let margin = tai64n(wall_clock()?.as_secs() + 60, 0);
        ensure!(back < margin, "the timestamp is not the wall clock's");
        scene.ping(1, &mut session)?;
        // A peer with the right clock.
        sleep(GAP);
        let pending = scene.clients[1].initiate(&at(ahead))?;
        let response = scene.clients[1].wait_response(&pending, WAIT)?;
        session = pending.finish(&response, &[0; 32])?;
        scene.ping(1, &mut session)?;
    }
    let after = stamp(&mut scene)?;
    ensure!(after > before, "the clock was not restored");
    scene.ping(1, &mut session)?;
    Ok(())
}
