// SPDX-License-Identifier: GPL-2.0
//! Under load: from when on, for how long, and what a device without a key says then.

use super::rig::{device, Rig, MOMENT};
use super::{drop_in, Test, SEC};
use crate::harness::capture::Seen;
use crate::harness::noise::{crypto, handshake, Client, Keys, Tweak};
use crate::harness::pace::slow;
use crate::harness::runner::{until, Ctx, Subject};
use crate::harness::topo::outer;
use crate::harness::wgdev::DeviceConf;
use crate::harness::wire::Message;
use anyhow::{ensure, Context, Result};
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

/// Length of the answer to a fresh initiation of client `k` without mac2; 0 without an answer.
fn answer(rig: &Rig, k: usize) -> Result<usize> {
    rig.clients[k].flush()?;
    let pending = rig.clients[k].initiate(&Tweak::default())?;
    Ok(rig.answer(k, &pending)?.map_or(0, |bytes| bytes.len()))
}

const RESPONSE: usize = 92;
const COOKIE: usize = 64;

/// A queue of 511 handshake messages is no load, one of 512 is, and it counts for a second after
/// the queue was last that long.
fn from_512(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    rig.flood(511)?;
    let got = answer(&rig, 0)?;
    ensure!(
        got == RESPONSE,
        "after 511 messages in the queue an initiation is answered by {got} bytes, wanted {RESPONSE}"
    );
    let before = Instant::now();
    rig.flood(512)?;
    // The worker began, and looked at the queue, between these two.
    let after = Instant::now() - MOMENT;
    let got = answer(&rig, 0)?;
    ensure!(
        got == COOKIE,
        "after 512 messages in the queue an initiation is answered by {got} bytes, wanted {COOKIE}"
    );
    until(before, Duration::from_millis(980));
    let got = answer(&rig, 0)?;
    ensure!(
        got == COOKIE,
        "within a second of that an initiation is answered by {got} bytes, wanted {COOKIE}"
    );
    until(after, Duration::from_millis(1020));
    let got = answer(&rig, 0)?;
    ensure!(
        got == RESPONSE,
        "more than a second after that an initiation is answered by {got} bytes, wanted {RESPONSE}"
    );
    let mut session = rig.session(0)?;
    ensure!(rig.accepts(0, &mut session)?, "data is not accepted");
    Ok(())
}

/// 4096 handshake messages wait, and no more. Each is answered with a cookie: a queue like that is a
/// load, and for a second what is left of it is, too.
fn queue_4096(ctx: &Ctx) -> Result<()> {
    // A fresh device: the in-tree driver's queue may hold some less once it was used.
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
        "{got} cookie replies to 5000 initiations at a time, wanted 4096"
    );
    sleep(2 * SEC);
    let mut session = rig.session(0)?;
    ensure!(rig.accepts(0, &mut session)?, "data is not accepted");
    Ok(())
}

/// A device without a private key. The in-tree driver's keys for the MACs are zeros then, so that
/// who computes mac1 with zeros gets a cookie reply out of it under load. Ours holds no mac1 valid
/// then, on purpose: not a packet leaves a device without a key.
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
