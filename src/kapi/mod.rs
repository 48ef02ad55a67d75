// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over kernel APIs that the `kernel` crate does not have yet.
//!
//! All `unsafe` code of the module is here and in [`crate::bindings`]. The tree mirrors
//! `rust/kernel/`, so that each file could become a patch there.

#![allow(unsafe_code)]

pub mod sync;

/// Allocation flags and errors, by the names that `tables/` uses on the host too.
pub mod alloc {
    pub use kernel::alloc::flags::{GFP_ATOMIC, GFP_KERNEL};
    pub use kernel::alloc::{AllocError, Flags};
}
