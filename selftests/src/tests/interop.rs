// SPDX-License-Identifier: GPL-2.0-only
//! Tunnels between this module and other implementations: every role and option combined.
//!
//! End 0 is under test, end 1 is the other implementation. Each row reports how far it got in a
//! note that starts with `matrix`; scripts/matrix makes a table of them. A few rows also run with
//! the in-tree module under test, so that a difference is not blamed on the wrong side.

use super::Test;
use anyhow::{bail, ensure, Context, Result};
use harness::capture::{Capture, Seen};
use harness::driver::{userspace, Driver, PLAIN};
use harness::modules::Modules;
use harness::pace::slow;
use harness::runner::{until, within, Boot, Ctx, Subject};
use harness::topo::{inner, mac, names, outer, port, Opts, Tunnel};
use harness::traffic::{ping, ping_all, tcp};
use harness::userspace::{log_tail, Program};
use harness::wgdev::{DeviceConf, Key};
use harness::wire::Message;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

const SEC: Duration = Duration::from_secs(1);
/// Size of one TCP stream, in bytes.
const BULK: u64 = 256 << 10;

/// The other implementations.
const THEIRS: [(&str, Option<Program>); 4] = [
    ("intree", None),
    ("go", Some(Program::Go)),
    ("boringtun", Some(Program::BoringTun)),
    ("gotatun", Some(Program::GotaTun)),
];

/// One row of the table.
#[derive(Clone, Copy)]
struct Row {
    theirs: &'static str,
    program: Option<Program>,
    /// The end that starts the handshake.
    initiator: u8,
    psk: bool,
    v6: bool,
}

pub fn register(list: &mut Vec<Test>) {
    for (theirs, program) in THEIRS {
        for (initiator, psk, v6) in (0..8u8).map(|n| (n >> 2, n & 2 != 0, n & 1 != 0)) {
            let row = Row {
                theirs,
                program,
                initiator,
                psk,
                v6,
            };
            // The control covers both roles and both values of each option.
            if (psk, v6) == (initiator == 0, initiator == 1) {
                list.push(test(row, Subject::C, Boot::Smp));
            }
            list.push(test(row, Subject::Rs, Boot::Smp));
            list.push(test(row, Subject::Rs, Boot::Vtime));
        }
    }
}

fn test(row: Row, subject: Subject, boot: Boot) -> Test {
    let suffix = if subject == Subject::C { "c" } else { "rs" };
    let area = if boot == Boot::Smp {
        "interop"
    } else {
        "interop-rekey"
    };
    Test {
        name: format!(
            "{area}-{}-{}-{}-{}@{suffix}",
            row.theirs,
            row.who(),
            row.psk_word(),
            row.outer_word()
        ),
        boot,
        modules: match (subject, row.program) {
            (Subject::C, _) => Modules::Intree,
            (Subject::Rs, None) => Modules::Both,
            (Subject::Rs, Some(_)) => Modules::Ours,
        },
        subject,
        bound: Duration::from_secs(if boot == Boot::Smp { 120 } else { 400 }),
        body: Box::new(move |ctx| run_row(ctx, row, suffix, boot)),
    }
}

impl Row {
    fn who(self) -> &'static str {
        if self.initiator == 0 {
            "we-initiate"
        } else {
            "they-initiate"
        }
    }

    fn psk_word(self) -> &'static str {
        if self.psk {
            "psk"
        } else {
            "plain"
        }
    }

    fn outer_word(self) -> &'static str {
        if self.v6 {
            "v6"
        } else {
            "v4"
        }
    }

    fn drivers(self, ctx: &Ctx) -> [Driver; 2] {
        match self.program {
            Some(program) => [PLAIN, userspace(program)],
            None => ctx.against_intree(),
        }
    }
}

/// Runs a row and reports how far it got, whether it fails or not.
fn run_row(ctx: &Ctx, row: Row, subject: &str, boot: Boot) -> Result<()> {
    let version = match row.program {
        // Reported once per program.
        Some(_) if row.psk || row.v6 => "-".to_owned(),
        Some(program) => program.version()?,
        None => nix::sys::utsname::uname()?
            .release()
            .to_string_lossy()
            .into_owned(),
    };
    let steps: &[Step] = if boot == Boot::Smp { &SMP } else { &VTIME };
    let mut line = format!(
        "matrix {} {version} {subject} {} {} {}",
        row.theirs,
        row.who(),
        row.psk_word(),
        row.outer_word()
    );
    let mut scene = Scene::new(ctx, row);
    let mut outcome = Ok(());
    for (name, step) in steps {
        let word = match (&outcome, &mut scene) {
            (Ok(()), Ok(scene)) => {
                outcome = step(scene).with_context(|| (*name).to_owned());
                if outcome.is_ok() {
                    "ok"
                } else {
                    "failed"
                }
            }
            _ => "unreached",
        };
        line.push_str(&format!(" {name}={word}"));
    }
    ctx.note(line);
    let outcome = outcome.and(scene.map(drop));
    if outcome.is_err() && row.program.is_some() {
        ctx.note(log_tail(names(1).0));
    }
    outcome
}

/// The steps, in order; those after a failure are not reached.
type Step = (&'static str, fn(&mut Scene) -> Result<()>);
const SMP: [Step; 7] = [
    ("handshake", handshake),
    ("ping", pings),
    ("tcp", streams),
    ("their-port", |scene| new_port(scene, 1)),
    ("our-port", |scene| new_port(scene, 0)),
    ("their-address", |scene| new_address(scene, 1)),
    ("our-address", |scene| new_address(scene, 0)),
];
const VTIME: [Step; 2] = [("handshake", handshake), ("rekey", rekey)];

struct Scene {
    row: Row,
    psk: Option<Key>,
    tunnel: Tunnel,
    underlay: Capture,
    /// The current outer address of each end.
    at: [SocketAddr; 2],
}

impl Scene {
    fn new(ctx: &Ctx, row: Row) -> Result<Self> {
        let psk = row.psk.then(rand::random);
        let opts = Opts {
            v6: row.v6,
            psk: [psk; 2],
            mtu: Some(1420), // some programs give their TUN device 1500
            ..Opts::new(row.drivers(ctx))
        };
        let tunnel = Tunnel::new(&opts)?;
        let underlay = tunnel.watch(ctx, 0)?;
        let at = [0, 1].map(|n| SocketAddr::new(outer(row.v6, n), port(n)));
        Ok(Scene {
            row,
            psk,
            tunnel,
            underlay,
            at,
        })
    }

    /// The initiations so far. wireguard-go arms its retry timer after it has sent the initiation;
    /// if the response arrives in between, the retry is still sent after 5 s.
    fn initiations(&self) -> Vec<Seen> {
        let mut seen = self.underlay.seen();
        seen.retain(Seen::is_initiation);
        if self.row.program == Some(Program::Go) && self.row.initiator == 1 {
            seen.reverse();
            seen.dedup_by(|first, retry| first.src == retry.src && retry.at - first.at < 6 * SEC);
            seen.reverse();
        }
        seen
    }

    /// End `n`, which has just moved, and the other end reach each other without a new session, and
    /// the other end knows the new endpoint.
    fn reached(&mut self, n: u8) -> Result<()> {
        let before = self.initiations().len();
        // The end under test must get through at once, the other may take longer.
        let (tries, limit) = if n == 0 {
            (1, slow(10 * SEC))
        } else {
            (10, slow(SEC))
        };
        let mut lost = 0;
        while ping(self.tunnel.ns(n), inner(false, 1 - n), 1, 56, limit)? == 0 {
            lost += 1;
            ensure!(
                lost < tries,
                "end {n} is now at {} and gets no answer to {lost} pings",
                self.at[usize::from(n)]
            );
        }
        let known = self.tunnel.peer(1 - n)?.endpoint;
        ensure!(
            known == Some(self.at[usize::from(n)]),
            "end {} has endpoint {known:?} for its peer, which is at {}",
            1 - n,
            self.at[usize::from(n)]
        );
        ping_all(self.tunnel.ns(1 - n), inner(true, n), 1)?;
        let more = self.initiations().split_off(before);
        ensure!(
            more.is_empty(),
            "after end {n} moved, {} sent an initiation",
            more[0].src
        );
        Ok(())
    }
}

/// The first packet makes a session, and the right end initiates it.
fn handshake(scene: &mut Scene) -> Result<()> {
    let (from, to) = (scene.row.initiator, 1 - scene.row.initiator);
    ping_all(scene.tunnel.ns(from), inner(false, to), 2)?;
    let response = |s: &Seen| matches!(s.message, Message::Response { .. });
    let seen = scene.underlay.wait(1, 10 * SEC, response)?;
    let first = seen.first().context("nothing on the underlay")?;
    ensure!(
        first.is_initiation(),
        "the first message is {:?}",
        first.message
    );
    let at = |n: u8| scene.at[usize::from(n)];
    for s in seen.iter().filter(|s| s.is_initiation()) {
        ensure!(
            (s.src, s.dst) == (at(from), at(to)),
            "an initiation went from {} to {}",
            s.src,
            s.dst
        );
    }
    let response = seen.iter().find(|s| response(s));
    let response = response.context("no response on the underlay")?;
    ensure!(
        (response.src, response.dst) == (at(to), at(from)),
        "the response went from {} to {}",
        response.src,
        response.dst
    );
    for n in 0..2 {
        let peer = scene.tunnel.peer(n)?;
        // boringtun reports the time since the handshake, which is 0 here.
        let silent = n == 1 && scene.row.program == Some(Program::BoringTun);
        ensure!(
            silent || !peer.last_handshake.is_zero(),
            "end {n} reports no handshake"
        );
        ensure!(
            peer.preshared_key == scene.psk.unwrap_or([0; 32]),
            "end {n} reports a different preshared key"
        );
    }
    Ok(())
}

/// In both directions, with both inner address families.
fn pings(scene: &mut Scene) -> Result<()> {
    for (from, to) in [(0, 1), (1, 0)] {
        for v6_inside in [false, true] {
            ping_all(scene.tunnel.ns(from), inner(v6_inside, to), 2)?;
        }
    }
    Ok(())
}

/// A short TCP stream in each direction.
fn streams(scene: &mut Scene) -> Result<()> {
    for (from, to) in [(0, 1), (1, 0)] {
        let at = SocketAddr::new(inner(from == 0, to), 5000);
        let ns = |n| scene.tunnel.ns(n);
        tcp(ns(from), ns(to), at, BULK, 5 * SEC)
            .with_context(|| format!("from end {from} to end {to}"))?;
    }
    for n in 0..2 {
        let peer = scene.tunnel.peer(n)?;
        ensure!(
            peer.rx_bytes > BULK && peer.tx_bytes > BULK,
            "end {n} counts too little: {} in, {} out",
            peer.rx_bytes,
            peer.tx_bytes
        );
    }
    Ok(())
}

/// End `n` moves to another port; the session stays.
fn new_port(scene: &mut Scene, n: u8) -> Result<()> {
    let new = 7000 + u16::from(n);
    if n == 1 && scene.row.program == Some(Program::GotaTun) {
        // gotatun 0.10.2 sometimes exits when its port changes: its old tasks, while being
        // stopped, may take each other's end for that of the TUN device. So use a NAT instead.
        let rules = format!(
            "table inet nat {{
                chain leave {{
                    type filter hook postrouting priority -300;
                    udp sport {0} udp sport set {new};
                }}
                chain enter {{
                    type filter hook prerouting priority -300;
                    udp dport {new} udp dport set {0};
                }}
            }}",
            port(n)
        );
        scene.tunnel.ns(n).sh_in("nft -f -", &rules)?;
    } else {
        let conf = DeviceConf {
            listen_port: Some(new),
            ..DeviceConf::default()
        };
        scene.tunnel.ends[usize::from(n)].set(&scene.tunnel.link, &conf)?;
    }
    scene.at[usize::from(n)].set_port(new);
    scene.reached(n)
}

/// End `n` moves to another address; the session stays.
fn new_address(scene: &mut Scene, n: u8) -> Result<()> {
    let ((_, veth), (_, other_veth)) = (names(n), names(1 - n));
    let (new, cidr): (IpAddr, u8) = if scene.row.v6 {
        let last = 0x11 + u16::from(n);
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into(), 64)
    } else {
        (Ipv4Addr::new(192, 0, 2, 11 + n).into(), 24)
    };
    let tunnel = &mut scene.tunnel;
    tunnel.rt(1 - n).neigh_set(other_veth, new, mac(n))?;
    tunnel.rt(n).addr_del(veth, outer(scene.row.v6, n), cidr)?;
    tunnel.rt(n).addr_add(veth, new, cidr)?;
    scene.at[usize::from(n)].set_ip(new);
    scene.reached(n)
}

/// With a ping every three seconds the session is renewed 120 s after it was made, by its
/// initiator, and no ping is lost.
fn rekey(scene: &mut Scene) -> Result<()> {
    let from = scene.row.initiator;
    let start = Instant::now();
    for tick in 1..=44 {
        until(start, tick * 3 * SEC);
        let got = ping(scene.tunnel.ns(from), inner(false, 1 - from), 1, 56, SEC)?;
        ensure!(got == 1, "the ping after {} s is lost", tick * 3);
    }
    let initiations = scene.initiations();
    let [first, second] = initiations.as_slice() else {
        let mut seen = scene.underlay.seen();
        seen.retain(|s| s.data_len().is_none());
        bail!(
            "{} initiations in 132 s; all handshake messages: {:?}",
            initiations.len(),
            seen.iter()
                .map(|s| (s.at - seen[0].at, s.src, &s.message))
                .collect::<Vec<_>>()
        )
    };
    ensure!(
        second.src == scene.at[usize::from(from)],
        "the new session was initiated by {}",
        second.src
    );
    within(
        "second initiation after",
        second.at - first.at,
        119.9,
        126.0,
    )?;
    // Data in both directions now uses the new session.
    let seen = scene.underlay.seen();
    let response = seen.iter().rev().find_map(|s| match s.message {
        Message::Response { sender, receiver } if s.at > second.at => Some((sender, receiver)),
        _ => None,
    });
    let (theirs, ours) = response.context("no response to the second initiation")?;
    for (src, index) in [(from, theirs), (1 - from, ours)] {
        let at = scene.at[usize::from(src)];
        let last = seen
            .iter()
            .rev()
            .find(|s| s.src == at && s.data_len() > Some(32)); // not all pad
        let receiver = match last.map(|s| &s.message) {
            Some(Message::Data { receiver, .. }) => *receiver,
            _ => bail!("end {src} sent no data"),
        };
        ensure!(
            receiver == index,
            "end {src} still sends in the old session"
        );
    }
    Ok(())
}
