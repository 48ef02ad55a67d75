// SPDX-License-Identifier: GPL-2.0
//! The three places for keypairs, and how sessions move through them.

use super::rig::{Rig, MOMENT};
use super::{drop_in, Test, SEC};
use crate::harness::noise::{Session, Tweak};
use crate::harness::runner::{until, Ctx};
use anyhow::{ensure, Context, Result};
use std::thread::sleep;
use std::time::Instant;

pub(super) fn register(list: &mut Vec<Test>) {
    drop_in(
        list,
        &[
            ("vtime-keypairs-responder", 120, responder),
            ("vtime-keypairs-initiator", 400, initiator),
        ],
    );
}

/// An unconfirmed session of an initiation by the client.
fn unconfirmed(rig: &Rig) -> Result<Session> {
    rig.respond(0, &Tweak::default())?
        .context("no response to an initiation")
}

/// Data under each session is accepted or not, as wanted; `sending`: the one to send under.
fn state(
    rig: &Rig,
    when: &str,
    sessions: &mut [(&str, &mut Session, bool)],
    sending: Option<&str>,
) -> Result<()> {
    let refs: Vec<&Session> = sessions.iter().map(|(_, s, _)| &**s).collect();
    let under = rig.sends_under(0, &refs)?.map(|n| sessions[n].0);
    ensure!(
        under == sending,
        "{when}: the device sends under {under:?}, wanted {sending:?}"
    );
    for (name, session, wanted) in sessions.iter_mut() {
        let got = rig.accepts(0, session)?;
        ensure!(
            got == *wanted,
            "{when}: data under {name} is {}accepted",
            if got { "" } else { "not " }
        );
    }
    Ok(())
}

/// The device as responder. A new session waits as the next one, and costs the previous one its
/// place; the first data under it makes it current, and what was current previous.
fn responder(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    let mut one = unconfirmed(&rig)?;
    // Nothing is sent under it before it is confirmed.
    ensure!(
        rig.sends_under(0, &[&one])?.is_none(),
        "the device sends under a session that nobody has confirmed"
    );
    ensure!(rig.accepts(0, &mut one)?, "data under the first session");
    let mut two = unconfirmed(&rig)?;
    let when = "one is current, two is next";
    state(&rig, when, &mut [("one", &mut one, true)], Some("one"))?;
    ensure!(rig.accepts(0, &mut two)?, "data under the second session");
    state(
        &rig,
        "two confirmed: one is previous",
        &mut [("one", &mut one, true), ("two", &mut two, true)],
        Some("two"),
    )?;
    let mut three = unconfirmed(&rig)?;
    state(
        &rig,
        "three is next: one has lost its place",
        &mut [("one", &mut one, false), ("two", &mut two, true)],
        Some("two"),
    )?;
    let mut four = unconfirmed(&rig)?;
    state(
        &rig,
        "four is next in place of three",
        &mut [("three", &mut three, false), ("two", &mut two, true)],
        Some("two"),
    )?;
    // A keepalive confirms as well as data.
    rig.clients[0].send(&four.data(&[]))?;
    sleep(MOMENT);
    state(
        &rig,
        "four confirmed by a keepalive: two is previous",
        &mut [
            ("one", &mut one, false),
            ("two", &mut two, true),
            ("three", &mut three, false),
            ("four", &mut four, true),
        ],
        Some("four"),
    )?;
    // A forged packet confirms nothing.
    let mut five = unconfirmed(&rig)?;
    let mut forged = five.data(&[]);
    forged[20] ^= 1;
    rig.clients[0].send(&forged)?;
    sleep(MOMENT);
    state(
        &rig,
        "five is next, a forged packet came for it",
        &mut [("two", &mut two, false), ("four", &mut four, true)],
        Some("four"),
    )
}

/// The device as initiator. The new session is current at once; what was current becomes
/// previous, or, if a next one was waiting, that does and the current one is gone.
fn initiator(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    let start = Instant::now();
    let mut one = rig.initiated(0)?;
    state(
        &rig,
        "one is current",
        &mut [("one", &mut one, true)],
        Some("one"),
    )?;
    // Past 120 s sending makes it initiate anew.
    until(start, 121 * SEC);
    rig.clients[0].flush()?;
    rig.say(0)?;
    let mut two = rig.clients[0].answer(SEC)?;
    sleep(MOMENT);
    state(
        &rig,
        "two is current, one previous",
        &mut [("one", &mut one, true), ("two", &mut two, true)],
        Some("two"),
    )?;
    let start = Instant::now();
    until(start, 115 * SEC);
    let mut three = unconfirmed(&rig)?;
    state(
        &rig,
        "three is next: one has lost its place",
        &mut [("one", &mut one, false), ("two", &mut two, true)],
        Some("two"),
    )?;
    // The response holds an initiation back for 5 s.
    until(start, 122 * SEC);
    rig.clients[0].flush()?;
    rig.say(0)?;
    let mut four = rig.clients[0].answer(SEC)?;
    sleep(MOMENT);
    state(
        &rig,
        "four is current in spite of three, which waited as next and is previous now",
        &mut [
            ("two", &mut two, false),
            ("three", &mut three, true),
            ("four", &mut four, true),
        ],
        Some("four"),
    )
}
