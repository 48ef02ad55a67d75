// SPDX-License-Identifier: GPL-2.0-only
//! Namespaces that are deleted under traffic, many times.

use super::{drop_in, Test};
use anyhow::{ensure, Context, Result};
use harness::flood::Flooder;
use harness::netns::{leaked, Netns};
use harness::noise::{cookie, Client, Pending, Tweak};
use harness::pace::{rounds, slow};
use harness::rig::{device, Rig, MOMENT, WAIT};
use harness::runner::Ctx;
use harness::topo::{inner, outer, Opts, Tunnel};
use harness::traffic::{ping_all, udp};
use harness::wgdev::PeerConf;
use harness::wire::Message;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::{self, sleep, JoinHandle};
use std::time::{Duration, Instant};

/// The source of the flood: an address in the tunnel's own network, behind its first end.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 9));

/// Bursts that fill a device's handshake queue, as far as it lets one source.
const FLOOD: usize = 128;
/// A device is under load within this time.
const FLOODED: Duration = Duration::from_secs(20);
/// A device is under load for so long after the last sign of it.
const UNDER_LOAD: Duration = Duration::from_secs(1);

pub fn register(list: &mut Vec<Test>) {
    drop_in(list, "netns-death-under-traffic", 300, under_traffic);
    drop_in(list, "netns-death-under-handshakes", 120, under_handshakes);
}

/// Which namespace is deleted first.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The one in which the sender was created: it has its sockets. The sender has moved away.
    Creator,
    /// The one with the receiver, which answers.
    Receiver,
    /// The one with the sender.
    Sender,
}

fn under_traffic(ctx: &Ctx) -> Result<()> {
    let rounds = rounds(12);
    let start = Instant::now();
    for n in 0..rounds {
        // On a slow kernel each round takes seconds.
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

/// Makes a tunnel whose first end is moved to a third namespace, floods it from there, and deletes
/// one namespace under that traffic, then the others.
fn round(ctx: &Ctx, victim: Victim, v6: bool) -> Result<()> {
    let mut tunnel = Tunnel::new(&Opts {
        v6,
        ..Opts::new(ctx.plain())
    })?;
    // The receiver answers with errors: nobody listens there.
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
    // The flood is routed into `away` from here: a socket in `away` would keep it alive.
    let outside = Netns::new("outside")?;
    let source = feed(&outside, &away)?;
    ping_all(&away, inner(false, 1), 1)?;

    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let flood = flood(source, &stop, &sent)?;
    // It must get through before anything is deleted.
    let begin = Instant::now();
    let before = tunnel.peer(1)?;
    loop {
        let now = tunnel.peer(1)?;
        if now.rx_bytes > before.rx_bytes + 5000 && now.tx_bytes > before.tx_bytes {
            break;
        }
        ensure!(
            begin.elapsed() < slow(Duration::from_secs(10)),
            "{} datagrams sent, {} bytes received, {} sent back",
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
    // A kernel worker tears the namespace down: keep the traffic going meanwhile.
    sleep(slow(Duration::from_millis(30)));
    drop(all);
    sleep(slow(Duration::from_millis(10)));
    stop.store(true, Ordering::Relaxed);
    flood.join().expect("flood thread panicked")?;
    drop(outside);
    wait_freed(0)
}

/// Waits until all namespaces are freed but `left`, which have not been deleted.
fn wait_freed(left: usize) -> Result<()> {
    let begin = Instant::now();
    while leaked()? > left {
        ensure!(
            begin.elapsed() < slow(Duration::from_secs(30)),
            "{} of the namespaces are not freed",
            leaked()? - left
        );
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A device moves from namespace to namespace while handshake messages with a cookie reach it, for
/// which its namespace is read (limits are per namespace); each that it has left is deleted.
fn under_handshakes(ctx: &Ctx) -> Result<()> {
    let mut rig = Rig::new(ctx, 1)?;
    let from = SocketAddr::new(outer(false, 1), 6998);
    let (to, key) = (device(false), rig.end.public_key);
    let mut strangers = Flooder::new(rig.link.end(1), from, to, &key)?;
    let mut here = Netns::new("away0")?;
    rig.link.rt(0).set_netns("wg0", here.fd())?;
    for n in 1..=rounds(6) {
        here.rtnl()?.set_up("wg0", true)?;
        send_with_cookie(&rig, &mut strangers).with_context(|| format!("round {n}"))?;
        let next = Netns::new(&format!("away{n}"))?;
        here.rtnl()?.set_netns("wg0", next.fd())?;
        here = next;
        // Its own, and those of the underlay.
        wait_freed(3)?;
        // The memory of one that has died is freed when the next dies.
        drop(Netns::new("last")?);
        wait_freed(3)?;
    }
    here.rtnl()?.set_up("wg0", true)?;
    sleep(2 * UNDER_LOAD);
    rig.clients[0].handshake().map(drop)
}

/// Puts the device under load, fetches a cookie, and sends messages with it, most of which are over
/// the limit.
fn send_with_cookie(rig: &Rig, strangers: &mut Flooder) -> Result<()> {
    let client = &rig.clients[0];
    client.flush()?;
    let begin = Instant::now();
    let cookie = loop {
        ensure!(
            begin.elapsed() < slow(FLOODED),
            "a flood does not put the device under load"
        );
        for _ in 0..FLOOD {
            strangers.burst();
        }
        let pending = client.initiate(&Tweak::default())?;
        let reply = answer(client, &pending)?;
        if reply.len() == cookie::REPLY {
            break cookie::open_reply(&reply, &client.peer, &pending.message)?;
        }
    };
    let with_cookie = Tweak {
        cookie: Some(cookie),
        ..Tweak::default()
    };
    let first = client.initiate(&with_cookie)?;
    let reply = answer(client, &first)?;
    ensure!(reply.len() != cookie::REPLY, "the cookie is not accepted");
    for _ in 0..8 {
        client.initiate(&with_cookie)?;
    }
    // They must not only wait in the queue, which moving the device empties.
    sleep(MOMENT);
    Ok(())
}

/// The response to an initiation, or the cookie reply.
fn answer(client: &Client, pending: &Pending) -> Result<Vec<u8>> {
    client.wait(slow(WAIT), "an answer", |message, _| match message {
        Message::Response { receiver, .. } | Message::Cookie { receiver } => {
            *receiver == pending.index
        }
        _ => false,
    })
}

/// Connects `outside` to `away`, which forwards packets for the tunnel's far end; returns a socket
/// in `outside` whose datagrams go there.
fn feed(outside: &Netns, away: &Netns) -> Result<UdpSocket> {
    let mut rt = outside.rtnl()?;
    let (here, there) = ([2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2]);
    rt.veth_add(("o0", here), ("o1", there), away.fd())?;
    rt.addr_add("o0", SOURCE, 24)?;
    rt.set_up("o0", true)?;
    // Routed, without ARP.
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
            // Now and then the destination is unreachable, as intended.
            let _ = socket.send_to(&data[..size], to);
            sent.fetch_add(1, Ordering::Relaxed);
            if size % 4 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }))
}
