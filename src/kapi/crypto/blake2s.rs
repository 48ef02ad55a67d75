// SPDX-License-Identifier: GPL-2.0-only

//! BLAKE2s (RFC 7693).
//!
//! C header: [`include/crypto/blake2s.h`](srctree/include/crypto/blake2s.h)

use crate::{bindings, proto::crypto::Hash};

/// Bytes of a full hash.
const HASH: usize = bindings::blake2s_lengths_BLAKE2S_HASH_SIZE as usize;
/// The longest key.
const MAX_KEY: usize = bindings::blake2s_lengths_BLAKE2S_KEY_SIZE as usize;

/// The state of an unkeyed BLAKE2s-256.
pub struct Blake2s(bindings::blake2s_ctx);

impl Hash for Blake2s {
    fn new() -> Self {
        let mut ctx = bindings::blake2s_ctx {
            h: [0; 8],
            t: [0; 2],
            f: [0; 2],
            buf: [0; 64],
            buflen: 0,
            outlen: 0,
        };
        // SAFETY: The pointer is valid for writes.
        unsafe { bindings::wg_blake2s_init(&raw mut ctx, HASH) };
        Self(ctx)
    }

    fn update(&mut self, data: &[u8]) {
        // SAFETY: The context is initialised; the pointer and the length are those of a slice.
        unsafe { bindings::blake2s_update(&raw mut self.0, data.as_ptr(), data.len()) };
    }

    fn finalize(mut self) -> [u8; HASH] {
        let mut hash = [0; HASH];
        // SAFETY: The context is initialised, and `hash` has the length given to `init`.
        unsafe { bindings::blake2s_final(&raw mut self.0, hash.as_mut_ptr()) };
        hash
    }
}

/// Keyed BLAKE2s with `N` bytes of output; bytes beyond 32 are zero. The key is cut off at 32
/// bytes.
pub(super) fn keyed<const N: usize>(key: &[u8], data: &[u8]) -> [u8; N] {
    let key = key.get(..MAX_KEY).unwrap_or(key);
    let mut hash = [0; N];
    // SAFETY: All pointers are valid for their lengths, and neither key nor hash exceeds the limit.
    unsafe {
        bindings::wg_blake2s(
            key.as_ptr(),
            key.len(),
            data.as_ptr(),
            data.len(),
            hash.as_mut_ptr(),
            N.min(HASH),
        )
    };
    hash
}
