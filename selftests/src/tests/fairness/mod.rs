// SPDX-License-Identifier: GPL-2.0-only
//! Nobody holds up anybody: what a stranger, a peer or a device may cost others. Where the in-tree
//! driver runs in the same test, it is the measure.

mod config;
mod identity;
mod newcomer;
mod removal;
mod share;

use super::{both, drop_in_vtime, Check, Test};
use anyhow::Result;
use harness::driver::Driver;
use harness::flood::{self, Flooder};
use harness::pace::realtime;
use harness::runner::Ctx;
use harness::topo::{outer, port, Link};
use harness::traffic::set_option;
use harness::wgdev::Key;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::{self, sleep, JoinHandle};
use std::time::{Duration, Instant};

pub fn register(list: &mut Vec<Test>) {
    let tests: [(&str, Check, u64); 5] = [
        ("fair-down-under-handshake-flood", config::handshakes, 180),
        ("fair-down-under-data", config::data, 240),
        ("fair-new-peer-under-flood", newcomer::new_peer, 120),
        ("fair-removed-peer-is-silent", removal::silent, 120),
        ("fair-two-tenants", share::tenants, 180),
    ];
    for (name, body, secs) in tests {
        both(list, name, secs, body);
    }
    drop_in_vtime(list, "fair-new-identity", 120, identity::change);
}

/// The drivers side by side, the in-tree one first, and what to call them.
fn sides(ctx: &Ctx) -> [(&'static str, Driver); 2] {
    let [ours, intree] = ctx.against_intree();
    [("in-tree", intree), ("ours", ours)]
}

/// The outside address of the device of end 0.
fn device() -> SocketAddr {
    SocketAddr::new(outer(false, 0), port(0))
}

/// Threads that do one thing again and again, until this is dropped or a time is over.
struct Busy {
    stop: Arc<AtomicBool>,
    strokes: Arc<AtomicU64>,
    weight: usize,
    since: Instant,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    /// Starts a thread for each of `strokes`, which are told how often they were called before;
    /// each time they send `weight` packets.
    fn start<F: FnMut(usize) + Send + 'static>(
        limit: Duration,
        weight: usize,
        strokes: Vec<F>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let since = Instant::now();
        let run = |mut stroke: F| {
            let (stop, count) = (stop.clone(), count.clone());
            thread::spawn(move || {
                for n in 0.. {
                    if stop.load(Relaxed) || since.elapsed() > limit {
                        break;
                    }
                    stroke(n);
                    count.fetch_add(1, Relaxed);
                }
            })
        };
        Busy {
            threads: strokes.into_iter().map(run).collect(),
            stop,
            strokes: count,
            weight,
            since,
        }
    }

    /// Packets per second so far.
    fn rate(&self) -> f64 {
        let packets = self.strokes.load(Relaxed) as f64 * self.weight as f64;
        packets / self.since.elapsed().as_secs_f64()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Two senders at end 1 flood the device of end 0 with initiations: the mac1 is right, the rest is
/// random.
fn flood(link: &Link, device_key: &Key, limit: Duration) -> Result<Busy> {
    let sender = |n: u16| {
        let from = SocketAddr::new(outer(false, 1), 6000 + n);
        let mut flooder = Flooder::new(link.end(1), from, device(), device_key)?;
        anyhow::Ok(move |_| {
            if !flooder.burst() {
                sleep(Duration::from_millis(1));
            }
        })
    };
    Ok(Busy::start(
        limit,
        flood::BURST,
        vec![sender(0)?, sender(1)?],
    ))
}

/// Sends to where `socket` is connected to. An error ends nothing: links may be down and away.
fn send(socket: &UdpSocket, bytes: &[u8]) {
    if socket.send(bytes).is_err() {
        sleep(Duration::from_millis(1));
    }
}

/// From now on what is sent on `socket` becomes datagrams of `size` bytes each.
fn segment(socket: &UdpSocket, size: usize) -> Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, size as i32)
}

/// Lets `socket` have so many bytes under way.
fn widen(socket: &UdpSocket, bytes: i32) -> Result<()> {
    for option in [libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE] {
        set_option(socket, libc::SOL_SOCKET, option, bytes)?;
    }
    Ok(())
}

/// The time of an answer where there is none.
const NEVER: Duration = Duration::from_secs(999);

/// Round trips.
struct Pings {
    sent: usize,
    times: Vec<Duration>,
}

impl Pings {
    /// Pings for `span`, `gap` apart, by a thread that gets the processor when it needs it. `ping`
    /// is told its number and gives whether an answer came.
    fn series(
        span: Duration,
        gap: Duration,
        mut ping: impl FnMut(u16) -> Result<bool> + Send,
    ) -> Result<Self> {
        let body = || {
            realtime()?;
            let start = Instant::now();
            let mut pings = Pings {
                sent: 0,
                times: Vec::new(),
            };
            while start.elapsed() < span {
                let begin = Instant::now();
                if ping(pings.sent as u16)? {
                    pings.times.push(begin.elapsed());
                }
                pings.sent += 1;
                sleep(gap);
            }
            pings.times.sort_unstable();
            Ok(pings)
        };
        thread::scope(|scope| {
            scope
                .spawn(body)
                .join()
                .expect("the pinging thread panicked")
        })
    }

    /// The share of those that were not answered.
    fn loss(&self) -> f64 {
        1.0 - self.times.len() as f64 / self.sent as f64
    }

    /// The time within which 99 of 100 answers came.
    fn p99(&self) -> Duration {
        let last = self.times.len().saturating_sub(1);
        let at = (self.times.len() * 99).div_ceil(100).saturating_sub(1);
        self.times.get(at.min(last)).copied().unwrap_or(NEVER)
    }
}

impl std::fmt::Display for Pings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let median = self.times.get(self.times.len() / 2);
        write!(
            f,
            "{} pings, {:.1} % lost, median {:.1?}, p99 {:.1?}",
            self.sent,
            self.loss() * 100.0,
            median.copied().unwrap_or(NEVER),
            self.p99()
        )
    }
}
