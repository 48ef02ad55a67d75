// SPDX-License-Identifier: GPL-2.0
//! Timers and limits, in virtual time. End 0 is under test, end 1 is the in-tree driver.
//!
//! Nothing here starts a program once the clock matters, and all times are taken from the
//! underlay's frames. The kernel's timer wheel may fire up to an eighth late: hence the upper
//! bounds, beside the protocol's jitter of a third of a second.

use super::{side_by_side, Check, Test};
use crate::harness::capture::{seen, Capture, Captured, Injector, Seen};
use crate::harness::runner::{until, within, Boot, Ctx};
use crate::harness::topo::{inner, outer, port, Opts, Tunnel};
use crate::harness::traffic::{drain, udp};
use crate::harness::wgdev::PeerConf;
use crate::harness::wire::Message;
use anyhow::{bail, ensure, Context, Result};
use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SEC: Duration = Duration::from_secs(1);

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, u64, Check); 9] = [
        ("vtime-rekey-120s", 600, rekey_120s),
        ("vtime-rekey-hour", 4000, rekey_hour),
        ("vtime-death-180s-send", 600, death_180s_send),
        ("vtime-death-180s-receive", 600, death_180s_receive),
        ("vtime-handshake-retries", 900, handshake_retries),
        ("vtime-passive-keepalive-10s", 300, passive_keepalive),
        ("vtime-persistent-keepalive", 600, persistent_keepalive),
        ("vtime-new-handshake-15s", 300, new_handshake_15s),
        ("vtime-responder-never-rekeys", 600, responder_never_rekeys),
    ];
    for (name, secs, body) in tests {
        side_by_side(list, name, Boot::Vtime, secs, body);
    }
}

/// A tunnel with a datagram socket at each end.
struct Scene {
    tunnel: Tunnel,
    sockets: [UdpSocket; 2],
    underlay: Capture,
}

impl Scene {
    fn new(ctx: &Ctx) -> Result<Self> {
        let tunnel = Tunnel::new(ctx, &Opts::new(ctx.against_intree()))?;
        let sockets = [
            udp(tunnel.ns(0), SocketAddr::new(inner(false, 0), 9000))?,
            udp(tunnel.ns(1), SocketAddr::new(inner(false, 1), 9000))?,
        ];
        let underlay = tunnel.watch(ctx, 0)?;
        Ok(Scene {
            tunnel,
            sockets,
            underlay,
        })
    }

    /// One datagram of 4 bytes from end `n` to the other: a data message of 64 bytes.
    fn send(&self, n: u8) -> Result<()> {
        let to = SocketAddr::new(inner(false, 1 - n), 9000);
        self.sockets[usize::from(n)]
            .send_to(b"tick", to)
            .context("send a datagram")?;
        Ok(())
    }

    /// The number of datagrams that came to end `n` since the last call.
    fn received(&self, n: u8) -> Result<usize> {
        sleep(Duration::from_millis(50));
        drain(&self.sockets[usize::from(n)])
    }

    /// Makes the session, end `n` initiating; gives the response's time.
    fn handshake(&self, n: u8) -> Result<Duration> {
        self.send(n)?;
        let seen = self
            .underlay
            .wait(1, 5 * SEC, |s| s.data_len() == Some(64))?;
        ensure!(
            self.received(1 - n)? == 1,
            "the first datagram does not arrive"
        );
        let response = seen
            .iter()
            .find(|s| matches!(s.message, Message::Response { .. }));
        Ok(response.context("no response on the underlay")?.at)
    }

    fn mute_both(&mut self, on: bool) -> Result<()> {
        self.tunnel.mute(0, on)?;
        self.tunnel.mute(1, on)
    }
}

/// The times of the initiations that end 0 sent.
fn initiations(seen: &[Seen]) -> Vec<Duration> {
    seen.iter()
        .filter(|s| s.outgoing && s.is_initiation())
        .map(|s| s.at)
        .collect()
}

/// The times of the data messages of `len` bytes that end 0 sent (`outgoing`) or got.
fn data(seen: &[Seen], outgoing: bool, len: usize) -> Vec<Duration> {
    let wanted = |s: &&Seen| s.outgoing == outgoing && s.data_len() == Some(len);
    seen.iter().filter(wanted).map(|s| s.at).collect()
}

/// With steady traffic from the initiator the session is renewed 120 s after it was made, by the
/// initiator alone, and no packet is lost over it.
fn rekey_120s(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let born = scene.handshake(0)?;
    let first = scene.tunnel.peer(0)?.last_handshake;
    let start = Instant::now();
    let mut arrived = 0;
    for tick in 1..=260 {
        until(start, tick * SEC);
        scene.send(0)?;
        arrived += scene.received(1)?;
    }
    ensure!(arrived == 260, "{arrived} of 260 datagrams arrived");
    let last = scene.tunnel.peer(0)?.last_handshake;
    within(
        "latest handshake moved by",
        last.saturating_sub(first),
        240.0,
        252.0,
    )?;
    let seen = scene.underlay.seen();
    let times = initiations(&seen);
    let [_, second, third] = times.as_slice() else {
        bail!("{} initiations in 260 s", times.len())
    };
    within("second initiation after", *second - born, 119.9, 126.0)?;
    within(
        "third initiation after the second",
        *third - *second,
        119.9,
        126.0,
    )?;
    let theirs = seen
        .iter()
        .filter(|s| !s.outgoing && s.is_initiation())
        .count();
    ensure!(theirs == 0, "the responder initiated {theirs} times");
    Ok(())
}

/// An hour of steady traffic: thirty sessions, nothing lost.
fn rekey_hour(ctx: &Ctx) -> Result<()> {
    let scene = Scene::new(ctx)?;
    scene.handshake(0)?;
    let start = Instant::now();
    let mut arrived = [0; 2];
    for tick in 1..=900u32 {
        until(start, tick * 4 * SEC);
        scene.send(0)?;
        scene.send(1)?;
        arrived[1] += scene.received(1)?;
        arrived[0] += scene.received(0)?;
    }
    ensure!(
        arrived == [900, 900],
        "{arrived:?} of 900 datagrams arrived"
    );
    let count = initiations(&scene.underlay.seen()).len();
    ensure!((29..=31).contains(&count), "{count} initiations in an hour");
    Ok(())
}

/// Nothing is sent under a session older than 180 s, even if there is no other.
fn death_180s_send(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let born = scene.handshake(0)?;
    let start = Instant::now();
    for tick in 1..=240 {
        until(start, tick * SEC);
        if tick == 30 {
            scene.mute_both(true)?;
        }
        scene.send(0)?;
        scene.received(1)?;
    }
    let seen = scene.underlay.seen();
    let sent = data(&seen, true, 64);
    let last = sent
        .last()
        .context("no data was sent")?
        .saturating_sub(born);
    within("last data message after", last, 177.0, 180.1)?;
    // The retries went on all the while: it is not that the end gave up sending as such.
    let late = initiations(&seen)
        .iter()
        .filter(|at| **at > born + 181 * SEC)
        .count();
    ensure!(late >= 5, "only {late} initiations after the session's end");
    // Back again: what waits is sent under a new session.
    scene.mute_both(false)?;
    scene.underlay.wait(sent.len() + 1, 10 * SEC, |s| {
        s.outgoing && s.data_len() == Some(64)
    })?;
    ensure!(
        scene.received(1)? > 0,
        "nothing arrives after the peer's return"
    );
    Ok(())
}

/// Nothing is accepted under a session older than 180 s: messages kept back on the way are
/// delivered before and after.
fn death_180s_receive(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.handshake(0)?;
    let start = Instant::now();
    let back = Capture::start(scene.tunnel.ns(1), "v1")?;
    until(start, 5 * SEC);
    scene.mute_both(true)?;
    for tick in 10..40 {
        until(start, tick * SEC);
        scene.send(1)?;
    }
    ensure!(scene.received(0)? == 0, "muting does not work");
    let kept: Vec<Captured> = back
        .stop()?
        .into_iter()
        .filter(|f| f.outgoing && seen(f).and_then(|s| s.data_len()) == Some(64))
        .collect();
    ensure!(
        kept.len() == 30,
        "{} of 30 messages were kept back",
        kept.len()
    );
    let injector = Injector::open(scene.tunnel.ns(1), "v1")?;
    let mut frames = kept.into_iter();
    for (at, accepted) in [
        (60, 1),
        (120, 1),
        (170, 1),
        (178, 1),
        (182, 0),
        (200, 0),
        (400, 0),
    ] {
        until(start, at * SEC);
        let mut frame = frames.next().context("no frame left")?.bytes;
        frame[..6].copy_from_slice(&crate::harness::topo::mac(0));
        // Captured before the device would have filled in the UDP checksum; zero means none.
        frame[40..42].fill(0);
        injector.send(&frame)?;
        let got = scene.received(0)?;
        ensure!(
            got == accepted,
            "{got} datagrams taken from a message delivered at {at} s"
        );
    }
    Ok(())
}

/// An unanswered handshake: twenty initiations, each 5 s and some jitter after the last, then
/// silence, and what waited is gone.
fn handshake_retries(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.mute_both(true)?;
    for _ in 0..3 {
        scene.send(0)?;
    }
    let dropped = scene.tunnel.rt(0).stats("wg0")?.tx_dropped;
    ensure!(dropped == 0, "{dropped} packets were dropped at once");
    sleep(300 * SEC);
    let times = initiations(&scene.underlay.seen());
    ensure!(times.len() == 20, "{} initiations", times.len());
    let mut gaps = Vec::new();
    for pair in times.windows(2) {
        let [a, b] = pair else { continue };
        within(
            "time between initiations",
            *b - *a,
            4.999,
            5.0 + 0.334 + 0.7,
        )?;
        gaps.push(*b - *a);
    }
    gaps.sort();
    let spread = gaps[gaps.len() - 1] - gaps[0];
    ensure!(
        spread > Duration::from_millis(20),
        "the retries have no jitter: {gaps:?}"
    );
    let dropped = scene.tunnel.rt(0).stats("wg0")?.tx_dropped;
    ensure!(
        dropped == 3,
        "{dropped} of 3 waiting packets were dropped after the last try"
    );
    // The peer is back: only what is sent from now on arrives.
    scene.mute_both(false)?;
    scene.send(0)?;
    scene
        .underlay
        .wait(1, 10 * SEC, |s| s.data_len() == Some(64))?;
    let got = scene.received(1)?;
    ensure!(got == 1, "{got} datagrams arrived where 1 was sent");
    Ok(())
}

/// Who only receives says so after 10 s, once; a keepalive is not answered.
fn passive_keepalive(ctx: &Ctx) -> Result<()> {
    let scene = Scene::new(ctx)?;
    scene.handshake(1)?;
    sleep(60 * SEC);
    let seen = scene.underlay.seen();
    let got = *data(&seen, false, 64).first().context("no data came")?;
    let sent = data(&seen, true, 32);
    let [keepalive] = sent.as_slice() else {
        bail!("{} keepalives sent", sent.len())
    };
    within("keepalive after", *keepalive - got, 9.999, 10.8)?;
    // The initiator confirms the session with its data; it never sends a keepalive of its own.
    ensure!(
        data(&seen, false, 32).is_empty(),
        "the keepalive was answered"
    );
    // Traffic the other way makes it unnecessary.
    scene.send(1)?;
    sleep(5 * SEC);
    scene.send(0)?;
    sleep(4 * SEC);
    let after = data(&scene.underlay.seen(), true, 32);
    sleep(3 * SEC);
    ensure!(
        after.len() == 1,
        "a keepalive although there was data to send"
    );
    ensure!(
        data(&scene.underlay.seen(), true, 32).len() == 1,
        "a keepalive in spite of data"
    );
    Ok(())
}

/// A persistent keepalive of 25 s on an idle link, and the handshakes it needs.
fn persistent_keepalive(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.tunnel.set_peer(
        0,
        PeerConf {
            keepalive: Some(25),
            ..PeerConf::default()
        },
    )?;
    sleep(400 * SEC);
    let seen = scene.underlay.seen();
    let keepalives = data(&seen, true, 32);
    let Some(first_session) = keepalives.get(..5) else {
        bail!("{} keepalives", keepalives.len())
    };
    for pair in first_session.windows(2) {
        let [a, b] = pair else { continue };
        within("time between keepalives", *b - *a, 24.999, 28.2)?;
    }
    let times = initiations(&seen);
    ensure!(
        (3..=4).contains(&times.len()),
        "{} handshakes in 400 s",
        times.len()
    );
    for pair in times.windows(2) {
        let [a, b] = pair else { continue };
        within("time between handshakes", *b - *a, 119.9, 150.0)?;
    }
    ensure!(
        data(&seen, false, 32).is_empty(),
        "keepalives were answered"
    );
    Ok(())
}

/// No answer to data for 15 s: a new handshake.
fn new_handshake_15s(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.handshake(0)?;
    sleep(30 * SEC); // the peer's passive keepalive comes and settles the account
    scene.mute_both(true)?;
    sleep(SEC);
    scene.send(0)?;
    sleep(SEC);
    scene.send(0)?; // a second packet does not put it off
    sleep(20 * SEC);
    let seen = scene.underlay.seen();
    let sent = data(&seen, true, 64);
    let times = initiations(&seen);
    let ([_, lost, _], [_, second, ..]) = (sent.as_slice(), times.as_slice()) else {
        bail!(
            "{} data messages and {} initiations",
            sent.len(),
            times.len()
        )
    };
    within(
        "initiation after unanswered data",
        *second - *lost,
        14.999,
        15.0 + 0.334 + 0.7,
    )?;
    Ok(())
}

/// The responder keeps using a session past 120 s without an initiation of its own.
fn responder_never_rekeys(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.handshake(1)?;
    let start = Instant::now();
    // The initiator (end 1) is cut off before it could renew, so that only end 0 might.
    for tick in 1..=170 {
        until(start, tick * SEC);
        if tick == 100 {
            scene.tunnel.mute(0, true)?;
            scene.tunnel.mute(1, true)?;
        }
        if tick < 100 || tick % 20 == 0 {
            scene.send(0)?;
        }
        if tick < 100 {
            scene.send(1)?;
        }
    }
    let seen = scene.underlay.seen();
    let early = |at: &&Duration| **at < seen[0].at + 114 * SEC;
    let count = initiations(&seen).iter().filter(early).count();
    ensure!(count == 0, "{count} initiations by the responder");
    // After 15 s without an answer it does ask for a new session: that is the other rule.
    ensure!(
        !initiations(&seen).is_empty(),
        "no initiation after silence either"
    );
    let at = SocketAddr::new(outer(false, 0), port(0));
    ensure!(seen.iter().any(|s| s.src == at), "end 0 sent nothing");
    Ok(())
}
