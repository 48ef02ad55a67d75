// SPDX-License-Identifier: GPL-2.0-only

//! Which packets of a flow of TCP or UDP may be joined into one that stands for all of them, as
//! generic receive offload joins them: what comes out of cutting it again is what went in, but for
//! the flags PSH and FIN, which only the last may have, and the identifications of UDP packets that
//! have all the same.

#[cfg(test)]
mod tests;

use super::segment::{fold, get, put, sum};

/// The longest headers: IPv6 and TCP with all options.
pub const MAX_HEADER_LEN: usize = 100;
/// Bytes of payload that may be joined: with any headers they fit into an IP packet.
const MAX_PAYLOAD: usize = 65_400;

const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
const UDP_HEADER_LEN: usize = 8;
/// Datagrams that are joined at most: more than the kernel's own offload joins, nobody expects.
const MAX_DATAGRAMS: u16 = 64;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
const FIN_PSH: u8 = 0x09;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;

/// Packets that have been joined: the headers of the first, and what is known of the others.
pub struct Joint {
    headers: [u8; MAX_HEADER_LEN],
    protocol: u8,
    ip_len: usize,
    header_len: usize,
    /// Bytes of payload of each packet but the last.
    size: usize,
    payload_len: usize,
    count: u16,
    /// From one IPv4 identification to the next, once there are two.
    id_step: Option<u16>,
    /// FIN and PSH of the last.
    last_flags: u8,
}

/// The parts of a packet.
struct Parts {
    protocol: u8,
    ip_len: usize,
    header_len: usize,
    payload_len: usize,
}

/// Finds the parts of a packet of TCP or UDP with data, behind which there may be padding. [`None`]
/// for any other, and for those with anything unusual in the IP header, or without a UDP checksum.
fn parse(packet: &[u8]) -> Option<Parts> {
    let ([protocol], ip_len, len) = match packet.first()? {
        0x45 => {
            let ip = packet.get(..IPV4_HEADER_LEN)?;
            let is_whole = matches!(get(ip, 6)?, DONT_FRAGMENT | [0, 0]);
            if !is_whole || fold(sum(ip)) != 0xffff {
                return None;
            }
            (
                get(ip, 9)?,
                IPV4_HEADER_LEN,
                usize::from(u16::from_be_bytes(get(ip, 2)?)),
            )
        }
        first if first >> 4 == 6 => {
            let payload_len = usize::from(u16::from_be_bytes(get(packet, 4)?));
            (
                get(packet, 6)?,
                IPV6_HEADER_LEN,
                IPV6_HEADER_LEN.wrapping_add(payload_len),
            )
        }
        _ => return None,
    };
    let transport = packet.get(..len)?.get(ip_len..)?;
    let transport_len = match protocol {
        TCP => {
            let [offset] = get(transport, 12)?;
            let tcp_len = usize::from(offset >> 4).wrapping_mul(4);
            if tcp_len < 20 || offset & 0x0f != 0 {
                return None;
            }
            tcp_len
        }
        UDP => {
            let udp_len = usize::from(u16::from_be_bytes(get(transport, 4)?));
            if udp_len != transport.len() || get(transport, 6)? == [0; 2] {
                return None;
            }
            UDP_HEADER_LEN
        }
        _ => return None,
    };
    let header_len = ip_len.wrapping_add(transport_len);
    let payload_len = len.checked_sub(header_len)?;
    (payload_len != 0).then_some(Parts {
        protocol,
        ip_len,
        header_len,
        payload_len,
    })
}

impl Joint {
    /// Begins with a packet, behind which there may be padding; [`None`] if none may be joined to
    /// it.
    pub fn new(packet: &[u8]) -> Option<Self> {
        let parts = parse(packet)?;
        let header = packet.get(..parts.header_len)?;
        if parts.protocol == TCP {
            let [flags] = get(header, parts.ip_len.wrapping_add(13))?;
            if flags & !ECE != ACK {
                return None;
            }
        }
        let mut headers = [0; MAX_HEADER_LEN];
        for (to, from) in headers.iter_mut().zip(header) {
            *to = *from;
        }
        Some(Self {
            headers,
            protocol: parts.protocol,
            ip_len: parts.ip_len,
            header_len: parts.header_len,
            size: parts.payload_len,
            payload_len: parts.payload_len,
            count: 1,
            id_step: None,
            last_flags: 0,
        })
    }

    /// Whether these are UDP packets, not TCP.
    pub fn is_udp(&self) -> bool {
        self.protocol == UDP
    }

    /// Bytes of the headers of each packet.
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Bytes of payload of each packet but the last.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The number of packets.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Whether all have the same IPv4 identification.
    pub fn has_fixed_id(&self) -> bool {
        self.id_step == Some(0)
    }

    /// Joins a packet, behind which there may be padding, and gives the length of its payload.
    /// [`None`], with nothing changed, if it does not continue those before.
    pub fn join(&mut self, packet: &[u8]) -> Option<usize> {
        let parts = parse(packet)?;
        let payload_len = self.payload_len.checked_add(parts.payload_len)?;
        // A shorter one, or one that asks for delivery, was the last.
        let is_ended = self.last_flags != 0
            || self.payload_len != usize::from(self.count).wrapping_mul(self.size);
        if is_ended
            || parts.protocol != self.protocol
            || parts.ip_len != self.ip_len
            || parts.header_len != self.header_len
            || parts.payload_len > self.size
            || payload_len > MAX_PAYLOAD
            || self.is_udp() && self.count >= MAX_DATAGRAMS
        {
            return None;
        }
        let first = self.headers.get(..self.header_len)?;
        let (first_ip, first_transport) = first.split_at_checked(self.ip_len)?;
        let (ip, transport) = packet
            .get(..self.header_len)?
            .split_at_checked(self.ip_len)?;

        let id_step = if self.ip_len == IPV4_HEADER_LEN {
            // All but length, identification and checksum.
            if get::<2>(ip, 0) != get(first_ip, 0)
                || get::<4>(ip, 6) != get(first_ip, 6)
                || get::<8>(ip, 12) != get(first_ip, 12)
            {
                return None;
            }
            let id = u16::from_be_bytes(get(ip, 4)?);
            let distance = id.wrapping_sub(u16::from_be_bytes(get(first_ip, 4)?));
            let step = self.id_step.unwrap_or(distance);
            // A packet that may be fragmented needs an identification of its own.
            let is_fixed = step == 0 && get(ip, 6)? == DONT_FRAGMENT;
            if !(is_fixed || step == 1) || distance != step.wrapping_mul(self.count) {
                return None;
            }
            Some(step)
        } else {
            // All but the length.
            if get::<4>(ip, 0) != get(first_ip, 0) || get::<34>(ip, 6) != get(first_ip, 6) {
                return None;
            }
            None
        };

        // The ports.
        if get::<4>(transport, 0) != get(first_transport, 0) {
            return None;
        }
        if !self.is_udp() {
            self.last_flags = self.continues(first_transport, transport)?;
        }
        self.payload_len = payload_len;
        self.count = self.count.checked_add(1)?;
        self.id_step = id_step;
        Some(parts.payload_len)
    }

    /// The flags FIN and PSH in the TCP header `tcp`, if it follows; `first` is that of the first.
    fn continues(&self, first: &[u8], tcp: &[u8]) -> Option<u8> {
        let seq = u32::from_be_bytes(get(first, 4)?).wrapping_add(self.payload_len as u32);
        let ([flags], [first_flags]) = (get(tcp, 13)?, get(first, 13)?);
        // Acknowledgement, offset, window, urgent pointer, options.
        if get(tcp, 4) != Some(seq.to_be_bytes())
            || get::<5>(tcp, 8) != get(first, 8)
            || get::<2>(tcp, 14) != get(first, 14)
            || tcp.get(18..)? != first.get(18..)?
            || flags & !FIN_PSH != first_flags
        {
            return None;
        }
        Some(flags & FIN_PSH)
    }

    /// Makes `packet`, which begins with the headers of the first, the packet that stands for all.
    /// Its TCP or UDP checksum is left to be filled in: there is the sum of the pseudo header in
    /// its place. [`None`] if it is too short.
    pub fn finish(&self, packet: &mut [u8]) -> Option<()> {
        let (ip, transport) = packet
            .get_mut(..self.header_len)?
            .split_at_mut_checked(self.ip_len)?;
        let rest_len = transport.len().checked_add(self.payload_len)?;
        let rest_len = u16::try_from(rest_len).ok()?;
        let addresses = if self.ip_len == IPV4_HEADER_LEN {
            let len = rest_len.checked_add(IPV4_HEADER_LEN as u16)?;
            put(ip, 2, len.to_be_bytes())?;
            put(ip, 10, [0; 2])?;
            let checksum = !fold(sum(ip));
            put(ip, 10, checksum.to_ne_bytes())?;
            ip.get(12..)?
        } else {
            put(ip, 4, rest_len.to_be_bytes())?;
            ip.get(8..)?
        };
        let pseudo = [[0, self.protocol], rest_len.to_be_bytes()];
        let total = sum(addresses).wrapping_add(sum(pseudo.as_flattened()));
        let checksum = fold(total).to_ne_bytes();
        if self.is_udp() {
            put(transport, 4, rest_len.to_be_bytes())?;
            return put(transport, 6, checksum);
        }
        let [flags] = get(transport, 13)?;
        put(transport, 13, [flags | self.last_flags])?;
        put(transport, 16, checksum)
    }
}
