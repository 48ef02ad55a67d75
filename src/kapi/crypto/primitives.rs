// SPDX-License-Identifier: GPL-2.0-only

//! ChaCha20 and Poly1305 as such.
//!
//! C headers: [`include/crypto/chacha.h`](srctree/include/crypto/chacha.h),
//! [`include/crypto/poly1305.h`](srctree/include/crypto/poly1305.h)

use core::mem::MaybeUninit;

use super::KernelCrypto;
use crate::{
    bindings,
    proto::{
        consts::TAG_LEN,
        packet_aead::{ChaCha20, Primitives},
    },
};

/// More than C takes at a time, and a multiple of a block.
const PIECE: usize = 1 << 30;
const ROUNDS: i32 = 20;

impl Primitives for KernelCrypto {
    #[inline]
    fn chacha20(state: &mut ChaCha20, data: &mut [u8]) {
        const { assert!(size_of::<bindings::chacha_state>() == size_of::<ChaCha20>()) };
        for piece in data.chunks_mut(PIECE) {
            let bytes = piece.as_mut_ptr();
            // CAST: C's state is a struct of nothing but these words.
            let state = (&raw mut state.0).cast();
            // SAFETY: The state and the bytes are valid and exclusively borrowed; the function may
            // work in place.
            unsafe { bindings::chacha_crypt(state, bytes, bytes, piece.len() as u32, ROUNDS) };
        }
    }

    #[inline]
    fn poly1305(key: &[u8; 32], message: [&[u8]; 2]) -> [u8; TAG_LEN] {
        let mut context = MaybeUninit::uninit();
        let mut tag = [0; TAG_LEN];
        // SAFETY: The first call initialises the context, with a key of that length; the last one
        // writes a tag of that length and erases the context.
        unsafe {
            bindings::poly1305_init(context.as_mut_ptr(), key.as_ptr());
            for piece in message.into_iter().flat_map(|part| part.chunks(PIECE)) {
                let len = piece.len() as u32;
                bindings::poly1305_update(context.as_mut_ptr(), piece.as_ptr(), len);
            }
            bindings::poly1305_final(context.as_mut_ptr(), tag.as_mut_ptr());
        }
        tag
    }
}
