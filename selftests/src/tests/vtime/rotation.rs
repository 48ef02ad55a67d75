// SPDX-License-Identifier: GPL-2.0-only
//! The three keypair slots, and how sessions move through them.

use super::{drop_in, Test, SEC};
use anyhow::{ensure, Context, Result};
use harness::noise::{Keys, Session, Tweak};
use harness::rig::{Rig, MOMENT};
use harness::runner::{until, Ctx};
use harness::wgdev::DeviceConf;
use std::thread::sleep;
use std::time::Instant;

pub(super) fn register(list: &mut Vec<Test>) {
    drop_in(
        list,
        &[
            ("vtime-keypairs-responder", 120, responder),
            ("vtime-keypairs-initiator", 400, initiator),
            ("vtime-keypairs-new-key", 120, new_key),
        ],
    );
}

/// The device and its only client, with all their sessions, numbered from 1.
struct Scene {
    rig: Rig,
    sessions: Vec<Session>,
}

impl Scene {
    fn new(ctx: &Ctx) -> Result<Self> {
        Ok(Scene {
            rig: Rig::new(ctx, 1)?,
            sessions: Vec::new(),
        })
    }

    /// The client initiates the next session and does not confirm it.
    fn client_initiates(&mut self) -> Result<()> {
        let session = self.rig.respond(0, &Tweak::default())?;
        self.sessions
            .push(session.context("no response to an initiation")?);
        Ok(())
    }

    /// The device initiates the next session, for a datagram that it sends.
    fn device_initiates(&mut self) -> Result<()> {
        self.rig.clients[0].flush()?;
        self.rig.say(0)?;
        self.sessions.push(self.rig.clients[0].answer(SEC)?);
        sleep(MOMENT);
        Ok(())
    }

    /// A keepalive in session `n`, corrupted if `damage` is not 0.
    fn keepalive(&mut self, n: usize, damage: u8) -> Result<()> {
        let mut message = self.sessions[n - 1].data(&[]);
        message[20] ^= damage;
        self.rig.clients[0].send(&message)?;
        sleep(MOMENT);
        Ok(())
    }

    /// Whether the device accepts data in session `n`.
    fn accepts(&mut self, n: usize) -> Result<bool> {
        self.rig.accepts(0, &mut self.sessions[n - 1])
    }

    /// The device sends in session `current` and accepts data only in those of `accepted`.
    fn expect(
        &mut self,
        when: &str,
        current: usize,
        accepted: &[usize],
        refused: &[usize],
    ) -> Result<()> {
        let all: Vec<&Session> = self.sessions.iter().collect();
        let under = self.rig.sends_under(0, &all)?.map(|n| n + 1);
        ensure!(
            under == Some(current),
            "{when}: the device sends in session {under:?}, wanted {current}"
        );
        for (list, wanted) in [(accepted, true), (refused, false)] {
            for &n in list {
                let got = self.accepts(n)?;
                ensure!(
                    got == wanted,
                    "{when}: data in session {n} is accepted: {got}"
                );
            }
        }
        Ok(())
    }
}

/// The device as responder. A new session becomes next and displaces the previous one; the first
/// data in it makes it current, and the current one previous.
fn responder(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.client_initiates()?;
    ensure!(
        scene.rig.sends_under(0, &[&scene.sessions[0]])?.is_none(),
        "the device sends in an unconfirmed session"
    );
    ensure!(
        scene.accepts(1)?,
        "data in the first session is not accepted"
    );
    scene.client_initiates()?;
    scene.expect("1 is current, 2 is next", 1, &[1], &[])?;
    ensure!(
        scene.accepts(2)?,
        "data in the second session is not accepted"
    );
    scene.expect("2 confirmed: 1 is previous", 2, &[1, 2], &[])?;
    scene.client_initiates()?;
    scene.expect("3 is next: 1 is displaced", 2, &[2], &[1])?;
    scene.client_initiates()?;
    scene.expect("4 is next in place of 3", 2, &[2], &[3])?;
    scene.keepalive(4, 0)?;
    let when = "4 confirmed by a keepalive: 2 is previous";
    scene.expect(when, 4, &[2, 4], &[1, 3])?;
    scene.client_initiates()?;
    scene.keepalive(5, 1)?;
    let when = "5 is next; a forged packet for it confirms nothing";
    scene.expect(when, 4, &[4], &[2])
}

/// The device as initiator. The new session becomes current at once; the current one becomes
/// previous, unless there is a next one: then that becomes previous and the current one is dropped.
fn initiator(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let start = Instant::now();
    let first = scene.rig.initiated(0)?;
    scene.sessions.push(first);
    scene.expect("1 is current", 1, &[1], &[])?;
    // After 120 s sending makes it initiate again.
    until(start, 121 * SEC);
    scene.device_initiates()?;
    scene.expect("2 is current, 1 previous", 2, &[1, 2], &[])?;
    let start = Instant::now();
    until(start, 115 * SEC);
    scene.client_initiates()?;
    scene.expect("3 is next: 1 is displaced", 2, &[2], &[1])?;
    // The response delays an initiation by 5 s.
    until(start, 122 * SEC);
    scene.device_initiates()?;
    let when = "4 is current; 3, which was next, is previous";
    scene.expect(when, 4, &[3, 4], &[2])
}

/// With a new private key nothing more is sent, neither in the current session nor in the
/// unconfirmed one, not even once it is confirmed; both still receive.
fn new_key(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.client_initiates()?;
    ensure!(
        scene.accepts(1)?,
        "data in the first session is not accepted"
    );
    scene.client_initiates()?;
    scene.expect("1 is current, 2 is next", 1, &[1], &[])?;
    let keys = Keys::random();
    let conf = DeviceConf {
        private_key: Some(keys.private),
        ..DeviceConf::default()
    };
    scene.rig.end.set(&scene.rig.link, &conf)?;
    let sent = |scene: &Scene| {
        let sent = scene.rig.seen(0);
        sent.iter()
            .filter(|s| s.outgoing && s.data_len().is_some())
            .count()
    };
    let before = sent(&scene);
    scene.rig.say(0)?;
    sleep(MOMENT);
    ensure!(scene.accepts(1)?, "data in 1 is refused after a new key");
    ensure!(
        scene.accepts(2)?,
        "data in 2, which confirms it, is refused"
    );
    ensure!(scene.accepts(1)?, "data in 1 is refused after that");
    scene.rig.say(0)?;
    sleep(MOMENT);
    let more = sent(&scene) - before;
    ensure!(more == 0, "{more} data messages were sent after a new key");
    // Staged packets are sent in a session made with the new key.
    scene.rig.clients[0].peer = keys.public;
    scene.client_initiates()?;
    scene.keepalive(3, 0)?;
    scene.expect("3 is made with the new key", 3, &[2, 3], &[1])
}
