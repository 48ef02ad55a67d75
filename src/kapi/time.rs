// SPDX-License-Identifier: GPL-2.0-only

//! Clocks, and rescheduling.
//!
//! C headers: [`include/linux/timekeeping.h`](srctree/include/linux/timekeeping.h),
//! [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)

use core::ptr;

use crate::bindings;

/// Nanoseconds since boot, including time in suspend, as of the last timer tick. Any context.
#[inline]
pub fn boottime_coarse_ns() -> u64 {
    // SAFETY: No requirements.
    unsafe { bindings::wg_boottime_coarse_ns() }
}

/// The wall clock: seconds and nanoseconds (below 10^9) since the Unix epoch. May jump. Any
/// context.
pub fn real() -> (i64, u32) {
    let mut now = bindings::timespec64::default();
    // SAFETY: The pointer is valid for writes.
    unsafe { bindings::ktime_get_real_ts64(&raw mut now) };
    (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Timer ticks since shortly before boot; wraps. Compare by `wrapping_sub`. Any context.
#[inline]
pub fn jiffies() -> usize {
    // SAFETY: The variable exists for as long as the kernel runs; it is volatile in C too.
    unsafe { ptr::read_volatile(&raw const bindings::jiffies) }
}

/// Reschedules if another task should run. Process context, no locks held.
#[inline]
pub fn cond_resched() {
    // SAFETY: No requirements beyond the context.
    unsafe { bindings::wg_cond_resched() };
}
