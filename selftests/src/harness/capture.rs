// SPDX-License-Identifier: GPL-2.0-only
//! Packet capture: every frame on an interface in either direction, with the kernel's timestamp.

use super::netns::Netns;
use super::offload::{cut, VNET_LEN};
use super::pace::slow;
use super::wire::{self, Frame, Message};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::io::IoSliceMut;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{sleep, JoinHandle};
use std::time::{Duration, Instant};

/// One captured frame.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Wall clock at capture, since the epoch.
    pub at: Duration,
    /// True if this machine's stack sent it on the watched interface.
    pub outgoing: bool,
    /// The frame, with the link-layer header if the link has one.
    pub bytes: Vec<u8>,
    /// Its length on the wire in bytes, which is greater than that of `bytes` if it was truncated.
    pub len: usize,
}

/// A WireGuard message seen on the underlay.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Wall clock at capture, since the epoch.
    pub at: Duration,
    /// True if the watched end sent it.
    pub outgoing: bool,
    /// Outer source.
    pub src: SocketAddr,
    /// Outer destination.
    pub dst: SocketAddr,
    /// The outer TOS or traffic class.
    pub tos: u8,
    /// The message.
    pub message: Message,
}

impl Seen {
    /// True for a handshake initiation.
    pub fn is_initiation(&self) -> bool {
        matches!(self.message, Message::Initiation { .. })
    }

    /// The length of the message if it is transport data.
    pub fn data_len(&self) -> Option<usize> {
        match self.message {
            Message::Data { len, .. } => Some(len),
            _ => None,
        }
    }
}

/// The frames of one capture, shared with the thread that fills it.
pub type Frames = Arc<Mutex<Vec<Captured>>>;

/// A running capture; ends on drop.
pub struct Capture {
    frames: Frames,
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// How much of each frame to keep, and how many frames.
#[derive(Clone, Copy)]
enum Extent {
    /// All frames, whole; on Ethernet, those that stand for many datagrams are cut.
    Whole,
    /// The first and the last frames, truncated, with the header of [`LINUX_SLL2`], which
    /// identifies the interface, in place of the link's own.
    Record,
}

/// The pcap link type of frames of any interface: "Linux cooked-mode capture v2".
pub const LINUX_SLL2: u32 = 276;

/// Bytes kept of a frame in a record.
const SNAP: usize = 2048;
/// How many of a record's first frames are kept.
const FIRST: usize = 2000;
/// How many of its last frames are kept at least.
const LAST: usize = 4000;

/// A packet socket on `ifname` of the calling thread's namespace that sees every frame.
fn open(ifname: &str) -> Result<OwnedFd> {
    let fd = open_socket(libc::SOCK_RAW, ALL, number(ifname)?, 256 << 20)?;
    set(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
    Ok(fd)
}

/// Sets an option of a socket to a number.
fn set(fd: &OwnedFd, level: i32, option: i32, value: i32) -> Result<()> {
    // SAFETY: a plain system call on a value of this frame, with its true size.
    let ret = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as u32,
        )
    };
    Errno::result(ret).context("setsockopt")?;
    Ok(())
}

/// The number of interface `ifname` in the calling thread's namespace.
fn number(ifname: &str) -> Result<i32> {
    let index = nix::net::if_::if_nametoindex(ifname).with_context(|| ifname.to_owned())?;
    Ok(index as i32)
}

/// Every protocol, in network order; 0 is none.
const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();

/// A packet socket of type `kind` that receives `protocol` (network order) on interface number
/// `index`; 0: on all interfaces.
fn open_socket(kind: i32, protocol: u16, index: i32, buffer: i32) -> Result<OwnedFd> {
    // SAFETY: plain system calls on values of this frame; the descriptor is owned at once.
    unsafe {
        let fd = Errno::result(libc::socket(libc::AF_PACKET, kind | libc::SOCK_CLOEXEC, 0))?;
        let fd = OwnedFd::from_raw_fd(fd);
        for (level, option, value) in [
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, buffer),
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1),
        ] {
            set(&fd, level, option, value)?;
        }
        let mut addr: libc::sockaddr_ll = zeroed();
        addr.sll_family = libc::AF_PACKET as u16;
        addr.sll_protocol = protocol;
        addr.sll_ifindex = index;
        let len = size_of::<libc::sockaddr_ll>() as u32;
        Errno::result(libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len))?;
        Ok(fd)
    }
}

/// Reads one frame, or several that travel as one; `None` when there is none waiting.
fn read(fd: &OwnedFd, buf: &mut [u8], extent: Extent) -> Result<Option<Vec<Captured>>> {
    let mut control = [0u64; 16];
    let mut iov = [IoSliceMut::new(buf)];
    // SAFETY: the message header points at live buffers of this frame with their true sizes.
    let (n, addr, at) = unsafe {
        let mut addr: libc::sockaddr_ll = zeroed();
        let mut msg: libc::msghdr = zeroed();
        msg.msg_name = (&raw mut addr).cast();
        msg.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
        msg.msg_iov = iov.as_mut_ptr().cast();
        msg.msg_iovlen = 1;
        msg.msg_control = control.as_mut_ptr().cast();
        msg.msg_controllen = size_of_val(&control);
        // With MSG_TRUNC this is the length on the wire.
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        let n = libc::recvmsg(fd.as_raw_fd(), &mut msg, flags);
        if n < 0 {
            return match Errno::last() {
                Errno::EAGAIN | Errno::EINTR => Ok(None),
                // The interface went down or was removed; keep what was captured.
                Errno::ENETDOWN | Errno::ENODEV => Ok(None),
                e => Err(e.into()),
            };
        }
        let mut at = Duration::ZERO;
        let cmsg = libc::CMSG_FIRSTHDR(&msg);
        if !cmsg.is_null() && (*cmsg).cmsg_type == libc::SCM_TIMESTAMPNS {
            let ts = libc::CMSG_DATA(cmsg)
                .cast::<libc::timespec>()
                .read_unaligned();
            at = Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32);
        }
        (n as usize, addr, at)
    };
    let seen = buf.get(..n).unwrap_or(buf);
    let frames = match extent {
        Extent::Whole => {
            let (vnet, frame) = seen.split_first_chunk::<VNET_LEN>().context("a frame")?;
            let frames = match addr.sll_hatype {
                libc::ARPHRD_ETHER => cut(*vnet, frame),
                _ => vec![frame.to_vec()],
            };
            frames
                .into_iter()
                .map(|frame| (frame.len(), frame))
                .collect()
        }
        Extent::Record => {
            let header = cooked(&addr);
            vec![(header.len() + n, [header.as_slice(), seen].concat())]
        }
    };
    let captured = frames.into_iter().map(|(len, bytes)| Captured {
        at,
        outgoing: addr.sll_pkttype == libc::PACKET_OUTGOING,
        len,
        bytes,
    });
    Ok(Some(captured.collect()))
}

/// The header of [`LINUX_SLL2`].
fn cooked(addr: &libc::sockaddr_ll) -> Vec<u8> {
    let mut header = addr.sll_protocol.to_ne_bytes().to_vec(); // in network order already
    header.extend_from_slice(&[0; 2]);
    header.extend_from_slice(&addr.sll_ifindex.to_be_bytes());
    header.extend_from_slice(&addr.sll_hatype.to_be_bytes());
    header.extend_from_slice(&[addr.sll_pkttype, addr.sll_halen]);
    header.extend_from_slice(&addr.sll_addr);
    header
}

/// Copies frames until the other end of `stop` closes and the socket is empty.
fn pump(fd: &OwnedFd, stop: &OwnedFd, frames: &Frames, extent: Extent) -> Result<()> {
    let size = match extent {
        Extent::Whole => 1 << 17,
        Extent::Record => SNAP,
    };
    let mut buf = vec![0u8; size];
    let mut stopping = false;
    loop {
        while let Some(read) = read(fd, &mut buf, extent)? {
            let mut frames = frames.lock().expect("poisoned");
            frames.extend(read);
            if matches!(extent, Extent::Record) && frames.len() > FIRST + 2 * LAST {
                frames.drain(FIRST..FIRST + LAST);
            }
        }
        if stopping {
            return Ok(());
        }
        let mut fds = [
            PollFd::new(fd.as_fd(), PollFlags::POLLIN),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        stopping = fds[1].any().unwrap_or(true);
    }
}

impl Capture {
    /// Starts a capture on `ifname` in `ns`. Frames that pass after this returns are not missed.
    pub fn start(ns: &Netns, ifname: &str) -> Result<Self> {
        Self::run(ns.run(|| open(ifname)), Extent::Whole)
    }

    /// Starts a capture on all interfaces of `ns`, later ones included, for a file of type
    /// [`LINUX_SLL2`]: long frames are truncated, and of many only the first and the last are kept.
    pub fn of_all(ns: &Netns) -> Result<Self> {
        let fd = ns.run(|| open_socket(libc::SOCK_DGRAM, ALL, 0, 16 << 20));
        Self::run(fd, Extent::Record)
    }

    fn run(fd: Result<OwnedFd>, extent: Extent) -> Result<Self> {
        let fd = fd.context("open a packet socket")?;
        let (theirs, stop) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let frames = Frames::default();
        let shared = frames.clone();
        let thread = std::thread::spawn(move || pump(&fd, &theirs, &shared, extent));
        Ok(Capture {
            frames,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The shared list of frames, which may outlive the capture.
    pub fn frames(&self) -> Frames {
        self.frames.clone()
    }

    /// Ends the capture and returns all frames.
    pub fn stop(mut self) -> Result<Vec<Captured>> {
        self.end()?;
        // A copy: the shared list is saved if the test fails.
        let frames = self.frames.lock().expect("poisoned").clone();
        Ok(frames)
    }

    /// Ends the capture; the frames stay.
    pub fn end(&mut self) -> Result<()> {
        self.stop = None;
        let thread = self.thread.take();
        thread.map_or(Ok(()), |t| t.join().expect("capture thread panicked"))
    }

    /// The WireGuard messages so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.frames
            .lock()
            .expect("poisoned")
            .iter()
            .filter_map(seen)
            .collect()
    }

    /// Waits at most `limit` (as [`slow`]) for `n` messages that satisfy `want`; returns all
    /// messages so far.
    pub fn wait(
        &self,
        n: usize,
        limit: Duration,
        want: impl Fn(&Seen) -> bool,
    ) -> Result<Vec<Seen>> {
        let (start, limit) = (Instant::now(), slow(limit));
        loop {
            let seen = self.seen();
            let count = seen.iter().filter(|s| want(s)).count();
            if count >= n {
                return Ok(seen);
            }
            ensure!(
                start.elapsed() < limit,
                "only {count} of {n} awaited messages in {limit:?}"
            );
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The times of the initiations among `seen` that the watched end sent.
pub fn initiations(seen: &[Seen]) -> Vec<Duration> {
    seen.iter()
        .filter(|s| s.outgoing && s.is_initiation())
        .map(|s| s.at)
        .collect()
}

/// The WireGuard message in a captured Ethernet frame, if it is one.
pub fn seen(captured: &Captured) -> Option<Seen> {
    match wire::frame(&captured.bytes) {
        Frame::Udp {
            src,
            dst,
            tos,
            payload,
        } => {
            let message = wire::message(payload)?;
            Some(Seen {
                at: captured.at,
                outgoing: captured.outgoing,
                src,
                dst,
                tos,
                message,
            })
        }
        _ => None,
    }
}

/// Checks that an underlay carried only well-formed WireGuard messages (and ARP and neighbour
/// discovery), with data padded as required for this inner `mtu`, and that `secret` appears
/// nowhere. Returns the number of messages.
pub fn only_wireguard(frames: &[Captured], secret: &[u8], mtu: usize) -> Result<usize> {
    let mut count = 0;
    for (n, captured) in frames.iter().enumerate() {
        let plain = captured.bytes.windows(secret.len()).any(|w| w == secret);
        ensure!(!plain, "frame {n} carries plaintext");
        match wire::frame(&captured.bytes) {
            Frame::Neighbour => continue,
            Frame::Udp {
                payload, src, dst, ..
            } => {
                let message = wire::message(payload).with_context(|| {
                    format!("frame {n}, {src} to {dst}, is no WireGuard message")
                })?;
                if let Message::Data { len, .. } = message {
                    let padded = len % 16 == 0 || len == mtu + 32;
                    ensure!(padded, "frame {n}: data of {len} bytes is not padded");
                }
                count += 1;
            }
            other => anyhow::bail!("frame {n} on the underlay is no WireGuard message: {other:?}"),
        }
    }
    Ok(count)
}

/// Writes frames as a pcap file. `linktype`: 1 Ethernet, 101 raw IP, [`LINUX_SLL2`].
pub fn write_pcap(path: &Path, frames: &[Captured], linktype: u32) -> Result<()> {
    let mut out = Vec::new();
    // Nanosecond pcap, version 2.4, snap length 256 KiB.
    for word in [0xa1b2_3c4du32, (4 << 16) | 2, 0, 0, 1 << 18, linktype] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    for frame in frames {
        let (kept, len) = (frame.bytes.len() as u32, frame.len as u32);
        for word in [
            frame.at.as_secs() as u32,
            frame.at.subsec_nanos(),
            kept,
            len,
        ] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out.extend_from_slice(&frame.bytes);
    }
    std::fs::write(path, out).with_context(|| path.display().to_string())
}

/// Sends raw frames on `ifname` in `ns`, bypassing the IP stack.
pub struct Injector(OwnedFd);

impl Injector {
    /// Opens the interface.
    pub fn open(ns: &Netns, ifname: &str) -> Result<Self> {
        // It receives nothing: nobody would read it.
        ns.run(|| {
            Ok(Injector(open_socket(
                libc::SOCK_RAW,
                0,
                number(ifname)?,
                1 << 20,
            )?))
        })
    }

    /// Sends one whole Ethernet frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        nix::unistd::write(&self.0, frame).context("send a raw frame")?;
        Ok(())
    }
}
