// SPDX-License-Identifier: GPL-2.0

//! Why a packet was not accepted or not sent.

/// The reason for a rejection. Every function of [`crate::proto`] that refuses something says so
/// with one of these; the driver turns them into counters and debug lines, never into an answer
/// on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Drop {
    /// The message type is unknown or a reserved byte is not zero.
    UnknownType,
    /// The length is not the one that the message type has.
    BadLength,
    /// The interface has no private key, or the private key is all zeros.
    NoIdentity,
    /// The system's random number generator is not ready.
    NotReady,
    /// A queue of incoming or outgoing work is full.
    QueueFull,
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
    /// The timestamp does not authenticate.
    InvalidTimestamp,
    /// The timestamp is not greater than the greatest one seen: a replay.
    ReplayedInitiation,
    /// Another initiation of this peer was accepted a moment ago.
    InitiationFlood,
    /// No handshake or session has this receiver index.
    UnknownIndex,
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
    /// There is no session.
    NoSession,
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
    /// No peer has the inner destination among its allowed IPs.
    NoAllowedIp,
    /// The peer has no endpoint yet.
    NoEndpoint,
    /// Too many packets wait for a session: the oldest went.
    StagedOverflow,
    /// The packets that waited for a session went, because none could be made.
    StagedPurged,
    /// The peer or the interface is going away.
    GoingAway,
    /// No memory.
    NoMemory,
}

impl Drop {
    /// Every reason, in the order of [`Drop::index`].
    pub const ALL: [Drop; Drop::COUNT] = [
        Drop::UnknownType,
        Drop::BadLength,
        Drop::NoIdentity,
        Drop::NotReady,
        Drop::QueueFull,
        Drop::InvalidMac1,
        Drop::CookieRequired,
        Drop::RateLimited,
        Drop::LowOrderPoint,
        Drop::InvalidStatic,
        Drop::UnknownPeer,
        Drop::InvalidTimestamp,
        Drop::ReplayedInitiation,
        Drop::InitiationFlood,
        Drop::UnknownIndex,
        Drop::WrongState,
        Drop::Superseded,
        Drop::InvalidResponse,
        Drop::UnexpectedCookie,
        Drop::InvalidCookie,
        Drop::NoSession,
        Drop::KeyExpired,
        Drop::CounterExhausted,
        Drop::InvalidData,
        Drop::ReplayedData,
        Drop::InvalidInner,
        Drop::SourceNotAllowed,
        Drop::NoAllowedIp,
        Drop::NoEndpoint,
        Drop::StagedOverflow,
        Drop::StagedPurged,
        Drop::GoingAway,
        Drop::NoMemory,
    ];

    /// How many reasons there are: the length of an array of counters.
    pub const COUNT: usize = 33;

    /// A dense number from 0 to [`Drop::COUNT`] - 1, for an array of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Plain words for a debug line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Drop::UnknownType => "unknown message type",
            Drop::BadLength => "wrong message length",
            Drop::NoIdentity => "no private key",
            Drop::NotReady => "random number generator not ready",
            Drop::QueueFull => "queue full",
            Drop::InvalidMac1 => "invalid mac1",
            Drop::CookieRequired => "under load: cookie required",
            Drop::RateLimited => "rate limited",
            Drop::LowOrderPoint => "public key of low order",
            Drop::InvalidStatic => "static key does not authenticate",
            Drop::UnknownPeer => "unknown peer",
            Drop::InvalidTimestamp => "timestamp does not authenticate",
            Drop::ReplayedInitiation => "replayed initiation",
            Drop::InitiationFlood => "initiation flood",
            Drop::UnknownIndex => "unknown receiver index",
            Drop::WrongState => "no such handshake in progress",
            Drop::Superseded => "handshake superseded",
            Drop::InvalidResponse => "response does not authenticate",
            Drop::UnexpectedCookie => "unexpected cookie reply",
            Drop::InvalidCookie => "cookie reply does not authenticate",
            Drop::NoSession => "no session",
            Drop::KeyExpired => "key expired",
            Drop::CounterExhausted => "message counter exhausted",
            Drop::InvalidData => "data does not authenticate",
            Drop::ReplayedData => "replayed data",
            Drop::InvalidInner => "invalid inner packet",
            Drop::SourceNotAllowed => "inner source address not allowed",
            Drop::NoAllowedIp => "no peer for destination address",
            Drop::NoEndpoint => "no endpoint",
            Drop::StagedOverflow => "too many packets staged",
            Drop::StagedPurged => "staged packets purged",
            Drop::GoingAway => "going away",
            Drop::NoMemory => "out of memory",
        }
    }
}

impl core::fmt::Display for Drop {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_dense_and_words_differ() {
        for (i, reason) in Drop::ALL.iter().enumerate() {
            assert_eq!(reason.index(), i);
            for other in &Drop::ALL[..i] {
                assert_ne!(reason.as_str(), other.as_str());
            }
        }
        assert_eq!(Drop::NoMemory.index() + 1, Drop::COUNT);
    }
}
