// SPDX-License-Identifier: GPL-2.0-only

//! The few fields of IP headers that a tunnel looks at.
//!
//! Plain functions over bytes: nothing here is unsafe or knows packets.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of an IPv4 header without options.
pub const IPV4_HEADER_LEN: usize = 20;
/// Length of an IPv6 header without extensions.
pub const IPV6_HEADER_LEN: usize = 40;
/// Length of a UDP header.
pub const UDP_HEADER_LEN: usize = 8;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

/// The two bits of the traffic class that are ECN (RFC 3168).
const ECN_MASK: u8 = 3;
/// ECN-capable transport, code point 0.
const ECN_ECT_0: u8 = 2;
/// ECN-capable transport, code point 1.
const ECN_ECT_1: u8 = 1;
/// Congestion experienced.
const ECN_CE: u8 = 3;

/// The version of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// The version of the header that `packet` starts with, if the header is complete.
    #[inline]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 if packet.len() >= IPV4_HEADER_LEN => Some(Self::V4),
            6 if packet.len() >= IPV6_HEADER_LEN => Some(Self::V6),
            _ => None,
        }
    }

    /// The version that a packet's protocol field (network byte order) names.
    #[inline]
    pub fn from_protocol_be(protocol: u16) -> Option<Self> {
        match u16::from_be(protocol) {
            ETH_P_IP => Some(Self::V4),
            ETH_P_IPV6 => Some(Self::V6),
            _ => None,
        }
    }

    /// The Ethernet protocol number in network byte order.
    #[inline]
    pub fn protocol_be(self) -> u16 {
        match self {
            Self::V4 => ETH_P_IP.to_be(),
            Self::V6 => ETH_P_IPV6.to_be(),
        }
    }
}

/// `N` bytes of `packet` from `offset` on.
#[inline]
fn field<const N: usize>(packet: &[u8], offset: usize) -> Option<[u8; N]> {
    packet.get(offset..)?.first_chunk().copied()
}

/// The source address of an IP packet.
#[inline]
pub fn source(packet: &[u8]) -> Option<IpAddr> {
    match IpVersion::parse(packet)? {
        IpVersion::V4 => Some(Ipv4Addr::from(field::<4>(packet, 12)?).into()),
        IpVersion::V6 => Some(Ipv6Addr::from(field::<16>(packet, 8)?).into()),
    }
}

/// The destination address of an IP packet.
#[inline]
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    match IpVersion::parse(packet)? {
        IpVersion::V4 => Some(Ipv4Addr::from(field::<4>(packet, 16)?).into()),
        IpVersion::V6 => Some(Ipv6Addr::from(field::<16>(packet, 24)?).into()),
    }
}

/// The length that an IP packet says it has, header included. Less than a header's is nonsense
/// that the caller has to refuse.
#[inline]
pub fn total_len(packet: &[u8]) -> Option<(IpVersion, u32)> {
    let version = IpVersion::parse(packet)?;
    let len = match version {
        IpVersion::V4 => u16::from_be_bytes(field(packet, 2)?).into(),
        IpVersion::V6 => {
            u32::from(u16::from_be_bytes(field(packet, 4)?)).wrapping_add(IPV6_HEADER_LEN as u32)
        }
    };
    Some((version, len))
}

/// The traffic class of a packet of the given protocol (network byte order); 0 if it is not IP.
#[inline]
pub fn dsfield(packet: &[u8], protocol: u16) -> u8 {
    let read = || match IpVersion::from_protocol_be(protocol)? {
        IpVersion::V4 => packet.get(1).copied(),
        IpVersion::V6 => {
            let word = u16::from_be_bytes(field(packet, 0)?);
            (word >> 4).to_le_bytes().first().copied()
        }
    };
    read().unwrap_or(0)
}

/// The DSCP of a traffic class, in its place.
#[inline]
pub fn dscp_of(class: u8) -> u8 {
    class & !ECN_MASK
}

/// The outer traffic class for a packet of inner traffic class `inner`: RFC 6040, compatibility
/// mode, with an outer DSCP of 0, so that the inner one does not leak.
#[inline]
pub fn ecn_encapsulate(inner: u8) -> u8 {
    match inner & ECN_MASK {
        ECN_CE => ECN_ECT_0,
        ecn => ecn,
    }
}

/// What is to be written into an inner packet's traffic class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EcnMark {
    /// Capable of congestion notification, the second kind.
    Ect1,
    /// Congestion was met.
    Ce,
}

/// How a packet of inner traffic class `inner` has to be marked after it came in a packet of
/// traffic class `outer` (RFC 6040, section 4.2). Unlike there, no packet is dropped: one that is
/// not capable of congestion notification passes though the path was congested.
#[inline]
pub fn ecn_decapsulate(outer: u8, inner: u8) -> Option<EcnMark> {
    match (outer & ECN_MASK, inner & ECN_MASK) {
        (_, 0) => None,
        (ECN_CE, _) => Some(EcnMark::Ce),
        (ECN_ECT_1, ECN_ECT_0) => Some(EcnMark::Ect1),
        _ => None,
    }
}
