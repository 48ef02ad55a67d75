// SPDX-License-Identifier: GPL-2.0

//! ChaCha20-Poly1305 (RFC 8439) and XChaCha20-Poly1305 over plain byte slices.
//!
//! C header: [`include/crypto/chacha20poly1305.h`](srctree/include/crypto/chacha20poly1305.h)

use crate::bindings;

/// Bytes of a key.
const KEY: usize = bindings::chacha20poly1305_lengths_CHACHA20POLY1305_KEY_SIZE as usize;
/// Bytes of the authentication tag behind a ciphertext.
const TAG: usize = bindings::chacha20poly1305_lengths_CHACHA20POLY1305_AUTHTAG_SIZE as usize;
/// Bytes of an extended nonce.
const XNONCE: usize = bindings::chacha20poly1305_lengths_XCHACHA20POLY1305_NONCE_SIZE as usize;

/// Whether `ciphertext` is as long as `plaintext` and a tag.
fn lengths_fit(plaintext: &[u8], ciphertext: &[u8]) -> bool {
    plaintext.len().checked_add(TAG) == Some(ciphertext.len())
}

/// Encrypts `src` to `dst`, which is a tag longer. The nonce is four zero bytes and `nonce` in
/// little endian. False, with nothing done, if the lengths do not fit.
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

/// Decrypts `src` to `dst`, which is a tag shorter. False if it does not authenticate, or the
/// lengths do not fit; `dst` is worthless then.
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
