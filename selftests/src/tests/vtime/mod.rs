// SPDX-License-Identifier: GPL-2.0-only
//! Timers and limits in virtual time, in two set-ups: end 0 under test with the in-tree driver as
//! its peer ([`Scene`]), or with the harness's protocol clients ([`harness::rig::Rig`]).
//!
//! No test starts a program once the clock matters, and all times are taken from captured frames.
//! The upper bounds allow for the kernel's timer wheel, which may fire up to an eighth late, and
//! for the protocol's jitter of a third of a second.

mod cookies;
mod events;
mod initiations;
mod keepalive;
mod lifetime;
mod ratelimit;
mod retries;
mod rotation;
mod sources;
mod underload;

use super::{drop_in_vtime, side_by_side, Check, Test};
use anyhow::{ensure, Context, Result};
use harness::capture::{initiations, Capture, Seen};
use harness::runner::{Boot, Ctx};
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::{drain, udp};
use harness::wire::Message;
use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

const SEC: Duration = Duration::from_secs(1);

pub fn register(list: &mut Vec<Test>) {
    let pairs: [(&str, u64, Check); 7] = [
        ("vtime-rekey-120s", 600, lifetime::rekey_120s),
        ("vtime-rekey-hour", 4000, lifetime::rekey_hour),
        ("vtime-death-180s-send", 600, lifetime::death_180s_send),
        (
            "vtime-death-180s-receive",
            600,
            lifetime::death_180s_receive,
        ),
        ("vtime-handshake-retries", 900, retries::handshake_retries),
        (
            "vtime-passive-keepalive-10s",
            300,
            keepalive::passive_keepalive,
        ),
        (
            "vtime-persistent-keepalive",
            600,
            keepalive::persistent_keepalive,
        ),
    ];
    for (name, secs, body) in pairs {
        side_by_side(list, name, Boot::Vtime, secs, body);
    }
    lifetime::register(list);
    keepalive::register(list);
    retries::register(list);
    initiations::register(list);
    rotation::register(list);
    underload::register(list);
    cookies::register(list);
    ratelimit::register(list);
    sources::register(list);
    events::register(list);
}

/// Tests of the module in the role of `wireguard`, with their bounds in seconds.
fn drop_in(list: &mut Vec<Test>, tests: &[(&str, u64, Check)]) {
    for &(name, secs, body) in tests {
        drop_in_vtime(list, name, secs, body);
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
        let tunnel = Tunnel::new(&Opts::new(ctx.against_intree()))?;
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

    /// The number of datagrams received at end `n` since the last call.
    fn received(&self, n: u8) -> Result<usize> {
        sleep(Duration::from_millis(50));
        drain(&self.sockets[usize::from(n)])
    }

    /// Makes a session, with end `n` as initiator; returns the time of the response.
    fn handshake(&self, n: u8) -> Result<Duration> {
        self.send(n)?;
        let seen = self
            .underlay
            .wait(1, 5 * SEC, |s| s.data_len() == Some(64))?;
        ensure!(
            self.received(1 - n)? == 1,
            "the first datagram did not arrive"
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

/// The times of the data messages of `len` bytes that end 0 sent (`outgoing`) or received.
fn data(seen: &[Seen], outgoing: bool, len: usize) -> Vec<Duration> {
    let wanted = |s: &&Seen| s.outgoing == outgoing && s.data_len() == Some(len);
    seen.iter().filter(wanted).map(|s| s.at).collect()
}
