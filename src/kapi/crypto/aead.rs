// SPDX-License-Identifier: GPL-2.0-only

//! ChaCha20-Poly1305 (RFC 8439) and XChaCha20-Poly1305 over plain byte slices.
//!
//! C header: [`include/crypto/chacha20poly1305.h`](srctree/include/crypto/chacha20poly1305.h)

use core::ptr;

use crate::bindings;

/// Bytes of a key.
const KEY: usize = bindings::chacha20poly1305_lengths_CHACHA20POLY1305_KEY_SIZE as usize;
/// Bytes of the authentication tag at the end of a ciphertext.
pub const TAG: usize = bindings::chacha20poly1305_lengths_CHACHA20POLY1305_AUTHTAG_SIZE as usize;
/// Bytes of an extended nonce.
const XNONCE: usize = bindings::chacha20poly1305_lengths_XCHACHA20POLY1305_NONCE_SIZE as usize;

/// Whether `ciphertext` is as long as `plaintext` plus a tag.
fn lengths_fit(plaintext: &[u8], ciphertext: &[u8]) -> bool {
    plaintext.len().checked_add(TAG) == Some(ciphertext.len())
}

/// Encrypts `src` into `dst`, which is longer by a tag. The nonce is four zero bytes followed by
/// `nonce` in little endian. False, with nothing written, if the lengths do not match.
#[must_use]
pub(super) fn seal(dst: &mut [u8], src: &[u8], ad: &[u8], nonce: u64, key: &[u8; KEY]) -> bool {
    if !lengths_fit(src, dst) {
        return false;
    }
    // SAFETY: All pointers are valid for their lengths; `dst` has room for the tag.
    unsafe {
        bindings::chacha20poly1305_encrypt(
            dst.as_mut_ptr(),
            src.as_ptr(),
            src.len(),
            ad.as_ptr(),
            ad.len(),
            nonce,
            key.as_ptr(),
        )
    };
    true
}

/// Decrypts `src` into `dst`, which is shorter by a tag. False if authentication fails or the
/// lengths do not match; the contents of `dst` are unspecified then.
#[must_use]
pub(super) fn open(dst: &mut [u8], src: &[u8], ad: &[u8], nonce: u64, key: &[u8; KEY]) -> bool {
    if !lengths_fit(dst, src) {
        return false;
    }
    // SAFETY: All pointers are valid for their lengths; `dst` has room for all but the tag.
    unsafe {
        bindings::chacha20poly1305_decrypt(
            dst.as_mut_ptr(),
            src.as_ptr(),
            src.len(),
            ad.as_ptr(),
            ad.len(),
            nonce,
            key.as_ptr(),
        )
    }
}

/// Encrypts `buffer` in place, but for its last [`TAG`] bytes, which become the tag. The nonce is
/// four zero bytes and `nonce` in little endian. False, with nothing done, if it is too short.
#[inline]
#[must_use]
pub fn seal_in_place(buffer: &mut [u8], nonce: u64, key: &[u8; KEY]) -> bool {
    let Some(len) = buffer.len().checked_sub(TAG) else {
        return false;
    };
    let data = buffer.as_mut_ptr();
    // SAFETY: `data` is valid for `len` bytes and the tag; the function may work in place.
    unsafe {
        bindings::chacha20poly1305_encrypt(data, data, len, ptr::null(), 0, nonce, key.as_ptr())
    };
    true
}

/// Decrypts in place what [`seal_in_place`] has made. False if it does not authenticate or is too
/// short; `buffer` is worthless then.
#[inline]
#[must_use]
pub fn open_in_place(buffer: &mut [u8], nonce: u64, key: &[u8; KEY]) -> bool {
    let data = buffer.as_mut_ptr();
    // SAFETY: `data` is valid for the length of `buffer`, tag included, which the function checks;
    // it may work in place.
    unsafe {
        bindings::chacha20poly1305_decrypt(
            data,
            data,
            buffer.len(),
            ptr::null(),
            0,
            nonce,
            key.as_ptr(),
        )
    }
}

/// As [`seal`], with XChaCha20.
#[must_use]
pub(super) fn xseal(
    dst: &mut [u8],
    src: &[u8],
    ad: &[u8],
    nonce: &[u8; XNONCE],
    key: &[u8; KEY],
) -> bool {
    if !lengths_fit(src, dst) {
        return false;
    }
    // SAFETY: All pointers are valid for their lengths; `dst` has room for the tag.
    unsafe {
        bindings::xchacha20poly1305_encrypt(
            dst.as_mut_ptr(),
            src.as_ptr(),
            src.len(),
            ad.as_ptr(),
            ad.len(),
            nonce.as_ptr(),
            key.as_ptr(),
        )
    };
    true
}

/// As [`open`], with XChaCha20.
#[must_use]
pub(super) fn xopen(
    dst: &mut [u8],
    src: &[u8],
    ad: &[u8],
    nonce: &[u8; XNONCE],
    key: &[u8; KEY],
) -> bool {
    if !lengths_fit(dst, src) {
        return false;
    }
    // SAFETY: All pointers are valid for their lengths; `dst` has room for all but the tag.
    unsafe {
        bindings::xchacha20poly1305_decrypt(
            dst.as_mut_ptr(),
            src.as_ptr(),
            src.len(),
            ad.as_ptr(),
            ad.len(),
            nonce.as_ptr(),
            key.as_ptr(),
        )
    }
}
