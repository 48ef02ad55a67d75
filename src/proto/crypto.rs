// SPDX-License-Identifier: GPL-2.0-only

//! The interface to the cryptographic functions that the protocol needs, and the type that holds
//! secrets.
//!
//! [`Crypto`] is implemented with the kernel's crypto library in the module and with RustCrypto
//! crates on the host.

use core::hint::black_box;
use core::sync::atomic::{compiler_fence, Ordering};

use super::consts::{COOKIE_LEN, HASH_LEN, KEY_LEN, XNONCE_LEN};

/// A Curve25519 public key.
pub type PublicKey = [u8; KEY_LEN];
/// A private key, an ephemeral private key or a shared point.
pub type SecretKey = Secret<KEY_LEN>;
/// A ChaCha20-Poly1305 key, a preshared key or a chaining key.
pub type SymmetricKey = Secret<KEY_LEN>;

/// Secret bytes: erased on drop, redacted in `Debug`, copied only explicitly, compared only in
/// constant time.
///
/// Moving a Rust value may leave the old bytes behind on the stack. Code that handles secrets in
/// a long-lived thread calls [`burn_stack`] afterwards.
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// All zeros: no preshared key, or a buffer for a key.
    pub const fn zeroed() -> Self {
        Self([0; N])
    }

    /// Takes the bytes and erases the source.
    pub fn take(bytes: &mut [u8; N]) -> Self {
        let secret = Self(*bytes);
        erase(bytes);
        secret
    }

    /// Copies the bytes; erasing the source is up to the caller.
    pub const fn from_bytes(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a cryptographic function.
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// The bytes, to be overwritten by a cryptographic function.
    pub fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }

    /// A second copy. There is no `Clone`, so that each copy is visible in the source.
    pub const fn duplicate(&self) -> Self {
        Self(self.0)
    }

    /// Overwrites the bytes with zeros in a way that the compiler does not remove.
    pub fn erase(&mut self) {
        erase(&mut self.0);
    }

    /// Whether all bytes are zero, in constant time.
    pub fn is_zero(&self) -> bool {
        black_box(self.0.iter().fold(0, |all, byte| all | byte)) == 0
    }
}

impl Secret<KEY_LEN> {
    /// Clamps a Curve25519 private key (RFC 7748, section 5).
    pub fn clamp(&mut self) {
        let [first, .., last] = &mut self.0;
        *first &= 248;
        *last = (*last & 127) | 64;
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.erase();
    }
}

impl<const N: usize> core::fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<const N: usize> Default for Secret<N> {
    fn default() -> Self {
        Self::zeroed()
    }
}

/// Overwrites `bytes` with zeros in a way that the compiler does not remove.
pub fn erase(bytes: &mut [u8]) {
    bytes.fill(0);
    // The black box makes the zeros count as read, the fence keeps them before what follows.
    black_box(&mut *bytes);
    compiler_fence(Ordering::SeqCst);
}

/// Overwrites the part of the stack that calls from here may have used, where moved secrets and
/// spilled registers would otherwise stay until that part of the stack is reused.
///
/// Call it in the outermost function that handled secrets, after they are dropped. It uses
/// several small frames to stay below the kernel's frame size limit.
#[inline(never)]
pub fn burn_stack() {
    burn_four();
    black_box(());
}

#[inline(never)]
fn burn_four() {
    burn_frame(burn_three);
}

#[inline(never)]
fn burn_three() {
    burn_frame(burn_two);
}

#[inline(never)]
fn burn_two() {
    burn_frame(burn_one);
}

#[inline(never)]
fn burn_one() {
    burn_frame(|| ());
}

#[inline(always)]
fn burn_frame(deeper: impl FnOnce()) {
    let mut frame = [0u8; 896];
    black_box(&mut frame);
    deeper();
    // Used after the call too, so that it cannot become a tail call in the same frame.
    black_box(&mut frame);
}

/// An unkeyed BLAKE2s-256 in progress.
pub trait Hash: Sized {
    /// An empty input.
    fn new() -> Self;

    /// Appends `data` to the input.
    fn update(&mut self, data: &[u8]);

    /// The hash of the input. The implementation erases its state.
    fn finalize(self) -> [u8; HASH_LEN];
}

/// The cryptographic functions of the protocol, as static functions of a type.
///
/// Transport data is not sealed through this trait: the driver does that on its own packet
/// buffers. The trait serves only small messages of known size.
pub trait Crypto {
    /// BLAKE2s-256 without a key.
    type Hash: Hash;

    /// Keyed BLAKE2s with a 16-byte output. `key` has at most 32 bytes.
    fn mac(key: &[u8], data: &[u8]) -> [u8; COOKIE_LEN];

    /// X25519. `None` if the result is all zeros, that is if `public` is a point of low order.
    /// Whether or not `secret` is clamped, the result is that of the clamped scalar.
    fn x25519(secret: &SecretKey, public: &PublicKey) -> Option<SecretKey>;

    /// X25519 with the base point. `None` if `secret` is all zeros.
    fn x25519_base(secret: &SecretKey) -> Option<PublicKey>;

    /// ChaCha20-Poly1305 (RFC 8439) with a nonce of four zero bytes and `nonce` in little
    /// endian. Writes ciphertext and tag to `dst`, which is 16 bytes longer than `src`; with any
    /// other lengths it does nothing and returns false.
    #[must_use]
    fn seal(dst: &mut [u8], src: &[u8], ad: &[u8], nonce: u64, key: &SymmetricKey) -> bool;

    /// The inverse of [`Crypto::seal`]: `src` is 16 bytes longer than `dst`. Returns false if `src`
    /// does not authenticate or the lengths do not fit; the content of `dst` is then unspecified.
    #[must_use]
    fn open(dst: &mut [u8], src: &[u8], ad: &[u8], nonce: u64, key: &SymmetricKey) -> bool;

    /// XChaCha20-Poly1305, otherwise as [`Crypto::seal`].
    #[must_use]
    fn xseal(
        dst: &mut [u8],
        src: &[u8],
        ad: &[u8],
        nonce: &[u8; XNONCE_LEN],
        key: &SymmetricKey,
    ) -> bool;

    /// XChaCha20-Poly1305, otherwise as [`Crypto::open`].
    #[must_use]
    fn xopen(
        dst: &mut [u8],
        src: &[u8],
        ad: &[u8],
        nonce: &[u8; XNONCE_LEN],
        key: &SymmetricKey,
    ) -> bool;

    /// Whether the two are equal, in time that depends only on their lengths.
    fn ct_eq(a: &[u8], b: &[u8]) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_redacted_taken_and_compared() {
        let mut bytes = [7u8; 32];
        let secret = SecretKey::take(&mut bytes);
        assert_eq!(bytes, [0; 32]);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert!(!secret.is_zero());
        assert!(SecretKey::zeroed().is_zero());
        let mut last = [0; 32];
        last[31] = 1;
        assert!(!SecretKey::from_bytes(last).is_zero());
        assert_eq!(secret.duplicate().expose(), secret.expose());
    }

    #[test]
    fn erase_leaves_zeros() {
        let mut secret = SecretKey::from_bytes([9; 32]);
        secret.erase();
        assert_eq!(secret.expose(), &[0; 32]);
        burn_stack();
    }

    #[test]
    fn clamping() {
        let mut secret = SecretKey::from_bytes([0xff; 32]);
        secret.clamp();
        assert_eq!(secret.expose()[0], 0xf8);
        assert_eq!(secret.expose()[31], 0x7f);
        let mut secret = SecretKey::from_bytes([0; 32]);
        secret.clamp();
        assert_eq!(secret.expose()[31], 0x40);
    }
}
