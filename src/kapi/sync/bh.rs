// SPDX-License-Identifier: GPL-2.0-only

//! Disabling bottom halves.
//!
//! C header: [`include/linux/bottom_half.h`](srctree/include/linux/bottom_half.h)

use kernel::types::NotThreadSafe;

use crate::bindings;

/// Proof that bottom halves (softirqs) are disabled on this CPU, which makes this an RCU read
/// section.
///
/// With `PREEMPT_RT` the holder can be preempted and may sleep on spin locks, but is not migrated.
///
/// # Invariants
///
/// Bottom halves are disabled while an instance exists. The type is not [`Send`]: the state belongs
/// to the current thread.
#[must_use = "bottom halves are enabled again when the guard is dropped"]
pub struct BhGuard(NotThreadSafe);

/// Disables bottom halves until the guard is dropped. Nests.
///
/// Not in hard interrupts, nor with interrupts disabled.
#[inline]
pub fn disable() -> BhGuard {
    // SAFETY: No requirements beyond the context, where the C function would only warn.
    unsafe { bindings::wg_local_bh_disable() };
    // INVARIANT: Just disabled.
    BhGuard(NotThreadSafe)
}

impl Drop for BhGuard {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant this undoes a `local_bh_disable()` of this thread.
        unsafe { bindings::wg_local_bh_enable() };
    }
}
