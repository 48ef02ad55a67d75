// SPDX-License-Identifier: GPL-2.0
//! What happens to the machine: its clock is set back, it suspends or hibernates, it is forked.

use super::rig::{Rig, MOMENT};
use super::{drop_in, initiations, Scene, Test, SEC};
use crate::harness::noise::{handshake, Session, Tweak};
use crate::harness::runner::{until, Ctx};
use crate::harness::suspend::rehearse;
use crate::harness::wire::Message;
use anyhow::{ensure, Context, Result};
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

/// Puts the wall clock right again when dropped.
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

/// A wall clock set back makes the peer refuse the initiations of who has used it so far, and
/// changes nothing else: sessions live on for their time, timers run, and initiations from the
/// other side are taken.
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
        let is = |s: &&crate::harness::capture::Seen| matches!(s.message, Message::Response { .. });
        seen.iter().filter(is).count()
    };
    for tick in (5..176).step_by(5) {
        until(start, tick * SEC);
        both_ways(&format!("{tick} s after the clock was set back"))?;
    }
    let tries = initiations(&scene.underlay.seen()).len() - 1;
    ensure!(
        (9..=12).contains(&tries),
        "{tries} initiations from 120 s to 175 s, wanted one each 5 s"
    );
    ensure!(
        responses() == 1,
        "{} responses: an initiation with an older timestamp was answered",
        responses()
    );
    // The session is over; the other side, which has never initiated, makes another.
    until(start, 185 * SEC);
    scene.send(1)?;
    let got = scene.received(0)?;
    ensure!(
        got == 1 && responses() == 2,
        "the other side's first initiation is refused ({got} datagrams, {} responses)",
        responses()
    );
    both_ways("after the other side's initiation")?;
    // With the clock right again there is no difference any more.
    drop(back);
    until(start, 400 * SEC);
    scene.send(0)?;
    let got = scene.received(1)?;
    ensure!(
        got == 1 && responses() == 3,
        "with the clock right again an initiation is refused ({got} datagrams, {} responses)",
        responses()
    );
    Ok(())
}

/// What there is when something happens: a session with the device as initiator (client 0), one as
/// responder with another that waits to be confirmed (client 1), an initiation of the device's own
/// that was not answered yet (client 2).
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
        let mut responded = rig.session(1)?;
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

    /// Answers the initiation that was sent before. True if the device takes it.
    fn answer_open(&self) -> Result<bool> {
        let client = &self.rig.clients[2];
        client.flush()?;
        let received = handshake::receive(&client.keys, &self.open)?;
        let (mut session, response) = received.respond(&[0; 32], &Tweak::default());
        client.send(&response)?;
        sleep(MOMENT);
        self.rig.accepts(2, &mut session)
    }

    /// Every client gets a new session, at most 6 s from now.
    fn recovers(&self) -> Result<()> {
        for k in 0..3 {
            let mut session = self
                .rig
                .initiated(k)
                .with_context(|| format!("a new session with client {k}"))?;
            ensure!(
                self.rig.accepts(k, &mut session)?,
                "data under the new session with client {k} is not accepted"
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

/// Going to sleep erases all sessions and the handshakes under way; afterwards all start anew.
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
            "data under {what} is accepted after {how}"
        );
    }
    ensure!(
        !before.answer_open()?,
        "the response to an initiation from before {how} is taken"
    );
    let under = before.rig.sends_under(0, &[&before.initiated])?;
    ensure!(under.is_none(), "data is sent under the old session");
    ensure!(
        before.rig.initiations(0).len() == 2,
        "no initiation for the first datagram after {how}"
    );
    before.recovers()
}

/// A machine that was forked may share its sessions with another: nothing is sent under them any
/// more, though what comes is still taken; the handshakes under way are void, and the next may
/// start at once.
fn vm_fork(ctx: &Ctx) -> Result<()> {
    let mut before = Before::new(ctx)?;
    // See scripts/guest: reading this gives the machine another generation identifier.
    let file = "/sys/bus/acpi/devices/WGRS0001:00/sun";
    fs::read_to_string(file).with_context(|| file.to_owned())?;
    sleep(MOMENT);
    ensure!(
        !before.answer_open()?,
        "the response to an initiation from before the fork is taken"
    );
    for (what, k, session) in [
        ("the session it had initiated", 0, &mut before.initiated),
        ("the session it had responded to", 1, &mut before.responded),
        ("the session not confirmed yet", 1, &mut before.next),
    ] {
        ensure!(
            before.rig.accepts(k, session)?,
            "data under {what} is not accepted after the fork"
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
        "data is sent under sessions from before the fork: {under:?}"
    );
    // Client 2 had the last initiation, and client 1 the last response, a moment ago: that does
    // not count any more.
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
