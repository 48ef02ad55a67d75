// SPDX-License-Identifier: GPL-2.0-only
//! Reads packet metadata: the mark, the flow hash.
//!
//! A packet socket delivers bytes only. But its filter (classic BPF) can load a metadata value, and
//! the filter's return value is the number of bytes delivered: so the length of what arrives is the
//! value, eight bits on each of four sockets.

use super::netns::Netns;
use anyhow::{ensure, Result};
use nix::errno::Errno;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The metadata to read (`SKF_AD_*`).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Field {
    /// `skb->mark`.
    Mark = 20,
    /// `skb->hash`.
    Hash = 32,
}

/// Minimum length of a packet in bytes: shorter ones cannot encode a value.
pub const SHORTEST: u32 = 512;

const SKF_AD_OFF: u32 = -0x1000_i32 as u32;
/// Added to the length, so that a value of 0 is delivered too.
const BASE: u32 = 64;

/// Reads one field of the packets that leave through a device.
pub struct Probe([OwnedFd; 4]);

fn op(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

/// One socket: shows byte `n` of the field.
fn open(ifname: &str, field: Field, n: u32) -> Result<OwnedFd> {
    use libc::{BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_JGE, BPF_JMP, BPF_K, BPF_LD};
    use libc::{BPF_JEQ, BPF_LEN, BPF_RET, BPF_RSH, BPF_W};
    const SKF_AD_PKTTYPE: u32 = 4;
    let outgoing = libc::sock_filter {
        jf: 2,
        ..op(BPF_JMP | BPF_JEQ | BPF_K, u32::from(libc::PACKET_OUTGOING))
    };
    let long = libc::sock_filter {
        jt: 1,
        ..op(BPF_JMP | BPF_JGE | BPF_K, SHORTEST)
    };
    let mut program = [
        op(
            BPF_LD | BPF_W | BPF_ABS,
            SKF_AD_OFF.wrapping_add(SKF_AD_PKTTYPE),
        ),
        outgoing,
        op(BPF_LD | BPF_W | BPF_LEN, 0),
        long,
        op(BPF_RET | BPF_K, 0),
        op(
            BPF_LD | BPF_W | BPF_ABS,
            SKF_AD_OFF.wrapping_add(field as u32),
        ),
        op(BPF_ALU | BPF_RSH | BPF_K, 8 * n),
        op(BPF_ALU | BPF_AND | BPF_K, 0xff),
        op(BPF_ALU | BPF_ADD | BPF_K, BASE),
        op(BPF_RET | BPF_A, 0),
    ];
    let index = nix::net::if_::if_nametoindex(ifname)?;
    // SAFETY: plain system calls on values of this frame; the descriptor is owned at once.
    unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        let fd = OwnedFd::from_raw_fd(Errno::result(libc::socket(libc::AF_PACKET, kind, 0))?);
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        Errno::result(libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as u32,
        ))?;
        let mut addr: libc::sockaddr_ll = zeroed();
        addr.sll_family = libc::AF_PACKET as u16;
        addr.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        addr.sll_ifindex = index as i32;
        let len = size_of::<libc::sockaddr_ll>() as u32;
        Errno::result(libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len))?;
        Ok(fd)
    }
}

impl Probe {
    /// Reads `field` of packets of [`SHORTEST`] bytes or more that leave `ns` through `ifname`.
    pub fn start(ns: &Netns, ifname: &str, field: Field) -> Result<Self> {
        let open = |n| open(ifname, field, n);
        ns.run(|| Ok(Probe([open(0)?, open(1)?, open(2)?, open(3)?])))
    }

    /// The values of the packets since the last call, in order.
    pub fn values(&self) -> Result<Vec<u32>> {
        let mut bytes: [Vec<u32>; 4] = Default::default();
        let mut buf = [0u8; 1024];
        for (fd, bytes) in self.0.iter().zip(&mut bytes) {
            loop {
                // SAFETY: the buffer is borrowed for the call, with its true size.
                let got = unsafe {
                    let at = buf.as_mut_ptr().cast();
                    libc::recv(fd.as_raw_fd(), at, buf.len(), libc::MSG_DONTWAIT)
                };
                match Errno::result(got) {
                    Ok(n) => bytes.push((n as u32).wrapping_sub(BASE)),
                    Err(Errno::EAGAIN) => break,
                    Err(e) => return Err(e.into()),
                }
            }
        }
        let counts = bytes.each_ref().map(Vec::len);
        ensure!(
            counts.iter().all(|n| *n == counts[0]),
            "the probe's sockets saw different numbers of packets: {counts:?}"
        );
        let value = |n: usize| (0..4).map(|b| bytes[b][n] << (8 * b)).sum();
        Ok((0..counts[0]).map(value).collect())
    }
}
