// SPDX-License-Identifier: GPL-2.0-only
//! Events of the machine: its clock is set back, it suspends or hibernates, it is forked.

use super::{drop_in, initiations, Scene, Test, SEC};
use anyhow::{ensure, Context, Result};
use harness::noise::{handshake, Session, Tweak};
use harness::rig::{Rig, MOMENT};
use harness::runner::{until, Ctx};
use harness::suspend::rehearse;
use harness::wire::Message;
use nix::time::{clock_gettime, clock_settime, ClockId};
use std::fs;
use std::thread::sleep;
use std::time::Instant;

pub(super) fn register(list: &mut Vec<Test>) {
    super::side_by_side(
        list,
        "vtime-clock-set-back",
        super::Boot::Vtime,
        600,
        clock_set_back,
    );
    drop_in(
        list,
        &[
            ("vtime-suspend-wipes-keys", 200, suspend),
            ("vtime-hibernation-wipes-keys", 200, hibernate),
            ("vtime-vm-fork-stops-sending", 200, vm_fork),
        ],
    );
}

/// Restores the wall clock when dropped.
struct SetBack(i64);

impl SetBack {
    /// Sets the wall clock back by `secs`.
    fn new(secs: i64) -> Result<Self> {
        shift(-secs).context("set the clock back")?;
        Ok(SetBack(secs))
    }
}

impl Drop for SetBack {
    fn drop(&mut self) {
        let _ = shift(self.0);
    }
}

fn shift(secs: i64) -> Result<()> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
    let by = nix::sys::time::TimeSpec::new(secs, 0);
    Ok(clock_settime(ClockId::CLOCK_REALTIME, now + by)?)
}

/// A wall clock set back makes the peer refuse our initiations, and changes nothing else: sessions
/// keep their lifetime, timers run, and initiations from the other side are accepted.
fn clock_set_back(ctx: &Ctx) -> Result<()> {
    let scene = Scene::new(ctx)?;
    scene.handshake(0)?;
    let start = Instant::now();
    let back = SetBack::new(3600)?;
    let both_ways = |when: &str| -> Result<()> {
        for n in 0..2 {
            scene.send(n)?;
            let got = scene.received(1 - n)?;
            ensure!(
                got == 1,
                "{when}: {got} of 1 datagrams from end {n} arrived"
            );
        }
        Ok(())
    };
    let responses = || {
        let seen = scene.underlay.seen();
        let is = |s: &&harness::capture::Seen| matches!(s.message, Message::Response { .. });
        seen.iter().filter(is).count()
    };
    for tick in (5..176).step_by(5) {
        until(start, tick * SEC);
        both_ways(&format!("{tick} s after the clock was set back"))?;
    }
    let tries = initiations(&scene.underlay.seen()).len() - 1;
    ensure!(
        (9..=12).contains(&tries),
        "{tries} initiations from 120 s to 175 s, wanted one every 5 s"
    );
    ensure!(
        responses() == 1,
        "{} responses: an initiation with an older timestamp was answered",
        responses()
    );
    // The session has expired; the other side, which has never initiated, makes a new one.
    until(start, 185 * SEC);
    scene.send(1)?;
    let got = scene.received(0)?;
    ensure!(
        got == 1 && responses() == 2,
        "the other side's first initiation was refused ({got} datagrams, {} responses)",
        responses()
    );
    both_ways("after the other side's initiation")?;
    // With the clock restored, everything works again.
    drop(back);
    until(start, 400 * SEC);
    scene.send(0)?;
    let got = scene.received(1)?;
    ensure!(
        got == 1 && responses() == 3,
        "with the clock restored an initiation was refused ({got} datagrams, {} responses)",
        responses()
    );
    Ok(())
}

/// The state before the event: a session with the device as initiator (client 0), one with the
/// device as responder and another that waits to be confirmed (client 1), and an unanswered
/// initiation of the device (client 2).
struct Before {
    rig: Rig,
    initiated: Session,
    responded: Session,
    next: Session,
    open: Vec<u8>,
}

impl Before {
    fn new(ctx: &Ctx) -> Result<Self> {
        let rig = Rig::new(ctx, 3)?;
        let mut initiated = rig.initiated(0)?;
        let mut responded = rig.confirmed(1)?;
        ensure!(
            rig.accepts(0, &mut initiated)? && rig.accepts(1, &mut responded)?,
            "data is not accepted"
        );
        // Long enough for the next initiation to be allowed.
        sleep(6 * SEC);
        rig.say(2)?;
        let open = rig.clients[2].wait_initiation(SEC)?;
        let next = rig
            .respond(1, &Tweak::default())?
            .context("no response to client 1")?;
        Ok(Before {
            rig,
            initiated,
            responded,
            next,
            open,
        })
    }

    /// Responds to the initiation from before the event. True if the device accepts it.
    fn answer_open(&self) -> Result<bool> {
        let client = &self.rig.clients[2];
        client.flush()?;
        let received = handshake::receive(&client.keys, &self.open)?;
        let (mut session, response) = received.respond(&[0; 32], &Tweak::default());
        client.send(&response)?;
        sleep(MOMENT);
        self.rig.accepts(2, &mut session)
    }

    /// Every client gets a new session within 6 s.
    fn recovers(&self) -> Result<()> {
        for k in 0..3 {
            let mut session = self
                .rig
                .initiated(k)
                .with_context(|| format!("a new session with client {k}"))?;
            ensure!(
                self.rig.accepts(k, &mut session)?,
                "data in the new session with client {k} is not accepted"
            );
        }
        Ok(())
    }
}

fn suspend(ctx: &Ctx) -> Result<()> {
    sleeping(ctx, "freeze")
}

fn hibernate(ctx: &Ctx) -> Result<()> {
    sleeping(ctx, "disk")
}

/// Suspending erases all sessions and the handshakes in progress; afterwards new ones are made.
fn sleeping(ctx: &Ctx, how: &str) -> Result<()> {
    let mut before = Before::new(ctx)?;
    rehearse(how)?;
    for (what, k, session) in [
        ("the session it had initiated", 0, &mut before.initiated),
        ("the session it had responded to", 1, &mut before.responded),
        ("the session not confirmed yet", 1, &mut before.next),
    ] {
        ensure!(
            !before.rig.accepts(k, session)?,
            "data in {what} is accepted after {how}"
        );
    }
    ensure!(
        !before.answer_open()?,
        "the response to an initiation from before {how} is accepted"
    );
    let under = before.rig.sends_under(0, &[&before.initiated])?;
    ensure!(under.is_none(), "data is sent in the old session");
    ensure!(
        before.rig.initiations(0).len() == 2,
        "no initiation for the first datagram after {how}"
    );
    before.recovers()
}

/// A forked machine may share its sessions with another one: nothing more is sent in them, though
/// received data is still accepted; handshakes in progress are dropped, and a new one may start at
/// once.
fn vm_fork(ctx: &Ctx) -> Result<()> {
    let mut before = Before::new(ctx)?;
    // See scripts/guest: reading this file changes the machine's generation identifier.
    let file = "/sys/bus/acpi/devices/WGRS0001:00/sun";
    fs::read_to_string(file).with_context(|| file.to_owned())?;
    sleep(MOMENT);
    ensure!(
        !before.answer_open()?,
        "the response to an initiation from before the fork is accepted"
    );
    for (what, k, session) in [
        ("the session it had initiated", 0, &mut before.initiated),
        ("the session it had responded to", 1, &mut before.responded),
        ("the session not confirmed yet", 1, &mut before.next),
    ] {
        ensure!(
            before.rig.accepts(k, session)?,
            "data in {what} is not accepted after the fork"
        );
    }
    let under = [
        before.rig.sends_under(0, &[&before.initiated])?,
        before
            .rig
            .sends_under(1, &[&before.responded, &before.next])?,
    ];
    ensure!(
        under == [None, None],
        "data is sent in sessions from before the fork: {under:?}"
    );
    // Client 2 got the last initiation, and client 1 the last response, a moment ago: the fork
    // resets the rate limit.
    before.rig.say(2)?;
    sleep(MOMENT);
    let counts = [0, 1, 2].map(|k| before.rig.initiations(k).len());
    ensure!(
        counts == [2, 1, 2],
        "{counts:?} initiations to the three clients, wanted a new one to each: [2, 1, 2]"
    );
    sleep(6 * SEC);
    before.recovers()
}
