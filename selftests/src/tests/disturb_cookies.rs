// SPDX-License-Identifier: GPL-2.0-only
//! Cookie replies dropped, duplicated or corrupted on the way, in virtual time: the handshake
//! still completes. End 0 is under test, end 1 is the in-tree driver.

use super::disturb_vtime::{from, Scene, RETRY, SEC};
use super::{side_by_side, Test};
use anyhow::{ensure, Context, Result};
use harness::bpf::{Action, Class, Rule};
use harness::pace::alone;
use harness::runner::{within, Boot, Ctx};
use harness::topo::{inner, outer, port};
use harness::traffic::udp;
use harness::wgdev::{uapi, PeerConf};
use harness::wire::{self, Frame};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Instant;

pub fn register(list: &mut Vec<Test>) {
    for (name, to_response) in [
        ("vtime-disturb-cookie-to-initiation", false),
        ("vtime-disturb-cookie-to-response", true),
    ] {
        side_by_side(list, name, Boot::Vtime, 900, move |ctx| {
            run(ctx, to_response)
        });
    }
}

/// What happens to the first cookie reply, and whether its cookie is then known.
type Case = (&'static str, Option<Action>, bool);
const CASES: [Case; 8] = [
    ("undisturbed", None, true),
    ("duplicated", Some(Action::Duplicate), true),
    ("dropped", Some(Action::Drop), false),
    ("corrupted in the cookie", flip(32), false),
    ("corrupted in the type", flip(0), false),
    ("corrupted in the receiver", flip(4), false),
    ("corrupted in the nonce", flip(8), false),
    ("corrupted in the tag", flip(-1), false),
];

const fn flip(offset: i32) -> Option<Action> {
    Some(Action::Corrupt { offset, mask: 0x40 })
}

/// Puts both ends under load for a second: more handshake messages than the load threshold, with
/// a wrong mac1, from an end's own namespace and so not over the underlay. (Both, because the
/// in-tree driver has one load state for all its devices.)
fn load(scene: &Scene) -> Result<()> {
    let junk = [&[1, 0, 0, 0][..], &[0x5a; 144]].concat();
    for n in [0, 1] {
        let socket = udp(scene.tunnel.ns(n), SocketAddr::new(outer(false, n), 0))?;
        let to = SocketAddr::new(outer(false, n), port(n));
        alone(|| {
            for _ in 0..540 {
                socket.send_to(&junk, to)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Removes and adds the peer at both ends: no session, no cookie.
fn forget(scene: &mut Scene) -> Result<()> {
    for n in [0, 1] {
        let peer = PeerConf {
            flags: uapi::peer::F_REMOVE_ME,
            ..PeerConf::default()
        };
        scene.tunnel.set_peer(n, peer)?;
        let peer = PeerConf {
            endpoint: Some(SocketAddr::new(outer(false, 1 - n), port(1 - n))),
            allowed_ips: vec![(inner(false, 1 - n), 32)],
            ..PeerConf::default()
        };
        scene.tunnel.set_peer(n, peer)?;
    }
    Ok(())
}

/// Initiations, cookie replies to them, responses, cookie replies to those.
type Counts = [u64; 4];

/// One end initiates, both are under load. The first initiation gets a cookie reply and the second
/// a response, which gets a cookie reply, too, so that the third makes the session. If the first
/// cookie reply does not deliver a cookie, the next one does.
fn run(ctx: &Ctx, to_response: bool) -> Result<()> {
    for initiator in [0, 1] {
        let getter = if to_response {
            1 - initiator
        } else {
            initiator
        };
        // All cases for the end under test in one role only, a few otherwise.
        let all = (getter, to_response) == (0, false);
        let cases = if all { &CASES[..] } else { &CASES[..4] };
        // The cookie secret is replaced after 120 s, which would cost another attempt.
        for cases in cases.chunks(4) {
            let mut scene = Scene::new(ctx)?;
            for case in cases {
                disturbed(&mut scene, initiator, getter, case).with_context(|| {
                    format!("end {initiator} initiates, the cookie reply is {}", case.0)
                })?;
            }
            scene.finish()?;
        }
    }
    Ok(())
}

/// One case: the first cookie reply to `getter` is disturbed.
fn disturbed(
    scene: &mut Scene,
    initiator: u8,
    getter: u8,
    &(_, action, known): &Case,
) -> Result<()> {
    forget(scene)?;
    let start = scene.capture.frames().lock().expect("poisoned").len();
    let rule = match action {
        None => None,
        Some(action) => {
            let rule = Rule::new(from(1 - getter), &[Class::Cookie], action);
            Some(scene.underlay.disturb(rule)?)
        }
    };
    let want: Counts = match (known, getter == initiator) {
        (true, _) => [3, 1, 2, 1],
        (false, true) => [4, 2, 2, 1],
        (false, false) => [4, 1, 3, 2],
    };
    let took = connect(scene, initiator, want[0] - 1)?;
    if let Some(rule) = rule {
        ensure!(scene.underlay.hits(rule)? == 1, "no hit");
        scene.underlay.lift(rule)?;
    }
    ensure!(
        took == want,
        "{took:?} initiations, cookie replies, responses and cookie replies to those, not {want:?}"
    );
    // Only a cookie that arrived intact is used.
    let used = mac2_used(
        scene,
        start,
        getter,
        if getter == initiator { 148 } else { 92 },
    );
    let without = if known { 1 } else { 2 };
    ensure!(
        used.len() > without
            && used
                .iter()
                .enumerate()
                .all(|(n, used)| *used == (n >= without)),
        "mac2 in the messages of the cookie's receiver: {used:?}, expected from {without} on"
    );
    // Neither messages that got a cookie reply nor the cookie replies are counted.
    let mut want = [0; 2];
    want[usize::from(initiator)] = 92;
    want[usize::from(1 - initiator)] = 148 * (took[0] - took[1]) + 64;
    let got = scene.rx()?;
    ensure!(got == want, "{got:?} bytes received, expected {want:?}");
    scene.passes(0)?;
    scene.passes(1)
}

/// For each message of end `n` of this length since frame `start`: whether it has a mac2.
fn mac2_used(scene: &Scene, start: usize, n: u8, len: usize) -> Vec<bool> {
    let from = SocketAddr::new(outer(false, n), port(n));
    let frames = scene.capture.frames();
    let frames = frames.lock().expect("poisoned");
    let messages = frames[start..]
        .iter()
        .filter_map(|f| match wire::frame(&f.bytes) {
            Frame::Udp { src, payload, .. } if src == from && payload.len() == len => Some(payload),
            _ => None,
        });
    messages.map(|m| m[len - 16..] != [0; 16]).collect()
}

/// One datagram from `initiator`: checks that it arrives after this many retries.
fn connect(scene: &Scene, initiator: u8, retries: u64) -> Result<Counts> {
    let count = || -> Result<Counts> {
        Ok([
            scene.sent(initiator, Class::Initiation)?,
            scene.sent(1 - initiator, Class::Cookie)?,
            scene.sent(1 - initiator, Class::Response)?,
            scene.sent(initiator, Class::Cookie)?,
        ])
    };
    let (before, start) = (count()?, Instant::now());
    load(scene)?;
    scene.send(initiator)?;
    let mut last = before[0];
    while scene.receive(1 - initiator, SEC * 9 / 10)?.is_none() {
        ensure!(start.elapsed() < SEC * 25, "no session within 25 s");
        let initiations = scene.sent(initiator, Class::Initiation)?;
        if initiations != last {
            // The reply may be in flight right now. The next initiation comes 5 s after this one.
            if scene.receive(1 - initiator, SEC / 2)?.is_some() {
                break;
            }
            sleep(SEC * 33 / 10);
            last = initiations;
        }
        load(scene)?;
    }
    let (took, retries) = (start.elapsed(), retries as f64);
    within("it takes", took, RETRY.0 * retries, RETRY.1 * retries)?;
    let rest = scene.receive_all(1 - initiator)?.len();
    ensure!(rest == 0, "the datagram arrived {} times", rest + 1);
    let after = count()?;
    Ok(std::array::from_fn(|n| after[n] - before[n]))
}
