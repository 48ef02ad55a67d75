// SPDX-License-Identifier: GPL-2.0-only

//! Caches of the route to one destination.
//!
//! C header: [`include/net/dst_cache.h`](srctree/include/net/dst_cache.h)

use kernel::{alloc::flags::GFP_KERNEL, error::to_result, prelude::*};

use super::route::{be32, Route4, Route6};
use crate::{
    bindings,
    kapi::sync::{bh::BhGuard, spinlock_bh::SpinLockBh},
    new_spinlock_bh,
};

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
        // SAFETY: The cache is initialised by the type invariant, and nobody uses it any more.
        unsafe { bindings::dst_cache_destroy(&raw mut self.0) };
    }
}

/// The route to one destination, kept for each CPU until it becomes invalid.
///
/// A cached route holds a reference to its device; [`DstCache::reset_now`] drops it.
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

    /// Invalidates the routes of all CPUs, which look them up again at next use.
    pub fn reset(&self) {
        let mut cache = self.cache.lock();
        // SAFETY: The cache is initialised by the type invariant of `Cache`.
        unsafe { bindings::wg_dst_cache_reset(&raw mut cache.0) };
    }

    /// Empties the cache.
    pub fn reset_now(&self) {
        let mut cache = self.cache.lock();
        // SAFETY: The cache is initialised by the type invariant of `Cache`; the lock keeps others
        // out, as C requires.
        unsafe { bindings::dst_cache_reset_now(&raw mut cache.0) };
    }

    /// This CPU's route, if there is a valid one to an IPv4 address.
    #[inline]
    pub fn v4<'a>(&self, _bh: &'a BhGuard) -> Option<Route4<'a>> {
        let mut source = 0;
        let rt = {
            let mut cache = self.cache.lock();
            // SAFETY: The cache is initialised by the type invariant of `Cache`; BH is disabled.
            unsafe { bindings::dst_cache_get_ip4(&raw mut cache.0, &mut source) }
        };
        // SAFETY: The cache gives a reference; BH is disabled during `'a`.
        (!rt.is_null()).then(|| unsafe { Route4::from_raw(rt, source.to_ne_bytes().into()) })
    }

    /// Caches a route for this CPU.
    #[inline]
    pub fn set_v4(&self, route: &Route4<'_>) {
        let mut cache = self.cache.lock();
        // SAFETY: The cache is initialised by the type invariant of `Cache`, the route is valid by
        // its own; the cache takes a reference of its own.
        unsafe {
            bindings::wg_dst_cache_set4(&raw mut cache.0, route.as_raw(), be32(route.source()));
        }
    }

    /// This CPU's route, if there is a valid one to an IPv6 address.
    #[inline]
    pub fn v6<'a>(&self, _bh: &'a BhGuard) -> Option<Route6<'a>> {
        let mut source = bindings::in6_addr::default();
        let dst = {
            let mut cache = self.cache.lock();
            // SAFETY: The cache is initialised by the type invariant of `Cache`; BH is disabled.
            unsafe { bindings::dst_cache_get_ip6(&raw mut cache.0, &mut source) }
        };
        // SAFETY: The cache gives a reference; BH is disabled during `'a`.
        (!dst.is_null()).then(|| unsafe { Route6::from_raw(dst, source) })
    }

    /// Caches a route for this CPU.
    #[inline]
    pub fn set_v6(&self, route: &Route6<'_>) {
        let mut cache = self.cache.lock();
        // SAFETY: The cache is initialised by the type invariant of `Cache`, the route is valid by
        // its own; the cache takes a reference of its own.
        unsafe {
            bindings::dst_cache_set_ip6(&raw mut cache.0, route.as_raw(), route.source());
        }
    }
}
