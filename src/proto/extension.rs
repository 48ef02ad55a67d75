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

/// Commands. All need an index or a name of an interface.
pub mod cmd {
    /// Dump the options of an interface.
    pub const OPTIONS_GET: u8 = 1;
    /// Change those that are given.
    pub const OPTIONS_SET: u8 = 2;
    /// Dump peers, with their counters: all, one, or those that have changed.
    pub const PEERS_GET: u8 = 3;
    /// Change an interface and its peers, as a whole or not at all: as `SET_DEVICE` of the other
    /// family, but the list of peers may be in several attributes, whose length is limited.
    pub const SET: u8 = 4;
}

/// Attributes of an interface, in requests for its peers and in the answers. The first are those of
/// [`uapi::device`](super::uapi::device).
pub mod device {
    /// u32.
    pub const IFINDEX: u16 = 1;
    /// String.
    pub const IFNAME: u16 = 2;
    /// 32 bytes, to be set; zeros remove the key.
    pub const PRIVATE_KEY: u16 = 3;
    /// u32, to be set: [`F_REPLACE_PEERS`](super::super::uapi::device::F_REPLACE_PEERS).
    pub const FLAGS: u16 = 5;
    /// u16; 0, to be set, picks one.
    pub const LISTEN_PORT: u16 = 6;
    /// u32, to be set; 0 disables it.
    pub const FWMARK: u16 = 7;
    /// A list of nests of [`super::peer`] attributes. There may be several.
    pub const PEERS: u16 = 8;
    /// u32, in a request: what to tell of peers, see [`super::show`]; all if absent.
    pub const SHOW: u16 = 9;
    /// 32 bytes, in a request: tell of the peer with this public key alone.
    pub const PEER: u16 = 10;
    /// u32, in a request: tell of peers alone whose settings have changed since this generation.
    pub const CHANGED_SINCE: u16 = 11;
    /// u32: the generation of the settings; changes with them, and is never 0.
    pub const GENERATION: u16 = 12;
    /// u32: the generation in which a peer was last removed; absent if none was.
    pub const REMOVED_IN: u16 = 13;
    /// u64: cookie replies that were sent.
    pub const COOKIES_SENT: u16 = 14;
    /// A nest of u64: what was refused or lost, by reason. The type of each is one more than
    /// [`Rejection::index`](super::Rejection::index); those that are 0 are absent.
    pub const REFUSED: u16 = 15;
    /// No content, aligns what follows.
    pub const PAD: u16 = 16;
}

/// Attributes of an allowed IP: those of [`uapi::allowedip`](super::uapi::allowedip).
pub mod allowedip {
    /// u16: `AF_INET` or `AF_INET6`.
    pub const FAMILY: u16 = 1;
    /// An `in_addr` or `in6_addr`.
    pub const IPADDR: u16 = 2;
    /// u8.
    pub const CIDR_MASK: u16 = 3;
    /// u32, to be set: [`F_REMOVE_ME`](super::super::uapi::allowedip::F_REMOVE_ME).
    pub const FLAGS: u16 = 4;
}

/// What a request for peers wants to know of each, beside the public key.
pub mod show {
    /// What can be set but for the allowed IPs, and the protocol version; of the interface, the
    /// port that it listens on.
    pub const SETTINGS: u32 = 1;
    /// The allowed IPs.
    pub const ALLOWED_IPS: u32 = 2;
    /// The time of the last handshake, and all counters.
    pub const COUNTERS: u32 = 4;
}

/// Attributes of a peer. The first are those of [`uapi::peer`](super::uapi::peer). Counters that
/// are 0 are absent.
pub mod peer {
    /// 32 bytes.
    pub const PUBLIC_KEY: u16 = 1;
    /// 32 bytes.
    pub const PRESHARED_KEY: u16 = 2;
    /// u32, to be set: the `F_` constants of [`uapi::peer`](super::super::uapi::peer).
    pub const FLAGS: u16 = 3;
    /// A `sockaddr_in` or `sockaddr_in6`.
    pub const ENDPOINT: u16 = 4;
    /// u16, seconds; 0 for none.
    pub const PERSISTENT_KEEPALIVE_INTERVAL: u16 = 5;
    /// A `__kernel_timespec`; absent before the first.
    pub const LAST_HANDSHAKE_TIME: u16 = 6;
    /// u64: bytes of messages that were accepted.
    pub const RX_BYTES: u16 = 7;
    /// u64: bytes of messages that were sent.
    pub const TX_BYTES: u16 = 8;
    /// A list of nests of [`super::allowedip`] attributes.
    pub const ALLOWEDIPS: u16 = 9;
    /// u32.
    pub const PROTOCOL_VERSION: u16 = 10;
    /// u64: messages that were accepted, keepalives and handshake messages included.
    pub const RX_PACKETS: u16 = 11;
    /// u64: messages that were sent, keepalives and handshake messages included.
    pub const TX_PACKETS: u16 = 12;
    /// u64: initiations that were sent.
    pub const INITIATIONS_SENT: u16 = 13;
    /// u64: initiations that were accepted.
    pub const INITIATIONS_RECEIVED: u16 = 14;
    /// u64: responses that were sent.
    pub const RESPONSES_SENT: u16 = 15;
    /// u64: responses that were accepted: completed handshakes that we began.
    pub const RESPONSES_RECEIVED: u16 = 16;
    /// u64: cookie replies that were accepted.
    pub const COOKIES_RECEIVED: u16 = 17;
    /// u64: keepalives that were accepted.
    pub const KEEPALIVES_RECEIVED: u16 = 18;
    /// u64: initiations that were sent because there was no response to the one before.
    pub const RETRIES: u16 = 19;
    /// u64: times that the peer has roamed: a message of it came from elsewhere.
    pub const ENDPOINT_CHANGES: u16 = 20;
    /// As [`super::device::REFUSED`].
    pub const REFUSED: u16 = 21;
    /// No content, aligns what follows.
    pub const PAD: u16 = 22;
    /// u8: 1 if the peer is only where it was said to be and does not roam, else 0.
    pub const FIXED_ENDPOINT: u16 = 23;
    /// u16: after how many seconds without data from the peer an event tells of it; 0 for never.
    pub const SILENCE: u16 = 24;
}

/// Attributes of commands.
pub mod options {
    /// u32.
    pub const IFINDEX: u16 = 1;
    /// String.
    pub const IFNAME: u16 = 2;
    /// u8: 1 if messages may be sent together, with UDP segmentation offload, else 0.
    pub const UDP_GSO: u16 = 3;
    /// u8: 1 if the DSCP of a packet is copied to the message that it travels in, else 0.
    pub const COPY_DSCP: u16 = 4;
    /// u8: 1 if a handshake begins as soon as a peer's endpoint is set, else 0.
    pub const EAGER_HANDSHAKE: u16 = 5;
    /// String: the only interface that messages come and go by, or a VRF; empty for any.
    pub const BIND_INTERFACE: u16 = 6;
    /// An `in_addr`: the only IPv4 address that messages are for and from; zeros for any.
    pub const BIND_ADDRESS4: u16 = 7;
    /// An `in6_addr`: the same of IPv6. If there is one of IPv4 alone, IPv6 is not used, and the
    /// other way round.
    pub const BIND_ADDRESS6: u16 = 8;
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
    /// Nothing but keepalives and handshake messages came from a peer for the time set for it.
    pub const PEER_SILENT: u8 = 42;
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
    /// u32.
    pub const SECONDS: u16 = 13;
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
    /// Whether the DSCP is copied.
    pub const COPY_DSCP: u32 = 256;
    /// Whether handshakes begin at once.
    pub const EAGER_HANDSHAKE: u32 = 512;
    /// Whether the endpoint is fixed.
    pub const FIXED_ENDPOINT: u32 = 1024;
    /// After what time a silent peer is told of.
    pub const SILENCE: u32 = 2048;
    /// What the sockets are bound to.
    pub const BINDING: u32 = 4096;
}
