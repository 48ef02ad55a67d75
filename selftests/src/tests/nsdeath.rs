// SPDX-License-Identifier: GPL-2.0
//! Namespaces that go while packets fly, many times.

use super::{drop_in, Test};
use crate::harness::netns::{leaked, Netns};
use crate::harness::pace::{rounds, slow};
use crate::harness::runner::Ctx;
use crate::harness::topo::{inner, Opts, Tunnel};
use crate::harness::traffic::{ping_all, udp};
use crate::harness::wgdev::PeerConf;
use anyhow::{ensure, Context, Result};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::{self, sleep, JoinHandle};
use std::time::{Duration, Instant};

/// Where the flood comes from: an address of the tunnel's own network, behind its first end.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 9));

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "netns-death-under-traffic", 300, under_traffic);
}

/// Which namespace goes first.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The one the sender was made in; the sender itself has moved away. Its sockets go.
    Creator,
    /// The one with the receiver in it, answering.
    Receiver,
    /// The one with the sender in it.
    Sender,
}

fn under_traffic(ctx: &Ctx) -> Result<()> {
    let rounds = rounds(12);
    let start = Instant::now();
    for n in 0..rounds {
        // On a slow kernel each takes seconds.
        if n % 25 == 0 {
            ctx.note(format!("{n} of {rounds} rounds"));
        }
        let victim = [Victim::Creator, Victim::Receiver, Victim::Sender][n as usize % 3];
        round(ctx, victim, n % 2 == 1).with_context(|| format!("round {n}, {victim:?} dies"))?;
    }
    ctx.note(format!(
        "{rounds} rounds, {:.2} s each",
        start.elapsed().as_secs_f64() / f64::from(rounds)
    ));
    Ok(())
}

/// Makes a tunnel whose first end lives in a third namespace, floods it from there, and lets one
/// namespace go in the midst of it, then the others.
fn round(ctx: &Ctx, victim: Victim, v6: bool) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts {
        v6,
        ..Opts::new(ctx.plain())
    })?;
    // The receiver answers: nobody listens there.
    let from = PeerConf {
        allowed_ips: vec![(SOURCE, 32)],
        ..PeerConf::default()
    };
    tunnel.set_peer(1, from)?;
    let away = Netns::new("away")?;
    tunnel.rt(0).set_netns("wg0", away.fd())?;
    let mut rt = away.rtnl()?;
    rt.addr_add("wg0", inner(false, 0), 24)?;
    rt.addr_add("wg0", inner(true, 0), 64)?;
    rt.set_up("wg0", true)?;
    // What is flooded comes by this way into `away`: a socket there would keep it alive.
    let outside = Netns::new("outside")?;
    let source = feed(&outside, &away)?;
    ping_all(&away, inner(false, 1), 1)?;

    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let flood = flood(source, &stop, &sent)?;
    // It must come through before anything goes.
    let begin = Instant::now();
    let before = tunnel.peer(1)?;
    loop {
        let now = tunnel.peer(1)?;
        if now.rx_bytes > before.rx_bytes + 5000 && now.tx_bytes > before.tx_bytes {
            break;
        }
        ensure!(
            begin.elapsed() < slow(Duration::from_secs(10)),
            "{} datagrams sent, {} bytes came through, {} went back",
            sent.load(Ordering::Relaxed),
            now.rx_bytes - before.rx_bytes,
            now.tx_bytes - before.tx_bytes
        );
        sleep(Duration::from_millis(5));
    }

    let Tunnel { link, ends } = tunnel;
    drop((ends, rt));
    let [creator, receiver] = link.into_namespaces();
    let mut all = [Some(creator), Some(receiver), Some(away)];
    all[victim as usize] = None;
    // A worker of the kernel takes it down: let it meet the traffic.
    sleep(slow(Duration::from_millis(30)));
    drop(all);
    sleep(slow(Duration::from_millis(10)));
    stop.store(true, Ordering::Relaxed);
    flood.join().expect("flood thread panicked")?;
    drop(outside);
    let begin = Instant::now();
    while leaked()? > 0 {
        ensure!(
            begin.elapsed() < slow(Duration::from_secs(30)),
            "{} of the namespaces do not go",
            leaked()?
        );
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Joins `outside` to `away`, which forwards what comes for the tunnel's far end; gives a socket
/// in `outside` whose datagrams go there.
fn feed(outside: &Netns, away: &Netns) -> Result<UdpSocket> {
    let mut rt = outside.rtnl()?;
    let (here, there) = ([2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2]);
    rt.veth_add(("o0", here), ("o1", there), away.fd())?;
    rt.addr_add("o0", SOURCE, 24)?;
    rt.set_up("o0", true)?;
    // To be routed, not to be asked for.
    rt.neigh_set("o0", inner(false, 1), there)?;
    away.rtnl()?.set_up("o1", true)?;
    away.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("ip_forward"))?;
    udp(outside, SocketAddr::new(SOURCE, 0))
}

/// Sends datagrams from `socket` until told to stop, counting them.
fn flood(
    socket: UdpSocket,
    stop: &Arc<AtomicBool>,
    sent: &Arc<AtomicU64>,
) -> Result<JoinHandle<Result<()>>> {
    let (stop, sent) = (stop.clone(), sent.clone());
    let to = SocketAddr::new(inner(false, 1), 9);
    Ok(thread::spawn(move || {
        let data = [0u8; 1300];
        let mut size = 0;
        while !stop.load(Ordering::Relaxed) {
            size = (size + 211) % data.len();
            // Unreachable, now and then: that is what it is about.
            let _ = socket.send_to(&data[..size], to);
            sent.fetch_add(1, Ordering::Relaxed);
            if size % 4 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }))
}
