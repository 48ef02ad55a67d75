// SPDX-License-Identifier: GPL-2.0-only
//! Messages dropped, duplicated, reordered or corrupted on the way: how a tunnel recovers, in
//! virtual time. End 0 is under test, end 1 is the in-tree driver.
//!
//! The bounds of a retry are the protocol's 5 s plus a third of a second of jitter, and what the
//! kernel's timer wheel may add (up to an eighth).

use super::{side_by_side, Check, Test};
use anyhow::{ensure, Context, Result};
use harness::bpf::{Action, Class, Direction, Rule, Underlay};
use harness::capture::Capture;
use harness::pace::is_slow;
use harness::runner::{within, Boot, Ctx, Subject};
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::udp;
use harness::wgdev::PeerConf;
use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) const SEC: Duration = Duration::from_secs(1);
/// One retry after a lost handshake message, in seconds.
pub(super) const RETRY: (f64, f64) = (4.99, 6.1);
/// Without a retry, in seconds.
const AT_ONCE: (f64, f64) = (0.0, 0.9);

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, Check); 7] = [
        ("vtime-disturb-loss-handshake", loss_handshake),
        ("vtime-disturb-loss-first-data", loss_first_data),
        ("vtime-disturb-loss-confirmation", loss_confirmation),
        ("vtime-disturb-duplicates", duplicates),
        ("vtime-disturb-reorder", reorder),
        ("vtime-disturb-corrupt-handshake", corrupt_handshake),
        ("vtime-disturb-corrupt-data", corrupt_data),
    ];
    for (name, body) in tests {
        side_by_side(list, name, Boot::Vtime, 900, body);
    }
}

/// The direction of end `n`'s messages as seen from end 0.
pub(super) fn from(n: u8) -> Direction {
    [Direction::Out, Direction::In][usize::from(n)]
}

pub(super) struct Scene {
    pub(super) tunnel: Tunnel,
    sockets: [UdpSocket; 2],
    pub(super) underlay: Underlay,
    /// The capture at end 1.
    pub(super) capture: Capture,
}

impl Scene {
    pub(super) fn new(ctx: &Ctx) -> Result<Self> {
        let tunnel = Tunnel::new(&Opts::new(ctx.against_intree()))?;
        let socket = |n| udp(tunnel.ns(n), SocketAddr::new(inner(false, n), 9000));
        let sockets = [socket(0)?, socket(1)?];
        let underlay = Underlay::attach(tunnel.ns(0), "v0")?;
        let capture = tunnel.watch(ctx, 1)?;
        Ok(Scene {
            tunnel,
            sockets,
            underlay,
            capture,
        })
    }

    /// Ends the session at both ends, so that the next packet makes a new one.
    pub(super) fn reset(&mut self) -> Result<()> {
        for up in [false, true] {
            self.tunnel.rt(0).set_up("wg0", up)?;
            self.tunnel.rt(1).set_up("wg1", up)?;
        }
        Ok(())
    }

    /// One datagram of 4 bytes from end `n` to the other: a data message of 64 bytes.
    pub(super) fn send(&self, n: u8) -> Result<()> {
        self.send_tag(n, 0)
    }

    fn send_tag(&self, n: u8, tag: u32) -> Result<()> {
        let to = SocketAddr::new(inner(false, 1 - n), 9000);
        self.sockets[usize::from(n)]
            .send_to(&tag.to_ne_bytes(), to)
            .context("send a datagram")?;
        Ok(())
    }

    /// The next datagram at end `n` within `limit`.
    pub(super) fn receive(&self, n: u8, limit: Duration) -> Result<Option<u32>> {
        let socket = &self.sockets[usize::from(n)];
        socket.set_read_timeout(Some(limit))?;
        let mut tag = [0; 4];
        match socket.recv(&mut tag) {
            Ok(4) => Ok(Some(u32::from_ne_bytes(tag))),
            Ok(len) => anyhow::bail!("a datagram of {len} bytes"),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// All datagrams at end `n`, until none arrives for a while.
    pub(super) fn receive_all(&self, n: u8) -> Result<Vec<u32>> {
        let mut tags = Vec::new();
        while let Some(tag) = self.receive(n, SEC / 5)? {
            tags.push(tag);
        }
        Ok(tags)
    }

    /// One datagram gets through, at once, and exactly once.
    pub(super) fn passes(&self, n: u8) -> Result<()> {
        self.send_tag(n, 77)?;
        let got = self.receive_all(1 - n)?;
        ensure!(
            got == [77],
            "afterwards: {got:?} arrived from end {n}, expected [77]"
        );
        Ok(())
    }

    /// How many messages of this class end `n` has sent since the programs were attached.
    pub(super) fn sent(&self, n: u8, class: Class) -> Result<u64> {
        Ok(self.underlay.counts(from(n))?.of(class))
    }

    /// Received bytes of the peer at each end.
    pub(super) fn rx(&mut self) -> Result<[u64; 2]> {
        Ok([self.tunnel.peer(0)?.rx_bytes, self.tunnel.peer(1)?.rx_bytes])
    }

    /// Errors and drops of each end's device.
    fn errors(&mut self) -> Result<[[u64; 4]; 2]> {
        let mut all = [[0; 4]; 2];
        for (n, name) in [(0, "wg0"), (1, "wg1")] {
            let s = self.tunnel.rt(n).stats(name)?;
            all[usize::from(n)] = [s.rx_errors, s.rx_dropped, s.tx_errors, s.tx_dropped];
        }
        Ok(all)
    }

    /// After a reset, one datagram from end `n`: checks when it arrives and how many initiations
    /// and responses this takes.
    fn connects(&self, n: u8, (low, high): (f64, f64), messages: [u64; 2]) -> Result<()> {
        let count = || {
            Ok::<_, anyhow::Error>([
                self.sent(n, Class::Initiation)?,
                self.sent(1 - n, Class::Response)?,
            ])
        };
        let (before, start) = (count()?, Instant::now());
        self.send(n)?;
        let got = self.receive(1 - n, SEC * 20)?;
        ensure!(got.is_some(), "no session within 20 s");
        within("the datagram arrived after", start.elapsed(), low, high)?;
        let after = count()?;
        let took = [after[0] - before[0], after[1] - before[1]];
        ensure!(
            took == messages,
            "it took {took:?} initiations and responses, expected {messages:?}"
        );
        let rest = self.receive_all(1 - n)?.len();
        ensure!(rest == 0, "the datagram arrived {} times", rest + 1);
        self.passes(1 - n)?;
        self.passes(n)
    }

    /// No errors were counted, and the underlay carried only WireGuard messages.
    pub(super) fn finish(mut self) -> Result<()> {
        self.underlay.only_wireguard()?;
        let errors = self.errors()?;
        let none = [[0; 4]; 2];
        ensure!(
            errors == none,
            "the devices counted errors and drops: {errors:?}"
        );
        Ok(())
    }
}

/// The first one or two initiations, or the response, are lost: the session is made by the next
/// attempt, 5 s later each, and the staged packet arrives.
fn loss_handshake(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    for n in [0, 1] {
        for (class, lost, sender, responses) in [
            (Class::Initiation, 1, n, 1),
            (Class::Initiation, 2, n, 1),
            (Class::Response, 1, 1 - n, 2),
        ] {
            scene.reset()?;
            let rule = Rule::new(from(sender), &[class], Action::Drop).times(lost);
            let rule = scene.underlay.disturb(rule)?;
            let bounds = (RETRY.0 * lost as f64, RETRY.1 * lost as f64);
            scene
                .connects(n, bounds, [lost + 1, responses])
                .with_context(|| format!("end {n} initiates, {class:?} lost {lost} times"))?;
            ensure!(scene.underlay.hits(rule)? == lost, "nothing was lost");
            scene.underlay.lift(rule)?;
        }
    }
    scene.finish()
}

/// The first data message is lost: the next one confirms the session instead; if there is none,
/// the initiator makes a new session after 15 s of silence.
fn loss_first_data(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    for n in [0, 1] {
        for more in [true, false] {
            let case = || format!("end {n} initiates, another datagram: {more}");
            scene.reset()?;
            let rule = Rule::new(from(n), &[Class::Data], Action::Drop);
            let rule = scene.underlay.disturb(rule)?;
            let before = scene.sent(n, Class::Initiation)?;
            let start = Instant::now();
            scene.send(n)?;
            let got = scene.receive_all(1 - n)?;
            ensure!(got.is_empty(), "{}: nothing was lost", case());
            ensure!(scene.underlay.hits(rule)? == 1, "{}: no hit", case());
            if more {
                scene.passes(n).with_context(case)?;
                scene.passes(1 - n).with_context(case)?;
            }
            while scene.sent(n, Class::Initiation)? < before + 2 && start.elapsed() < SEC * 18 {
                sleep(SEC / 10);
            }
            let count = scene.sent(n, Class::Initiation)? - before;
            // The in-tree driver's worker may finish with the response only after the data was
            // sent; then the response counts as received after the data.
            let intree = n == 1 || ctx.subject == Subject::C;
            let missed = !more && count == 1 && intree && is_slow();
            let want = if more || missed { 1 } else { 2 };
            ensure!(count == want, "{}: {count} initiations", case());
            if missed {
                ctx.note(format!("{}: the silence was not noticed", case()));
            } else if !more {
                within("a new handshake after", start.elapsed(), 14.9, 17.6).with_context(case)?;
            }
            scene.passes(n).with_context(case)?;
            scene.passes(1 - n).with_context(case)?;
            scene.underlay.lift(rule)?;
        }
    }
    scene.finish()
}

/// The keepalive that confirms a session is lost: the responder must not send in it. It starts
/// a handshake of its own, but not within 5 s of its response.
fn loss_confirmation(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    for n in [0, 1] {
        let case = || format!("end {n} initiates");
        let keepalive = |seconds| PeerConf {
            keepalive: Some(seconds),
            ..PeerConf::default()
        };
        scene.reset()?;
        let rule = Rule::new(from(n), &[Class::Keepalive], Action::Drop);
        let rule = scene.underlay.disturb(rule)?;
        scene.tunnel.set_peer(n, keepalive(3600))?;
        sleep(SEC / 2);
        ensure!(scene.underlay.hits(rule)? == 1, "{}: no keepalive", case());
        let before = scene.underlay.counts(from(1 - n))?;
        scene.send_tag(1 - n, 1)?;
        sleep(SEC * 2);
        let sent = scene.underlay.counts(from(1 - n))?.messages() - before.messages();
        ensure!(
            sent == 0,
            "{}: {sent} messages in an unconfirmed session, 2 s after the response",
            case()
        );
        sleep(SEC * 4);
        scene.send_tag(1 - n, 2)?;
        let got = scene.receive_all(n)?;
        ensure!(
            got == [1, 2],
            "{}: {got:?} arrived, expected 1 and 2",
            case()
        );
        let initiations = scene.sent(1 - n, Class::Initiation)? - before.of(Class::Initiation);
        ensure!(initiations == 1, "{}: {initiations} initiations", case());
        scene.passes(n).with_context(case)?;
        scene.tunnel.set_peer(n, keepalive(0))?;
        scene.underlay.lift(rule)?;
    }
    scene.finish()
}

/// Every message arrives twice: one response, one session, each datagram delivered and counted
/// once.
fn duplicates(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let mut rules = Vec::new();
    for direction in [Direction::Out, Direction::In] {
        let rule = Rule::new(direction, &Class::MESSAGES, Action::Duplicate).always();
        rules.push(scene.underlay.disturb(rule)?);
    }
    for n in [0, 1] {
        let case = || format!("end {n} initiates");
        scene.reset()?;
        let before = scene.rx()?;
        scene.connects(n, AT_ONCE, [1, 1]).with_context(case)?;
        sleep(SEC * 12); // the passive keepalive for the last datagram
        let after = scene.rx()?;
        let rx = [after[0] - before[0], after[1] - before[1]];
        let mut want = [0; 2];
        want[usize::from(n)] = 92 + 64 + 32;
        want[usize::from(1 - n)] = 148 + 2 * 64;
        ensure!(
            rx == want,
            "{}: {rx:?} bytes received, expected {want:?}",
            case()
        );
    }
    for rule in rules {
        ensure!(scene.underlay.hits(rule)? > 0, "nothing was duplicated");
    }
    scene.finish()
}

/// Data within the window is accepted in any order, once; a datagram with a wrong UDP checksum
/// never reaches WireGuard and so does not use up its counter.
fn reorder(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    for n in [0, 1] {
        let case = || format!("from end {n}");
        scene.passes(n)?;
        let rule = Rule::new(from(n), &[Class::Data], Action::Hold).every(3);
        let rule = scene.underlay.disturb(rule)?;
        for tag in 0..60 {
            scene.send_tag(n, tag)?;
        }
        let mut got = scene.receive_all(1 - n)?;
        ensure!(got.len() == 40, "{}: {} of 40 arrived", case(), got.len());
        scene.underlay.lift(rule)?;
        let mut held = scene.underlay.held()?;
        ensure!(held.len() == 20, "{}: {} of 20 held", case(), held.len());
        held.reverse();
        for held in &held {
            scene.underlay.release_spoiled(held)?;
        }
        let early = scene.receive_all(1 - n)?;
        ensure!(
            early.is_empty(),
            "{}: a wrong checksum was accepted",
            case()
        );
        for held in &held {
            scene.underlay.release(held)?;
        }
        let late = scene.receive_all(1 - n)?;
        let want: Vec<u32> = (0..60).step_by(3).rev().collect();
        ensure!(
            late == want,
            "{}: {late:?} arrived late, expected {want:?}",
            case()
        );
        got.extend(late);
        got.sort_unstable();
        let all: Vec<u32> = (0..60).collect();
        ensure!(got == all, "{}: {got:?} arrived", case());
        let before = scene.rx()?;
        for held in &held {
            scene.underlay.release(held)?;
        }
        let again = scene.receive_all(1 - n)?;
        ensure!(
            again.is_empty(),
            "{}: {again:?} were accepted twice",
            case()
        );
        ensure!(scene.rx()? == before, "{}: replays were counted", case());
        scene.passes(n).with_context(case)?;
        scene.passes(1 - n).with_context(case)?;
    }
    scene.finish()
}

/// Fields of the two handshake messages: name, offset, whether the message is still accepted.
const INITIATION: [(&str, i32, bool); 9] = [
    ("type", 0, false),
    ("reserved", 2, false),
    ("sender", 4, false),
    ("ephemeral", 8, false),
    ("static", 40, false),
    ("timestamp", 88, false),
    ("timestamp's tag", 115, false),
    ("mac1", 116, false),
    ("mac2", 132, true), // checked only under load
];
const RESPONSE: [(&str, i32, bool); 8] = [
    ("type", 0, false),
    ("reserved", 3, false),
    ("sender", 4, false),
    ("receiver", 8, false),
    ("ephemeral", 12, false),
    ("empty's tag", 44, false),
    ("mac1", 75, false),
    ("mac2", 91, true),
];

/// A bit is flipped in each field of a handshake message to end 0: it is dropped silently, it is
/// not counted, and the next attempt succeeds.
fn corrupt_handshake(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    let initiation = INITIATION.map(|field| (Class::Initiation, 1, field));
    let response = RESPONSE.map(|field| (Class::Response, 0, field));
    for (class, n, (field, offset, taken)) in initiation.into_iter().chain(response) {
        let case = || format!("{class:?} with a wrong bit in {field}");
        scene.reset()?;
        let before = scene.rx()?[0];
        let action = Action::Corrupt { offset, mask: 0x40 };
        let rule = Rule::new(Direction::In, &[class], action);
        let rule = scene.underlay.disturb(rule)?;
        let answered = u64::from(class == Class::Response);
        let (bounds, messages) = if taken {
            (AT_ONCE, [1, 1])
        } else {
            (RETRY, [2, 1 + answered])
        };
        scene.connects(n, bounds, messages).with_context(case)?;
        ensure!(scene.underlay.hits(rule)? == 1, "{}: no hit", case());
        scene.underlay.lift(rule)?;
        let want = match class {
            Class::Initiation => 148 + 2 * 64,
            _ => 92 + 64,
        };
        let rx = scene.rx()?[0] - before;
        ensure!(
            rx == want,
            "{}: {rx} bytes received, expected {want}",
            case()
        );
    }
    scene.finish()
}

/// A bit is flipped in each field of a data message or keepalive to end 0: it is dropped
/// silently, it is not counted, and the session stays usable.
fn corrupt_data(ctx: &Ctx) -> Result<()> {
    let mut scene = Scene::new(ctx)?;
    scene.passes(0)?;
    scene.passes(1)?;
    for (field, offset) in [
        ("type", 0),
        ("reserved", 1),
        ("receiver", 4),
        ("counter", 8),
        ("the counter's top", 15),
        ("the packet", 16),
        ("the padding", 47),
        ("the tag", 48),
        ("the tag's end", -1),
    ] {
        let case = || format!("data with a wrong bit in {field}");
        let action = Action::Corrupt { offset, mask: 0x40 };
        let rule = Rule::new(Direction::In, &[Class::Data], action);
        let rule = scene.underlay.disturb(rule)?;
        let before = scene.rx()?[0];
        scene.send(1)?;
        let got = scene.receive_all(0)?;
        ensure!(got.is_empty(), "{}: it was accepted", case());
        ensure!(scene.underlay.hits(rule)? == 1, "{}: no hit", case());
        ensure!(scene.rx()?[0] == before, "{}: it was counted", case());
        scene.underlay.lift(rule)?;
        scene.passes(1).with_context(case)?;
    }
    for (field, offset) in [("receiver", 4), ("counter", 8), ("the tag", 16)] {
        let case = || format!("a keepalive with a wrong bit in {field}");
        let action = Action::Corrupt { offset, mask: 0x40 };
        let rule = Rule::new(Direction::In, &[Class::Keepalive], action);
        let rule = scene.underlay.disturb(rule)?;
        scene.passes(0)?;
        let before = scene.rx()?[0];
        sleep(SEC * 12); // the other end's passive keepalive
        ensure!(scene.underlay.hits(rule)? == 1, "{}: no hit", case());
        ensure!(scene.rx()?[0] == before, "{}: it was counted", case());
        scene.underlay.lift(rule)?;
        scene.passes(1).with_context(case)?;
    }
    scene.finish()
}
