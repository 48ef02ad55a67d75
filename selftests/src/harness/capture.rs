// SPDX-License-Identifier: GPL-2.0
//! Watching an interface: every frame in either direction, with the kernel's time stamp.

use super::netns::Netns;
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
    /// The whole frame, link layer header included (if the link has one).
    pub bytes: Vec<u8>,
    /// How long it was, if it is not kept whole.
    pub len: usize,
}

/// A WireGuard message seen on the underlay.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Wall clock at capture, since the epoch.
    pub at: Duration,
    /// True if the watched end sent it.
    pub outgoing: bool,
    /// From where.
    pub src: SocketAddr,
    /// To where.
    pub dst: SocketAddr,
    /// The outer TOS or traffic class.
    pub tos: u8,
    /// What it is.
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

/// What to see of a frame, and how many of them to keep.
#[derive(Clone, Copy)]
enum Extent {
    /// All of every one.
    Whole,
    /// In place of the link's own header the one of [`LINUX_SLL2`], which tells the interface, and
    /// of the rest so much as is of use; and in the end the first and the last frames.
    Record,
}

/// The pcap link type of frames of any interface: "Linux cooked-mode capture v2".
pub const LINUX_SLL2: u32 = 276;

/// Of a frame in a record.
const SNAP: usize = 2048;
/// The first frames of a record that are kept.
const FIRST: usize = 2000;
/// And at least so many of the last ones.
const LAST: usize = 4000;

/// A packet socket on `ifname` of the calling thread's namespace that sees every frame.
fn open(ifname: &str) -> Result<OwnedFd> {
    let index = nix::net::if_::if_nametoindex(ifname).with_context(|| ifname.to_owned())?;
    open_socket(libc::SOCK_RAW, index as i32, 256 << 20)
}

/// A packet socket of that type on the interface of that number, or with 0 on all of them.
fn open_socket(kind: i32, index: i32, buffer: i32) -> Result<OwnedFd> {
    let all = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: plain system calls on values of this frame; the descriptor is owned at once.
    unsafe {
        let fd = Errno::result(libc::socket(libc::AF_PACKET, kind | libc::SOCK_CLOEXEC, 0))?;
        let fd = OwnedFd::from_raw_fd(fd);
        for (level, option, value) in [
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, buffer),
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1),
        ] {
            Errno::result(libc::setsockopt(
                fd.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<i32>() as u32,
            ))?;
        }
        let mut addr: libc::sockaddr_ll = zeroed();
        addr.sll_family = libc::AF_PACKET as u16;
        addr.sll_protocol = all;
        addr.sll_ifindex = index;
        let len = size_of::<libc::sockaddr_ll>() as u32;
        Errno::result(libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len))?;
        Ok(fd)
    }
}

/// Reads one frame; `None` when there is none waiting.
fn read(fd: &OwnedFd, buf: &mut [u8], extent: Extent) -> Result<Option<Captured>> {
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
        // With MSG_TRUNC it tells the whole length.
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        let n = libc::recvmsg(fd.as_raw_fd(), &mut msg, flags);
        if n < 0 {
            return match Errno::last() {
                Errno::EAGAIN | Errno::EINTR => Ok(None),
                // The interface went down or away: what was captured stays.
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
    let header = match extent {
        Extent::Whole => Vec::new(),
        Extent::Record => cooked(&addr),
    };
    let seen = buf.get(..n).unwrap_or(buf);
    Ok(Some(Captured {
        at,
        outgoing: addr.sll_pkttype == libc::PACKET_OUTGOING,
        len: header.len() + n,
        bytes: [header.as_slice(), seen].concat(),
    }))
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
        while let Some(frame) = read(fd, &mut buf, extent)? {
            let mut frames = frames.lock().expect("poisoned");
            frames.push(frame);
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
    /// Starts to watch `ifname` in `ns`. When this returns, nothing is missed any more.
    pub fn start(ns: &Netns, ifname: &str) -> Result<Self> {
        Self::run(ns.run(|| open(ifname)), Extent::Whole)
    }

    /// Watches all interfaces of `ns`, those to come included, for the record: frames as in a file
    /// of the type [`LINUX_SLL2`], long ones cut off, and of many only the first and the last.
    pub fn of_all(ns: &Netns) -> Result<Self> {
        let fd = ns.run(|| open_socket(libc::SOCK_DGRAM, 0, 16 << 20));
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

    /// The shared list of frames, to be kept beyond the capture.
    pub fn frames(&self) -> Frames {
        self.frames.clone()
    }

    /// Ends the capture and gives all frames.
    pub fn stop(mut self) -> Result<Vec<Captured>> {
        self.end()?;
        // A copy: if the test fails on them, they are kept.
        let frames = self.frames.lock().expect("poisoned").clone();
        Ok(frames)
    }

    /// Captures no more; what there is stays.
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

    /// Waits until at least `n` messages that `want` have been seen; gives all messages.
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

/// Checks that an underlay carried nothing but well-formed WireGuard messages (and the link's own
/// neighbour talk), data padded as the rules say for this inner `mtu`, and that `secret` appears
/// nowhere. Gives the number of messages.
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

/// Sends raw frames on `ifname` of `ns`, past the stack.
pub struct Injector(OwnedFd);

impl Injector {
    /// Opens the interface.
    pub fn open(ns: &Netns, ifname: &str) -> Result<Self> {
        ns.run(|| Ok(Injector(open(ifname)?)))
    }

    /// Sends one whole Ethernet frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        nix::unistd::write(&self.0, frame).context("send a raw frame")?;
        Ok(())
    }
}
