// SPDX-License-Identifier: GPL-2.0-only

//! The machine's memory.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::bindings;

/// Bytes of memory that the kernel manages; may change at run time. Any context.
pub fn total_bytes() -> u64 {
    // SAFETY: No requirements.
    unsafe { bindings::wg_totalram_bytes() }
}
