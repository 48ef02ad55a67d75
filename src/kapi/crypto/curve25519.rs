// SPDX-License-Identifier: GPL-2.0-only

//! X25519 (RFC 7748). The C functions clamp the scalar.
//!
//! C header: [`include/crypto/curve25519.h`](srctree/include/crypto/curve25519.h)

use crate::{
    bindings,
    proto::crypto::{PublicKey, SecretKey},
};

/// The shared secret; `None` if it is zero, which means that the point has low order.
pub(super) fn shared(secret: &SecretKey, public: &PublicKey) -> Option<SecretKey> {
    let mut shared = SecretKey::zeroed();
    // SAFETY: All pointers are to keys of 32 bytes.
    let nonzero = unsafe {
        bindings::curve25519(
            shared.expose_mut().as_mut_ptr(),
            secret.expose().as_ptr(),
            public.as_ptr(),
        )
    };
    nonzero.then_some(shared)
}

/// The public key of a private key; `None` if the private key is zero.
pub(super) fn public(secret: &SecretKey) -> Option<PublicKey> {
    let mut public = PublicKey::default();
    // SAFETY: Both pointers are to keys of 32 bytes.
    let nonzero = unsafe {
        bindings::curve25519_generate_public(public.as_mut_ptr(), secret.expose().as_ptr())
    };
    nonzero.then_some(public)
}
