// SPDX-License-Identifier: GPL-2.0-only
//! Bulk data transfer.

use super::Test;
use anyhow::Result;
use harness::modules::Modules;
use harness::runner::{Boot, Ctx, Subject};
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::tcp;
use std::net::SocketAddr;
use std::time::Duration;

pub fn register(list: &mut Vec<Test>) {
    list.push(Test {
        name: "bulk-tcp-1gib".to_owned(),
        boot: Boot::Smp,
        modules: Modules::Ours,
        subject: Subject::Rs,
        bound: Duration::from_secs(900),
        body: Box::new(gibibyte),
    });
}

/// 1 GiB over one TCP stream: every byte compared, no stall of 3 s or more.
fn gibibyte(ctx: &Ctx) -> Result<()> {
    let tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let at = SocketAddr::new(inner(false, 1), 5000);
    let stream = tcp(
        tunnel.ns(0),
        tunnel.ns(1),
        at,
        1 << 30,
        Duration::from_secs(3),
    )?;
    ctx.note(format!(
        "{:.0} Mbit/s, longest time without progress {:.0} ms",
        stream.mbits(),
        stream.longest_gap.as_secs_f64() * 1e3
    ));
    Ok(())
}
