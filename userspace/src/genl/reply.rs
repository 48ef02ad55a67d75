// SPDX-License-Identifier: GPL-2.0-only
//! Replies to a GET: attributes to model. Unknown attributes and those of an unexpected size are
//! passed over.

use crate::key::{PublicKey, SecretKey};
use crate::model::{AllowedIp, Device, Peer, Timestamp};
use netlink_packet_core::{NlaBuffer, NlasIterator};
use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use wireguard_rs::proto::uapi::{allowedip, device, peer};

/// The kernel's reply makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl From<Malformed> for io::Error {
    fn from(_: Malformed) -> Self {
        Errno::EINVAL.into()
    }
}

/// Bytes of an allowed IP of IPv4, of which IPv6 has more.
const ALLOWED_IP_LEN: usize = 28;

type Parsed = Result<(), Malformed>;

/// The attributes in a buffer, as type and value.
fn attributes(buffer: &[u8], each: &mut dyn FnMut(u16, &[u8]) -> Parsed) -> Parsed {
    NlasIterator::new(buffer).try_for_each(|attribute: Result<NlaBuffer<&[u8]>, _>| {
        let attribute = attribute.map_err(|_| Malformed)?;
        each(attribute.kind(), attribute.value())
    })
}

fn array<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

/// Adds what one message says to `device`; `attributes` are those after the header of generic
/// netlink. The kernel spreads a device over several messages, and a peer with many allowed IPs
/// over several peers of the same key.
pub fn read_reply(buffer: &[u8], device: &mut Device) -> Parsed {
    attributes(buffer, &mut |kind, value| {
        match kind {
            device::IFINDEX => {
                device.ifindex = array(value).map_or(device.ifindex, u32::from_ne_bytes)
            }
            device::IFNAME => {
                let name = value.split(|&c| c == 0).next().unwrap_or_default();
                device.name = String::from_utf8_lossy(name).into_owned();
            }
            device::PRIVATE_KEY => {
                if let Ok(key) = value.try_into() {
                    device.private_key = Some(SecretKey::new(key));
                }
            }
            device::PUBLIC_KEY => {
                device.public_key = array(value).map(PublicKey::new).or(device.public_key)
            }
            device::LISTEN_PORT => {
                device.listen_port = array(value).map_or(device.listen_port, u16::from_ne_bytes)
            }
            device::FWMARK => {
                device.fwmark = array(value).map_or(device.fwmark, u32::from_ne_bytes)
            }
            device::PEERS => attributes(value, &mut |_, value| {
                let peer = read_peer(value)?;
                match device.peers.last_mut() {
                    Some(last) if last.public_key == peer.public_key => {
                        last.allowed_ips.extend(peer.allowed_ips)
                    }
                    _ => device.peers.push(peer),
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })
}

fn read_peer(buffer: &[u8]) -> Result<Peer, Malformed> {
    let mut peer = Peer::default();
    let mut has_key = false;
    attributes(buffer, &mut |kind, value| {
        match kind {
            peer::PUBLIC_KEY => {
                if let Some(key) = array(value) {
                    (peer.public_key, has_key) = (PublicKey::new(key), true);
                }
            }
            peer::PRESHARED_KEY => {
                // The kernel always sends one; zeros stand for none.
                if let Ok(key) = value.try_into() {
                    peer.preshared_key = Some(SecretKey::new(key)).filter(|key| !key.is_zero());
                }
            }
            peer::ENDPOINT => peer.endpoint = read_endpoint(value),
            peer::PERSISTENT_KEEPALIVE_INTERVAL => {
                peer.persistent_keepalive =
                    array(value).map_or(peer.persistent_keepalive, u16::from_ne_bytes);
            }
            peer::LAST_HANDSHAKE_TIME => {
                if let Some((sec, nsec)) = value.split_at_checked(8) {
                    if let (Some(sec), Some(nsec)) = (array(sec), array(nsec)) {
                        peer.last_handshake = Timestamp {
                            sec: i64::from_ne_bytes(sec),
                            nsec: i64::from_ne_bytes(nsec),
                        };
                    }
                }
            }
            peer::RX_BYTES => {
                peer.rx_bytes = array(value).map_or(peer.rx_bytes, u64::from_ne_bytes)
            }
            peer::TX_BYTES => {
                peer.tx_bytes = array(value).map_or(peer.tx_bytes, u64::from_ne_bytes)
            }
            peer::ALLOWEDIPS => {
                // Most have one: no room for more.
                peer.allowed_ips.reserve_exact(value.len() / ALLOWED_IP_LEN);
                attributes(value, &mut |_, value| {
                    peer.allowed_ips.push(read_allowed_ip(value)?);
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    })?;
    has_key.then_some(peer).ok_or(Malformed)
}

/// A `sockaddr_in` or `sockaddr_in6`.
pub(super) fn read_endpoint(value: &[u8]) -> Option<SocketAddr> {
    let part = |at: usize| value.get(at..)?.first_chunk::<4>().copied();
    let family = i32::from(u16::from_ne_bytes(*value.first_chunk()?));
    let port = u16::from_be_bytes(*value.get(2..)?.first_chunk()?);
    match (family, value.len()) {
        (AF_INET, 16) => Some(SocketAddr::new(part(4)?.into(), port)),
        (AF_INET6, 28) => {
            let addr: Ipv6Addr = (*value.get(8..)?.first_chunk::<16>()?).into();
            let (flow, scope) = (u32::from_ne_bytes(part(4)?), u32::from_ne_bytes(part(24)?));
            Some(SocketAddrV6::new(addr, port, flow, scope).into())
        }
        _ => None,
    }
}

fn read_allowed_ip(buffer: &[u8]) -> Result<AllowedIp, Malformed> {
    let (mut family, mut cidr, mut addr) = (0, 0, None::<IpAddr>);
    attributes(buffer, &mut |kind, value| {
        match kind {
            allowedip::FAMILY => family = array(value).map_or(family, u16::from_ne_bytes),
            allowedip::IPADDR => {
                addr = array::<4>(value)
                    .map(IpAddr::from)
                    .or_else(|| array::<16>(value).map(IpAddr::from))
                    .or(addr);
            }
            allowedip::CIDR_MASK => cidr = array(value).map_or(cidr, u8::from_ne_bytes),
            _ => {}
        }
        Ok(())
    })?;
    let addr = addr.ok_or(Malformed)?;
    let (expected, bits) = if addr.is_ipv4() {
        (AF_INET, 32)
    } else {
        (AF_INET6, 128)
    };
    (i32::from(family) == expected && cidr <= bits)
        .then_some(AllowedIp { addr, cidr })
        .ok_or(Malformed)
}
