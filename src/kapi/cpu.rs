// SPDX-License-Identifier: GPL-2.0-only

//! CPU numbers. CPUs may come and go at any time: the results of these functions are hints.
//!
//! C header: [`include/linux/cpumask.h`](srctree/include/linux/cpumask.h)

use crate::bindings;

/// The number of possible CPU numbers: one more than the highest.
#[inline]
pub fn nr_ids() -> u32 {
    kernel::cpu::nr_cpu_ids()
}

/// The CPU that this runs on.
#[inline]
pub fn current() -> u32 {
    kernel::cpu::CpuId::current().as_u32()
}

/// The number of CPUs that are online.
#[inline]
pub fn online_count() -> u32 {
    // SAFETY: No requirements.
    unsafe { bindings::wg_num_online_cpus() }
}

/// Whether a CPU of that number is online.
pub fn is_online(cpu: u32) -> bool {
    next_online(cpu.wrapping_sub(1)) == cpu
}

/// The next online CPU after `after`, wrapping around after the last.
///
/// `after` may be any number; the result is below [`nr_ids`].
pub fn next_online(after: u32) -> u32 {
    // SAFETY: No requirements.
    unsafe { bindings::wg_next_online_cpu(after) }
}
