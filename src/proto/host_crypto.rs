// SPDX-License-Identifier: GPL-2.0

//! [`Crypto`] made of the RustCrypto crates, for tests, fuzzing and benches on the host. The
//! module uses the kernel's crypto library instead.

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, XChaCha20Poly1305};
use x25519_dalek::{x25519, X25519_BASEPOINT_BYTES};

use super::consts::{COOKIE_LEN, HASH_LEN, XNONCE_LEN};
use super::crypto::{Crypto, Hash, PublicKey, SecretKey, SymmetricKey};

/// The host's cryptography.
pub struct HostCrypto;

impl Hash for Blake2s256 {
    fn new() -> Self {
        Digest::new()
    }

    fn update(&mut self, data: &[u8]) {
        Digest::update(self, data);
    }

    fn finalize(self) -> [u8; HASH_LEN] {
        Digest::finalize(self).into()
    }
}

impl Crypto for HostCrypto {
    type Hash = Blake2s256;

    fn mac(key: &[u8], data: &[u8]) -> [u8; COOKIE_LEN] {
        match <Blake2sMac<U16> as Mac>::new_from_slice(key) {
            Ok(mut mac) => {
                Mac::update(&mut mac, data);
                mac.finalize_fixed().into()
            }
            Err(_) => unreachable!("no key of the protocol is longer than 32 bytes"),
        }
    }

    fn x25519(secret: &SecretKey, public: &PublicKey) -> Option<SecretKey> {
        let shared = SecretKey::from_bytes(x25519(*secret.expose(), *public));
        (!shared.is_zero()).then_some(shared)
    }

    fn x25519_base(secret: &SecretKey) -> Option<PublicKey> {
        (!secret.is_zero()).then(|| x25519(*secret.expose(), X25519_BASEPOINT_BYTES))
    }

    fn seal(dst: &mut [u8], src: &[u8], ad: &[u8], nonce: u64, key: &SymmetricKey) -> bool {
        let aead = ChaCha20Poly1305::new(key.expose().into());
        put(
            dst,
            aead.encrypt(&wide(nonce).into(), Payload { msg: src, aad: ad }),
        )
    }

    fn open(dst: &mut [u8], src: &[u8], ad: &[u8], nonce: u64, key: &SymmetricKey) -> bool {
        let aead = ChaCha20Poly1305::new(key.expose().into());
        put(
            dst,
            aead.decrypt(&wide(nonce).into(), Payload { msg: src, aad: ad }),
        )
    }

    fn xseal(
        dst: &mut [u8],
        src: &[u8],
        ad: &[u8],
        nonce: &[u8; XNONCE_LEN],
        key: &SymmetricKey,
    ) -> bool {
        let aead = XChaCha20Poly1305::new(key.expose().into());
        put(
            dst,
            aead.encrypt(nonce.into(), Payload { msg: src, aad: ad }),
        )
    }

    fn xopen(
        dst: &mut [u8],
        src: &[u8],
        ad: &[u8],
        nonce: &[u8; XNONCE_LEN],
        key: &SymmetricKey,
    ) -> bool {
        let aead = XChaCha20Poly1305::new(key.expose().into());
        put(
            dst,
            aead.decrypt(nonce.into(), Payload { msg: src, aad: ad }),
        )
    }

    fn ct_eq(a: &[u8], b: &[u8]) -> bool {
        a == b
    }
}

/// The nonce of the protocol: four zero bytes, then the counter in little endian.
fn wide(nonce: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&nonce.to_le_bytes());
    bytes
}

fn put<E>(dst: &mut [u8], result: Result<Vec<u8>, E>) -> bool {
    match result {
        Ok(bytes) if bytes.len() == dst.len() => {
            dst.copy_from_slice(&bytes);
            true
        }
        _ => false,
    }
}
