// SPDX-License-Identifier: GPL-2.0-only

use super::*;
use crate::proto::segment::Segments;

/// Bytes of options in the packets here: a timestamp.
const OPTIONS: usize = 12;

/// What a packet is made of.
#[derive(Clone, Copy)]
struct Made {
    v4: bool,
    udp: bool,
    id: u16,
    seq: u32,
    flags: u8,
    payload: (u8, usize),
}

const FIRST: Made = Made {
    v4: true,
    udp: false,
    id: 0xffff,
    seq: 0xffff_ff00,
    flags: 0x10,
    payload: (1, 100),
};

const FIRST_UDP: Made = Made { udp: true, ..FIRST };

fn make(made: Made) -> Vec<u8> {
    let (protocol, header_len) = if made.udp {
        (UDP, 8)
    } else {
        (TCP, 20 + OPTIONS)
    };
    let len = header_len + made.payload.1;
    let mut packet = if made.v4 {
        let mut ip = vec![0x45, 2, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        ip.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        ip[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
        ip[4..6].copy_from_slice(&made.id.to_be_bytes());
        let checksum = !fold(sum(&ip));
        ip[10..12].copy_from_slice(&checksum.to_ne_bytes());
        ip
    } else {
        let mut ip = vec![0x60, 0x20, 0, 7, 0, 0, protocol, 64];
        ip[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        ip.extend((0..32).map(|i| i * 3));
        ip
    };
    packet.extend_from_slice(&[1, 2, 3, 4]);
    if made.udp {
        packet.extend_from_slice(&(len as u16).to_be_bytes());
        packet.extend_from_slice(&[0xaa, 0xbb]);
        packet.extend(std::iter::repeat_n(made.payload.0, made.payload.1));
        return packet;
    }
    packet.extend_from_slice(&made.seq.to_be_bytes());
    packet.extend_from_slice(&[9, 9, 9, 9]);
    packet.push(((20 + OPTIONS) / 4 * 16) as u8);
    packet.push(made.flags);
    packet.extend_from_slice(&[5, 0, 0xaa, 0xbb, 0, 0]);
    packet.extend((0..OPTIONS as u8).map(|i| i + 40));
    packet.extend(std::iter::repeat_n(made.payload.0, made.payload.1));
    packet
}

fn next(of: Made, n: u16, len: usize) -> Made {
    Made {
        id: of.id.wrapping_add(n),
        seq: of.seq.wrapping_add(u32::from(n) * of.payload.1 as u32),
        payload: (of.payload.0 + n as u8, len),
        ..of
    }
}

/// Joined packets, cut again, are the packets.
#[test]
fn cutting_gives_the_packets_back() {
    for v4 in [true, false] {
        for (fixed_id, last_flags, last_len) in [
            (false, 0, 100),
            (false, 0x08, 100),
            (true, 0x01, 1),
            (true, 0x09, 99),
        ] {
            let first = Made { v4, ..FIRST };
            let mut packets: Vec<Made> = (0..9).map(|n| next(first, n, 100)).collect();
            packets.push(Made {
                flags: 0x10 | last_flags,
                ..next(first, 9, last_len)
            });
            if fixed_id {
                packets.iter_mut().for_each(|packet| packet.id = first.id);
            }
            let packets: Vec<Vec<u8>> = packets.into_iter().map(make).collect();
            let mut joint = Joint::new(&packets[0]).unwrap();
            let header_len = joint.header_len();
            assert_eq!(joint.size(), 100);
            let mut whole = packets[0].clone();
            for packet in &packets[1..] {
                let padded = [packet.as_slice(), &[0; 15]].concat();
                let payload_len = joint.join(&padded).unwrap();
                assert_eq!(header_len + payload_len, packet.len());
                whole.extend_from_slice(&packet[header_len..]);
            }
            assert_eq!(joint.count(), 10);
            assert_eq!(joint.has_fixed_id(), v4 && fixed_id);
            joint.finish(&mut whole).unwrap();

            let segments = Segments {
                is_v4: v4,
                is_tcp: true,
                fixed_id: joint.has_fixed_id(),
                keeps_cwr: false,
                header_len,
                payload_len: whole.len() - header_len,
                size: joint.size(),
            };
            assert_eq!(segments.count(), packets.len());
            let tcp = header_len - 20 - OPTIONS;
            for (n, packet) in packets.iter().enumerate() {
                let mut cut = [&whole[..header_len], &whole[segments.part(n)]].concat();
                segments.complete(n, &mut cut, 0).unwrap();
                // The checksum of the packets here is none.
                cut[tcp + 16..tcp + 18].copy_from_slice(&packet[tcp + 16..tcp + 18]);
                assert_eq!(&cut, packet, "packet {n}");
            }
        }
    }
}

#[test]
fn cutting_gives_the_datagrams_back() {
    for v4 in [true, false] {
        for last_len in [100, 99, 1] {
            let first = Made { v4, ..FIRST_UDP };
            let mut packets: Vec<Made> = (0..9).map(|n| next(first, n, 100)).collect();
            packets.push(next(first, 9, last_len));
            let packets: Vec<Vec<u8>> = packets.into_iter().map(make).collect();
            let mut joint = Joint::new(&packets[0]).unwrap();
            assert!(joint.is_udp());
            let (header_len, mut whole) = (joint.header_len(), packets[0].clone());
            for packet in &packets[1..] {
                let padded = [packet.as_slice(), &[0; 15]].concat();
                let payload_len = joint.join(&padded).unwrap();
                assert_eq!(header_len + payload_len, packet.len());
                whole.extend_from_slice(&packet[header_len..]);
            }
            assert_eq!((joint.count(), joint.size()), (10, 100));
            joint.finish(&mut whole).unwrap();
            let segments = Segments {
                is_v4: v4,
                is_tcp: false,
                fixed_id: false,
                keeps_cwr: false,
                header_len,
                payload_len: whole.len() - header_len,
                size: joint.size(),
            };
            assert_eq!(segments.count(), packets.len());
            for (n, packet) in packets.iter().enumerate() {
                let mut cut = [&whole[..header_len], &whole[segments.part(n)]].concat();
                segments.complete(n, &mut cut, 0).unwrap();
                // The checksum of the packets here is none.
                cut[header_len - 2..header_len]
                    .copy_from_slice(&packet[header_len - 2..header_len]);
                assert_eq!(&cut, packet, "packet {n}");
            }
        }
    }
}

#[test]
fn datagrams_end_with_a_shorter_one_or_their_number() {
    let mut joint = Joint::new(&make(FIRST_UDP)).unwrap();
    assert_eq!(joint.join(&make(next(FIRST_UDP, 1, 101))), None);
    assert_eq!(joint.join(&make(next(FIRST, 1, 100))), None);
    assert_eq!(joint.join(&make(next(FIRST_UDP, 1, 99))), Some(99));
    assert_eq!(joint.join(&make(next(FIRST_UDP, 2, 99))), None);

    let mut joint = Joint::new(&make(FIRST_UDP)).unwrap();
    let mut n = 1;
    while joint.join(&make(next(FIRST_UDP, n, 100))).is_some() {
        n += 1;
    }
    assert_eq!((n, joint.count()), (MAX_DATAGRAMS, MAX_DATAGRAMS));
}

#[test]
fn only_plain_datagrams_begin_a_run() {
    for v4 in [true, false] {
        let good = make(Made { v4, ..FIRST_UDP });
        let udp = good.len() - 108;
        assert!(Joint::new(&good).is_some());
        // No checksum, a length that is not that of the packet.
        for (at, bytes) in [(6, [0, 0]), (4, [0, 107]), (4, [0, 109]), (4, [0, 0])] {
            let mut packet = good.clone();
            packet[udp + at..][..2].copy_from_slice(&bytes);
            assert!(Joint::new(&packet).is_none(), "{bytes:?} at {at}");
        }
        assert!(Joint::new(&make(Made {
            v4,
            payload: (0, 0),
            ..FIRST_UDP
        }))
        .is_none());
    }
}

/// A change of any byte of the headers, other than those that must differ, keeps packets apart.
#[test]
fn any_other_header_does_not_follow() {
    for (v4, udp) in [(true, false), (false, false), (true, true), (false, true)] {
        let first = Made { v4, udp, ..FIRST };
        let packet = make(next(first, 1, 100));
        let header_len = packet.len() - 100;
        let tcp = if v4 { 20 } else { 40 };
        let free = if udp {
            tcp + 6..tcp + 8
        } else {
            tcp + 16..tcp + 18
        };
        for at in (0..header_len).filter(|at| !free.contains(at)) {
            for bit in 0..8 {
                let mut changed = packet.clone();
                changed[at] ^= 1 << bit;
                if v4 && at < 20 && at != 10 && at != 11 {
                    changed[10..12].fill(0);
                    let checksum = !fold(sum(&changed[..20]));
                    changed[10..12].copy_from_slice(&checksum.to_ne_bytes());
                }
                let mut joint = Joint::new(&make(first)).unwrap();
                let joined = joint.join(&changed);
                // FIN and PSH may differ; the identification may stay what it was, or the packet be
                // shorter than what carries it.
                let may = (!udp && at == tcp + 13 && [0, 3].contains(&bit))
                    || (v4 && at == 5 && changed[4..6] == make(first)[4..6])
                    || (at == if v4 { 3 } else { 5 } || at == if v4 { 2 } else { 4 })
                        && joined.is_some_and(|len| len < 100);
                assert!(joined.is_none() || may, "byte {at}, bit {bit}");
                if joined.is_none() {
                    assert_eq!(joint.join(&packet), Some(100), "byte {at}, bit {bit}");
                }
            }
        }
    }
}

#[test]
fn what_ends_a_run_is_the_last() {
    for end in [
        next(FIRST, 1, 99),
        Made {
            flags: 0x18,
            ..next(FIRST, 1, 100)
        },
        Made {
            flags: 0x11,
            ..next(FIRST, 1, 100)
        },
    ] {
        let mut joint = Joint::new(&make(FIRST)).unwrap();
        assert!(joint.join(&make(end)).is_some());
        let mut after = next(FIRST, 2, 100);
        after.seq = end.seq.wrapping_add(end.payload.1 as u32);
        assert_eq!(joint.join(&make(after)), None);
        assert_eq!(joint.count(), 2);
    }
    // Too long, empty, out of order, after a jump of the identification.
    for other in [
        next(FIRST, 1, 101),
        next(FIRST, 1, 0),
        next(FIRST, 2, 100),
        Made {
            id: FIRST.id.wrapping_add(2),
            ..next(FIRST, 1, 100)
        },
    ] {
        let mut joint = Joint::new(&make(FIRST)).unwrap();
        assert_eq!(joint.join(&make(other)), None);
    }
}

/// Packets that may be fragmented are joined only if cutting gives them their identifications.
#[test]
fn without_df_identifications_ascend() {
    let no_df = |made| {
        let mut packet = make(made);
        packet[6] = 0;
        packet[10..12].fill(0);
        let checksum = !fold(sum(&packet[..20]));
        packet[10..12].copy_from_slice(&checksum.to_ne_bytes());
        packet
    };
    for first in [FIRST, FIRST_UDP] {
        let second = next(first, 1, 100);
        let mut joint = Joint::new(&no_df(first)).unwrap();
        let same_id = Made {
            id: first.id,
            ..second
        };
        assert_eq!(joint.join(&no_df(same_id)), None);
        assert_eq!(joint.join(&make(second)), None);
        assert_eq!(joint.join(&no_df(second)), Some(100));
    }
}

#[test]
fn only_plain_data_begins_a_run() {
    for flags in 0..=0xff {
        let packet = make(Made { flags, ..FIRST });
        let may = flags == 0x10 || flags == 0x50;
        assert_eq!(Joint::new(&packet).is_some(), may, "flags {flags:#x}");
    }
    let good = make(FIRST);
    for len in 0..good.len() {
        assert!(Joint::new(&good[..len]).is_none(), "{len} bytes");
    }
    // Options, fragments, another protocol, a wrong checksum.
    for (at, value) in [
        (0, 0x46),
        (6, 0x60),
        (6, 0xc0),
        (6, 0x20),
        (7, 1),
        (9, 1),
        (10, !good[10]),
    ] {
        let mut packet = good.clone();
        packet[at] = value;
        if at != 10 {
            packet[10..12].fill(0);
            let checksum = !fold(sum(&packet[..20]));
            packet[10..12].copy_from_slice(&checksum.to_ne_bytes());
        }
        assert!(Joint::new(&packet).is_none(), "byte {at}");
    }
}

/// No more are joined than fit into one packet.
#[test]
fn the_sum_is_bounded() {
    let first = Made {
        payload: (0, 1448),
        ..FIRST
    };
    let mut joint = Joint::new(&make(first)).unwrap();
    let mut n = 1;
    loop {
        let mut packet = next(first, n, 1448);
        packet.payload.0 = 0;
        if joint.join(&make(packet)).is_none() {
            break;
        }
        n += 1;
    }
    assert_eq!(usize::from(n), MAX_PAYLOAD / 1448);
    let mut headers = make(first);
    assert_eq!(joint.finish(&mut headers), Some(()));
    assert_eq!(joint.finish(&mut headers[..51]), None);
}
