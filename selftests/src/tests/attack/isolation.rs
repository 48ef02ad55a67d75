// SPDX-License-Identifier: GPL-2.0-only
//! Whatever happens to other peers, the innocent ones keep a fair share of the speed that they
//! have without the attack, and lose nothing. What is fair, the in-tree driver tells.

use super::{both, Test};
use anyhow::{ensure, Context, Result};
use harness::capture::Injector;
use harness::driver::Driver;
use harness::noise::{handshake, packet, Client, Keys, Session, Tweak};
use harness::pace::slow;
use harness::rig::{device, inside, outside, tagged, Rig};
use harness::runner::Ctx;
use harness::topo::{inner, names};
use harness::traffic::udp;
use harness::wgdev::{uapi, DeviceConf, PeerConf, Wg};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

pub fn register(list: &mut Vec<Test>) {
    both(list, "attack-isolation", 240, isolation);
}

/// The peer that is flooded, the one that never answers, and the innocent ones: several, since
/// peers are spread over more than one receive context.
const FLOODED: usize = 0;
const SILENT: usize = 1;
const INNOCENT: std::ops::Range<usize> = 2..6;

/// The least share of the speed without attack, as a part of the in-tree driver's share. (The
/// attacker uses CPU time of the same machine.)
const FAIR_SHARE: f64 = 0.5;
/// How often the speeds with and without attack are measured in turn, and for how long each, so
/// that other work on the machine affects both.
const ROUNDS: u32 = 4;
const SLICE: Duration = Duration::from_millis(500);
/// Pings in flight at a time, and their size.
const PINGS: u16 = 8;
const SIZE: usize = 1200;
/// When a ping counts as lost.
const LIMIT: Duration = Duration::from_secs(2);
/// Pause of an attacker that is told to wait, and between two strokes of [`churn`], which would
/// otherwise strike the more often, the less a driver takes for it.
const PAUSE: Duration = Duration::from_millis(10);

fn isolation(ctx: &Ctx) -> Result<()> {
    let [ours, intree] = ctx.against_intree();
    let intree = attacks(ctx, intree).context("in-tree")?;
    let ours = attacks(ctx, ours).context("ours")?;
    for (ours, intree) in ours.iter().zip(&intree) {
        ctx.note(format!("{ours}; in-tree: {intree}"));
        // Who is fast without the attack may lose the more, as long as more is left.
        let fair = ours.share() >= FAIR_SHARE * intree.share() || ours.rates[1] >= intree.rates[1];
        ensure!(
            fair && ours.lost <= intree.lost,
            "{ours}; in-tree: {intree}"
        );
    }
    Ok(())
}

/// The outcome of each attack on a device of this driver.
fn attacks(ctx: &Ctx, driver: Driver) -> Result<[Outcome; 3]> {
    let mut scene = Rig::of(ctx, driver, INNOCENT.end + 1)?;
    // The captured frames would fill the memory.
    scene.underlay.end()?;
    // Cookie replies to this address are not delivered.
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
    let a = measure(&scene, &mut innocent, "a peer is flooded", attack)?;
    ensure!(
        scene.peer(FLOODED)?.endpoint == Some(outside(FLOODED)),
        "the flooded peer's endpoint changed"
    );
    // Discard the answers to its own initiations.
    scene.clients[FLOODED].flush()?;
    flooded.counter = 100;
    scene.ping(FLOODED, &mut flooded)?;

    let attack = starve(&scene)?;
    let b = measure(&scene, &mut innocent, "a peer is silent", attack)?;
    let attack = churn(&scene, driver)?;
    let c = measure(&scene, &mut innocent, "peers come and go", attack)?;
    Ok([a, b, c])
}

/// Forged data for the flooded peer's session, replayed data, garbage, its own initiations (all
/// but the first ones are replays), and strangers' initiations with a valid mac1.
fn flood(scene: &Rig, session: &mut Session) -> Result<impl FnMut() -> Result<()> + Send> {
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
        frames.push(packet::frame(1, from, device(false), &strange));
        let own = handshake::initiate(&client.keys, &client.peer, &Tweak::default()).message;
        let garbage = vec![n as u8; 1300];
        for message in [&own, &forged, &replayed, &garbage] {
            frames.push(packet::frame(1, outside(FLOODED), device(false), message));
        }
    }
    let injector = Injector::open(scene.link.end(1), "v1")?;
    Ok(move || frames.iter().try_for_each(|frame| injector.send(frame)))
}

/// More packets to the silent peer than can be staged.
fn starve(scene: &Rig) -> Result<impl FnMut() -> Result<()> + Send> {
    let from = udp(scene.link.end(0), SocketAddr::new(inner(false, 0), 0))?;
    let to = SocketAddr::new(inside(false, SILENT), 9);
    Ok(move || {
        for _ in 0..256 {
            from.send_to(&[0; SIZE], to)?;
        }
        Ok(())
    })
}

/// Peers are added, to which the device sends at once, and removed.
fn churn(scene: &Rig, driver: Driver) -> Result<impl FnMut() -> Result<()> + Send> {
    let mut wg = Wg::open(scene.link.end(0), driver.kind)?;
    let keys: Vec<_> = (0..8).map(|_| Keys::random().public).collect();
    Ok(move || {
        for flags in [0, uapi::peer::F_REMOVE_ME] {
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
        sleep(PAUSE);
        Ok(())
    })
}

/// What an attack did to the innocent peers.
struct Outcome {
    what: &'static str,
    /// Pings answered per second without the attack, and during it.
    rates: [f64; 2],
    lost: u32,
    strokes: u64,
}

impl Outcome {
    fn share(&self) -> f64 {
        self.rates[1] / self.rates[0]
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {:.0} pings/s under {} strokes, {:.0} alone, a share of {:.2}, {} lost",
            self.what,
            self.rates[1],
            self.strokes,
            self.rates[0],
            self.share(),
            self.lost
        )
    }
}

/// Measures the innocent peers' speed without attack, and while `stroke` is repeated.
fn measure(
    scene: &Rig,
    innocent: &mut [(usize, Session)],
    what: &'static str,
    mut stroke: impl FnMut() -> Result<()> + Send + 'static,
) -> Result<Outcome> {
    let [on, stop] = [false; 2].map(|value| Arc::new(AtomicBool::new(value)));
    let strokes = Arc::new(AtomicU64::new(0));
    let attacker = {
        let (on, stop, strokes) = (on.clone(), stop.clone(), strokes.clone());
        spawn(move || -> Result<()> {
            while !stop.load(Relaxed) {
                if on.load(Relaxed) {
                    stroke()?;
                    strokes.fetch_add(1, Relaxed);
                } else {
                    sleep(PAUSE);
                }
            }
            Ok(())
        })
    };
    let mut both = || -> Result<[Speed; 2]> {
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
    let measured = both();
    stop.store(true, Relaxed);
    attacker.join().expect("the attacker panicked")?;
    let [alone, attacked] = measured.context(what)?;
    ensure!(alone.lost == 0, "{what}: {} pings lost without", alone.lost);
    Ok(Outcome {
        what,
        rates: [alone.rate(), attacked.rate()],
        lost: attacked.lost,
        strokes: strokes.load(Relaxed),
    })
}

/// Pings answered and lost so far, and the time that this took.
#[derive(Default)]
struct Speed {
    answered: u32,
    lost: u32,
    time: Duration,
}

impl Speed {
    fn measure(&mut self, scene: &Rig, innocent: &mut [(usize, Session)]) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < SLICE {
            for (k, session) in &mut *innocent {
                let answered = ping(&scene.clients[*k], session, inside(false, *k))?;
                self.answered += answered;
                self.lost += u32::from(PINGS) - answered;
            }
        }
        self.time += start.elapsed();
        Ok(())
    }

    fn rate(&self) -> f64 {
        f64::from(self.answered) / self.time.as_secs_f64()
    }
}

/// Several identical pings at once; gives how many were answered.
fn ping(client: &Client, session: &mut Session, src: IpAddr) -> Result<u32> {
    let (dst, data, seq) = (inner(false, 0), [7; SIZE], session.counter as u16);
    let request = packet::echo(src, dst, seq, &data);
    for _ in 0..PINGS {
        client.send(&session.data(&request))?;
    }
    let mut answered = 0;
    for _ in 0..PINGS {
        let answer = client.wait(slow(LIMIT), "an answer", |_, bytes| {
            let answer = session.open(bytes);
            answer.is_ok_and(|(_, plain)| packet::answers(&plain, src, dst, seq, &data))
        });
        if answer.is_err() {
            break;
        }
        answered += 1;
    }
    client.send(&session.data(&[]))?;
    Ok(answered)
}
