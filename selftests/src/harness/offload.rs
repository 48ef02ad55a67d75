// SPDX-License-Identifier: GPL-2.0-only
//! Frames that stand for many datagrams (UDP segmentation offload), as packet sockets see them on
//! interfaces that leave the cutting to others, such as veth: cut as a network card would.

use super::packet::checksum;

/// Bytes of `struct virtio_net_hdr`, which precedes each frame with `PACKET_VNET_HDR`.
pub const VNET_LEN: usize = 10;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`.
const UDP_L4: u8 = 5;
const ETHERNET_HEADER_LEN: usize = 14;
const UDP_HEADER_LEN: usize = 8;

/// The Ethernet frames that `frame` stands for: usually itself. `vnet` is what preceded it.
pub fn cut(vnet: [u8; VNET_LEN], frame: &[u8]) -> Vec<Vec<u8>> {
    let [_, kind, _, _, size_low, size_high, ..] = vnet;
    let size = usize::from(u16::from_ne_bytes([size_low, size_high]));
    if kind != UDP_L4 || size == 0 {
        return vec![frame.to_vec()];
    }
    datagrams(frame, size).unwrap_or_else(|| vec![frame.to_vec()])
}

/// Cuts a frame into datagrams with `size` bytes of payload.
fn datagrams(frame: &[u8], size: usize) -> Option<Vec<Vec<u8>>> {
    let (link, ip) = frame.split_at_checked(ETHERNET_HEADER_LEN)?;
    let is_v4 = ip.first()? >> 4 == 4;
    let ip_len = if is_v4 {
        usize::from(ip.first()? & 15) * 4
    } else {
        40
    };
    let (ip, udp) = ip.split_at_checked(ip_len)?;
    let (udp, payload) = udp.split_at_checked(UDP_HEADER_LEN)?;
    let id = u16::from_be_bytes(ip.get(4..6)?.try_into().ok()?);
    let pieces = payload.chunks(size).zip(0u16..).map(|(piece, n)| {
        let (mut ip, mut udp) = (ip.to_vec(), udp.to_vec());
        let len = (UDP_HEADER_LEN + piece.len()) as u16;
        let addresses = if is_v4 {
            ip[2..4].copy_from_slice(&(ip_len as u16 + len).to_be_bytes());
            ip[4..6].copy_from_slice(&id.wrapping_add(n).to_be_bytes());
            ip[10..12].fill(0);
            let sum = checksum(&[&ip]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            12..20
        } else {
            ip[4..6].copy_from_slice(&len.to_be_bytes());
            8..40
        };
        udp[4..6].copy_from_slice(&len.to_be_bytes());
        udp[6..8].fill(0);
        let pseudo = [0, 17].into_iter().chain(len.to_be_bytes());
        let pseudo: Vec<u8> = pseudo.collect();
        let sum = match checksum(&[&ip[addresses], &pseudo, &udp, piece]) {
            0 => 0xffff,
            sum => sum,
        };
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        [link, &ip, &udp, piece].concat()
    });
    Some(pieces.collect())
}

#[cfg(test)]
mod tests {
    use super::super::packet::{Datagram, Sum};
    use super::*;
    use std::net::SocketAddr;

    /// A frame of four datagrams, cut, gives four frames that are right in every field.
    #[test]
    fn cut_frames_are_datagrams() {
        for (src, dst) in [
            ("10.0.0.1:1000", "10.0.0.2:2000"),
            ("[fd00::1]:1000", "[fd00::2]:2000"),
        ] {
            let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
            let payload: Vec<u8> = (0..350u32).map(|i| i as u8).collect();
            let whole = Datagram::new(src, dst, 3, &payload).frame_from(1);
            let mut vnet = [0; VNET_LEN];
            assert_eq!(cut(vnet, &whole), [whole.clone()]);
            vnet[1] = UDP_L4;
            vnet[4..6].copy_from_slice(&100u16.to_ne_bytes());
            let frames = cut(vnet, &whole);
            assert_eq!(frames.len(), 4);
            for (frame, piece) in frames.iter().zip(payload.chunks(100)) {
                let datagram = Datagram::in_frame(frame).unwrap();
                let expected = Datagram::new(src, dst, 3, piece);
                assert_eq!(datagram.sum, Sum::Right);
                assert_eq!((datagram.src, datagram.dst), (expected.src, expected.dst));
                assert_eq!(datagram.payload, piece);
                if src.is_ipv4() {
                    assert_eq!(checksum(&[&frame[14..34]]), 0);
                }
            }
            if src.is_ipv4() {
                let ids: Vec<u16> = frames
                    .iter()
                    .map(|frame| u16::from_be_bytes([frame[18], frame[19]]))
                    .collect();
                assert!(ids
                    .windows(2)
                    .all(|pair| pair[1] == pair[0].wrapping_add(1)));
            }
        }
    }
}
