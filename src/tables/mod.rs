// SPDX-License-Identifier: GPL-2.0

//! The driver's lookup tables and run queues, in safe Rust over [`crate::kapi`].
//!
//! Readers of the tables run under RCU and take no lock. Each table says how its writers are kept
//! apart: the allowed-IPs trie has one [`allowedips::AllowedIpsWriter`], the hash tables and the
//! rate limiter lock internally. All of them allocate before they change anything, so that running
//! out of memory changes nothing.

#![forbid(unsafe_code)]

pub mod allowedips;
mod hashtable;
pub mod peerlookup;
pub mod ratelimiter;
pub mod runqueue;
