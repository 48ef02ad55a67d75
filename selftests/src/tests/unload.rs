// SPDX-License-Identifier: GPL-2.0-only
//! rmmod under traffic and with armed timers, many times.

use super::Test;
use anyhow::{ensure, Context, Result};
use harness::checkers::kmemleak_watches;
use harness::driver::PLAIN;
use harness::modules::{loaded, unload, Modules, INTREE, OURS};
use harness::pace::{amount, rounds, slow};
use harness::runner::{Boot, Ctx, Subject};
use harness::topo::{inner, names, outer, port, End, Link};
use harness::wgdev::{random_key, PeerConf};
use nix::sys::socket::{setsockopt, sockopt};
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{sleep, JoinHandle};
use std::time::{Duration, Instant};

pub fn register(list: &mut Vec<Test>) {
    list.push(Test {
        name: "unload-under-traffic".to_owned(),
        boot: Boot::Smp,
        modules: Modules::None,
        subject: Subject::Rs,
        bound: Duration::from_secs(600),
        body: Box::new(rmmod_under_traffic),
    });
}

/// Kernel memory in use, in KiB: slabs and per-CPU areas.
fn kernel_memory() -> Result<u64> {
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    // Let RCU and the delayed frees after it run.
    sleep(Duration::from_millis(500));
    let text = fs::read_to_string("/proc/meminfo")?;
    let value = |key: &str| -> u64 {
        let line = text.lines().find(|l| l.starts_with(key)).unwrap_or("");
        line.split_whitespace()
            .nth(1)
            .and_then(|v| v.parse().ok())
            .unwrap_or(0)
    };
    Ok(value("SUnreclaim:") + value("Percpu:"))
}

/// Kernel threads (and other processes) with a WireGuard-like name.
fn threads() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        // An idle kworker still shows the name of its last work queue.
        if comm.starts_with("kworker/") {
            continue;
        }
        if comm.contains("wg0") || comm.contains("wg1") || comm.contains("wg-") {
            found.push(comm.trim().to_owned());
        }
    }
    Ok(found)
}

fn rmmod_under_traffic(ctx: &Ctx) -> Result<()> {
    let mut link = Link::new()?;
    let mut base = 0;
    let rounds = rounds(100);
    let start = Instant::now();
    for n in 0..rounds {
        if n % 25 == 0 {
            let kib = kernel_memory()?;
            ctx.note(format!(
                "{n} of {rounds} rounds; {kib} KiB of kernel memory"
            ));
        }
        if n == 10 {
            base = kernel_memory()?;
        }
        round(ctx, &mut link, n).with_context(|| format!("round {n}"))?;
    }
    let took = start.elapsed();
    let grown = kernel_memory()?.saturating_sub(base);
    ctx.note(format!(
        "{rounds} rounds, {:.2} s each; kernel memory grew by {grown} KiB",
        took.as_secs_f64() / f64::from(rounds)
    ));
    // 90 rounds of two devices and four peers: each leaked peer or device is at least 2 KiB. A
    // kernel that delays the reuse of freed memory has kmemleak instead.
    ensure!(
        rounds < 100 || grown < 6 << 10 || kmemleak_watches(),
        "kernel memory grew by {grown} KiB since round 10"
    );
    ensure!(threads()?.is_empty(), "threads left: {:?}", threads()?);
    Ok(())
}

/// Loads the module, makes a tunnel, floods it in both directions, and unloads meanwhile.
fn round(ctx: &Ctx, link: &mut Link, n: u32) -> Result<()> {
    let v6 = n % 2 == 1;
    ctx.env.load(Modules::Ours)?;
    let mut ends = [
        End::new(link, 0, PLAIN, None)?,
        End::new(link, 1, PLAIN, None)?,
    ];
    let keys = [ends[0].public_key, ends[1].public_key];
    for n in 0..2u8 {
        let peer = PeerConf {
            public_key: keys[usize::from(1 - n)],
            // One end only: two crossing initiations would fail and cost 5 s.
            endpoint: (n == 0).then(|| SocketAddr::new(outer(v6, 1), port(1))),
            keepalive: Some(1),
            allowed_ips: vec![(inner(false, 1 - n), 32), (inner(true, 1 - n), 128)],
            ..PeerConf::default()
        };
        // A peer that never answers: its handshake is being retried during the unload.
        let silent = PeerConf {
            public_key: random_key(),
            endpoint: Some(SocketAddr::new(outer(false, 1 - n), 9)),
            keepalive: Some(1),
            ..PeerConf::default()
        };
        ends[usize::from(n)].set_peer(link, peer)?;
        ends[usize::from(n)].set_peer(link, silent)?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let threads = [
        flood(link, 0, &stop)?,
        flood(link, 1, &stop)?,
        stream(link, &stop)?,
    ];
    let begin = Instant::now();
    loop {
        let device = ends[1].get(link)?;
        let rx = device.peers.iter().map(|p| p.rx_bytes).sum::<u64>();
        if rx > amount(20_000, 3_000) {
            break;
        }
        ensure!(
            begin.elapsed() < slow(Duration::from_secs(10)),
            "no traffic: only {rx} bytes received"
        );
        sleep(Duration::from_millis(10));
    }
    sleep(Duration::from_millis(u64::from(n * 37 % 100)));
    drop(ends);

    let name = if ctx.env.stand_in { INTREE } else { OURS };
    ensure!(loaded(name), "{name} is not the loaded module");
    let unloaded = unload(name);
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("traffic thread panicked")?;
    }
    unloaded?;
    for n in 0..2 {
        ensure!(
            link.rt(n).index(names(n).0).is_err(),
            "the device outlived its module"
        );
    }
    Ok(())
}

/// UDP datagrams of mixed sizes from end `n` to the other in bursts until told to stop.
fn flood(link: &Link, n: u8, stop: &Arc<AtomicBool>) -> Result<JoinHandle<Result<()>>> {
    let stop = stop.clone();
    let to = SocketAddr::new(inner(n == 0, 1 - n), 7);
    link.end(n).spawn(move || {
        let unspecified = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(unspecified)?;
        let data = [0u8; 1400];
        let mut size = 0;
        while !stop.load(Ordering::Relaxed) {
            size = (size + 211) % 1400;
            // Errors are expected when the device goes away. Pauses leave CPU time to the others.
            if socket.send_to(&data[..size], to).is_err() || size % 16 == 0 {
                sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    })
}

/// A TCP stream from end 0 to end 1 until told to stop.
fn stream(link: &Link, stop: &Arc<AtomicBool>) -> Result<JoinHandle<Result<()>>> {
    let at = SocketAddr::new(inner(false, 1), 5000);
    let listener = link.end(1).run(|| {
        let listener = TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })?;
    let stop = stop.clone();
    link.end(0).spawn(move || {
        let limit = Duration::from_millis(500);
        let Ok(mut stream) = TcpStream::connect_timeout(&at, limit) else {
            return Ok(());
        };
        let sink = listener.accept().ok();
        stream.set_nonblocking(true)?;
        // Closing with unsent data would keep the namespace alive for minutes: reset instead.
        let reset = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&stream, sockopt::Linger, &reset)?;
        if let Some((sink, _)) = &sink {
            setsockopt(sink, sockopt::Linger, &reset)?;
        }
        let mut buf = vec![0u8; 1 << 16];
        while !stop.load(Ordering::Relaxed) {
            if stream.write(&buf).is_err() {
                sleep(Duration::from_millis(1));
            }
            if let Some((sink, _)) = &sink {
                sink.set_nonblocking(true)?;
                let _ = std::io::Read::read(&mut &*sink, &mut buf);
            }
        }
        Ok(())
    })
}
