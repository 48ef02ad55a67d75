// SPDX-License-Identifier: GPL-2.0-only

//! Why a packet was not accepted or not sent.

/// The reason for a rejection. Every function of [`crate::proto`] that refuses something says so
/// with one of these; the driver turns them into counters and debug lines, never into an answer
/// on the wire.
///
/// The order is that of the counters: first the reasons that a peer can have, of what is received
/// and then of what is sent; then those of an interface alone, again in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Rejection {
    /// The session's key is too old or was stopped.
    KeyExpired,
    /// The session's message counter has reached its limit.
    CounterExhausted,
    /// The transport data does not authenticate.
    InvalidData,
    /// The counter was seen before or lies behind the window: a replay.
    ReplayedData,
    /// The decrypted packet is not IP, or its length is false.
    InvalidInner,
    /// The inner source address is not among the allowed IPs of the peer.
    SourceNotAllowed,
    /// Too many messages wait to be decrypted.
    DecryptQueueFull,
    /// Too many accepted packets wait for the network stack.
    DeliveryQueueFull,
    /// The timestamp does not authenticate.
    InvalidTimestamp,
    /// The timestamp is not greater than the greatest one seen: a replay.
    ReplayedInitiation,
    /// Another initiation of this peer was accepted a moment ago.
    InitiationFlood,
    /// The handshake slot does not hold what this step needs.
    WrongState,
    /// The handshake slot changed while this step was being computed.
    Superseded,
    /// The response does not authenticate: other keys, or another preshared key.
    InvalidResponse,
    /// A cookie reply though we have not sent a handshake message since the last one.
    UnexpectedCookie,
    /// The cookie reply does not authenticate.
    InvalidCookie,
    /// A message came for a peer or an interface that is going away, or is down.
    GoingAway,
    /// No memory for a received message.
    NoMemory,
    /// The peer has no endpoint yet.
    NoEndpoint,
    /// A packet that stands for several cannot be taken apart.
    CannotSegment,
    /// Too many packets staged: the oldest went.
    StagedOverflow,
    /// The staged packets went: no session came, or the interface went down.
    StagedPurged,
    /// Too many packets wait to be encrypted.
    EncryptQueueFull,
    /// A packet was under way to a peer or through an interface that is going away, or is down.
    SendGoingAway,
    /// No memory to encrypt a packet.
    SendNoMemory,
    /// There is no route or no socket for a message.
    SendFailed,
    /// The message type is unknown or a reserved byte is not zero.
    UnknownType,
    /// The length is not one that the message type has.
    BadLength,
    /// The interface has no private key, or the private key is all zeros.
    NoIdentity,
    /// The system's random number generator is not ready.
    NotReady,
    /// Too many handshake messages wait; the source with most of them lost one.
    HandshakeQueueFull,
    /// The first MAC is wrong: the sender does not know our public key.
    InvalidMac1,
    /// Under load and without a valid second MAC: answered by a cookie reply.
    CookieRequired,
    /// Under load, with a valid second MAC, but more often than its source address may.
    RateLimited,
    /// A Diffie-Hellman gave zero: one of the public keys is a point of low order.
    LowOrderPoint,
    /// The sender's static key does not authenticate.
    InvalidStatic,
    /// No peer has the sender's static key.
    UnknownPeer,
    /// No handshake or session has this receiver index.
    UnknownIndex,
    /// The packet to be sent is neither IPv4 nor IPv6.
    NotIp,
    /// No peer has the inner destination among its allowed IPs.
    NoAllowedIp,
}

impl Rejection {
    /// Every reason, in the order of [`Rejection::index`].
    pub const ALL: [Rejection; Rejection::COUNT] = [
        Rejection::KeyExpired,
        Rejection::CounterExhausted,
        Rejection::InvalidData,
        Rejection::ReplayedData,
        Rejection::InvalidInner,
        Rejection::SourceNotAllowed,
        Rejection::DecryptQueueFull,
        Rejection::DeliveryQueueFull,
        Rejection::InvalidTimestamp,
        Rejection::ReplayedInitiation,
        Rejection::InitiationFlood,
        Rejection::WrongState,
        Rejection::Superseded,
        Rejection::InvalidResponse,
        Rejection::UnexpectedCookie,
        Rejection::InvalidCookie,
        Rejection::GoingAway,
        Rejection::NoMemory,
        Rejection::NoEndpoint,
        Rejection::CannotSegment,
        Rejection::StagedOverflow,
        Rejection::StagedPurged,
        Rejection::EncryptQueueFull,
        Rejection::SendGoingAway,
        Rejection::SendNoMemory,
        Rejection::SendFailed,
        Rejection::UnknownType,
        Rejection::BadLength,
        Rejection::NoIdentity,
        Rejection::NotReady,
        Rejection::HandshakeQueueFull,
        Rejection::InvalidMac1,
        Rejection::CookieRequired,
        Rejection::RateLimited,
        Rejection::LowOrderPoint,
        Rejection::InvalidStatic,
        Rejection::UnknownPeer,
        Rejection::UnknownIndex,
        Rejection::NotIp,
        Rejection::NoAllowedIp,
    ];

    /// How many reasons there are: the length of an array of counters.
    pub const COUNT: usize = 40;
    /// How many of them, the first, a peer can have.
    pub const OF_PEERS: usize = 26;

    /// A dense number from 0 to [`Rejection::COUNT`] - 1, for an array of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in the description of our netlink family.
    pub const fn name(self) -> &'static str {
        match self {
            Rejection::KeyExpired => "key-expired",
            Rejection::CounterExhausted => "counter-exhausted",
            Rejection::InvalidData => "invalid-data",
            Rejection::ReplayedData => "replayed-data",
            Rejection::InvalidInner => "invalid-inner",
            Rejection::SourceNotAllowed => "source-not-allowed",
            Rejection::DecryptQueueFull => "decrypt-queue-full",
            Rejection::DeliveryQueueFull => "delivery-queue-full",
            Rejection::InvalidTimestamp => "invalid-timestamp",
            Rejection::ReplayedInitiation => "replayed-initiation",
            Rejection::InitiationFlood => "initiation-flood",
            Rejection::WrongState => "wrong-state",
            Rejection::Superseded => "superseded",
            Rejection::InvalidResponse => "invalid-response",
            Rejection::UnexpectedCookie => "unexpected-cookie",
            Rejection::InvalidCookie => "invalid-cookie",
            Rejection::GoingAway => "going-away",
            Rejection::NoMemory => "no-memory",
            Rejection::NoEndpoint => "no-endpoint",
            Rejection::CannotSegment => "cannot-segment",
            Rejection::StagedOverflow => "staged-overflow",
            Rejection::StagedPurged => "staged-purged",
            Rejection::EncryptQueueFull => "encrypt-queue-full",
            Rejection::SendGoingAway => "send-going-away",
            Rejection::SendNoMemory => "send-no-memory",
            Rejection::SendFailed => "send-failed",
            Rejection::UnknownType => "unknown-type",
            Rejection::BadLength => "bad-length",
            Rejection::NoIdentity => "no-identity",
            Rejection::NotReady => "not-ready",
            Rejection::HandshakeQueueFull => "handshake-queue-full",
            Rejection::InvalidMac1 => "invalid-mac1",
            Rejection::CookieRequired => "cookie-required",
            Rejection::RateLimited => "rate-limited",
            Rejection::LowOrderPoint => "low-order-point",
            Rejection::InvalidStatic => "invalid-static",
            Rejection::UnknownPeer => "unknown-peer",
            Rejection::UnknownIndex => "unknown-index",
            Rejection::NotIp => "not-ip",
            Rejection::NoAllowedIp => "no-allowed-ip",
        }
    }

    /// Plain words for a debug line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Rejection::KeyExpired => "key expired",
            Rejection::CounterExhausted => "message counter exhausted",
            Rejection::InvalidData => "data does not authenticate",
            Rejection::ReplayedData => "replayed data",
            Rejection::InvalidInner => "invalid inner packet",
            Rejection::SourceNotAllowed => "inner source address not allowed",
            Rejection::DecryptQueueFull => "decryption queue full",
            Rejection::DeliveryQueueFull => "delivery queue full",
            Rejection::InvalidTimestamp => "timestamp does not authenticate",
            Rejection::ReplayedInitiation => "replayed initiation",
            Rejection::InitiationFlood => "initiation flood",
            Rejection::WrongState => "no such handshake in progress",
            Rejection::Superseded => "handshake superseded",
            Rejection::InvalidResponse => "response does not authenticate",
            Rejection::UnexpectedCookie => "unexpected cookie reply",
            Rejection::InvalidCookie => "cookie reply does not authenticate",
            Rejection::GoingAway => "going away",
            Rejection::NoMemory => "out of memory",
            Rejection::NoEndpoint => "no endpoint",
            Rejection::CannotSegment => "segmentation failed",
            Rejection::StagedOverflow => "too many packets staged",
            Rejection::StagedPurged => "staged packets purged",
            Rejection::EncryptQueueFull => "encryption queue full",
            Rejection::SendGoingAway => "going away before it was sent",
            Rejection::SendNoMemory => "out of memory to send",
            Rejection::SendFailed => "no route to the endpoint",
            Rejection::UnknownType => "unknown message type",
            Rejection::BadLength => "wrong message length",
            Rejection::NoIdentity => "no private key",
            Rejection::NotReady => "random number generator not ready",
            Rejection::HandshakeQueueFull => "handshake queue full",
            Rejection::InvalidMac1 => "invalid mac1",
            Rejection::CookieRequired => "under load: cookie required",
            Rejection::RateLimited => "rate limited",
            Rejection::LowOrderPoint => "public key of low order",
            Rejection::InvalidStatic => "static key does not authenticate",
            Rejection::UnknownPeer => "unknown peer",
            Rejection::UnknownIndex => "unknown receiver index",
            Rejection::NotIp => "neither IPv4 nor IPv6",
            Rejection::NoAllowedIp => "no peer for destination address",
        }
    }
}

impl core::fmt::Display for Rejection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_dense_and_words_differ() {
        for (i, reason) in Rejection::ALL.iter().enumerate() {
            assert_eq!(reason.index(), i);
            let mut name = String::new();
            for c in format!("{reason:?}").chars() {
                if c.is_ascii_uppercase() && !name.is_empty() {
                    name.push('-');
                }
                name.push(c.to_ascii_lowercase());
            }
            assert_eq!(reason.name(), name);
            for other in &Rejection::ALL[..i] {
                assert_ne!(reason.as_str(), other.as_str());
            }
        }
        assert_eq!(
            Rejection::ALL.last().map(|last| last.index() + 1),
            Some(Rejection::COUNT)
        );
        assert_eq!(Rejection::UnknownType.index(), Rejection::OF_PEERS);
    }
}
