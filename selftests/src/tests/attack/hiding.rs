// SPDX-License-Identifier: GPL-2.0-only
//! What an observer of the underlay can learn: as little as possible.

use super::{drop_in, Test};
use anyhow::{ensure, Context, Result};
use harness::capture::Seen;
use harness::noise::{handshake, Tweak};
use harness::rig::{inside, wall_clock, Rig, WAIT};
use harness::runner::Ctx;
use harness::topo::inner;
use harness::traffic::udp;
use harness::wire::Message;
use nix::sys::socket::{setsockopt, sockopt::Ipv4Tos};
use std::collections::BTreeSet;
use std::net::SocketAddr;

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "attack-hiding", 90, hiding);
}

/// Indices are random and never repeat, nor do ephemeral keys; data is padded to a multiple of 16
/// bytes (never beyond the MTU) with zeros; of the inner TOS only ECN is visible outside.
fn hiding(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::fenced(ctx, 1)?;
    let mut indices = Vec::new();
    let mut ephemerals = BTreeSet::new();
    let mut take = |message: &[u8], at: usize| -> Result<()> {
        let index = message.get(4..).and_then(|rest| rest.first_chunk());
        indices.push(u32::from_le_bytes(*index.context("index")?));
        ensure!(
            message[message.len() - 16..] == [0; 16],
            "mac2 without a cookie"
        );
        let fresh = ephemerals.insert(message[at..at + 32].to_vec());
        ensure!(fresh, "an ephemeral key was used twice");
        Ok(())
    };
    for _ in 0..40 {
        std::thread::sleep(std::time::Duration::from_millis(25));
        let client = &scene.clients[0];
        let pending = client.initiate(&Tweak::default())?;
        take(&client.wait_response(&pending, WAIT)?, 12)?;
    }
    for _ in 0..24 {
        take(&scene.initiation(0)?, 8)?;
    }
    let distinct: BTreeSet<u32> = indices.iter().copied().collect();
    ensure!(
        distinct.len() == indices.len(),
        "an index was used twice: {indices:08x?}"
    );
    let (ones, zeros) = indices.iter().fold((0, 0), |(o, z), i| (o | i, z | !i));
    ensure!(
        (ones, zeros) == (u32::MAX, u32::MAX),
        "some bits of the indices never change: {indices:08x?}"
    );
    let close = |pair: &[u32]| pair[0].abs_diff(pair[1]) < 256;
    let close = indices.windows(2).filter(|pair| close(pair)).count();
    ensure!(
        close == 0,
        "{close} indices were close to the previous one: {indices:08x?}"
    );

    let initiation = scene.initiation(0)?;
    let client = &scene.clients[0];
    let received = handshake::receive(&client.keys, &initiation)?;
    let (mut session, response) = received.respond(&client.psk, &Tweak::default());
    client.send(&response)?;
    client.wait_data(&session, WAIT)?;
    scene.ping(0, &mut session)?;
    let from = udp(scene.link.end(0), SocketAddr::new(inner(false, 0), 0))?;
    let to = SocketAddr::new(inside(false, 0), 9);
    // The MTU is 1420, and 28 bytes of it are headers.
    for len in (0..=36).chain(1370..=1392) {
        let content = vec![0xff; len];
        from.send_to(&content, to)?;
        let (_, plain) = client.wait_data(&session, WAIT)?;
        let wanted = (len + 28).next_multiple_of(16).min(1420);
        ensure!(
            plain.len() == wanted,
            "{} bytes were padded to {}, not {wanted}",
            len + 28,
            plain.len()
        );
        ensure!(plain[28..28 + len] == content, "the content differs");
        let zeros = plain[28 + len..].iter().all(|byte| *byte == 0);
        ensure!(zeros, "the padding of {} bytes is not zeros", len + 28);
    }
    let start = wall_clock()?;
    let values = [0x00, 0x01, 0x02, 0x03, 0xb8, 0xba, 0xfd, 0xff];
    for tos in values {
        setsockopt(&from, Ipv4Tos, &tos)?;
        from.send_to(b"tos", to)?;
        client.wait_data(&session, WAIT)?;
    }
    let sent = |seen: &Seen| {
        seen.outgoing && seen.at >= start && matches!(seen.message, Message::Data { .. })
    };
    let seen = scene.underlay.wait(values.len(), WAIT, sent)?;
    let seen: Vec<u8> = seen.iter().filter(|s| sent(s)).map(|s| s.tos).collect();
    // An inner CE mark is not copied to the outer header. (The stack may clear a datagram
    // socket's ECN bits: what matters is that no other bit is visible.)
    ensure!(
        seen.len() == values.len() && seen.iter().all(|tos| tos & !3 == 0),
        "the outer TOS bytes are {seen:02x?} for inner {values:02x?}"
    );
    ctx.note(format!("outer TOS {seen:02x?} for inner {values:02x?}"));
    scene.ping(0, &mut session)
}
