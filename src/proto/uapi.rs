// SPDX-License-Identifier: GPL-2.0-only

//! The numbers of the generic netlink family, as in `include/uapi/linux/wireguard.h` and
//! `Documentation/netlink/specs/wireguard.yaml` of the kernel.

/// The family's name.
pub const GENL_NAME: &str = "wireguard";
/// The family's version.
pub const GENL_VERSION: u8 = 1;
/// Size of every key attribute, in bytes.
pub const KEY_LEN: usize = 32;
/// Maximum length of an interface name without the terminating NUL, in bytes.
pub const IFNAME_MAX_LEN: usize = 15;
/// Minimum size of an endpoint attribute, in bytes: a `sockaddr_in`.
pub const ENDPOINT_MIN_LEN: usize = 16;
/// Minimum size of an address attribute, in bytes: an `in_addr`.
pub const IPADDR_MIN_LEN: usize = 4;
/// Size of a `__kernel_timespec`, in bytes.
pub const TIMESPEC_LEN: usize = 16;
/// The only protocol version.
pub const PROTOCOL_VERSION: u32 = 1;

/// Commands.
pub mod cmd {
    /// Dump an interface and its peers.
    pub const GET_DEVICE: u8 = 0;
    /// Change an interface and its peers.
    pub const SET_DEVICE: u8 = 1;
    /// The greatest command.
    pub const MAX: u8 = SET_DEVICE;
}

/// Attributes of an interface.
pub mod device {
    /// u32.
    pub const IFINDEX: u16 = 1;
    /// String, at most [`super::IFNAME_MAX_LEN`] bytes.
    pub const IFNAME: u16 = 2;
    /// 32 bytes; zeros remove the key.
    pub const PRIVATE_KEY: u16 = 3;
    /// 32 bytes, in a GET only.
    pub const PUBLIC_KEY: u16 = 4;
    /// u32, see [`F_REPLACE_PEERS`].
    pub const FLAGS: u16 = 5;
    /// u16; 0 picks one.
    pub const LISTEN_PORT: u16 = 6;
    /// u32; 0 disables it.
    pub const FWMARK: u16 = 7;
    /// A list of nests of [`super::peer`] attributes.
    pub const PEERS: u16 = 8;
    /// The greatest attribute.
    pub const MAX: u16 = PEERS;

    /// Flag: remove all peers first.
    pub const F_REPLACE_PEERS: u32 = 1;
    /// All flags.
    pub const F_ALL: u32 = F_REPLACE_PEERS;
}

/// Attributes of a peer.
pub mod peer {
    /// 32 bytes.
    pub const PUBLIC_KEY: u16 = 1;
    /// 32 bytes; zeros remove it.
    pub const PRESHARED_KEY: u16 = 2;
    /// u32, see the `F_` constants.
    pub const FLAGS: u16 = 3;
    /// A `sockaddr_in` or `sockaddr_in6`.
    pub const ENDPOINT: u16 = 4;
    /// u16, seconds; 0 disables it.
    pub const PERSISTENT_KEEPALIVE_INTERVAL: u16 = 5;
    /// A `__kernel_timespec`, in a GET only.
    pub const LAST_HANDSHAKE_TIME: u16 = 6;
    /// u64, in a GET only.
    pub const RX_BYTES: u16 = 7;
    /// u64, in a GET only.
    pub const TX_BYTES: u16 = 8;
    /// A list of nests of [`super::allowedip`] attributes.
    pub const ALLOWEDIPS: u16 = 9;
    /// u32, see [`super::PROTOCOL_VERSION`].
    pub const PROTOCOL_VERSION: u16 = 10;
    /// The greatest attribute.
    pub const MAX: u16 = PROTOCOL_VERSION;

    /// Flag: remove this peer.
    pub const F_REMOVE_ME: u32 = 1;
    /// Flag: remove all allowed IPs of this peer first.
    pub const F_REPLACE_ALLOWEDIPS: u32 = 2;
    /// Flag: do nothing if there is no such peer.
    pub const F_UPDATE_ONLY: u32 = 4;
    /// All flags.
    pub const F_ALL: u32 = F_REMOVE_ME | F_REPLACE_ALLOWEDIPS | F_UPDATE_ONLY;
}

/// Attributes of an allowed IP.
pub mod allowedip {
    /// u16: `AF_INET` or `AF_INET6`.
    pub const FAMILY: u16 = 1;
    /// An `in_addr` or `in6_addr`.
    pub const IPADDR: u16 = 2;
    /// u8.
    pub const CIDR_MASK: u16 = 3;
    /// u32, see [`F_REMOVE_ME`].
    pub const FLAGS: u16 = 4;
    /// The greatest attribute.
    pub const MAX: u16 = FLAGS;

    /// Flag: remove this allowed IP.
    pub const F_REMOVE_ME: u32 = 1;
    /// All flags.
    pub const F_ALL: u32 = F_REMOVE_ME;
}
