// SPDX-License-Identifier: GPL-2.0-only

//! The WireGuard protocol in plain safe Rust: no allocation, no locks, no clock, no kernel.
//!
//! Everything the protocol needs from outside is passed in: time as nanoseconds, randomness as
//! bytes, cryptography as a type that implements [`crypto::Crypto`]. The functions are pure or
//! change one plain value, so the driver chooses the locks and the host tests need none.
//!
//! # Vocabulary
//!
//! - *initiation*, *response*, *cookie reply*, *transport data*: the four messages ([`messages`]).
//! - *handshake slot*: the one handshake a peer may have in progress ([`handshake`]).
//! - *session*, *keypair*: what a finished handshake yields ([`keypair`]).
//! - *local index*, *remote index*: the 32-bit identifiers that each side chose for the session.
//! - *now*: nanoseconds of a clock that never goes back and counts suspended time (boottime).
//!
//! # Compute, then commit
//!
//! Every step that needs a Diffie-Hellman runs without a lock, on a snapshot, and returns a value
//! that the driver commits under its lock. A commit whose snapshot is out of date is refused.

pub mod consts;
pub mod cookie;
pub mod crypto;
pub mod extension;
pub mod handshake;
pub mod join;
pub mod kdf;
pub mod keypair;
pub mod messages;
pub mod noise;
pub mod packet_aead;
mod rejection;
pub mod replay;
pub mod segment;
pub mod tai64n;
pub mod timers;
pub mod uapi;

#[cfg(test)]
mod handshake_tests;
#[cfg(any(test, feature = "host-crypto"))]
pub mod host_crypto;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod sim_tests;
#[cfg(test)]
mod vectors;

pub use rejection::Rejection;
