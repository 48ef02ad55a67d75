// SPDX-License-Identifier: GPL-2.0-only
//! A peer that is removed in the middle of a handshake is gone, and so is what was made for it.

use super::Log;
use anyhow::{ensure, Result};
use harness::noise::Tweak;
use harness::rig::Rig;
use harness::runner::Ctx;
use std::thread::sleep;
use std::time::Duration;

const ROUNDS: usize = 40;
/// An initiation is answered in about this time, in microseconds.
const ANSWERED: u64 = 6000;

pub(super) fn in_handshake(ctx: &Ctx) -> Result<()> {
    let mut log = Log::new(ctx)?;
    log.switch(true)?;
    let mut scene = Rig::new(ctx, 1)?;
    for _ in 0..ROUNDS {
        scene.clients[0].initiate(&Tweak::default())?;
        sleep(Duration::from_micros(rand::random::<u64>() % ANSWERED));
        scene.reset(0)?;
    }
    for round in 0..ROUNDS {
        let what = format!("{round} of {ROUNDS} removed peers are gone");
        log.expect(&what, &["Peer N", "destroyed"])?;
    }
    let sessions = log.lines.iter().filter(|line| line.contains("Keypair"));
    ensure!(sessions.count() > 0, "no handshake came to a session");
    Ok(())
}
