// SPDX-License-Identifier: GPL-2.0-only
//! What a WireGuard device is ([`Device`]), and what may be changed about it ([`SetDevice`]).

use crate::key::{PublicKey, SecretKey};
use nix::net::if_::if_indextoname;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A device as the kernel reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// The private key; `None` when there is none, or when the caller may not see it.
    pub private_key: Option<SecretKey>,
    /// The public key that belongs to it.
    pub public_key: Option<PublicKey>,
    /// UDP port, 0 while none was chosen.
    pub listen_port: u16,
    /// Mark of outgoing packets, 0 when off.
    pub fwmark: u32,
    /// Peers, newest last.
    pub peers: Vec<Peer>,
}

/// A peer as the kernel reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its public key.
    pub public_key: PublicKey,
    /// The preshared key, if any.
    pub preshared_key: Option<SecretKey>,
    /// Where packets are sent to.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between persistent keepalives, 0 when off.
    pub persistent_keepalive: u16,
    /// When the last handshake ended; zero when there was none.
    pub last_handshake: Timestamp,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Allowed IPs in the kernel's order.
    pub allowed_ips: Vec<AllowedIp>,
}

/// Wall-clock time since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds.
    pub nsec: i64,
}

/// A prefix; host bits are kept as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AllowedIp {
    /// Its address.
    pub addr: IpAddr,
    /// Its length in bits, at most 32 or 128.
    pub cidr: u8,
}

impl AllowedIp {
    /// Whether bits are set that the prefix length masks away.
    pub fn has_host_bits(&self) -> bool {
        match self.addr {
            IpAddr::V4(addr) => addr
                .to_bits()
                .checked_shl(self.cidr.into())
                .is_some_and(|host| host != 0),
            IpAddr::V6(addr) => addr
                .to_bits()
                .checked_shl(self.cidr.into())
                .is_some_and(|host| host != 0),
        }
    }
}

impl fmt::Display for AllowedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", ShownIp(self.addr), self.cidr)
    }
}

/// A change to a device. `None` and empty lists leave things as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetDevice {
    /// The private key; the zero key removes it.
    pub private_key: Option<SecretKey>,
    /// UDP port; 0 lets the kernel choose.
    pub listen_port: Option<u16>,
    /// Mark of outgoing packets; 0 switches it off.
    pub fwmark: Option<u32>,
    /// Remove all other peers first.
    pub replace_peers: bool,
    /// Changes to peers, in this order.
    pub peers: Vec<SetPeer>,
}

impl SetDevice {
    /// What `setconf` starts from: the file describes the whole device, and what it leaves out is
    /// reset.
    pub fn whole() -> Self {
        Self {
            private_key: Some(SecretKey::default()),
            listen_port: Some(0),
            fwmark: Some(0),
            replace_peers: true,
            peers: Vec::new(),
        }
    }
}

/// A change to a peer, or a new peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetPeer {
    /// Which peer.
    pub public_key: PublicKey,
    /// Remove the peer.
    pub remove: bool,
    /// Do nothing if the peer does not exist.
    pub update_only: bool,
    /// The preshared key; the zero key removes it.
    pub preshared_key: Option<SecretKey>,
    /// Where to send packets to.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between persistent keepalives; 0 switches them off.
    pub persistent_keepalive: Option<u16>,
    /// Remove all other allowed IPs first.
    pub replace_allowed_ips: bool,
    /// Changes to allowed IPs, in this order.
    pub allowed_ips: Vec<SetAllowedIp>,
}

/// An allowed IP to add or to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetAllowedIp {
    /// Which.
    pub ip: AllowedIp,
    /// Remove it from this peer.
    pub remove: bool,
}

/// An address as the C library writes it, which differs from Rust in `::1.2.3.4`.
#[derive(Clone, Copy, Debug)]
pub struct ShownIp(pub IpAddr);

impl fmt::Display for ShownIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(addr) => addr.fmt(f),
            IpAddr::V6(addr) => match addr.segments() {
                [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
                    write!(
                        f,
                        "::{}",
                        Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low))
                    )
                }
                _ => addr.fmt(f),
            },
        }
    }
}

/// An endpoint as the C library writes it: with the interface's name where an IPv6 address has a
/// scope.
#[derive(Clone, Copy, Debug)]
pub struct ShownEndpoint(pub SocketAddr);

impl fmt::Display for ShownEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SocketAddr::V4(addr) => addr.fmt(f),
            SocketAddr::V6(addr) => {
                write!(f, "[{}", ShownIp((*addr.ip()).into()))?;
                match addr.scope_id() {
                    0 => {}
                    scope => match link_name(addr.ip(), scope) {
                        Some(name) => write!(f, "%{name}")?,
                        None => write!(f, "%{scope}")?,
                    },
                }
                write!(f, "]:{}", addr.port())
            }
        }
    }
}

/// The name of the link that a scope stands for; only link-local addresses have one.
fn link_name(addr: &Ipv6Addr, scope: u32) -> Option<String> {
    let link_local = addr.is_unicast_link_local() || addr.segments()[0] & 0xff0f == 0xff02;
    link_local
        .then(|| if_indextoname(scope).ok()?.into_string().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_look_as_in_c() {
        for (text, shown) in [
            ("::1.2.3.4", "::1.2.3.4"),
            ("::1:0", "::0.1.0.0"),
            ("::1", "::1"),
            ("::", "::"),
            ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
            ("::ffff:0:0", "::ffff:0.0.0.0"),
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            ("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(ShownIp(text.parse().unwrap()).to_string(), shown);
        }
    }

    #[test]
    fn endpoints_look_as_in_c() {
        for text in [
            "192.0.2.1:80",
            "[2001:db8::1]:51820",
            "[::1.2.3.4]:1",
            "[fe80::1%1]:2",
        ] {
            let shown = ShownEndpoint(text.parse().unwrap()).to_string();
            assert_eq!(shown, text.replace("%1", "%lo"));
        }
        assert_eq!(
            ShownEndpoint("[2001:db8::1%1]:2".parse().unwrap()).to_string(),
            "[2001:db8::1%1]:2"
        );
    }

    #[test]
    fn finds_host_bits() {
        for (addr, cidr, expected) in [
            ("10.0.0.0", 8, false),
            ("10.0.0.1", 8, true),
            ("10.0.0.1", 32, false),
            ("0.0.0.0", 0, false),
            ("0.0.0.1", 0, true),
        ] {
            assert_eq!(
                AllowedIp {
                    addr: addr.parse().unwrap(),
                    cidr
                }
                .has_host_bits(),
                expected,
                "{addr}/{cidr}"
            );
        }
        for (addr, cidr, expected) in [
            ("2001:db8::", 32, false),
            ("2001:db8::1", 127, true),
            ("2001:db8::1", 128, false),
        ] {
            assert_eq!(
                AllowedIp {
                    addr: addr.parse().unwrap(),
                    cidr
                }
                .has_host_bits(),
                expected,
                "{addr}/{cidr}"
            );
        }
    }
}
