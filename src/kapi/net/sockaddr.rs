// SPDX-License-Identifier: GPL-2.0-only

//! Socket addresses.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::{
    ip::{self, IpVersion},
    skbuff::Skb,
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Length of `struct sockaddr_in`.
const SOCKADDR_IN_LEN: usize = 16;
/// Length of `struct sockaddr_in6`.
const SOCKADDR_IN6_LEN: usize = 28;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// An IP address and a UDP port, or none: a `struct sockaddr_in` or `sockaddr_in6`, as it was made.
///
/// Two are equal if datagrams to them would be the same: padding and flow information do not count,
/// the scope of an IPv6 address does.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub struct SockAddr {
    /// Zeros if there is no address, and behind the end of a `struct sockaddr_in`.
    bytes: [u8; SOCKADDR_IN6_LEN],
}

impl SockAddr {
    /// No address: the family is `AF_UNSPEC`.
    pub const NONE: Self = Self {
        bytes: [0; SOCKADDR_IN6_LEN],
    };

    /// A socket address of userspace; [`None`] if the length does not fit the family, or the family
    /// is another.
    pub fn from_bytes(sockaddr: &[u8]) -> Option<Self> {
        let expected = match u16::from_ne_bytes(*sockaddr.first_chunk()?) {
            AF_INET => SOCKADDR_IN_LEN,
            AF_INET6 => SOCKADDR_IN6_LEN,
            _ => return None,
        };
        if sockaddr.len() != expected {
            return None;
        }
        let mut addr = Self::NONE;
        addr.bytes.get_mut(..expected)?.copy_from_slice(sockaddr);
        Some(addr)
    }

    /// An IP address without a port.
    pub fn from_ip(ip: IpAddr) -> Self {
        let mut addr = Self::NONE;
        match ip {
            IpAddr::V4(ip) => {
                addr.set(0, AF_INET.to_ne_bytes());
                addr.set(4, ip.octets());
            }
            IpAddr::V6(ip) => {
                addr.set(0, AF_INET6.to_ne_bytes());
                addr.set(8, ip.octets());
            }
        }
        addr
    }

    /// The sender of a received UDP datagram. A link-local address has the interface that the
    /// datagram came in by as its scope.
    #[inline]
    pub fn sender_of(skb: &Skb) -> Option<Self> {
        let source_port: [u8; 2] = *skb.transport().first_chunk()?;
        let version = IpVersion::from_protocol_be(skb.protocol_be())?;
        let ip = ip::source(skb.network())?;
        match (version, ip) {
            (IpVersion::V4, IpAddr::V4(_)) | (IpVersion::V6, IpAddr::V6(_)) => {}
            _ => return None,
        }
        let mut addr = Self::from_ip(ip);
        addr.set(2, source_port);
        if matches!(ip, IpAddr::V6(ip) if needs_scope(&ip)) {
            addr.set(24, skb.iif().to_ne_bytes());
        }
        Some(addr)
    }

    /// Overwrites the bytes from `offset` on.
    #[inline]
    fn set<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) {
        if let Some(place) = self
            .bytes
            .get_mut(offset..)
            .and_then(|rest| rest.first_chunk_mut())
        {
            *place = bytes;
        }
    }

    /// The bytes from `offset` on; zeros if they are not all there.
    #[inline]
    fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.bytes
            .get(offset..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .unwrap_or([0; N])
    }

    /// The address family, [`None`] without an address.
    #[inline]
    pub fn family(&self) -> Option<Family> {
        match u16::from_ne_bytes(self.get(0)) {
            AF_INET => Some(Family::V4),
            AF_INET6 => Some(Family::V6),
            _ => None,
        }
    }

    /// The socket address as userspace has it; empty without an address.
    pub fn as_bytes(&self) -> &[u8] {
        let len = match self.family() {
            Some(Family::V4) => SOCKADDR_IN_LEN,
            Some(Family::V6) => SOCKADDR_IN6_LEN,
            None => 0,
        };
        self.bytes.get(..len).unwrap_or(&[])
    }

    /// The address as a type of the core library.
    #[inline]
    pub fn to_core(self) -> Option<SocketAddr> {
        Some(match self.family()? {
            Family::V4 => SocketAddrV4::new(self.ipv4(), self.port()).into(),
            Family::V6 => {
                let flowinfo = u32::from_be_bytes(self.get(4));
                SocketAddrV6::new(self.ipv6(), self.port(), flowinfo, self.scope_id()).into()
            }
        })
    }

    /// The IP address.
    #[inline]
    pub fn ip(&self) -> Option<IpAddr> {
        Some(match self.family()? {
            Family::V4 => self.ipv4().into(),
            Family::V6 => self.ipv6().into(),
        })
    }

    /// The UDP port, in host byte order; 0 without an address.
    #[inline]
    pub fn port(&self) -> u16 {
        u16::from_be_bytes(self.get(2))
    }

    #[inline]
    fn ipv4(&self) -> Ipv4Addr {
        self.get::<4>(4).into()
    }

    #[inline]
    fn ipv6(&self) -> Ipv6Addr {
        self.get::<16>(8).into()
    }

    /// The interface that an IPv6 address is valid on; 0 for any.
    #[inline]
    fn scope_id(&self) -> u32 {
        u32::from_ne_bytes(self.get(24))
    }
}

impl PartialEq for SockAddr {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        if self.family() != other.family() || self.port() != other.port() {
            return false;
        }
        // As numbers: arrays are compared by a call to the kernel's bytewise `memcmp()`.
        match self.family() {
            Some(Family::V4) => u32::from_ne_bytes(self.get(4)) == u32::from_ne_bytes(other.get(4)),
            Some(Family::V6) => {
                u128::from_ne_bytes(self.get(8)) == u128::from_ne_bytes(other.get(8))
                    && self.scope_id() == other.scope_id()
            }
            None => true,
        }
    }
}

/// Whether an address is ambiguous without an interface (RFC 4007): those of link-local scope and
/// smaller.
fn needs_scope(addr: &Ipv6Addr) -> bool {
    let [first, second, ..] = addr.octets();
    let link_local = first == 0xfe && second & 0xc0 == 0x80;
    // Interface-local and link-local groups.
    let local_group = first == 0xff && matches!(second & 0x0f, 1 | 2);
    link_local || local_group
}
