// SPDX-License-Identifier: GPL-2.0

//! Clocks, and giving way to others.
//!
//! C headers: [`include/linux/timekeeping.h`](srctree/include/linux/timekeeping.h),
//! [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)

use core::ptr;

use crate::bindings;

/// Nanoseconds since boot, time in suspend included, as of the last timer tick. Cheap; any context.
#[inline]
pub fn boottime_coarse_ns() -> u64 {
    // SAFETY: No requirements.
    unsafe { bindings::wg_boottime_coarse_ns() }
}

/// The wall clock: seconds and nanoseconds (below 10^9) since 1970. May jump. Any context.
pub fn real() -> (i64, u32) {
    let mut now = bindings::timespec64::default();
    // SAFETY: The pointer is valid for writes.
    unsafe { bindings::ktime_get_real_ts64(&raw mut now) };
    (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Timer ticks since shortly before boot; wraps. Compare by `wrapping_sub`. Any context.
#[inline]
pub fn jiffies() -> usize {
    // SAFETY: The variable is always there; it is volatile on the C side too.
    unsafe { ptr::read_volatile(&raw const bindings::jiffies) }
}

/// Lets other tasks run if they are waiting. Process context, no locks held.
#[inline]
pub fn cond_resched() {
    // SAFETY: Only the context matters.
    unsafe { bindings::wg_cond_resched() };
}

/// Sleeps for at least `ms` milliseconds. Process context.
pub fn sleep_ms(ms: u32) {
    // SAFETY: Only the context matters.
    unsafe { bindings::msleep(ms) };
}
