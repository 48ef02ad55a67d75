// SPDX-License-Identifier: GPL-2.0-only

use super::*;

/// The Internet checksum, bytewise (RFC 1071).
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += (u32::from(pair[0]) << 8) | u32::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The sum that the kernel would give for a payload.
fn payload_sum(payload: &[u8]) -> u32 {
    let mut sum = 0u64;
    for pair in payload.chunks(2) {
        let pair = [pair[0], *pair.get(1).unwrap_or(&0)];
        sum += u64::from(u16::from_ne_bytes(pair));
    }
    while sum > u64::from(u32::MAX) {
        sum = (sum & 0xffff_ffff) + (sum >> 32);
    }
    sum as u32
}

/// A packet with random-looking headers: IP, then TCP with `options` bytes of options, or UDP.
fn packet(is_v4: bool, is_tcp: bool, options: usize, payload_len: usize) -> (Vec<u8>, usize) {
    let mut bytes: Vec<u8> = (0..40u32).map(|i| (i * 37 + 11) as u8).collect();
    if is_v4 {
        bytes.truncate(20);
        bytes[0] = 0x45;
        bytes[9] = if is_tcp { 6 } else { 17 };
        bytes[4..6].copy_from_slice(&0xfffeu16.to_be_bytes());
    } else {
        bytes[0] = 0x60;
        bytes[6] = if is_tcp { 6 } else { 17 };
    }
    let transport = if is_tcp { 20 + options } else { 8 };
    bytes.extend((0..transport as u32).map(|i| (i * 91 + 5) as u8));
    let header_len = bytes.len();
    if is_tcp {
        let tcp = header_len - transport;
        bytes[tcp + 4..tcp + 8].copy_from_slice(&0xffff_ff00u32.to_be_bytes());
        bytes[tcp + 12] = ((transport / 4) << 4) as u8;
        // CWR, ACK, PSH, FIN.
        bytes[tcp + 13] = 0x99;
    }
    bytes.extend((0..payload_len as u32).map(|i| (i.wrapping_mul(i) / 3 + i / 7) as u8));
    (bytes, header_len)
}

#[test]
fn segments_are_whole_packets() {
    for (is_v4, is_tcp, options, size, payload_len) in [
        (true, true, 0, 100, 1000),
        (true, true, 12, 1380, 60_000),
        (true, true, 40, 1, 3),
        (false, true, 12, 1381, 5000),
        (true, false, 0, 1350, 1351),
        (false, false, 0, 7, 100),
        (false, false, 0, 1000, 999),
    ] {
        for (fixed_id, keeps_cwr) in [(false, false), (true, true)] {
            let (packet, header_len) = packet(is_v4, is_tcp, options, payload_len);
            let segments = Segments {
                is_v4,
                is_tcp,
                fixed_id,
                keeps_cwr,
                header_len,
                payload_len,
                size,
            };
            let count = segments.count();
            assert_eq!(count, payload_len.div_ceil(size));
            let mut collected = Vec::new();
            for n in 0..count {
                let part = &packet[segments.part(n)];
                let mut segment = [&packet[..header_len], part].concat();
                segments
                    .complete(n, &mut segment, payload_sum(part))
                    .unwrap();
                check(&segments, n, &packet, &segment);
                collected.extend_from_slice(&segment[header_len..]);
            }
            assert_eq!(collected, &packet[header_len..]);
        }
    }
}

/// Checks every field of a segment against the packet.
fn check(segments: &Segments, n: usize, packet: &[u8], segment: &[u8]) {
    let half = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let ip_len = if segments.is_v4 { 20 } else { 40 };
    let (ip, rest) = segment.split_at(ip_len);
    let (addresses, protocol) = if segments.is_v4 {
        assert_eq!(checksum(&[ip]), 0);
        assert_eq!(usize::from(half(ip, 2)), segment.len());
        let step = if segments.fixed_id { 0 } else { n as u16 };
        assert_eq!(half(ip, 4), half(packet, 4).wrapping_add(step));
        (&ip[12..20], ip[9])
    } else {
        assert_eq!(usize::from(half(ip, 4)), rest.len());
        (&ip[8..40], ip[6])
    };
    let pseudo = [[0, protocol], (rest.len() as u16).to_be_bytes()].concat();
    assert_eq!(checksum(&[addresses, &pseudo, rest]), 0);
    // All other bytes are those of the packet.
    let mut same = segment[..segments.header_len].to_vec();
    let mut restore = |range: Range<usize>| same[range.clone()].copy_from_slice(&packet[range]);
    if segments.is_v4 {
        restore(2..6);
        restore(10..12);
    } else {
        restore(4..6);
    }
    if segments.is_tcp {
        let word = |bytes: &[u8]| u32::from_be_bytes(bytes[ip_len + 4..][..4].try_into().unwrap());
        let offset = (n * segments.size) as u32;
        assert_eq!(word(segment), word(packet).wrapping_add(offset));
        let mut flags = packet[ip_len + 13];
        if n + 1 != segments.count() {
            flags &= !0x09;
        }
        if n != 0 && !segments.keeps_cwr {
            flags &= !0x80;
        }
        assert_eq!(segment[ip_len + 13], flags);
        restore(ip_len + 4..ip_len + 8);
        restore(ip_len + 13..ip_len + 14);
        restore(ip_len + 16..ip_len + 18);
    } else {
        assert_eq!(usize::from(half(rest, 4)), rest.len());
        assert_ne!(half(rest, 6), 0);
        restore(ip_len + 4..ip_len + 8);
    }
    assert_eq!(same, &packet[..segments.header_len]);
}

/// A UDP checksum that comes out as zero is sent as all ones.
#[test]
fn no_udp_checksum_is_zero() {
    let segments = Segments {
        is_v4: true,
        is_tcp: false,
        fixed_id: false,
        keeps_cwr: false,
        header_len: 28,
        payload_len: 2,
        size: 2,
    };
    let (packet, _) = packet(true, false, 0, 2);
    let zeros = (0..=u16::MAX).filter(|word| {
        let mut segment = packet.clone();
        segment[28..].copy_from_slice(&word.to_ne_bytes());
        segments.complete(0, &mut segment, (*word).into()).unwrap();
        assert_ne!(segment[26..28], [0, 0]);
        segment[26..28] == [0xff, 0xff]
    });
    assert_ne!(zeros.count(), 0);
}

#[test]
fn short_segments_are_refused() {
    let (mut packet, header_len) = packet(true, true, 12, 10);
    let segments = Segments {
        is_v4: true,
        is_tcp: true,
        fixed_id: false,
        keeps_cwr: false,
        header_len,
        payload_len: 10,
        size: 10,
    };
    for len in 0..packet.len() {
        assert_eq!(segments.complete(0, &mut packet[..len], 0), None);
    }
    assert_eq!(segments.complete(0, &mut packet, 0), Some(()));
    let none = Segments {
        size: 0,
        ..segments
    };
    assert_eq!(none.complete(0, &mut packet, 0), None);
}
