// SPDX-License-Identifier: GPL-2.0-only

//! HMAC-BLAKE2s, the key derivation function and the hash chain of Noise (whitepaper, section
//! 5.4; RFC 2104 and RFC 5869).

use super::consts::HASH_LEN;
use super::crypto::{erase, Crypto, Hash, Secret, SymmetricKey};

/// Size of a BLAKE2s block, in bytes.
const BLOCK_LEN: usize = 64;
const INNER_PAD: u8 = 0x36;
const OUTER_PAD: u8 = 0x5c;

/// BLAKE2s-256 of the concatenation of `parts`.
pub fn hash<C: Crypto>(parts: &[&[u8]]) -> [u8; HASH_LEN] {
    let mut state = C::Hash::new();
    for part in parts {
        state.update(part);
    }
    state.finalize()
}

/// HMAC-BLAKE2s of the concatenation of `parts` under a key of 32 bytes, the only length that
/// the protocol uses.
pub fn hmac<C: Crypto>(key: &Secret<HASH_LEN>, parts: &[&[u8]]) -> Secret<HASH_LEN> {
    let mut block = [0; BLOCK_LEN];
    for (padded, byte) in block.iter_mut().zip(key.expose()) {
        *padded = *byte;
    }

    block.iter_mut().for_each(|byte| *byte ^= INNER_PAD);
    let mut inner = C::Hash::new();
    inner.update(&block);
    for part in parts {
        inner.update(part);
    }
    let mut digest = inner.finalize();

    block
        .iter_mut()
        .for_each(|byte| *byte ^= INNER_PAD ^ OUTER_PAD);
    let mut outer = C::Hash::new();
    outer.update(&block);
    outer.update(&digest);
    erase(&mut block);
    erase(&mut digest);
    Secret::take(&mut outer.finalize())
}

/// KDF1: one output.
pub fn kdf1<C: Crypto>(key: &Secret<HASH_LEN>, input: &[u8]) -> Secret<HASH_LEN> {
    hmac::<C>(&hmac::<C>(key, &[input]), &[&[1]])
}

/// KDF2: two outputs.
pub fn kdf2<C: Crypto>(
    key: &Secret<HASH_LEN>,
    input: &[u8],
) -> (Secret<HASH_LEN>, Secret<HASH_LEN>) {
    let extracted = hmac::<C>(key, &[input]);
    let first = hmac::<C>(&extracted, &[&[1]]);
    let second = hmac::<C>(&extracted, &[first.expose(), &[2]]);
    (first, second)
}

/// KDF3: three outputs.
pub fn kdf3<C: Crypto>(
    key: &Secret<HASH_LEN>,
    input: &[u8],
) -> (Secret<HASH_LEN>, Secret<HASH_LEN>, Secret<HASH_LEN>) {
    let extracted = hmac::<C>(key, &[input]);
    let first = hmac::<C>(&extracted, &[&[1]]);
    let second = hmac::<C>(&extracted, &[first.expose(), &[2]]);
    let third = hmac::<C>(&extracted, &[second.expose(), &[3]]);
    (first, second, third)
}

/// Mixes `data` into the running hash.
pub fn mix_hash<C: Crypto>(running: &mut [u8; HASH_LEN], data: &[u8]) {
    *running = hash::<C>(&[running, data]);
}

/// Mixes `input` into the chaining key, with no other output.
pub fn mix_chain<C: Crypto>(chaining_key: &mut Secret<HASH_LEN>, input: &[u8]) {
    *chaining_key = kdf1::<C>(chaining_key, input);
}

/// Mixes `input` into the chaining key and returns a key.
pub fn mix_key<C: Crypto>(chaining_key: &mut Secret<HASH_LEN>, input: &[u8]) -> SymmetricKey {
    let (chain, key) = kdf2::<C>(chaining_key, input);
    *chaining_key = chain;
    key
}

/// Mixes the preshared key into the chaining key and the running hash and returns a key.
pub fn mix_psk<C: Crypto>(
    chaining_key: &mut Secret<HASH_LEN>,
    running: &mut [u8; HASH_LEN],
    psk: &SymmetricKey,
) -> SymmetricKey {
    let (chain, to_hash, key) = kdf3::<C>(chaining_key, psk.expose());
    *chaining_key = chain;
    mix_hash::<C>(running, to_hash.expose());
    key
}
