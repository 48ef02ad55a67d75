// SPDX-License-Identifier: GPL-2.0-only

//! SipHash-2-4, for hash tables whose keys an attacker may choose.
//!
//! C header: [`include/linux/siphash.h`](srctree/include/linux/siphash.h)

use super::random;
use crate::bindings;

/// A secret SipHash key.
pub struct SipKey(bindings::siphash_key_t);

impl SipKey {
    /// A new random key.
    pub fn random() -> Self {
        let mut bytes = [[0; 8]; 2];
        random::fill(bytes.as_flattened_mut());
        Self(bindings::siphash_key_t {
            key: bytes.map(u64::from_ne_bytes),
        })
    }

    /// The hash of `data` under this key. Any context.
    pub fn hash(&self, data: &[u8]) -> u64 {
        // SAFETY: The pointer and the length are those of a slice, and the key is valid.
        unsafe { bindings::wg_siphash(data.as_ptr().cast(), data.len(), &raw const self.0) }
    }
}
