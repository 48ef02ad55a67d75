// SPDX-License-Identifier: GPL-2.0

//! CPU numbers. CPUs may come and go at any time: what these functions give are hints.
//!
//! C header: [`include/linux/cpumask.h`](srctree/include/linux/cpumask.h)

use kernel::cpu::CpuId;

use crate::bindings;

/// One more than the highest CPU number that can occur.
#[inline]
pub fn nr_ids() -> u32 {
    kernel::cpu::nr_cpu_ids()
}

/// The number of CPUs that are online.
#[inline]
pub fn online_count() -> u32 {
    // SAFETY: No requirements.
    unsafe { bindings::wg_num_online_cpus() }
}

/// The CPU that is online and has the next number after `after`, starting over after the last.
///
/// `after` may be any number. The result is always below [`nr_ids`].
pub fn next_online(after: u32) -> u32 {
    // SAFETY: No requirements.
    unsafe { bindings::wg_next_online_cpu(after) }
}

/// The CPU that we run on, unless we are moved meanwhile.
#[inline]
pub fn current() -> u32 {
    CpuId::current().as_u32()
}
