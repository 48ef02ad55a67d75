// SPDX-License-Identifier: GPL-2.0-only
//! `wg-rs reresolve`: a server whose name gets another address.

use super::call::{Call, Seen};
use super::clock::Clock;
use super::sides::{overlay, prepare, program, DIR};
use anyhow::{ensure, Result};
use harness::runner::Ctx;
use harness::topo::{inner, names, outer, port, Opts, Tunnel};
use harness::traffic::ping_all;
use harness::wgdev::base64;
use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Peers are silent so long after their last handshake, in seconds.
const SILENT: i64 = 135;
const FILE: &str = "/run/wgrs-tool/files/wg0.conf";

/// Says what the server's name means.
fn name(addr: Option<IpAddr>) -> Result<()> {
    let line = addr.map_or(String::new(), |addr| format!("{addr} server.example\n"));
    overlay("/etc/hosts", &format!("127.0.0.1 localhost\n{line}"))
}

pub fn reresolve(ctx: &Ctx) -> Result<()> {
    prepare(&[])?;
    let mut tunnel = Tunnel::new(&Opts::new(ctx.plain()))?;
    let key = base64(&tunnel.ends[1].public_key);
    let endpoint = format!("server.example:{}", port(1));
    let peer = |endpoint: &str| format!("[Peer]\nPublicKey = {key}\nEndpoint = {endpoint}\n");
    let run = |tunnel: &Tunnel| -> Result<Seen> {
        let call = Call::new("wg-rs", ["reresolve", FILE]);
        let ran = || call.run(&program(1, "wg-rs"), Path::new(DIR));
        let seen = tunnel.ns(0).run(ran)?;
        ensure!(seen.ok(), "{call}: {seen:?}");
        Ok(seen)
    };
    let is_at = |tunnel: &mut Tunnel, addr: IpAddr, when: &str| -> Result<()> {
        let (seen, wanted) = (tunnel.peer(0)?.endpoint, SocketAddr::new(addr, port(1)));
        ensure!(seen == Some(wanted), "{when}: at {seen:?}, not {wanted}");
        Ok(())
    };
    let reaches = |tunnel: &Tunnel| {
        let limit = Duration::from_secs(1);
        Ok::<_, anyhow::Error>(
            harness::traffic::ping(tunnel.ns(0), inner(false, 1), 1, 8, limit)? == 1,
        )
    };

    let [old, new] = [outer(false, 1), outer(false, 2)];
    fs::write(FILE, peer(&endpoint))?;
    fs::set_permissions(FILE, Permissions::from_mode(0o600))?;
    name(Some(old))?;
    ping_all(tunnel.ns(0), inner(false, 1), 1)?;
    let clock = Clock::new()?;
    let shaken = tunnel.ns(0).sh("wg show wg0 latest-handshakes")?;
    let last: i64 = shaken.split_whitespace().last().unwrap_or("").parse()?;

    // The server moves.
    let (_, veth) = names(1);
    tunnel
        .ns(1)
        .sh(&format!("ip address del {old}/24 dev {veth}"))?;
    tunnel
        .ns(1)
        .sh(&format!("ip address add {new}/24 dev {veth}"))?;
    name(Some(new))?;
    ensure!(!reaches(&tunnel)?, "the server answers at its old address");
    clock.to(last + SILENT / 2)?;
    run(&tunnel)?;
    is_at(&mut tunnel, old, "not silent for long enough")?;
    clock.to(last + SILENT + 30)?;
    // Names alone are asked for again, and only if they have an address.
    fs::write(FILE, peer(&format!("{old}:{}", port(1))))?;
    run(&tunnel)?;
    is_at(&mut tunnel, old, "an address in the file")?;
    fs::write(FILE, peer(&endpoint))?;
    name(None)?;
    let seen = run(&tunnel)?;
    ensure!(seen.text().contains("server.example"), "{seen:?}");
    is_at(&mut tunnel, old, "no such name")?;
    name(Some(new))?;
    let seen = run(&tunnel)?;
    ensure!(seen.text().is_empty(), "{seen:?}");
    is_at(&mut tunnel, new, "silent")?;
    ensure!(
        tunnel.peer(0)?.allowed_ips.len() == 2,
        "the peer has lost allowed IPs"
    );
    ping_all(tunnel.ns(0), inner(false, 1), 1)
}
