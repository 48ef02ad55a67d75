// SPDX-License-Identifier: GPL-2.0-only

//! Why a packet was not accepted or not sent.

/// The reason for a rejection. Every function of [`crate::proto`] that refuses something says so
/// with one of these; the driver turns them into counters and debug lines, never into an answer
/// on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Rejection {
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

impl Rejection {
    /// Every reason, in the order of [`Rejection::index`].
    pub const ALL: [Rejection; Rejection::COUNT] = [
        Rejection::UnknownType,
        Rejection::BadLength,
        Rejection::NoIdentity,
        Rejection::NotReady,
        Rejection::QueueFull,
        Rejection::InvalidMac1,
        Rejection::CookieRequired,
        Rejection::RateLimited,
        Rejection::LowOrderPoint,
        Rejection::InvalidStatic,
        Rejection::UnknownPeer,
        Rejection::InvalidTimestamp,
        Rejection::ReplayedInitiation,
        Rejection::InitiationFlood,
        Rejection::UnknownIndex,
        Rejection::WrongState,
        Rejection::Superseded,
        Rejection::InvalidResponse,
        Rejection::UnexpectedCookie,
        Rejection::InvalidCookie,
        Rejection::NoSession,
        Rejection::KeyExpired,
        Rejection::CounterExhausted,
        Rejection::InvalidData,
        Rejection::ReplayedData,
        Rejection::InvalidInner,
        Rejection::SourceNotAllowed,
        Rejection::NoAllowedIp,
        Rejection::NoEndpoint,
        Rejection::StagedOverflow,
        Rejection::StagedPurged,
        Rejection::GoingAway,
        Rejection::NoMemory,
    ];

    /// How many reasons there are: the length of an array of counters.
    pub const COUNT: usize = 33;

    /// A dense number from 0 to [`Rejection::COUNT`] - 1, for an array of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Plain words for a debug line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Rejection::UnknownType => "unknown message type",
            Rejection::BadLength => "wrong message length",
            Rejection::NoIdentity => "no private key",
            Rejection::NotReady => "random number generator not ready",
            Rejection::QueueFull => "queue full",
            Rejection::InvalidMac1 => "invalid mac1",
            Rejection::CookieRequired => "under load: cookie required",
            Rejection::RateLimited => "rate limited",
            Rejection::LowOrderPoint => "public key of low order",
            Rejection::InvalidStatic => "static key does not authenticate",
            Rejection::UnknownPeer => "unknown peer",
            Rejection::InvalidTimestamp => "timestamp does not authenticate",
            Rejection::ReplayedInitiation => "replayed initiation",
            Rejection::InitiationFlood => "initiation flood",
            Rejection::UnknownIndex => "unknown receiver index",
            Rejection::WrongState => "no such handshake in progress",
            Rejection::Superseded => "handshake superseded",
            Rejection::InvalidResponse => "response does not authenticate",
            Rejection::UnexpectedCookie => "unexpected cookie reply",
            Rejection::InvalidCookie => "cookie reply does not authenticate",
            Rejection::NoSession => "no session",
            Rejection::KeyExpired => "key expired",
            Rejection::CounterExhausted => "message counter exhausted",
            Rejection::InvalidData => "data does not authenticate",
            Rejection::ReplayedData => "replayed data",
            Rejection::InvalidInner => "invalid inner packet",
            Rejection::SourceNotAllowed => "inner source address not allowed",
            Rejection::NoAllowedIp => "no peer for destination address",
            Rejection::NoEndpoint => "no endpoint",
            Rejection::StagedOverflow => "too many packets staged",
            Rejection::StagedPurged => "staged packets purged",
            Rejection::GoingAway => "going away",
            Rejection::NoMemory => "out of memory",
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
            for other in &Rejection::ALL[..i] {
                assert_ne!(reason.as_str(), other.as_str());
            }
        }
        assert_eq!(Rejection::NoMemory.index() + 1, Rejection::COUNT);
    }
}
