// SPDX-License-Identifier: GPL-2.0-only
//! Inner packets that an authenticated peer must not send: another's source address, wrong
//! lengths, anything but IP.

use super::{drop_in, Test};
use anyhow::{ensure, Result};
use harness::noise::packet;
use harness::rig::{inside, tagged, Errors, Rig};
use harness::runner::Ctx;
use harness::topo::inner;
use harness::wgdev::PeerConf;
use std::net::{IpAddr, SocketAddr};

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "attack-source-spoofing", 60, spoofing);
    drop_in(list, "attack-false-inside", 60, false_inside);
}

/// `packet`, zero-padded to a multiple of 16 bytes.
fn padded(mut packet: Vec<u8>) -> Vec<u8> {
    packet.resize(packet.len().next_multiple_of(16), 0);
    packet
}

/// The longest prefix across the whole device that matches the inner source must belong to the
/// sender: each refused packet is counted and none is delivered.
fn spoofing(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::fenced(ctx, 2)?;
    // Client 0 owns a network with a hole in it that is client 1's.
    let net = |k: usize, prefix: &str, len: u8| -> Result<PeerConf> {
        Ok(PeerConf {
            public_key: scene.clients[k].keys.public,
            allowed_ips: vec![(prefix.parse::<IpAddr>()?, len)],
            ..PeerConf::default()
        })
    };
    let confs = [
        net(0, "10.77.0.0", 16)?,
        net(1, "10.77.1.0", 24)?,
        net(0, "fd77::", 32)?,
        net(1, "fd77:0:1::", 48)?,
    ];
    for conf in confs {
        scene.end.set_peer(&scene.link, conf)?;
    }
    // Packets from owned addresses outside the device's subnets are delivered, but not answered.
    let mut sessions = [scene.session(0)?, scene.session(1)?];
    let sink = scene.sink()?;
    let from = |ip: &str, tag: u64| -> Result<Vec<u8>> {
        let ip: IpAddr = ip.parse()?;
        let [src, dst] = [ip, inner(ip.is_ipv6(), 0)].map(|ip| SocketAddr::new(ip, 9000));
        Ok(packet::udp(src, dst, &tag.to_le_bytes()))
    };
    let before = scene.errors()?;
    let rx = scene.peer(0)?.rx_bytes;
    let mine = inside(false, 0).to_string();
    let theirs = inside(false, 1).to_string();
    let theirs6 = inside(true, 1).to_string();
    let own = inner(false, 0).to_string();
    let cases: &[(usize, &str, bool)] = &[
        (0, &mine, true),
        (1, &mine, false),
        (0, &theirs, false),
        (0, &theirs6, false),
        (0, &own, false),
        (0, "10.77.0.1", true),
        (0, "10.77.1.1", false),
        (1, "10.77.1.1", true),
        (1, "10.77.2.1", false),
        (1, "10.77.0.255", false),
        (0, "fd77:0:1::5", false),
        (1, "fd77:0:2::5", false),
        (0, "10.78.0.1", false),
        (0, "127.0.0.1", false),
        (0, "0.0.0.0", false),
        (0, "255.255.255.255", false),
        (0, "::1", false),
        (0, "::", false),
        (1, &theirs, true),
    ];
    let mut wanted = Vec::new();
    for (n, (k, src, taken)) in cases.iter().enumerate() {
        let message = sessions[*k].data(&from(src, n as u64)?);
        scene.clients[*k].send(&message)?;
        if *taken {
            // The stack routes replies by source: without a route the datagram may be martian.
            wanted.push(n as u64);
        }
    }
    // The two peers' packets are not ordered among each other.
    for (k, session) in sessions.iter_mut().enumerate() {
        let end = session.data(&tagged(k, 1000 + k as u64));
        scene.clients[k].send(&end)?;
    }
    let mut got = Vec::new();
    while got.iter().filter(|tag| **tag >= 1000).count() < 2 {
        let next = sink.next()?;
        got.push(next);
    }
    got.retain(|tag| *tag < 1000);
    got.sort();
    let name = |tags: &[u64]| -> Vec<String> {
        let case = |n: &u64| {
            cases
                .get(*n as usize)
                .map(|c| format!("{} by {}", c.1, c.0))
        };
        tags.iter().filter_map(case).collect()
    };
    ensure!(
        got == wanted,
        "accepted {:?}, not {:?}",
        name(&got),
        name(&wanted)
    );
    let refused = cases.iter().filter(|c| !c.2).count() as u64;
    let after = scene.errors()?;
    let counted = Errors {
        errors: before.errors + refused,
        frame: before.frame + refused,
        length: before.length,
    };
    ensure!(after == counted, "counted {after:?}, not {counted:?}");
    let rx = scene.peer(0)?.rx_bytes - rx;
    ensure!(rx == 3 * 80, "{rx} bytes counted as received from client 0");
    for (k, session) in sessions.iter_mut().enumerate() {
        scene.ping(k, session)?;
    }
    Ok(())
}

/// Inner packets that are not IP, or have a wrong length: each is counted as the right error, none
/// is delivered.
fn false_inside(ctx: &Ctx) -> Result<()> {
    let mut scene = Rig::fenced(ctx, 1)?;
    let mut session = scene.session(0)?;
    let sink = scene.sink()?;
    let good = tagged(0, 5);
    let good6 = {
        let [src, dst] = [inside(true, 0), inner(true, 0)].map(|ip| SocketAddr::new(ip, 9000));
        packet::udp(src, dst, b"12345678")
    };
    let with = |packet: &[u8], changes: &[(usize, u8)]| {
        let mut packet = padded(packet.to_vec());
        for (at, value) in changes {
            packet[*at] = *value;
        }
        packet
    };
    let all = |packet: &[u8]| packet.to_vec();
    let len6 = |len: u16| with(&good6, &[(4, (len >> 8) as u8), (5, len as u8)]);
    let (length, frame) = (Some(true), Some(false));
    // The inner packet, and the expected error: length, frame, or none.
    let cases = [
        ("IPv4, length 0", with(&good, &[(2, 0), (3, 0)]), length),
        ("IPv4, length 19", with(&good, &[(3, 19)]), length),
        ("IPv4, length 49 of 48", with(&good, &[(3, 49)]), length),
        (
            "IPv4, length 65535",
            with(&good, &[(2, 255), (3, 255)]),
            length,
        ),
        ("IPv6, length beyond", len6(9 + good6.len() as u16), length),
        ("IPv6, length 65535", len6(65535), length),
        ("version 0", with(&good, &[(0, 0x05)]), frame),
        ("version 5", with(&good, &[(0, 0x55)]), frame),
        ("version 15", with(&good, &[(0, 0xff)]), frame),
        ("one byte", vec![0x45], frame),
        ("19 bytes of IPv4", all(&good[..19]), frame),
        ("one byte of IPv6", vec![0x60], frame),
        ("39 bytes of IPv6", all(&good6[..39]), frame),
        ("16 zeros", vec![0; 16], frame),
        (
            "IPv4, header only, not its length",
            all(&good[..20]),
            length,
        ),
        ("1500 bytes of noise", vec![0xa5; 1500], frame),
    ];
    for (what, plain, counts) in &cases {
        let before = scene.errors()?;
        let message = session.seal(session.counter, plain);
        session.counter += 1;
        scene.clients[0].send(&message)?;
        // Delivered in order after it.
        scene.clients[0].send(&session.data(&tagged(0, 77)))?;
        let got = sink.until(77)?;
        ensure!(got == [77], "{what}: delivered");
        let after = scene.errors()?;
        let one = |yes: bool| u64::from(yes);
        let wanted = Errors {
            errors: before.errors + one(counts.is_some()),
            length: before.length + one(*counts == length),
            frame: before.frame + one(*counts == frame),
        };
        ensure!(after == wanted, "{what}: counted {after:?}, not {wanted:?}");
    }
    // The inner length cuts off the padding, whatever its content.
    let mut plain = good;
    plain.resize(48, 0xee);
    let message = session.seal(session.counter, &plain);
    session.counter += 1;
    scene.clients[0].send(&message)?;
    ensure!(sink.until(5)? == [5], "odd padding is not cut off");
    scene.ping(0, &mut session)
}
