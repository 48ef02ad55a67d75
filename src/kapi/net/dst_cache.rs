// SPDX-License-Identifier: GPL-2.0

//! Caches of the route to one destination.
//!
//! C header: [`include/net/dst_cache.h`](srctree/include/net/dst_cache.h)

use kernel::{alloc::flags::GFP_KERNEL, error::to_result, prelude::*};

use crate::{bindings, kapi::sync::spinlock_bh::SpinLockBh, new_spinlock_bh};

/// The C part.
///
/// # Invariants
///
/// The cache is initialised.
struct Cache(bindings::dst_cache);

// SAFETY: A cache is not tied to a thread or CPU.
unsafe impl Send for Cache {}

impl Drop for Cache {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, and nobody uses it any more.
        unsafe { bindings::dst_cache_destroy(&raw mut self.0) };
    }
}

/// The route to one destination, kept for each CPU until it becomes invalid.
///
/// A cached route keeps its device from going away for good: [`DstCache::reset_now`] lets go.
pub struct DstCache {
    // The lock makes `reset_now()` possible while others look up: C leaves that to its callers.
    cache: Pin<KBox<SpinLockBh<Cache>>>,
}

impl DstCache {
    /// Makes an empty cache. Process context.
    pub fn new() -> Result<Self> {
        let mut cache = bindings::dst_cache::default();
        // SAFETY: The cache may be moved: C keeps no pointer to it.
        to_result(unsafe { bindings::dst_cache_init(&raw mut cache, bindings::GFP_KERNEL) })?;
        // INVARIANT: Just initialised.
        let cache = Cache(cache);
        let cache = KBox::pin_init(new_spinlock_bh!(cache), GFP_KERNEL)?;
        Ok(Self { cache })
    }

    /// Has all CPUs look their routes up again at next use.
    pub fn reset(&self) {
        let mut cache = self.cache.lock();
        // SAFETY: By the type invariant of `Cache`.
        unsafe { bindings::wg_dst_cache_reset(&raw mut cache.0) };
    }

    /// Empties the cache.
    pub fn reset_now(&self) {
        let mut cache = self.cache.lock();
        // SAFETY: By the type invariant of `Cache`; the lock keeps others out, as C requires.
        unsafe { bindings::dst_cache_reset_now(&raw mut cache.0) };
    }

    /// Lends the cache to a function of C. BH is disabled meanwhile.
    #[inline]
    pub(super) fn with<R>(&self, f: impl FnOnce(*mut bindings::dst_cache) -> R) -> R {
        let mut cache = self.cache.lock();
        f(&raw mut cache.0)
    }
}
