// SPDX-License-Identifier: GPL-2.0-only
//! Datagrams that leave the device together: what is on the wire, and what keeps them apart.

use super::super::{drop_in, needs_ours, Test};
use super::APP;
use anyhow::{ensure, Context, Result};
use harness::capture::Capture;
use harness::modules::Modules;
use harness::noise::Session;
use harness::options::set_udp_gso;
use harness::packet::Datagram;
use harness::rig::{inside, Rig, WAIT};
use harness::runner::{Boot, Ctx, Subject};
use harness::topo::names;
use harness::traffic::set_option;
use std::net::SocketAddr;
use std::time::Duration;
use wireguard_rs::proto::extension::GENL_NAME;

type Body = fn(&Ctx) -> Result<()>;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "gso-wire", 60, on_wire);
    drop_in(list, "gso-wire-cut-by-stack", 60, cut_by_stack);
    drop_in(list, "gso-off-with-the-interface", 60, off);
    let ours: [(&str, Modules, Body); 2] = [
        ("gso-off-by-parameter", Modules::None, off_by_parameter),
        ("gso-off-by-option", Modules::Ours, off_by_option),
    ];
    for (name, modules, body) in ours {
        list.push(Test {
            name: name.to_owned(),
            boot: Boot::Smp,
            modules,
            subject: Subject::Rs,
            bound: Duration::from_secs(60),
            body: Box::new(body),
        });
    }
}

/// Sends `count` datagrams with `len` bytes each, the last with `last`, in one call.
pub(super) fn say(rig: &Rig, len: usize, count: usize, last: usize) -> Result<Vec<Vec<u8>>> {
    let total = len * (count - 1) + last;
    let data: Vec<u8> = (0..total).map(|i| (i / len + i * 7) as u8).collect();
    set_option(&rig.app, libc::SOL_UDP, libc::UDP_SEGMENT, len as i32)?;
    let to = SocketAddr::new(inside(false, 0), APP);
    ensure!(rig.app.send_to(&data, to)? == total, "not all sent");
    Ok(data.chunks(len).map(<[u8]>::to_vec).collect())
}

/// The client gets exactly the datagrams `said`, each in a message of its own, padded as it must
/// be, with ascending counters. Gives the counters.
pub(super) fn hear(rig: &Rig, session: &Session, said: &[Vec<u8>]) -> Result<Vec<u64>> {
    let mut counters = Vec::new();
    for (n, data) in said.iter().enumerate() {
        let (counter, plain) = rig.clients[0]
            .wait_data(session, WAIT)
            .with_context(|| format!("datagram {n} of {}", said.len()))?;
        ensure!(
            plain.get(28..28 + data.len()) == Some(data),
            "datagram {n} of {}: not what was sent, but {} bytes",
            said.len(),
            plain.len()
        );
        let padded = (28 + data.len()).next_multiple_of(16).min(1420);
        ensure!(plain.len() == padded, "datagram {n}: {}", plain.len());
        counters.push(counter);
    }
    let ascending = counters.windows(2).all(|pair| pair[1] == pair[0] + 1);
    ensure!(ascending, "counters {counters:?}");
    Ok(counters)
}

/// Numbers and lengths of datagrams that are at the limits of what one packet can stand for.
const RUNS: [(usize, usize, usize); 14] = [
    (1000, 1, 1000),
    (1000, 2, 1000),
    (1000, 2, 1),
    (1392, 44, 1392),
    (1392, 45, 1391),
    (1392, 46, 1392),
    (1392, 47, 100),
    (1350, 47, 1350),
    (100, 63, 100),
    (100, 64, 100),
    (100, 65, 100),
    (100, 66, 99),
    (4, 128, 4),
    (20, 128, 1),
];

fn runs(rig: &Rig) -> Result<()> {
    // Once without: only then does the device know the way.
    rig.say(0)?;
    let session = rig.clients[0].answer(WAIT)?;
    rig.clients[0].wait_data(&session, WAIT)?;
    let mut next = 1;
    for (len, count, last) in RUNS {
        let said = say(rig, len, count, last)?;
        let counters = hear(rig, &session, &said)
            .with_context(|| format!("{count} datagrams of {len}, the last of {last}"))?;
        ensure!(counters[0] == next, "counter {}, not {next}", counters[0]);
        next += count as u64;
    }
    Ok(())
}

/// Has [`runs`] pass, and gives the length of the longest frame on the underlay.
fn longest(rig: &mut Rig) -> Result<usize> {
    let index = rig.link.rt(0).index("v0")?.to_be_bytes();
    let all = Capture::of_all(rig.link.end(0))?;
    runs(rig)?;
    let frames = all.stop()?;
    // A record begins with a header of 20 bytes, which names the interface.
    let on_v0 = frames.iter().filter(|frame| frame.bytes[4..8] == index);
    Ok(on_v0.map(|frame| frame.len - 20 + 14).max().unwrap_or(0))
}

/// A receiver that knows nothing of offloads gets every message, whatever their number and length.
fn on_wire(ctx: &Ctx) -> Result<()> {
    let longest = longest(&mut Rig::new(ctx, 1)?)?;
    let together = longest > 60_000;
    ensure!(
        together == (ctx.subject == Subject::Rs),
        "the longest frame has {longest} bytes"
    );
    Ok(())
}

/// With `udp_gso=0` every message is sent in a packet of its own.
fn off_by_parameter(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    ctx.env.load_ours("udp_gso=0")?;
    let longest = longest(&mut Rig::new(ctx, 1)?)?;
    ensure!(longest <= 1514, "the longest frame has {longest} bytes");
    Ok(())
}

/// The same where it is switched off for the device; and then on again.
fn off_by_option(ctx: &Ctx) -> Result<()> {
    needs_ours(ctx)?;
    let mut rig = Rig::new(ctx, 1)?;
    let switch = |rig: &Rig, on| {
        rig.link
            .end(0)
            .run(|| Ok(set_udp_gso(GENL_NAME, names(0).0, on)?))
    };
    switch(&rig, false)?;
    let longest_off = longest(&mut rig)?;
    ensure!(
        longest_off <= 1514,
        "the longest frame has {longest_off} bytes"
    );
    drop(rig);
    let mut rig = Rig::new(ctx, 1)?;
    switch(&rig, false)?;
    switch(&rig, true)?;
    let longest_on = longest(&mut rig)?;
    ensure!(
        longest_on > 60_000,
        "on again, but the longest frame has {longest_on} bytes"
    );
    Ok(())
}

/// The same where the interface takes no packets that stand for several: what the stack cuts are
/// datagrams with a header each, with consecutive identifications, and none is longer than the MTU.
fn cut_by_stack(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    rig.link.rt(0).set_gso_max_segs("v0", 1)?;
    let longest = longest(&mut rig)?;
    ensure!(longest <= 1514, "the longest frame has {longest} bytes");
    let frames = rig.underlay.frames();
    let frames = frames.lock().expect("poisoned");
    let mut ids = Vec::new();
    for frame in frames.iter().filter(|frame| frame.outgoing) {
        let Some(datagram) = Datagram::in_frame(&frame.bytes) else {
            continue;
        };
        ensure!(!datagram.df, "don't fragment is set");
        ids.push(u16::from_be_bytes([frame.bytes[18], frame.bytes[19]]));
    }
    let in_order = |ids: &[u16]| ids[1] == ids[0].wrapping_add(1);
    let count = ids.windows(2).filter(|ids| in_order(ids)).count();
    // Each packet of the device begins anew, after the time that has passed; there are two or three
    // for the longest runs.
    ensure!(
        ctx.subject == Subject::C || count + 3 * RUNS.len() > ids.len(),
        "identifications {ids:?}"
    );
    Ok(())
}

/// With segmentation offload switched off on the interface, every frame on it is one datagram.
fn off(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    rig.link.end(0).sh("ethtool -K v0 gso off")?;
    let longest = longest(&mut rig)?;
    ensure!(longest <= 1514, "the longest frame has {longest} bytes");
    Ok(())
}
