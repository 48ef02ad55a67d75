// SPDX-License-Identifier: GPL-2.0-only
//! `wg syncconf` and `wg setconf` on a tunnel in use.

use super::Keys;
use anyhow::{ensure, Context, Result};
use harness::runner::Ctx;
use harness::topo::{inner, Opts, Tunnel};
use harness::traffic::{ping_all, tcp};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

/// While a stream runs: syncconf, adding, changing and removing peers, keeps its session; setconf
/// starts a new one, and the stream continues.
pub(super) fn under_traffic(ctx: &Ctx) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts::new(ctx.by_tool()))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let before = tunnel.peer(0)?;
    let plain = tunnel.ns(0).sh("wg showconf wg0")?;
    let stdin = "/proc/self/fd/0";
    let at = SocketAddr::new(inner(false, 1), 5000);
    let stream =
        |tunnel: &Tunnel, bytes: u64, stall: u64, verb: &str, rounds: usize| -> Result<()> {
            thread::scope(|scope| {
                let (a, b) = (tunnel.ns(0), tunnel.ns(1));
                let stall = Duration::from_secs(stall);
                let sent = scope.spawn(move || tcp(a, b, at, bytes, stall));
                for n in 0..rounds {
                    let other = Keys::new(a)?.public;
                    let conf = format!(
                        "{plain}\n[Peer]\nPublicKey = {other}\n\
                     AllowedIPs = 10.77.{n}.0/24\nEndpoint = 192.0.2.77:{}\n",
                        n + 1
                    );
                    a.sh_in(&format!("wg {verb} wg0 {stdin}"), &conf)?;
                    let peers = a.sh("wg show wg0 peers")?;
                    ensure!(
                        peers.lines().count() == 2 && peers.contains(&other),
                        "after {verb} number {n} the peers are {peers}"
                    );
                }
                sent.join()
                    .expect("stream panicked")
                    .with_context(|| verb.to_owned())?;
                Ok(())
            })
        };
    stream(&tunnel, 16 << 20, 3, "syncconf", 8)?;
    let device = tunnel.ends[0].get(&tunnel.link)?;
    let key = tunnel.ends[1].public_key;
    let after = device
        .peers
        .iter()
        .find(|p| p.public_key == key)
        .context("the peer is missing")?;
    ensure!(
        after.last_handshake == before.last_handshake,
        "syncconf ended the session"
    );
    ensure!(after.tx_bytes > 16 << 20, "syncconf reset the counters");
    // Each setconf ends the session; a new handshake may be rate limited for 5 s.
    stream(&tunnel, 4 << 20, 20, "setconf", 1)?;
    ping_all(tunnel.ns(0), inner(false, 1), 3)?;
    tunnel
        .ns(0)
        .sh_in(&format!("wg syncconf wg0 {stdin}"), &plain)?;
    ensure!(
        tunnel.ns(0).sh("wg show wg0 peers")?.lines().count() == 1,
        "syncconf did not remove a peer"
    );
    ping_all(tunnel.ns(1), inner(false, 0), 3)
}
