// SPDX-License-Identifier: GPL-2.0-only

//! Random numbers. All functions may be called in any context.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h)

use crate::bindings;

/// Whether the generator has been seeded. Until then its output must not be used for keys.
pub fn is_ready() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::rng_is_initialized() }
}

/// Fills `bytes` with random bytes, cryptographically secure once [`is_ready`].
pub fn fill(bytes: &mut [u8]) {
    // SAFETY: The pointer and the length are those of a slice.
    unsafe { bindings::get_random_bytes(bytes.as_mut_ptr().cast(), bytes.len()) };
}

/// A random number.
pub fn u32() -> u32 {
    // SAFETY: No requirements.
    unsafe { bindings::get_random_u32() }
}

/// A uniformly distributed random number below `ceil`; 0 if `ceil` is 0.
pub fn u32_below(ceil: u32) -> u32 {
    if ceil <= 1 {
        return 0;
    }
    // SAFETY: No requirements.
    unsafe { bindings::__get_random_u32_below(ceil) }
}
