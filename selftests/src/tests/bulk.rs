// SPDX-License-Identifier: GPL-2.0
//! Much data.

use super::Test;
use crate::harness::modules::Modules;
use crate::harness::runner::{Boot, Ctx, Subject};
use crate::harness::topo::{inner, Opts, Tunnel};
use crate::harness::traffic::tcp;
use anyhow::Result;
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

/// 1 GiB over one TCP stream, every byte compared, never 3 s without progress.
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
