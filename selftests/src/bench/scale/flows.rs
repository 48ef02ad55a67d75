// SPDX-License-Identifier: GPL-2.0-only
//! Traffic between the hub of a [`Star`] and all its peers at once, one flow per peer.

use super::star::{hub, spoke, Star};
use crate::bench::traffic::SMALL;
use anyhow::{ensure, Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// How long a thread waits before it looks whether it is to end.
const TURN: Duration = Duration::from_millis(100);
/// How long a connection, and the first of what is sent, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Datagrams that a sender sends on one flow before it turns to the next.
const STRETCH: usize = 16;

/// What all threads of one measurement share.
#[derive(Default)]
struct Shared {
    received: AtomicU64,
    sent: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    /// What is sent and received per second of `time`, of which a tenth is left out, from when
    /// something has been received.
    fn rates(&self, time: Duration) -> [f64; 2] {
        let now = || {
            let counts = [&self.sent, &self.received].map(|n| n.load(Relaxed));
            (Instant::now(), counts)
        };
        let begin = Instant::now();
        while self.received.load(Relaxed) == 0 && begin.elapsed() < PATIENCE {
            sleep(Duration::from_millis(1));
        }
        sleep(time / 10);
        let (start, before) = now();
        sleep(time * 9 / 10);
        let (end, after) = now();
        self.stop.store(true, Relaxed);
        let rate = |n: usize| (after[n] - before[n]) as f64 / (end - start).as_secs_f64();
        [rate(0), rate(1)]
    }

    fn going(&self) -> bool {
        !self.stop.load(Relaxed)
    }
}

/// True for an error that only says that a thread should look around.
fn idle(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// Waits for `threads`; the first error, or what was `measured`.
fn all<T>(threads: Vec<thread::ScopedJoinHandle<'_, Result<()>>>, measured: T) -> Result<T> {
    for thread in threads {
        thread.join().expect("a thread of the bench panicked")?;
    }
    Ok(measured)
}

/// Datagrams of [`SMALL`] bytes from the peers to the hub for `time`, sent by as many threads as
/// there are CPUs (or peers, if they are fewer): datagrams sent and delivered per second.
pub fn small(star: &Star, time: Duration) -> Result<[f64; 2]> {
    let threads = usize::from(star.peers).min(thread::available_parallelism()?.get());
    let sinks = star.ns[0].run(|| {
        let bind = |_| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?);
        (0..threads).map(bind).collect::<Result<Vec<_>>>()
    })?;
    let sources = star.ns[1].run(|| {
        let connect = |i: u8| {
            let socket = UdpSocket::bind((spoke(i), 0))?;
            setsockopt(&socket, sockopt::SndBuf, &(1 << 20))?;
            let sink = &sinks[usize::from(i) % threads];
            socket.connect((hub(i), sink.local_addr()?.port()))?;
            Ok(socket)
        };
        (0..star.peers).map(connect).collect::<Result<Vec<_>>>()
    })?;
    let shared = Shared::default();
    let receive = |sink: &UdpSocket| {
        setsockopt(sink, sockopt::RcvBufForce, &(8 << 20))?;
        sink.set_read_timeout(Some(TURN))?;
        let mut buf = [0; 2048];
        while shared.going() {
            match sink.recv(&mut buf) {
                Ok(_) => shared.received.fetch_add(1, Relaxed),
                Err(e) if idle(e.kind()) => continue,
                Err(e) => return Err(e).context("UDP recv"),
            };
        }
        Ok(())
    };
    let send = |first: usize| {
        let payload = [0x5a; SMALL];
        while shared.going() {
            for source in sources.iter().skip(first).step_by(threads) {
                for _ in 0..STRETCH {
                    source.send(&payload).context("UDP send")?;
                }
                shared.sent.fetch_add(STRETCH as u64, Relaxed);
            }
        }
        Ok(())
    };
    let rates = thread::scope(|scope| {
        let mut running = Vec::new();
        for (n, sink) in sinks.iter().enumerate() {
            running.push(scope.spawn(|| receive(sink)));
            running.push(scope.spawn(move || send(n)));
        }
        let rates = shared.rates(time);
        all(running, rates)
    })?;
    ensure!(rates[1] > 0.0, "nothing arrived");
    // What is still queued must not spill into the next measurement.
    sleep(TURN / 2);
    Ok(rates)
}

/// One TCP stream from the hub to each peer for `time`: bytes delivered per second.
pub fn tcp(star: &Star, time: Duration) -> Result<f64> {
    let listener = star.ns[0].run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
    let port = listener.local_addr()?.port();
    // By the peers: their route decides the source address.
    let sinks = star.ns[1].run(|| {
        let connect = |i: u8| {
            let to = SocketAddr::new(hub(i), port);
            TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connect to {to}"))
        };
        (0..star.peers).map(connect).collect::<Result<Vec<_>>>()
    })?;
    let sources = sinks
        .iter()
        .map(|_| Ok(listener.accept()?.0))
        .collect::<Result<Vec<_>>>()?;
    let shared = Shared::default();
    let receive = |mut sink: &TcpStream| {
        sink.set_read_timeout(Some(TURN))?;
        let mut buf = vec![0; 1 << 17];
        while shared.going() {
            match sink.read(&mut buf) {
                Ok(0) => break,
                Ok(n) => shared.received.fetch_add(n as u64, Relaxed),
                Err(e) if idle(e.kind()) => continue,
                Err(e) => return Err(e).context("TCP read"),
            };
        }
        Ok(())
    };
    let send = |mut source: &TcpStream| {
        source.set_write_timeout(Some(TURN))?;
        let chunk = vec![0x5a; 1 << 16];
        while shared.going() {
            match source.write(&chunk) {
                Ok(n) => shared.sent.fetch_add(n as u64, Relaxed),
                Err(e) if idle(e.kind()) => continue,
                Err(e) => return Err(e).context("TCP write"),
            };
        }
        Ok(())
    };
    let [_, rate] = thread::scope(|scope| {
        let mut running = Vec::new();
        for (sink, source) in sinks.iter().zip(&sources) {
            running.push(scope.spawn(|| receive(sink)));
            running.push(scope.spawn(|| send(source)));
        }
        let rates = shared.rates(time);
        all(running, rates)
    })?;
    for source in &sources {
        // Closing drops what is queued: it must not spill into the next measurement.
        let now = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(source, sockopt::Linger, &now)?;
    }
    drop(sources);
    sleep(TURN / 2);
    ensure!(rate > 0.0, "nothing arrived");
    Ok(rate)
}
