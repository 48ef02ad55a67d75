// SPDX-License-Identifier: GPL-2.0-only

//! Safe abstractions over kernel APIs that the `kernel` crate does not have yet.
//!
//! All `unsafe` code of the module is here and in [`crate::bindings`]. The layout follows
//! `rust/kernel/`, so that each file could become a patch there.

#![allow(unsafe_code)]

pub mod cpu;
pub mod crypto;
pub mod debug;
pub mod mm;
pub mod net;
pub mod notifier;
pub mod random;
pub mod siphash;
pub mod sync;
pub mod time;
pub mod timer;
pub mod trace;
pub mod workqueue;

/// Allocation, under the names that `tables/` uses on the host too.
pub mod alloc {
    pub use kernel::alloc::{AllocError, Flags, KBox, KVVec};
    pub use kernel::init::InPlaceInit;
}

/// Red-black trees, under the names that `tables/` uses on the host too.
pub mod rbtree {
    pub use kernel::rbtree::{CursorMut, RBTree, RBTreeNode};
}

/// Whether `part` lies within `whole`, and therefore lives exactly as long.
#[inline(always)]
fn within<P, W>(part: &P, whole: &W) -> bool {
    let offset = core::ptr::from_ref(part)
        .addr()
        .wrapping_sub(core::ptr::from_ref(whole).addr());
    offset < size_of::<W>() && size_of::<P>() <= size_of::<W>().wrapping_sub(offset)
}
