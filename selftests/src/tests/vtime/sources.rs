// SPDX-License-Identifier: GPL-2.0-only
//! The rate limiter's table as seen from outside: the memory that thousands of sources take, and
//! for how long.

use super::{drop_in, Test, SEC};
use anyhow::{ensure, Context, Result};
use harness::memory::Memory;
use harness::noise::cookie;
use harness::pace::alone;
use harness::rig::{device, Rig, MOMENT};
use harness::runner::Ctx;
use harness::topo::outer;
use nix::sys::resource::{setrlimit, Resource};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Instant;

pub(super) fn register(list: &mut Vec<Test>) {
    drop_in(list, &[("vtime-ratelimit-forgets", 120, forgets)]);
}

/// Sources: half of them IPv4 addresses, half IPv6 networks of 64 bits.
const SOURCES: usize = 3000;
/// Messages in one burst, enough to put the device under load.
const LOAD: usize = 600;
/// Minimum size of a source's entry, in bytes.
const KEPT: i64 = 64;
/// The part of it that is visible at once: free space in slabs already counts as used.
const ENTRY: i64 = 16;

/// A source, and its handshake message: an unsolicited response, which costs the device little.
struct Source {
    socket: UdpSocket,
    message: Vec<u8>,
}

/// The address of source `n`.
fn address(n: usize) -> IpAddr {
    let half = (n / 2) as u16;
    let [high, low] = half.to_be_bytes();
    if n % 2 == 0 {
        Ipv4Addr::new(198, 18, high, low).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0x8000, half, 0, 0, 0, 1).into()
    }
}

impl Source {
    fn new(rig: &Rig, socket: UdpSocket) -> Self {
        let mut message = vec![2, 0, 0, 0];
        message.extend(rand::random::<[u8; 32]>());
        message.resize(92, 0);
        cookie::repair_macs(&mut message, &rig.end.public_key, None);
        Source { socket, message }
    }

    fn send(&self) -> Result<()> {
        let v6 = self.socket.local_addr()?.is_ipv6();
        self.socket.send_to(&self.message, device(v6))?;
        Ok(())
    }

    /// Uses the cookie of the received reply in the message.
    fn use_cookie(&mut self, rig: &Rig) -> Result<()> {
        let mut buf = [0; 256];
        self.socket.set_read_timeout(Some(SEC))?;
        let n = self.socket.recv(&mut buf).context("no cookie reply")?;
        let cookie = cookie::open_reply(&buf[..n], &rig.end.public_key, &self.message)?;
        cookie::repair_macs(&mut self.message, &rig.end.public_key, Some(&cookie));
        Ok(())
    }
}

/// Each source that has used its cookie under load is kept for a second or two; then its memory is
/// freed.
fn forgets(ctx: &Ctx) -> Result<()> {
    let rig = Rig::new(ctx, 1)?;
    let [at, gateway] = [0, 1].map(|n| rig.link.end(n));
    for (v6, net) in [(false, "198.18.0.0/16"), (true, "2001:db8:8000::/48")] {
        at.sh(&format!("ip route add {net} via {}", outer(v6, 1)))?;
        gateway.sh(&format!("ip route add local {net} dev lo"))?;
    }
    let files = SOURCES as u64 + 100;
    setrlimit(Resource::RLIMIT_NOFILE, files, files)?;
    let sockets: Vec<UdpSocket> = gateway.run(|| {
        fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1")?;
        let bind = |n| Ok(UdpSocket::bind(SocketAddr::new(address(n), 7000))?);
        (0..SOURCES).map(bind).collect()
    })?;
    let new = |socket| Source::new(&rig, socket);
    let mut sources: Vec<Source> = sockets.into_iter().map(new).collect();
    for some in sources.chunks_mut(LOAD) {
        alone(|| some.iter().try_for_each(Source::send))?;
        sleep(MOMENT);
        for source in some {
            source.use_cookie(&rig)?;
        }
    }

    sleep(3 * SEC);
    let before = Memory::settled()?;
    let start = Instant::now();
    for some in sources.chunks(LOAD) {
        alone(|| some.iter().try_for_each(Source::send))?;
        // Let the workers run.
        sleep(MOMENT / 6);
    }
    let filled = Memory::now()?.since(&before);
    let took = start.elapsed();
    ensure!(took < SEC * 9 / 10, "the messages took {took:?}");
    let wanted = SOURCES as i64 * ENTRY;
    let grown = filled.top_caches(usize::MAX);
    // The packets' own caches keep some memory in any case.
    let of_sources = |(name, _): &&(&str, i64)| !name.starts_with("skbuff");
    let &(cache, bytes) = grown.iter().find(of_sources).context("no slab caches")?;
    ensure!(
        (wanted..wanted * 10).contains(&bytes),
        "{SOURCES} sources took {bytes} bytes of {cache}, wanted {wanted} or more"
    );
    for source in &sources {
        source.socket.set_nonblocking(true)?;
        let mut buf = [0; 256];
        ensure!(
            source.socket.recv(&mut buf).is_err(),
            "an answer to a message with a cookie"
        );
    }

    sleep(3 * SEC);
    let after = Memory::settled()?.since(&before);
    let left = after.top_caches(usize::MAX);
    let left = left.iter().find(|(name, _)| *name == cache);
    let left = left.context("the cache is gone")?.1;
    ctx.note(format!(
        "{SOURCES} sources: {bytes} bytes of {cache}; {left} after they were dropped"
    ));
    // Free objects that the slabs keep count as used.
    ensure!(
        left < SOURCES as i64 * KEPT / 2,
        "{left} bytes of {cache} are left 3 s after {SOURCES} sources"
    );
    rig.works(0)
}
