// SPDX-License-Identifier: GPL-2.0-only
//! Hand-made packets: inner ones sent through a tunnel device bypassing the IP stack, outer ones
//! parsed, changed and put back on the underlay.

use super::netns::Netns;
use super::topo::mac;
use anyhow::Result;
use nix::errno::Errno;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `ETH_P_IP`.
pub const IPV4: u16 = libc::ETH_P_IP as u16;
/// `ETH_P_IPV6`.
pub const IPV6: u16 = libc::ETH_P_IPV6 as u16;

/// The Internet checksum over `parts`, each of even length but the last.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += (u32::from(pair[0]) << 8) | u32::from(pair.get(1).copied().unwrap_or(0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A datagram's checksum field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// The correct checksum.
    Right,
    /// A wrong checksum.
    Wrong,
    /// Zero: no checksum.
    Zero,
}

/// A UDP datagram in an IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Source.
    pub src: SocketAddr,
    /// Destination, of the same family.
    pub dst: SocketAddr,
    /// IPv4 TOS or IPv6 traffic class.
    pub tos: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// IPv4 "don't fragment"; false for IPv6.
    pub df: bool,
    /// The UDP checksum. After [`Datagram::parse`]: what was found.
    pub sum: Sum,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

impl Datagram {
    /// A datagram with a correct checksum.
    pub fn new(src: SocketAddr, dst: SocketAddr, tos: u8, payload: &[u8]) -> Self {
        Datagram {
            src,
            dst,
            tos,
            ttl: 64,
            df: false,
            sum: Sum::Right,
            payload: payload.to_vec(),
        }
    }

    /// Parses an IP packet; `None` unless it is exactly one unfragmented UDP datagram.
    pub fn parse(ip: &[u8]) -> Option<Self> {
        let v6 = ip.first()? >> 4 == 6;
        let (addrs, tos, df, udp) = if v6 {
            let end = 40 + usize::from(half(ip, 4)?);
            if *ip.get(6)? != 17 {
                return None;
            }
            let tos = (half(ip, 0)? >> 4) as u8;
            (ip.get(8..40)?, tos, false, ip.get(40..end)?)
        } else {
            let header = usize::from(ip.first()? & 15) * 4;
            if *ip.get(9)? != 17 || half(ip, 6)? & 0x3fff != 0 {
                return None;
            }
            let df = half(ip, 6)? & 0x4000 != 0;
            let udp = ip.get(header..usize::from(half(ip, 2)?))?;
            (ip.get(12..20)?, *ip.get(1)?, df, udp)
        };
        let len = usize::from(half(udp, 4)?);
        let udp = udp.get(..len)?;
        let protocol = (len as u32 + 17).to_be_bytes();
        let sum = match half(udp, 6)? {
            0 => Sum::Zero,
            _ if checksum(&[addrs, &protocol, udp]) == 0 => Sum::Right,
            _ => Sum::Wrong,
        };
        let (src, dst) = addrs.split_at(addrs.len() / 2);
        Some(Datagram {
            src: SocketAddr::new(address(src)?, half(udp, 0)?),
            dst: SocketAddr::new(address(dst)?, half(udp, 2)?),
            tos,
            ttl: *ip.get(if v6 { 7 } else { 8 })?,
            df,
            sum,
            payload: udp.get(8..)?.to_vec(),
        })
    }

    /// The datagram in an Ethernet frame.
    pub fn in_frame(frame: &[u8]) -> Option<Self> {
        match half(frame, 12)? {
            IPV4 | IPV6 => Self::parse(frame.get(14..)?),
            _ => None,
        }
    }

    /// The whole IP packet.
    pub fn packet(&self) -> Vec<u8> {
        let len = (8 + self.payload.len()) as u16;
        let mut udp = Vec::with_capacity(usize::from(len));
        udp.extend_from_slice(&self.src.port().to_be_bytes());
        udp.extend_from_slice(&self.dst.port().to_be_bytes());
        udp.extend_from_slice(&len.to_be_bytes());
        udp.extend_from_slice(&[0, 0]);
        udp.extend_from_slice(&self.payload);
        let mut addrs = octets(self.src.ip());
        addrs.extend(octets(self.dst.ip()));
        let sum = checksum(&[&addrs, &(u32::from(len) + 17).to_be_bytes(), &udp]).max(1);
        let sum = match self.sum {
            Sum::Right => sum,
            Sum::Wrong => sum ^ 0x0404,
            Sum::Zero => 0,
        };
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        let mut packet = ip(self.src.ip(), self.dst.ip(), self.tos, 17, &udp);
        if self.src.is_ipv6() {
            packet[7] = self.ttl;
        } else {
            packet[6] = if self.df { 0x40 } else { 0 };
            packet[8] = self.ttl;
            seal(&mut packet);
        }
        packet
    }

    /// The datagram in an Ethernet frame from end `n` of a [`super::topo::Link`] to the other.
    pub fn frame_from(&self, n: u8) -> Vec<u8> {
        let mut frame = mac(1 - n).to_vec();
        frame.extend_from_slice(&mac(n));
        let protocol = if self.src.is_ipv4() { IPV4 } else { IPV6 };
        frame.extend_from_slice(&protocol.to_be_bytes());
        frame.extend(self.packet());
        frame
    }
}

/// The IP address of these 4 or 16 bytes.
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|v6| Ipv6Addr::from(v6).into())
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// `payload` in an IP packet with a valid header.
pub fn ip(src: IpAddr, dst: IpAddr, tos: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(40 + payload.len());
    if src.is_ipv4() {
        out.extend_from_slice(&[0x45, tos]);
        out.extend_from_slice(&(20 + payload.len() as u16).to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 64, protocol, 0, 0]);
    } else {
        out.extend_from_slice(&(0x6000_0000u32 | (u32::from(tos) << 20)).to_be_bytes());
        out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        out.extend_from_slice(&[protocol, 64]);
    }
    out.extend(octets(src));
    out.extend(octets(dst));
    out.extend_from_slice(payload);
    if src.is_ipv4() {
        seal(&mut out);
    }
    out
}

/// Fills in the checksum of a 20-byte IPv4 header.
pub fn seal(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..20]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A packet socket on one device, for sending.
pub struct PacketSocket {
    fd: OwnedFd,
    index: i32,
}

impl PacketSocket {
    /// Opens it on `ifname` in `ns`. With `raw` the caller supplies the link-layer header (if the
    /// device has one), and the kernel may derive the protocol from it.
    pub fn open(ns: &Netns, ifname: &str, raw: bool) -> Result<Self> {
        ns.run(|| {
            let index = nix::net::if_::if_nametoindex(ifname)? as i32;
            let kind = if raw {
                libc::SOCK_RAW
            } else {
                libc::SOCK_DGRAM
            };
            // SAFETY: a system call with plain values; the descriptor is owned at once.
            let fd = unsafe {
                let fd = libc::socket(libc::AF_PACKET, kind | libc::SOCK_CLOEXEC, 0);
                OwnedFd::from_raw_fd(Errno::result(fd)?)
            };
            Ok(PacketSocket { fd, index })
        })
    }

    /// Sends `bytes` as a packet of `protocol` (`ETH_P_*`); the error is that of the device's
    /// transmit function.
    pub fn send(&self, protocol: u16, bytes: &[u8]) -> Result<(), Errno> {
        // SAFETY: the address is a live value of this frame, the buffer is borrowed.
        let sent = unsafe {
            let mut addr: libc::sockaddr_ll = zeroed();
            addr.sll_family = libc::AF_PACKET as u16;
            addr.sll_protocol = protocol.to_be();
            addr.sll_ifindex = self.index;
            libc::sendto(
                self.fd.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const addr).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        Errno::result(sent).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_round_trip() {
        for (src, dst) in [
            ("192.0.2.1:5", "192.0.2.2:6"),
            ("[2001:db8::1]:5", "[2001:db8::2]:6"),
        ] {
            for sum in [Sum::Right, Sum::Wrong, Sum::Zero] {
                let datagram = Datagram {
                    df: src.starts_with('1'),
                    ttl: 9,
                    sum,
                    ..Datagram::new(src.parse().unwrap(), dst.parse().unwrap(), 0x8b, b"hello")
                };
                let frame = datagram.frame_from(1);
                assert_eq!(Datagram::in_frame(&frame), Some(datagram));
                assert_eq!(Datagram::in_frame(&frame[..frame.len() - 1]), None);
            }
        }
    }
}
