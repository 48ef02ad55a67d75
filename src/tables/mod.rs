// SPDX-License-Identifier: GPL-2.0-only

//! The driver's lookup tables and queues, in safe Rust over [`crate::kapi`].
//!
//! Readers of the tables run under RCU and take no lock. Writers are serialised by each table: the
//! allowed-IPs trie has one [`allowedips::AllowedIpsWriter`], the hash tables and the rate limiter
//! lock internally. All of them allocate before they change anything, so a failed allocation
//! changes nothing.

#![forbid(unsafe_code)]

pub mod allowedips;
pub mod cpulists;
pub mod fairqueue;
mod hashtable;
pub mod peerlookup;
pub mod ratelimiter;
pub mod runqueue;
pub mod turns;
