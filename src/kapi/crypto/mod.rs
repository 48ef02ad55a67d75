// SPDX-License-Identifier: GPL-2.0-only

//! The protocol's [`Crypto`] on the kernel's cryptographic library. Process and softirq context.

pub mod aead;
mod blake2s;
mod curve25519;
mod primitives;

use crate::{
    bindings,
    proto::{
        consts::{COOKIE_LEN, XNONCE_LEN},
        crypto::{Crypto, PublicKey, SecretKey, SymmetricKey},
    },
};

pub use blake2s::Blake2s;

/// The protocol's cryptography, by the kernel's library.
pub struct KernelCrypto;

impl Crypto for KernelCrypto {
    type Hash = Blake2s;

    fn mac(key: &[u8], data: &[u8]) -> [u8; COOKIE_LEN] {
        blake2s::keyed(key, data)
    }

    fn x25519(secret: &SecretKey, public: &PublicKey) -> Option<SecretKey> {
        curve25519::shared(secret, public)
    }

    fn x25519_base(secret: &SecretKey) -> Option<PublicKey> {
        curve25519::public(secret)
    }

    fn seal(dst: &mut [u8], src: &[u8], ad: &[u8], nonce: u64, key: &SymmetricKey) -> bool {
        aead::seal(dst, src, ad, nonce, key.expose())
    }

    fn open(dst: &mut [u8], src: &[u8], ad: &[u8], nonce: u64, key: &SymmetricKey) -> bool {
        aead::open(dst, src, ad, nonce, key.expose())
    }

    fn xseal(
        dst: &mut [u8],
        src: &[u8],
        ad: &[u8],
        nonce: &[u8; XNONCE_LEN],
        key: &SymmetricKey,
    ) -> bool {
        aead::xseal(dst, src, ad, nonce, key.expose())
    }

    fn xopen(
        dst: &mut [u8],
        src: &[u8],
        ad: &[u8],
        nonce: &[u8; XNONCE_LEN],
        key: &SymmetricKey,
    ) -> bool {
        aead::xopen(dst, src, ad, nonce, key.expose())
    }

    fn ct_eq(a: &[u8], b: &[u8]) -> bool {
        if a.len() != b.len() {
            return false;
        }
        // SAFETY: Both pointers are valid for the length, which is that of both.
        unsafe { bindings::wg_crypto_equal(a.as_ptr().cast(), b.as_ptr().cast(), a.len()) }
    }
}
