// SPDX-License-Identifier: GPL-2.0-only
//! A configuration client for WireGuard devices over generic netlink, for any family name: `wg`
//! knows only `wireguard`, but a module loaded with `coexist=1` registers another.

use super::netlink::{attrs, family_id, Attrs, Netlink, Reply};
use super::netns::Netns;
use anyhow::Result;
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

/// The family's numbers: commands, attributes, flags. `tests/numbers.rs` checks them against the
/// kernel's header.
pub use wireguard_rs::proto::uapi;

/// A key: private, public or preshared.
pub type Key = [u8; 32];

/// An allowed IP: address and prefix length.
pub type Prefix = (IpAddr, u8);

/// What to set on a device; `None`, 0 and empty leave the value as it is.
#[derive(Clone, Debug, Default)]
pub struct DeviceConf {
    /// Zeros remove it.
    pub private_key: Option<Key>,
    /// UDP port; 0 picks one.
    pub listen_port: Option<u16>,
    /// 0 removes it.
    pub fwmark: Option<u32>,
    /// `uapi::device::F_*`.
    pub flags: u32,
    /// Peers to add, change or remove.
    pub peers: Vec<PeerConf>,
}

/// What to set on a peer; `None`, 0 and empty leave the value as it is.
#[derive(Clone, Debug, Default)]
pub struct PeerConf {
    /// Identifies the peer.
    pub public_key: Key,
    /// Zeros remove it.
    pub preshared_key: Option<Key>,
    /// Its address and port on the underlay.
    pub endpoint: Option<SocketAddr>,
    /// Persistent keepalive in seconds; 0 disables it.
    pub keepalive: Option<u16>,
    /// `uapi::peer::F_*`.
    pub flags: u32,
    /// Prefixes to add.
    pub allowed_ips: Vec<Prefix>,
}

/// The state of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// `None` without a private key.
    pub public_key: Option<Key>,
    /// `None` if there is none.
    pub private_key: Option<Key>,
    /// UDP port.
    pub listen_port: u16,
    /// 0: none.
    pub fwmark: u32,
    /// In the order of the dump.
    pub peers: Vec<Peer>,
    /// The number of messages in the dump.
    pub messages: usize,
}

/// The state of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Identifies the peer.
    pub public_key: Key,
    /// Zeros: none.
    pub preshared_key: Key,
    /// `None` if unknown.
    pub endpoint: Option<SocketAddr>,
    /// Persistent keepalive in seconds; 0: disabled.
    pub keepalive: u16,
    /// Time of the last handshake since the epoch; zero if there was none.
    pub last_handshake: Duration,
    /// Bytes received on the underlay.
    pub rx_bytes: u64,
    /// Bytes sent on the underlay.
    pub tx_bytes: u64,
    /// In the order of the dump.
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
        p.put(peer::PUBLIC_KEY, &peer.public_key);
        if peer.flags != 0 {
            p.u32(peer::FLAGS, peer.flags);
        }
        if let Some(psk) = &peer.preshared_key {
            p.put(peer::PRESHARED_KEY, psk);
        }
        if let Some(endpoint) = peer.endpoint {
            p.put(peer::ENDPOINT, &sockaddr(endpoint));
        }
        if let Some(seconds) = peer.keepalive {
            p.u16(peer::PERSISTENT_KEEPALIVE_INTERVAL, seconds);
        }
        if !peer.allowed_ips.is_empty() {
            p.nest(peer::ALLOWEDIPS, |ips| {
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
            .u16(allowedip::FAMILY, libc::AF_INET as u16)
            .put(uapi::allowedip::IPADDR, &a.octets()),
        IpAddr::V6(a) => ip
            .u16(allowedip::FAMILY, libc::AF_INET6 as u16)
            .put(uapi::allowedip::IPADDR, &a.octets()),
    };
    ip.u8(allowedip::CIDR_MASK, cidr);
}

/// Peers that [`Wg::set`] puts into one request at most.
pub const PEERS_PER_REQUEST: usize = 50;

/// A generic netlink socket bound to one driver's family, in one namespace.
pub struct Wg {
    nl: Netlink,
    family: u16,
}

/// All of a change in one request, its peers in as many lists as they need: for the command of our
/// own family that makes a change as a whole.
pub fn whole(name: &str, conf: &DeviceConf) -> Attrs {
    let mut body = Attrs::new();
    body.str(uapi::device::IFNAME, name);
    put_device(&mut body, conf);
    for peers in conf.peers.chunks(PEERS_PER_REQUEST) {
        put_peers(&mut body, peers);
    }
    body
}

/// What is not about peers.
fn put_device(body: &mut Attrs, conf: &DeviceConf) {
    use uapi::device;
    if let Some(key) = &conf.private_key {
        body.put(device::PRIVATE_KEY, key);
    }
    if let Some(port) = conf.listen_port {
        body.u16(device::LISTEN_PORT, port);
    }
    if let Some(mark) = conf.fwmark {
        body.u32(device::FWMARK, mark);
    }
    if conf.flags != 0 {
        body.u32(device::FLAGS, conf.flags);
    }
}

fn put_peers(body: &mut Attrs, peers: &[PeerConf]) {
    if !peers.is_empty() {
        body.nest(uapi::device::PEERS, |list| {
            peers.iter().for_each(|p| put_peer(list, p))
        });
    }
}

fn get_device(name: &str) -> Attrs {
    let mut body = Attrs::after(&[uapi::cmd::GET_DEVICE, uapi::GENL_VERSION, 0, 0]);
    body.str(uapi::device::IFNAME, name);
    body
}

impl Wg {
    /// Opens the family called `family` inside `ns`.
    pub fn open(ns: &Netns, family: &str) -> Result<Self> {
        ns.run(|| Self::here(family, None))
    }

    /// As [`Wg::open`], in the calling thread's namespace; an answer that takes longer than `limit`
    /// is an error.
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
        let mut message = vec![uapi::cmd::SET_DEVICE, uapi::GENL_VERSION, 0, 0];
        message.extend_from_slice(body.bytes());
        self.nl.request(self.family, 0, &message).map(drop)
    }

    /// Configures the device `name`, in several messages if there are many peers.
    pub fn set(&mut self, name: &str, conf: &DeviceConf) -> Result<(), Errno> {
        use uapi::*;
        let chunks: Vec<&[PeerConf]> = if conf.peers.is_empty() {
            vec![&[]]
        } else {
            conf.peers.chunks(PEERS_PER_REQUEST).collect()
        };
        for (n, peers) in chunks.into_iter().enumerate() {
            let mut body = Attrs::new();
            body.str(device::IFNAME, name);
            if n == 0 {
                put_device(&mut body, conf);
            }
            put_peers(&mut body, peers);
            self.set_raw(&body)?;
        }
        Ok(())
    }

    /// The raw messages of a dump of device `name`.
    pub fn get_raw(&mut self, name: &str) -> Result<Vec<Reply>, Errno> {
        let body = get_device(name);
        self.nl.request(self.family, libc::NLM_F_DUMP, body.bytes())
    }

    /// As [`Wg::get_raw`], but keeps nothing.
    pub fn drain(&mut self, name: &str) -> Result<(), Errno> {
        self.nl.drain(self.family, get_device(name).bytes())
    }

    /// The state of device `name`.
    pub fn get(&mut self, name: &str) -> Result<Device, Errno> {
        loop {
            let replies = self.get_raw(name)?;
            // The device changed during the dump, so its parts may not fit together.
            let torn = |r: &Reply| i32::from(r.flags) & libc::NLM_F_DUMP_INTR != 0;
            if !replies.iter().any(torn) {
                return Ok(parse_dump(&replies));
            }
        }
    }
}

/// The device that the messages of one dump describe.
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
            device::PRIVATE_KEY => device.private_key = data.as_slice().try_into().ok(),
            device::PUBLIC_KEY => device.public_key = data.as_slice().try_into().ok(),
            device::LISTEN_PORT => device.listen_port = u16::from_ne_bytes(fixed(&data)),
            device::FWMARK => device.fwmark = u32::from_ne_bytes(fixed(&data)),
            device::PEERS => {
                for (_, peer) in attrs(&data) {
                    let peer = parse_peer(&peer);
                    match device.peers.last_mut() {
                        // A peer may be split over two messages.
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
            peer::PUBLIC_KEY => peer.public_key = fixed(&data),
            peer::PRESHARED_KEY => peer.preshared_key = fixed(&data),
            peer::ENDPOINT => peer.endpoint = parse_sockaddr(&data),
            peer::PERSISTENT_KEEPALIVE_INTERVAL => {
                peer.keepalive = u16::from_ne_bytes(fixed(&data))
            }
            peer::LAST_HANDSHAKE_TIME => {
                let secs = i64::from_ne_bytes(fixed(&data));
                let nanos = i64::from_ne_bytes(fixed(data.get(8..).unwrap_or(&[])));
                peer.last_handshake = Duration::new(secs as u64, nanos as u32);
            }
            peer::RX_BYTES => peer.rx_bytes = u64::from_ne_bytes(fixed(&data)),
            peer::TX_BYTES => peer.tx_bytes = u64::from_ne_bytes(fixed(&data)),
            peer::ALLOWEDIPS => {
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
            (uapi::allowedip::IPADDR, 4) => addr = Ipv4Addr::from(fixed::<4>(&data)).into(),
            (uapi::allowedip::IPADDR, 16) => addr = Ipv6Addr::from(fixed::<16>(&data)).into(),
            (uapi::allowedip::CIDR_MASK, _) => cidr = fixed::<1>(&data)[0],
            _ => {}
        }
    }
    (addr, cidr)
}

/// A key in base64, as `wg` reads and prints it.
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

/// A random private key, clamped.
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
            body.nest(uapi::device::PEERS, |l| {
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
