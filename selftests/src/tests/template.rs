// SPDX-License-Identifier: GPL-2.0-only
//! What these tests have in common.

use super::{drop_in, Test};
use anyhow::{ensure, Result};
use harness::runner::Ctx;
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::ping_all;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "template-ping", 60, ping);
}

/// What must be true, and where that comes from: a section of the whitepaper, an RFC, a bug.
fn ping(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 3)?;
    let peer = tunnel.peer(0)?;
    ensure!(
        peer.rx_bytes > 0,
        "nothing counted after three pings: {peer:?}"
    );
    Ok(())
}
