// SPDX-License-Identifier: GPL-2.0-only
//! The loads. Each runs on threads inside two namespaces, touches no file and measures time by the
//! guest's monotonic clock.

use super::pair::Ends;
use anyhow::{ensure, Context, Result};
use nix::sys::socket::{
    getsockopt, setsockopt, socket, sockopt, AddressFamily, SockFlag, SockProtocol, SockType,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The size of a small packet's UDP payload.
pub const SMALL: usize = 64;
/// That of a datagram of QUIC's, and how many are sent together.
pub const QUIC: (usize, usize) = (1350, 40);
/// No progress for this long is a failure.
const STALL: Duration = Duration::from_secs(10);

/// What a receiver shares with the sender, which measures the time.
#[derive(Default)]
struct Shared {
    received: AtomicU64,
    stop: AtomicBool,
}

/// What the sender saw in its window, which opens after a tenth of the time.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Bytes (TCP) or datagrams (UDP) handed to the kernel.
    pub sent: u64,
    /// The same, read from the receiver's socket.
    pub received: u64,
    /// The window's length.
    pub took: Duration,
}

impl Window {
    /// `count` per second of the window.
    pub fn rate(&self, count: u64) -> f64 {
        count as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// Calls `send` (which returns how much it sent) until `time` has passed on `clock`.
fn window(
    time: Duration,
    received: &AtomicU64,
    clock: impl Fn() -> Instant,
    mut send: impl FnMut() -> Result<u64>,
) -> Result<Window> {
    let start = clock();
    let mut opened: Option<(Instant, u64)> = None;
    let mut sent = 0;
    loop {
        let n = send()?;
        let now = clock();
        match opened {
            None if now - start >= time / 10 => opened = Some((now, received.load(Relaxed))),
            None => {}
            Some((open, before)) => {
                sent += n;
                if now - start >= time {
                    let received = received.load(Relaxed) - before;
                    return Ok(Window {
                        sent,
                        received,
                        took: now - open,
                    });
                }
            }
        }
    }
}

/// TCP streams from end 0 to end 1 for `time`, with the usual congestion control or another. Also
/// returns the segment size.
pub fn tcp(
    ends: &Ends,
    flows: usize,
    congestion: Option<&str>,
    time: Duration,
) -> Result<(Window, u32)> {
    let shared = Arc::new(Shared::default());
    let listener = ends.ns[1].run(|| Ok(TcpListener::bind(SocketAddr::new(ends.addr[1], 0))?))?;
    let to = listener.local_addr()?;
    let receivers = (0..flows).map(|_| {
        let (shared, listener) = (shared.clone(), listener.try_clone()?);
        ends.ns[1].spawn(move || {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(STALL))?;
            let mut buf = vec![0; 1 << 17];
            loop {
                match stream.read(&mut buf).context("TCP read")? {
                    0 => return Ok(()),
                    n => shared.received.fetch_add(n as u64, Relaxed),
                };
            }
        })
    });
    let receivers = receivers.collect::<Result<Vec<_>>>()?;
    let seen = ends.ns[0].run(|| {
        let connect = |_| {
            let stream = TcpStream::connect_timeout(&to, STALL).context("TCP connect")?;
            stream.set_write_timeout(Some(STALL))?;
            if let Some(name) = congestion {
                setsockopt(&stream, sockopt::TcpCongestion, &name.into())
                    .context(name.to_owned())?;
            }
            Ok(stream)
        };
        let streams = (0..flows).map(connect).collect::<Result<Vec<_>>>()?;
        let first = streams.first().context("no flow")?;
        let segment = getsockopt(first, sockopt::TcpMaxSeg)?;
        let chunk = vec![0x5a; 1 << 16];
        let write = |mut stream: &TcpStream| Ok(stream.write(&chunk).context("TCP write")? as u64);
        let seen = thread::scope(|scope| {
            for stream in streams.iter().skip(1) {
                scope.spawn(|| -> Result<()> {
                    while !shared.stop.load(Relaxed) {
                        write(stream)?;
                    }
                    Ok(())
                });
            }
            let seen = window(time, &shared.received, Instant::now, || write(first));
            shared.stop.store(true, Relaxed);
            seen
        })?;
        for stream in &streams {
            stream.shutdown(Shutdown::Write)?;
        }
        Ok((seen, segment))
    })?;
    for receiver in receivers {
        receiver.join().expect("receiver panicked")?;
    }
    Ok(seen)
}

/// Datagrams of `size` bytes from end 0 to end 1, sent as fast as the kernel accepts them, for
/// `time`; `together` of them in one piece, as QUIC does it (UDP_SEGMENT, and UDP_GRO where they
/// are received). Datagrams in flight when the window closes count as not received.
pub fn datagrams(ends: &Ends, size: usize, together: usize, time: Duration) -> Result<Window> {
    let shared = Arc::new(Shared::default());
    let sink = ends.ns[1].run(|| Ok(UdpSocket::bind(SocketAddr::new(ends.addr[1], 0))?))?;
    setsockopt(&sink, sockopt::RcvBufForce, &(8 << 20))?;
    if together > 1 {
        setsockopt(&sink, sockopt::UdpGroSegment, &true)?;
    }
    let to = sink.local_addr()?;
    let receiver = ends.ns[1].spawn({
        let shared = shared.clone();
        move || {
            sink.set_read_timeout(Some(Duration::from_millis(100)))?;
            let mut buf = vec![0; 1 << 16];
            while !shared.stop.load(Relaxed) {
                match sink.recv(&mut buf) {
                    Ok(len) => shared.received.fetch_add((len / size) as u64, Relaxed),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                    Err(e) => return Err(e).context("UDP recv"),
                };
            }
            Ok(())
        }
    })?;
    let seen = ends.ns[0].run(|| {
        let source = UdpSocket::bind(SocketAddr::new(ends.addr[0], 0))?;
        setsockopt(&source, sockopt::SndBuf, &(1 << 20))?;
        if together > 1 {
            setsockopt(&source, sockopt::UdpGsoSegment, &i32::try_from(size)?)?;
        }
        source.connect(to)?;
        let payload = vec![0x5a; size * together];
        // So many between two looks at the clock.
        let sends = 16_usize.div_ceil(together);
        window(time, &shared.received, Instant::now, || {
            for _ in 0..sends {
                source.send(&payload).context("UDP send")?;
            }
            Ok((sends * together) as u64)
        })
    });
    shared.stop.store(true, Relaxed);
    receiver.join().expect("receiver panicked")?;
    // What is still queued must not spill into the next measurement.
    thread::sleep(Duration::from_millis(50));
    seen
}

/// `count` ICMP echo requests of `ping`'s default size, one at a time: sorted round-trip times.
pub fn ping(ends: &Ends, count: usize) -> Result<Vec<Duration>> {
    ends.ns[0].run(|| {
        let raw = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Inet, SockType::Raw, raw, SockProtocol::Icmp)?;
        // std has no raw socket; connect, send and recv are the same.
        let sock = UdpSocket::from(fd);
        sock.connect(SocketAddr::new(ends.addr[1], 0))?;
        sock.set_read_timeout(Some(STALL))?;
        let mut times = Vec::with_capacity(count);
        let mut buf = [0; 2048];
        for seq in 0..count {
            let request = echo_request(0x7767, seq as u16);
            let start = Instant::now();
            sock.send(&request).context("ping")?;
            loop {
                let n = sock.recv(&mut buf).context("no reply to a ping")?;
                // An IPv4 header without options, then type 0: echo reply.
                let reply = buf.get(20..n).unwrap_or(&[]);
                if reply.first() == Some(&0) && reply.get(4..) == request.get(4..) {
                    break;
                }
            }
            times.push(start.elapsed());
        }
        ensure!(!times.is_empty(), "no pings requested");
        times.sort_unstable();
        Ok(times)
    })
}

/// An ICMP echo request with 56 bytes of payload.
fn echo_request(id: u16, seq: u16) -> [u8; 64] {
    let mut msg = [0u8; 64];
    msg[0] = 8;
    msg[4..6].copy_from_slice(&id.to_be_bytes());
    msg[6..8].copy_from_slice(&seq.to_be_bytes());
    let sum: u32 = msg
        .chunks(2)
        .map(|c| (u32::from(c[0]) << 8) | u32::from(c[1]))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    msg[2..4].copy_from_slice(&sum.to_be_bytes());
    msg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echo_checksum() {
        for seq in [0, 1, 0x1234, 0xffff] {
            let msg = echo_request(0xfff0, seq);
            let sum: u32 = msg
                .chunks(2)
                .map(|c| (u32::from(c[0]) << 8) | u32::from(c[1]))
                .sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        }
    }

    #[test]
    fn window_leaves_out_the_start() {
        let (received, start) = (AtomicU64::new(0), Instant::now());
        let clock = || start + Duration::from_millis(received.load(Relaxed));
        let seen = window(Duration::from_millis(50), &received, clock, || {
            received.fetch_add(1, Relaxed);
            Ok(1)
        })
        .unwrap();
        assert_eq!(seen.took, Duration::from_millis(45));
        assert_eq!((seen.sent, seen.received), (45, 45));
    }
}
