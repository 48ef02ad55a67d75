// SPDX-License-Identifier: GPL-2.0-only
//! Bulk traffic over underlays of every kind. Whatever is done there to packets that stand for many
//! messages, all content arrives, and ordinary datagrams are on the wire.

use super::load::USUAL;
use super::underlays::{Scene, Underlay, UNDERLAYS};
use super::wire::{Tap, Wire};
use crate::tests::{side_by_side, Test};
use anyhow::{ensure, Context, Result};
use harness::capture::{Capture, Captured};
use harness::driver::{Driver, PLAIN};
use harness::runner::{Boot, Ctx, Subject};

pub fn register(list: &mut Vec<Test>) {
    for underlay in &UNDERLAYS {
        let name = format!("gso-under-{}", underlay.name);
        let body = move |ctx: &Ctx| over(ctx, underlay);
        side_by_side(list, &name, Boot::Config, 90, body);
    }
}

/// Between two devices of the driver under test, and to one of the in-tree driver.
fn over(ctx: &Ctx, underlay: &'static Underlay) -> Result<()> {
    let own = ctx.against_intree()[0];
    let mut pairs = vec![[own, own]];
    if own != PLAIN {
        pairs.push([own, PLAIN]);
    }
    for drivers in pairs {
        between(ctx, underlay, drivers).with_context(|| format!("to {:?}", drivers[1].kind))?;
    }
    Ok(())
}

fn between(ctx: &Ctx, underlay: &'static Underlay, drivers: [Driver; 2]) -> Result<()> {
    let mut scene = Scene::new(underlay, drivers)?;
    let tap = Tap::new(scene.tunnel.ns(0), "v0")?;
    for &v6 in underlay.families {
        let what = || format!("IPv6 outside: {v6}");
        scene.set_family(v6).with_context(what)?;
        pass(ctx, &mut scene, &tap).with_context(what)?;
    }
    scene.check()
}

fn pass(ctx: &Ctx, scene: &mut Scene, tap: &Tap) -> Result<()> {
    let (ends, underlay) = ([scene.tunnel.ns(0), scene.tunnel.ns(1)], scene.underlay);
    let wire = tap.start(ends[0])?;
    let sent = Capture::of_all(ends[0])?;
    USUAL.pass(ends)?;
    let sent = sent.stop()?;
    let wire = Wire::of(&wire.stop()?, underlay.mtu)?;
    let longest = longest(&sent, scene.tunnel.rt(0).index("v0")?, true);
    ensure!(
        ctx.subject == Subject::C || underlay.together.is_none_or(|is| is == (longest > 20_000)),
        "the longest packet to the wire: {longest} bytes"
    );
    let count = wire.datagrams.len();
    ensure!(
        (wire.macsec > 250) == (underlay.name == "macsec"),
        "{} frames of MACsec",
        wire.macsec
    );
    if underlay.esp {
        ensure!(wire.esp > 250, "{} packets of IPsec", wire.esp);
        return Ok(());
    }
    ensure!(
        (wire.reassembled > 150) == underlay.fragments,
        "{} of {count} datagrams in fragments",
        wire.reassembled
    );
    let messages = wire.datagrams.iter();
    let messages = messages.filter(|datagram| datagram.dst.port() == scene.wire_port());
    for message in messages.clone() {
        let marks = (message.tos, message.ttl);
        ensure!(
            !message.df && underlay.marks.is_none_or(|wanted| wanted == marks),
            "a message with DF {}, TOS and TTL {marks:?}",
            message.df
        );
    }
    let count = messages.count();
    ensure!(count > 250, "{count} messages on the wire");
    Ok(())
}

/// The length of the longest packet that interface `index` has sent or received, among a record's.
pub(super) fn longest(record: &[Captured], index: u32, sent: bool) -> usize {
    // A record begins with a header of 20 bytes, which names the interface.
    let index = index.to_be_bytes();
    let frames = record
        .iter()
        .filter(|f| f.outgoing == sent && f.bytes[4..8] == index);
    frames.map(|frame| frame.len - 20).max().unwrap_or(0)
}
