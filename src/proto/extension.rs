// SPDX-License-Identifier: GPL-2.0-only

//! The numbers of the generic netlink family `wireguard_rs`: what this driver has and the in-tree
//! one has not. `docs/netlink/wireguard_rs.yaml` describes them; `scripts/check-rules` compares the
//! two.

/// The family's name.
pub const GENL_NAME: &str = "wireguard_rs";
/// Its name with `coexist=1`, where the first is that of the family which `wg` talks to.
pub const GENL_NAME_COEXIST: &str = "wireguard_rs_co";
/// The multicast group that events are sent to.
pub const GROUP_EVENTS: &str = "events";

/// Commands. Both need [`options::IFINDEX`] or [`options::IFNAME`].
pub mod cmd {
    /// Dump the options of an interface.
    pub const OPTIONS_GET: u8 = 1;
    /// Change those that are given.
    pub const OPTIONS_SET: u8 = 2;
}

/// Attributes of commands.
pub mod options {
    /// u32.
    pub const IFINDEX: u16 = 1;
    /// String.
    pub const IFNAME: u16 = 2;
    /// u8: 1 if messages may be sent together, with UDP segmentation offload, else 0.
    pub const UDP_GSO: u16 = 3;
}

/// Events. Every one has [`attr::IFINDEX`], [`attr::IFNAME`] and [`attr::SEQUENCE`]; those about a
/// peer also have [`attr::PUBLIC_KEY`].
pub mod event {
    /// A session has begun.
    pub const HANDSHAKE_COMPLETED: u8 = 32;
    /// There was no response to any of several initiations.
    pub const HANDSHAKE_GIVEN_UP: u8 = 33;
    /// The keys of all sessions with a peer have been erased, as there was no new one in time.
    pub const SESSION_EXPIRED: u8 = 34;
    /// A peer has another endpoint.
    pub const ENDPOINT_CHANGED: u8 = 35;
    /// A peer has been added.
    pub const PEER_ADDED: u8 = 36;
    /// A peer has been removed.
    pub const PEER_REMOVED: u8 = 37;
    /// A request has set something of a peer.
    pub const PEER_CHANGED: u8 = 38;
    /// A request has set something of an interface.
    pub const DEVICE_CHANGED: u8 = 39;
    /// An initiation came from somebody who knows our public key and is no peer. At most one each
    /// second is told of.
    pub const UNKNOWN_INITIATOR: u8 = 40;
    /// Handshake messages now need a cookie, or need none any more.
    pub const LOAD_CHANGED: u8 = 41;
}

/// Attributes of events.
pub mod attr {
    /// u32.
    pub const IFINDEX: u16 = 1;
    /// String.
    pub const IFNAME: u16 = 2;
    /// u32. Counts the interface's events; where a number is missing, an event was lost.
    pub const SEQUENCE: u16 = 3;
    /// 32 bytes.
    pub const PUBLIC_KEY: u16 = 4;
    /// A `sockaddr_in` or `sockaddr_in6`.
    pub const ENDPOINT: u16 = 5;
    /// A `sockaddr_in` or `sockaddr_in6`; absent if there was none.
    pub const OLD_ENDPOINT: u16 = 6;
    /// u32, see [`super::role`].
    pub const ROLE: u16 = 7;
    /// u64. The number of a session, the same as in debug messages.
    pub const SESSION: u16 = 8;
    /// u32. How many initiations were sent.
    pub const ATTEMPTS: u16 = 9;
    /// u32, see [`super::changed`].
    pub const CHANGED: u16 = 10;
    /// u32: 1 under load, 0 not.
    pub const UNDER_LOAD: u16 = 11;
    /// No content, aligns what follows.
    pub const PAD: u16 = 12;
}

/// Who began a handshake.
pub mod role {
    /// We did.
    pub const INITIATOR: u32 = 0;
    /// The peer did.
    pub const RESPONDER: u32 = 1;
}

/// What a request has set, be it to what it was before.
pub mod changed {
    /// The private key.
    pub const PRIVATE_KEY: u32 = 1;
    /// The listen port.
    pub const LISTEN_PORT: u32 = 2;
    /// The mark.
    pub const FWMARK: u32 = 4;
    /// The preshared key.
    pub const PRESHARED_KEY: u32 = 8;
    /// The endpoint.
    pub const ENDPOINT: u32 = 16;
    /// The persistent keepalive interval.
    pub const KEEPALIVE: u32 = 32;
    /// The allowed IPs.
    pub const ALLOWED_IPS: u32 = 64;
    /// Whether messages may be sent together.
    pub const UDP_GSO: u32 = 128;
}
