// SPDX-License-Identifier: GPL-2.0-only

//! Synchronisation primitives.

pub mod atomic;
pub mod bh;
pub mod locked_by;
pub mod rcu;
pub mod spinlock_bh;

/// Under the name that `tables/` uses on the host too.
pub use kernel::sync::Arc;
