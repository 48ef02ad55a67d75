// SPDX-License-Identifier: GPL-2.0-only
//! Passive and persistent keepalives.

use super::{data, drop_in, initiations, Scene, Test, SEC};
use anyhow::{bail, ensure, Context, Result};
use harness::noise::Tweak;
use harness::rig::{Rig, MOMENT};
use harness::runner::{until, within, Ctx};
use harness::wgdev::PeerConf;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) fn register(list: &mut Vec<Test>) {
    drop_in(
        list,
        &[
            ("vtime-passive-keepalive-once", 200, passive_once),
            ("vtime-persistent-keepalive-rearm", 400, persistent_rearm),
            ("vtime-persistent-keepalive-change", 200, persistent_change),
        ],
    );
}

/// An end that only receives sends one keepalive after 10 s; a keepalive is not answered.
pub(super) fn passive_keepalive(ctx: &Ctx) -> Result<()> {
    let scene = Scene::new(ctx)?;
    scene.handshake(1)?;
    sleep(60 * SEC);
    let seen = scene.underlay.seen();
    let got = *data(&seen, false, 64).first().context("no data received")?;
    let sent = data(&seen, true, 32);
    let [keepalive] = sent.as_slice() else {
        bail!("{} keepalives sent", sent.len())
    };
    within("keepalive after", *keepalive - got, 9.999, 10.8)?;
    // The initiator confirms the session with its data; it never sends a keepalive of its own.
    ensure!(
        data(&seen, false, 32).is_empty(),
        "the keepalive was answered"
    );
    // Traffic in the other direction makes it unnecessary.
    scene.send(1)?;
    sleep(5 * SEC);
    scene.send(0)?;
    sleep(4 * SEC);
    let after = data(&scene.underlay.seen(), true, 32);
    sleep(3 * SEC);
    ensure!(
        after.len() == 1,
        "a keepalive although there was data to send"
    );
    ensure!(
        data(&scene.underlay.seen(), true, 32).len() == 1,
        "a keepalive despite data"
    );
    Ok(())
}

/// A persistent keepalive of 25 s on an idle link, and the handshakes that it needs.
pub(super) fn persistent_keepalive(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.tunnel.set_peer(
        0,
        PeerConf {
            keepalive: Some(25),
            ..PeerConf::default()
        },
    )?;
    sleep(400 * SEC);
    let seen = scene.underlay.seen();
    let keepalives = data(&seen, true, 32);
    let Some(first_session) = keepalives.get(..5) else {
        bail!("{} keepalives", keepalives.len())
    };
    for pair in first_session.windows(2) {
        let [a, b] = pair else { continue };
        within("time between keepalives", *b - *a, 24.999, 28.2)?;
    }
    let times = initiations(&seen);
    ensure!(
        (3..=4).contains(&times.len()),
        "{} handshakes in 400 s",
        times.len()
    );
    for pair in times.windows(2) {
        let [a, b] = pair else { continue };
        within("time between handshakes", *b - *a, 119.9, 150.0)?;
    }
    ensure!(
        data(&seen, false, 32).is_empty(),
        "keepalives were answered"
    );
    Ok(())
}

/// Data received while a keepalive is already pending does not change it: one is sent, 10 s after
/// the first data.
fn passive_once(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    let mut session = rig.confirmed(0)?;
    sleep(25 * SEC); // the keepalive for the data just sent
    let before = data(&rig.seen(0), true, 32).len();
    let first = Instant::now();
    let at = wall();
    for tick in [0, 3, 6] {
        until(first, tick * SEC);
        ensure!(rig.accepts(0, &mut session)?, "data is not accepted");
    }
    sleep(50 * SEC);
    let sent = data(&rig.seen(0), true, 32);
    let [one] = &sent[before..] else {
        bail!(
            "{} keepalives after data at 0, 3 and 6 s, wanted one",
            sent.len() - before
        )
    };
    within("keepalive after the first data", *one - at, 9.99, 10.8)
}

fn wall() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock after 1970")
}

/// Any authenticated packet in either direction postpones the persistent keepalive: keepalives,
/// data, handshakes. Forged ones do not.
fn persistent_rearm(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    let mut session = rig.confirmed(0)?;
    sleep(15 * SEC); // the passive keepalive for that data
    let conf = PeerConf {
        public_key: rig.clients[0].keys.public,
        keepalive: Some(25),
        ..PeerConf::default()
    };
    rig.end.set_peer(&rig.link, conf)?;
    sleep(MOMENT);
    let count = |rig: &Rig| data(&rig.seen(0), true, 32).len();
    let last = |rig: &Rig| data(&rig.seen(0), true, 32).last().copied();
    // One is sent at once when it is enabled.
    let age = wall() - last(&rig).context("no keepalive when it is enabled")?;
    within("age of the last keepalive when enabled", age, 0.0, 0.2)?;
    let mut next = None;
    // Each is sent 18 s after the previous packet; without it a keepalive would be due at 25 s.
    for (what, authentic) in [
        ("a keepalive from the peer", true),
        ("data to the peer", true),
        ("an initiation and its response", true),
        ("a forged keepalive", false),
    ] {
        let mut base = last_traffic(&rig)?;
        sleep((base + 18 * SEC).saturating_sub(wall()));
        let before = count(&rig);
        match what {
            "a keepalive from the peer" => rig.clients[0].send(&session.data(&[]))?,
            "data to the peer" => {
                rig.say(0)?;
                sleep(10 * SEC);
                ensure!(
                    count(&rig) == before,
                    "{what} does not postpone the keepalive"
                );
                // Answered late, but before the silence causes a new handshake.
                rig.clients[0].send(&session.data(&[]))?;
            }
            "an initiation and its response" => next = rig.respond(0, &Tweak::default())?,
            _ => {
                let mut forged = session.data(&[]);
                forged[20] ^= 1;
                rig.clients[0].send(&forged)?;
            }
        }
        sleep(MOMENT);
        if authentic {
            base = last_traffic(&rig)?;
        }
        sleep((base + 30 * SEC).saturating_sub(wall()));
        let sent = count(&rig) - before;
        ensure!(
            sent == 1,
            "{sent} keepalives in the 30 s since the last packet ({what}), wanted 1"
        );
        // The timer wheel fires up to 2 s late for this interval.
        let at = last(&rig).context("no keepalive")?;
        let name = format!("keepalive after the last authentic packet ({what})");
        within(&name, at - base, 24.99, 27.2)?;
        if let Some(confirmed) = next.take() {
            session = confirmed;
            rig.clients[0].send(&session.data(&[]))?;
            sleep(MOMENT);
        }
    }
    Ok(())
}

/// A new interval applies from the next packet on, which may be the keepalive due by the old
/// interval; once disabled, that is not sent either.
fn persistent_change(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 4)?;
    let mut sessions = Vec::new();
    for k in 0..4 {
        sessions.push(rig.confirmed(k)?);
    }
    sleep(15 * SEC); // the passive keepalives for that data
    let before: Vec<usize> = (0..4).map(|k| data(&rig.seen(k), true, 32).len()).collect();
    let mut set = |seconds: [u16; 4]| -> Result<()> {
        for (client, seconds) in rig.clients.iter().zip(seconds) {
            let conf = PeerConf {
                public_key: client.keys.public,
                keepalive: Some(seconds),
                ..PeerConf::default()
            };
            rig.end.set_peer(&rig.link, conf)?;
        }
        Ok(())
    };
    let start = Instant::now();
    set([25, 25, 5, 25])?;
    until(start, 2 * SEC);
    set([5, 5, 25, 0])?;
    until(start, 3 * SEC);
    rig.clients[1].send(&sessions[1].data(&[]))?;
    until(start, 60 * SEC);
    // The bounds of the timer wheel for 5 s and for 25 s.
    let (five, much) = ((4.999, 5.3), (24.999, 27.2));
    for (k, what, wanted) in [
        (0, "25 to 5 s", &[much, five, five, five, five][..]),
        (
            1,
            "25 to 5 s, then a packet",
            &[(7.9, 8.4), five, five, five],
        ),
        (2, "5 to 25 s", &[five, much]),
        (3, "25 s to none", &[]),
    ] {
        let sent = data(&rig.seen(k), true, 32).split_off(before[k]);
        ensure!(
            sent.len() > wanted.len(),
            "{what}: {} keepalives in 60 s, wanted more than {}",
            sent.len(),
            wanted.len()
        );
        for (pair, (low, high)) in sent.windows(2).zip(wanted) {
            within(
                &format!("{what}: time between keepalives"),
                pair[1] - pair[0],
                *low,
                *high,
            )?;
        }
        ensure!(
            k != 3 || sent.len() == 1,
            "{} keepalives after {what}, wanted only the first one",
            sent.len()
        );
    }
    Ok(())
}

/// The time of the last message in either direction.
fn last_traffic(rig: &Rig) -> Result<Duration> {
    Ok(rig.seen(0).last().context("no traffic at all")?.at)
}
