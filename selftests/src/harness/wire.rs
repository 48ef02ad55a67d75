// SPDX-License-Identifier: GPL-2.0-only
//! Parses frames of the underlay: Ethernet, IP, UDP and WireGuard message types.
//!
//! Sizes and layouts: WireGuard whitepaper, section 5.4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A parsed Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// An unfragmented UDP datagram over IPv4 or IPv6.
    Udp {
        /// Source.
        src: SocketAddr,
        /// Destination.
        dst: SocketAddr,
        /// The IPv4 TOS or IPv6 traffic class byte.
        tos: u8,
        /// The UDP payload.
        payload: &'a [u8],
    },
    /// ARP, IPv6 neighbour discovery or multicast listener discovery.
    Neighbour,
    /// A fragment of an IP packet.
    Fragment,
    /// Any other frame.
    Other,
}

/// A WireGuard message by its type, with the fields that are sent in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A handshake initiation.
    Initiation {
        /// The sender's index.
        sender: u32,
    },
    /// A handshake response.
    Response {
        /// The sender's index.
        sender: u32,
        /// The receiver's index.
        receiver: u32,
    },
    /// A cookie reply.
    Cookie {
        /// The receiver's index.
        receiver: u32,
    },
    /// Transport data.
    Data {
        /// The receiver's index.
        receiver: u32,
        /// The counter.
        counter: u64,
        /// The length of the message in bytes; 32 is a keepalive.
        len: usize,
    },
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The 32-bit little-endian number at `at`; `None` if `bytes` ends before it.
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Parses an Ethernet frame.
pub fn frame(bytes: &[u8]) -> Frame<'_> {
    let parsed = match half(bytes, 12) {
        Some(0x0800) => ipv4(&bytes[14..]),
        Some(0x86dd) => ipv6(&bytes[14..]),
        Some(0x0806) => Some(Frame::Neighbour),
        _ => None,
    };
    parsed.unwrap_or(Frame::Other)
}

fn ipv4(ip: &[u8]) -> Option<Frame<'_>> {
    let total = usize::from(half(ip, 2)?);
    let ip = ip.get(..total)?;
    if half(ip, 6)? & 0x3fff != 0 {
        return Some(Frame::Fragment);
    }
    let src: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
    let dst: [u8; 4] = ip.get(16..20)?.try_into().ok()?;
    if *ip.get(9)? != 17 {
        return Some(Frame::Other);
    }
    let header = usize::from(*ip.first()? & 15) * 4;
    udp(
        Ipv4Addr::from(src).into(),
        Ipv4Addr::from(dst).into(),
        *ip.get(1)?,
        ip.get(header..)?,
    )
}

fn ipv6(ip: &[u8]) -> Option<Frame<'_>> {
    let end = 40 + usize::from(half(ip, 4)?);
    let ip = ip.get(..end)?;
    let src: [u8; 16] = ip.get(8..24)?.try_into().ok()?;
    let dst: [u8; 16] = ip.get(24..40)?.try_into().ok()?;
    let tos = (half(ip, 0)? >> 4) as u8;
    match *ip.get(6)? {
        17 => udp(
            Ipv6Addr::from(src).into(),
            Ipv6Addr::from(dst).into(),
            tos,
            ip.get(40..)?,
        ),
        44 => Some(Frame::Fragment),
        // Only multicast listener reports have hop-by-hop options.
        0 => Some(Frame::Neighbour),
        // Router and neighbour solicitations and advertisements, redirects.
        58 if (130..=137).contains(ip.get(40)?) || *ip.get(40)? == 143 => Some(Frame::Neighbour),
        _ => Some(Frame::Other),
    }
}

fn udp(src: IpAddr, dst: IpAddr, tos: u8, udp: &[u8]) -> Option<Frame<'_>> {
    let payload = udp.get(8..usize::from(half(udp, 4)?))?;
    let src = SocketAddr::new(src, half(udp, 0)?);
    Some(Frame::Udp {
        src,
        dst: SocketAddr::new(dst, half(udp, 2)?),
        tos,
        payload,
    })
}

/// Parses a UDP payload as a WireGuard message; `None` if it is not well-formed.
pub fn message(payload: &[u8]) -> Option<Message> {
    match (word(payload, 0)?, payload.len()) {
        (1, 148) => Some(Message::Initiation {
            sender: word(payload, 4)?,
        }),
        (2, 92) => Some(Message::Response {
            sender: word(payload, 4)?,
            receiver: word(payload, 8)?,
        }),
        (3, 64) => Some(Message::Cookie {
            receiver: word(payload, 4)?,
        }),
        (4, len) if len >= 32 => Some(Message::Data {
            receiver: word(payload, 4)?,
            counter: u64::from_le_bytes(payload.get(8..16)?.try_into().ok()?),
            len,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet and IPv4 and UDP headers around `payload`, from 192.0.2.1:1 to 192.0.2.2:2.
    fn datagram(payload: &[u8], frag: u16) -> Vec<u8> {
        let mut f = vec![0; 12];
        f.extend_from_slice(&[8, 0, 0x45, 0x88]);
        f.extend_from_slice(&(28 + payload.len() as u16).to_be_bytes());
        f.extend_from_slice(&[0, 0]);
        f.extend_from_slice(&frag.to_be_bytes());
        f.extend_from_slice(&[64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2]);
        f.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
        f.extend_from_slice(&[0, 0]);
        f.extend_from_slice(payload);
        f
    }

    #[test]
    fn udp_v4() {
        let bytes = datagram(b"hello", 0x4000);
        let Frame::Udp {
            src,
            dst,
            tos,
            payload,
        } = frame(&bytes)
        else {
            panic!()
        };
        assert_eq!(
            (src.to_string(), dst.to_string()),
            ("192.0.2.1:1".into(), "192.0.2.2:2".into())
        );
        assert_eq!((tos, payload), (0x88, &b"hello"[..]));
        assert_eq!(frame(&datagram(b"x", 0x2000)), Frame::Fragment);
        assert_eq!(frame(&bytes[..20]), Frame::Other);
        assert_eq!(frame(&[]), Frame::Other);
    }

    #[test]
    fn messages() {
        let mut data = vec![4, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        data.extend_from_slice(&[0; 16]);
        assert_eq!(
            message(&data),
            Some(Message::Data {
                receiver: 7,
                counter: 9,
                len: 32
            })
        );
        data.pop();
        assert_eq!(message(&data), None);
        let mut init = vec![0; 148];
        init[0] = 1;
        assert_eq!(message(&init), Some(Message::Initiation { sender: 0 }));
        init[1] = 1; // reserved bytes must be zero
        assert_eq!(message(&init), None);
    }
}
