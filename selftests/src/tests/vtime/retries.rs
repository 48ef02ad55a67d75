// SPDX-License-Identifier: GPL-2.0-only
//! When handshakes start and are retried.

use super::{data, drop_in, initiations, Scene, Test, SEC};
use anyhow::{bail, ensure, Context, Result};
use harness::noise::Tweak;
use harness::pace::SENT;
use harness::rig::{Rig, MOMENT};
use harness::runner::{until, within, Ctx};
use harness::wire::Message;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) fn register(list: &mut Vec<Test>) {
    drop_in(
        list,
        &[
            ("vtime-new-handshake-15s", 300, new_handshake_15s),
            ("vtime-initiation-once-per-5s", 200, once_per_5s),
            ("vtime-retry-void-after-response", 200, void_after_response),
            ("vtime-staged-128-oldest-dropped", 300, staged_128),
        ],
    );
}

/// An unanswered handshake: twenty initiations, each 5 s plus jitter after the last, then silence,
/// and the staged packets are dropped.
pub(super) fn handshake_retries(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.mute_both(true)?;
    for _ in 0..3 {
        scene.send(0)?;
    }
    let dropped = scene.tunnel.rt(0).stats("wg0")?.tx_dropped;
    ensure!(dropped == 0, "{dropped} packets were dropped at once");
    sleep(300 * SEC);
    let times = initiations(&scene.underlay.seen());
    ensure!(times.len() == 20, "{} initiations", times.len());
    let mut gaps = Vec::new();
    for pair in times.windows(2) {
        let [a, b] = pair else { continue };
        within(
            "time between initiations",
            *b - *a,
            4.999,
            5.0 + 0.334 + 0.7,
        )?;
        gaps.push(*b - *a);
    }
    gaps.sort();
    let spread = gaps[gaps.len() - 1] - gaps[0];
    ensure!(
        spread > Duration::from_millis(20),
        "the retries have no jitter: {gaps:?}"
    );
    let dropped = scene.tunnel.rt(0).stats("wg0")?.tx_dropped;
    ensure!(
        dropped == 3,
        "{dropped} of 3 staged packets were dropped after the last attempt"
    );
    // The peer is back: only packets sent from now on arrive.
    scene.mute_both(false)?;
    scene.send(0)?;
    scene
        .underlay
        .wait(1, 10 * SEC, |s| s.data_len() == Some(64))?;
    let got = scene.received(1)?;
    ensure!(got == 1, "{got} datagrams arrived where 1 was sent");
    Ok(())
}

/// No answer to data for 15 s plus jitter: a new handshake, whichever side initiated the session.
/// A second packet does not postpone it.
fn new_handshake_15s(ctx: &Ctx) -> Result<()> {
    // The timer wheel has steps of a quarter of a second for this interval, so that many jitters
    // make no difference.
    const CLIENTS: usize = 40;
    let rig = Rig::new(ctx, CLIENTS)?;
    for k in 0..CLIENTS {
        if k % 2 == 0 {
            rig.initiated(k)?;
        } else {
            rig.confirmed(k)?;
        }
    }
    sleep(15 * SEC); // the passive keepalives
    let before = (0..CLIENTS).map(|k| rig.initiations(k).len());
    let before: Vec<usize> = before.collect();
    for _ in 0..2 {
        for k in 0..CLIENTS {
            rig.say(k)?;
        }
        sleep(SEC);
    }
    sleep(17 * SEC);
    let mut waits = Vec::new();
    for (k, before) in before.into_iter().enumerate() {
        let seen = rig.seen(k);
        let (sent, times) = (data(&seen, true, 64), initiations(&seen));
        let ([.., lost, _], Some(new)) = (sent.as_slice(), times.get(before)) else {
            bail!(
                "client {k}: {} data messages, {} initiations",
                sent.len(),
                times.len()
            )
        };
        let wait = new.saturating_sub(*lost);
        within(
            "initiation after unanswered data",
            wait,
            14.999,
            15.0 + 0.334 + 0.7,
        )?;
        waits.push(wait);
    }
    waits.sort();
    let spread = waits[waits.len() - 1] - waits[0];
    ensure!(
        spread > Duration::from_millis(150),
        "there is no jitter: {waits:?}"
    );
    Ok(())
}

/// However much there is to send, two initiations are at least 5 s apart, and so are a response
/// and the next initiation.
fn once_per_5s(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    let demand = |time: Duration| -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            rig.say(0)?;
            sleep(Duration::from_millis(40));
        }
        Ok(())
    };
    demand(16 * SEC)?;
    let times = rig.initiations(0);
    ensure!(
        times.len() == 4,
        "{} initiations in 16 s of demand, wanted 4",
        times.len()
    );
    for pair in times.windows(2) {
        let [a, b] = pair else { continue };
        within(
            "time between initiations under demand",
            *b - *a,
            4.992,
            5.06,
        )?;
    }
    // The device's response counts like an initiation. The client never confirms the session.
    sleep(Duration::from_millis(4000));
    rig.respond(0, &Tweak::default())?
        .context("no response to the client's initiation")?;
    let seen = rig.seen(0);
    let response = seen
        .iter()
        .rev()
        .find(|s| matches!(s.message, Message::Response { .. }))
        .context("no response on the underlay")?;
    demand(8 * SEC)?;
    let times = rig.initiations(0);
    let next = times.iter().find(|at| **at > response.at);
    let next = *next.context("no initiation after the response")?;
    within(
        "initiation after a response",
        next - response.at,
        4.992,
        5.06,
    )?;
    Ok(())
}

/// A retry that is due less than 5 s after a response of ours is suppressed, and with it the whole
/// series of attempts: only new demand starts a handshake again.
fn void_after_response(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    rig.say(0)?;
    sleep(2 * SEC);
    let mut session = rig
        .respond(0, &Tweak::default())?
        .context("no response to the client's initiation")?;
    sleep(120 * SEC);
    let times = rig.initiations(0);
    ensure!(
        times.len() == 1,
        "{} initiations in 122 s, of which the client initiated at 2 s; wanted one. At {:?}",
        times.len(),
        times.iter().map(|t| *t - times[0]).collect::<Vec<_>>()
    );
    // The staged packet is not lost: it is sent when the client confirms its session,
    rig.clients[0].flush()?;
    rig.clients[0].send(&session.data(&[]))?;
    rig.clients[0]
        .wait_data(&session, SEC)
        .context("the staged datagram was not sent after the client confirmed its session")?;
    sleep(SENT);
    rig.clients[0].send(&session.data(&[]))?;
    // and new demand starts a handshake, here because the session has expired by then.
    sleep(70 * SEC);
    rig.say(0)?;
    sleep(MOMENT);
    let count = rig.initiations(0).len();
    ensure!(
        count == 2,
        "{count} initiations when a datagram followed after the session's end, wanted 2"
    );
    Ok(())
}

/// Without a session 128 packets are staged; each further one displaces the oldest. After the last
/// attempt all are dropped. Both count as tx_dropped.
fn staged_128(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    let dropped = |rig: &mut Rig| -> Result<u64> { Ok(rig.link.rt(0).stats("wg0")?.tx_dropped) };
    for n in 1..=140u64 {
        rig.say(0)?;
        let (got, wanted) = (dropped(&mut rig)?, n.saturating_sub(129));
        ensure!(
            got == wanted,
            "{got} packets dropped when {n} had been sent, wanted {wanted}"
        );
    }
    let start = Instant::now();
    until(start, 90 * SEC);
    ensure!(
        dropped(&mut rig)? == 11,
        "packets dropped before the last attempt"
    );
    until(start, 130 * SEC);
    let count = rig.initiations(0).len();
    ensure!(count == 20, "{count} initiations, wanted 20");
    let got = dropped(&mut rig)?;
    ensure!(
        got == 140,
        "{got} packets dropped after the last attempt, wanted all 140"
    );
    // The next datagram starts over.
    rig.initiated(0)?;
    Ok(())
}
