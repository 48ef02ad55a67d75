// SPDX-License-Identifier: GPL-2.0-only
//! Being under load: when it starts, how long it lasts, and a device without a key in that state.

use super::{drop_in, Test, SEC};
use anyhow::{ensure, Context, Result};
use harness::capture::Seen;
use harness::noise::{crypto, handshake, Client, Keys, Tweak};
use harness::pace::slow;
use harness::rig::{device, Rig, MOMENT};
use harness::runner::{until, Ctx, Subject};
use harness::topo::outer;
use harness::wgdev::DeviceConf;
use harness::wire::Message;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) fn register(list: &mut Vec<Test>) {
    drop_in(
        list,
        &[
            ("vtime-under-load-from-512", 60, from_512),
            ("vtime-handshake-queue-4096", 60, queue_4096),
            ("vtime-under-load-without-key", 60, without_key),
        ],
    );
}

/// Length of the answer to a new initiation of client `k` without mac2; 0 without an answer.
fn answer(rig: &Rig, k: usize) -> Result<usize> {
    rig.clients[k].flush()?;
    let pending = rig.clients[k].initiate(&Tweak::default())?;
    Ok(rig.answer(k, &pending)?.map_or(0, |bytes| bytes.len()))
}

const RESPONSE: usize = 92;
const COOKIE: usize = 64;

/// A queue of 511 handshake messages is not load, one of 512 is, until a second after the queue
/// was last that long.
fn from_512(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    rig.flood(511)?;
    let got = answer(&rig, 0)?;
    ensure!(
        got == RESPONSE,
        "after 511 queued messages an initiation is answered with {got} bytes, wanted {RESPONSE}"
    );
    let before = Instant::now();
    rig.flood(512)?;
    // The worker started and checked the queue between these two times.
    let after = Instant::now() - MOMENT;
    let got = answer(&rig, 0)?;
    ensure!(
        got == COOKIE,
        "after 512 queued messages an initiation is answered with {got} bytes, wanted {COOKIE}"
    );
    until(before, Duration::from_millis(980));
    let got = answer(&rig, 0)?;
    ensure!(
        got == COOKIE,
        "within a second of that an initiation is answered with {got} bytes, wanted {COOKIE}"
    );
    until(after, Duration::from_millis(1020));
    let got = answer(&rig, 0)?;
    ensure!(
        got == RESPONSE,
        "over a second after that an initiation is answered with {got} bytes, wanted {RESPONSE}"
    );
    let mut session = rig.confirmed(0)?;
    ensure!(rig.accepts(0, &mut session)?, "data is not accepted");
    Ok(())
}

/// At most 4096 handshake messages are queued. Each is answered with a cookie reply: the device is
/// under load until a second after the queue has shrunk.
fn queue_4096(ctx: &Ctx) -> Result<()> {
    // A new device: the in-tree driver's queue may hold a few less once it was used.
    let rig = Rig::new(ctx, 1)?;
    let client = &rig.clients[0];
    let message = handshake::initiate(&client.keys, &client.peer, &Tweak::default()).message;
    rig.flood_with(&message, 5000)?;
    sleep(slow(SEC));
    let seen = rig.underlay.seen();
    let reply = |s: &&Seen| s.outgoing && matches!(s.message, Message::Cookie { .. });
    let got = seen.iter().filter(reply).count();
    ensure!(
        got == 4096,
        "{got} cookie replies to a burst of 5000 initiations, wanted 4096"
    );
    sleep(2 * SEC);
    let mut session = rig.confirmed(0)?;
    ensure!(rig.accepts(0, &mut session)?, "data is not accepted");
    Ok(())
}

/// A device without a private key. The in-tree driver's MAC keys are then zeros, so that a mac1
/// computed with zeros gets a cookie reply under load. Ours differs on purpose: it accepts no mac1
/// then, and sends no packet at all.
fn without_key(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    let keyed = rig.end.public_key;
    let key = rig.end.get(&rig.link)?.private_key;
    let conf = |private_key| DeviceConf {
        private_key,
        ..DeviceConf::default()
    };
    rig.end.set(&rig.link, &conf(Some([0; 32])))?;
    ensure!(
        rig.end.get(&rig.link)?.public_key.is_none(),
        "the private key is still there"
    );
    let from = SocketAddr::new(outer(false, 1), 6001);
    let stranger = Client::new(rig.link.end(1), Keys::random(), keyed, from, device(false))?;
    let mut by_zeros = vec![1, 0, 0, 0];
    by_zeros.extend_from_slice(&[0x77; 112]);
    by_zeros.extend(crypto::mac(&[0; 32], &[&by_zeros]));
    by_zeros.extend_from_slice(&[0; 16]);
    let mut sent = 0;
    for load in [false, true] {
        if load {
            rig.flood(600)?;
        }
        stranger.initiate(&Tweak::default())?;
        stranger.silence(MOMENT)?;
        stranger.send(&by_zeros)?;
        match stranger.receive(MOMENT)? {
            None => {}
            Some((bytes, _)) => {
                ensure!(
                    load && bytes.len() == COOKIE,
                    "{} bytes from a device without a key",
                    bytes.len()
                );
                sent += 1;
            }
        }
    }
    let wanted = usize::from(ctx.subject == Subject::C);
    ensure!(
        sent == wanted,
        "{sent} cookie replies from a device without a key, wanted {wanted}"
    );
    sleep(2 * SEC);
    rig.end.set(&rig.link, &conf(key))?;
    rig.works(0).context("with its key again")
}
