// SPDX-License-Identifier: GPL-2.0
//! Whatever is done to, or with, other peers: the innocent ones go on, at a fair share of the
//! speed that they have alone.

use super::scene::{device, inside, outside, tagged, Scene, WAIT};
use super::{drop_in, Test};
use crate::harness::capture::Injector;
use crate::harness::noise::{handshake, packet, Client, Keys, Session, Tweak};
use crate::harness::runner::Ctx;
use crate::harness::topo::{inner, names, PLAIN};
use crate::harness::traffic::udp;
use crate::harness::wgdev::{uapi, DeviceConf, PeerConf, Wg};
use anyhow::{ensure, Result};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "attack-isolation", 240, isolation);
}

/// The peer that is flooded, the one that never answers, and the innocent ones: some, for there is
/// more than one context that packets of different peers go through.
const FLOODED: usize = 0;
const SILENT: usize = 1;
const INNOCENT: std::ops::Range<usize> = 2..6;

/// Of the speed alone. (The attacker has its processor time from the same machine.)
const FAIR_SHARE: f64 = 0.1;
/// How often speed alone and speed under attack are measured in turn, and for how long each, so
/// that other work on the machine meets both.
const ROUNDS: u32 = 4;
const SLICE: Duration = Duration::from_millis(500);
/// Pings under way at a time, and their size.
const PINGS: u16 = 8;
const SIZE: usize = 1200;
/// Between two strokes of an attack. It is not to fill the queues that all peers share.
const PAUSE: Duration = Duration::from_millis(10);

fn isolation(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx, INNOCENT.end)?;
    // Its frames would fill the memory.
    scene.watch.end()?;
    // Who asks for cookies at this address gets none.
    scene
        .link
        .rt(0)
        .neigh_set("v0", [192, 0, 2, 66].into(), [2, 0, 0, 0, 0, 0xee])?;
    let mut flooded = scene.session(FLOODED)?;
    let mut innocent = Vec::new();
    for k in INNOCENT {
        innocent.push((k, scene.session(k)?));
    }
    let attack = flood(&scene, &mut flooded)?;
    compare(ctx, &scene, &mut innocent, "a peer is flooded", attack)?;
    ensure!(
        scene.peer(FLOODED)?.endpoint == Some(outside(FLOODED)),
        "the flooded peer's endpoint moved"
    );
    // All the answers to its own initiations.
    scene.clients[FLOODED].flush()?;
    flooded.counter = 100;
    scene.ping(FLOODED, &mut flooded)?;

    let attack = starve(&scene)?;
    compare(ctx, &scene, &mut innocent, "a peer is silent", attack)?;
    let attack = churn(&scene)?;
    compare(ctx, &scene, &mut innocent, "peers come and go", attack)
}

/// Forged data for the flooded peer's session, replays of it, garbage, its own initiations (all
/// but the first ones are replays), and strangers' initiations with a right mac1.
fn flood(scene: &Scene, session: &mut Session) -> Result<impl FnMut() -> Result<()> + Send> {
    let client = &scene.clients[FLOODED];
    let mut forged = session.seal(9000, &tagged(FLOODED, 1));
    forged[30] ^= 1;
    let replayed = session.data(&[]);
    client.send(&replayed)?;
    let stranger = Keys::random();
    let mut frames = Vec::new();
    for n in 0..32u16 {
        let from = ([192, 0, 2, 66], 1000 + n).into();
        let strange = handshake::initiate(&stranger, &client.peer, &Tweak::default()).message;
        frames.push(packet::frame(1, from, device(), &strange));
        let own = handshake::initiate(&client.keys, &client.peer, &Tweak::default()).message;
        let garbage = vec![n as u8; 1300];
        for message in [&own, &forged, &replayed, &garbage] {
            frames.push(packet::frame(1, outside(FLOODED), device(), message));
        }
    }
    let injector = Injector::open(scene.link.end(1), "v1")?;
    Ok(move || frames.iter().try_for_each(|frame| injector.send(frame)))
}

/// More packets to the silent peer than wait for a session.
fn starve(scene: &Scene) -> Result<impl FnMut() -> Result<()> + Send> {
    let from = udp(scene.link.end(0), SocketAddr::new(inner(false, 0), 0))?;
    let to = SocketAddr::new(inside(false, SILENT), 9);
    Ok(move || {
        for _ in 0..256 {
            from.send_to(&[0; SIZE], to)?;
        }
        Ok(())
    })
}

/// Peers are made, to which the device sends at once, and removed.
fn churn(scene: &Scene) -> Result<impl FnMut() -> Result<()> + Send> {
    let mut wg = Wg::open(scene.link.end(0), PLAIN.kind)?;
    let keys: Vec<_> = (0..8).map(|_| Keys::random().public).collect();
    Ok(move || {
        for flags in [0, uapi::PEER_REMOVE_ME] {
            for (key, n) in keys.iter().zip(100..) {
                let peer = PeerConf {
                    public_key: *key,
                    endpoint: Some(outside(usize::from(n))),
                    allowed_ips: vec![(inner(false, n), 32)],
                    keepalive: Some(1),
                    flags,
                    ..PeerConf::default()
                };
                let conf = DeviceConf {
                    peers: vec![peer],
                    ..DeviceConf::default()
                };
                wg.set(names(0).0, &conf)?;
            }
        }
        Ok(())
    })
}

/// Measures the innocent peers' speed alone, and while `stroke` is made again and again. No ping
/// may be lost.
fn compare(
    ctx: &Ctx,
    scene: &Scene,
    innocent: &mut [(usize, Session)],
    what: &str,
    mut stroke: impl FnMut() -> Result<()> + Send + 'static,
) -> Result<()> {
    let [on, stop] = [false; 2].map(|value| Arc::new(AtomicBool::new(value)));
    let strokes = Arc::new(AtomicU64::new(0));
    let attacker = {
        let (on, stop, strokes) = (on.clone(), stop.clone(), strokes.clone());
        spawn(move || -> Result<()> {
            while !stop.load(Relaxed) {
                if on.load(Relaxed) {
                    stroke()?;
                    strokes.fetch_add(1, Relaxed);
                }
                sleep(PAUSE);
            }
            Ok(())
        })
    };
    let mut measure = || -> Result<[Speed; 2]> {
        let mut speeds = [Speed::default(), Speed::default()];
        for _ in 0..ROUNDS {
            speeds[0].measure(scene, innocent)?;
            on.store(true, Relaxed);
            let before = strokes.load(Relaxed);
            while strokes.load(Relaxed) == before && !attacker.is_finished() {
                sleep(PAUSE / 10);
            }
            speeds[1].measure(scene, innocent)?;
            on.store(false, Relaxed);
        }
        Ok(speeds)
    };
    let measured = measure();
    stop.store(true, Relaxed);
    attacker.join().expect("the attacker panicked")?;
    let [alone, attacked] = measured
        .map_err(|e| e.context(what.to_owned()))?
        .map(Speed::rate);
    let share = attacked / alone;
    ctx.note(format!(
        "{what}: {attacked:.0} pings/s under {} strokes, {alone:.0} alone, a share of {share:.2}",
        strokes.load(Relaxed)
    ));
    ensure!(
        share >= FAIR_SHARE,
        "{what}: the innocent peers are left with {share:.3} of their speed"
    );
    Ok(())
}

/// Pings answered so far, and the time that it took.
#[derive(Default)]
struct Speed(u32, Duration);

impl Speed {
    fn measure(&mut self, scene: &Scene, innocent: &mut [(usize, Session)]) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < SLICE {
            for (k, session) in &mut *innocent {
                ping(&scene.clients[*k], session, inside(false, *k))?;
                self.0 += u32::from(PINGS);
            }
        }
        self.1 += start.elapsed();
        Ok(())
    }

    fn rate(self) -> f64 {
        f64::from(self.0) / self.1.as_secs_f64()
    }
}

/// Some pings at once, all alike; all must be answered.
fn ping(client: &Client, session: &mut Session, src: IpAddr) -> Result<()> {
    let (dst, data) = (inner(false, 0), [7; SIZE]);
    let request = packet::echo(src, dst, 1, &data);
    for _ in 0..PINGS {
        client.send(&session.data(&request))?;
    }
    for n in 0..PINGS {
        let what = format!("answer {n} of {PINGS} to {src}");
        client.wait(WAIT, &what, |_, bytes| {
            let answer = session.open(bytes);
            answer.is_ok_and(|(_, plain)| packet::answers(&plain, src, dst, 1, &data))
        })?;
    }
    client.send(&session.data(&[]))
}
