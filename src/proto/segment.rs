// SPDX-License-Identifier: GPL-2.0-only

//! The segments that a TCP or UDP packet stands for (segmentation offload).
//!
//! A segment is made of the headers of the packet and a part of its payload. What differs from
//! segment to segment is set here, as the kernel's segmentation sets it: lengths, the IPv4
//! identification (RFC 6864), sequence numbers and flags (RFC 9293), checksums (RFC 1071).

#[cfg(test)]
mod tests;

use core::ops::Range;

const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// How a packet is to be cut. Its headers are one IP header, without options or extension headers,
/// and that of TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// IPv4, not IPv6.
    pub is_v4: bool,
    /// TCP, not UDP.
    pub is_tcp: bool,
    /// All segments have the same IPv4 identification.
    pub fixed_id: bool,
    /// The flag CWR is on all segments (accurate ECN, RFC 9768), not only on the first.
    pub keeps_cwr: bool,
    /// Bytes of the headers.
    pub header_len: usize,
    /// Bytes of payload of the packet.
    pub payload_len: usize,
    /// Bytes of payload of each segment but the last, which may have less.
    pub size: usize,
}

impl Segments {
    /// The number of segments.
    pub fn count(&self) -> usize {
        let whole = self.payload_len.checked_div(self.size).unwrap_or(0);
        let partial = whole.wrapping_mul(self.size) != self.payload_len;
        whole.wrapping_add(partial.into())
    }

    /// Where the payload of segment `n` lies in the packet.
    pub fn part(&self, n: usize) -> Range<usize> {
        let start = n.saturating_mul(self.size).min(self.payload_len);
        let end = start.saturating_add(self.size).min(self.payload_len);
        self.header_len.saturating_add(start)..self.header_len.saturating_add(end)
    }

    /// Completes segment `n`, which consists of the headers of the packet and its part of the
    /// payload. `payload_sum` is the sum of that as 16-bit words, as they lie in memory, modulo
    /// 2^16 - 1. [`None`] if the segment is too short for its headers.
    pub fn complete(&self, n: usize, segment: &mut [u8], payload_sum: u32) -> Option<()> {
        let is_last = n.wrapping_add(1) == self.count();
        let len = u16::try_from(segment.len()).ok()?;
        let ip_len = if self.is_v4 {
            IPV4_HEADER_LEN
        } else {
            IPV6_HEADER_LEN
        };
        let (ip, rest) = segment.split_at_mut_checked(ip_len)?;
        let (header, payload) = rest.split_at_mut_checked(self.header_len.checked_sub(ip_len)?)?;
        let rest_len = len.checked_sub(ip_len as u16)?;

        let addresses = if self.is_v4 {
            put(ip, 2, len.to_be_bytes())?;
            if !self.fixed_id {
                let id = u16::from_be_bytes(get(ip, 4)?).wrapping_add(n as u16);
                put(ip, 4, id.to_be_bytes())?;
            }
            put(ip, 10, [0; 2])?;
            let sum = !fold(sum(ip));
            put(ip, 10, sum.to_ne_bytes())?;
            ip.get(12..)?
        } else {
            put(ip, 4, rest_len.to_be_bytes())?;
            ip.get(8..)?
        };

        let (protocol, checksum_at) = if self.is_tcp { (6, 16) } else { (17, 6) };
        if self.is_tcp {
            let offset = n.wrapping_mul(self.size) as u32;
            let seq = u32::from_be_bytes(get(header, 4)?).wrapping_add(offset);
            put(header, 4, seq.to_be_bytes())?;
            let [flags] = get(header, 13)?;
            let mut cleared = 0;
            if !is_last {
                cleared |= FIN_PSH;
            }
            if n != 0 && !self.keeps_cwr {
                cleared |= CWR;
            }
            put(header, 13, [flags & !cleared])?;
        } else {
            put(header, 4, rest_len.to_be_bytes())?;
        }
        put(header, checksum_at, [0; 2])?;
        let pseudo = [[0, protocol], rest_len.to_be_bytes()];
        let total = sum(addresses)
            .wrapping_add(sum(pseudo.as_flattened()))
            .wrapping_add(sum(header))
            .wrapping_add(payload_sum.into());
        let mut checksum = !fold(total);
        if checksum == 0 && !self.is_tcp {
            // Zero would be "no checksum" (RFC 768).
            checksum = 0xffff;
        }
        put(header, checksum_at, checksum.to_ne_bytes())?;
        // The sum stands for the payload, whose length is in the headers.
        let part = self.part(n);
        (part.start.checked_add(payload.len())? == part.end).then_some(())
    }
}

pub(super) fn get<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value;
    Some(())
}

/// The sum of the 16-bit words of `bytes`, whose length is a multiple of four, as they lie in
/// memory: congruent to it modulo 2^16 - 1.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(4).fold(0, |sum: u64, word| {
        let word = word
            .first_chunk()
            .map_or(0, |word| u32::from_ne_bytes(*word));
        sum.wrapping_add(word.into())
    })
}

/// Reduces a sum to 16 bits.
pub(super) fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32).wrapping_add(sum & 0xffff_ffff);
    let sum = (sum >> 16).wrapping_add(sum & 0xffff);
    let sum = (sum >> 16).wrapping_add(sum & 0xffff);
    (sum >> 16).wrapping_add(sum & 0xffff) as u16
}
