// SPDX-License-Identifier: GPL-2.0-only
//! Traffic between namespaces: pings, datagrams, TCP streams with checked content.

use super::ktap::comment;
use super::netns::Netns;
use super::pace::slow;
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    setsockopt, socket, sockopt, AddressFamily, SockFlag, SockProtocol, SockType,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// A prime, so that the pattern meets every segment boundary.
const PATTERN: usize = 65_521;

/// Pseudo-random bytes that depend on `seed` only (xorshift64*).
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        out.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += (u32::from(pair[0]) << 8) | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An ICMP echo request; type by address family.
pub fn echo_request(v6: bool, id: u16, seq: u16, size: usize) -> Vec<u8> {
    let mut msg = vec![if v6 { 128 } else { 8 }, 0, 0, 0];
    msg.extend_from_slice(&id.to_be_bytes());
    msg.extend_from_slice(&seq.to_be_bytes());
    msg.extend_from_slice(&pattern(u64::from(seq), size));
    if !v6 {
        let sum = checksum(&msg);
        msg[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    msg
}

/// Sends `count` echo requests of `size` payload bytes one after the other and returns how many
/// were answered, each within `limit` and with its payload intact.
pub fn ping(ns: &Netns, dst: IpAddr, count: u16, size: usize, limit: Duration) -> Result<u16> {
    ping_bound(ns, None, dst, count, size, limit)
}

/// As [`ping`], through one interface.
pub fn ping_from(ns: &Netns, dev: &str, dst: IpAddr, count: u16, limit: Duration) -> Result<u16> {
    ping_bound(ns, Some(dev), dst, count, 56, limit)
}

fn ping_bound(
    ns: &Netns,
    dev: Option<&str>,
    dst: IpAddr,
    count: u16,
    size: usize,
    limit: Duration,
) -> Result<u16> {
    ns.run(|| {
        let v6 = dst.is_ipv6();
        let (family, protocol) = if v6 {
            (AddressFamily::Inet6, SockProtocol::IcmpV6)
        } else {
            (AddressFamily::Inet, SockProtocol::Icmp)
        };
        let fd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        if let Some(dev) = dev {
            setsockopt(&fd, sockopt::BindToDevice, &dev.into())?;
        }
        let sock = UdpSocket::from(fd); // std has no raw socket; send_to and recv are the same
        let id: u16 = rand::random();
        let mut answered = 0;
        for seq in 0..count {
            let request = echo_request(v6, id, seq, size);
            let start = Instant::now();
            if let Err(e) = sock.send_to(&request, SocketAddr::new(dst, 0)) {
                // No route or no peer yet: counts as unanswered.
                if start.elapsed() < limit {
                    std::thread::sleep(limit.min(Duration::from_millis(100)));
                }
                let _ = e;
                continue;
            }
            if await_reply(&sock, v6, &request, start + limit)? {
                answered += 1;
            }
        }
        Ok(answered)
    })
}

/// Waits for the echo reply to `request`.
fn await_reply(sock: &UdpSocket, v6: bool, request: &[u8], end: Instant) -> Result<bool> {
    let mut buf = vec![0u8; 1 << 16];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        sock.set_read_timeout(Some(left))?;
        let n = match sock.recv(&mut buf) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(_) => continue, // an ICMP error on the socket
        };
        let packet = buf.get(..n).unwrap_or(&[]);
        let skip = if v6 {
            0
        } else {
            usize::from(packet.first().copied().unwrap_or(0) & 15) * 4
        };
        let reply = packet.get(skip..).unwrap_or(&[]);
        let kind = if v6 { 129 } else { 0 };
        if reply.first() == Some(&kind) && reply.get(4..) == request.get(4..) {
            return Ok(true);
        }
    }
}

/// All of `count` pings must be answered, the first within 10 s (a handshake may come first).
pub fn ping_all(ns: &Netns, dst: IpAddr, count: u16) -> Result<()> {
    let got = ping(ns, dst, 1, 56, slow(Duration::from_secs(10)))?;
    ensure!(got == 1, "{} gets no answer from {dst}", ns.name());
    let got = ping(ns, dst, count, 56, slow(Duration::from_secs(5)))?;
    ensure!(
        got == count,
        "{} got {got} of {count} answers from {dst}",
        ns.name()
    );
    Ok(())
}

/// A UDP socket in `ns`, bound to `addr`.
pub fn udp(ns: &Netns, addr: SocketAddr) -> Result<UdpSocket> {
    ns.run(|| UdpSocket::bind(addr).with_context(|| format!("bind {addr}")))
}

/// Sets an integer socket option that `nix` does not support.
pub fn set_option(socket: &UdpSocket, level: i32, option: i32, value: i32) -> Result<()> {
    let at = (&raw const value).cast();
    // SAFETY: the value lives for the call and has the size that is told.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, at, 4) };
    let what = || format!("socket option {level}/{option} to {value}");
    Errno::result(set).with_context(what).map(drop)
}

/// Number of datagrams waiting on `sock`; they are consumed.
pub fn drain(sock: &UdpSocket) -> Result<usize> {
    sock.set_nonblocking(true)?;
    let mut buf = [0u8; 2048];
    let mut n = 0;
    loop {
        match sock.recv(&mut buf) {
            Ok(_) => n += 1,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(n),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Measurements of a TCP stream.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Bytes received, all verified.
    pub bytes: u64,
    /// From the first byte to the last.
    pub took: Duration,
    /// The longest time between two successful reads.
    pub longest_gap: Duration,
}

impl Stream {
    /// Goodput in Mbit/s.
    pub fn mbits(&self) -> f64 {
        self.bytes as f64 * 8e-6 / self.took.as_secs_f64().max(1e-9)
    }
}

/// A stall is this many successive waits without progress: when the host pauses the guest, all
/// clocks advance but only one wait expires.
const WAITS: u32 = 10;

/// Sends `bytes` from `from` to `dst` in `to` over one TCP stream. The receiver compares every
/// byte; a time of `stall` without progress on either side is an error.
pub fn tcp(
    from: &Netns,
    to: &Netns,
    dst: SocketAddr,
    bytes: u64,
    stall: Duration,
) -> Result<Stream> {
    let (seed, stall): (u64, _) = (rand::random(), slow(stall));
    let listener = to.run(|| TcpListener::bind(dst).with_context(|| format!("bind {dst}")))?;
    let receiver = to.spawn(move || receive(&listener, seed, bytes, stall))?;
    let sent = from.run(|| send(dst, seed, bytes, stall));
    if let Err(e) = sent {
        // The receiver's error explains more (wrong content, say), but it may wait in accept() for
        // ever: join it only when it is done.
        if receiver.is_finished() {
            receiver.join().expect("receiver panicked")?;
        }
        return Err(e);
    }
    receiver.join().expect("receiver panicked")
}

fn send(dst: SocketAddr, seed: u64, bytes: u64, stall: Duration) -> Result<()> {
    let data = pattern(seed, PATTERN);
    let mut stream =
        TcpStream::connect_timeout(&dst, slow(Duration::from_secs(15))).context("TCP connect")?;
    stream.set_write_timeout(Some(stall / WAITS))?;
    let (mut sent, mut waits) = (0u64, 0);
    while sent < bytes {
        let at = (sent % PATTERN as u64) as usize;
        let take = (PATTERN - at).min(usize::try_from(bytes - sent).unwrap_or(usize::MAX));
        match stream.write(&data[at..at + take]) {
            Ok(n) => (sent, waits) = (sent + n as u64, 0),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock && waits < WAITS => waits += 1,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                bail!("TCP sender made no progress for {stall:?} after {sent} bytes")
            }
            Err(e) => return Err(e).context(format!("TCP write after {sent} bytes")),
        }
    }
    stream.shutdown(Shutdown::Write)?;
    // Wait for the receiver to close, so that the FIN is delivered before the devices are removed.
    stream.set_read_timeout(Some(stall * 4))?;
    let _ = stream.read(&mut [0; 1]);
    Ok(())
}

fn receive(listener: &TcpListener, seed: u64, bytes: u64, stall: Duration) -> Result<Stream> {
    let data = pattern(seed, PATTERN);
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(stall / WAITS))?;
    let mut waits = 0;
    let mut buf = vec![0u8; 1 << 18];
    let (start, mut last, mut longest_gap) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut got = 0u64;
    let mut told = 0;
    loop {
        if got >> 27 > told {
            told = got >> 27;
            let secs = start.elapsed().as_secs_f64();
            println!(
                "{}",
                comment(&format!("{} MiB after {secs:.1} s", told << 7))
            );
        }
        let n = match stream.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == ErrorKind::WouldBlock && waits < WAITS => {
                waits += 1;
                continue;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                bail!("TCP receiver got nothing for {stall:?} after {got} bytes")
            }
            Err(e) => return Err(e).context(format!("TCP read after {got} bytes")),
        };
        waits = 0;
        longest_gap = longest_gap.max(last.elapsed());
        last = Instant::now();
        let mut chunk = &buf[..n];
        while !chunk.is_empty() {
            let at = (got % PATTERN as u64) as usize;
            let take = chunk.len().min(PATTERN - at);
            ensure!(
                chunk[..take] == data[at..at + take],
                "TCP content differs near byte {got}"
            );
            got += take as u64;
            chunk = &chunk[take..];
        }
    }
    ensure!(got == bytes, "TCP receiver got {got} of {bytes} bytes");
    Ok(Stream {
        bytes: got,
        took: last - start,
        longest_gap,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert_eq!(pattern(1, 20), pattern(1, 20));
        assert_ne!(pattern(2, 20), pattern(5, 20));
        assert_eq!(pattern(7, 13).len(), 13);
    }

    #[test]
    fn icmp_checksum() {
        let msg = echo_request(false, 1, 2, 33);
        assert_eq!(checksum(&msg), 0);
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0x220d
        );
    }
}
