// SPDX-License-Identifier: GPL-2.0-only

//! Every constant of the protocol, from the whitepaper (sections 5.4 and 6). Where the whitepaper
//! leaves the choice open, the value is that of Linux's in-tree driver.
//!
//! Units are in the names: `_NS` nanoseconds, `_MS` milliseconds. Ages are compared in
//! nanoseconds, timers are armed in milliseconds.

/// Nanoseconds in a millisecond.
pub const NS_PER_MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const NS_PER_SEC: u64 = 1_000_000_000;
/// Milliseconds in a second.
pub const MS_PER_SEC: u32 = 1_000;

/// Size of a Curve25519 private or public key, in bytes.
pub const KEY_LEN: usize = 32;
/// Size of a BLAKE2s hash, in bytes.
pub const HASH_LEN: usize = 32;
/// Size of a Poly1305 tag, in bytes.
pub const TAG_LEN: usize = 16;
/// Size of a TAI64N timestamp, in bytes.
pub const TIMESTAMP_LEN: usize = 12;
/// Size of mac1, mac2 and of a cookie, in bytes.
pub const COOKIE_LEN: usize = 16;
/// Size of an XChaCha20-Poly1305 nonce, in bytes.
pub const XNONCE_LEN: usize = 24;

/// Transport data is padded to a multiple of this many bytes.
pub const PADDING_MULTIPLE: usize = 16;

/// The age at which the initiator of a session starts a new handshake when it sends.
pub const REKEY_AFTER_TIME_NS: u64 = 120 * NS_PER_SEC;
/// The age at which the initiator of a session starts a new handshake when it receives: late
/// enough that sending would normally have done it, early enough to finish before the end.
pub const REKEY_ON_RECEIVE_NS: u64 =
    REJECT_AFTER_TIME_NS - (KEEPALIVE_TIMEOUT_MS as u64 + REKEY_TIMEOUT_MS as u64) * NS_PER_MS;
/// The age from which a session neither sends nor receives.
pub const REJECT_AFTER_TIME_NS: u64 = 180 * NS_PER_SEC;
/// A new handshake starts once more than this many messages were sent.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// No message with this counter or a greater one is sent or accepted.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - REPLAY_WINDOW - 1;

/// How far a counter may lie behind the greatest one accepted.
pub const REPLAY_WINDOW: u64 = REPLAY_BITS - u64::BITS as u64;
/// Bits in the replay bitmap; one word of them is always redundant (RFC 6479).
pub const REPLAY_BITS: u64 = 8192;

/// An initiation that stays unanswered for this long is retried. Also the minimum time between
/// two initiations to the same peer.
pub const REKEY_TIMEOUT_MS: u32 = 5 * MS_PER_SEC;
/// [`REKEY_TIMEOUT_MS`] in nanoseconds.
pub const REKEY_TIMEOUT_NS: u64 = REKEY_TIMEOUT_MS as u64 * NS_PER_MS;
/// Exclusive upper bound of the jitter added to the handshake timers.
pub const REKEY_TIMEOUT_JITTER_MAX_MS: u32 = 333;
/// How long initiations are retried before giving up.
pub const REKEY_ATTEMPT_TIME_MS: u32 = 90 * MS_PER_SEC;
/// Initiations sent in one series of attempts: the first, [`REKEY_ATTEMPT_TIME_MS`] /
/// [`REKEY_TIMEOUT_MS`] retries, and one more because the in-tree driver compares with `>`.
pub const MAX_INITIATIONS: u32 = REKEY_ATTEMPT_TIME_MS / REKEY_TIMEOUT_MS + 2;
/// Send a keepalive when data was received and nothing was sent for this long.
pub const KEEPALIVE_TIMEOUT_MS: u32 = 10 * MS_PER_SEC;
/// Start a new handshake when data was sent and nothing was received for this long.
pub const NEW_HANDSHAKE_TIMEOUT_MS: u32 = KEEPALIVE_TIMEOUT_MS + REKEY_TIMEOUT_MS;
/// Erase all keys when no new session was established for this long.
pub const ZERO_KEY_MATERIAL_MS: u32 = 3 * 180 * MS_PER_SEC;

/// Initiations accepted from one peer per second.
pub const INITIATIONS_PER_SECOND: u64 = 50;
/// Minimum time between two accepted initiations from one peer.
pub const INITIATION_INTERVAL_NS: u64 = NS_PER_SEC / INITIATIONS_PER_SECOND;

/// The cookie secret is replaced at this age.
pub const COOKIE_SECRET_MAX_AGE_NS: u64 = 120 * NS_PER_SEC;
/// How long a received cookie is used: slightly less than the lifetime of the secret behind it.
pub const COOKIE_MAX_AGE_NS: u64 = COOKIE_SECRET_MAX_AGE_NS - 5 * NS_PER_SEC;

/// Maximum number of queued incoming handshake messages.
pub const MAX_QUEUED_HANDSHAKES: u32 = 4096;
/// We are under load while at least this many handshake messages are queued.
pub const UNDER_LOAD_HANDSHAKES: u32 = MAX_QUEUED_HANDSHAKES / 8;
/// We stay under load for this long after the queue was last that full.
pub const UNDER_LOAD_HOLD_NS: u64 = NS_PER_SEC;

/// Packets that may be staged for a session before the oldest is dropped.
pub const MAX_STAGED_PACKETS: usize = 128;
/// Maximum number of packets or runs in one queue of the data path.
pub const MAX_QUEUED_PACKETS: usize = 1024;
/// Maximum number of peers of one interface.
pub const MAX_PEERS: usize = 1 << 20;

/// Type of service of initiations and responses (AF41); a cookie reply has 0.
pub const HANDSHAKE_TOS: u8 = 0x88;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_values() {
        assert_eq!(REKEY_ON_RECEIVE_NS, 165 * NS_PER_SEC);
        assert_eq!(REJECT_AFTER_MESSAGES, 0xffff_ffff_ffff_ffff - 8129);
        assert_eq!(REPLAY_WINDOW, 8128);
        assert_eq!(MAX_INITIATIONS, 20);
        assert_eq!(NEW_HANDSHAKE_TIMEOUT_MS, 15_000);
        assert_eq!(ZERO_KEY_MATERIAL_MS, 540_000);
        assert_eq!(UNDER_LOAD_HANDSHAKES, 512);
        assert_eq!(INITIATION_INTERVAL_NS, 20 * NS_PER_MS);
        assert_eq!(COOKIE_MAX_AGE_NS, 115 * NS_PER_SEC);
    }
}
