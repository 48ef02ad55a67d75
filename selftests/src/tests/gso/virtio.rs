// SPDX-License-Identifier: GPL-2.0-only
//! Bulk traffic over virtio network cards, which cut what they are given themselves or leave that
//! to the stack, and whose driver joins what it receives (GRO).

use super::load::USUAL;
use super::under::longest;
use super::wire::{Tap, Wire};
use crate::tests::{side_by_side, Test};
use anyhow::{bail, ensure, Context, Result};
use harness::capture::Capture;
use harness::cmd;
use harness::driver::{Driver, PLAIN};
use harness::nics::{Nics, PLAIN_WIRE};
use harness::runner::{Boot, Ctx, Skip};
use harness::topo::{inner, names, outer, port, Link, Opts, Tunnel};
use harness::traffic::ping_all;
use harness::wgdev::PeerConf;
use std::net::SocketAddr;

/// How the cards are used.
struct Case {
    name: &'static str,
    /// Which cards.
    wire: u8,
    /// Shell script for card `$v`.
    script: &'static str,
    /// Messages of our device reach the card together, if that is certain.
    sent_together: Option<bool>,
    /// Messages reach our device together, if they come from ours, if that is certain.
    received_together: Option<bool>,
}

static CASES: [Case; 6] = [
    Case {
        name: "uso",
        wire: 0,
        script: "",
        sent_together: Some(true),
        received_together: Some(true),
    },
    // The stack cuts, the receiver's GRO joins.
    Case {
        name: "gro",
        wire: 0,
        script: "ethtool -K $v tx-udp-segmentation off",
        sent_together: None,
        received_together: Some(true),
    },
    Case {
        name: "no-gro",
        wire: 0,
        script: "ethtool -K $v tx-udp-segmentation off gro off",
        sent_together: None,
        received_together: Some(false),
    },
    Case {
        name: "no-offloads",
        wire: 0,
        script: "ethtool -K $v rx off tx off sg off tso off gso off gro off",
        sent_together: Some(false),
        received_together: Some(false),
    },
    Case {
        name: "queues",
        wire: 0,
        script: "ethtool -L $v combined 2",
        sent_together: Some(true),
        received_together: Some(true),
    },
    Case {
        name: "plain",
        wire: PLAIN_WIRE,
        script: "",
        sent_together: Some(false),
        received_together: Some(true),
    },
];

pub fn register(list: &mut Vec<Test>) {
    for case in &CASES {
        let name = format!("gso-virtio-{}", case.name);
        side_by_side(list, &name, Boot::Config, 90, move |ctx: &Ctx| {
            run(ctx, case)
        });
    }
}

/// Between two devices of the driver under test, and to one of the in-tree driver.
fn run(ctx: &Ctx, case: &'static Case) -> Result<()> {
    let own = ctx.against_intree()[0];
    let mut pairs = vec![[own, own]];
    if own != PLAIN {
        pairs.push([own, PLAIN]);
    }
    for drivers in pairs {
        between(ctx, case, drivers).with_context(|| format!("to {:?}", drivers[1].kind))?;
    }
    Ok(())
}

fn between(ctx: &Ctx, case: &'static Case, drivers: [Driver; 2]) -> Result<()> {
    let nics = Nics::of_wire(case.wire)?;
    if case.wire != PLAIN_WIRE && !nics.have_offloads()? {
        bail!(Skip("the guest's network cards do no offloads".to_owned()));
    }
    let link = Link::over(&nics)?;
    for n in 0..2 {
        let script = format!("v={}\n{}", names(n).1, case.script);
        link.end(n).run(|| cmd::run(&["bash", "-ec", &script]))?;
    }
    let mut tunnel = Tunnel::over(link, &Opts::new(drivers))?;
    let tap = Tap::new(tunnel.ns(0), "v0")?;
    for v6 in [false, true] {
        for n in 0..2 {
            let peer = PeerConf {
                endpoint: Some(SocketAddr::new(outer(v6, 1 - n), port(1 - n))),
                ..PeerConf::default()
            };
            tunnel.set_peer(n, peer)?;
        }
        let what = || format!("IPv6 outside: {v6}");
        ping_all(tunnel.ns(0), inner(false, 1), 1).with_context(what)?;
        pass(ctx, (case, drivers), &mut tunnel, &tap).with_context(what)?;
    }
    Ok(())
}

fn pass(
    ctx: &Ctx,
    (case, drivers): (&Case, [Driver; 2]),
    tunnel: &mut Tunnel,
    tap: &Tap,
) -> Result<()> {
    let wire = tap.start(tunnel.ns(0))?;
    let [sent, received] = [0, 1].map(|n| Capture::of_all(tunnel.ns(n)));
    let (sent, received) = (sent?, received?);
    USUAL.pass([tunnel.ns(0), tunnel.ns(1)])?;
    let wire = Wire::of(&wire.stop()?, 1500)?;
    let messages = wire.datagrams.iter().filter(|d| d.dst.port() == port(1));
    let count = messages.count();
    ensure!(count > 250, "{count} messages on the wire");
    let sent = longest(&sent.stop()?, tunnel.rt(0).index("v0")?, true);
    let received = longest(&received.stop()?, tunnel.rt(1).index("v1")?, false);
    ctx.note(format!(
        "the longest packet: sent {sent}, received {received} bytes"
    ));
    let is_ours = drivers.map(|driver| driver != PLAIN);
    let right = |is: usize, wanted: Option<bool>| wanted.is_none_or(|wanted| wanted == (is > 1500));
    ensure!(
        !is_ours[0] || right(sent, case.sent_together),
        "the longest packet that was sent: {sent} bytes"
    );
    ensure!(
        is_ours != [true; 2] || right(received, case.received_together),
        "the longest packet that was received: {received} bytes"
    );
    Ok(())
}
