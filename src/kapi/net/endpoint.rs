// SPDX-License-Identifier: GPL-2.0

//! Where a peer is, and by which of our addresses we talk to it.
//!
//! Plain data; the layouts are those of `struct sockaddr_in` and `struct sockaddr_in6`.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

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

/// Our side of the conversation: the "sticky" source, which replies keep to.
#[derive(Clone, Copy)]
enum Source {
    /// Nothing is known: routing decides.
    Any,
    /// Our IPv4 address, and the index of the interface that it was reached by.
    V4 { addr: [u8; 4], ifindex: i32 },
    /// Our IPv6 address.
    V6 { addr: [u8; 16] },
}

/// The remote address and port of a peer, and the local address that it knows us by.
///
/// Two endpoints are equal if packets to them would be the same: padding and flow information do
/// not count, an IPv6 scope and the local side do.
#[derive(Clone, Copy)]
pub struct Endpoint {
    /// A socket address as userspace has it; zeros for none. Only `len()` bytes are in use.
    remote: [u8; SOCKADDR_IN6_LEN],
    source: Source,
}

impl Endpoint {
    /// No endpoint.
    pub const fn none() -> Self {
        Self {
            remote: [0; SOCKADDR_IN6_LEN],
            source: Source::Any,
        }
    }

    /// The endpoint of a socket address of userspace; [`None`] if the length does not fit the
    /// family, or the family is another.
    pub fn from_sockaddr(sockaddr: &[u8]) -> Option<Self> {
        let expected = match u16::from_ne_bytes(*sockaddr.first_chunk()?) {
            AF_INET => SOCKADDR_IN_LEN,
            AF_INET6 => SOCKADDR_IN6_LEN,
            _ => return None,
        };
        if sockaddr.len() != expected {
            return None;
        }
        let mut endpoint = Self::none();
        endpoint
            .remote
            .get_mut(..expected)?
            .copy_from_slice(sockaddr);
        Some(endpoint)
    }

    /// The endpoint of the sender of a received datagram.
    pub fn from_skb(skb: &Skb) -> Option<Self> {
        let source_port: [u8; 2] = *skb.transport().first_chunk()?;
        let packet = skb.network();
        let version = IpVersion::from_protocol_be(skb.protocol_be())?;
        match (version, ip::source(packet)?, ip::destination(packet)?) {
            (IpVersion::V4, IpAddr::V4(remote), IpAddr::V4(local)) => {
                let mut endpoint = Self::none();
                endpoint.set(0, AF_INET.to_ne_bytes());
                endpoint.set(2, source_port);
                endpoint.set(4, remote.octets());
                endpoint.source = Source::V4 {
                    addr: local.octets(),
                    ifindex: skb.iif(),
                };
                Some(endpoint)
            }
            (IpVersion::V6, IpAddr::V6(remote), IpAddr::V6(local)) => {
                let mut endpoint = Self::none();
                endpoint.set(0, AF_INET6.to_ne_bytes());
                endpoint.set(2, source_port);
                endpoint.set(8, remote.octets());
                if needs_scope(&remote) {
                    endpoint.set(24, skb.iif().to_ne_bytes());
                }
                endpoint.source = Source::V6 {
                    addr: local.octets(),
                };
                Some(endpoint)
            }
            _ => None,
        }
    }

    /// Overwrites the bytes of the socket address from `offset` on.
    fn set<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) {
        if let Some(place) = self
            .remote
            .get_mut(offset..)
            .and_then(|rest| rest.first_chunk_mut())
        {
            *place = bytes;
        }
    }

    /// The bytes of the socket address from `offset` on; zeros behind its end.
    fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.remote
            .get(offset..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .unwrap_or([0; N])
    }

    /// The address family, [`None`] for no endpoint.
    #[inline]
    pub fn family(&self) -> Option<Family> {
        match u16::from_ne_bytes(self.get(0)) {
            AF_INET => Some(Family::V4),
            AF_INET6 => Some(Family::V6),
            _ => None,
        }
    }

    /// The socket address as userspace set it, or as it would; empty for no endpoint.
    pub fn sockaddr_bytes(&self) -> &[u8] {
        let len = match self.family() {
            Some(Family::V4) => SOCKADDR_IN_LEN,
            Some(Family::V6) => SOCKADDR_IN6_LEN,
            None => 0,
        };
        self.remote.get(..len).unwrap_or(&[])
    }

    /// UDP port in network byte order.
    pub(crate) fn port_be(&self) -> u16 {
        u16::from_ne_bytes(self.get(2))
    }

    /// IPv4 address in network byte order.
    pub(crate) fn addr4(&self) -> [u8; 4] {
        self.get(4)
    }

    /// IPv6 address in network byte order.
    pub(crate) fn addr6(&self) -> [u8; 16] {
        self.get(8)
    }

    /// The interface that an IPv6 address is valid on; 0 for any.
    pub(crate) fn scope_id(&self) -> i32 {
        i32::from_ne_bytes(self.get(24))
    }

    /// Our IPv4 address and the interface that it was reached by, or zeros.
    pub(crate) fn source4(&self) -> ([u8; 4], i32) {
        match self.source {
            Source::V4 { addr, ifindex } => (addr, ifindex),
            _ => ([0; 4], 0),
        }
    }

    /// Our IPv6 address, or zeros.
    pub(crate) fn source6(&self) -> [u8; 16] {
        match self.source {
            Source::V6 { addr } => addr,
            _ => [0; 16],
        }
    }

    /// Forgets our side: routing decides next time.
    pub fn clear_source(&mut self) {
        self.source = Source::Any;
    }

    /// Whether our side is the same for both.
    pub fn same_source(&self, other: &Self) -> bool {
        // As numbers: arrays are compared by a call to the kernel's bytewise `memcmp()`.
        match (self.source, other.source) {
            (Source::Any, Source::Any) => true,
            (
                Source::V4 {
                    addr: a,
                    ifindex: i,
                },
                Source::V4 {
                    addr: b,
                    ifindex: j,
                },
            ) => u32::from_ne_bytes(a) == u32::from_ne_bytes(b) && i == j,
            (Source::V6 { addr: a }, Source::V6 { addr: b }) => {
                u128::from_ne_bytes(a) == u128::from_ne_bytes(b)
            }
            _ => false,
        }
    }

    /// Whether the other side is the same for both.
    pub fn same_remote(&self, other: &Self) -> bool {
        if self.family() != other.family() || self.port_be() != other.port_be() {
            return false;
        }
        match self.family() {
            Some(Family::V4) => {
                u32::from_ne_bytes(self.addr4()) == u32::from_ne_bytes(other.addr4())
            }
            Some(Family::V6) => {
                u128::from_ne_bytes(self.addr6()) == u128::from_ne_bytes(other.addr6())
                    && self.scope_id() == other.scope_id()
            }
            None => true,
        }
    }

    /// The remote IP address, for rate limits and logs.
    pub fn ip(&self) -> Option<IpAddr> {
        Some(match self.family()? {
            Family::V4 => Ipv4Addr::from(self.addr4()).into(),
            Family::V6 => Ipv6Addr::from(self.addr6()).into(),
        })
    }

    /// The remote UDP port.
    pub fn port(&self) -> u16 {
        u16::from_be(self.port_be())
    }
}

/// Whether an address means nothing without an interface: link-local ones.
fn needs_scope(addr: &Ipv6Addr) -> bool {
    let [first, second, ..] = addr.octets();
    let link_local = first == 0xfe && second & 0xc0 == 0x80;
    // Interface-local and link-local groups.
    let local_group = first == 0xff && matches!(second & 0x0f, 1 | 2);
    link_local || local_group
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.same_remote(other) && (self.family().is_none() || self.same_source(other))
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        Self::none()
    }
}

/// `address:port`, as the kernel's `%pISpfsc`.
impl kernel::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(IpAddr::V4(addr)) => write!(f, "{addr}:{}", self.port()),
            Some(IpAddr::V6(addr)) => match self.scope_id() {
                0 => write!(f, "[{addr}]:{}", self.port()),
                scope => write!(f, "[{addr}%{scope}]:{}", self.port()),
            },
            None => f.write_str("(none)"),
        }
    }
}
