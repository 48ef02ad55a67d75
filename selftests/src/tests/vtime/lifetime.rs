// SPDX-License-Identifier: GPL-2.0-only
//! The lifetime of a session: rekeying, expiry at 180 s, erasure at 540 s.

use super::{data, drop_in, initiations, Scene, Test, SEC};
use anyhow::{bail, ensure, Context, Result};
use harness::capture::{seen, Capture, Captured, Injector};
use harness::noise::{cookie, handshake, Session, Tweak};
use harness::rig::{Rig, MOMENT};
use harness::runner::{until, within, Ctx};
use harness::topo::inner;
use harness::traffic::ping_all;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) fn register(list: &mut Vec<Test>) {
    drop_in(
        list,
        &[
            ("vtime-responder-never-rekeys", 600, responder_never_rekeys),
            ("vtime-rekey-165s-receive", 400, rekey_165s_receive),
            ("vtime-wipe-540s", 900, wipe_540s),
            ("vtime-last-handshake-time", 300, last_handshake_time),
        ],
    );
}

/// With steady traffic from the initiator the session is renewed 120 s after it was made, by the
/// initiator only, and no packet is lost.
pub(super) fn rekey_120s(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let born = scene.handshake(0)?;
    let first = scene.tunnel.peer(0)?.last_handshake;
    let start = Instant::now();
    let mut arrived = 0;
    for tick in 1..=260 {
        until(start, tick * SEC);
        scene.send(0)?;
        arrived += scene.received(1)?;
    }
    ensure!(arrived == 260, "{arrived} of 260 datagrams arrived");
    let last = scene.tunnel.peer(0)?.last_handshake;
    within(
        "latest handshake moved by",
        last.saturating_sub(first),
        240.0,
        252.0,
    )?;
    let seen = scene.underlay.seen();
    let times = initiations(&seen);
    let [_, second, third] = times.as_slice() else {
        bail!("{} initiations in 260 s", times.len())
    };
    within("second initiation after", *second - born, 119.9, 126.0)?;
    within(
        "third initiation after the second",
        *third - *second,
        119.9,
        126.0,
    )?;
    let theirs = seen
        .iter()
        .filter(|s| !s.outgoing && s.is_initiation())
        .count();
    ensure!(theirs == 0, "the responder initiated {theirs} times");
    Ok(())
}

/// An hour of steady traffic: thirty sessions, nothing lost.
pub(super) fn rekey_hour(ctx: &Ctx) -> Result<()> {
    let scene = Scene::new(ctx)?;
    scene.handshake(0)?;
    let start = Instant::now();
    let mut arrived = [0; 2];
    for tick in 1..=900u32 {
        until(start, tick * 4 * SEC);
        scene.send(0)?;
        scene.send(1)?;
        arrived[1] += scene.received(1)?;
        arrived[0] += scene.received(0)?;
    }
    ensure!(
        arrived == [900, 900],
        "{arrived:?} of 900 datagrams arrived"
    );
    let count = initiations(&scene.underlay.seen()).len();
    ensure!((29..=31).contains(&count), "{count} initiations in an hour");
    Ok(())
}

/// Nothing is sent in a session older than 180 s, even if there is no other.
pub(super) fn death_180s_send(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let born = scene.handshake(0)?;
    let start = Instant::now();
    for tick in 1..=240 {
        until(start, tick * SEC);
        if tick == 30 {
            scene.mute_both(true)?;
        }
        scene.send(0)?;
        scene.received(1)?;
    }
    let seen = scene.underlay.seen();
    let sent = data(&seen, true, 64);
    let last = sent
        .last()
        .context("no data was sent")?
        .saturating_sub(born);
    within("last data message after", last, 177.0, 180.1)?;
    // The retries went on meanwhile: the end did not stop sending altogether.
    let late = initiations(&seen)
        .iter()
        .filter(|at| **at > born + 181 * SEC)
        .count();
    ensure!(late >= 5, "only {late} initiations after the session's end");
    // The peer is back: staged packets are sent in a new session.
    scene.mute_both(false)?;
    scene.underlay.wait(sent.len() + 1, 10 * SEC, |s| {
        s.outgoing && s.data_len() == Some(64)
    })?;
    ensure!(
        scene.received(1)? > 0,
        "nothing arrived after the peer's return"
    );
    Ok(())
}

/// Nothing is accepted in a session older than 180 s: held back messages are injected before and
/// after.
pub(super) fn death_180s_receive(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.handshake(0)?;
    let start = Instant::now();
    let back = Capture::start(scene.tunnel.ns(1), "v1")?;
    until(start, 5 * SEC);
    scene.mute_both(true)?;
    for tick in 10..40 {
        until(start, tick * SEC);
        scene.send(1)?;
    }
    ensure!(scene.received(0)? == 0, "muting does not work");
    let kept: Vec<Captured> = back
        .stop()?
        .into_iter()
        .filter(|f| f.outgoing && seen(f).and_then(|s| s.data_len()) == Some(64))
        .collect();
    ensure!(
        kept.len() == 30,
        "{} of 30 messages were held back",
        kept.len()
    );
    let injector = Injector::open(scene.tunnel.ns(1), "v1")?;
    let mut frames = kept.into_iter();
    for (at, accepted) in [
        (60, 1),
        (120, 1),
        (170, 1),
        (178, 1),
        (182, 0),
        (200, 0),
        (400, 0),
    ] {
        until(start, at * SEC);
        let mut frame = frames.next().context("no frame left")?.bytes;
        frame[..6].copy_from_slice(&harness::topo::mac(0));
        // Captured before the UDP checksum was filled in; zero means none.
        frame[40..42].fill(0);
        injector.send(&frame)?;
        let got = scene.received(0)?;
        ensure!(
            got == accepted,
            "{got} datagrams from a message injected at {at} s"
        );
    }
    // A new session takes its place.
    scene.mute_both(false)?;
    ping_all(scene.tunnel.ns(1), inner(false, 0), 1)?;
    ping_all(scene.tunnel.ns(0), inner(false, 1), 1)
}

/// The responder uses a session past 120 s, sending and receiving, without initiating, as long as
/// it is answered.
fn responder_never_rekeys(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    let mut session = rig.confirmed(0)?;
    let start = Instant::now();
    for tick in 115..=175 {
        until(start, tick * SEC);
        ensure!(
            rig.sends_under(0, &[&session])? == Some(0),
            "nothing is sent in the session at {tick} s"
        );
        // Answer: silence would also cause a handshake.
        ensure!(
            rig.accepts(0, &mut session)?,
            "data is not accepted at {tick} s"
        );
        let count = rig.initiations(0).len();
        ensure!(
            count == 0,
            "the responder initiated at a session age of {tick} s"
        );
    }
    until(start, 181 * SEC);
    rig.say(0)?;
    rig.clients[0]
        .wait_initiation(SEC)
        .context("no initiation for a datagram after the session's end")?;
    Ok(())
}

/// An initiator that only receives starts a handshake at 165 s, and does so once: what follows is
/// the regular retry.
fn rekey_165s_receive(ctx: &Ctx) -> Result<()> {
    const OURS: usize = 4; // initiated by the device; client 4 initiates itself
    let rig = Rig::new(ctx, OURS + 1)?;
    let mut sessions = Vec::new();
    for k in 0..OURS {
        sessions.push(rig.initiated(k)?);
    }
    sessions.push(rig.confirmed(OURS)?);
    let start = Instant::now();
    let initiated = |k: usize| rig.initiations(k).len();
    let all = |sessions: &mut [Session]| -> Result<()> {
        for (k, session) in sessions.iter_mut().enumerate() {
            ensure!(
                rig.accepts(k, session)?,
                "data from client {k} is not accepted"
            );
        }
        Ok(())
    };
    // The device's passive keepalives for this are sent long before 120 s.
    until(start, 60 * SEC);
    all(&mut sessions)?;
    until(start, 160 * SEC);
    all(&mut sessions)?;
    for k in 0..=OURS {
        let wanted = usize::from(k < OURS);
        ensure!(
            initiated(k) == wanted,
            "{} initiations to client {k} before 165 s, wanted {wanted}",
            initiated(k)
        );
    }
    until(start, 167 * SEC);
    let at = Instant::now();
    for (k, session) in sessions.iter_mut().enumerate() {
        rig.send_data(k, session)?;
    }
    sleep(MOMENT);
    for k in 0..OURS {
        ensure!(
            initiated(k) == 2,
            "{} initiations to client {k} at 167 s, wanted the first and another",
            initiated(k)
        );
    }
    // If it were not only once, each of these would start one as soon as 5 s have passed.
    for step in 0..30u32 {
        until(at, 4900 * MS + step * 20 * MS);
        for (k, session) in sessions.iter_mut().enumerate() {
            rig.send_data(k, session)?;
        }
    }
    until(at, 6 * SEC);
    let mut latest = Duration::ZERO;
    for k in 0..OURS {
        let times = rig.initiations(k);
        let [_, second, third] = times.as_slice() else {
            bail!("{} initiations to client {k} by 173 s", times.len())
        };
        within("retry after", *third - *second, 4.999, 5.7)?;
        latest = latest.max(*third - *second);
    }
    ensure!(
        latest > Duration::from_millis(5060),
        "all {OURS} retries came at most {latest:?} after the initiation: they are not retries"
    );
    ensure!(
        initiated(OURS) == 0,
        "the responder initiated at a session age of 167 s"
    );
    Ok(())
}

const MS: Duration = Duration::from_millis(1);

/// All keys are erased 540 s after the last session was made. A cookie reply shows this: it is
/// accepted only if its index belongs to an existing session, and then the next initiation has a
/// second MAC.
fn wipe_540s(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 3)?;
    let cookie_in = [7; 16];
    let mut last = Vec::new();
    for k in 0..3 {
        rig.initiated(k)?;
        last.push(initiation_bytes(&rig, k)?);
    }
    let start = Instant::now();
    // Client 2's session is renewed.
    until(start, 300 * SEC);
    rig.initiated(2)?;
    last[2] = initiation_bytes(&rig, 2)?;
    // The timer wheel fires at most 16.4 s late.
    for (k, at) in [(0, 539), (1, 558), (2, 558)] {
        until(start, at * SEC);
        let client = &rig.clients[k];
        client.send(&cookie::reply(&client.keys.public, &last[k], &cookie_in))?;
    }
    sleep(MOMENT);
    for (k, kept) in [(0, true), (1, false), (2, true)] {
        rig.clients[k].flush()?;
        rig.say(k)?;
        let message = rig.clients[k].wait_initiation(SEC)?;
        let mac2 = &message[132..];
        let used = mac2 == cookie::mac2(&message[..132], &cookie_in);
        ensure!(
            used == kept,
            "client {k}: a cookie reply to its session's index was {}accepted: the session is {}",
            if used { "" } else { "not " },
            if used { "still there" } else { "gone" }
        );
        ensure!(
            used || mac2 == [0; 16],
            "client {k}: mac2 neither uses the cookie nor is zero"
        );
    }
    // A new session works like the first.
    let mut session = rig.confirmed(1)?;
    ensure!(
        rig.sends_under(1, &[&session])? == Some(0),
        "nothing is sent after the keys were erased and a new session made"
    );
    ensure!(
        rig.accepts(1, &mut session)?,
        "nothing is accepted in the new session"
    );
    Ok(())
}

/// The last initiation that the device sent to client `k`, as captured on the underlay.
fn initiation_bytes(rig: &Rig, k: usize) -> Result<Vec<u8>> {
    let frames = rig.underlay.frames();
    let frames = frames.lock().expect("poisoned");
    let to_client = |f: &&Captured| {
        seen(f)
            .is_some_and(|s| s.outgoing && s.is_initiation() && s.dst == harness::rig::outside(k))
    };
    let frame = frames.iter().rev().find(to_client);
    let frame = frame.with_context(|| format!("no initiation to client {k}"))?;
    // Behind the Ethernet, IPv4 and UDP headers.
    Ok(frame.bytes[42..].to_vec())
}

/// The last handshake time: zero before the first handshake; for the initiator the time of the
/// response, for the responder that of the first data in the new session. No other packet changes
/// it.
fn last_handshake_time(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 2)?;
    let is = |rig: &mut Rig, k: usize| -> Result<Duration> { Ok(rig.peer(k)?.last_handshake) };
    let wall = || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("a clock after 1970")
    };
    ensure!(is(&mut rig, 0)?.is_zero(), "a handshake before the first");

    // The device as responder.
    let mut session = rig
        .respond(0, &Tweak::default())?
        .context("no response to an initiation")?;
    ensure!(
        is(&mut rig, 0)?.is_zero(),
        "a handshake is reported although the initiator has confirmed nothing"
    );
    sleep(3 * SEC);
    let before = wall();
    ensure!(rig.accepts(0, &mut session)?, "data is not accepted");
    let told = is(&mut rig, 0)?;
    ensure!(
        (before..=wall()).contains(&told),
        "last handshake at {told:?}; the first data was received between {before:?} and {:?}",
        wall()
    );
    sleep(2 * SEC);
    rig.accepts(0, &mut session)?;
    rig.sends_under(0, &[&session])?;
    ensure!(
        is(&mut rig, 0)? == told,
        "data changed the last handshake time"
    );

    // The device as initiator.
    rig.clients[1].flush()?;
    rig.say(1)?;
    let initiation = rig.clients[1].wait_initiation(SEC)?;
    sleep(2 * SEC);
    ensure!(
        is(&mut rig, 1)?.is_zero(),
        "a handshake is reported although there was no response"
    );
    let received = handshake::receive(&rig.clients[1].keys, &initiation)?;
    let (_, response) = received.respond(&[0; 32], &Tweak::default());
    let before = wall();
    rig.clients[1].send(&response)?;
    sleep(MOMENT);
    let told = is(&mut rig, 1)?;
    ensure!(
        (before..=wall()).contains(&told),
        "last handshake at {told:?}; the response was received between {before:?} and {:?}",
        wall()
    );
    rig.link.rt(0).set_up("wg0", false)?;
    rig.link.rt(0).set_up("wg0", true)?;
    ensure!(
        is(&mut rig, 1)? == told,
        "down and up changed the last handshake time"
    );
    Ok(())
}
