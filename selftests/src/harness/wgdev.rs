// SPDX-License-Identifier: GPL-2.0
//! A configuration client for WireGuard devices over generic netlink, the family's name free.
//!
//! `wg` knows the family `wireguard` only; a module loaded with `coexist=1` has another. Layout
//! and constants: `include/uapi/linux/wireguard.h`.

use super::netlink::{attrs, family_id, Attrs, Netlink, Reply};
use super::netns::Netns;
use anyhow::Result;
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

/// `WG_CMD_*`, `WGDEVICE_A_*`, `WGPEER_A_*`, `WGALLOWEDIP_A_*` and their flags.
#[allow(missing_docs, dead_code)] // the whole interface, used or not
pub mod uapi {
    pub const GET_DEVICE: u8 = 0;
    pub const SET_DEVICE: u8 = 1;
    pub const DEVICE_IFINDEX: u16 = 1;
    pub const DEVICE_IFNAME: u16 = 2;
    pub const DEVICE_PRIVATE_KEY: u16 = 3;
    pub const DEVICE_PUBLIC_KEY: u16 = 4;
    pub const DEVICE_FLAGS: u16 = 5;
    pub const DEVICE_LISTEN_PORT: u16 = 6;
    pub const DEVICE_FWMARK: u16 = 7;
    pub const DEVICE_PEERS: u16 = 8;
    pub const DEVICE_REPLACE_PEERS: u32 = 1;
    pub const PEER_PUBLIC_KEY: u16 = 1;
    pub const PEER_PRESHARED_KEY: u16 = 2;
    pub const PEER_FLAGS: u16 = 3;
    pub const PEER_ENDPOINT: u16 = 4;
    pub const PEER_KEEPALIVE: u16 = 5;
    pub const PEER_LAST_HANDSHAKE: u16 = 6;
    pub const PEER_RX_BYTES: u16 = 7;
    pub const PEER_TX_BYTES: u16 = 8;
    pub const PEER_ALLOWEDIPS: u16 = 9;
    pub const PEER_PROTOCOL_VERSION: u16 = 10;
    pub const PEER_REMOVE_ME: u32 = 1;
    pub const PEER_REPLACE_ALLOWEDIPS: u32 = 2;
    pub const PEER_UPDATE_ONLY: u32 = 4;
    pub const ALLOWEDIP_FAMILY: u16 = 1;
    pub const ALLOWEDIP_IPADDR: u16 = 2;
    pub const ALLOWEDIP_CIDR: u16 = 3;
    pub const ALLOWEDIP_FLAGS: u16 = 4;
    pub const ALLOWEDIP_REMOVE_ME: u32 = 1;
}

/// A key: private, public or preshared.
pub type Key = [u8; 32];

/// An allowed IP: address and prefix length.
pub type Prefix = (IpAddr, u8);

/// What to set on a device. `None` and empty mean: leave alone.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct DeviceConf {
    pub private_key: Option<Key>,
    pub listen_port: Option<u16>,
    pub fwmark: Option<u32>,
    pub flags: u32,
    pub peers: Vec<PeerConf>,
}

/// What to set on one peer.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct PeerConf {
    pub public_key: Key,
    pub preshared_key: Option<Key>,
    pub endpoint: Option<SocketAddr>,
    /// Seconds; 0 turns it off.
    pub keepalive: Option<u16>,
    pub flags: u32,
    pub allowed_ips: Vec<Prefix>,
}

/// A device as the kernel tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Device {
    pub public_key: Option<Key>,
    pub private_key: Option<Key>,
    pub listen_port: u16,
    pub fwmark: u32,
    pub peers: Vec<Peer>,
    /// How many messages the dump took.
    pub messages: usize,
}

/// A peer as the kernel tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Peer {
    pub public_key: Key,
    pub preshared_key: Key,
    pub endpoint: Option<SocketAddr>,
    pub keepalive: u16,
    /// Since the epoch; zero if there was none.
    pub last_handshake: Duration,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub allowed_ips: Vec<Prefix>,
}

/// `sockaddr_in`/`sockaddr_in6` bytes of `addr`.
fn sockaddr(addr: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    match addr {
        SocketAddr::V4(a) => {
            bytes.extend_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            bytes.extend_from_slice(&a.port().to_be_bytes());
            bytes.extend_from_slice(&a.ip().octets());
            bytes.extend_from_slice(&[0; 8]);
        }
        SocketAddr::V6(a) => {
            bytes.extend_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            bytes.extend_from_slice(&a.port().to_be_bytes());
            bytes.extend_from_slice(&a.flowinfo().to_be_bytes());
            bytes.extend_from_slice(&a.ip().octets());
            bytes.extend_from_slice(&a.scope_id().to_ne_bytes());
        }
    }
    bytes
}

fn parse_sockaddr(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    if family == libc::AF_INET {
        let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
        Some(SocketAddr::from((ip, port)))
    } else {
        let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
        let scope = u32::from_ne_bytes(bytes.get(24..28)?.try_into().ok()?);
        Some(SocketAddr::V6(SocketAddrV6::new(ip.into(), port, 0, scope)))
    }
}

fn put_peer(list: &mut Attrs, peer: &PeerConf) {
    use uapi::*;
    list.nest(0, |p| {
        p.put(PEER_PUBLIC_KEY, &peer.public_key);
        if peer.flags != 0 {
            p.u32(PEER_FLAGS, peer.flags);
        }
        if let Some(psk) = &peer.preshared_key {
            p.put(PEER_PRESHARED_KEY, psk);
        }
        if let Some(endpoint) = peer.endpoint {
            p.put(PEER_ENDPOINT, &sockaddr(endpoint));
        }
        if let Some(seconds) = peer.keepalive {
            p.u16(PEER_KEEPALIVE, seconds);
        }
        if !peer.allowed_ips.is_empty() {
            p.nest(PEER_ALLOWEDIPS, |ips| {
                for (addr, cidr) in &peer.allowed_ips {
                    ips.nest(0, |ip| put_allowed_ip(ip, *addr, *cidr));
                }
            });
        }
    });
}

fn put_allowed_ip(ip: &mut Attrs, addr: IpAddr, cidr: u8) {
    use uapi::*;
    match addr {
        IpAddr::V4(a) => ip
            .u16(ALLOWEDIP_FAMILY, libc::AF_INET as u16)
            .put(2, &a.octets()),
        IpAddr::V6(a) => ip
            .u16(ALLOWEDIP_FAMILY, libc::AF_INET6 as u16)
            .put(2, &a.octets()),
    };
    ip.u8(ALLOWEDIP_CIDR, cidr);
}

/// A generic netlink socket bound to one driver's family, in one namespace.
pub struct Wg {
    nl: Netlink,
    family: u16,
}

impl Wg {
    /// Opens the family called `family` inside `ns`.
    pub fn open(ns: &Netns, family: &str) -> Result<Self> {
        ns.run(|| Self::here(family, None))
    }

    /// The same in the calling thread's namespace, for answers that come within `limit`.
    pub fn here(family: &str, limit: Option<Duration>) -> Result<Self> {
        let mut nl = Netlink::generic()?;
        if let Some(limit) = limit {
            nl.wait_at_most(limit)?;
        }
        let family = family_id(&mut nl, family)?;
        Ok(Wg { nl, family })
    }

    /// Sends one SET made of raw attributes.
    pub fn set_raw(&mut self, body: &Attrs) -> Result<(), Errno> {
        let mut message = vec![uapi::SET_DEVICE, 1, 0, 0];
        message.extend_from_slice(body.bytes());
        self.nl.request(self.family, 0, &message).map(drop)
    }

    /// Configures the device `name`; many peers go in several messages.
    pub fn set(&mut self, name: &str, conf: &DeviceConf) -> Result<(), Errno> {
        use uapi::*;
        let chunks: Vec<&[PeerConf]> = if conf.peers.is_empty() {
            vec![&[]]
        } else {
            conf.peers.chunks(50).collect()
        };
        for (n, peers) in chunks.into_iter().enumerate() {
            let mut body = Attrs::new();
            body.str(DEVICE_IFNAME, name);
            if n == 0 {
                if let Some(key) = &conf.private_key {
                    body.put(DEVICE_PRIVATE_KEY, key);
                }
                if let Some(port) = conf.listen_port {
                    body.u16(DEVICE_LISTEN_PORT, port);
                }
                if let Some(mark) = conf.fwmark {
                    body.u32(DEVICE_FWMARK, mark);
                }
                if conf.flags != 0 {
                    body.u32(DEVICE_FLAGS, conf.flags);
                }
            }
            if !peers.is_empty() {
                body.nest(DEVICE_PEERS, |list| {
                    peers.iter().for_each(|p| put_peer(list, p))
                });
            }
            self.set_raw(&body)?;
        }
        Ok(())
    }

    /// The raw messages of a dump of device `name`.
    pub fn get_raw(&mut self, name: &str) -> Result<Vec<Reply>, Errno> {
        let mut body = Attrs::after(&[uapi::GET_DEVICE, 1, 0, 0]);
        body.str(uapi::DEVICE_IFNAME, name);
        self.nl.request(self.family, libc::NLM_F_DUMP, body.bytes())
    }

    /// The state of device `name`.
    pub fn get(&mut self, name: &str) -> Result<Device, Errno> {
        loop {
            let replies = self.get_raw(name)?;
            // The device changed during the dump: what came may be torn.
            let torn = |r: &Reply| i32::from(r.flags) & libc::NLM_F_DUMP_INTR != 0;
            if !replies.iter().any(torn) {
                return Ok(parse_dump(&replies));
            }
        }
    }
}

/// Puts the messages of one dump together.
pub fn parse_dump(replies: &[Reply]) -> Device {
    use uapi::*;
    let mut device = Device {
        messages: replies.len(),
        ..Device::default()
    };
    for (kind, data) in replies
        .iter()
        .flat_map(|r| attrs(r.body.get(4..).unwrap_or(&[])))
    {
        match kind {
            DEVICE_PRIVATE_KEY => device.private_key = data.as_slice().try_into().ok(),
            DEVICE_PUBLIC_KEY => device.public_key = data.as_slice().try_into().ok(),
            DEVICE_LISTEN_PORT => device.listen_port = u16::from_ne_bytes(fixed(&data)),
            DEVICE_FWMARK => device.fwmark = u32::from_ne_bytes(fixed(&data)),
            DEVICE_PEERS => {
                for (_, peer) in attrs(&data) {
                    let peer = parse_peer(&peer);
                    match device.peers.last_mut() {
                        // A split peer goes on in the next message.
                        Some(last) if last.public_key == peer.public_key => {
                            last.allowed_ips.extend(peer.allowed_ips);
                        }
                        _ => device.peers.push(peer),
                    }
                }
            }
            _ => {}
        }
    }
    device
}

/// The first `N` bytes of `data`, zero-filled.
fn fixed<const N: usize>(data: &[u8]) -> [u8; N] {
    data.first_chunk().copied().unwrap_or([0; N])
}

fn parse_peer(bytes: &[u8]) -> Peer {
    use uapi::*;
    let mut peer = Peer::default();
    for (kind, data) in attrs(bytes) {
        match kind {
            PEER_PUBLIC_KEY => peer.public_key = fixed(&data),
            PEER_PRESHARED_KEY => peer.preshared_key = fixed(&data),
            PEER_ENDPOINT => peer.endpoint = parse_sockaddr(&data),
            PEER_KEEPALIVE => peer.keepalive = u16::from_ne_bytes(fixed(&data)),
            PEER_LAST_HANDSHAKE => {
                let secs = i64::from_ne_bytes(fixed(&data));
                let nanos = i64::from_ne_bytes(fixed(data.get(8..).unwrap_or(&[])));
                peer.last_handshake = Duration::new(secs as u64, nanos as u32);
            }
            PEER_RX_BYTES => peer.rx_bytes = u64::from_ne_bytes(fixed(&data)),
            PEER_TX_BYTES => peer.tx_bytes = u64::from_ne_bytes(fixed(&data)),
            PEER_ALLOWEDIPS => {
                let ips = attrs(&data);
                peer.allowed_ips = ips.iter().map(|(_, ip)| parse_allowed_ip(ip)).collect();
            }
            _ => {}
        }
    }
    peer
}

fn parse_allowed_ip(bytes: &[u8]) -> Prefix {
    let mut addr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut cidr = 0;
    for (kind, data) in attrs(bytes) {
        match (kind, data.len()) {
            (uapi::ALLOWEDIP_IPADDR, 4) => addr = Ipv4Addr::from(fixed::<4>(&data)).into(),
            (uapi::ALLOWEDIP_IPADDR, 16) => addr = Ipv6Addr::from(fixed::<16>(&data)).into(),
            (uapi::ALLOWEDIP_CIDR, _) => cidr = fixed::<1>(&data)[0],
            _ => {}
        }
    }
    (addr, cidr)
}

/// A key in the base64 that `wg` reads and prints.
pub fn base64(key: &Key) -> String {
    const TABLE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(44);
    for chunk in key.chunks(3) {
        let mut word = 0u32;
        for n in 0..3 {
            word = (word << 8) | u32::from(chunk.get(n).copied().unwrap_or(0));
        }
        for n in 0..4 {
            let index = (word >> (18 - 6 * n)) & 63;
            out.push(if n <= chunk.len() {
                TABLE[index as usize] as char
            } else {
                '='
            });
        }
    }
    out
}

/// A fresh random private key, clamped.
pub fn random_key() -> Key {
    let mut key: Key = rand::random();
    key[0] &= 248;
    key[31] = key[31] & 127 | 64;
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_vectors() {
        assert_eq!(base64(&[0; 32]), format!("{}=", "A".repeat(43)));
        assert_eq!(base64(&[0xff; 32]), format!("{}8=", "/".repeat(42)));
        let key: Key = core::array::from_fn(|n| n as u8);
        assert_eq!(base64(&key), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    }

    #[test]
    fn sockaddr_round_trip() {
        for text in ["192.0.2.1:51820", "[2001:db8::1]:1"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(parse_sockaddr(&sockaddr(addr)), Some(addr));
        }
        assert_eq!(parse_sockaddr(&[2]), None);
    }

    #[test]
    fn split_peers_are_joined() {
        let peer = |key: u8, ip: [u8; 4]| PeerConf {
            public_key: [key; 32],
            allowed_ips: vec![(IpAddr::from(ip), 24)],
            ..PeerConf::default()
        };
        let reply = |peers: &[PeerConf]| {
            let mut body = Attrs::after(&[0, 1, 0, 0]);
            body.nest(uapi::DEVICE_PEERS, |l| {
                peers.iter().for_each(|p| put_peer(l, p))
            });
            Reply {
                flags: 0,
                body: body.bytes().to_vec(),
            }
        };
        let dump = [
            reply(&[peer(1, [10, 0, 0, 0])]),
            reply(&[peer(1, [10, 0, 1, 0]), peer(2, [10, 0, 2, 0])]),
        ];
        let device = parse_dump(&dump);
        assert_eq!(device.peers.len(), 2);
        assert_eq!(device.peers[0].allowed_ips.len(), 2);
    }
}
