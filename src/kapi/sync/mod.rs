// SPDX-License-Identifier: GPL-2.0-only

//! Synchronisation primitives.

pub mod bh;
pub mod locked_by;
pub mod rcu;
pub mod spinlock_bh;

/// Under the name that `tables/` uses on the host too.
pub use kernel::sync::Arc;

/// Atomics, under the names that `tables/` uses on the host too.
///
/// Rust's own, not the kernel's: with the kernel compiled by gcc, those would be function calls.
/// On one machine both mean the same instructions; the orderings that we use are defined by both
/// memory models in the same way.
pub mod atomic {
    pub use core::sync::atomic::{fence, AtomicU32, AtomicU64, Ordering};
}
