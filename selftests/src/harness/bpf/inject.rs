// SPDX-License-Identifier: GPL-2.0-only
//! Injects frames on a watched interface, bypassing its BPF programs.

use super::object::Direction;
use crate::netns::Netns;
use anyhow::{Context, Result};
use nix::errno::Errno;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `MARK_OUT` and `MARK_IN` of `bpf/underlay.bpf.c`.
const MARKS: [u32; 2] = [0x5747_5253, 0x5747_5254];

/// Two packet sockets on one interface: for each direction one, told apart by the mark.
pub struct Injector([OwnedFd; 2]);

impl Injector {
    /// Opens both sockets on `ifname` in `ns`.
    pub fn open(ns: &Netns, ifname: &str) -> Result<Self> {
        ns.run(|| Ok(Injector([open(ifname, MARKS[0])?, open(ifname, MARKS[1])?])))
    }

    /// Sends an Ethernet frame out of the interface, or makes the interface receive it.
    pub fn send(&self, direction: Direction, frame: &[u8]) -> Result<()> {
        nix::unistd::write(&self.0[direction as usize], frame).context("inject a frame")?;
        Ok(())
    }
}

fn open(ifname: &str, mark: u32) -> Result<OwnedFd> {
    let index = nix::net::if_::if_nametoindex(ifname).with_context(|| ifname.to_owned())?;
    // SAFETY: plain system calls on values of this frame; the descriptor is owned at once.
    unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // Protocol 0: it receives nothing.
        let fd = Errno::result(libc::socket(libc::AF_PACKET, kind, 0))?;
        let fd = OwnedFd::from_raw_fd(fd);
        let len = size_of::<u32>() as u32;
        let value = (&raw const mark).cast();
        let (level, option) = (libc::SOL_SOCKET, libc::SO_MARK);
        let done = libc::setsockopt(fd.as_raw_fd(), level, option, value, len);
        Errno::result(done).context("SO_MARK")?;
        let mut addr: libc::sockaddr_ll = zeroed();
        addr.sll_family = libc::AF_PACKET as u16;
        addr.sll_ifindex = index as i32;
        let len = size_of::<libc::sockaddr_ll>() as u32;
        Errno::result(libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len))?;
        Ok(fd)
    }
}

/// Completes the UDP checksum of an Ethernet frame: one taken from the stack on its way out has
/// only a part of it, as the device is to do the rest.
pub fn complete_checksum(frame: &mut [u8]) -> Option<()> {
    let v6 = frame.get(12..14)? == [0x86, 0xdd];
    let (start, addresses) = if v6 {
        (54, 22..54)
    } else {
        (14 + usize::from(*frame.get(14)? & 15) * 4, 26..34)
    };
    let len = u16::from_be_bytes(frame.get(start + 4..start + 6)?.try_into().ok()?);
    frame.get_mut(start + 6..start + 8)?.fill(0);
    let datagram = frame.get(start..start + usize::from(len))?;
    let words = |bytes: &[u8]| -> u32 {
        let pair = |p: &[u8]| (u32::from(p[0]) << 8) | u32::from(p.get(1).copied().unwrap_or(0));
        bytes.chunks(2).map(pair).sum()
    };
    let mut sum = words(frame.get(addresses)?) + words(datagram) + 17 + u32::from(len);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Zero would mean: no checksum.
    let sum = match !(sum as u16) {
        0 => 0xffff,
        sum => sum,
    };
    frame[start + 6..start + 8].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Makes the UDP checksum of a frame with a complete one wrong.
pub fn spoil_checksum(frame: &mut [u8]) -> Option<()> {
    let start = match frame.get(12..14)? {
        [0x86, 0xdd] => 54,
        _ => 14 + usize::from(*frame.get(14)? & 15) * 4,
    };
    let sum = frame.get_mut(start + 6..start + 8)?;
    // Neither zero (no checksum) nor the same number in the other form.
    let wrong = u16::from_be_bytes([sum[0], sum[1]]) ^ 0x5a5a;
    let wrong = if wrong == 0 { 1 } else { wrong };
    sum.copy_from_slice(&wrong.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 192.0.2.1:1 to 192.0.2.2:2, "hello".
    fn frame() -> Vec<u8> {
        let mut f = vec![0; 12];
        f.extend_from_slice(&[8, 0, 0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0, 0]);
        f.extend_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2, 0, 13, 0xaa, 0xaa]);
        f.extend_from_slice(b"hello");
        f
    }

    #[test]
    fn checksums() {
        let mut f = frame();
        complete_checksum(&mut f).unwrap();
        // c000+0201+c000+0202+0011+000d+0001+0002+000d+6865+6c6c+6f00 = 2c802; ~(c802+2) = 37fb
        assert_eq!(f[40..42], [0x37, 0xfb]);
        spoil_checksum(&mut f).unwrap();
        assert_ne!(f[40..42], [0x37, 0xfb]);
        assert_eq!(complete_checksum(&mut f[..30]), None);
    }
}
