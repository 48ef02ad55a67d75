// SPDX-License-Identifier: GPL-2.0-only

//! The machine's memory, and how it is asked for.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use kernel::alloc::{flags::GFP_KERNEL, Flags};

use crate::bindings;

/// As `GFP_KERNEL`, and waits until there is memory: for a few small objects in the middle of what
/// cannot be taken back. Process context.
pub fn gfp_never_fails() -> Flags {
    const {
        assert!(size_of::<Flags>() == size_of::<u32>());
        assert!(align_of::<Flags>() == align_of::<u32>());
    }
    // The kernel crate has no name for it yet.
    // SAFETY: `Flags` is a struct of one `u32`, as just asserted, and any flags of C are valid.
    let never_fails = unsafe { core::mem::transmute::<u32, Flags>(bindings::GFP_NOFAIL) };
    GFP_KERNEL | never_fails
}

/// Bytes of memory that the kernel manages; may change at run time. Any context.
pub fn total_bytes() -> u64 {
    // SAFETY: No requirements.
    unsafe { bindings::wg_totalram_bytes() }
}
