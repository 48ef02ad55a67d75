// SPDX-License-Identifier: GPL-2.0-only
//! IP packets as bytes: inner packets to be sent through a session, and outer frames with any
//! source address, to be sent by [`Injector`](crate::capture::Injector).

use crate::topo::mac;
use crate::traffic::checksum;
use std::net::{IpAddr, SocketAddr};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// An IP packet. Both addresses have the same family.
pub fn ip(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet;
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let len = 20 + payload.len() as u16;
            packet = vec![0x45, 0];
            packet.extend_from_slice(&len.to_be_bytes());
            packet.extend_from_slice(&[0, 0, 0, 0, 64, protocol, 0, 0]);
            packet.extend_from_slice(&src.octets());
            packet.extend_from_slice(&dst.octets());
            let sum = checksum(&packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            packet = vec![0x60, 0, 0, 0];
            packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            packet.extend_from_slice(&[protocol, 64]);
            packet.extend_from_slice(&src.octets());
            packet.extend_from_slice(&dst.octets());
        }
        _ => panic!("{src} and {dst} are of different families"),
    }
    packet.extend_from_slice(payload);
    packet
}

/// The sum over the pseudo header and `payload`.
fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    for addr in [src, dst] {
        match addr {
            IpAddr::V4(addr) => bytes.extend_from_slice(&addr.octets()),
            IpAddr::V6(addr) => bytes.extend_from_slice(&addr.octets()),
        }
    }
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, protocol]);
    bytes.extend_from_slice(payload);
    checksum(&bytes)
}

/// Gives an IPv4 packet an identification; it must not be fragmented. Leaves IPv6 as it is.
pub fn set_whole(packet: &mut [u8], id: u16) {
    if packet[0] >> 4 == 4 {
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6] = 0x40;
        packet[10..12].fill(0);
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// A UDP datagram in an IP packet.
pub fn udp(src: SocketAddr, dst: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut datagram = src.port().to_be_bytes().to_vec();
    datagram.extend_from_slice(&dst.port().to_be_bytes());
    datagram.extend_from_slice(&(8 + data.len() as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(data);
    let sum = match pseudo(src.ip(), dst.ip(), UDP, &datagram) {
        0 => 0xffff,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    ip(src.ip(), dst.ip(), UDP, &datagram)
}

/// A TCP segment in an IP packet.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Source.
    pub src: SocketAddr,
    /// Destination, of the same family.
    pub dst: SocketAddr,
    /// The IPv4 identification; with one, the packet must not be fragmented.
    pub id: Option<u16>,
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The flags: FIN is 1, SYN 2, RST 4, PSH 8, ACK 16.
    pub flags: u8,
    /// Options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// The data.
    pub data: Vec<u8>,
}

impl Segment {
    /// The packet.
    pub fn packet(&self) -> Vec<u8> {
        let mut tcp = self.src.port().to_be_bytes().to_vec();
        tcp.extend_from_slice(&self.dst.port().to_be_bytes());
        tcp.extend_from_slice(&self.seq.to_be_bytes());
        tcp.extend_from_slice(&self.ack.to_be_bytes());
        tcp.push(((20 + self.options.len()) * 4) as u8);
        tcp.push(self.flags);
        tcp.extend_from_slice(&[0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend_from_slice(&self.options);
        tcp.extend_from_slice(&self.data);
        let sum = pseudo(self.src.ip(), self.dst.ip(), TCP, &tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut packet = ip(self.src.ip(), self.dst.ip(), TCP, &tcp);
        if let Some(id) = self.id {
            set_whole(&mut packet, id);
        }
        packet
    }

    /// Parses a packet, behind which there may be padding. All lengths and checksums must be right.
    pub fn parse(bytes: &[u8]) -> Option<Segment> {
        let half = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let (ip_len, len, id, src, dst) = if bytes.first()? >> 4 == 4 {
            let src: [u8; 4] = *bytes.get(12..)?.first_chunk()?;
            let dst: [u8; 4] = *bytes.get(16..)?.first_chunk()?;
            if bytes[0] != 0x45 || bytes[9] != TCP || checksum(bytes.get(..20)?) != 0 {
                return None;
            }
            (
                20,
                usize::from(half(2)?),
                Some(half(4)?),
                src.into(),
                dst.into(),
            )
        } else {
            let src: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
            let dst: [u8; 16] = *bytes.get(24..)?.first_chunk()?;
            if *bytes.get(6)? != TCP {
                return None;
            }
            (
                40,
                40 + usize::from(half(4)?),
                None,
                IpAddr::from(src),
                IpAddr::from(dst),
            )
        };
        let tcp = bytes.get(ip_len..len)?;
        let word = |at: usize| Some(u32::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
        let header_len = usize::from(tcp.get(12)? >> 4) * 4;
        if pseudo(src, dst, TCP, tcp) != 0 {
            return None;
        }
        Some(Segment {
            src: SocketAddr::new(src, half(ip_len)?),
            dst: SocketAddr::new(dst, half(ip_len + 2)?),
            id,
            seq: word(4)?,
            ack: word(8)?,
            flags: tcp[13],
            options: tcp.get(20..header_len)?.to_vec(),
            data: tcp.get(header_len..)?.to_vec(),
        })
    }
}

fn icmp(src: IpAddr, dst: IpAddr, kind: u8, seq: u16, data: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0x77, 0x67];
    message.extend_from_slice(&seq.to_be_bytes());
    message.extend_from_slice(data);
    let (protocol, sum) = if src.is_ipv4() {
        (ICMP, checksum(&message))
    } else {
        (ICMPV6, pseudo(src, dst, ICMPV6, &message))
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(src, dst, protocol, &message)
}

/// An ICMP or ICMPv6 echo request.
pub fn echo(src: IpAddr, dst: IpAddr, seq: u16, data: &[u8]) -> Vec<u8> {
    icmp(src, dst, if src.is_ipv4() { 8 } else { 128 }, seq, data)
}

/// True if the packet `got` (padding may follow) is the answer to [`echo`] of the same arguments.
pub fn answers(got: &[u8], src: IpAddr, dst: IpAddr, seq: u16, data: &[u8]) -> bool {
    let wanted = icmp(dst, src, if src.is_ipv4() { 0 } else { 129 }, seq, data);
    // From the addresses on: what is before (TOS, TTL, flow label, checksum) is the kernel's.
    let at = if src.is_ipv4() { 12 } else { 8 };
    got.get(at..wanted.len()) == wanted.get(at..)
}

/// An Ethernet frame with a datagram from veth end `n` to the other end (see
/// [`topo`](crate::topo)), with any addresses.
pub fn frame(n: u8, src: SocketAddr, dst: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut frame = mac(1 - n).to_vec();
    frame.extend_from_slice(&mac(n));
    let kind: u16 = if src.is_ipv4() { 0x0800 } else { 0x86dd };
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend(udp(src, dst, data));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn frames_are_read_as_written() {
        for (src, dst) in [
            ("192.0.2.7:5", "192.0.2.1:51820"),
            ("[2001:db8::7]:5", "[2001:db8::1]:51820"),
        ] {
            let [src, dst]: [SocketAddr; 2] = [src.parse().unwrap(), dst.parse().unwrap()];
            let bytes = frame(1, src, dst, b"data");
            let wire::Frame::Udp {
                src: s,
                dst: d,
                payload,
                ..
            } = wire::frame(&bytes)
            else {
                panic!()
            };
            assert_eq!((s, d, payload), (src, dst, &b"data"[..]));
        }
    }

    #[test]
    fn checksums() {
        let [a, b]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let packet = echo(a, b, 1, b"odd");
        assert_eq!(checksum(&packet[..20]), 0);
        assert_eq!(checksum(&packet[20..]), 0);
        let packet = udp(SocketAddr::new(a, 1), SocketAddr::new(b, 2), b"odd");
        assert_eq!(pseudo(a, b, UDP, &packet[20..]), 0);
    }

    #[test]
    fn echoes_are_answered() {
        for (a, b) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let [a, b]: [IpAddr; 2] = [a.parse().unwrap(), b.parse().unwrap()];
            let kind = if a.is_ipv4() { 0 } else { 129 };
            let mut reply = icmp(b, a, kind, 3, b"text");
            reply.extend_from_slice(&[0; 5]);
            assert!(answers(&reply, a, b, 3, b"text"));
            assert!(!answers(&reply, a, b, 4, b"text"));
            assert!(!answers(&echo(a, b, 3, b"text"), a, b, 3, b"text"));
            assert!(!answers(&[], a, b, 3, b"text"));
        }
    }
}
