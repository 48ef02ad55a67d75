// SPDX-License-Identifier: GPL-2.0-only

//! The address of a peer, and the local address that packets to it come from.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::kapi::net::{skbuff::Skb, sockaddr::SockAddr};

/// The local address: the "sticky" source that replies keep.
#[derive(Clone, Copy)]
enum Source {
    /// Not known: chosen by routing.
    Any,
    /// Our IPv4 address, and the index of the interface that it was reached by.
    V4 { addr: Ipv4Addr, ifindex: i32 },
    /// Our IPv6 address.
    V6 { addr: Ipv6Addr },
}

/// The remote address and port of a peer, and the local address that it knows us by.
#[derive(Clone, Copy)]
pub(crate) struct Endpoint {
    remote: SockAddr,
    source: Source,
}

impl Endpoint {
    /// No endpoint.
    pub(crate) const NONE: Self = Self::new(SockAddr::NONE);

    /// An endpoint whose local address routing is to choose.
    pub(crate) const fn new(remote: SockAddr) -> Self {
        Self {
            remote,
            source: Source::Any,
        }
    }

    /// The endpoint of the sender of a received datagram.
    pub(crate) fn from_skb(skb: &Skb) -> Option<Self> {
        let remote = SockAddr::sender_of(skb)?;
        let source = match skb.dst_addr()? {
            IpAddr::V4(addr) => Source::V4 {
                addr,
                ifindex: skb.iif(),
            },
            IpAddr::V6(addr) => Source::V6 { addr },
        };
        Some(Self { remote, source })
    }

    /// The remote address and port.
    #[inline]
    pub(crate) fn remote(&self) -> &SockAddr {
        &self.remote
    }

    /// Our IPv4 address and the interface that it was reached by, or zeros.
    pub(crate) fn source4(&self) -> (Ipv4Addr, i32) {
        match self.source {
            Source::V4 { addr, ifindex } => (addr, ifindex),
            _ => (Ipv4Addr::UNSPECIFIED, 0),
        }
    }

    /// Our IPv6 address, or zeros.
    pub(crate) fn source6(&self) -> Ipv6Addr {
        match self.source {
            Source::V6 { addr } => addr,
            _ => Ipv6Addr::UNSPECIFIED,
        }
    }

    /// Forgets the local address: routing chooses one next time.
    pub(crate) fn clear_source(&mut self) {
        self.source = Source::Any;
    }

    /// Whether both have the same local address.
    fn same_source(&self, other: &Self) -> bool {
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
            ) => a.to_bits() == b.to_bits() && i == j,
            (Source::V6 { addr: a }, Source::V6 { addr: b }) => a.to_bits() == b.to_bits(),
            _ => false,
        }
    }
}

/// Equal endpoints give equal packets.
impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.remote == other.remote && (self.remote.family().is_none() || self.same_source(other))
    }
}
