// SPDX-License-Identifier: GPL-2.0-only
//! The frames that a device's messages become in the end. A copy of all that an interface sends
//! goes out by another one without any offload, so that the stack has cut the packets and filled in
//! the checksums, as it does for a network card that can do neither.

use anyhow::{bail, ensure, Context, Result};
use harness::capture::{Capture, Captured};
use harness::cmd;
use harness::netns::Netns;
use harness::packet::{address, checksum, ip, Datagram, Sum, IPV4, IPV6};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// 802.1Q and 802.1ad.
const VLAN: [u16; 2] = [0x8100, 0x88a8];
const FRAGMENT: u8 = 44;
const IP_IN_IP: u8 = 4;
const UDP: u8 = 17;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;
const ESP: u8 = 50;
/// The port of VXLAN.
const VXLAN: u16 = 4789;
const GENEVE: u16 = 6081;
/// MACsec: its ethertype; the length of its tag with the channel's name, and of its check value.
const MACSEC: u16 = 0x88e5;
const MACSEC_TAG: usize = 16;
const MACSEC_ICV: usize = 16;

/// What passed on a wire, with the datagrams in whatever encapsulation.
#[derive(Debug, Default)]
pub struct Wire {
    /// UDP datagrams, reassembled ones among them.
    pub datagrams: Vec<Datagram>,
    /// Those that came in fragments.
    pub reassembled: usize,
    /// Packets of IPsec, which say no more.
    pub esp: usize,
    /// Frames of MACsec.
    pub macsec: usize,
}

/// Copies what an interface sends.
pub struct Tap;

impl Tap {
    /// Filters of `dev` other than this one must have another priority than 1.
    pub fn new(ns: &Netns, dev: &str) -> Result<Self> {
        let script = format!(
            "ip link add tap0 type veth peer name tap1
             ethtool -K tap0 tx off sg off tso off gso off
             sysctl -q net.ipv6.conf.tap0.disable_ipv6=1 net.ipv6.conf.tap1.disable_ipv6=1
             ip link set tap0 mtu 9000 up
             ip link set tap1 mtu 9000 up
             tc qdisc replace dev {dev} clsact
             tc filter add dev {dev} egress prio 1 matchall \
                action mirred egress mirror dev tap0 continue"
        );
        ns.run(|| cmd::run(&["bash", "-ec", &script]))?;
        Ok(Tap)
    }

    /// Captures the copies.
    pub fn start(&self, ns: &Netns) -> Result<Capture> {
        Capture::start(ns, "tap1")
    }
}

impl Wire {
    /// What these frames are: every packet is right in every checksum, and none has more than `mtu`
    /// bytes.
    pub fn of(frames: &[Captured], mtu: usize) -> Result<Self> {
        let mut wire = Wire::default();
        let mut fragments = Fragments::default();
        for (n, frame) in frames.iter().enumerate() {
            wire.frame(&frame.bytes, mtu, &mut fragments)
                .with_context(|| format!("frame {n} of {} bytes", frame.bytes.len()))?;
        }
        let left = fragments.0.len();
        ensure!(left == 0, "{left} datagrams lack fragments");
        Ok(wire)
    }

    fn frame(&mut self, frame: &[u8], mtu: usize, fragments: &mut Fragments) -> Result<()> {
        let mut at = 12;
        while VLAN.contains(&half(frame, at)?) {
            at += 4;
        }
        let mut end = frame.len();
        if half(frame, at)? == MACSEC {
            (at, end) = (at + MACSEC_TAG, end.saturating_sub(MACSEC_ICV));
            self.macsec += 1;
        }
        let packet = frame.get(at + 2..end).context("short frame")?;
        match half(frame, at)? {
            IPV4 | IPV6 => {
                let len = packet.len();
                ensure!(len <= mtu, "{len} bytes, with an MTU of {mtu}");
                self.packet(packet, fragments)
            }
            _ => Ok(()), // ARP
        }
    }

    fn packet(&mut self, packet: &[u8], fragments: &mut Fragments) -> Result<()> {
        let packet = match fragments.add(packet)? {
            Whole::Unfragmented => packet.to_vec(),
            Whole::Reassembled(packet) => {
                self.reassembled += 1;
                packet
            }
            Whole::NotYet => return Ok(()),
        };
        let v6 = packet[0] >> 4 == 6;
        let (protocol, content) = if v6 {
            (packet[6], packet.get(40..))
        } else {
            let end = usize::from(packet[0] & 15) * 4; // IGMP has options
            let header = packet.get(..end).context("short IP header")?;
            ensure!(checksum(&[header]) == 0, "IP header checksum");
            (packet[9], packet.get(end..))
        };
        let content = content.context("short packet")?;
        match protocol {
            UDP => {
                let datagram = Datagram::parse(&packet).context("no whole datagram")?;
                ensure!(datagram.sum == Sum::Right, "checksum {:?}", datagram.sum);
                if [VXLAN, GENEVE].contains(&datagram.dst.port()) {
                    let frame = datagram
                        .payload
                        .get(8..)
                        .context("short packet of VXLAN or GENEVE")?;
                    return self.frame(frame, usize::MAX, fragments);
                }
                self.datagrams.push(datagram);
            }
            GRE => {
                let packet = content.get(4..).context("short GRE packet")?;
                return self.packet(packet, fragments);
            }
            IP_IN_IP | IPV6_IN_IP => return self.packet(content, fragments),
            ESP => self.esp += 1,
            _ => {} // neighbour discovery
        }
        Ok(())
    }
}

fn half(bytes: &[u8], at: usize) -> Result<u16> {
    let half = bytes.get(at..at + 2).context("short packet")?;
    Ok(u16::from_be_bytes([half[0], half[1]]))
}

enum Whole {
    Unfragmented,
    Reassembled(Vec<u8>),
    NotYet,
}

/// The fragments of packets that are not complete: by addresses and identification, what has come
/// of each by its place, and the length if the last one has come.
#[derive(Default)]
struct Fragments(BTreeMap<(IpAddr, IpAddr, u32), Partial>);

#[derive(Default)]
struct Partial {
    pieces: BTreeMap<usize, Vec<u8>>,
    len: Option<usize>,
    tos: u8,
}

impl Fragments {
    fn add(&mut self, packet: &[u8]) -> Result<Whole> {
        let v6 = packet.first().context("empty packet")? >> 4 == 6;
        let (addresses, tos, protocol, id, place, content) = if v6 {
            if packet.get(6) != Some(&FRAGMENT) {
                return Ok(Whole::Unfragmented);
            }
            let id = (u32::from(half(packet, 44)?) << 16) | u32::from(half(packet, 46)?);
            let place = half(packet, 42)?;
            let tos = (half(packet, 0)? >> 4) as u8;
            let place = (usize::from(place & !7), place & 1 != 0);
            (&packet[8..40], tos, packet[40], id, place, packet.get(48..))
        } else {
            let place = half(packet, 6)?;
            if place & 0x3fff == 0 {
                return Ok(Whole::Unfragmented);
            }
            ensure!(checksum(&[&packet[..20]]) == 0, "IP header checksum");
            let id = u32::from(half(packet, 4)?);
            let place = (usize::from(place & 0x1fff) * 8, place & 0x2000 != 0);
            (
                &packet[12..20],
                packet[1],
                packet[9],
                id,
                place,
                packet.get(20..),
            )
        };
        ensure!(protocol == UDP, "a fragment of protocol {protocol}");
        let content = content.context("short fragment")?.to_vec();
        let (src, dst) = addresses.split_at(addresses.len() / 2);
        let (Some(src), Some(dst)) = (address(src), address(dst)) else {
            bail!("short fragment");
        };
        let partial = self.0.entry((src, dst, id)).or_default();
        let (at, more) = place;
        if !more {
            partial.len = Some(at + content.len());
        }
        partial.tos = tos;
        partial.pieces.insert(at, content);
        let have: usize = partial.pieces.values().map(Vec::len).sum();
        if partial.len != Some(have) {
            return Ok(Whole::NotYet);
        }
        let partial = self.0.remove(&(src, dst, id)).unwrap_or_default();
        let payload: Vec<u8> = partial.pieces.into_values().flatten().collect();
        Ok(Whole::Reassembled(ip(src, dst, partial.tos, UDP, &payload)))
    }
}
